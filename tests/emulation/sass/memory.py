# SPDX-License-Identifier: BSD-3-Clause
"""Global memory of a block that runs machine code: the arrays of the launch, at their own addresses."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np

from .operands import Array

SECTOR_BYTES = 32


@dataclass(frozen=True)
class Region:
    begin: int
    bytes: Array
    is_data: bool

    @staticmethod
    def at(begin: int, size: int, is_data: bool) -> Region:
        """Memory that someone else holds."""
        return Region(begin, np.frombuffer((ctypes.c_uint8 * size).from_address(begin), np.uint8), is_data)


class Memory:
    def __init__(self, regions: list[Region]) -> None:
        self._regions = regions
        self._touched: set[int] = set()

    def forget(self) -> None:
        """The next block finds nothing in the caches."""
        self._touched.clear()

    def is_data(self, address: int) -> bool:
        return any(r.is_data and r.begin <= address < r.begin + len(r.bytes) for r in self._regions)

    def first_touch(self, addresses: Array) -> Array:
        """Of each access, whether its first sector is touched for the first time."""
        sectors = (addresses // SECTOR_BYTES).tolist()
        is_new = np.array([sector not in self._touched for sector in sectors], bool)
        self._touched.update(sectors)
        return is_new

    def read(self, addresses: Array, count: int) -> Array:
        result = np.zeros((len(addresses), count), np.uint8)
        for region, inside, offsets in self._places(addresses, count):
            result[inside] = region.bytes[offsets]
        return result

    def write(self, addresses: Array, values: Array) -> None:
        for region, inside, offsets in self._places(addresses, values.shape[1]):
            region.bytes[offsets] = values[inside]

    def _places(self, addresses: Array, count: int) -> list[tuple[Region, Array, Array]]:
        found, seen = [], 0
        for region in self._regions:
            inside = (addresses >= region.begin) & (addresses + count <= region.begin + len(region.bytes))
            if inside.any():
                found.append((region, inside, (addresses[inside] - region.begin)[:, None] + np.arange(count)))
                seen += int(inside.sum())
        if seen != len(addresses):
            raise RuntimeError("the machine code accesses memory outside the launch's arrays")
        return found


def shared_wavefronts(warps: Array, addresses: Array, count: int) -> int:
    """How often shared memory is asked for `count` bytes a lane: different words of one bank take turns."""
    words = (addresses // 4)[:, None] + np.arange(max(1, count // 4))
    different = np.unique(np.repeat(warps, words.shape[1]) << 32 | words.ravel())
    banks, turns = np.unique(different >> 32 << 5 | different % 32, return_counts=True)
    most = np.zeros(int(warps.max()) + 1, int)
    np.maximum.at(most, banks >> 5, turns)
    return int(most.sum())
