# SPDX-License-Identifier: BSD-3-Clause
"""Caltech-UCSD Birds-200-2011 (Wah et al., CNS-TR-2011-001), or a subset in the same files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .records import Box, Record, Split, check_box, inside, once, require, require_images

FILES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt", "bounding_boxes.txt")


class Line(NamedTuple):
    """The value of an id, and where it is, for messages."""

    value: str
    where: str


def read_cub(root: Path) -> Split:
    """Read ``images.txt`` and its companions, one "id value" a line. Ids need not start at 1.

    Raises:
        FileNotFoundError: a list or an image is missing.
        ValueError: a line that cannot be read, or lists that name different images or an image twice.
    """
    require(root, "CUB-200-2011", FILES, ["images"])
    tables = {name: _read(root / name) for name in FILES}
    names, labels, split, classes, boxes = tables.values()
    for name in FILES[1:3] + FILES[4:]:
        different = names.keys() ^ tables[name].keys()
        if different:
            raise ValueError(
                f"{root / name}: lists other images than images.txt, such as id {min(different)}"
            )
    numbers = {key: n for n, key in enumerate(sorted(classes))}
    halves: dict[str, list[Record]] = {"1": [], "0": []}
    seen: dict[object, str] = {}
    for name, where in classes.values():
        once(seen, name, where)
    for key, (name, where) in names.items():
        half, label = split[key], labels[key]
        if _id(label.value) not in numbers:
            raise ValueError(f"{label.where}: class {label.value!r} is not in classes.txt")
        if half.value not in halves:
            raise ValueError(f"{half.where}: must be 0 or 1, got {half.value!r}")
        path = inside(root / "images", name, where)
        once(seen, path, where)
        halves[half.value].append(Record(path, numbers[_id(label.value)], _box(boxes[key])))
    require_images(root, "CUB-200-2011", halves["1"] + halves["0"])
    ordered = tuple(classes[key].value for key in numbers)
    return Split(ordered, tuple(halves["1"]), tuple(halves["0"])).check(root)


def _read(path: Path) -> dict[int, Line]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be text in UTF-8: {error}") from error
    rows: dict[int, Line] = {}
    seen: dict[object, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        key, _, value = line.strip().partition(" ")
        where = f"{path}, line {number}"
        if _id(key) < 0 or not value:
            raise ValueError(f"{where}: must be an id and a value, got {line!r}")
        once(seen, _id(key), where)
        rows[_id(key)] = Line(value.strip(), where)
    return rows


def _id(text: str) -> int:
    """-1 where it is none."""
    return int(text) if text.isdecimal() and len(text) < 19 else -1


def _box(line: Line) -> Box:
    try:
        x, y, width, height = map(float, line.value.split())
    except ValueError:
        raise ValueError(f"{line.where}: must be x y width height, got {line.value!r}") from None
    return check_box((x, y, x + width, y + height), line.where)
