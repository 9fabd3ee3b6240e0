# SPDX-License-Identifier: BSD-3-Clause
"""When the warps of a block are where, and what they have executed.

The block is alone on its multiprocessor and finds nothing in the caches: times follow from the stalls and
scoreboards in the code and from the latencies below, with nobody else to wait for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .operands import Array
from .program import Step

# Cycles until a result is there. Round numbers of the size that microbenchmarks report: none was measured
# here, and all kernels get the same.
MEMORY_CYCLES, L1_CYCLES, SHARED_CYCLES = 600, 40, 30
CONVERSION_CYCLES, SHUFFLE_CYCLES, SPECIAL_REGISTER_CYCLES, CONSTANT_CYCLES = 24, 28, 30, 40
OTHER_CYCLES, OPERAND_CYCLES, BARRIER_CYCLES, JUMP_CYCLES = 20, 12, 20, 8
CYCLES = dict.fromkeys(("MUFU", "I2F", "F2I", "F2F", "FRND"), CONVERSION_CYCLES) | {"LDC": CONSTANT_CYCLES}

WARP = 32
_NEVER = np.iinfo(np.int64).max


@dataclass
class Cost:
    """Of one block."""

    executed: Array  # warps, by instruction of the code
    instructions: int = 0  # their sum
    cycles: int = 0  # until the last warp is done
    start_cycles: int = 0  # until the first warp asks for data or stores some
    loads: int = 0  # warp instructions, global memory
    load_rounds: int = 0  # loads of a warp with no wait for one between them
    stores: int = 0
    shared_wavefronts: int = 0


class Timing:
    def __init__(self, warps: int, code_length: int) -> None:
        self.cost = Cost(np.zeros(code_length, np.int64))
        self._time = np.zeros(warps, np.int64)
        self._ready = np.zeros((8, warps), np.int64)  # when each scoreboard is free
        self._loading = np.zeros((8, warps), bool)  # which of them wait for global memory
        self._new_round = np.ones(warps, bool)
        self._first_access = np.full(warps, _NEVER)

    def begin(self, step: Step, index: int, warps: Array) -> None:
        """`warps` wait for what the instruction needs, and execute it."""
        for scoreboard in step.waits:
            np.maximum(self._time, self._ready[scoreboard], out=self._time, where=warps)
            self._new_round |= warps & self._loading[scoreboard]
            self._loading[scoreboard] &= ~warps
        count = int(warps.sum())
        self.cost.instructions += count
        self.cost.executed[index] += count

    def end(self, step: Step, warps: Array, cycles: int | Array) -> None:
        """Results are there after `cycles` (one number, or one for each warp)."""
        for scoreboard, after in ((step.sets, cycles), (step.sets_when_read, OPERAND_CYCLES)):
            if scoreboard < 6:
                ready = self._ready[scoreboard]
                np.maximum(ready, self._time + after, out=ready, where=warps)
        np.add(self._time, step.stall, out=self._time, where=warps)

    def access_data(self, warps: Array) -> None:
        first = warps & (self._first_access == _NEVER)
        self._first_access[first] = self._time[first]

    def load(self, step: Step, warps: Array) -> None:
        self.cost.loads += int(warps.sum())
        self.cost.load_rounds += int((warps & self._new_round).sum())
        self._new_round &= ~warps
        if step.sets < 6:
            self._loading[step.sets] |= warps

    def jump(self, warps: Array) -> None:
        self._time[warps] += JUMP_CYCLES

    def open_barrier(self) -> None:
        self._time[:] = self._time.max() + BARRIER_CYCLES

    def finish(self) -> Cost:
        first = int(self._first_access.min())
        self.cost.cycles = int(self._time.max())
        self.cost.start_cycles = self.cost.cycles if first == _NEVER else first
        return self.cost
