# SPDX-License-Identifier: BSD-3-Clause
"""Image files to square uint8 tensors, and coordinates between the two."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from .decode import decode
from .records import Box, Record

UNREADABLE = -1
"""The label of an image that could not be read."""


class Placement(NamedTuple):
    """Where the file's pixels lie on the square: ``square = file * scale + offset``, for x and y.

    The file's pixels are those it stores. Where its EXIF tag turns them, the square's x may be the file's y
    (``swapped``), and a scale negative.
    """

    scale_x: float
    scale_y: float
    offset_x: float = 0.0
    offset_y: float = 0.0
    swapped: bool = False

    def to_square(self, box: Box) -> Box:
        left, top, right, bottom = _swap(box) if self.swapped else box
        xs = sorted(x * self.scale_x + self.offset_x for x in (left, right))
        ys = sorted(y * self.scale_y + self.offset_y for y in (top, bottom))
        return xs[0], ys[0], xs[1], ys[1]

    def to_file(self, box: Box) -> Box:
        left, top, right, bottom = box
        xs = sorted((x - self.offset_x) / self.scale_x for x in (left, right))
        ys = sorted((y - self.offset_y) / self.scale_y for y in (top, bottom))
        found = xs[0], ys[0], xs[1], ys[1]
        return _swap(found) if self.swapped else found


def _swap(box: Box) -> Box:
    left, top, right, bottom = box
    return top, left, bottom, right


class Sample(NamedTuple):
    """One image, or a batch of them.

    Shapes: image (3, S, S) uint8; label () int64; number () int64, that of the record; box (4), NaN where
    there is none.
    """

    image: Tensor
    label: Tensor
    number: Tensor
    box: Tensor


def read_square(path: Path, side: int) -> tuple[Tensor, Placement]:
    """An image file as (3, side, side) uint8, turned upright by its EXIF tag and stretched to the square.

    That is the usual preprocessing of RA-CNN. Transparent pixels become grey.

    Raises:
        OSError: the file cannot be decoded.
    """
    picture, width, height, orientation = decode(path, side)
    square = picture.resize((side, side), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()
    scale_x, scale_y, offset_x, offset_y = side / width, side / height, 0.0, 0.0
    if orientation in (2, 3, 6, 7):  # x runs against the file's
        scale_x, offset_x = -scale_x, float(side)
    if orientation in (3, 4, 7, 8):
        scale_y, offset_y = -scale_y, float(side)
    return pixels, Placement(scale_x, scale_y, offset_x, offset_y, swapped=orientation >= 5)


class Images(Dataset[Sample]):
    """Records as :class:`Sample`. A file that cannot be decoded gives grey pixels and the label UNREADABLE.

    Args:
        side: of the square, in pixels.
    """

    def __init__(self, records: tuple[Record, ...], side: int) -> None:
        if side < 8:
            raise ValueError(f"image_side must be at least 8, got {side!r}")
        self.records, self.side = records, side

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        path, label, box = self.records[index]
        placed: Box | None = None
        try:
            image, placement = read_square(path, self.side)
            placed = placement.to_square(box) if box is not None else None
        except OSError:
            image, label = torch.full((3, self.side, self.side), 128, dtype=torch.uint8), UNREADABLE
        numbers = placed if placed is not None else (float("nan"),) * 4
        return Sample(image, torch.tensor(label), torch.tensor(index), torch.tensor(numbers))


class Unreadable:
    """Names each unreadable image once, and counts them."""

    def __init__(self, records: tuple[Record, ...]) -> None:
        self.records = records
        self.paths: list[Path] = []

    def note(self, batch: Sample) -> list[Path]:
        """The paths that this batch adds."""
        new = [self.records[i].path for i in batch.number[batch.label == UNREADABLE].tolist()]
        new = [path for path in new if path not in self.paths]
        self.paths += new
        return new
