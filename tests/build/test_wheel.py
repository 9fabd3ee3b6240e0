# SPDX-License-Identifier: BSD-3-Clause
"""From the source distribution to a wheel for many torches and Pythons, and to a C++ package."""

import re
import shutil
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from programs import COMPARE, configure, run, run_checked

import racnn_ops

ROOT = Path(__file__).resolve().parents[2]
OTHER_TORCH = "2.13.0+cpu"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution."""
    folder = tmp_path_factory.mktemp("sdist")
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    run_checked(sys.executable, "-c", code, cwd=ROOT)
    (archive,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(archive, folder)
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    """A CPU wheel built from it, for debugging: that compiles in half the time.

    CMake's build folder stays in `source`.
    """
    options = ("--no-build-isolation", "--no-deps", "--wheel-dir", source.parent)
    run_checked(sys.executable, "-m", "pip", "wheel", *options, source, RACNN_CUDA="off", DEBUG="1")
    (built,) = source.parent.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def cmake_build(source: Path, wheel: Path) -> Path:
    (cache,) = source.glob("build/*/CMakeCache.txt")
    return cache.parent


@pytest.mark.parametrize(
    "readme",
    [
        "README.md",
        "racnn/README.md",
        "racnn/REFERENCE.md",
        "racnn_ops/README.md",
        "racnn_ops/REPLACES.md",
        "CONTRIBUTING.md",
        "docs/conventions.md",
        "docs/getting_started.md",
        "docs/how_it_works.md",
        "docs/stability.md",
    ],
)
def test_links_of_the_readmes_lead_somewhere(source: Path, readme: str) -> None:
    text = (source / readme).read_text(encoding="utf-8")
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text)]
    files = [target for target in targets if target and not target.startswith("http")]
    assert files or readme == "CONTRIBUTING.md"
    missing = [file for file in files if not ((source / readme).parent / file).exists()]
    assert not missing


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
@pytest.mark.parametrize("optimised", [False, True])
@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_instruction_sets_do_not_leak_into_shared_code(isa: str, optimised: bool, cmake_build: Path) -> None:
    """A function that the linker could share with other objects would crash on processors without `isa`."""
    folder = ROOT / "build" if optimised else cmake_build
    objects = list(folder.glob(f"CMakeFiles/racnn_kernels_{isa}.dir/csrc/cpu/*.o"))
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
