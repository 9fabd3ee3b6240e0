# SPDX-License-Identifier: BSD-3-Clause
"""Runs launches on random numbers, compiled for the CPU and as machine code: ``... JOB RESULTS`` (costs.py).

The results: of each case the largest difference between the two, relative to the largest number; NaN if one
leaves something unwritten.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import emulated_kernels
import numpy as np

from .arrays import decode, poison
from .cost_cases import CostCase
from .costs import Job
from .count_costs import block_of, region_of
from .sass.memory import Memory
from .sass.program import Program

EVERY_BLOCK = 1 << 40


def difference(case: CostCase, job: Job) -> float:
    emulated_kernels.reset_trace(0, 0)
    emulated_kernels.sample_blocks(1, EVERY_BLOCK)
    arrays = case.run(emulated_kernels, np.random.default_rng(0))
    results = {"forward": ("crops", case.crop), "image_grad": ("images", case.image)}
    name, dtype = results.get(case.kernel, ("grad_windows", str(arrays["grad_windows"].dtype)))
    result = arrays[name]
    expected = decode(result, dtype)
    poison(result)
    memory = Memory([region_of(region) for region in emulated_kernels.regions()])
    for launch in emulated_kernels.take_traced_launches():
        program = Program(job.code[launch.kernel])
        for number in range(int(np.prod(launch.grid))):
            block_of(launch, number, program, memory).run()
    return float(np.abs(decode(result, dtype) - expected).max() / np.abs(expected).max())


def main(job_file: str, results_file: str) -> None:
    job: Job = pickle.loads(Path(job_file).read_bytes())
    Path(results_file).write_bytes(pickle.dumps({case: difference(case, job) for case in job.cases}))


main(sys.argv[1], sys.argv[2])
