# SPDX-License-Identifier: BSD-3-Clause
"""Arrays whose elements lie more than 2**31 apart: nothing may be computed in 32 bits that does not fit."""

from __future__ import annotations

import mmap
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from .arrays import Array, decode
from .cases import TAP_KERNELS, Case
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
    ("tap_grad", 0),
    ("tap_grad", 1),
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
    expected = decode(case.run(kernels), result_dtype(case))
    assert_close(case, decode(case.run(spreading), result_dtype(case)), expected)
