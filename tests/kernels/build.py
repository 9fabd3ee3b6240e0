# SPDX-License-Identifier: BSD-3-Clause
"""Builds the programs for this machine, and for ARM where a cross compiler is installed."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

from emulation.build import CannotBuild, build_target, cmake_build

ROOT = Path(__file__).resolve().parents[2]
KERNELS = "run_kernels"
CONVERSIONS = "run_conversions"
ARM_COMPILER = "aarch64-linux-gnu-g++"
ARM_EMULATORS = ("qemu-aarch64", "qemu-aarch64-static")


@cache
def native(program: str = KERNELS) -> list[str]:
    """The command, with the very kernels of the library that was built in ``build/``."""
    folder = ROOT / "build"
    if not (folder / "CMakeCache.txt").exists():
        raise CannotBuild("the library was not built in build/")
    build_target(folder, program)
    return [str(folder / "tests" / "kernels" / program)]


@cache
def arm(program: str = KERNELS) -> list[str]:
    """The command that runs it under an emulator."""
    emulator = next(filter(None, map(shutil.which, ARM_EMULATORS)), None)
    if shutil.which(ARM_COMPILER) is None or emulator is None:
        raise CannotBuild(
            f"{ARM_COMPILER} and {ARM_EMULATORS[0]} are needed: packages g++-aarch64-linux-gnu and qemu-user"
        )
    folder = ROOT / "build" / "kernels-aarch64"
    machine = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64")
    tools = (f"-DCMAKE_CXX_COMPILER={ARM_COMPILER}", "-DCMAKE_EXE_LINKER_FLAGS=-static")
    cmake_build(ROOT / "tests" / "kernels", folder, *machine, *tools, target=program)
    return [emulator, str(folder / program)]
