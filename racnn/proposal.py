# SPDX-License-Identifier: BSD-3-Clause
"""The attention proposal network (APN): from a feature map to relative windows."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from . import windows as geometry
from .windows import Bounds

LARGEST_MAP = 14
"""The authors' release pools conv5_4 of its 448-pixel scale to 14 x 14, the size at its finer scales."""


class AttentionProposal(nn.Module):
    """Two fully connected layers, tanh between, that propose where to look next (paper, equation 2).

    The output is bounded so that a window lies inside its image and keeps to ``bounds`` with a live gradient
    everywhere. Untrained it proposes the initial half side in the middle of the image, or, for several
    windows, on a circle around it: equal windows would get equal gradients for ever.

    Args:
        feature_shape (int, int, int): C, h, w of the feature map.
        count: windows an image.
        hidden: width of the hidden layer.
        bounds: of the half side, as shares of the coarser scale's.
        half_side: the initial one, as a share of the coarser side; brought inside ``bounds``.

    Shapes: features (B, C, h, w); result (B, count, 3) relative windows, float32 or wider.
    """

    def __init__(
        self,
        feature_shape: tuple[int, int, int],
        *,
        count: int = 1,
        hidden: int = 1024,
        bounds: Bounds,
        half_side: float = geometry.INITIAL_HALF_SIDE,
    ) -> None:
        super().__init__()
        channels, height, width = feature_shape
        pooled = min(height, LARGEST_MAP), min(width, LARGEST_MAP)
        self.count, self.bounds = count, bounds
        self.pool = nn.AdaptiveMaxPool2d(pooled) if pooled != (height, width) else nn.Identity()
        self.hidden = nn.Linear(channels * pooled[0] * pooled[1], hidden)
        self.output = nn.Linear(hidden, 3 * count)
        nn.init.normal_(self.output.weight, std=1e-3)
        with torch.no_grad():
            self.output.bias.copy_(geometry.unbounded(_initial(count, bounds, half_side), bounds).flatten())

    def forward(self, features: Tensor) -> Tensor:
        raw = self.output(torch.tanh(self.hidden(self.pool(features).flatten(1))))
        # Positions need more digits than bfloat16 has.
        raw = raw.float() if raw.dtype in (torch.float16, torch.bfloat16) else raw
        return geometry.bounded(raw.unflatten(1, (self.count, 3)), self.bounds)

    def share_at_bounds(self, relative: Tensor, margin: float = 0.02) -> Tensor:
        """Share of half sides within ``margin`` of their range from its ends: a scalar for the log."""
        lower, upper = self.bounds.relative()
        share = (relative[..., 2] - lower) / (upper - lower)
        return ((share < margin) | (share > 1 - margin)).float().mean()


def _initial(count: int, bounds: Bounds, half_side: float) -> Tensor:
    lower, upper = bounds.relative()
    slack = 0.05 * (upper - lower)
    half = min(max(half_side, lower + slack), upper - slack)
    radius = 0.0 if count == 1 else 0.5 * (0.5 - half)
    angles = [2 * math.pi * k / count for k in range(count)]
    return torch.tensor([[0.5 + radius * math.cos(a), 0.5 + radius * math.sin(a), half] for a in angles])
