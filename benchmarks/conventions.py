# SPDX-License-Identifier: BSD-3-Clause
"""Where windows lie and where crops sample, drawn: pixels, box formats, ``align_corners``, letterboxes.

    python benchmarks/conventions.py [--output benchmarks/results]

Nothing is drawn by a formula of this file's own: windows are what ``racnn_ops.boxes`` makes of boxes, and
dots are where ``attention_crop`` says it samples, in crops of an image whose values are its coordinates.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from racnn_ops import attention_crop, boxes
from record import provenance
from record.section import Report, Section, table

H, W = 6, 8
MARGIN = 3  # pixels around the image of coordinates
COLOURS = {"image": "#e8ecf1", "grid": "#c5ccd6", "window": "#d1495b", "box": "#30638e", "text": "#2b2d42"}
# Title -> how a window is made, and the crop's size.
PANELS = {
    "a window: centre and half sides": ("torch.tensor([3.5, 2.75, 2.5, 1.75])", (3, 4)),
    "left, top, right, bottom: edges are edges": (
        "boxes.windows_from_boxes(torch.tensor([1.0, 1.0, 6.0, 4.5]))",
        (3, 4),
    ),
    "the same box by its centre, relative to the image": (
        "boxes.windows_from_boxes(torch.tensor([3.5 / W, 2.75 / H, 5 / W, 3.5 / H]), 'cxcywh', (H, W))",
        (3, 4),
    ),
    "align_corners=True: edges are samples' centres": (
        "boxes.windows_from_boxes("
        "torch.tensor([1.0, 1.0, 6.0, 4.0]), align_corners=True, output_size=(3, 4))",
        (3, 4),
    ),
    "affine_grid's matrix, scale and shift": (
        "boxes.windows_from_theta(torch.tensor([[0.5, 0.0, 0.25], [0.0, 0.6, -0.2]]), (H, W))",
        (3, 4),
    ),
    "a letterbox: the image in the middle": ("boxes.letterbox((H, W), (5, 5))", (5, 5)),
}


def window_of(code: str) -> Tensor:
    """``tx, ty, tw, th``."""
    window: Tensor = eval(code, {"torch": torch, "boxes": boxes, "H": H, "W": W})
    return window


def samples(window: Tensor, size: tuple[int, int]) -> Tensor:
    """Where a crop samples: (h, w, 2), x and y in pixels of the image, its left upper corner being 0, 0."""
    x = torch.arange(W + 2 * MARGIN) + 0.5 - MARGIN
    y = torch.arange(H + 2 * MARGIN) + 0.5 - MARGIN
    coordinates = torch.stack((x.expand(len(y), -1), y[:, None].expand(-1, len(x))))
    shifted = window + torch.tensor([MARGIN, MARGIN, 0.0, 0.0])
    return attention_crop(coordinates[None], shifted[None], size)[0].movedim(0, -1)


def measure() -> Report:
    report: Report = provenance.describe()
    report["panels"] = []
    for title, (code, size) in PANELS.items():
        window = window_of(code)
        found = {"title": title, "code": code, "window": window.tolist()}
        report["panels"].append(found | {"samples": samples(window, size).tolist()})
    return report


def make_table(report: Report) -> str:
    rows = [
        [panel["title"], f"`{panel['code']}`", ", ".join(f"{value:.4g}" for value in panel["window"])]
        for panel in report["panels"]
    ]
    return table(["", "by", "tx, ty, tw, th"], rows)


def draw(report: Report, path: Path) -> None:
    """A panel each: the image's pixels, the window, its samples."""
    panels = report["panels"]
    figure, axes = plt.subplots(2, 3, figsize=(11, 6.6), layout="constrained")
    for axis, panel in zip(axes.flat, panels, strict=True):
        _draw_panel(axis, panel)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_panel(axis: Axes, panel: Report) -> None:
    axis.add_patch(Rectangle((0, 0), W, H, color=COLOURS["image"]))
    for x in range(W + 1):
        axis.plot((x, x), (0, H), color=COLOURS["grid"], linewidth=0.8)
    for y in range(H + 1):
        axis.plot((0, W), (y, y), color=COLOURS["grid"], linewidth=0.8)
    tx, ty, tw, th = panel["window"]
    edge = {"fill": False, "edgecolor": COLOURS["window"], "linewidth": 2, "zorder": 3}
    axis.add_patch(Rectangle((tx - tw, ty - th), 2 * tw, 2 * th, **edge))
    axis.plot(tx, ty, "+", color=COLOURS["window"], markersize=9)
    points = [point for row in panel["samples"] for point in row]
    axis.plot(*zip(*points, strict=True), "o", color=COLOURS["box"], markersize=3.5)
    axis.set_title(panel["title"], fontsize=9.5, color=COLOURS["text"])
    axis.set_xlim(-0.6, W + 0.6)
    axis.set_ylim(H + 1.1, -1.1)
    axis.set_xticks(range(W + 1))
    axis.set_yticks(range(H + 1))
    axis.tick_params(labelsize=7, colors=COLOURS["text"], length=0)
    axis.set_aspect("equal")
    for side in axis.spines.values():
        side.set_visible(False)


SECTION = Section(
    table=make_table,
    note=lambda _: (
        f"An image of {H} x {W} pixels, the numbers being coordinates of their edges; red: the window and "
        "its centre; dots: where the crop samples."
    ),
    picture="Windows, and where crops sample",
    draw=draw,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    SECTION.add_arguments(parser)
    SECTION.write(measure(), parser.parse_args().output, "conventions")


if __name__ == "__main__":
    main()
