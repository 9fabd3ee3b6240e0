# SPDX-License-Identifier: BSD-3-Clause
"""The options of a crop: as users give them, checked, and as the operators take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Images = Tensor | Sequence[Tensor]
Windows = Tensor | Sequence[Tensor]

ENERGIES = ("abs", "square")
IMAGE_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8)
# Of interpolation="nearest" alone: their pixels are selected, nothing is computed with them.
SELECTED_DTYPES = (
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint16, torch.uint32, torch.uint64, torch.bool),
)


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
    """Of each channel, added to finished outputs: ``fill``, where scale and shift make it 0. Empty: none."""
    channels_last: bool | None = None
    """The memory format of the result; None: that of the images."""

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
    fill: tuple[float, ...] | None
    window_grad: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    dtype: torch.dtype | None
    memory_format: torch.memory_format | None
    boxcar: Boxcar

    def of(self, images: Tensor) -> KernelOptions:
        """The same for the images at hand."""
        (
            size,
            interpolation,
            antialias,
            mask_steepness,
            boundary,
            fill,
            window_grad,
            mean,
            std,
            dtype,
            memory_format,
            boxcar,
        ) = self
        scale: tuple[float, ...] = ()
        shift: tuple[float, ...] = ()
        offset: tuple[float, ...] = ()
        normalised = mean is not None or std is not None
        if normalised:
            scale, shift = self._affine(images)
        if fill is not None:
            scale, shift, offset = _with_fill(fill, scale, shift, images)
        if dtype is None:
            dtype = torch.float32 if normalised and images.dtype == torch.uint8 else images.dtype
        numbers = boxcar.numbers() if window_grad == "boxcar" else ()
        height, width = size
        kernel = height, width, boundary, mask_steepness, scale, shift, dtype, numbers
        channels_last = None if memory_format is None else memory_format is torch.channels_last
        return KernelOptions(*kernel, interpolation, antialias, offset, channels_last)

    def _affine(self, images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
        channels = images.shape[1]
        mean = _per_channel(self.mean, 0.0, channels)
        std = _per_channel(self.std, 1.0, channels)
        unit = 255.0 if images.dtype == torch.uint8 else 1.0
        return tuple(1 / (unit * s) for s in std), tuple(-m / s for m, s in zip(mean, std, strict=True))


def _with_fill(
    fill: tuple[float, ...], scale: tuple[float, ...], shift: tuple[float, ...], images: Tensor
) -> tuple[tuple[float, ...], ...]:
    """Scale, shift and offset that read ``fill`` outside the image.

    The weights of an output sum to 1 over all whole positions, so that pixels enter less ``fill``, whose
    outside is 0, and outputs get it back. Selected pixels stay as they are: the offset is what lies outside.
    """
    channels = images.shape[1]
    fill = _per_channel(fill, 0.0, channels)
    if images.dtype in SELECTED_DTYPES:
        return (), (), fill
    factors, terms = scale or (1.0,) * channels, shift or (0.0,) * channels
    offset = tuple(f * a + b for f, a, b in zip(fill, factors, terms, strict=True))
    if not any(offset):
        return scale, shift, ()
    return factors, tuple(-f * a for f, a in zip(fill, factors, strict=True)), offset


def _per_channel(values: tuple[float, ...] | None, default: float, channels: int) -> tuple[float, ...]:
    if values is None:
        values = (default,)
    return values * channels if len(values) == 1 else values
