# SPDX-License-Identifier: BSD-3-Clause
"""What the study of birds looks at: photographs, their centres, and photographs in large scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from racnn.data import Images, Split
from racnn.training.batches import in_order, load

HALVES = ("train", "test")


class Photographs(NamedTuple):
    """(N, 3, S, S) uint8, (N), and the birds' boxes (N, 4) in pixels."""

    images: Tensor
    labels: Tensor
    boxes: Tensor


class Half(Protocol):
    """Images of one half of the data, in several views each."""

    labels: Tensor
    views: int
    side: int

    def pixels(self, numbers: Tensor, view: int) -> Tensor:
        """(B, 3, side, side) uint8."""
        ...

    def boxes(self, view: int) -> Tensor:
        """(N, 4): where the birds are, in pixels."""
        ...


def read(split: Split, side: int, file: Path) -> dict[str, Photographs]:
    """Both halves, decoded once and kept in a file."""
    if not file.is_file():
        halves = {}
        for half, records in (("train", split.train), ("test", split.test)):
            images = Images(records, side)
            samples = list(load(images, in_order(len(records), 64), 0))
            pixels, labels, _, boxes = (torch.cat(parts) for parts in zip(*samples, strict=True))
            if (labels < 0).any():
                raise SystemExit(f"{int((labels < 0).sum())} images of the {half} half cannot be read")
            halves[half] = pixels, labels, boxes
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(halves, file)
    found = torch.load(file, mmap=True, weights_only=True)
    return {half: Photographs(*found[half]) for half in HALVES}


class Mirrored:
    """As they are, and mirrored."""

    views = 2

    def __init__(self, photographs: Photographs) -> None:
        self.photographs, self.labels = photographs, photographs.labels
        self.side = photographs.images.shape[-1]

    def pixels(self, numbers: Tensor, view: int) -> Tensor:
        found = self.photographs.images[numbers]
        return found.flip(-1) if view % 2 else found

    def boxes(self, view: int) -> Tensor:
        return mirrored(self.photographs.boxes, self.side) if view % 2 else self.photographs.boxes


class Centre:
    """The central part of a half's images.

    Args:
        share: of the side.
    """

    def __init__(self, half: Half, share: float) -> None:
        self.half, self.labels, self.views = half, half.labels, half.views
        self.cut = round(half.side * (1 - share) / 2)
        self.side = half.side - 2 * self.cut

    def pixels(self, numbers: Tensor, view: int) -> Tensor:
        seen = slice(self.cut, self.cut + self.side)
        return self.half.pixels(numbers, view)[..., seen, seen]

    def boxes(self, view: int) -> Tensor:
        return self.half.boxes(view) - self.cut


class Scenes:
    """Every photograph in a scene three times as wide, whose other parts are background of other photographs.

    The layout is synthetic: a mosaic of squares that hold no bird's box, and the photograph anywhere over it.
    Every view is another layout, the odd ones are mirrored.

    Args:
        cell: side of the photograph and of the mosaic's squares, in pixels.
        seed: of the layouts.
    """

    GRID = 3

    def __init__(self, photographs: Photographs, cell: int, views: int, seed: int) -> None:
        self.labels, self.views, self.cell, self.side = photographs.labels, views, cell, self.GRID * cell
        self.birds = resized(photographs.images, cell)
        self.background = bird_free(photographs, cell)
        count = len(self.labels)
        generator = torch.Generator().manual_seed(seed)
        cells = (views, count, self.GRID**2)
        self.chosen = torch.randint(len(self.background), cells, generator=generator)
        self.places = torch.randint(self.side - cell + 1, (views, count, 2), generator=generator)
        self._boxes = photographs.boxes * (cell / photographs.images.shape[-1])

    def pixels(self, numbers: Tensor, view: int) -> Tensor:
        mosaic = self.background[self.chosen[view, numbers]].unflatten(1, (self.GRID, self.GRID))
        scenes = mosaic.permute(0, 3, 1, 4, 2, 5).reshape(len(numbers), 3, self.side, self.side)
        for scene, number in zip(scenes, numbers.tolist(), strict=True):
            x, y = self.places[view, number].tolist()
            scene[:, y : y + self.cell, x : x + self.cell] = self.birds[number]
        return scenes.flip(-1) if view % 2 else scenes

    def boxes(self, view: int) -> Tensor:
        placed = self._boxes + self.places[view].repeat(1, 2)
        return mirrored(placed, self.side) if view % 2 else placed


def mirrored(boxes: Tensor, side: int) -> Tensor:
    left, top, right, bottom = boxes.unbind(1)
    return torch.stack((side - right, top, side - left, bottom), 1)


def bird_free(photographs: Photographs, cell: int) -> Tensor:
    """(M, 3, cell, cell): of every photograph the largest square beside its bird's box, where it is at least
    a quarter as wide as the photograph."""
    side = photographs.images.shape[-1]
    found = []
    for image, (left, top, right, bottom) in zip(
        photographs.images, photographs.boxes.round().int().tolist(), strict=True
    ):
        strips = {
            left: (0, 0),
            side - right: (side - max(side - right, 1), 0),
            top: (0, 0),
            side - bottom: (0, side - max(side - bottom, 1)),
        }
        width = max(strips)
        if width >= side / 4:
            x, y = strips[width]
            found.append(resized(image[None, :, y : y + width, x : x + width], cell))
    return torch.cat(found)


def resized(images: Tensor, side: int, batch: int = 64) -> Tensor:
    """uint8 to uint8, antialiased."""
    parts: Sequence[Tensor] = images.split(batch)
    return torch.cat([F.interpolate(p, (side, side), mode="bilinear", antialias=True) for p in parts])
