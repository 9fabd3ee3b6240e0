# SPDX-License-Identifier: BSD-3-Clause
"""One run of an emulated kernel: which kernel, on what, with which options. Only numpy; see arrays.py."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from .arrays import NUMPY_TYPE, Array, Doubles, Result, encode, place

# The pairs (images, crops) that have kernels of their own.
PAIRS = [
    ("float32", "float32"),
    ("float32", "float16"),
    ("float32", "bfloat16"),
    ("float16", "float16"),
    ("float16", "float32"),
    ("bfloat16", "bfloat16"),
    ("bfloat16", "float32"),
    ("uint8", "uint8"),
    ("uint8", "float16"),
    ("uint8", "bfloat16"),
    ("uint8", "float32"),
    ("float64", "float64"),
]
PAIRS_OF = {
    "forward": PAIRS,
    "window_grad": [(image, crop) for image, crop in PAIRS if crop != "uint8"],
    "image_grad": [(image, crop) for image, crop in PAIRS if image != "uint8"],
    "boxcar_grad": [(t, t) for t in ("float32", "float16", "bfloat16", "float64")],
    "tap_crop": [(t, t) for t in ("float32", "float64")],
    "tap_image_grad": [(t, t) for t in ("float32", "float64")],
}
# Those that take tap tables, not windows.
TAP_KERNELS = ("tap_crop", "tap_image_grad")
KERNELS = tuple(PAIRS_OF)
# Those that take windows with any filter, and an image index.
FILTER_KERNELS = ("forward", "window_grad", "image_grad")
FILTERS = (
    ("nearest", False),
    ("bilinear", False),
    ("bilinear", True),
    ("bicubic", False),
    ("bicubic", True),
    ("lanczos3", True),
    ("area", False),
)
BOUNDARIES = ("zeros", "border", "clip", "window")
WHERE = ("inside", "crossing", "outside", "far", "huge", "tiny", "point", "not_finite")
# Images in any order and again, of three or more without the first; the last alone; any, and none of them.
INDICES = ("any", "last", "outside")

# Constants of the surrogate gradient: steepness, scale, shrink.
BOXCAR = (0.3, 0.5, 0.02)


@dataclass(frozen=True)
class Case:
    kernel: str
    image: str = "float32"
    crop: str = "float32"
    batch: int = 2
    windows: int = 2  # on each image; with an index, of all of them
    channels: int = 3
    size: tuple[int, int] = (13, 17)
    out: tuple[int, int] = (9, 11)
    values: int = 3
    where: str = "inside"
    index: str = ""  # one of INDICES
    layout: str = "contiguous"
    result: str = ""  # the layout of what is written; otherwise the same
    nan_frame: bool = False  # the image's edge, which windows in the "middle" do not reach
    infinite: bool = False  # pixels of each image; for its gradient, a value of each incoming one
    constant_grad: bool = False  # strides of zero, as the gradient of a sum has
    boundary: str = "zeros"
    mask_steepness: float = 0.0
    affine: bool = False
    offset: bool = False  # with `affine`
    interpolation: str = "bilinear"
    antialias: bool = False
    energy: str = "abs"
    max_blocks: int = 0x7FFFFFFF

    @property
    def accumulate(self) -> str:
        return "float64" if self.image == "float64" else "float32"

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.batch, self.channels, *self.size

    @property
    def crop_shape(self) -> tuple[int, ...]:
        return *self._windows, self.channels, *self.out

    @property
    def scale(self) -> list[float]:
        return [0.5 + 0.25 * (c % 5) for c in range(self.channels)] if self.affine else []

    @property
    def shift(self) -> list[float]:
        return [0.125 * (c % 7) - 0.25 for c in range(self.channels)] if self.affine else []

    @property
    def offsets(self) -> list[float]:
        return [0.375 * (c % 3) - 0.5 for c in range(self.channels)] if self.offset else []

    @property
    def filters(self) -> tuple[str, bool]:
        return self.interpolation, self.antialias

    def images(self) -> Array:
        values = self._random().random(self.image_shape)
        if self.nan_frame:
            height, width = (side // 8 for side in self.size)
            middle = values[..., height:-height, width:-width].copy()
            values[...] = np.nan
            values[..., height:-height, width:-width] = middle
        if self.infinite:
            values[..., -1, self.size[0] // 2, self.size[1] // 3 :: self.size[1] // 3] = np.inf
        return place(encode(values * 255 if self.image == "uint8" else values, self.image), self.layout)

    def grad_output(self) -> Array:
        shape = self.crop_shape
        numbers = self._random().standard_normal(shape)
        if self.infinite and self.kernel == "image_grad":
            numbers[..., -1, self.out[0] // 2, self.out[1] // 3] = np.inf
        values = encode(numbers, self.crop)
        return np.broadcast_to(values.flat[:1], shape) if self.constant_grad else place(values, self.layout)

    def window_array(self) -> Array:
        shape = self._windows
        windows = make_windows(self.where, self._random(), math.prod(shape), self.values, self.size)
        return windows.reshape(*shape, self.values).astype(NUMPY_TYPE[self.accumulate])

    def image_index(self) -> Array | None:
        if not self.index:
            return None
        index = self._random().integers(self.batch > 2, max(self.batch, 1), self.windows)
        if self.index == "last":
            index[:] = self.batch - 1
        elif self.index == "outside":
            for first, image in enumerate((self.batch, -1, 1 << 62, -2)):
                index[first::6] = image
        return index

    def tables(self) -> list[Array]:
        """Rows, row weights, columns, column weights: the windows' pixels, and any weights."""
        windows = np.nan_to_num(self.window_array().astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        tables: list[Array] = []
        for axis, centre, half in ((0, 1, -1), (1, 0, 2)):
            out, size = self.out[axis], self.size[axis]
            u = (2 * np.arange(out) + 1 - out) / out
            positions = windows[..., centre, None] + np.maximum(windows[..., half, None], 0) * u - 0.5
            tables.append(np.floor(positions.clip(-2, size)).astype(np.int32))
            shape = (self.batch, self.windows, out, 2)
            weights = np.random.default_rng(out).standard_normal(shape)
            tables.append(weights.astype(NUMPY_TYPE[self.accumulate]))
        return tables

    def run(self, kernels: ModuleType, guard: int = 64) -> Array:
        """Run the kernel, ``guard`` poisoned elements around its result (0: the sanitizer looks)."""
        options = kernels.Options(
            boundary=self.boundary,
            mask_steepness=self.mask_steepness,
            scale=self.scale,
            shift=self.shift,
            max_blocks=self.max_blocks,
            interpolation=self.interpolation,
            antialias=self.antialias,
            offset=self.offsets,
        )
        if self.kernel in TAP_KERNELS:
            return self._run_tap_kernel(kernels, options, guard)
        windows, index = self.window_array(), self.image_index()
        if self.kernel == "forward":
            result = Result(self.crop_shape, self.crop, self.result or self.layout, guard)
            kernels.forward(self.images(), windows, result.array, options, index)
        elif self.kernel == "image_grad":
            result = Result(self.image_shape, self.image, self.result or self.layout, guard)
            kernels.image_grad(self.grad_output(), windows, result.array, options, index)
        else:
            result = Result(windows.shape, self.accumulate, "contiguous", guard)
            if self.kernel == "window_grad":
                kernels.window_grad(self.grad_output(), self.images(), windows, result.array, options, index)
            else:
                kernels.boxcar_grad(self.grad_output(), windows, result.array, self.energy, *BOXCAR, options)
        return result.take()

    def _run_tap_kernel(self, kernels: ModuleType, options: Any, guard: int) -> Array:
        tables = kernels.Tables(*self.tables())
        if self.kernel == "tap_crop":
            result = Result(self.crop_shape, self.crop, self.result or self.layout, guard)
            kernels.tap_crop(self.images(), tables, result.array, options)
        else:
            result = Result(self.image_shape, self.image, self.result or self.layout, guard)
            kernels.tap_image_grad(self.grad_output(), tables, result.array, options)
        return result.take()

    def but(self, **changes: Any) -> Case:
        return replace(self, **changes)

    @property
    def _windows(self) -> tuple[int, ...]:
        return (self.windows,) if self.index else (self.batch, self.windows)

    def _random(self) -> np.random.Generator:
        """The same numbers in every process; layout, options and launch change none of them."""
        inputs = (
            self.image,
            self.crop,
            self.batch,
            self.windows,
            self.channels,
            self.size,
            self.out,
            self.values,
        )
        return np.random.default_rng(zlib.crc32(repr(inputs).encode()))


def make_windows(
    where: str, random: np.random.Generator, count: int, values: int, size: tuple[int, int]
) -> Doubles:
    height, width = size
    side = np.array([width, height, width, height][:values], dtype=np.float64)
    signs = np.where(random.random((count, 2)) < 0.5, -1.0, 1.0)
    windows = random.random((count, values))
    windows[:, :2] = 0.3 + 0.4 * windows[:, :2]
    windows[:, 2:] = 0.1 + 0.3 * windows[:, 2:]
    if where == "crossing":
        windows[:, :2] = 0.5 + 0.7 * signs * windows[:, :2]
        windows[:, 2:] *= 2
    elif where == "middle":
        windows[:, :2] = 0.4 + windows[:, :2] / 5
        windows[:, 2:] /= 2
    elif where == "outside":
        windows[:, :2] = 0.5 + 2 * signs
    elif where == "far":
        windows[:, :2] = 1e30 * signs
    elif where == "huge":
        windows[:, 2:] *= 200
    elif where == "tiny":
        windows[:, 2:] = 1e-3
    elif where == "point":
        windows[:, 2:] = -np.floor(2 * windows[:, 2:] + 0.7)  # 0 or less
    elif where == "whole":
        windows[...] = 0.5
    windows *= side
    if where == "not_finite":
        bad = (np.nan, np.inf, -np.inf)
        for n in range(0, count, 2):
            windows[n, (n // 2) % values] = bad[(n // 2) % 3]
    return windows


def sizes(*sides: int) -> Sequence[tuple[int, int]]:
    """Every side as a height and as a width, each time with another partner."""
    return list(zip(sides, sides[1:] + sides[:1], strict=True))
