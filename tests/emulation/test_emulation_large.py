# SPDX-License-Identifier: BSD-3-Clause
"""Arrays whose elements lie more than 2**31 apart, and sides of more pixels than float32 can count."""

from __future__ import annotations

import mmap
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from .arrays import Array, Doubles, decode
from .cases import FILTER_KERNELS, TAP_KERNELS, Case
from .expected import assert_close, result_dtype

FAR = (1 << 31) + 24  # elements

# Which argument of which kernel: images, crops, gradients.
SPREAD = [
    ("forward", 0),
    ("forward", 2),
    ("window_grad", 0),
    ("window_grad", 1),
    ("image_grad", 0),
    ("image_grad", 2),
    ("boxcar_grad", 0),
    ("tap_crop", 0),
    ("tap_crop", 2),
    ("tap_image_grad", 0),
    ("tap_image_grad", 2),
]


def spread(array: Array, axis: int) -> Array:
    """A copy of ``array``, FAR from element to element along ``axis``; untouched pages take no memory."""
    strides = [stride // array.itemsize for stride in np.ascontiguousarray(array).strides]
    strides[axis] = FAR
    count = 1 + sum((side - 1) * stride for side, stride in zip(array.shape, strides, strict=True))
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    memory = np.frombuffer(mmap.mmap(-1, count * array.itemsize, flags=flags), array.dtype)
    bytes_apart = [stride * array.itemsize for stride in strides]
    copy = np.lib.stride_tricks.as_strided(memory, array.shape, bytes_apart, writeable=True)
    copy[...] = array
    return copy


class Spreading:
    """The kernels, but images or crops are spread before the call and gathered again after it."""

    def __init__(self, kernels: ModuleType, which: int, axis: int) -> None:
        self._kernels, self._which, self._axis = kernels, which, axis

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._kernels, name)
        if isinstance(attribute, type):
            return attribute

        def call(*arguments: Any) -> None:
            spread_ones = list(arguments)
            spread_ones[self._which] = spread(arguments[self._which], self._axis)
            attribute(*spread_ones)
            if arguments[self._which].flags.writeable:
                arguments[self._which][...] = spread_ones[self._which]

        return call


@pytest.mark.parametrize("axis", [-4, -3, -2, -1])
@pytest.mark.parametrize(("kernel", "which"), SPREAD)
def test_offsets_beyond_32_bits(kernel: str, which: int, axis: int, kernels: ModuleType) -> None:
    if kernel in TAP_KERNELS:  # float32: fewer elements, as many bytes
        case = Case(kernel, batch=2, windows=2, channels=2, size=(2, 2), out=(2, 2))
    else:
        case = Case(kernel, "float16", "float16", batch=2, windows=2, channels=2, size=(3, 4), out=(3, 2))
    spreading: Any = Spreading(kernels, which, axis)
    for each in (case, case.but(index="any")) if kernel in FILTER_KERNELS else (case,):
        expected = decode(each.run(kernels), result_dtype(each))
        assert_close(each, decode(each.run(spreading), result_dtype(each)), expected)


TALL = (1 << 24) + 4  # the last pixel's number, 2**24 + 3, is none of float32: it is rounded up to the height
OUT = 8
TALL_WINDOWS = [  # ty and th: near the end, where positions are rounded, and over it
    (TALL - 20.0, 8.0),
    (TALL - 3.0, 3.0),
    (TALL - 1.0, 60.0),
    (TALL + 9.0, 3.0),
]


def tall_image() -> tuple[Array, Array]:
    """A column of numbers that differ near its end, and what lies behind it in memory."""
    memory = np.zeros(TALL + 64, np.float16)
    memory[TALL - 256 : TALL] = np.arange(256)
    memory[TALL:] = np.nan
    return memory[:TALL].reshape(1, 1, TALL, 1), memory[TALL:]


def tall_windows() -> Array:
    return np.array([[(0.5, ty, 0.25, th) for ty, th in TALL_WINDOWS]], np.float32)


def tall_weights(boundary: str) -> Doubles:
    """(window, output, pixel), the pixels from the end on backwards."""
    weights = np.zeros((len(TALL_WINDOWS), OUT, 256))
    for k, (_, ty, _, th) in enumerate(tall_windows()[0].astype(np.float64)):
        for i in range(OUT):
            p = float(np.float32(np.float32(ty + th * ((2 * i + 1) / OUT - 1)) - np.float32(0.5)))
            lower = int(np.floor(p)) if boundary == "zeros" else min(int(np.floor(p)), TALL - 1)
            upper = lower + 1 if boundary == "zeros" else min(lower + 1, TALL - 1)
            for pixel, weight in ((lower, 1 - p % 1), (upper, p % 1)):
                if pixel < TALL:
                    weights[k, i, TALL - 1 - pixel] += weight
    return weights


@pytest.mark.parametrize("boundary", ["zeros", "border"])
def test_pixels_beyond_those_that_float32_can_count(boundary: str, kernels: ModuleType) -> None:
    image, behind = tall_image()
    windows, weights = tall_windows(), tall_weights(boundary)
    options = kernels.Options(boundary=boundary, max_blocks=1)  # there are 65536 tiles
    crops = np.full((1, len(TALL_WINDOWS), 1, OUT, 1), np.nan, np.float32)
    kernels.forward(image, windows, crops, options)
    last_first = image[0, 0, :-257:-1, 0].astype(np.float64)
    np.testing.assert_array_equal(crops[0, :, 0, :, 0], weights @ last_first)

    grad_output = np.random.default_rng(0).integers(1, 9, crops.shape).astype(np.float32)
    gradients = np.full(windows.shape, np.nan, np.float32)
    kernels.window_grad(grad_output, image, windows, gradients, options)
    assert np.isfinite(gradients).all()

    grad_image = image.copy()
    kernels.image_grad(grad_output, windows, grad_image, options)
    expected = np.einsum("ki,kip->p", grad_output[0, :, 0, :, 0], weights)
    np.testing.assert_array_equal(grad_image[0, 0, :-257:-1, 0], expected)
    assert not grad_image[0, 0, :-256].any()
    assert np.isnan(behind).all()
