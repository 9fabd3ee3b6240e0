# SPDX-License-Identifier: BSD-3-Clause
"""Geometry of square windows ``(tx, ty, tl)``: centre and half side.

A *relative* window is in units of its parent's side: ``(0.5, 0.5, 0.5)`` is the whole parent. All functions
take and give (..., 3) and are differentiable.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

INITIAL_HALF_SIDE = 0.25
"""The paper's initial square has half the side of the image (section 3.4), so its half side is a quarter."""

WindowSource = Literal["proposed", "response", "centre", "random"]
"""Where a model's windows come from, see :meth:`racnn.RACNN.forward`."""


def check_source(window_source: str) -> None:
    """Raises ValueError for what is no :data:`WindowSource`."""
    if window_source not in get_args(WindowSource):
        allowed = ", ".join(map(repr, get_args(WindowSource)))
        raise ValueError(f"window_source must be one of {allowed}, got {window_source!r}")


class Bounds(NamedTuple):
    """Least and largest half side, as shares of the coarser scale's.

    The paper: "tl at each scale is constrained to be no less than one-third of the previous tl at coarse
    scale" (section 3.4). The coarsest window is the whole image, tl = side / 2.
    """

    lower: float = 1 / 3
    upper: float = 1.0

    def check(self) -> Bounds:
        lower, upper = self
        if not 0 < lower < upper <= 1:
            raise ValueError(f"half_side_bounds must hold 0 < lower < upper <= 1, got {tuple(self)}")
        return self

    def relative(self) -> tuple[float, float]:
        return self.lower / 2, self.upper / 2


def bounded(raw: Tensor, bounds: Bounds) -> Tensor:
    """Unbounded numbers to relative windows that lie inside their parent and keep to ``bounds``.

    Sigmoids instead of clamps: a clamp has no gradient at its bound, and that is where a collapsing window
    ends.
    """
    lower, upper = bounds.relative()
    share = torch.sigmoid(raw)
    half = lower + (upper - lower) * share[..., 2:]
    return torch.cat((half + (1 - 2 * half) * share[..., :2], half), -1)


def unbounded(window: Tensor, bounds: Bounds) -> Tensor:
    """The inverse of :func:`bounded` for relative windows strictly inside their parent and bounds."""
    lower, upper = bounds.relative()
    half = window[..., 2:]
    share = torch.cat(((window[..., :2] - half) / (1 - 2 * half), (half - lower) / (upper - lower)), -1)
    return torch.logit(share)


def compose(parent: Tensor, relative: Tensor) -> Tensor:
    """The relative window in the coordinates in which ``parent`` is given."""
    centre, half = parent[..., :2], parent[..., 2:]
    return torch.cat((centre + half * (2 * relative[..., :2] - 1), 2 * half * relative[..., 2:]), -1)


def relative_to(parent: Tensor, window: Tensor) -> Tensor:
    """The inverse of :func:`compose`."""
    centre, half = parent[..., :2], parent[..., 2:]
    return torch.cat(((window[..., :2] - centre) / (2 * half) + 0.5, window[..., 2:] / (2 * half)), -1)


def inside(windows: Tensor, side: float) -> Tensor:
    """Shrunk to at most the image and moved into it."""
    half = windows[..., 2:].clamp(max=side / 2)
    centre = torch.minimum(torch.maximum(windows[..., :2], half), side - half)
    return torch.cat((centre, half), -1)


def moved(relative: Tensor, amount: Tensor, bounds: Bounds) -> Tensor:
    """Relative windows moved by ``amount`` (..., 3): the centre by shares of the half side, the half side by
    factors of ``exp(amount)``; then brought back to ``bounds`` and into the parent."""
    centre = relative[..., :2] + amount[..., :2] * relative[..., 2:]
    half = (relative[..., 2:] * amount[..., 2:].exp()).clamp(*bounds.relative())
    return inside(torch.cat((centre, half), -1), 1.0)


def whole(batch: int, side: float, like: Tensor) -> Tensor:
    """(batch, 3): the window that is the whole image."""
    return like.new_full((batch, 3), side / 2, dtype=torch.float32)


def corners(windows: Tensor) -> Tensor:
    """(..., 4): left, top, right, bottom."""
    centre, half = windows[..., :2], windows[..., 2:]
    return torch.cat((centre - half, centre + half), -1)


def around(boxes: Tensor, side: float) -> Tensor:
    """The smallest square windows that hold boxes (..., 4), as far as the image has room for them."""
    half = (boxes[..., 2:] - boxes[..., :2]).amax(-1, keepdim=True) / 2
    return inside(torch.cat(((boxes[..., :2] + boxes[..., 2:]) / 2, half), -1), side)


def area(boxes: Tensor) -> Tensor:
    """(...) of boxes (..., 4); empty ones count as 0."""
    extent = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return extent[..., 0] * extent[..., 1]


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """Area shared by boxes (..., 4)."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    return area(torch.cat((low, high), -1))


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4)."""
    shared = intersection(a, b)
    return shared / (area(a) + area(b) - shared).clamp(min=1e-12)


def highest_response(features: Tensor, count: int = 1, half_side: float = INITIAL_HALF_SIDE) -> Tensor:
    """Relative windows (B, count, 3) around the highest responses of feature maps (B, C, h, w).

    The paper's initial windows (section 3.4, step 2): responses are summed over channels, the square is moved
    inside the image. Further windows take the highest response that no earlier window covers, or, where all
    is covered, the highest that is left.
    """
    response = features.detach().float().sum(1)
    batch, height, width = response.shape
    rows = (torch.arange(height, device=response.device) + 0.5) / height
    columns = (torch.arange(width, device=response.device) + 0.5) / width
    lowest = response.amin((1, 2), keepdim=True) - 1
    spread = response.amax((1, 2), keepdim=True) - lowest + 1
    found = []
    for _ in range(count):
        best = response.flatten(1).argmax(1)
        centre = torch.stack((columns[best % width], rows[best // width]), 1)
        window = inside(torch.cat((centre, torch.full_like(centre[:, :1], half_side)), 1), 1.0)
        found.append(window)
        covered = ((rows - window[:, 1:2]).abs() < half_side)[:, :, None] & (
            (columns - window[:, :1]).abs() < half_side
        )[:, None, :]
        response = torch.where(covered, response - spread, response)
        response[torch.arange(batch, device=best.device), best // width, best % width] -= spread.view(-1)
    return torch.stack(found, 1)
