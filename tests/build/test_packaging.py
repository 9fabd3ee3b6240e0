# SPDX-License-Identifier: BSD-3-Clause
"""One wheel for many torches and Pythons, imports that never die, builds that fail with a reason."""

import re
import shutil
import sys
import sysconfig
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from programs import configure, run, run_checked

import racnn_ops
from racnn_ops import _library

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(racnn_ops.__file__).parent
LIBRARIES = sorted(PACKAGE.glob("*.so"))
OTHER_TORCH = "2.13.0+cpu"

needs_library = pytest.mark.skipif(not _library.has_cpu, reason=f"no compiled library: {_library.cpu_error}")
each_library = pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name)

COMPARE = """
import torch, racnn_ops
images = torch.rand(2, 3, 40, 50)
windows = torch.tensor([[20.0, 18.5, 12.25], [3.0, 30.0, 16.0]])
crops = racnn_ops.attention_crop(images, windows, 24)
expected = racnn_ops.reference.attention_crop(images, windows, 24)
torch.testing.assert_close(crops, expected)
"""


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
    from racnn_ops import _C

    if _C.build_info().startswith("Debug"):
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
    (copy_of_package(tmp_path, libraries=False) / "_C.abi3.so").write_bytes(b"not a shared object")
    assert_reference_answers(tmp_path, "_C.abi3.so")


@needs_library
def test_import_with_half_an_installation_warns_and_works(tmp_path: Path) -> None:
    (copy_of_package(tmp_path, libraries=True) / "libracnn_ops.so").unlink()
    assert_reference_answers(tmp_path, "libracnn_ops.so: cannot open shared object file")


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


# --- A build that cannot have what was asked for -------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        (
            {"RACNN_CUDA": "on", "CUDA_HOME": "/nowhere"},
            "RACNN_CUDA=on (or FORCE_CUDA=1), but no nvcc was found in CUDA_HOME=/nowhere: "
            "set CUDA_HOME to a CUDA toolkit 12.0 or newer, or RACNN_CUDA=off.",
        ),
        (
            {"FORCE_CUDA": "1", "CUDA_HOME": "/nowhere"},
            "RACNN_CUDA=on (or FORCE_CUDA=1), but no nvcc was found in CUDA_HOME=/nowhere",
        ),
        ({"RACNN_CUDA": "yes"}, "RACNN_CUDA is 'yes': set it to auto, on or off."),
        (
            {"TORCH_CUDA_ARCH_LIST": "8.0;Pascal"},
            "TORCH_CUDA_ARCH_LIST contains 'Pascal': set it to architectures such as '8.0;9.0+PTX'",
        ),
    ],
    ids=["no-nvcc", "force-cuda", "bad-choice", "bad-architecture"],
)
def test_build_fails_with_one_sentence(env: dict[str, str], sentence: str, tmp_path: Path) -> None:
    result = configure(ROOT, tmp_path, f"-DRACNN_OUTPUT_DIR={tmp_path}", **env)
    assert result.returncode != 0
    assert sentence in result.stdout


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on PATH")
def test_build_names_an_architecture_that_nvcc_does_not_know(tmp_path: Path) -> None:
    result = configure(ROOT, tmp_path, f"-DRACNN_OUTPUT_DIR={tmp_path}", TORCH_CUDA_ARCH_LIST="3.5")
    assert result.returncode != 0
    assert "asks for compute capability 35" in result.stdout


def test_build_without_torch_says_so(tmp_path: Path) -> None:
    run_checked(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    result = configure(ROOT, tmp_path / "build", f"-DPython_EXECUTABLE={python}")
    assert result.returncode != 0
    assert f"PyTorch was not found by {python}: install torch>=2.10 there" in result.stdout


# --- From the source distribution to a wheel and a C++ package -----------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution."""
    folder = tmp_path_factory.mktemp("sdist")
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    run_checked(sys.executable, "-c", code, cwd=ROOT)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    """A CPU wheel built from it; CMake's build folder stays in `source`."""
    options = ("--no-build-isolation", "--no-deps", "--wheel-dir", source.parent)
    run_checked(sys.executable, "-m", "pip", "wheel", *options, source, RACNN_CUDA="off")
    (built,) = source.parent.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def cmake_build(source: Path, wheel: Path) -> Path:
    (cache,) = source.glob("build/*/CMakeCache.txt")
    return cache.parent


@pytest.mark.parametrize("readme", ["README.md", "racnn/README.md", "CONTRIBUTING.md"])
def test_links_of_the_readmes_lead_somewhere(source: Path, readme: str) -> None:
    text = (source / readme).read_text(encoding="utf-8")
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text)]
    files = [target for target in targets if target and not target.startswith("http")]
    assert files or readme == "CONTRIBUTING.md"
    missing = [file for file in files if not ((source / readme).parent / file).exists()]
    assert not missing


def test_old_setuptools_is_told_in_one_sentence() -> None:
    """Not by what it thinks of pyproject.toml."""
    code = "import runpy, setuptools; setuptools.__version__ = '65.5.0'; runpy.run_path('setup.py')"
    result = run(sys.executable, "-c", code, cwd=ROOT)
    assert result.returncode != 0
    (demanded,) = re.findall(r'"(setuptools>=\d+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert result.stdout.splitlines()[-1].startswith(
        "racnn_ops: setuptools 77 or newer is needed, this is 65.5.0"
    )
    assert f"'{demanded}' cmake ninja" in result.stdout


@pytest.mark.slow
@pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="no abi3 without the GIL")
def test_wheel_serves_every_python(wheel: Path) -> None:
    assert wheel.name.startswith(f"racnn_ops-{racnn_ops.__version__}-cp310-abi3-")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    libraries = {name for name in names if name.endswith(".so")}
    assert libraries == {"racnn_ops/libracnn_ops.so", "racnn_ops/_C.abi3.so"}
    assert {"racnn_ops/py.typed", "racnn_ops/_C.pyi", "racnn_ops/reference.py"} <= names
    information = f"racnn_ops-{racnn_ops.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"racnn_ops", "racnn", information}


@pytest.mark.slow
def test_wheel_runs_under_another_torch(wheel: Path, tmp_path: Path) -> None:
    run_checked(sys.executable, "-m", "venv", tmp_path)
    python = tmp_path / "bin/python"
    installed = run(python, "-m", "pip", "install", "-q", f"torch=={OTHER_TORCH}")
    if installed.returncode != 0:
        pytest.skip(f"torch {OTHER_TORCH} cannot be installed here: {installed.stdout[-200:]}")
    run_checked(python, "-m", "pip", "install", "-q", "--no-deps", wheel)
    code = f"""
{COMPARE}
from racnn_ops import _library
assert torch.__version__ == {OTHER_TORCH!r}, torch.__version__
assert _library.has_cpu and not _library.has_cuda
assert "built without CUDA" in str(_library.cuda_error)
"""
    run_checked(python, "-W", "error::RuntimeWarning", "-c", code, cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_instruction_sets_do_not_leak_into_shared_code(isa: str, cmake_build: Path) -> None:
    """A function that the linker could share with other objects would crash on processors without `isa`."""
    objects = list(cmake_build.glob(f"CMakeFiles/racnn_kernels_{isa}.dir/csrc/cpu/*.o"))
    if not objects:
        pytest.skip(f"{isa} kernels are built on x86-64 only")
    defined = run_checked("nm", "-C", "--defined-only", "--extern-only", *objects)
    functions = re.findall(r"^[0-9a-f]+ [TWu] (.+)$", defined, flags=re.MULTILINE)
    assert functions
    assert not [name for name in functions if f"racnn::cpu::{isa}::" not in name]


@pytest.mark.slow
def test_cpp_programs_find_the_package(cmake_build: Path, tmp_path: Path) -> None:
    run_checked("cmake", "--install", cmake_build, "--prefix", tmp_path / "prefix")
    build = tmp_path / "build"
    configured = configure(ROOT / "tests/build/cpp", build, f"-DCMAKE_PREFIX_PATH={tmp_path / 'prefix'}")
    assert configured.returncode == 0, configured.stdout
    run_checked("cmake", "--build", build)
    assert run_checked(build / "print_taps").split() == ["0*0.5+1*0.5", "2*0.5+3*0.5"]
    assert run_checked(build / "crop_ones").split() == ["4", "4", "4", "4"]
