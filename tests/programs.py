# SPDX-License-Identifier: BSD-3-Clause
"""Builds and programs that tests start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Python that fails where the compiled operator does not do what the reference does.
COMPARE = """
import torch, racnn_ops
images = torch.rand(2, 3, 40, 50)
windows = torch.tensor([[20.0, 18.5, 12.25], [3.0, 30.0, 16.0]])
crops = racnn_ops.attention_crop(images, windows, 24)
expected = racnn_ops.reference.attention_crop(images, windows, 24)
torch.testing.assert_close(crops, expected)
"""


def run(*command: str | Path, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the build's variables taken from `env` alone; stdout holds stderr as well."""
    build_variables = ("CUDA_HOME", "CUDA_PATH", "FORCE_CUDA", "RACNN_CUDA", "TORCH_CUDA_ARCH_LIST", "DEBUG")
    build_variables += ("RACNN_GLIBC",)
    inherited = {name: value for name, value in os.environ.items() if name not in build_variables}
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=inherited | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def run_checked(*command: str | Path, cwd: Path | None = None, **env: str) -> str:
    result = run(*command, cwd=cwd, **env)
    assert result.returncode == 0, result.stdout
    return result.stdout


def configure(source: Path, build: Path, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    python = f"-DPython_EXECUTABLE={sys.executable}"
    result = run("cmake", "-S", source, "-B", build, "-G", "Ninja", python, *options, **env)
    result.stdout = " ".join(result.stdout.split())  # CMake breaks lines
    return result
