# SPDX-License-Identifier: BSD-3-Clause
"""Data sets in their published on-disk formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .cars import read_cars
from .cub import read_cub
from .dogs import read_dogs
from .folder import images_in, read_folder
from .images import UNREADABLE, Images, Placement, Sample, Unreadable, read_square
from .records import Box, Record, Split, hold_out

READERS: dict[str, Callable[[Path], Split]] = {
    "cub": read_cub,
    "dogs": read_dogs,
    "cars": read_cars,
    "folder": read_folder,
}


def read_split(name: str, root: str | Path) -> Split:
    """Read the data set ``name``, one of ``READERS``, from its folder.

    Raises:
        ValueError: an unknown name, or a file that cannot be read.
        FileNotFoundError: the folder is wrong or incomplete.
    """
    if name not in READERS:
        raise ValueError(f"data set must be one of {', '.join(map(repr, READERS))}, got {name!r}")
    return READERS[name](Path(root))


__all__ = [
    "READERS",
    "UNREADABLE",
    "Box",
    "Images",
    "Placement",
    "Record",
    "Sample",
    "Split",
    "Unreadable",
    "hold_out",
    "images_in",
    "read_split",
    "read_square",
]
