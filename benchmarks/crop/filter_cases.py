# SPDX-License-Identifier: BSD-3-Clause
"""What is resampled by filters longer than two pixels: cases, and their images and windows.

The experiments:

- antialias: an own window of whole pixels in every image, so that libraries which slice can do it too.
- area: windows on quarters of a pixel, inside the images; on feature maps many, of different sizes.
- linear: one large image, whose windows grow with the reduction: the time of a source pixel.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from .cases import Case, Inputs
from .images import Source

STEPS = {
    "forward": (),
    "images": ("images",),
    "windows": ("windows",),
    "both": ("images", "windows"),
}
"""What is timed: the forward, or the backward alone to these inputs."""

REDUCTIONS = (1.5, 2.0, 4.0, 8.0, 0.5)
STRONG_REDUCTIONS = (4, 8, 16, 32)


@dataclass(frozen=True)
class FilterCase:
    """Square windows in square images, ``window`` pixels wide; with K > 1 the largest is."""

    experiment: str
    batch: int
    image: int
    window: int
    crop: int
    channels: int = 3
    windows: int = 1
    dtype: str = "float32"

    @property
    def steps(self) -> list[str]:
        """The gradients of integers are none, and speed by source pixels is the forward's."""
        differentiable = self.dtype == "float32" and self.experiment != "linear"
        return list(STEPS) if differentiable else ["forward"]

    @property
    def source_pixels(self) -> int:
        return self.batch * self.channels * self.window**2

    @property
    def label(self) -> str:
        change = self.window / self.crop
        times = f"÷{change:.3g}" if change >= 1 else f"zoom {1 / change:.3g}"
        windows = f"{self.window}²"
        if self.windows > 1:
            times, windows = f"up to {times}", f"K = {self.windows} up to {windows}"
        return f"{times}, {self.dtype}: {self.batch}x{self.channels}x{self.image}², {windows} → {self.crop}²"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"label": self.label, "source_pixels": self.source_pixels}


def filter_cases(main: Case, quick: bool) -> list[FilterCase]:
    """As large as the main case, where windows allow; quick: the ends, and one reduction in between."""
    cases = [
        _antialias(main, reduction, dtype)
        for reduction in ((2.0, 0.5) if quick else REDUCTIONS)
        for dtype in ("float32", "uint8")
    ]
    area_image = _around(2 * main.crop, main.image)
    feature_map, bins = max(main.image // 8, 8), max(main.crop // 32, 2)
    cases += [
        FilterCase("area", main.batch, area_image, 2 * main.crop, main.crop),
        FilterCase("area", _share(main.batch, 8), feature_map, feature_map - 2, bins, 256, windows=64),
    ]
    small = max(main.crop * 4 // 7, 2)
    strong = STRONG_REDUCTIONS[:: len(STRONG_REDUCTIONS) - 1] if quick else STRONG_REDUCTIONS
    cases += [
        FilterCase("linear", 1, STRONG_REDUCTIONS[-1] * small, reduction * small, small, 1, dtype=dtype)
        for dtype in ("float32", "uint8")
        for reduction in strong
    ]
    return cases


def _antialias(main: Case, reduction: float, dtype: str) -> FilterCase:
    """Fewer images where windows are larger: a row takes about as long as another."""
    window = max(round(main.crop * reduction), 1)
    batch = _share(main.batch, (reduction / min(REDUCTIONS[0], reduction)) ** 2)
    return FilterCase("antialias", batch, _around(window, main.image), window, main.crop, dtype=dtype)


def _share(batch: int, divisor: float) -> int:
    return max(round(batch / divisor), min(batch, 2))


def _around(window: int, least: int) -> int:
    """The side of an image in which a window has room to be somewhere."""
    return max(window * 8 // 7, window + 2, least)


def make_filter_inputs(case: FilterCase, source: Source, device: torch.device) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    images = source(case.batch, case.channels, case.image, generator).to(device)
    if case.dtype == "uint8":
        images = (images * 255).round().to(torch.uint8)
    windows = _whole_pixels(case, generator) if case.experiment != "area" else _quarters(case, generator)
    sizes = (*windows.shape[:-1], case.channels, case.crop, case.crop)
    return Inputs(images, windows.to(device), torch.randn(sizes, generator=generator).to(device))


def _whole_pixels(case: FilterCase, generator: torch.Generator) -> Tensor:
    """(B, 3), their edges between pixels."""
    corners = torch.randint(0, case.image - case.window + 1, (case.batch, 2), generator=generator)
    half = torch.full((case.batch, 1), case.window / 2)
    return torch.cat((corners + half, half), 1)


def _quarters(case: FilterCase, generator: torch.Generator) -> Tensor:
    """(B, 3) or (B, K, 3), a pixel or more inside the image: no boundary plays a part.

    One window is nearly as wide as it may be, so that roi_align takes the same number of samples for each;
    of many, sides lie between the crop's and that. Quarters are exact, so both count the same samples.
    """
    shape = (case.batch, 1) if case.windows == 1 else (case.batch, case.windows)
    most = 4 * case.window
    least = most - 8 if case.windows == 1 else 4 * case.crop
    side = torch.randint(max(least, 4), most + 1, shape, generator=generator)
    room = 4 * (case.image - 2) - side
    corner = (torch.rand((2, *shape), generator=generator) * (room + 1)).floor() + 4
    windows = torch.stack((corner[0] + side / 2, corner[1] + side / 2, side / 2), -1) / 4
    return windows.squeeze(1) if case.windows == 1 else windows
