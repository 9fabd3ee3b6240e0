# SPDX-License-Identifier: BSD-3-Clause
"""What is counted of a launch (count_costs.py) and goes into the predicted time (predicted_time.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .cost_cases import CostCase


@dataclass(frozen=True)
class Traffic:
    """Of all blocks. Instructions are a warp's; sectors have 32 bytes, wavefronts up to 128."""

    loads: float
    load_sectors: float
    load_wavefronts: float
    stores: float
    store_sectors: float
    store_wavefronts: float
    l2_bytes: float  # read through L2 or written to it
    dram_bytes: float


@dataclass(frozen=True)
class Work:
    """What the machine code does: sums over all blocks, cycles of the mean block alone."""

    instructions: float
    shared_wavefronts: float
    loads: float
    load_rounds: float  # loads of a warp with no wait for one between them
    cycles: float
    start_cycles: float
    executed: list[float]  # by warps, for each instruction of the code


@dataclass(frozen=True)
class Launch:
    kernel: str  # mangled
    blocks: int
    threads: int  # of a block
    shared_bytes: int
    empty_blocks: float
    traffic: Traffic
    work: Work | None  # None: there is no machine code


@dataclass(frozen=True)
class Job:
    cases: list[CostCase]
    code: dict[str, Any]  # machine code by mangled name
