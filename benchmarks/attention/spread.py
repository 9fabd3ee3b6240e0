# SPDX-License-Identifier: BSD-3-Clause
"""Means and standard deviations over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

Spread = dict[str, float]


def spread(values: Sequence[float]) -> Spread:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.mean(values), "std": deviation, "runs": len(values)}


def shown(cell: Spread | None, factor: float = 100, digits: int = 1) -> str:
    """In percent, if not told otherwise; "" for none."""
    if cell is None:
        return ""
    deviation = f" ± {factor * cell['std']:.{digits}f}" if cell["runs"] > 1 else ""
    return f"{factor * cell['mean']:.{digits}f}{deviation}"
