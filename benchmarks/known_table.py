# SPDX-License-Identifier: BSD-3-Clause
"""The table of ``known_windows.py``, for the terminal and for the README."""

from __future__ import annotations

import statistics
from typing import Any

import ablation

Report = dict[str, Any]
START = "none: where all start"
COLUMNS = {
    "alone: IoU %": ("alone", "iou"),
    "alone: found %": ("alone", "found"),
    "APN: IoU %": ("response", "iou"),
    "APN: found %": ("response", "found"),
    "APN: tl": ("response", "half_side"),
    "APN: scale 2 %": ("response", "accuracy"),
    "middle: IoU %": ("middle", "iou"),
    "middle: scale 2 %": ("middle", "accuracy"),
}
"""Head of a column -> task and value."""


def spread(runs: list[Report], key: str) -> tuple[float, float]:
    """Mean and standard deviation over seeds."""
    cell = ablation.spread([run[key] for run in runs])
    return cell["mean"], cell["std"]


def iou_by_step(result: Report) -> dict[int, float]:
    """Of the pre-trained APN, mean over seeds."""
    curves = [run["curve"] for run in result["runs"]]
    return {
        moments[0]["step"]: statistics.mean(moment["iou"] for moment in moments)
        for moments in zip(*curves, strict=True)
    }


def half_way(report: Report) -> float:
    """Half of the way of the pre-trained APN's IoU, from the start to the best method's end."""
    results = report["results"]["response"].values()
    start = spread(report["given"]["response"], "iou")[0]
    return (start + max(spread(result["runs"], "iou")[0] for result in results)) / 2


def rows(report: Report) -> list[list[str]]:
    """The head, where the methods start, and every method."""
    table = [["gradient", *COLUMNS, f"steps to IoU {100 * half_way(report):.0f} %"]]
    table.append([START, *_cells(lambda task: report["given"][task]), ""])
    for name in report["methods"]:
        results = {task: found[name] for task, found in report["results"].items()}
        steps = iou_by_step(results["response"]).items()
        reached = next((str(step) for step, value in steps if value >= half_way(report)), "never")
        table.append([name, *_cells(lambda task, r=results: r[task]["runs"]), reached])
    return table


def _cells(runs_of: Any) -> list[str]:
    cells = []
    for task, key in COLUMNS.values():
        runs = runs_of(task)
        mean, deviation = spread(runs, key) if key in runs[0] else (None, None)
        percent = 1 if key == "half_side" else 100
        digits = 2 if key == "half_side" else 1
        shown = "" if mean is None else f"{percent * mean:.{digits}f} ± {percent * deviation:.{digits}f}"
        cells.append(shown)
    return cells
