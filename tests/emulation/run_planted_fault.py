# SPDX-License-Identifier: BSD-3-Clause
"""Runs planted faults in a process of its own: ``run_planted_fault.py faulty|fixed NAME...``."""

import sys

import numpy as np
import planted_faults


def main(variant: str, names: list[str]) -> None:
    for name in names:
        values = np.arange(planted_faults.SIZE, dtype=np.float32)
        output = np.full_like(values, np.nan)
        planted_faults.run(name, variant == "fixed", values, output)
        poisoned = np.flatnonzero(np.isnan(output))
        if poisoned.size:
            sys.exit(f"{name}: poison in output element {poisoned[0]}")
    print("nothing found")


main(sys.argv[1], sys.argv[2:])
