# SPDX-License-Identifier: BSD-3-Clause
"""A small case around which the crop is smooth, for the tests of transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from samples import Shape, generator, make_images, make_smooth_windows
from torch import Tensor

from racnn_ops import Boxcar

BOXCAR = {"window_grad": "boxcar", "boxcar": Boxcar(scale=1.0)}
SHAPE = Shape(2, 2, 6, 5, 2, 3)
Crop = Callable[..., Tensor]


def inputs(device: str, *, values: int = 3, windows: int | None = None, boundary: str = "zeros") -> Any:
    """Float64 images and windows around which the crop is smooth."""
    g = generator(values, windows, boundary)
    sizes = (SHAPE.batch, values) if windows is None else (SHAPE.batch, windows, values)
    images = make_images(SHAPE.images, torch.float64, g)
    return images.to(device), make_smooth_windows(sizes, SHAPE, boundary, g, margin=0.01).to(device)


def random_inputs(device: str, *, values: int = 3, windows: int | None = 2) -> Any:
    """For filters: at random places, zooming in and at reductions of 1 to 4 from window to window."""
    g = generator("filters", values, windows)
    sizes = (SHAPE.batch, *(() if windows is None else (windows,)), values)
    images = make_images(SHAPE.images, torch.float64, g)
    centres = torch.rand((*sizes[:-1], 2), generator=g, dtype=torch.float64) * 3.1 + 1.13
    halves = torch.rand((*sizes[:-1], values - 2), generator=g, dtype=torch.float64) * 4.7 + 0.61
    return images.to(device), torch.cat((centres, halves), -1).to(device)


def assert_close(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def loss_of(crop: Crop, **options: Any) -> Crop:
    def loss(images: Tensor, windows: Tensor) -> Tensor:
        crops = crop(images, windows, SHAPE.out, **options)
        weights = torch.linspace(0.5, 1.5, crops.shape[-1], dtype=crops.dtype, device=crops.device)
        return (crops.sin() * weights).sum()

    return loss
