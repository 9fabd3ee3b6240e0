# SPDX-License-Identifier: BSD-3-Clause
"""Builds the emulated kernels, once for each sanitizer, and runs Python scripts under a sanitizer.

``python tests/emulation/build.py [none|address|thread|trace]`` builds by hand.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

SANITIZERS = ("none", "address", "thread", "trace")

_SOURCE = Path(__file__).resolve().parent
_ROOT = _SOURCE.parents[1]
_RUNTIMES = {"none": (), "address": ("libasan.so", "libstdc++.so"), "thread": ("libtsan.so",), "trace": ()}


class CannotBuild(Exception):
    """What is missing on this machine."""


@cache
def build(sanitizer: str, root: Path = _ROOT, *options: str) -> Path:
    """The folder with the built modules ``emulated_kernels`` and ``planted_faults``.

    root: where ``csrc`` and ``tests/emulation`` are.
    """
    try:
        import pybind11
    except ImportError as error:
        raise CannotBuild("pybind11 is not installed") from error
    folder = root / "build" / f"emulation-{sanitizer}"
    options = (f"-DRACNN_SANITIZER={sanitizer}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", *options)
    target = "emulated_kernels" if sanitizer == "trace" else "all"
    try:
        cmake_build(root / "tests" / "emulation", folder, *options, target=target)
    except RuntimeError as error:
        if "Could not find CUDA_HOST_HEADERS" in str(error):
            raise CannotBuild("CUDA's host headers (cuda_fp16.h) were not found; set CUDA_HOME") from error
        raise
    return folder


def cmake_build(source: Path, folder: Path, *options: str, target: str = "all") -> None:
    """Configure and build `source` in `folder`; what is up to date is left as it is."""
    where = ["-S", str(source), "-B", str(folder), "-G", "Ninja", f"-DPython_EXECUTABLE={sys.executable}"]
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _run(["cmake", *where, *options])
    build_target(folder, target)


def build_target(folder: Path, target: str) -> None:
    """Build in a folder that is configured."""
    jobs = os.environ.get("MAX_JOBS", str(os.cpu_count() or 1))
    with _locked(folder):
        _run(["cmake", "--build", str(folder), "--target", target, "-j", jobs])


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Other workers of the same test run build there too."""
    for tool in ("cmake", "ninja"):
        if shutil.which(tool) is None:
            raise CannotBuild(f"{tool} is not installed")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def python(sanitizer: str, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python with the modules of one build on its path and the sanitizer's runtime loaded first.

    folder: that of another build than ``build(sanitizer)``.
    """
    folder = folder or build(sanitizer)
    runtimes = [runtime(folder, name) for name in _RUNTIMES[sanitizer]]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (folder, _SOURCE.parent, _ROOT / "tools"))),
        "PYTHONMALLOC": "malloc",  # every object its own red zones
        "LD_PRELOAD": ":".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": "exitcode=66",
        "OPENBLAS_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def runtime(folder: Path, name: str) -> str:
    """The path of a sanitizer's runtime, or of libstdc++, of the compiler that `folder` was built with."""
    compiler = re.search(r"CMAKE_CXX_COMPILER:\w+=(.+)", (folder / "CMakeCache.txt").read_text())
    assert compiler is not None
    path = _run([compiler[1], f"-print-file-name={name}"]).strip()
    if not os.path.isabs(path):
        raise CannotBuild(f"{compiler[1]} has no {name}")
    return path


def _run(command: list[str]) -> str:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stdout}")
    return result.stdout


if __name__ == "__main__":
    for chosen in sys.argv[1:] or SANITIZERS:
        print(build(chosen))
