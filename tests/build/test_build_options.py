# SPDX-License-Identifier: BSD-3-Clause
"""Builds that fail with a reason, and what native architectures are."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from programs import configure, run, run_checked

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        (
            {"RACNN_CUDA": "on", "CUDA_HOME": "/nowhere"},
            "RACNN_CUDA=on (or FORCE_CUDA=1), but no nvcc was found in CUDA_HOME=/nowhere: "
            "set CUDA_HOME to a CUDA toolkit 12.0 or newer, or RACNN_CUDA=off.",
        ),
        (
            {"FORCE_CUDA": "1", "CUDA_HOME": "/nowhere"},
            "RACNN_CUDA=on (or FORCE_CUDA=1), but no nvcc was found in CUDA_HOME=/nowhere",
        ),
        ({"RACNN_CUDA": "yes"}, "RACNN_CUDA is 'yes': set it to auto, on or off."),
        (
            {"TORCH_CUDA_ARCH_LIST": "8.0;Pascal"},
            "TORCH_CUDA_ARCH_LIST contains 'Pascal': set it to architectures such as '8.0;9.0+PTX'",
        ),
        (
            {"TORCH_CUDA_ARCH_LIST": "native;8.0"},
            "TORCH_CUDA_ARCH_LIST contains 'native': set it to architectures such as '8.0;9.0+PTX', "
            "to native and nothing else, or unset it.",
        ),
    ],
    ids=["no-nvcc", "force-cuda", "bad-choice", "bad-architecture", "native-and-more"],
)
def test_build_fails_with_one_sentence(env: dict[str, str], sentence: str, tmp_path: Path) -> None:
    result = configure(ROOT, tmp_path, f"-DRACNN_OUTPUT_DIR={tmp_path}", **env)
    assert result.returncode != 0
    assert sentence in result.stdout


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on PATH")
def test_build_names_an_architecture_that_nvcc_does_not_know(tmp_path: Path) -> None:
    result = configure(ROOT, tmp_path, f"-DRACNN_OUTPUT_DIR={tmp_path}", TORCH_CUDA_ARCH_LIST="3.5")
    assert result.returncode != 0
    assert "asks for compute capability 35" in result.stdout


def test_build_without_torch_says_so(tmp_path: Path) -> None:
    run_checked(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    result = configure(ROOT, tmp_path / "build", f"-DPython_EXECUTABLE={python}")
    assert result.returncode != 0
    assert f"PyTorch was not found by {python}: install torch>=2.10 there" in result.stdout


def test_old_setuptools_is_told_in_one_sentence() -> None:
    """Not by what it thinks of pyproject.toml."""
    code = "import runpy, setuptools; setuptools.__version__ = '65.5.0'; runpy.run_path('setup.py')"
    result = run(sys.executable, "-c", code, cwd=ROOT)
    assert result.returncode != 0
    (demanded,) = re.findall(r'"(setuptools>=\d+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert result.stdout.splitlines()[-1].startswith(
        "racnn_ops: setuptools 77 or newer is needed, this is 65.5.0"
    )
    assert f"'{demanded}' cmake ninja" in result.stdout


# --- The architectures of the GPUs ------------------------------------------------------------------------


def nvidia_smi(folder: Path, output: str, status: int = 0) -> str:
    """A PATH with an nvidia-smi that prints `output`, whatever GPUs there are."""
    program = folder / "nvidia-smi"
    question = "--query-gpu=compute_cap --format=csv,noheader"
    program.write_text(f"#!/bin/sh\n[ \"$*\" = '{question}' ] && printf '{output}'\nexit {status}\n")
    program.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("output", "status", "architectures"),
    [
        ("9.0\\n", 0, "90-real;90-virtual"),
        ("9.0\\n9.0\\n7.5\\n", 0, "75-real;90-real;90-virtual"),
        ("10.0\\n8.9\\n", 0, "89-real;100-real;100-virtual"),
        ("12.1\\n", 0, "120-real;120-virtual"),
        ("6.1\\n", 0, "75-real;75-virtual"),
        ("6.1\\n8.0\\n", 0, "80-real;80-virtual"),
        ("[N/A]\\n", 0, "75-real;75-virtual"),
        ("No devices were found\\n", 6, "75-real;75-virtual"),
        ("NVIDIA-SMI has failed: driver 535.8\\n", 9, "75-real;75-virtual"),
        ("", 127, "75-real;75-virtual"),
    ],
)
def test_native_architectures(output: str, status: int, architectures: str, tmp_path: Path) -> None:
    """Of GPUs that are newer than nvcc those whose code or PTX they run; without a GPU the oldest."""
    script = tmp_path / "script.cmake"
    script.write_text(f"""
include({ROOT}/cmake/RacnnArchitectures.cmake)
racnn_native_architectures("75;80;86;87;89;90;100;120" native)
message("${{native}}")
""")
    found = run_checked("cmake", "-P", script, PATH=nvidia_smi(tmp_path, output, status))
    assert found.strip() == architectures


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on PATH")
def test_build_for_native_architectures_and_for_every_one(tmp_path: Path) -> None:
    options = (f"-DRACNN_OUTPUT_DIR={tmp_path}", "-U", "RACNN_CUDA*")
    path = nvidia_smi(tmp_path, "8.9\\n")
    native = configure(ROOT, tmp_path / "build", *options, TORCH_CUDA_ARCH_LIST="native", PATH=path)
    assert "(static runtime), sm_89 compute_89 (PTX)" in native.stdout
    every = configure(ROOT, tmp_path / "build", *options, PATH=path)
    assert re.search(r"\(static runtime\), sm_75 sm_80 .*sm_90 .*compute_\d+ \(PTX\)", every.stdout)
