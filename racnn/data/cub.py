# SPDX-License-Identifier: BSD-3-Clause
"""Caltech-UCSD Birds-200-2011 (Wah et al., CNS-TR-2011-001), or a subset in the same files."""

from __future__ import annotations

from pathlib import Path

from .records import Box, Record, Split, require, require_images

FILES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt", "bounding_boxes.txt")


def read_cub(root: Path) -> Split:
    """Read ``images.txt`` and its companions, one "id value" a line. Ids need not start at 1.

    Raises:
        FileNotFoundError: a list or an image is missing.
        ValueError: a line that cannot be read, or lists that name different images.
    """
    require(root, "CUB-200-2011", (*FILES, "images"))
    tables = {name: _read(root / name) for name in FILES}
    names, labels, split = (tables[name] for name in FILES[:3])
    boxes = tables["bounding_boxes.txt"]
    for name in FILES[1:3] + FILES[4:]:
        different = names.keys() ^ tables[name].keys()
        if different:
            raise ValueError(
                f"{root / name}: lists other images than images.txt, such as id {min(different)}"
            )
    classes = tables["classes.txt"]
    numbers = {key: n for n, key in enumerate(sorted(classes, key=int))}
    halves: dict[str, list[Record]] = {"1": [], "0": []}
    for key, name in names.items():
        if labels[key] not in numbers:
            raise ValueError(
                f"{root / 'image_class_labels.txt'}: class {labels[key]!r} is not in classes.txt"
            )
        if split[key] not in halves:
            raise ValueError(f"{root / 'train_test_split.txt'}: must be 0 or 1, got {split[key]!r}")
        record = Record(root / "images" / name, numbers[labels[key]], _box(root, boxes[key]))
        halves[split[key]].append(record)
    require_images(root, "CUB-200-2011", halves["1"] + halves["0"])
    ordered = tuple(classes[key] for key in numbers)
    return Split(ordered, tuple(halves["1"]), tuple(halves["0"])).check(root)


def _read(path: Path) -> dict[str, str]:
    rows = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        key, _, value = line.strip().partition(" ")
        if not key.isdecimal() or not value:
            raise ValueError(f"{path}, line {number}: must be an id and a value, got {line!r}")
        rows[key] = value.strip()
    return rows


def _box(root: Path, text: str) -> Box:
    try:
        x, y, width, height = map(float, text.split())
    except ValueError:
        raise ValueError(f"{root / 'bounding_boxes.txt'}: must be x y width height, got {text!r}") from None
    return x, y, x + width, y + height
