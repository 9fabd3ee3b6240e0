# SPDX-License-Identifier: BSD-3-Clause
"""Where windows lie and where crops sample, drawn: pixels, box formats, ``align_corners``, letterboxes.

    python benchmarks/conventions.py [--output benchmarks/results]

Nothing is drawn by a formula of this file's own: windows are what ``racnn_ops.boxes`` makes of what others
write, dots are where ``attention_crop`` says it samples, rings where the others do, each in crops of an image
whose values are its coordinates. ``crop/conventions_list.py`` holds both sides as code.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import kornia.geometry.transform as kornia
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor
from torchvision.ops import box_convert, roi_align
from torchvision.transforms import v2

from crop.conventions_list import CONVENTIONS, GROUPS, Convention, H, W
from racnn import windows as geometry
from racnn_ops import attention_crop, boxes
from record import provenance
from record.section import Report, Section

MARGIN = 3  # pixels around the image of coordinates
COLOURS = {"image": "#e8ecf1", "grid": "#c5ccd6", "window": "#d1495b", "samples": "#30638e", "box": "#2e933c"}
COLOURS |= {"text": "#2b2d42"}


def coordinates(margin: int = 0) -> Tensor:
    """An image (1, 2, H + 2 margin, W + 2 margin) of the x and y of its pixels' centres; 0, 0 is a corner."""
    x = torch.arange(W + 2 * margin) + 0.5 - margin
    y = torch.arange(H + 2 * margin) + 0.5 - margin
    return torch.stack((x.expand(len(y), -1), y[:, None].expand(-1, len(x))))[None]


def each_plane(function: Callable[[np.ndarray], Any]) -> Tensor:
    """What a library for single arrays makes of the image's planes."""
    return torch.stack([torch.from_numpy(np.array(function(plane.numpy()))) for plane in coordinates()[0]])[
        None
    ]


NAMES = {
    "F": F,
    "H": H,
    "Image": Image,
    "W": W,
    "attention_crop": attention_crop,
    "box_convert": box_convert,
    "boxes": boxes,
    "cv2": cv2,
    "each_plane": each_plane,
    "geometry": geometry,
    "kornia": kornia,
    "roi_align": roi_align,
    "torch": torch,
    "v2": v2,
}


def run(convention: Convention) -> dict[str, Any]:
    """The names that its code sees and makes: ``windows``, ``box``, and ``crops``, those of others."""
    names: dict[str, Any] = NAMES | {"image": coordinates()}
    exec(convention.given, names)
    names["windows"] = eval(convention.windows, names)
    for name, code in (("box", convention.box), ("crops", convention.theirs)):
        names[name] = _last_value(code, names)
    return names


def _last_value(code: str, names: dict[str, Any]) -> Any:
    """Of its statements, whose last one is an expression; None where there are none."""
    if not code:
        return None
    *statements, expression = ast.parse(code).body
    exec(compile(ast.Module(statements, []), "<conventions>", "exec"), names)
    return eval(ast.get_source_segment(code, expression) or "", names)


def samples(windows: Tensor, size: tuple[int, int], flip: bool = False) -> Tensor:
    """Where a crop samples: (h, w, 2), x and y in pixels of the image, its left upper corner being 0, 0."""
    shifted = windows + torch.tensor([MARGIN, MARGIN, *[0.0] * (windows.shape[1] - 2)])
    crops = attention_crop(coordinates(MARGIN), shifted, size, flip=torch.tensor([flip]))
    return crops[0].movedim(0, -1)


def measure() -> Report:
    report: Report = provenance.describe()
    report["conventions"] = {}
    for name, convention in CONVENTIONS.items():
        made = run(convention)
        windows = made["windows"]
        report["conventions"][name] = {
            "window": windows[0].tolist(),
            "samples": samples(windows, convention.size, convention.flip).tolist(),
            "theirs": [] if made["crops"] is None else _finite(made["crops"][0].movedim(0, -1)).tolist(),
            "box": None if made["box"] is None else made["box"].tolist(),
        }
    return report


def _finite(points: Tensor) -> Tensor:
    """Those (N, 2) that lie in the image; the others are NaN."""
    return points[points.isfinite().all(-1)]


def make_blocks(report: Report) -> str:
    """Of each convention a heading, what it is, its picture and its code."""
    blocks = []
    for title, group in GROUPS.items():
        blocks.append(f"## {title}")
        for convention in group:
            picture = f"![Where a crop samples: {convention.name}]({picture_name(convention.name)})"
            found = report["conventions"][convention.name]
            blocks += [f"### {convention.title}", convention.text, picture, _code(convention, found)]
    return "\n\n".join(blocks)


def _code(convention: Convention, found: Report) -> str:
    lines = convention.given.splitlines()
    parts = ", ".join(f"{value:.4g}" for value in found["window"])
    if convention.windows == "windows":
        lines = [line + f"  # {parts}" if line.startswith("windows = ") else line for line in lines]
    else:
        lines.append(f"windows = {convention.windows}  # {parts}")
    flip = ", flip=flip" if convention.flip else ""
    lines.append(f"crops = attention_crop(image, windows, {convention.size}{flip})")
    if convention.box and "in_crop" in convention.given:
        lines.append(f"{convention.box}  # {', '.join(f'{value:.4g}' for value in found['box'])}")
    if convention.theirs:
        lines += ["# samples at the same places", convention.theirs]
    return "\n".join(["```python", *lines, "```"])


def picture_name(name: str) -> str:
    return f"conventions-{name}.png"


def draw(report: Report, path: Path) -> None:
    """A picture each, beside ``path``."""
    for name, found in report["conventions"].items():
        figure, axis = plt.subplots(figsize=(4.6, 3.6), layout="constrained")
        _draw(axis, found)
        figure.savefig(path.with_name(picture_name(name)), dpi=100)
        plt.close(figure)


def _draw(axis: Axes, found: Report) -> None:
    """The image's pixels, the window, the part of it that each output has, the samples of both sides."""
    axis.add_patch(Rectangle((0, 0), W, H, color=COLOURS["image"]))
    for x in range(W + 1):
        axis.plot((x, x), (0, H), color=COLOURS["grid"], linewidth=0.8)
    for y in range(H + 1):
        axis.plot((0, W), (y, y), color=COLOURS["grid"], linewidth=0.8)
    tx, ty, tw, th = (*found["window"], found["window"][-1])[:4]
    rows, columns = len(found["samples"]), len(found["samples"][0])
    thin = {"color": COLOURS["window"], "linewidth": 0.6, "linestyle": ":"}
    for n in range(1, columns):
        axis.plot((tx - tw + 2 * tw * n / columns,) * 2, (ty - th, ty + th), **thin)
    for n in range(1, rows):
        axis.plot((tx - tw, tx + tw), (ty - th + 2 * th * n / rows,) * 2, **thin)
    edge = {"fill": False, "edgecolor": COLOURS["window"], "linewidth": 2, "zorder": 3}
    axis.add_patch(Rectangle((tx - tw, ty - th), 2 * tw, 2 * th, **edge))
    axis.plot(tx, ty, "+", color=COLOURS["window"], markersize=10)
    if found["box"] is not None:
        left, top, right, bottom = found["box"]
        edge |= {"edgecolor": COLOURS["box"], "linestyle": "--"}
        axis.add_patch(Rectangle((left, top), right - left, bottom - top, **edge))
    ring = {"markerfacecolor": "none", "linestyle": ""}
    axis.plot(*found["samples"][0][0], "s", markersize=13, color=COLOURS["samples"], **ring)
    axis.plot(
        *_separate([point for row in found["samples"] for point in row]),
        "o",
        color=COLOURS["samples"],
        markersize=4,
    )
    axis.plot(*_separate(found["theirs"]), "o", color=COLOURS["text"], markersize=8.5, **ring)
    axis.set_xlim(-0.6, W + 0.6)
    axis.set_ylim(max(H, ty + th) + 0.5, min(0, ty - th) - 0.5)
    axis.set_xticks(range(W + 1))
    axis.set_yticks(range(H + 1))
    axis.tick_params(labelsize=8, colors=COLOURS["text"], length=0)
    axis.set_aspect("equal")
    for side in axis.spines.values():
        side.set_visible(False)


def _separate(points: list[list[float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


SECTION = Section(
    table=make_blocks,
    note=lambda _: (
        f"An image of {H} x {W} pixels, the numbers being coordinates of their edges. Red: the window, its "
        "centre, and the part of each output; dots: where `attention_crop` samples, a square around the "
        "crop's first; rings: where the others do."
    ),
    draw=draw,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    SECTION.add_arguments(parser)
    SECTION.write(measure(), parser.parse_args().output, "conventions")


if __name__ == "__main__":
    main()
