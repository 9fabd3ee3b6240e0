# SPDX-License-Identifier: BSD-3-Clause
"""Sees to it that racnn_ops/ has libraries that load here. Needs no network.

    python tools/gpu_library.py [--device cpu] [--wheel FILE]

Those that are there may come from another machine: one build serves torch 2.10 and later, Python 3.10 and
later. A wheel's are put in their place. If they do not load, CMake builds them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# In a process of its own: a library that is loaded stays loaded.
LOOK = """
import sys, torch
from racnn_ops import __main__, _library
print(__main__.report())
cuda = _library.has_cuda and torch.cuda.is_available()
sys.exit(not (cuda if sys.argv[1] == "cuda" else _library.has_cpu))
"""


def unpack(wheel: Path) -> None:
    """The wheel's libraries alone: the Python files are those of the tree."""
    with zipfile.ZipFile(wheel) as archive:
        names = [
            name for name in archive.namelist() if name.startswith("racnn_ops/") and name.endswith(".so")
        ]
        if not names:
            raise SystemExit(f"{wheel} holds no library of racnn_ops")
        for name in names:
            (ROOT / name).unlink(missing_ok=True)  # a process may have the old one in its memory
        archive.extractall(ROOT, names)


def load(device: str) -> bool:
    return subprocess.run([sys.executable, "-c", LOOK, device], cwd=ROOT, check=False).returncode == 0


def build() -> None:
    configure = ["cmake", "-S", ".", "-B", "build", "-G", "Ninja", f"-DPython_EXECUTABLE={sys.executable}"]
    configure += ["-DRACNN_CUDA=on", "-DRACNN_CUDA_ARCH_LIST=native"]
    for command in (configure, ["cmake", "--build", "build"]):
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            raise SystemExit("the libraries in racnn_ops/ do not load, and building them failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--wheel", type=Path)
    arguments = parser.parse_args()
    if arguments.wheel:
        unpack(arguments.wheel)
    if load(arguments.device):
        return
    build()
    if not load(arguments.device):
        raise SystemExit("the libraries were built and do not load: the lines above say why")


if __name__ == "__main__":
    main()
