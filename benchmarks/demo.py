# SPDX-License-Identifier: BSD-3-Clause
"""A window finds what it is looking for: gradient descent on ``tx, ty, tl`` through ``attention_crop``.

On a photograph a target crop is given, not where it was cut. Several windows start elsewhere, all on the
same image, and follow the exact gradient of the squared difference between their crop and the target;
blurring both, less and less, lets them see far first. Tells how far each ends from the hidden window.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle
from rich.progress import track
from skimage import data, filters

from racnn_ops import attention_crop
from record import provenance
from record.section import Report, Section, table

SIZE = 96
HIDDEN = torch.tensor([170.0, 110.0, 52.0])
STARTS = torch.tensor(
    [
        [120.0, 60.0, 45.0],
        [280.0, 130.0, 85.0],
        [205.0, 155.0, 60.0],
        [95.0, 190.0, 95.0],
        [225.0, 150.0, 140.0],
    ]
)
BLURS = (32.0, 16.0, 8.0, 4.0, 2.0, 0.0)  # standard deviations in pixels, one after another
STEPS = 60  # for each


def find(photo: torch.Tensor) -> list[torch.Tensor]:
    """The windows (K, 3) after every step, the start first."""
    windows = STARTS.clone().unsqueeze(0).requires_grad_()
    path = [windows[0].detach().clone()]
    for blur in track(BLURS, "following the gradient"):
        image = torch.from_numpy(filters.gaussian(photo.numpy(), blur, channel_axis=0))
        images = image.float().unsqueeze(0)
        target = attention_crop(images, HIDDEN.view(1, 1, 3), SIZE, boundary="border")
        optimizer = torch.optim.Adam([windows], lr=max(blur, 1.0) / 6)
        for _ in range(STEPS):
            optimizer.zero_grad()
            crops = attention_crop(images, windows, SIZE, boundary="border")
            (crops - target).square().mean((2, 3, 4)).sum().backward()
            optimizer.step()
            path.append(windows[0].detach().clone())
    return path


def draw(photo: torch.Tensor, path: list[torch.Tensor], file: Path) -> None:
    moments = [0, 10, 25, len(path) - 1]
    crops = attention_crop(photo.unsqueeze(0), torch.stack([path[m] for m in moments]).view(1, -1, 3), SIZE)
    crops = crops.view(len(moments), len(STARTS), 3, SIZE, SIZE)
    target = attention_crop(photo.unsqueeze(0), HIDDEN.view(1, 3), SIZE)[0]
    colours = plt.get_cmap("tab10").colors

    figure = plt.figure(figsize=(12, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.25, 1))
    axes = left.subplots()
    axes.imshow(photo.permute(1, 2, 0).numpy(), alpha=0.85)
    for k, colour in enumerate(colours[: len(STARTS)]):
        line = torch.stack([windows[k, :2] for windows in path])
        axes.plot(*line.T.tolist(), color=colour, linewidth=1.6)
        for moment, width in ((0, 1.2), (-1, 2.4)):
            x, y, half = path[moment][k].tolist()
            square = Rectangle((x - half, y - half), 2 * half, 2 * half, fill=False, color=colour)
            square.set(linestyle="--" if moment == 0 else "-", linewidth=width)
            axes.add_patch(square)
    axes.set(xlim=(0, photo.shape[2]), ylim=(photo.shape[1], 0), xticks=[], yticks=[])
    axes.set_title("five windows follow the gradient of tx, ty, tl (dashed: start)")

    grid = right.subplots(len(STARTS), len(moments) + 1)
    titles = ["start", *(f"step {m}" for m in moments[1:]), "target"]
    for k in range(len(STARTS)):
        for column, axis in enumerate(grid[k]):
            crop = target if column == len(moments) else crops[column, k]
            axis.imshow(crop.permute(1, 2, 0).clamp(0, 1).numpy())
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set(color=colours[k] if column < len(moments) else "black", linewidth=2)
            if k == 0:
                axis.set_title(titles[column], fontsize=9)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def distances(report: Report) -> str:
    rows = []
    for number, window in enumerate(report["windows"], 1):
        ends = (", ".join(f"{v:.1f}" for v in window[end]) for end in ("start", "end"))
        rows.append([str(number), *ends, f"{window['distance']:.3f}"])
    return table(["window", "start: tx, ty, tl", "end: tx, ty, tl", "distance from the hidden window"], rows)


def note(report: Report) -> str:
    return f"All in pixels; {report['steps']} steps; distance: the largest of the three differences."


SECTION = Section(distances, note, "A window finds what it is looking for by gradient descent on tx, ty, tl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    SECTION.add_arguments(parser)
    output = parser.parse_args().output
    report = provenance.describe()
    photo = torch.from_numpy(data.chelsea()).permute(2, 0, 1) / 255  # "Chelsea" by Stefan van der Walt, CC0
    path = find(photo)
    draw(photo, path, output / "demo.png")
    report["steps"] = len(path) - 1
    report["windows"] = [
        {"start": start.tolist(), "end": end.tolist(), "distance": (end - HIDDEN).abs().max().item()}
        for start, end in zip(path[0], path[-1], strict=True)
    ]
    SECTION.write(report, output, "demo")


if __name__ == "__main__":
    main()
