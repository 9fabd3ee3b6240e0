# SPDX-License-Identifier: BSD-3-Clause
"""The CPU kernels compute what plain loops do: with every instruction set of this machine, and on ARM."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest
from emulation.build import CannotBuild
from emulation.cases import KERNELS

from . import build
from .cases import cases

pytestmark = pytest.mark.slow

ARM = "arm"


def run(machine: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`machine`: an instruction set of this one, or ARM."""
    try:
        command = build.arm() if machine == ARM else build.native()
    except CannotBuild as missing:
        pytest.skip(str(missing))
    environment = os.environ | {"RACNN_CPU_CAPABILITY": machine}
    return subprocess.run([*command, *words], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("machine", ["baseline", "avx2", "avx512", ARM])
def test_kernels_compute_what_plain_loops_do(machine: str, kernel: str) -> None:
    capability = "neon" if machine == ARM else machine
    differences = []
    for words in cases(kernel):
        result = run(machine, *words)
        if result.returncode == 0 and not result.stdout.startswith(f"{capability}:"):
            pytest.skip(f"this machine has no {machine}")
        if result.returncode != 0:
            differences.append(f"{' '.join(words)}: {result.stdout}{result.stderr}")
    assert not differences, "\n".join(differences)


@pytest.mark.parametrize("command", [build.native, build.arm])
def test_conversions_are_exact(command: Callable[[str], list[str]]) -> None:
    try:
        program = command(build.CONVERSIONS)
    except CannotBuild as missing:
        pytest.skip(str(missing))
    result = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "0 wrong\n")


@pytest.mark.parametrize("kernel", KERNELS)
def test_wrong_results_are_found(kernel: str) -> None:
    result = run("baseline", kernel, "windows=15.7,16.2,9.3", "wrong=1")
    assert result.returncode == 1
    assert float(result.stdout.split()[2]) > 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("forward", "height=40"), "unknown: height=40"),
        (("forward", "H"), "not NAME=VALUE: H"),
        (("backward",), "no kernel backward for these dtypes"),
        (("image_grad", "images=uint8", "crops=float32"), "no kernel image_grad for these dtypes"),
        (("forward", "images=float16", "crops=uint8"), "no kernel for images=float16 crops=uint8"),
        (("forward", "windows=1,2"), "windows must have 3 to 5 numbers each"),
        (("boxcar_grad", "index=0"), "index is for forward, window_grad and image_grad, without K"),
        (("forward", "boundary=wrap"), "boundary must be one of 'zeros' 'border' 'clip' 'window'"),
    ],
)
def test_nonsense_is_refused(words: tuple[str, ...], message: str) -> None:
    result = run("baseline", *words)
    assert (result.returncode, result.stderr.strip()) == (2, message)
