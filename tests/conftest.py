# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import os

# Several workers share the machine: threads that wait must not spin. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch

from racnn_ops import _library

needs_cuda = pytest.mark.skipif(
    not (torch.cuda.is_available() and _library.has_cuda),
    reason=f"no CUDA: {_library.cuda_error or 'torch finds no GPU'}",
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "every_instruction_set: run again by test_instruction_sets.py with the other CPU kernels"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: at the end no worker is left alone with one of them."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=needs_cuda)])
def device(request: pytest.FixtureRequest) -> str:
    # Without kernels the reference would be compared with itself.
    assert _library.has_cpu, f"the compiled library was not loaded: {_library.cpu_error}"
    return str(request.param)
