# SPDX-License-Identifier: BSD-3-Clause
"""Where pixels come from: scikit-image's sample photographs, or random numbers."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import interpolate

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket", "retina", "hubble_deep_field")
"""Those that are inside the package: nothing is downloaded."""

Size = tuple[int, int]


class Source(Protocol):
    def __call__(self, batch: int, channels: int, size: Size, generator: torch.Generator) -> Tensor:
        """(batch, channels, *size), float32 in [0, 1]; size: height and width."""


def photographs() -> Source:
    """Raises ImportError or OSError where they are not installed."""
    from skimage import data

    photos = [_square(torch.from_numpy(getattr(data, name)())) for name in PHOTOGRAPHS]

    def source(batch: int, channels: int, size: Size, generator: torch.Generator) -> Tensor:
        scaled = torch.cat(
            [interpolate(photo, size=size, antialias=True, mode="bilinear") for photo in photos[:batch]]
        )
        images = scaled[torch.arange(batch) % len(photos)]
        images[len(photos) :] = images[len(photos) :].flip(-1)
        return images if channels == 3 else _mix(images, channels, generator)

    return source


def synthetic(batch: int, channels: int, size: Size, generator: torch.Generator) -> Tensor:
    return torch.rand(batch, channels, *size, generator=generator)


def _square(photo: Tensor) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, S, S) in [0, 1], the middle."""
    side = min(photo.shape[:2])
    top, left = ((length - side) // 2 for length in photo.shape[:2])
    square = photo[top : top + side, left : left + side]
    return square.permute(2, 0, 1).unsqueeze(0).float() / 255


def _mix(images: Tensor, channels: int, generator: torch.Generator) -> Tensor:
    """Feature maps of a photograph's structure: random mixtures of its three colours."""
    weights = torch.rand(channels, images.shape[1], generator=generator)
    return torch.einsum("nc,bcyx->bnyx", weights / weights.sum(1, keepdim=True), images)
