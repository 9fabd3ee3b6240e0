# SPDX-License-Identifier: BSD-3-Clause
"""What is resampled by filters longer than two pixels: cases, and their images and windows.

The experiments:

- antialias: an own window of whole pixels in every image, so that libraries which slice can do it too.
- area: windows on quarters of a pixel, inside the images; on feature maps many, of different sizes.
- linear: one large image, whose windows grow with the reduction: the time of a source pixel.
- reductions: antialiased, the strong reductions of ``sweeps``.
- resize: uint8 to uint8, windows of whole pixels, beside a library that resizes slices of uint8 pictures.
- frames: the same out of frames (B, H, W, C), to normalised planar floats.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .cases import Case, Inputs, sides
from .images import Source
from .sweeps import sweeps

STEPS = {
    "forward": (),
    "images": ("images",),
    "windows": ("windows",),
    "both": ("images", "windows"),
}
"""What is timed: the forward, or the backward alone to these inputs."""

EXPERIMENTS = ("antialias", "area", "linear", "reductions", "resize", "frames")
DETAILS = ("reductions", "resize", "frames")
"""The experiments that the README does not show."""

REDUCTIONS = (1.5, 2.0, 4.0, 8.0, 0.5)
STRONG_REDUCTIONS = (4, 8, 16, 32)
THREADS = (1, 2)


@dataclass(frozen=True)
class FilterCase:
    """Square windows, ``window`` pixels wide; with K > 1 or ``least`` the largest is.

    Attributes:
        image: the images' height, and their width unless ``image_width`` is given.
        least: the width of the smallest window; None: all have that of the largest, or of K the crop's.
        out_dtype: of crops; None: the images'.
        threads: None: as many as torch takes.
    """

    experiment: str
    batch: int
    image: int
    window: int
    crop: int
    channels: int = 3
    windows: int = 1
    dtype: str = "float32"
    image_width: int | None = None
    least: int | None = None
    out_dtype: str | None = None
    layout: str = "contiguous"
    threads: int | None = None

    @property
    def steps(self) -> list[str]:
        """The gradients of integers are none, and speed by source pixels is the forward's."""
        differentiable = self.dtype == "float32" and self.experiment != "linear"
        return list(STEPS) if differentiable else ["forward"]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image, self.image_width or self.image

    @property
    def out_type(self) -> torch.dtype:
        return getattr(torch, self.out_dtype or self.dtype)

    @property
    def source_pixels(self) -> int:
        return self.batch * self.channels * self.window**2

    @property
    def label(self) -> str:
        times, windows = _change(self.window / self.crop), f"{self.window}²"
        if self.windows > 1:
            times, windows = f"up to {times}", f"K = {self.windows} up to {windows}"
        elif self.least:
            times, windows = f"{_change(self.least / self.crop)} to {times}", f"{self.least}² to {windows}"
        types = self.dtype if self.out_dtype is None else f"{self.dtype} → {self.out_dtype}"
        images = f"{self.batch}x{self.channels}x{sides(self.image_size)}"
        more = [self.layout] if self.layout != "contiguous" else []
        more += [f"{self.threads} thread{'s' * (self.threads > 1)}"] if self.threads else []
        return ", ".join([f"{times}, {types}: {images}, {windows} → {self.crop}²", *more])

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"label": self.label, "source_pixels": self.source_pixels}


def _change(reduction: float) -> str:
    return f"÷{reduction:.3g}" if reduction >= 1 else f"zoom {1 / reduction:.3g}"


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
    return cases + _reductions(main, quick) + _pictures(main, quick)


def _antialias(main: Case, reduction: float, dtype: str) -> FilterCase:
    """Fewer images where windows are larger: a row takes about as long as another."""
    window = max(round(main.crop * reduction), 1)
    batch = _share(main.batch, (reduction / min(REDUCTIONS[0], reduction)) ** 2)
    return FilterCase("antialias", batch, _around(window, main.image), window, main.crop, dtype=dtype)


def _reductions(main: Case, quick: bool) -> list[FilterCase]:
    return [
        FilterCase(
            "reductions",
            case.batch,
            case.image,
            round(2 * case.half_side),
            case.crop,
            dtype=case.dtype,
            image_width=case.image_width,
        )
        for case in sweeps(main, quick)["reductions"]
    ]


def _pictures(main: Case, quick: bool) -> list[FilterCase]:
    """Windows of twice the crop's size, and between nearly half and nearly twice of it; 1 and 2 threads."""
    least, most = (max(main.crop * pixels // 224, 1) for pixels in (100, 400))
    cases = []
    for window, smallest in ((2 * main.crop, None), (most, least)):
        image = _around(window, main.image)
        resize = FilterCase("resize", main.batch, image, window, main.crop, dtype="uint8", least=smallest)
        kinds = [resize, replace(resize, layout="channels_last")]
        frames = replace(resize, experiment="frames")
        kinds += [replace(frames, out_dtype=dtype) for dtype in ("float32", "bfloat16")]
        cases += [replace(kind, threads=threads) for kind in kinds for threads in THREADS]
    return [case for case in cases if case.least and case.threads == 1] if quick else cases


def _share(batch: int, divisor: float) -> int:
    return max(round(batch / divisor), min(batch, 2))


def _around(window: int, least: int) -> int:
    """The side of an image in which a window has room to be somewhere."""
    return max(window * 8 // 7, window + 2, least)


def make_filter_inputs(case: FilterCase, source: Source, device: torch.device) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    images = source(case.batch, case.channels, case.image_size, generator).to(device)
    if case.dtype == "uint8":
        images = (images * 255).round().to(torch.uint8)
    if case.layout == "channels_last":
        images = images.contiguous(memory_format=torch.channels_last)
    windows = _whole_pixels(case, generator) if case.experiment != "area" else _quarters(case, generator)
    sizes = (*windows.shape[:-1], case.channels, case.crop, case.crop)
    return Inputs(images, windows.to(device), torch.randn(sizes, generator=generator).to(device))


def _whole_pixels(case: FilterCase, generator: torch.Generator) -> Tensor:
    """(B, 3), their edges between pixels."""
    least = case.least or case.window
    side = torch.randint(least, case.window + 1, (case.batch, 1), generator=generator)
    height, width = case.image_size
    room = torch.tensor([width, height]) - side
    corners = (torch.rand((case.batch, 2), generator=generator) * (room + 1)).floor()
    return torch.cat((corners + side / 2, side / 2), 1)


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


def floor_bytes(case: FilterCase, windows: Tensor, step: str) -> int:
    """The fewest bytes of a step, a forward or a backward alone.

    Each source pixel under an image's windows is read once, but for the images' gradient, which is written
    once, all of it; crops are written, or their gradient read, once.
    """
    image = math.prod(case.image_size)
    side = 2 * windows[..., 2].double().reshape(case.batch, -1)
    under = float(side.square().sum(1).clamp(max=image).sum())
    read = under if "windows" in STEPS[step] or not STEPS[step] else 0
    written = case.batch * image if "images" in STEPS[step] else 0
    outputs = case.batch * case.windows * case.crop**2 * case.out_type.itemsize
    size: int = getattr(torch, case.dtype).itemsize
    return round(case.channels * ((read + written) * size + outputs))
