# SPDX-License-Identifier: BSD-3-Clause
"""Table, claims and curve of ``birds.py``."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from record.section import Report, Section

from .birds_rows import ROWS
from .paired import NOTE, claims_table
from .spread import spread

Runs = list[dict[str, Any]]


def accuracy(runs: Runs, scales: str) -> dict[str, float] | None:
    if scales not in runs[0]["test"]:
        return None
    return spread([run["test"][scales].count("1") / len(run["test"][scales]) for run in runs])


def made_on(report: Report) -> str:
    """The processor and the instruction set."""
    return f"{report['machine']['device']}, {report['versions']['cpu_capability']}"


def claims(report: Report) -> str:
    def cost(row: str, scales: str) -> float:
        run = report["rows"][row][0]
        # Scale 1 is seen before there are windows; a group has the name of one of its rows beside it.
        known = ROWS[report["kind"]][run.get("is", row)]
        return replace(known, scales=1).cost if scales == "1" else known.cost

    return claims_table(report["claims"], cost)


def note(report: Report) -> str:
    rows = report["rows"]
    chosen = [f"the {title} is {runs[0]['is']!r}" for title, runs in rows.items() if "is" in runs[0]]
    once = [title for title, runs in rows.items() if len(runs) < len(report["seeds"])]
    few = [f"one seed alone of {', '.join(once)}"] if once else []
    made: dict[str, list[str]] = {}
    for title, runs in rows.items():
        for machine in sorted({run.get("made", made_on(report)) for run in runs if "is" not in run}):
            made.setdefault(machine, []).append(title)
    *few_rows, (most, _) = sorted(made.items(), key=lambda item: len(item[1]))
    few += [f"run on {machine}: {', '.join(titles)}" for machine, titles in few_rows]
    if few_rows or most != made_on(report):
        few.append(f"{'all other rows' if few_rows else 'run'} on {most}")
    return (
        f"Top-1 % on the {report['test_images']} test images of {report['classes']} classes, mean over "
        f"{len(report['seeds'])} seeds, of scales alone and fused; cost: in looks of 128 x 128 pixels. "
        + NOTE
        + "".join(f" {note[0].upper()}{note[1:]}." for note in ["; ".join(chosen), *few] if note)
    )


def pixels(runs: Runs) -> float:
    """Thousands that the network reads of an image."""
    thousands: float = runs[0]["cost"] * 128**2 / 1e3
    return thousands


SIDES = (96, 128, 184, 224, 256)
CURVES = {
    "whole image": [f"one input of {side}" for side in SIDES],
    "centre 75 %": [f"one input of {side}, centre 75 %" for side in SIDES],
    "centre 50 %": [f"one input of {side}, centre 50 %" for side in SIDES],
    "attention, scales 1+2": ["attention at 96", "difference", "attention at 184"],
}


def draw(report: Report, path: Path) -> None:
    """Accuracy against the pixels that are read: single inputs, attention, and other windows at its cost."""
    rows = report["rows"]
    figure, axis = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for title, members in CURVES.items():
        have = [name for name in members if name in rows]
        if not have:
            continue
        cells = [accuracy(rows[name], list(rows[name][0]["test"])[-1]) for name in have]
        means, errors = ([100 * cell[key] for cell in cells if cell] for key in ("mean", "std"))
        axis.errorbar(
            [pixels(rows[name]) for name in have],
            means,
            yerr=errors,
            fmt="o-",
            markersize=4,
            capsize=2,
            label=title,
        )
    drawn = set(itertools.chain(*CURVES.values()))
    for title, runs in rows.items():
        finest = list(runs[0]["test"])[-1]
        if finest != "1" and title not in drawn and not title.startswith(("window", "best")):
            cell = accuracy(runs, finest)
            assert cell is not None
            mean, error = 100 * cell["mean"], 100 * cell["std"]
            axis.errorbar([pixels(runs)], [mean], yerr=[error], fmt="x", label=title)
    axis.set(
        xlabel="pixels that the network reads of an image, thousands", ylabel="test top-1 %", xscale="log"
    )
    left, right = 0.85 * min(map(pixels, rows.values())), 1.15 * max(map(pixels, rows.values()))
    axis.set_xlim(left, right)
    ticks = [tick for tick in (10, 15, 20, 30, 40, 50, 60, 70) if left <= tick <= right]
    axis.set_xticks(ticks, map(str, ticks))
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


SECTION = Section(claims, note, "Accuracy against pixels read", draw)
