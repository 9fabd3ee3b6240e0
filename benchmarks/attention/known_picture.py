# SPDX-License-Identifier: BSD-3-Clause
"""The picture of ``known_windows.py``: how windows come closer, and where they end on a few canvases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from racnn import windows as geometry

from .digits import SIDE, make_canvases

COLOURS = ("#e63946", "#f4a261", "#2a9d8f", "#4361ee", "#8ecae6", "#b56ced")
TEXT = "#2b2d42"


def draw(report: dict[str, Any], path: Path) -> None:
    results = report["results"]
    colours = dict(zip(results["alone"], COLOURS, strict=True))
    figure = plt.figure(figsize=(12, 6.6), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.45, 1))
    alone, response, middle = upper.subplots(1, 3, sharey=True)
    for name, colour in colours.items():
        runs = [run["iou_by_step"] for run in results["alone"][name]["runs"]]
        _band(alone, range(len(runs[0])), runs, name, colour)
        for axis, beginning in ((response, "response"), (middle, "middle")):
            curves = [run["curve"] for run in results[beginning][name]["runs"]]
            steps = [moment["step"] for moment in curves[0]]
            _band(axis, steps, [[moment["iou"] for moment in curve] for curve in curves], name, colour)
    alone.set(
        title="windows alone, started beside the digit", ylabel="IoU with the tight window", ylim=(0, None)
    )
    response.set_title("APN, pre-trained on the highest response")
    middle.set_title("APN, from the middle of the canvas")
    for axis in (alone, response, middle):
        axis.set_xlabel("steps")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.title.set(fontsize=10, color=TEXT)
    handles, labels = alone.get_legend_handles_labels()
    upper.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    _draw_examples(lower.subplots(1, len(_examples(report, next(iter(colours))))), report, colours)
    lower.suptitle(
        "where the pre-trained APN looks after the ranking loss, unseen canvases (white: tight window)",
        fontsize=10,
        color=TEXT,
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _band(axis: Axes, steps: Any, runs: list[list[float]], name: str, colour: str) -> None:
    """The mean over seeds, and the range."""
    values = torch.tensor(runs)
    axis.plot(steps, values.mean(0).tolist(), color=colour, label=name, linewidth=1.8)
    axis.fill_between(
        steps, values.amin(0).tolist(), values.amax(0).tolist(), color=colour, alpha=0.15, linewidth=0
    )


def _examples(report: dict[str, Any], name: str) -> list[list[float]]:
    found: list[list[float]] = report["results"]["response"][name]["runs"][0]["examples"]
    return found


def _draw_examples(axes: Any, report: dict[str, Any], colours: dict[str, str]) -> None:
    count = report["effort"]["test"]
    canvases = make_canvases("test", count, 3 * report["seeds"][0] + 2)
    tight = geometry.around(canvases.boxes, float(SIDE))
    for number, axis in enumerate(axes):
        axis.imshow(canvases.images[number].permute(1, 2, 0).numpy(), alpha=0.75)
        _square(axis, tight[number].tolist(), "white", 2.6)
        for name, colour in colours.items():
            _square(axis, _examples(report, name)[number], colour, 1.8)
        axis.set(xticks=[], yticks=[], facecolor="black")


def _square(axis: Axes, window: list[float], colour: str, width: float) -> None:
    x, y, half = window
    axis.add_patch(
        Rectangle((x - half, y - half), 2 * half, 2 * half, fill=False, color=colour, linewidth=width)
    )
