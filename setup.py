# SPDX-License-Identifier: BSD-3-Clause
"""Drives CMake, which holds the build definition; pyproject.toml holds everything else."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import setuptools
from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

# As pyproject.toml demands it; without build isolation pip does not look, and an older one rejects `license`.
OLDEST_SETUPTOOLS = 77
if int(setuptools.__version__.split(".")[0]) < OLDEST_SETUPTOOLS:
    raise SystemExit(
        f"racnn_ops: setuptools {OLDEST_SETUPTOOLS} or newer is needed, this is {setuptools.__version__}: "
        f"run `{sys.executable} -m pip install 'setuptools>={OLDEST_SETUPTOOLS}' cmake ninja`."
    )

ROOT = Path(__file__).resolve().parent
GLIBC = os.environ.get("RACNN_GLIBC", "")  # the oldest that a wheel is to run with, such as 2.28


class NativeDistribution(Distribution):
    """With libraries that are no Python modules. Off Linux the package is pure, and its reference answers."""

    def has_ext_modules(self) -> bool:
        return sys.platform == "linux"


class CMakeBuild(build_ext):
    """Lets CMake put the shared objects straight into the package."""

    def run(self) -> None:
        in_place = self.inplace or self.editable_mode
        package = ROOT / "racnn_ops" if in_place else Path(self.build_lib).resolve() / "racnn_ops"
        build_dir = ROOT / "build" if in_place else Path(self.build_temp).resolve()
        jobs = ["-j", os.environ["MAX_JOBS"]] if os.environ.get("MAX_JOBS") else []
        # Off by default: a user's compiler may warn about what ours does not.
        werror = os.environ.get("RACNN_WERROR", "OFF")
        cmake = self._tool("cmake")
        self._run(
            *(cmake, "-S", str(ROOT), "-B", str(build_dir), "-G", "Ninja"),
            *("-U", "RACNN_*"),  # what an earlier build took from its environment
            f"-DCMAKE_MAKE_PROGRAM={self._tool('ninja')}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DRACNN_OUTPUT_DIR={package}",
            f"-DRACNN_WERROR={werror}",
            f"-DRACNN_GLIBC={GLIBC}",
        )
        print("racnn_ops: compiling the kernels, minutes for those of many GPUs", flush=True)
        self._run(cmake, "--build", str(build_dir), *jobs)

    def get_outputs(self) -> list[str]:
        return []  # of setuptools' own making

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    @staticmethod
    def _tool(name: str) -> str:
        folders = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
        found = shutil.which(name, path=folders)
        if found is None:
            raise SystemExit(
                f"racnn_ops: {name} was not found in {folders}: run `{sys.executable} -m pip install {name}`."
            )
        return found

    @staticmethod
    def _run(*command: str) -> None:
        if subprocess.run(command, check=False).returncode != 0:
            raise SystemExit("racnn_ops: the build failed; CMake's or the compiler's message above says why.")


class NativeWheel(bdist_wheel):
    """For every Python: the libraries know nothing of it."""

    def get_tag(self) -> tuple[str, str, str]:
        platform = super().get_tag()[2]
        if GLIBC:
            platform = platform.replace("linux_", f"manylinux_{GLIBC.replace('.', '_')}_", 1)
        return "py3", "none", platform


setup(distclass=NativeDistribution, cmdclass={"build_ext": CMakeBuild, "bdist_wheel": NativeWheel})
