# SPDX-License-Identifier: BSD-3-Clause
"""The CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer; see cpp_sanitize/run_kernels.cpp."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "cpp_sanitize"
BUILD = Path(__file__).parents[1] / "build" / "cpu-sanitize"

pytestmark = pytest.mark.slow


def run_checked(*command: str) -> None:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.fixture(scope="module")
def program() -> Path:
    for tool in ("cmake", "ninja"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:  # other workers of the same test run build it too
        fcntl.flock(lock, fcntl.LOCK_EX)
        run_checked("cmake", "-S", str(SOURCE), "-B", str(BUILD), "-G", "Ninja")
        run_checked(
            "cmake", "--build", str(BUILD), "-j", os.environ.get("MAX_JOBS", str(os.cpu_count() or 1))
        )
    return BUILD / "run_kernels"


@pytest.mark.parametrize("capability", ["baseline", "avx2", "avx512"])
def test_nothing_outside_the_tensors_is_touched(program: Path, capability: str) -> None:
    result = subprocess.run(
        [program],
        env=os.environ | {"RACNN_CPU_CAPABILITY": capability},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr[-4000:]
    used, count = result.stdout.split()[:2]
    if used != f"{capability}:":
        pytest.skip(f"this machine has no {capability}")
    assert int(count) > 5000
