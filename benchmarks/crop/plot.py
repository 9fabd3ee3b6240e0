# SPDX-License-Identifier: BSD-3-Clause
"""The picture for the README: how many times longer the others take."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import published_times
from .cases import MODES
from .contestants import ALL, OURS
from .results import Record, Results, times_ours

OUR_COLOUR, OTHER_COLOUR, TEXT_COLOUR = "#d1495b", "#8d99ae", "#2b2d42"


def draw(data: Record, path: Path) -> None:
    """One panel a mode, one bar a contestant; its length is a ratio of medians from one run."""
    if published_times.is_alone(data):
        _draw_models(data, path)
        return
    results = Results(data)
    figure, panels = plt.subplots(1, len(MODES), figsize=(11, 2.9), sharey=True, layout="constrained")
    names = [c.name for c in ALL if any(results.time(results.main, mode, c.name) for mode in MODES)]
    ratios = (results.ratio(results.main, mode, name) for mode in MODES for name in names)
    known = [ratio for ratio in ratios if ratio]
    start, longest = 0.7 * min(known, default=1), max(known, default=1)
    for panel, (mode, title) in zip(panels, MODES.items(), strict=True):
        _draw_panel(panel, results, mode, names, start)
        panel.set_title(title, fontsize=10, color=TEXT_COLOUR)
        panel.set_xlim(start, 6 * longest)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    _save(figure, results, results.main["label"], path)


def plain(ratio: float) -> tuple[str, str]:
    """As in the tables, and the weight of its font."""
    text = times_ours(ratio)
    return text.strip("*"), "bold" if text.startswith("*") else "normal"


def _save(figure: Figure, results: Results, what: str, path: Path) -> None:
    threads = f", {results.data['machine']['threads']} threads" if not results.is_cuda else ""
    machine = results.data["machine"]["device"]
    figure.suptitle(
        f"Time of a call, racnn_ops = 1 ({what}; {machine}{threads})", fontsize=11, color=TEXT_COLOUR
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _draw_models(data: Record, path: Path) -> None:
    """A bar a step and mode, to the left where ours takes longer."""
    pairs = published_times.pairs(data)
    figure, panel = plt.subplots(figsize=(11, 0.6 + 0.3 * len(pairs)), layout="constrained")
    for row, (ours, theirs) in enumerate(pairs):
        ratio = theirs["median_s"] / ours["median_s"]
        colour = OTHER_COLOUR if ratio >= 1 else OUR_COLOUR
        panel.barh(row, ratio - 1, left=1, color=colour, height=0.68)
        shown, weight = plain(ratio)
        place = {"va": "center", "fontsize": 8, "color": TEXT_COLOUR, "weight": weight}
        panel.text(max(ratio, 1), row, f" {shown}", **place)
    panel.set_xscale("log")
    panel.axvline(1, color=TEXT_COLOUR, linewidth=0.8)
    panel.xaxis.set_visible(False)
    panel.set_yticks(
        range(len(pairs)), [f"{r['model']}: {r['step']}, {r['mode']}" for r, _ in pairs], fontsize=8
    )
    panel.invert_yaxis()
    panel.tick_params(length=0, colors=TEXT_COLOUR)
    panel.spines[:].set_visible(False)
    _save(figure, Results(data), "crop steps of published models", path)


def _draw_panel(panel: Axes, results: Results, mode: str, names: list[str], start: float) -> None:
    for row, name in enumerate(names):
        record = results.time(results.main, mode, name)
        ratio = results.ratio(results.main, mode, name)
        if record is None or ratio is None:
            panel.text(
                1.14 * start, row, "no gradient for windows", va="center", fontsize=8, color=OTHER_COLOUR
            )
            continue
        # The axis is logarithmic: bars begin left of 1 and of the shortest, so that each is seen.
        colour = OUR_COLOUR if name == OURS.name else OTHER_COLOUR
        panel.barh(row, ratio - start, left=start, color=colour, height=0.68)
        images_only = "" if record["complete"] else ", images only"
        shown, weight = plain(ratio)
        label = f" {shown} ({1e3 * record['median_s']:.3g} ms{images_only})"
        panel.text(ratio, row, label, va="center", fontsize=8, color=TEXT_COLOUR, weight=weight)
    panel.set_xscale("log")
    panel.xaxis.set_visible(False)
    panel.tick_params(length=0, colors=TEXT_COLOUR)
    panel.spines[:].set_visible(False)
