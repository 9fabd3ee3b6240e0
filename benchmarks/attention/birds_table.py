# SPDX-License-Identifier: BSD-3-Clause
"""Table, claims and curve of ``birds.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from record.section import Report, Section, table

from .paired import NOTE, claims_table
from .spread import shown, spread

Runs = list[dict[str, Any]]


def accuracy(runs: Runs, scales: str) -> dict[str, float] | None:
    if scales not in runs[0]["test"]:
        return None
    return spread([run["test"][scales].count("1") / len(run["test"][scales]) for run in runs])


def names_of(rows: dict[str, Runs]) -> list[str]:
    return max((list(runs[0]["test"]) for runs in rows.values()), key=len)


def tables(report: Report) -> str:
    rows: dict[str, Runs] = report["rows"]
    names = names_of(rows)
    lines = []
    for title, runs in rows.items():
        title += f" ({runs[0]['is']})" if "is" in runs[0] else ""
        cells = [shown(accuracy(runs, name)) for name in names]
        quality = [
            shown(spread([run["quality"][key] for run in runs])) if runs[0]["quality"] else ""
            for key in ("inside", "iou")
        ]
        lines.append([title, f"{runs[0]['cost']:.2f}", *cells, *quality])
    accuracies = table(["row", "cost", *names, "inside", "IoU"], lines)
    return accuracies + "\n\n" + claims_table(report["claims"])


def note(report: Report) -> str:
    return (
        f"Top-1 % on the {report['test_images']} test images of {report['classes']} classes by scales, mean "
        f"± standard deviation over {len(report['seeds'])} seeds; cost: in looks of 128 x 128 pixels; scale "
        "2's windows: % inside the bird's box, IoU % with the tight window. " + NOTE
    )


CURVES = {
    "whole image": [f"one input of {side}" for side in (96, 128, 184, 224)],
    "centre 75 %": [f"one input of {side}, centre 75 %" for side in (96, 128, 184, 224)],
    "attention, scales 1+2": ["attention at 96", "difference", "attention at 184"],
}


def draw(report: Report, path: Path) -> None:
    """Accuracy against the pixels that are read, or, of fewer rows, a bar each."""
    rows = report["rows"]
    figure, axis = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for title, members in CURVES.items():
        have = [name for name in members if name in rows]
        if not have:
            continue
        cells = [accuracy(rows[name], list(rows[name][0]["test"])[-1]) for name in have]
        means, errors = ([100 * cell[key] for cell in cells if cell] for key in ("mean", "std"))
        costs = [rows[name][0]["cost"] * 128**2 / 1e3 for name in have]
        axis.errorbar(costs, means, yerr=errors, fmt="o-", markersize=4, capsize=2, label=title)
    for title in ("response", "random", "box", "centre"):
        if title in rows:
            cell = accuracy(rows[title], "1+2")
            cost = rows[title][0]["cost"] * 128**2 / 1e3
            assert cell is not None
            axis.errorbar(
                [cost], [100 * cell["mean"]], yerr=[100 * cell["std"]], fmt="x", label=f"{title} windows"
            )
    axis.set(
        xlabel="pixels that the network reads of an image, thousands", ylabel="test top-1 %", xscale="log"
    )
    ticks = [10, 20, 30, 50, 70]
    axis.set_xticks(ticks, map(str, ticks))
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


SECTION = Section(tables, note, "Accuracy against pixels read", draw)
