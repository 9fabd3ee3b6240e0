# SPDX-License-Identifier: BSD-3-Clause
"""The options of a crop: as users give them, checked, and as the operators take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

ENERGIES = ("abs", "square")


class Boxcar(NamedTuple):
    """Options of ``window_grad="boxcar"``, RA-CNN's surrogate gradient of the window.

    The defaults are the constants of the authors' released layer, whose input is 448 pixels wide. They are
    lengths in disguise, so they are rescaled with the image's longer side (``side=None``: used as they are).

    Attributes:
        steepness: k of the boxcar's edges h(z) = 1 / (1 + exp(-k z)), per pixel.
        energy: ``"abs"`` (the release): |g| of every channel, divided by its maximum over the crop;
            ``"square"`` (the paper's text): the squared norm of g over channels, divided by its maximum.
        scale: factor of the normalised energy.
        shrink: constant push towards smaller windows, per pixel.
        side: the image side in pixels that ``steepness`` and ``shrink`` are meant for.

    Every number is at most 1e9 in magnitude.

    Source: Fu, Zheng, Mei (CVPR 2017), equations 5, 6 and 11, and their ``attention_crop_layer``.
    """

    steepness: float = 0.05
    energy: str = "abs"
    scale: float = 1e-7
    shrink: float = 0.005
    side: float | None = 448

    def scaled_to(self, height: int, width: int) -> Boxcar:
        """The same options with constants in pixels of a ``height`` x ``width`` image."""
        if self.side is None:
            return self
        ratio = float(self.side) / max(height, width)
        return Boxcar(self.steepness * ratio, self.energy, self.scale, self.shrink * ratio, None)

    def numbers(self) -> tuple[float, ...]:
        """As the operator takes it: not scaled, since image sizes may be dynamic."""
        return self.steepness, float(ENERGIES.index(self.energy)), self.scale, self.shrink, self.side or 0.0

    @staticmethod
    def of(numbers: Sequence[float]) -> Boxcar:
        """Undo :meth:`numbers`."""
        steepness, energy, scale, shrink, side = numbers
        return Boxcar(steepness, ENERGIES[int(energy)], scale, shrink, side or None)


class KernelOptions(NamedTuple):
    """What ``_crop_forward`` takes behind images and windows, in its order."""

    height: int
    width: int
    boundary: str
    mask_steepness: float | None
    scale: tuple[float, ...]
    """Of each channel, as the shift: a pixel enters as ``pixel * scale + shift``. Empty: as it is."""
    shift: tuple[float, ...]
    dtype: torch.dtype
    boxcar: tuple[float, ...] = ()
    """:meth:`Boxcar.numbers` of the surrogate gradient; empty: the exact one."""
    interpolation: str = "bilinear"
    antialias: bool = False
    offset: tuple[float, ...] = ()
    """Of each channel, added to what comes out. Empty: none."""

    @property
    def two_taps(self) -> bool:
        """Whether an output reads two pixels an axis."""
        return self.interpolation == "bilinear" and not self.antialias and self.boundary != "window"


class CropOptions(NamedTuple):
    """Checked options; see :func:`racnn_ops.attention_crop`."""

    output_size: tuple[int, int]
    interpolation: str
    antialias: bool
    mask_steepness: float | None
    boundary: str
    window_grad: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    dtype: torch.dtype | None
    boxcar: Boxcar

    def of(self, images: Tensor) -> KernelOptions:
        """The same for the images at hand."""
        size, interpolation, antialias, mask_steepness, boundary, window_grad, mean, std, dtype, boxcar = self
        scale: tuple[float, ...] = ()
        shift: tuple[float, ...] = ()
        if mean is not None or std is not None:
            scale, shift = self._affine(images)
        if dtype is None:
            dtype = torch.float32 if scale and images.dtype == torch.uint8 else images.dtype
        numbers = boxcar.numbers() if window_grad == "boxcar" else ()
        height, width = size
        kernel = height, width, boundary, mask_steepness, scale, shift, dtype, numbers
        return KernelOptions(*kernel, interpolation, antialias)

    def _affine(self, images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
        channels = images.shape[1]
        mean = _per_channel(self.mean, 0.0, channels)
        std = _per_channel(self.std, 1.0, channels)
        unit = 255.0 if images.dtype == torch.uint8 else 1.0
        return tuple(1 / (unit * s) for s in std), tuple(-m / s for m, s in zip(mean, std, strict=True))


def _per_channel(values: tuple[float, ...] | None, default: float, channels: int) -> tuple[float, ...]:
    if values is None:
        values = (default,)
    return values * channels if len(values) == 1 else values
