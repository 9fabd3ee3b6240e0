# SPDX-License-Identifier: BSD-3-Clause
"""Runs pickled cases in a process of its own: ``python -m emulation.run_cases CASES RESULTS``."""

import pickle
import sys
from pathlib import Path
from typing import Any

import emulated_kernels
import numpy as np

from .cases import Case


def main(cases_file: str, results_file: str) -> None:
    cases: list[Case] = pickle.loads(Path(cases_file).read_bytes())
    results: dict[str, Any] = {}
    for i, case in enumerate(cases):
        print(case, file=sys.stderr, flush=True)  # whatever a sanitizer says stands below its case
        results[str(i)] = case.run(emulated_kernels, guard=0)
    np.savez(results_file, **results)


main(sys.argv[1], sys.argv[2])
