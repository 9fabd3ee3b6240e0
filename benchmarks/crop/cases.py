# SPDX-License-Identifier: BSD-3-Clause
"""What is cropped out of what: the benchmark's cases, their inputs, and the bytes that they must move."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .images import Source

MODES = {
    "forward": "forward",
    "window": "forward + backward (window)",
    "both": "forward + backward (both)",
}


@dataclass(frozen=True)
class Case:
    """Square windows out of images.

    Attributes:
        image: the images' height, and their width unless ``image_width`` is given.
        tl: the windows' half side in pixels; None: a quarter of the image's height.
        windows: K, of each image.
    """

    batch: int
    channels: int = 3
    image: int = 448
    crop: int = 224
    windows: int = 1
    dtype: str = "float32"
    out_dtype: str = "float32"
    layout: str = "contiguous"
    image_width: int | None = None
    tl: float | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image, self.image_width or self.image

    @property
    def half_side(self) -> float:
        return self.image / 4 if self.tl is None else self.tl

    @property
    def modes(self) -> list[str]:
        return [mode for mode in MODES if mode != "both" or self.image_type.is_floating_point]

    @property
    def image_type(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    @property
    def out_type(self) -> torch.dtype:
        return getattr(torch, self.out_dtype)

    @property
    def label(self) -> str:
        types = self.dtype if self.dtype == self.out_dtype else f"{self.dtype} → {self.out_dtype}"
        windows = f", K = {self.windows}" if self.windows > 1 else ""
        windows += f", tl = {self.tl:g}" if self.tl is not None else ""
        layout = f", {self.layout}" if self.layout != "contiguous" else ""
        image = sides(self.image_size)
        return f"{self.batch}x{self.channels}x{image} → {self.crop}²{windows}, {types}{layout}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"half_side": self.half_side, "label": self.label}


def sides(size: tuple[int, int]) -> str:
    """A square's as "448²"."""
    height, width = size
    return f"{height}²" if height == width else f"{height}x{width}"


class Inputs(NamedTuple):
    images: Tensor
    windows: Tensor
    grad_output: Tensor


def make_inputs(case: Case, source: Source, device: torch.device, seed: int = 0) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    images = source(case.batch, case.channels, case.image_size, generator).to(device)
    images = (images * 255).round().to(torch.uint8) if case.dtype == "uint8" else images.to(case.image_type)
    windows = _windows(case, generator).to(device)
    sizes = (*windows.shape[:-1], case.channels, case.crop, case.crop)
    grad_output = torch.randn(sizes, generator=generator).to(device, case.out_type)
    if case.layout == "channels_last":
        images = images.contiguous(memory_format=torch.channels_last)
        grad_output = grad_output.movedim(-3, -1).contiguous().movedim(-1, -3)
    return Inputs(images, windows, grad_output)


def _windows(case: Case, generator: torch.Generator) -> Tensor:
    """Wholly inside the image: one around its middle, several anywhere.

    Centres and half sides are multiples of a quarter pixel, shifted so that no sample comes closer to a
    pixel's centre than 1/(8 w): there the window's gradient jumps, and rounding would decide on which side.
    """
    shape = (case.batch, case.windows, 3) if case.windows > 1 else (case.batch, 3)
    height, width = case.image_size
    middle = torch.tensor([width / 2, height / 2, case.half_side])
    if case.windows > 1:
        # A pixel inside: roi_align goes on for half a pixel beyond the outermost pixels' centres.
        room = 4 * (middle[:2] - case.half_side - 1).clamp(min=0)
        quarters = torch.rand(shape, generator=generator).mul(2).sub(1)
        quarters[..., :2] = (quarters[..., :2] * room).round()
        quarters[..., 2] = 0
    else:
        reach = max(case.image // 16, 1)
        quarters = torch.randint(-reach, reach + 1, shape, generator=generator).float()
    off_centre = torch.tensor([1.0, 1.0, 0.0]) / (8 * case.crop)
    return middle + quarters / 4 + off_centre


def floor_bytes(case: Case, step: str) -> int:
    """The fewest bytes of "forward", "backward window" or "backward both".

    Each source pixel that a window's samples touch is read once, also where windows overlap, each gradient
    of an output is read once, each result is written once; the window's own gradient is too small to count.
    """
    image = math.prod(case.image_size)
    touched = min(case.windows * min(2 * case.half_side, 2 * case.crop) ** 2, image)
    pixels = touched + image if step == "backward both" else touched
    outputs = case.windows * case.crop**2
    planes = case.batch * case.channels
    return round(planes * (pixels * case.image_type.itemsize + outputs * case.out_type.itemsize))


def floor_of_mode(case: Case, mode: str) -> int:
    forward = floor_bytes(case, "forward")
    return forward if mode == "forward" else forward + floor_bytes(case, f"backward {mode}")
