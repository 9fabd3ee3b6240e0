# SPDX-License-Identifier: BSD-3-Clause
"""The picture for the README: how many times longer the others take."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from .cases import MODES
from .contestants import ALL, OURS
from .results import Record, Results

OUR_COLOUR, OTHER_COLOUR, TEXT_COLOUR = "#d1495b", "#8d99ae", "#2b2d42"


def draw(data: Record, path: Path) -> None:
    """One panel a mode, one bar a contestant; its length is a ratio of medians from one run."""
    results = Results(data)
    figure, panels = plt.subplots(1, len(MODES), figsize=(11, 2.9), sharey=True, layout="constrained")
    names = [c.name for c in ALL if any(results.time(results.main, mode, c.name) for mode in MODES)]
    ratios = (results.ratio(results.main, mode, name) for mode in MODES for name in names)
    longest = max(filter(None, ratios), default=1)
    for panel, (mode, title) in zip(panels, MODES.items(), strict=True):
        _draw_panel(panel, results, mode, names)
        panel.set_title(title, fontsize=10, color=TEXT_COLOUR)
        panel.set_xlim(0.7, 6 * longest)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    threads = f", {results.data['machine']['threads']} threads" if not results.is_cuda else ""
    machine = results.data["machine"]["device"]
    figure.suptitle(
        f"Time of a call, racnn_ops = 1 ({results.main['label']}; {machine}{threads})",
        fontsize=11,
        color=TEXT_COLOUR,
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _draw_panel(panel: Axes, results: Results, mode: str, names: list[str]) -> None:
    for row, name in enumerate(names):
        record = results.time(results.main, mode, name)
        ratio = results.ratio(results.main, mode, name)
        if record is None or ratio is None:
            panel.text(0.8, row, "no gradient for windows", va="center", fontsize=8, color=OTHER_COLOUR)
            continue
        # The axis is logarithmic: bars begin left of 1, so that ours is seen.
        panel.barh(
            row, ratio - 0.7, left=0.7, color=OUR_COLOUR if name == OURS.name else OTHER_COLOUR, height=0.68
        )
        images_only = "" if record["complete"] else ", images only"
        label = f" {ratio:.1f}x ({1e3 * record['median_s']:.3g} ms{images_only})"
        panel.text(ratio, row, label, va="center", fontsize=8, color=TEXT_COLOUR)
    panel.set_xscale("log")
    panel.xaxis.set_visible(False)
    panel.tick_params(length=0, colors=TEXT_COLOUR)
    panel.spines[:].set_visible(False)
