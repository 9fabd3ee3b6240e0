# SPDX-License-Identifier: BSD-3-Clause
"""The table of ``known_windows.py``, and what it says."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from record.section import Report, table

from .spread import shown, spread

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


def mean(runs: list[Report], key: str) -> float:
    return statistics.mean(run[key] for run in runs)


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
    return (
        mean(report["given"]["response"], "iou") + max(mean(result["runs"], "iou") for result in results)
    ) / 2


def methods_table(report: Report) -> str:
    """Where the methods start, and every method."""
    middle = half_way(report)
    rows = [[START, *_cells(lambda task: report["given"][task]), ""]]
    for name in report["methods"]:
        results = {task: found[name] for task, found in report["results"].items()}
        steps = iou_by_step(results["response"]).items()
        reached = next((str(step) for step, value in steps if value >= middle), "never")
        rows.append([name, *_cells(lambda task, r=results: r[task]["runs"]), reached])
    return table(["gradient", *COLUMNS, f"steps to IoU {100 * middle:.0f} %"], rows)


def _cells(runs_of: Callable[[str], list[Report]]) -> list[str]:
    cells = []
    for task, key in COLUMNS.values():
        runs = runs_of(task)
        cell = spread([run[key] for run in runs]) if key in runs[0] else None
        cells.append(shown(cell, 1, 2) if key == "half_side" else shown(cell))
    return cells


def note(report: Report) -> str:
    return (
        "IoU with the tight window; found: IoU of a half or more; tl: in tight half sides; scale 2: its "
        "accuracy; alone: windows alone; APN: pre-trained; middle: APN from the middle; steps: of the "
        "pre-trained APN, half of the best one's way. Mean ± standard deviation over "
        f"{len(report['seeds'])} seeds, unseen canvases."
    )
