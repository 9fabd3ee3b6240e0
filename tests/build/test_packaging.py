# SPDX-License-Identifier: BSD-3-Clause
"""Shared objects that need nothing of one torch or Python alone, and imports that never die."""

import re
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from programs import COMPARE, run_checked

import racnn_ops
from racnn_ops import _library

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(racnn_ops.__file__).parent
LIBRARIES = sorted(PACKAGE.glob("*.so"))

needs_library = pytest.mark.skipif(not _library.has_cpu, reason=f"no compiled library: {_library.cpu_error}")
each_library = pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name)


# --- The shared objects that are tested here ---------------------------------------------------------------


@each_library
def test_only_the_stable_abi_of_torch_is_used(library: Path) -> None:
    undefined = run_checked("nm", "-DC", "--undefined-only", library)
    assert not re.findall(r"\b(?:at|c10|torch|caffe2)::.*", undefined)


@each_library
def test_only_c_functions_are_exported(library: Path) -> None:
    exported = run_checked("nm", "-DC", "--defined-only", library)
    assert not re.findall(r"\b(?:racnn|torch)::.*|\bcuda[A-Z].*", exported)


@each_library
def test_no_cuda_runtime_and_no_cpp_part_of_torch_is_needed(library: Path) -> None:
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", run_checked("readelf", "-d", library))
    assert needed
    assert not [
        name for name in needed if name.startswith(("libcudart", "libcuda.", "libc10", "libtorch.so"))
    ]


@each_library
def test_no_path_of_the_builder_is_left(library: Path) -> None:
    if _library.fact("build_info").startswith("Debug"):
        pytest.skip("debug information holds paths")
    assert str(ROOT / "csrc").encode() not in library.read_bytes()


# --- Versions and the report ------------------------------------------------------------------------------


def test_version_is_the_same_everywhere() -> None:
    assert racnn_ops.__version__ == version("racnn-ops")


@needs_library
def test_report_names_versions_and_libraries() -> None:
    report = run_checked(sys.executable, "-m", "racnn_ops")
    facts = dict(re.findall(r"^([^:]+): +(.+)$", report, flags=re.MULTILINE))
    assert facts["racnn_ops"].startswith(racnn_ops.__version__)
    assert torch.__version__ in facts["torch"]
    assert re.fullmatch(r"loaded, (baseline|avx2|avx512) kernels, \d+ threads", facts["CPU library"])
    assert facts["CUDA library"] == ("loaded" if _library.has_cuda else f"not loaded: {_library.cuda_error}")
    assert re.match(r"CUDA \d+\.\d+.*sm_\d+|not built: ", facts["CUDA build"])


@needs_library
def test_cpu_capability_can_be_limited() -> None:
    report = run_checked(sys.executable, "-m", "racnn_ops", RACNN_CPU_CAPABILITY="baseline")
    assert "loaded, baseline kernels" in report


# --- Import without a working library ----------------------------------------------------------------------


def copy_of_package(folder: Path, libraries: bool) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", *([] if libraries else ["*.so"]))
    return shutil.copytree(PACKAGE, folder / "racnn_ops", ignore=ignored)


def assert_reference_answers(folder: Path, cause: str) -> None:
    code = f"""
import re, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import racnn_ops
messages = [str(w.message) for w in caught if w.category is RuntimeWarning]
assert racnn_ops.__file__.startswith({str(folder)!r}), racnn_ops.__file__
assert len(messages) == 1 and re.search({cause!r}, messages[0]) and "reference" in messages[0], messages
{COMPARE}
from racnn_ops.__main__ import report
assert "CPU library:   not loaded: " in report(), report()
"""
    run_checked(sys.executable, "-c", code, cwd=folder, PYTHONPATH=str(folder))


def test_import_without_library_warns_and_works(tmp_path: Path) -> None:
    copy_of_package(tmp_path, libraries=False)
    assert_reference_answers(tmp_path, "not built")


def test_import_with_unreadable_library_warns_and_works(tmp_path: Path) -> None:
    (copy_of_package(tmp_path, libraries=False) / _library.LIBRARY.name).write_bytes(b"not a shared object")
    assert_reference_answers(tmp_path, "libracnn_ops.so")


@needs_library
def test_cut_off_library_warns_and_works(tmp_path: Path) -> None:
    """A download that broke off; the dynamic linker would end the process with SIGBUS."""
    library = copy_of_package(tmp_path, libraries=True) / "libracnn_ops.so"
    library.write_bytes(library.read_bytes()[: library.stat().st_size * 2 // 3])
    assert_reference_answers(tmp_path, "libracnn_ops.so is cut off")


@needs_library
@pytest.mark.skipif(not _library.has_cuda, reason=f"no CUDA library: {_library.cuda_error}")
def test_cut_off_cuda_library_leaves_the_cpu_kernels(tmp_path: Path) -> None:
    library = copy_of_package(tmp_path, libraries=True) / "libracnn_ops_cuda.so"
    library.write_bytes(library.read_bytes()[: library.stat().st_size * 2 // 3])
    code = "from racnn_ops import _library as l; assert l.has_cpu and not l.has_cuda; print(l.cuda_error)"
    output = run_checked(sys.executable, "-W", "error", "-c", code, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert "libracnn_ops_cuda.so is cut off" in output


@needs_library
def test_second_library_in_one_process_is_not_used(tmp_path: Path) -> None:
    second = copy_of_package(tmp_path, libraries=True) / "libracnn_ops.so"
    first = PACKAGE / second.name
    code = f"import racnn_ops, torch; torch.ops.load_library({str(second)!r}){COMPARE}"
    output = run_checked(sys.executable, "-c", code)
    assert f"{second} is not used: the operators are those of {first}" in output
    code = f"import torch; torch.ops.load_library({str(PACKAGE / second.name)!r})"
    code += f"\nimport sys; sys.path.insert(0, {str(tmp_path)!r})"
    output = run_checked(sys.executable, "-c", f"{code}{COMPARE}", cwd=tmp_path)
    assert f"{first} is in this process already, and its operators are not of {second.parent}" in output


@needs_library
def test_import_again_is_harmless() -> None:
    code = "import importlib, racnn_ops; importlib.reload(racnn_ops)" + COMPARE
    run_checked(sys.executable, "-W", "error::RuntimeWarning", "-c", code)
