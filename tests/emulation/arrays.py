# SPDX-License-Identifier: BSD-3-Clause
"""Arrays for the emulated kernels: dtypes, memory layouts, and results that are poisoned beforehand.

Only numpy, so that it works in a process under a sanitizer. bfloat16 is held as its bits, in uint16.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Doubles = NDArray[np.float64]

LAYOUTS = ("contiguous", "channels_last", "strided", "misaligned", "misaligned_channels_last")

NUMPY_TYPE: dict[str, type[np.generic]] = {
    "float16": np.float16,
    "bfloat16": np.uint16,
    "float32": np.float32,
    "float64": np.float64,
    "uint8": np.uint8,
}
EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52, "uint8": 0.0}

_POISON = 0xFF  # in every byte: NaN, or the largest number of a byte


def encode(values: Doubles, dtype: str) -> Array:
    if dtype == "bfloat16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(NUMPY_TYPE[dtype])


def decode(array: Array, dtype: str) -> Doubles:
    if dtype == "bfloat16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float64)


def place(values: Array, layout: str) -> Array:
    """A copy of ``values`` (..., C, H, W) in a memory layout, with nothing around it."""
    _, copy = _empty(values.shape, values.dtype, layout, 0)
    copy[...] = values
    return copy


def poison(array: Array) -> None:
    """Fills `array` in place, whatever its strides."""
    array.view(f"u{array.itemsize}")[...] = -1 % (1 << 8 * array.itemsize)


class Result:
    """A poisoned array for a kernel to write, with ``guard`` poisoned elements before and behind it."""

    def __init__(self, shape: tuple[int, ...], dtype: str, layout: str, guard: int) -> None:
        self._buffer, self.array = _empty(shape, np.dtype(NUMPY_TYPE[dtype]), layout, guard)

    def take(self) -> Array:
        """What was written; nothing may have been written around it."""
        result: Array = self.array.copy()
        poison(self.array)
        assert (self._buffer.view(np.uint8) == _POISON).all(), "the kernel wrote beside its result"
        return result


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any], layout: str, guard: int) -> tuple[Array, Array]:
    """A poisoned buffer and the array in it."""
    *outer, height, width = shape
    if layout == "strided":
        dense = (*outer, height, 2 * width + 3)
    elif layout.endswith("channels_last"):
        dense = (*outer[:-1], height, width, outer[-1])
    else:
        dense = shape
    first = guard + layout.startswith("misaligned")
    count = math.prod(dense)
    buffer = np.empty(first + count + guard, dtype)
    buffer.view(np.uint8)[...] = _POISON
    array = buffer[first : first + count].reshape(dense)
    if layout == "strided":
        array = array[..., : 2 * width : 2]
    elif layout.endswith("channels_last"):
        array = np.moveaxis(array, -1, -3)
    return buffer, array
