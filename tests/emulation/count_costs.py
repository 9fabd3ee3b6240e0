# SPDX-License-Identifier: BSD-3-Clause
"""Counts what launches cost, in a process of its own: ``python -m emulation.count_costs JOB RESULTS``.

Memory traffic comes from the kernels compiled for the CPU (tracer.cpp), everything else from the machine
code that nvcc made of them, which runs on the same arrays (sass/). Few blocks stand for all.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import emulated_kernels
import numpy as np

from .cost_cases import CostCase
from .costs import Job, Launch, Traffic, Work
from .gpu import H100, SECTOR_BYTES
from .sass.block import Block
from .sass.memory import Memory, Region
from .sass.program import Program

TRACED_BLOCKS = 50
RUN_BLOCKS = 4  # machine code; at most


def count(case: CostCase, programs: dict[str, Program]) -> list[Launch]:
    # Three resident blocks share L1 and shared memory; the kernels need little of the latter.
    emulated_kernels.reset_trace(H100.l1_bytes // 4, H100.l2_bytes)
    emulated_kernels.sample_blocks(case.batch, TRACED_BLOCKS)
    arrays = case.run(emulated_kernels)  # kept until the end
    regions = [region_of(region) for region in emulated_kernels.regions()]
    launches = []
    for traced in emulated_kernels.take_traced_launches():
        blocks = int(np.prod(traced.grid))
        scale = blocks / len(traced.blocks)
        empty = sum(block.empty for block in traced.blocks)
        program = programs[traced.kernel] if programs else None
        launches.append(
            Launch(
                kernel=traced.kernel,
                blocks=blocks,
                threads=int(np.prod(traced.block)),
                shared_bytes=traced.shared_bytes,
                # A kernel all of whose blocks are "empty" works on no large array.
                empty_blocks=empty * scale if empty < len(traced.blocks) else 0.0,
                traffic=_traffic(traced, scale, [len(region.bytes) for region in regions]),
                work=_work(traced, blocks, program, Memory(regions)) if program else None,
            )
        )
    del arrays
    return launches


def region_of(region: Any) -> Region:
    if region.name == "workspace":  # it is gone after the launch
        return Region(region.begin, np.zeros(region.bytes, np.uint8), region.is_data)
    return Region.at(region.begin, region.bytes, region.is_data)


def block_of(traced: Any, number: int, program: Program, memory: Memory) -> Block:
    """A block of a traced launch, as machine code."""
    return Block(
        program,
        memory,
        number,
        grid=traced.grid,
        block=traced.block,
        shared=traced.shared_bytes,
        params=traced.params,
    )


def _traffic(traced: Any, scale: float, sizes: list[int]) -> Traffic:
    dram_bytes = 0.0
    for region, size in zip(traced.regions, sizes, strict=False):
        # What fits in L2 is moved once, also by the blocks that were left out.
        most = size if size <= H100.l2_bytes else float("inf")
        for sectors in (region.read_sectors, region.written_sectors):
            dram_bytes += min(sectors * SECTOR_BYTES * scale, most)
    return Traffic(
        loads=traced.loads.instructions * scale,
        load_sectors=traced.loads.sectors * scale,
        load_wavefronts=traced.loads.wavefronts * scale,
        stores=traced.stores.instructions * scale,
        store_sectors=traced.stores.sectors * scale,
        store_wavefronts=traced.stores.wavefronts * scale,
        l2_bytes=(traced.l2_read_sectors + traced.stores.sectors) * SECTOR_BYTES * scale,
        dram_bytes=dram_bytes,
    )


def _work(traced: Any, blocks: int, program: Program, memory: Memory) -> Work:
    """Of the blocks with the fewest and the most loads and of some between; the others are interpolated."""
    loads = np.array([block.loads for block in traced.blocks])
    values = np.unique(loads)
    values = values[np.unique(np.linspace(0, len(values) - 1, RUN_BLOCKS).round().astype(int))]
    costs = []
    for value in values:
        alike = np.flatnonzero(loads == value)
        memory.forget()
        costs.append(block_of(traced, traced.blocks[alike[len(alike) // 2]].number, program, memory).run())
    # Of how many blocks each is the example.
    weights = [float(np.interp(loads, values, row).mean()) for row in np.eye(len(values))]

    def mean(name: str) -> Any:
        return sum(weight * getattr(cost, name) for weight, cost in zip(weights, costs, strict=True))

    return Work(
        instructions=mean("instructions") * blocks,
        shared_wavefronts=mean("shared_wavefronts") * blocks,
        loads=mean("loads") * blocks,
        load_rounds=mean("load_rounds") * blocks,
        cycles=mean("cycles"),
        start_cycles=mean("start_cycles"),
        executed=list(mean("executed") * blocks),
    )


def main(job_file: str, results_file: str) -> None:
    job: Job = pickle.loads(Path(job_file).read_bytes())
    programs = {name: Program(code) for name, code in job.code.items()}
    results = {case: count(case, programs) for case in job.cases}
    Path(results_file).write_bytes(pickle.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
