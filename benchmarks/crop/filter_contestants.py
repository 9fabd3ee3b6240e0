# SPDX-License-Identifier: BSD-3-Clause
"""Who resamples windows by longer filters, each in its usual form, and what each must compute.

``crop`` takes images as ``prepare`` makes them of (B, C, H, W), outside of the timed part, windows (B, 3) or
(B, K, 3), the side of crops, and ``dtype`` where the case has one for crops; ``finish`` makes a tensor of its
result, outside of it too. Boxes and slices are made inside, because a user would have to make them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.nn.functional import interpolate as resample

from racnn_ops import attention_crop, reference

from .contestants import each_window, roi_align, slice_loop, split
from .filter_cases import STEPS, FilterCase
from .pictures import (
    MEAN,
    STD,
    frames_of,
    opencv_images,
    opencv_normalised,
    opencv_resize,
    pillow_images,
    pillow_resize,
    stacked,
)

Crop = Callable[..., Any]

ANTIALIAS: dict[str, Any] = {"interpolation": "bilinear", "antialias": True, "boundary": "window"}
SAMPLED: dict[str, Any] = {"boundary": "window"}
AREA_OF_WINDOW: dict[str, Any] = {"interpolation": "area", "boundary": "window"}


def resized_crop(images: Tensor, windows: Tensor, side: int) -> Tensor:
    """torchvision's, an image at a time: a batch of it has one window for all."""
    from torchvision.transforms.v2 import functional

    return torch.stack(
        [
            functional.resized_crop(image[0], y, x, bottom - y, right - x, [side, side], antialias=True)
            for image, (x, y, right, bottom) in each_window(images, windows)
        ]
    )


def interpolate(images: Tensor, windows: Tensor, side: int) -> Tensor:
    return slice_loop(images, windows, (side, side), antialias=True)


def kornia_resize(images: Tensor, windows: Tensor, side: int) -> Tensor:
    """A Gaussian, then two samples an axis."""
    from kornia.geometry.transform import resize

    return torch.cat(
        [
            resize(image[:, :, y:bottom, x:right], (side, side), antialias=True)
            for image, (x, y, right, bottom) in each_window(images, windows)
        ]
    )


def normalised(frames: Tensor, windows: Tensor, side: int, dtype: torch.dtype) -> Tensor:
    options = {"dtype": dtype, "mean": MEAN, "std": STD, "memory_format": torch.contiguous_format}
    return attention_crop(frames.permute(0, 3, 1, 2), windows, side, **options, **SAMPLED)


def expected_normalised(images: Tensor, windows: Tensor, side: int, dtype: torch.dtype) -> Tensor:
    """Of uint8 values in float64, which nobody divides by 255."""
    return reference.attention_crop(images / 255, windows, side, mean=MEAN, std=STD, **SAMPLED)


def roi_align_adaptive(images: Tensor, windows: Tensor, side: int) -> Tensor:
    """As many samples in a bin as it has pixels: ``sampling_ratio`` of -1, the default."""
    return roi_align(images, windows, (side, side), sampling_ratio=-1)


def by_weights(weights: Callable[[int, int], Tensor], images: Tensor, windows: Tensor, side: int) -> Tensor:
    """Crops of slices by ``weights`` (side, size), made of size and side, along both axes."""
    crops = []
    for image, (x, y, right, bottom) in each_window(images, windows):
        part = image[:, :, y:bottom, x:right]
        rows, columns = (weights(length, side).to(part) for length in part.shape[-2:])
        crops.append(rows @ part @ columns.T)
    return torch.cat(crops)


def _box(size: int, side: int) -> Tensor:
    """The mean over an output's footprint where every pixel is a square of one value."""
    edges = torch.arange(side + 1, dtype=torch.float64).unsqueeze(1) * (size / side)
    pixels = torch.arange(size, dtype=torch.float64)
    overlaps = torch.minimum(edges[1:], pixels + 1) - torch.maximum(edges[:-1], pixels)
    return overlaps.clamp(min=0) * (side / size)


def _gaussian_then_samples(size: int, side: int) -> Tensor:
    """kornia's: a slice that is reduced is blurred first, mirrored at its edges."""
    blur = torch.eye(size, dtype=torch.float64)
    if size > side:
        sigma = (size / side - 1) / 2
        reach = (int(max(4 * sigma, 3)) | 1) // 2
        offsets = torch.arange(-reach, reach + 1)
        weights = (-(offsets.double() ** 2) / (2 * sigma**2)).exp()
        pixels = torch.arange(size)
        blur.zero_()
        for offset, weight in zip(offsets, weights / weights.sum(), strict=True):
            mirrored = size - 1 - (size - 1 - (pixels + offset).abs()).abs()
            blur[pixels, mirrored] += weight
    return resample(blur.T.unsqueeze(0), size=side, mode="linear").squeeze(0).T


def mean_of_samples(images: Tensor, windows: Tensor, side: int) -> Tensor:
    """roi_align's specification: the mean of n² samples a bin, n the pixels of its side, rounded up."""
    each = windows if windows.dim() == 3 else windows.unsqueeze(1)
    counts = (2 * each[..., 2].detach() / side).ceil().int()
    crops = []
    for image, its_windows, its_counts in zip(images, each, counts, strict=True):
        order, means = [], []
        for count in its_counts.unique().tolist():
            chosen = (its_counts == count).nonzero()[:, 0]
            fine = reference.attention_crop(image[None], its_windows[None, chosen], count * side)
            order.append(chosen)
            means.append(avg_pool2d(fine[0], count))
        crops.append(torch.cat(means)[torch.cat(order).argsort()])
    return split(windows, torch.cat(crops))


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class FilterContestant:
    """``crop``, and what is known about it.

    Attributes:
        expected: what its crops must be, of float64 images and windows.
        measure: which of ours it is measured by, in time and crops: the nearest to it. None: it is ours.
        experiments: where it takes part.
    """

    name: str
    crop: Crop
    expected: Crop
    measure: str | None = "racnn_ops"
    experiments: tuple[str, ...] = ("antialias",)
    gradients: frozenset[str] = frozenset()
    dtypes: tuple[str, ...] = ("float32", "uint8")
    needs: str = "torch"
    prepare: Callable[[Tensor], Any] = _same
    finish: Callable[[Any], Tensor] = _same

    @property
    def is_installed(self) -> bool:
        return find_spec(self.needs) is not None

    def takes_part(self, case: FilterCase, step: str) -> bool:
        known = case.experiment in self.experiments and case.dtype in self.dtypes
        return known and self.gradients.issuperset(STEPS[step])

    def has_filter_of(self, other: FilterContestant) -> bool:
        """So that their crops are equal but for rounding."""
        return self.expected is other.expected


IMAGES, BOTH = frozenset({"images"}), frozenset({"images", "windows"})
antialiased = partial(reference.attention_crop, **ANTIALIAS)
sampled = partial(reference.attention_crop, **SAMPLED)
area = partial(reference.attention_crop, interpolation="area")
area_of_window = partial(reference.attention_crop, **AREA_OF_WINDOW)
antialiased_beyond = partial(reference.attention_crop, **(ANTIALIAS | {"boundary": "border"}))

OURS = FilterContestant(
    "racnn_ops",
    partial(attention_crop, **ANTIALIAS),
    antialiased,
    measure=None,
    experiments=("antialias", "linear", "reductions"),
    gradients=BOTH,
)
OURS_AREA = FilterContestant(
    "racnn_ops, area",
    partial(attention_crop, **AREA_OF_WINDOW),
    area_of_window,
    measure=None,
    experiments=("antialias", "resize"),
)
OURS_BINS = FilterContestant(
    "racnn_ops",
    partial(attention_crop, interpolation="area"),
    area,
    measure=None,
    experiments=("area",),
    gradients=BOTH,
)
OURS_SAMPLED = FilterContestant(
    "racnn_ops", partial(attention_crop, **SAMPLED), sampled, measure=None, experiments=("resize",)
)
OURS_FRAMES = FilterContestant(
    "racnn_ops", normalised, expected_normalised, measure=None, experiments=("frames",), prepare=frames_of
)
RESIZED_CROP = FilterContestant(
    "resized_crop", resized_crop, antialiased, gradients=IMAGES, needs="torchvision"
)
INTERPOLATE = FilterContestant(
    "slice + interpolate",
    interpolate,
    antialiased,
    experiments=("antialias", "reductions"),
    gradients=IMAGES,
)
PILLOW = FilterContestant(
    "PIL resize",
    pillow_resize,
    antialiased_beyond,
    dtypes=("uint8",),
    needs="PIL",
    prepare=pillow_images,
    finish=stacked,
)
OPENCV_LINEAR = FilterContestant(
    "OpenCV INTER_LINEAR",
    partial(opencv_resize, "INTER_LINEAR"),
    sampled,
    experiments=("resize",),
    dtypes=("uint8",),
    needs="cv2",
    prepare=opencv_images,
    finish=stacked,
)
OPENCV_FRAMES = FilterContestant(
    "OpenCV INTER_LINEAR + numpy",
    opencv_normalised,
    expected_normalised,
    experiments=("frames",),
    dtypes=("uint8",),
    needs="cv2",
    prepare=opencv_images,
)
OPENCV = FilterContestant(
    "OpenCV INTER_AREA",
    partial(opencv_resize, "INTER_AREA"),
    partial(by_weights, _box),
    measure=OURS_AREA.name,
    experiments=("antialias", "resize"),
    needs="cv2",
    prepare=opencv_images,
    finish=stacked,
)
KORNIA = FilterContestant(
    "kornia resize",
    kornia_resize,
    partial(by_weights, _gaussian_then_samples),
    gradients=IMAGES,
    dtypes=("float32",),
    needs="kornia",
)
ROI_ALIGN = FilterContestant(
    "roi_align",
    roi_align_adaptive,
    mean_of_samples,
    experiments=("area",),
    gradients=IMAGES,
    dtypes=("float32",),
    needs="torchvision",
)
ALL = (
    *(OURS, OURS_SAMPLED, OURS_AREA, OURS_BINS, OURS_FRAMES),
    *(RESIZED_CROP, INTERPOLATE, PILLOW, OPENCV_LINEAR, OPENCV, OPENCV_FRAMES, KORNIA, ROI_ALIGN),
)
