# SPDX-License-Identifier: BSD-3-Clause
"""Masks of 28² pasted into an image, as Mask R-CNN does: others' ways beside ours, each compared first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from racnn_ops import boxes, paste

from .images import Size
from .timing import calls_of_a_sample, interleaved, sampler
from .validation import WrongResult

MASKS, SIDE = 100, 28
IMAGE = (800, 1333)
LEAST, MOST = 20, 500
THRESHOLD = 0.5
NEAR = 1e-3
"""Values this near to the threshold may fall on either side: rounding of positions decides."""


def ours(masks: Tensor, windows: Tensor, size: Size) -> Tensor:
    return paste(masks, windows, size, threshold=THRESHOLD)


def grid_sample(masks: Tensor, windows: Tensor, size: Size) -> Tensor:
    """Mask by mask over the whole image, which takes less memory than all at once, and no more time."""
    result = masks.new_empty((len(masks), 1, *size), dtype=torch.bool)
    for n in range(len(masks)):
        result[n] = sampled(masks[n : n + 1], windows[n : n + 1], (0, 0, *size))[0] >= THRESHOLD
    return result


def grid_sample_in_boxes(masks: Tensor, windows: Tensor, size: Size) -> Tensor:
    """The same over each box and a pixel around it, as detectron2 does on a CPU (``skip_empty``)."""
    result = masks.new_zeros((len(masks), 1, *size), dtype=torch.bool)
    edges = boxes.boxes_from_windows(windows)
    for n in range(len(masks)):
        left, top = (edges[n, :2].floor() - 1).clamp(min=0).int().tolist()
        right, bottom = (edges[n, 2:].ceil() + 1).int().tolist()
        right, bottom = min(right, size[1]), min(bottom, size[0])
        part = sampled(masks[n : n + 1], windows[n : n + 1], (top, left, bottom, right))
        result[n, :, top:bottom, left:right] = part[0] >= THRESHOLD
    return result


def sampled(masks: Tensor, windows: Tensor, area: tuple[int, int, int, int]) -> Tensor:
    """The rows and columns between top, left, bottom, right of an image."""
    top, left, bottom, right = area
    x0, y0, x1, y1 = boxes.boxes_from_windows(windows).split(1, dim=1)
    x, y = (
        torch.arange(first, end, device=masks.device, dtype=windows.dtype) + 0.5
        for first, end in ((left, right), (top, bottom))
    )
    x, y = (x - x0) / (x1 - x0) * 2 - 1, (y - y0) / (y1 - y0) * 2 - 1
    shape = len(masks), bottom - top, right - left
    grid = torch.stack((x[:, None, :].expand(shape), y[:, :, None].expand(shape)), dim=3)
    return F.grid_sample(masks, grid, align_corners=False)


CONTESTANTS: dict[str, Callable[[Tensor, Tensor, Size], Tensor]] = {
    "racnn_ops": ours,
    "grid_sample": grid_sample,
    "grid_sample, boxes alone": grid_sample_in_boxes,
}


def make_masks(device: torch.device, count: int = MASKS, size: Size = IMAGE) -> tuple[Tensor, Tensor]:
    """(N, 1, 28, 28), and windows inside the image, whose sides are spread by their logarithms."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.rand(count, 2, generator=generator)
    most = min(MOST, *size)
    half = (LEAST * (most / LEAST) ** spread) / 2
    room = torch.tensor([size[1], size[0]]) - 2 * half
    centre = half + torch.rand(count, 2, generator=generator) * room
    masks = torch.rand(count, 1, SIDE, SIDE, generator=generator)
    return masks.to(device), torch.cat((centre, half), 1).to(device)


def check(found: Tensor, masks: Tensor, windows: Tensor, size: Size) -> int:
    """How many pixels differ from float64's, all near the threshold; raises WrongResult."""
    count = 0
    for n in range(len(masks)):
        exact = sampled(masks[n : n + 1].double(), windows[n : n + 1].double(), (0, 0, *size))[0]
        different = found[n] != (exact >= THRESHOLD)
        if (different & ((exact - THRESHOLD).abs() > NEAR)).any():
            raise WrongResult(f"mask {n} differs where it is not near {THRESHOLD}")
        count += int(different.sum())
    return count


def times(device: torch.device, rounds: int, count: int = MASKS, size: Size = IMAGE) -> list[dict[str, Any]]:
    """A record for each contestant."""
    masks, windows = make_masks(device, count, size)
    label = f"{count} masks of {SIDE}² into {size[0]}x{size[1]}"
    different = {
        name: check(function(masks, windows, size), masks, windows, size)
        for name, function in CONTESTANTS.items()
    }
    calls = {
        name: calls_of_a_sample([lambda function=function: function(masks, windows, size)], device)
        for name, function in CONTESTANTS.items()
    }
    measured = interleaved(calls, rounds, sampler(device))
    return [
        {"label": label, "contestant": name, "different_pixels": different[name], **each._asdict()}
        for name, each in measured.items()
    ]
