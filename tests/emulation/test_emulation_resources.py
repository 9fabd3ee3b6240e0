# SPDX-License-Identifier: BSD-3-Clause
"""What nvcc makes of the kernels: no spills, no local memory, registers and loads as in the table."""

from __future__ import annotations

from typing import Any

import kernel_resources as tool
import pytest

REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN5racnn6kernelIfLi2EEEvNS_6ParamsIfEE' for 'sm_80'
ptxas info    : Function properties for _ZN5racnn6kernelIfLi2EEEvNS_6ParamsIfEE
    {stack} bytes stack frame, {stores} bytes spill stores, {spilled} bytes spill loads
ptxas info    : Used {registers} registers, used 1 barriers, {shared}380 bytes cmem[0]
"""


# Two loads, one of them predicated, and the first use; the loop again with a branch between the loads.
LISTING = """\
\t\tFunction : _ZN5racnn6kernelIfLi2EEEvNS_6ParamsIfEE
        /*0000*/                   LDG.E.CONSTANT R2, desc[UR4][R2.64] ;  /* 0x0000000402027981 */
                                                                          /* 0x000ea2000c1e9900 */
        /*0010*/              @!P0 LDG.E.CONSTANT R4, desc[UR4][R4.64] ;  /* 0x0000000404047981 */
                                                                          /* 0x000ea2000c1e9900 */
        /*0020*/                   FADD R5, R2, R4 ;                      /* 0x0000000402057221 */
                                                                          /* 0x004fca0000000000 */
        /*0030*/               @P1 BRA 0x0 ;                              /* 0xfffffffc00f41947 */
                                                                          /* 0x000fea000383ffff */
"""
BRANCH_BETWEEN = LISTING.replace("FADD R5, R2, R4 ;    ", "LDG.E R6, [R6.64] ;  ").replace(
    "LDG.E.CONSTANT R4", "BRA R4"
)


@pytest.fixture(scope="module")
def compiled() -> Any:
    """Every kernel for every architecture."""
    nvcc = tool.find_nvcc()
    if nvcc is None:
        pytest.skip("nvcc was not found: set CUDA_HOME")
    return tool.compile_all(nvcc)


def found(loads: int = 2, listing: str = LISTING, **numbers: object) -> list[str]:
    report = REPORT.format(
        **{"stack": 0, "stores": 0, "spilled": 0, "registers": 40, "shared": "", **numbers}
    )
    table = {"kernel<float, 2>": {"registers": 40, "shared": 0, "loads": loads}}
    kernels = tool.parse(report, tool.machine_code.parse(listing))
    result: list[str] = tool.problems("sm_80", kernels, table, True)
    return result


def test_growth_and_spills_are_found() -> None:
    assert found() == []
    assert found(registers=41) == ["sm_80 kernel<float, 2>: 41 registers, 40 in the table"]
    assert found(stores=4, spilled=8) == ["sm_80 kernel<float, 2>: spills 12 bytes"]
    assert found(stack=16) == ["sm_80 kernel<float, 2>: 16 bytes of local memory"]
    assert found(shared="64 bytes smem, ") == [
        "sm_80 kernel<float, 2>: 64 bytes of static shared memory, 0 in the table"
    ]


def test_loads_that_wait_for_each_other_are_found() -> None:
    assert found(loads=3) == ["sm_80 kernel<float, 2>: 2 loads in flight, 3 in the table"]
    assert found(listing=BRANCH_BETWEEN) == ["sm_80 kernel<float, 2>: 1 loads in flight, 2 in the table"]
    assert found(loads=3, listing="") == []  # no cuobjdump


@pytest.mark.slow
def test_kernels_need_no_more_than_the_table_says(compiled: Any) -> None:
    assert tool.all_problems(compiled, tool.nvcc_release(tool.find_nvcc())) == []
