# SPDX-License-Identifier: BSD-3-Clause
"""The CPU kernels exist once per instruction set; a machine runs the best. Here the others run too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from racnn_ops import _library

CAPABILITY = "RACNN_CPU_CAPABILITY"
MARKER = "every_instruction_set"
TESTS = Path(__file__).parent


def capability(limit: str) -> str:
    """What the kernels are when the environment asks for `limit`."""
    code = "from racnn_ops import _library; print(_library.fact('cpu_capability'))"
    environment = os.environ | {CAPABILITY: limit}
    return subprocess.check_output(
        [sys.executable, "-c", code], env=environment, text=True, cwd=TESTS
    ).strip()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512"])
def test_kernels_of_every_instruction_set(name: str) -> None:
    assert _library.has_cpu
    if _library.fact("cpu_capability") == name:
        pytest.skip(f"{name} is what all the other tests run")
    if capability(name) != name:
        pytest.skip(f"this machine or build has no {name} kernels")
    files = [str(file) for file in TESTS.glob("test_*.py") if f"pytest.mark.{MARKER}" in file.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["-m", MARKER, "-k", "cpu", *sorted(files)]  # others need seconds to be collected
    result = subprocess.run(
        command,
        env=os.environ | {CAPABILITY: name},
        capture_output=True,
        text=True,
        cwd=TESTS,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout


def test_unknown_names_are_ignored() -> None:
    assert capability("sse9") == capability("")
