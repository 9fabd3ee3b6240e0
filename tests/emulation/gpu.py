# SPDX-License-Identifier: BSD-3-Clause
"""The GPU that costs are predicted for."""

from __future__ import annotations

from dataclasses import dataclass

SECTOR_BYTES = 32


@dataclass(frozen=True)
class Gpu:
    multiprocessors: int
    hertz: float
    dram_bytes_per_second: float
    l2_bytes_per_second: float
    l2_bytes: int
    l1_bytes: int  # of a multiprocessor, with the shared memory
    issue_slots: int  # of a multiprocessor: warp instructions a cycle
    registers: int  # of a multiprocessor, 32 bits each; in units of 256 a warp
    warps: int  # resident on a multiprocessor
    blocks: int
    shared_bytes: int
    reserved_shared_bytes: int  # of each block

    def resident_blocks(self, threads: int, registers: int, shared_bytes: int) -> int:
        """Of a multiprocessor, by registers of a thread and shared memory of a block."""
        warps = -(-threads // 32)
        warp_registers = -(-registers * 32 // 256) * 256
        by_registers = self.registers // warp_registers // warps
        by_shared = self.shared_bytes // (shared_bytes + self.reserved_shared_bytes)
        return max(1, min(by_registers, self.warps // warps, by_shared, self.blocks))


# H100 SXM5. Multiprocessors, caches and limits: NVIDIA's H100 white paper, and the table of compute
# capability 9.0 in the CUDA C++ programming guide. Clock and memory bandwidth: as in csrc/cuda/README.md
# (1.755 GHz is below the boost clock, 3.0 TB/s what a copy reaches of the data sheet's 3.35). L2's bandwidth
# is not published: microbenchmarks read 5.5 to 7 TB/s, the lower is taken.
H100 = Gpu(
    multiprocessors=132,
    hertz=1.755e9,
    dram_bytes_per_second=3.0e12,
    l2_bytes_per_second=5.5e12,
    l2_bytes=50 << 20,
    l1_bytes=256 << 10,
    issue_slots=4,
    registers=64 << 10,
    warps=64,
    blocks=32,
    shared_bytes=228 << 10,
    reserved_shared_bytes=1 << 10,
)
