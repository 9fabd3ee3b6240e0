# SPDX-License-Identifier: BSD-3-Clause
"""What is cropped out of what: the benchmark's cases, their inputs, and the bytes that they must move."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
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
    """Square windows, as wide as half the image, out of square images."""

    batch: int
    channels: int = 3
    image: int = 448
    crop: int = 224
    windows: int = 1
    dtype: str = "float32"
    out_dtype: str = "float32"
    layout: str = "contiguous"

    @property
    def half_side(self) -> float:
        return self.image / 4

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
        layout = f", {self.layout}" if self.layout != "contiguous" else ""
        return f"{self.batch}x{self.channels}x{self.image}² → {self.crop}²{windows}, {types}{layout}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"half_side": self.half_side, "label": self.label}


class Inputs(NamedTuple):
    images: Tensor
    windows: Tensor
    grad_output: Tensor


def make_inputs(case: Case, source: Source, device: torch.device, seed: int = 0) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    images = source(case.batch, case.channels, case.image, generator).to(device)
    images = (images * 255).round().to(torch.uint8) if case.dtype == "uint8" else images.to(case.image_type)
    windows = _windows(case, generator).to(device)
    sizes = (*windows.shape[:-1], case.channels, case.crop, case.crop)
    grad_output = torch.randn(sizes, generator=generator).to(device, case.out_type)
    if case.layout == "channels_last":
        images = images.contiguous(memory_format=torch.channels_last)
        grad_output = grad_output.movedim(-3, -1).contiguous().movedim(-1, -3)
    return Inputs(images, windows, grad_output)


def _windows(case: Case, generator: torch.Generator) -> Tensor:
    """Around the middle of the image, wholly inside.

    Centres and half sides are multiples of a quarter pixel, shifted so that no sample comes closer to a
    pixel's centre than 1/(8 w): there the window's gradient jumps, and rounding would decide on which side.
    """
    shape = (case.batch, case.windows, 3) if case.windows > 1 else (case.batch, 3)
    reach = max(case.image // 16, 1)
    quarters = torch.randint(-reach, reach + 1, shape, generator=generator).float()
    middle = torch.tensor([case.image / 2, case.image / 2, case.half_side])
    off_centre = torch.tensor([1.0, 1.0, 0.0]) / (8 * case.crop)
    return middle + quarters / 4 + off_centre


def floor_bytes(case: Case, step: str) -> int:
    """The fewest bytes of "forward", "backward window" or "backward both".

    Each source pixel that a window's samples touch is read once, each gradient of an output is read once,
    each result is written once; the window's own gradient is too small to count.
    """
    touched = min(2 * case.half_side, 2 * case.crop) ** 2
    planes = case.batch * case.windows * case.channels
    read_or_written = planes * (touched * case.image_type.itemsize + case.crop**2 * case.out_type.itemsize)
    if step == "backward both":
        image_grad = case.batch * case.channels * case.image**2 * case.image_type.itemsize
        return round(read_or_written) + image_grad
    return round(read_or_written)


def floor_of_mode(case: Case, mode: str) -> int:
    forward = floor_bytes(case, "forward")
    return forward if mode == "forward" else forward + floor_bytes(case, f"backward {mode}")


def sweeps(main: Case, quick: bool) -> dict[str, list[Case]]:
    """Name of the varied quantity -> cases, each different from ``main`` in that quantity only, if it can be.

    Where the quantity multiplies the work, batch and images are smaller: time and memory stay moderate.
    """
    batch = main.batch
    small = replace(main, batch=max(batch // 4, 1), image=main.image // 2, crop=main.crop // 2)
    feature_maps = replace(main, channels=512, image=max(main.image // 16, 4), crop=max(main.crop // 16, 2))
    all_sweeps = {
        "batch": [replace(main, batch=n) for n in sorted({1, max(batch // 4, 1), batch, 2 * batch})],
        "channels": [replace(small, channels=n) for n in (1, 3, 16, 64)],
        "windows": [replace(small, windows=n) for n in (1, 4, 16)],
        "size": [
            replace(main, image=main.image // 2, crop=main.crop // 2),
            replace(main, batch=max(batch // 2, 1), crop=main.image),
            replace(main, batch=max(batch // 4, 1), image=main.image * 16 // 7),
        ],
        "feature maps": [feature_maps, replace(feature_maps, layout="channels_last")],
        "dtype": [
            replace(main, dtype="bfloat16", out_dtype="bfloat16"),
            replace(main, dtype="float16", out_dtype="float16"),
            replace(main, dtype="uint8", out_dtype="bfloat16"),
            replace(main, dtype="uint8"),
        ],
        "layout": [replace(main, layout="channels_last")],
    }
    if not quick:
        return all_sweeps
    in_parts = ("batch", "channels", "windows")
    return {
        name: [cases[0], cases[-1]] if name in in_parts else cases[-1:] for name, cases in all_sweeps.items()
    }
