# SPDX-License-Identifier: BSD-3-Clause
"""A window finds what it is looking for: gradient descent on ``tx, ty, tl`` through ``attention_crop``.

On a photograph a target crop is given, not where it was cut. Several windows start elsewhere, all on the
same image, and follow the exact gradient of the squared difference between their crop and the target;
blurring both, less and less, lets them see far first. Prints how far each ends from the hidden window; draws
the picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import machine
import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle
from rich.console import Console
from rich.progress import track
from rich.table import Table
from skimage import data, filters

from racnn_ops import attention_crop

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    machine.add_output(parser)
    output = parser.parse_args().output
    photo = torch.from_numpy(data.chelsea()).permute(2, 0, 1) / 255  # "Chelsea" by Stefan van der Walt, CC0
    path = find(photo)
    file = output / "demo.png"
    draw(photo, path, file)

    table = Table("window", "start: tx, ty, tl", "end: tx, ty, tl", "distance from the hidden window, pixels")
    for k, (start, end) in enumerate(zip(path[0], path[-1], strict=True)):
        numbers = [", ".join(f"{v:.1f}" for v in window.tolist()) for window in (start, end)]
        table.add_row(str(k + 1), *numbers, f"{(end - HIDDEN).abs().max():.3f}")
    console = Console()
    console.print(table)
    console.print(f"picture: {file}")


if __name__ == "__main__":
    main()
