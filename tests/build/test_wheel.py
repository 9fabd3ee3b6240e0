# SPDX-License-Identifier: BSD-3-Clause
"""From the source distribution to a wheel for many torches and Pythons, and to a C++ package."""

import itertools
import os
import platform
import re
import shutil
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import torch
from kernel_resources import find_nvcc
from programs import COMPARE, configure, run, run_checked

import racnn_ops

ROOT = Path(__file__).resolve().parents[2]
OTHER_TORCH = "2.13.0+cpu"
PLATFORM = f"manylinux_2_28_{platform.machine()}"


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
    """A CPU wheel built from it as `make wheel` does; the kernels come out of build/ if they are the same.

    CMake's build folder stays in `source`.
    """
    options = ("--no-build-isolation", "--no-deps", "--wheel-dir", source.parent)
    launcher = f"{sys.executable};{Path(__file__).with_name('reuse_kernels.py')}"
    variables = {"RACNN_CUDA": "off", "RACNN_GLIBC": "2.28", "CMAKE_CXX_COMPILER_LAUNCHER": launcher}
    run_checked(sys.executable, "-m", "pip", "wheel", *options, source, **variables)
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
def test_wheel_serves_every_python(wheel: Path) -> None:
    assert wheel.name == (f"racnn_ops-{racnn_ops.__version__}-py3-none-{PLATFORM}.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    libraries = {name for name in names if name.endswith(".so")}
    assert libraries == {"racnn_ops/libracnn_ops.so"}
    assert {"racnn_ops/py.typed", "racnn_ops/reference.py"} <= names
    information = f"racnn_ops-{racnn_ops.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"racnn_ops", "racnn", information}


@pytest.mark.slow
def test_wheel_runs_on_old_systems(wheel: Path, tmp_path: Path) -> None:
    """Nothing is called that glibc 2.28 and the libstdc++ of its time lack; of Python nothing at all."""
    pytest.importorskip("auditwheel")
    options = ("--plat", PLATFORM, "--exclude", "libtorch*", "--wheel-dir", tmp_path / "audited")
    run_checked(sys.executable, "-m", "auditwheel", "repair", *options, wheel)
    with zipfile.ZipFile(wheel) as archive:
        library = archive.extract("racnn_ops/libracnn_ops.so", tmp_path)
    undefined = run_checked("nm", "-D", "--undefined-only", library)
    assert "@GLIBC_" in undefined
    assert not re.findall(r"\bPy\w+", undefined)


@pytest.mark.slow
def test_cuda_runtime_runs_on_old_systems(tmp_path: Path) -> None:
    """It alone needs threads and shared memory, which were libraries of their own before glibc 2.34."""
    nvcc = find_nvcc()
    if nvcc is None:
        pytest.skip("nvcc was not found: set CUDA_HOME")
    options = (f"-DCMAKE_CUDA_COMPILER={nvcc}", "-DRACNN_GLIBC=2.28")
    configured = configure(ROOT / "tests/build/glibc", tmp_path, *options)
    assert configured.returncode == 0, configured.stdout
    run_checked("cmake", "--build", tmp_path)
    needed = run_checked("readelf", "--version-info", tmp_path / "libcount_devices.so")
    versions = {tuple(map(int, match.split("."))) for match in re.findall(r"\bGLIBC_([\d.]+)", needed)}
    assert (2, 2, 5) <= max(versions) <= (2, 28)


@pytest.mark.slow
def test_hub_folder_is_loaded_beside_the_package(wheel: Path, tmp_path: Path) -> None:
    """By Hugging Face's ``kernels``, without the network, with operators of its own."""
    pytest.importorskip("kernels")
    tool, hub = ROOT / "tools/hub.py", tmp_path / "hub"
    run_checked(sys.executable, tool, wheel, "--output", hub)
    assert {file.name for file in hub.iterdir()} == {"build", "build.toml", "CARD.md"}
    again = run(sys.executable, tool, wheel, "--output", hub)
    assert again.returncode == 2
    assert "--output must be a new folder" in again.stdout
    code = f"""
from pathlib import Path
import kernels, racnn_ops as installed
racnn_ops = kernels.get_local_kernel(Path({str(hub)!r}), backend="cpu")
{COMPARE.replace("import torch, racnn_ops", "import torch")}
assert racnn_ops._library.has_cpu and installed._library.has_cpu
assert racnn_ops._library.NAMESPACE.startswith("racnn_ops_")
assert installed._library.NAMESPACE == "racnn_ops"
compiled = torch.compile(racnn_ops.attention_crop, backend="aot_eager")
assert torch.equal(crops, compiled(images, windows.requires_grad_(), 24))
compiled(images, windows, 24).sum().backward()
"""
    run_checked(sys.executable, "-W", "error::RuntimeWarning", "-c", code, cwd=tmp_path, HF_HUB_OFFLINE="1")


def other_python() -> str | None:
    """One of another version than this."""
    this = f"{sys.version_info.major}.{sys.version_info.minor}"
    for version in ("3.14", "3.13", "3.12", "3.11", "3.10"):
        folders = [Path.home().glob(f".pyenv/versions/{version}.*/bin/python"), [f"python{version}"]]
        for python in map(str, itertools.chain(*folders)):
            if (
                version != this
                and shutil.which(python)
                and run(python, "-c", "import ctypes").returncode == 0
            ):
                return python
    return None


@pytest.mark.slow
def test_wheel_runs_under_another_python(wheel: Path, tmp_path: Path) -> None:
    """With this torch's version for it, and the pure packages of this Python."""
    python = other_python()
    if python is None:
        pytest.skip("there is no other Python here")
    version = torch.__version__.split("+")[0]
    target = ("--no-deps", "--target", tmp_path, f"torch=={version}", "typing_extensions", "numpy")
    installed = run(python, "-m", "pip", "install", "-q", *target)
    if installed.returncode != 0:
        pytest.skip(f"torch {version} cannot be installed for {python}: {installed.stdout[-200:]}")
    run_checked(python, "-m", "pip", "install", "-q", "--no-deps", "--target", tmp_path, wheel)
    paths = os.pathsep.join([str(tmp_path), sysconfig.get_path("purelib")])
    code = f"import sys; assert sys.version_info[:2] != {sys.version_info[:2]}{COMPARE}"
    run_checked(python, "-W", "error::RuntimeWarning:racnn_ops", "-c", code, cwd=tmp_path, PYTHONPATH=paths)


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
