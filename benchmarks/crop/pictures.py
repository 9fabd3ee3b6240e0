# SPDX-License-Identifier: BSD-3-Clause
"""Libraries of pictures (H, W, C): what PIL and OpenCV take, do and give back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .contestants import integer_edges

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the colours of ImageNet's photographs, as most models want them."""


def pillow_resize(images: list[Any], windows: Tensor, side: int) -> list[Any]:
    from PIL.Image import Resampling

    return [
        image.resize((side, side), Resampling.BILINEAR, box=box)
        for image, box in zip(images, integer_edges(windows), strict=True)
    ]


def pillow_images(images: Tensor) -> list[Any]:
    from PIL import Image

    return [Image.fromarray(image) for image in channels_innermost(images)]


def opencv_resize(interpolation: str, images: list[Any], windows: Tensor, side: int) -> list[Any]:
    import cv2

    flag = getattr(cv2, interpolation)
    return [
        cv2.resize(image[y:bottom, x:right], (side, side), interpolation=flag)
        for image, (x, y, right, bottom) in zip(images, integer_edges(windows), strict=True)
    ]


def opencv_normalised(images: list[Any], windows: Tensor, side: int, dtype: torch.dtype) -> Tensor:
    """By numpy, which has no bfloat16."""
    import numpy

    mean, factor = numpy.float32(MEAN), 1 / numpy.float32(STD)
    planes = [
        ((crop.astype(numpy.float32) / 255 - mean) * factor).transpose(2, 0, 1)
        for crop in opencv_resize("INTER_LINEAR", images, windows, side)
    ]
    return torch.from_numpy(numpy.stack(planes)).to(dtype)


def opencv_images(images: Tensor) -> list[Any]:
    import cv2

    cv2.setNumThreads(torch.get_num_threads())
    return channels_innermost(images)


def frames_of(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 1).contiguous()


def channels_innermost(images: Tensor) -> list[Any]:
    """(H, W, C) arrays."""
    return list(frames_of(images).numpy())


def stacked(arrays: list[Any]) -> Tensor:
    """(B, C, h, w) of pictures (h, w, C)."""
    from numpy import asarray

    return torch.stack([torch.from_numpy(asarray(array).copy()).permute(2, 0, 1) for array in arrays])
