# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

from .build import CannotBuild, build


def _module(name: str) -> ModuleType:
    folder = str(build("none"))
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


@pytest.fixture(scope="session", autouse=True)
def _can_build() -> None:
    try:
        build("none")
    except CannotBuild as reason:
        pytest.skip(f"the kernels cannot be emulated here: {reason}")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """The references are small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def kernels() -> ModuleType:
    """The CUDA kernels under emulation."""
    return _module("emulated_kernels")


@pytest.fixture(scope="session")
def planted_faults() -> ModuleType:
    return _module("planted_faults")
