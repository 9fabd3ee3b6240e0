# SPDX-License-Identifier: BSD-3-Clause
"""What the C++ and CUDA sources promise about each other; nothing is compiled."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from racnn_ops import _dispatch

CSRC = Path(__file__).resolve().parents[2] / "csrc"
SOURCES = sorted(path for path in CSRC.rglob("*") if path.suffix in (".h", ".cpp", ".cu", ".cuh"))
KERNELS = [path for path in SOURCES if path.parent.name != "torch"]
KERNEL_NAMES = ("forward", "image_grad", "window_grad", "boxcar_grad")


def includes(path: Path) -> list[str]:
    return re.findall(r'^#include [<"]([^>"]+)[>"]', path.read_text(encoding="utf-8"), flags=re.MULTILINE)


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_kernels_know_nothing_of_torch(path: Path) -> None:
    assert [name for name in includes(path) if re.search(r"(^|/)(torch|ATen|c10|caffe2)/", name)] == []


def test_torch_is_included_where_it_belongs() -> None:
    """Else the test above would pass for want of a pattern."""
    assert any(name.startswith("torch/") for path in CSRC.glob("torch/*") for name in includes(path))


@pytest.mark.parametrize("name", KERNEL_NAMES)
def test_a_kernel_has_one_name_on_cpu_and_gpu(name: str) -> None:
    assert (CSRC / "cpu" / f"{name}.h").is_file()
    assert (CSRC / "cuda" / f"{name}.cuh").is_file()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_one_statement_a_line(path: Path) -> None:
    """No assignments joined by commas; declarations of one type may share a line."""
    target = r"[A-Za-z_][\w.\[\]>()-]*"
    joined = re.compile(rf"^\s*{target} [+*-]?= [^,;(){{}}]+, {target} [+*-]?= [^;]*;")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if joined.match(line)] == []


def test_python_and_cuda_agree_on_what_a_launch_normalises() -> None:
    source = (CSRC / "cuda" / "affine.cuh").read_text(encoding="utf-8")
    constant = re.search(r"constexpr int kMostNormalised = (\d+);", source)
    assert constant is not None
    assert int(constant[1]) == _dispatch.MOST_NORMALISED_ON_CUDA
