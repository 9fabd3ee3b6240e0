# SPDX-License-Identifier: BSD-3-Clause
"""The launches whose costs are counted: their arrays, and the fewest bytes they can move. Only numpy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np

from .arrays import NUMPY_TYPE, Array, encode
from .cases import BOXCAR

_RADIUS = {"bilinear": 1, "bicubic": 2}  # of filters
_ALIGNMENT = 4096  # of every array: where it begins in a cache line is the same in every process


@dataclass(frozen=True)
class CostCase:
    name: str  # what is special: "headline", "tl=60", ...
    kernel: str  # forward, window_grad, image_grad, boxcar_grad
    image: str = "float32"
    crop: str = "float32"
    layout: str = "planar"
    batch: int = 64
    windows: int = 1  # on each image
    channels: int = 3
    size: int = 448  # of images, square
    out: int = 224  # of crops, square
    half_side: float = 112.0  # tl
    interpolation: str = "bilinear"
    antialias: bool = False

    @property
    def key(self) -> str:
        dtypes = self.crop if self.image == self.crop else f"{self.image} to {self.crop}"
        return f"{self.kernel}, {self.name}, {dtypes}, {self.layout}"

    @property
    def has_filter(self) -> bool:
        return self.interpolation != "bilinear" or self.antialias

    @property
    def outputs(self) -> int:
        """Elements of the kernel's large operand: crops, and for the image gradient images."""
        if self.kernel == "image_grad":
            return self.batch * self.channels * self.size**2
        return self.batch * self.windows * self.channels * self.out**2

    @property
    def fewest_bytes(self) -> int:
        """Pixels of windows and crops' values moved once each; of an image gradient all pixels."""
        pixel, value = (np.dtype(NUMPY_TYPE[dtype]).itemsize for dtype in (self.image, self.crop))
        crops = self.batch * self.windows * self.channels * self.out**2 * value
        if self.kernel == "boxcar_grad":
            return crops
        if self.kernel == "image_grad":
            return crops + self.batch * self.channels * self.size**2 * pixel
        return crops + self.channels * pixel * sum(map(self._pixels_read, self.window_array()))

    def window_array(self) -> Array:
        """Centres near the middle (one window an image) or spread over the image."""
        room = self.size / 2 - self.half_side
        reach = room if self.windows > 1 else min(room, self.size / 64)
        count = self.batch * self.windows
        # Fractions of the golden and of the silver mean: spread evenly, and the same everywhere.
        spread = np.outer(np.arange(count), (0.6180339887, 0.4142135624)) % 1 * 2 - 1
        windows = np.empty((count, 3))
        windows[:, :2] = self.size / 2 + reach * spread + 1 / 512
        windows[:, 2] = self.half_side
        return windows.reshape(self.batch, self.windows, 3).astype(NUMPY_TYPE[self._accumulate])

    def _pixels_read(self, windows: Array) -> int:
        """How many pixels of a channel the windows on one image read, each counted once."""
        read = np.zeros((self.size, self.size), bool)
        for x, y, half in windows.astype(float):
            columns, rows = (self._axis(centre, half) for centre in (x, y))
            read[np.ix_(rows, columns)] = True
        return int(read.sum())

    def _axis(self, centre: float, half: float) -> Array:
        positions = centre + half * ((2 * np.arange(self.out) + 1) / self.out - 1) - 0.5
        width = max(1.0, 2 * half / self.out) if self.antialias else 1.0
        reach = _RADIUS[self.interpolation] * width
        pixels = np.arange(self.size)
        read = np.abs(pixels[:, None] - positions) < reach
        return pixels[read.any(1)]

    def run(self, kernels: ModuleType, random: np.random.Generator | None = None) -> dict[str, Array]:
        """Run the kernel once, on numbers from `random` or on zeros; returns its arrays.

        The tracer knows them from now on: they must be kept as long as it is asked.
        """
        windows = _zeros((self.batch, self.windows, 3), self._accumulate, "planar")
        windows[...] = self.window_array()
        grad_windows = _zeros(windows.shape, self._accumulate, "planar")
        images = _zeros((self.batch, self.channels, self.size, self.size), self.image, self.layout)
        crop_shape = (self.batch, self.windows, self.channels, self.out, self.out)
        crops = _zeros(crop_shape, self.crop, self.layout)
        if random is not None:
            for array, dtype in ((images, self.image), (crops, self.crop)):
                values = random.random(array.shape)
                array[...] = encode(values * 255 if dtype == "uint8" else values - 0.3, dtype)
        arrays = {"images": images, "crops": crops, "windows": windows, "grad_windows": grad_windows}
        for name, array in arrays.items():
            kernels.add_region(name, array, name in ("images", "crops"))
        options = kernels.Options(interpolation=self.interpolation, antialias=self.antialias)
        if self.kernel == "forward":
            kernels.forward(images, windows, crops, options)
        elif self.kernel == "window_grad":
            kernels.window_grad(crops, images, windows, grad_windows, options)
        elif self.kernel == "image_grad":
            kernels.image_grad(crops, windows, images, options)
        else:
            kernels.boxcar_grad(crops, windows, grad_windows, "abs", *BOXCAR, options)
        return arrays

    @property
    def _accumulate(self) -> str:
        return "float64" if self.image == "float64" else "float32"


def _zeros(shape: tuple[int, ...], dtype: str, layout: str) -> Array:
    """Pages that nothing has touched yet: large arrays cost nothing where no sampled block goes."""
    if layout == "channels_last":
        *outer, channels, height, width = shape
        return np.moveaxis(_zeros((*outer, height, width, channels), dtype, "planar"), -1, -3)
    numpy_type = np.dtype(NUMPY_TYPE[dtype])
    count = math.prod(shape) * numpy_type.itemsize
    memory = np.zeros(count + _ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % _ALIGNMENT
    return memory[first : first + count].view(numpy_type).reshape(shape)


_TYPES = [(t, t) for t in ("float32", "float16", "bfloat16", "float64", "uint8")]
COUNTED_TYPES = {
    "forward": [*_TYPES, ("uint8", "float32"), ("uint8", "bfloat16")],
    "window_grad": [*_TYPES[:4], ("uint8", "bfloat16")],
    "image_grad": _TYPES[:4],
    "boxcar_grad": _TYPES[:4],
}


def cases() -> Iterator[CostCase]:
    for kernel, types in COUNTED_TYPES.items():
        case = CostCase("headline", kernel)
        for image, crop in types:
            yield replace(case, image=image, crop=crop)
            yield replace(case, image=image, crop=crop, layout="channels_last")
        if kernel != "boxcar_grad":  # it reads no image
            yield replace(case, name="tl=60", half_side=60.0)
            yield replace(case, name="tl=200", half_side=200.0)
        yield replace(case, name="B=1", batch=1)
        features = replace(case, name="512x28x28 to 14x14", channels=512, size=28, out=14, half_side=7.0)
        yield features
        yield replace(features, layout="channels_last")
        yield replace(case, name="64 windows on one image", batch=1, windows=64, half_side=60.0)
        if kernel != "boxcar_grad":  # it knows no filters
            reduced = replace(case, size=896, half_side=448.0, antialias=True)
            yield replace(reduced, name="antialiased, reduction 4")
            yield replace(reduced, name="antialiased, reduction 4", layout="channels_last")
            yield replace(case, name="bicubic", interpolation="bicubic")
