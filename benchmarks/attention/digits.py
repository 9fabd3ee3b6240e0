# SPDX-License-Identifier: BSD-3-Clause
"""Handwritten digits, each small on a large canvas, among pieces of others; where they are is known.

The digits are scikit-learn's 1,797 real ones. No digit of the test half's canvases was written on a canvas of
the training half.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

SIDE = 128
SIZES = (24, 36)  # of a digit, in pixels: from, to
PIECES, PIECE = 24, 10  # of clutter on a canvas, and their side in pixels
TEST_DIGITS = 450


class Canvases(NamedTuple):
    """images (N, 3, SIDE, SIDE) uint8; labels (N); boxes (N, 4), the digits' left, top, right, bottom."""

    images: Tensor
    labels: Tensor
    boxes: Tensor


def make_canvases(half: str, count: int, seed: int, pieces: int = PIECES) -> Canvases:
    """Draws ``count`` canvases of the digits of one half, ``"train"`` or ``"test"``."""
    if half not in ("train", "test"):
        raise ValueError(f"half must be 'train' or 'test', got {half!r}")
    source = load_digits()
    chosen = slice(None, -TEST_DIGITS) if half == "train" else slice(-TEST_DIGITS, None)
    digits = torch.from_numpy(source.images[chosen]).float()[:, None] / 16
    names = torch.from_numpy(source.target[chosen])
    generator = torch.Generator().manual_seed(seed)
    # Every digit is drawn about equally often.
    order = torch.cat([torch.randperm(len(digits), generator=generator) for _ in range(count)])[:count]
    canvases, boxes = torch.zeros(count, SIDE, SIDE), torch.zeros(count, 4)
    for number, digit in enumerate(order.tolist()):
        size = _whole(SIZES[0], SIZES[1] + 1, generator)
        left, top = (_whole(0, SIDE - size + 1, generator) for _ in range(2))
        _scatter_pieces(canvases[number], digits, pieces, generator)
        place = canvases[number, top : top + size, left : left + size]
        # Clutter shines through: an empty square around the digit would give it away.
        place.copy_(torch.maximum(place, _enlarged(digits[digit], size)))
        boxes[number] = torch.tensor([left, top, left + size, top + size])
    images = (255 * canvases).round().byte()[:, None].expand(-1, 3, -1, -1).contiguous()
    return Canvases(images, names[order], boxes)


def _scatter_pieces(canvas: Tensor, digits: Tensor, pieces: int, generator: torch.Generator) -> None:
    for _ in range(pieces):
        size = _whole(SIZES[0], SIZES[1] + 1, generator)
        other = _enlarged(digits[_whole(0, len(digits), generator)], size)
        row, column = (_whole(0, size - PIECE + 1, generator) for _ in range(2))
        top, left = (_whole(0, SIDE - PIECE + 1, generator) for _ in range(2))
        place = canvas[top : top + PIECE, left : left + PIECE]
        place.copy_(torch.maximum(place, other[row : row + PIECE, column : column + PIECE]))


def _enlarged(digit: Tensor, size: int) -> Tensor:
    """(size, size) of (1, 8, 8), in [0, 1]."""
    larger = F.interpolate(digit[None], (size, size), mode="bicubic", align_corners=False)
    return larger[0, 0].clamp(0, 1)


def _whole(start: int, end: int, generator: torch.Generator) -> int:
    return int(torch.randint(start, end, (), generator=generator))


def write_cub(root: Path, train: Canvases, test: Canvases) -> None:
    """Both halves in the files of CUB-200-2011, images as PNG."""
    lists: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": []}
    lists |= {"bounding_boxes": [], "classes": [f"{n + 1} {n + 1:03}.{n}" for n in range(10)]}
    key = 0
    for is_train, half in ((1, train), (0, test)):
        for image, label, box in zip(half.images, half.labels.tolist(), half.boxes.tolist(), strict=True):
            key += 1
            name = f"{label + 1:03}.{label}/{key:05}.png"
            path = root / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
            left, top, right, bottom = box
            lists["images"].append(f"{key} {name}")
            lists["image_class_labels"].append(f"{key} {label + 1}")
            lists["train_test_split"].append(f"{key} {is_train}")
            lists["bounding_boxes"].append(f"{key} {left} {top} {right - left} {bottom - top}")
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
