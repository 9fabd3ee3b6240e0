# SPDX-License-Identifier: BSD-3-Clause
"""What a model looked at, as figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw
from torch import Tensor

from .model import RACNN
from .output import RACNNOutput, printable

COLOURS = ("#ffd166", "#ef476f", "#06d6a0", "#118ab2", "#f78c6b")
"""Of the windows of scale 2, 3, ..."""


def corners_of(window: Tensor) -> tuple[float, float, float, float]:
    tx, ty, tl = window.tolist()
    return tx - tl, ty - tl, tx + tl, ty + tl


def top_labels(logits: Tensor, classes: Sequence[str], count: int) -> list[str]:
    """``"92.1 % name"`` of the likeliest classes."""
    found = logits.float().softmax(0).topk(min(count, len(classes)))
    pairs = zip(found.values.tolist(), found.indices.tolist(), strict=True)
    return [f"{100 * p:.1f} % {printable(classes[i])}" for p, i in pairs]


def _colour(scale: int) -> str:
    return COLOURS[(scale - 2) % len(COLOURS)]


def _draw_windows(axes: Axes, windows: Sequence[Tensor]) -> None:
    """windows N - 1 x (K, 3) of one image, on an image that is drawn already."""
    for n, scale in enumerate(windows, 2):
        for window in scale:
            left, top, right, bottom = corners_of(window)
            square = Rectangle((left, top), right - left, bottom - top, fill=False, linewidth=2)
            square.set_edgecolor(_colour(n))
            axes.add_patch(square)


def _show(axes: Axes, image: Tensor) -> None:
    axes.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy())
    axes.set(xticks=[], yticks=[])


def _save(figure: Any, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)
    plt.close(figure)


def class_response(model: RACNN, output: RACNNOutput, n: int) -> Tensor:
    """Where scale ``n`` (from 1) sees the class that it finds likeliest: (B, K, h, w), K being 1 at scale 1.

    The class activation map of Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR
    2016: channels of the feature map, weighted as the linear classifier weighs their means. Where a
    descriptor is no mean of the feature map, the plain sum over channels, around which the paper's first
    windows lie.
    """
    scale, logits = model.each_scale()[n - 1], output.logits[n - 1]
    maps = output.features[n - 1].float().unflatten(0, (len(logits), -1))
    if scale.descriptor == "mean":
        maps = maps * scale.classifier.weight[logits.argmax(1)].view(*maps.shape[:3], 1, 1)
    response: Tensor = maps.sum(2)
    return response


@torch.no_grad()
def draw_image(model: RACNN, image: Tensor, file: Path, heat: bool = False) -> None:
    """The image with its windows, then what every scale saw, with its three likeliest classes.

    Args:
        image (Tensor[3, S, S]): uint8.
        heat: below, where each scale sees its class, see :func:`class_response`.
    """
    model.eval()
    classes = model.usage.names(model.num_classes)
    output = model(image.unsqueeze(0).to(model.mean.device), window_source=model.usage.window_source)
    size = len(output.crops) + 1, 1 + heat
    figure, grid = plt.subplots(
        size[1], size[0], figsize=(3.2 * size[0], 3.6 * size[1] + 0.5), squeeze=False, layout="constrained"
    )
    axes = grid[0]
    _show(axes[0], image / 255)
    _draw_windows(axes[0], [windows[0].cpu() for windows in output.windows])
    fused = list(output.by_name().values())[-1][0]
    axes[0].set_title("image and windows")
    axes[0].set_xlabel(
        "all scales:\n" + "\n".join(top_labels(fused, classes, 3)), fontsize=8, parse_math=False
    )
    for n, (axis, crops, logits) in enumerate(zip(axes[1:], output.crops, output.logits, strict=True), 1):
        pixels = crops * model.std + model.mean if n == 1 else crops[0] * model.std + model.mean
        _show(axis, torch.cat(list(pixels.cpu()), 2))
        axis.set_title(f"scale {n}", color=_colour(n) if n > 1 else "black")
        axis.set_xlabel("\n".join(top_labels(logits[0], classes, 3)), fontsize=8, parse_math=False)
        if heat:
            _show(grid[1, n], torch.cat(list(pixels.cpu()), 2))
            response = torch.cat(list(class_response(model, output, n)[0].cpu()), 1).numpy()
            extent = (*axis.get_xlim(), *axis.get_ylim())
            grid[1, n].imshow(response, "jet", alpha=0.5, interpolation="bilinear", extent=extent)
    if heat:
        grid[1, 0].axis("off")
    _save(figure, file)


@torch.no_grad()
def draw_contact_sheet(model: RACNN, images: Sequence[Tensor], label: int, file: Path) -> None:
    """Images (3, S, S) uint8 of one class with their windows; green titles are right, red ones wrong."""
    classes = model.usage.names(model.num_classes)
    if not images:
        raise ValueError(f"there are no images of {classes[label]!r}")
    model.eval()
    pixels = torch.stack(list(images)).to(model.mean.device)
    output = model(pixels, window_source=model.usage.window_source)
    fused = list(output.by_name().values())[-1]
    columns = min(len(images), 4)
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3 * columns, 3.3 * rows), squeeze=False, layout="constrained"
    )
    for n, axis in enumerate(axes.flat):
        if n >= len(images):
            axis.axis("off")
            continue
        _show(axis, images[n] / 255)
        _draw_windows(axis, [windows[n].cpu() for windows in output.windows])
        right = int(fused[n].argmax()) == label
        title, colour = top_labels(fused[n], classes, 1)[0], "green" if right else "red"
        axis.set_title(title, fontsize=8, color=colour, parse_math=False)
    figure.suptitle(printable(classes[label]), parse_math=False)
    _save(figure, file)


def read_history(path: Path, images: int) -> list[dict[str, Any]]:
    """The epochs of a run's ``history.json`` that recorded windows, of so many images or more.

    Raises:
        OSError, ValueError: there is no such file, or it is none of a run.
    """
    try:
        epochs = json.loads(path.read_text(encoding="utf-8"))
        moments = [
            {name: epoch[name] for name in ("phase", "epoch", "windows")}
            for epoch in epochs
            if epoch["windows"]
        ]
        for moment in moments:
            windows = torch.tensor(moment["windows"], dtype=torch.float32)
            if windows.dim() != 4 or windows.shape[1] < images or windows.shape[3] != 3:
                raise ValueError(f"windows of {images} images have not the shape {tuple(windows.shape)}")
            if not bool((windows.abs() < 1e6).all()):
                raise ValueError("windows must be numbers of pixels")
    except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{printable(path)} must be the history of a run: {error!r}") from error
    return moments


def draw_history(history: Sequence[dict[str, Any]], images: Sequence[Tensor], file: Path) -> None:
    """How windows moved while training: a strip (``.png``) of at most 8 moments, or a ``.gif`` of all.

    Args:
        history: epochs of ``history.json``, see :func:`read_history`.
        images: (3, S, S) uint8, those whose windows were recorded.
    """
    moments = [record for record in history if record["windows"]]
    if not moments or not images:
        raise ValueError("history holds no windows: train with 2 or more scales")
    if file.suffix == ".gif":
        frames = [draw_moment(record, images) for record in moments]
        file.parent.mkdir(parents=True, exist_ok=True)
        frames[0].save(file, save_all=True, append_images=frames[1:], duration=400, loop=0)
        return
    chosen = [moments[round(k * (len(moments) - 1) / 7)] for k in range(8)] if len(moments) > 8 else moments
    figure, axes = plt.subplots(
        len(images),
        len(chosen),
        figsize=(2 * len(chosen), 2.1 * len(images) + 0.4),
        squeeze=False,
        layout="constrained",
    )
    for row, image in enumerate(images):
        for axis, record in zip(axes[row], chosen, strict=True):
            _show(axis, image / 255)
            _draw_windows(axis, [torch.tensor(scale[row]) for scale in record["windows"]])
            if row == 0:
                axis.set_title(f"{record['phase']}, epoch {record['epoch']}", fontsize=8)
    _save(figure, file)


def draw_moment(record: dict[str, Any], images: Sequence[Tensor]) -> Image.Image:
    """All images (3, S, S) uint8 in a row, with the windows of one epoch of ``history.json``."""
    row = torch.cat(list(images), 2).permute(1, 2, 0).contiguous()
    frame = Image.fromarray(row.numpy())
    draw, side = ImageDraw.Draw(frame), images[0].shape[-1]
    for n, scale in enumerate(record["windows"], 2):
        for position, windows in enumerate(scale[: len(images)]):
            for window in windows:
                left, top, right, bottom = corners_of(torch.tensor(window))
                shift = position * side
                box = (left + shift, top, min(right, side - 1) + shift, min(bottom, side - 1))
                draw.rectangle(box, outline=_colour(n), width=2)
    draw.text((4, 4), f"{record['phase']}, epoch {record['epoch']}", fill="white")
    return frame
