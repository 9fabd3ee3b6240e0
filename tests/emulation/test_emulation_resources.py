# SPDX-License-Identifier: BSD-3-Clause
"""What nvcc makes of the kernels: no spills, no local memory, no more registers than the table has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from commands import load_script

TOOL = Path(__file__).resolve().parents[2] / "tools" / "kernel_resources.py"

REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN5racnn6kernelIfLi2EEEvNS_6ParamsIfEE' for 'sm_80'
ptxas info    : Function properties for _ZN5racnn6kernelIfLi2EEEvNS_6ParamsIfEE
    {stack} bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads
ptxas info    : Used {registers} registers, used 1 barriers, {shared}380 bytes cmem[0]
"""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_script(TOOL)


def found(tool: ModuleType, **numbers: object) -> list[str]:
    report = REPORT.format(**{"stack": 0, "stores": 0, "loads": 0, "registers": 40, "shared": "", **numbers})
    table = {"kernel<float, 2>": {"registers": 40, "shared": 0}}
    result: list[str] = tool.problems("sm_80", tool.parse(report), table, True)
    return result


def test_growth_and_spills_are_found(tool: ModuleType) -> None:
    assert found(tool) == []
    assert found(tool, registers=41) == ["sm_80 kernel<float, 2>: 41 registers, 40 in the table"]
    assert found(tool, stores=4, loads=8) == ["sm_80 kernel<float, 2>: spills 12 bytes"]
    assert found(tool, stack=16) == ["sm_80 kernel<float, 2>: 16 bytes of local memory"]
    assert found(tool, shared="64 bytes smem, ") == [
        "sm_80 kernel<float, 2>: 64 bytes of static shared memory, 0 in the table"
    ]


@pytest.mark.slow
def test_kernels_need_no_more_than_the_table_says(tool: ModuleType) -> None:
    if tool.find_nvcc() is None:
        pytest.skip("nvcc was not found: set CUDA_HOME")
    result = subprocess.run([sys.executable, str(TOOL)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
