# SPDX-License-Identifier: BSD-3-Clause
"""What every data set is read into: lists of image files with labels, and boxes for evaluation."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels of the image file; pixel i covers [i, i + 1)."""

FAR = 1e6
"""Pixels; more than any image has."""


class Record(NamedTuple):
    """One image. ``box`` is the object's, for evaluation alone; None where there is none."""

    path: Path
    label: int
    box: Box | None = None


@dataclass(frozen=True)
class Split:
    """A data set in its published split; labels are 0 ... len(classes) - 1."""

    classes: tuple[str, ...]
    train: tuple[Record, ...]
    test: tuple[Record, ...]

    def check(self, root: Path) -> Split:
        if len(self.classes) < 2 or not self.train or not self.test:
            raise ValueError(
                f"{root} must hold 2 or more classes and images for training and testing, got "
                f"{len(self.classes)} classes, {len(self.train)} and {len(self.test)} images"
            )
        return self


def once(seen: dict[Any, str], key: Any, where: str) -> None:
    """Note that the key is at ``where``, the file and the place in it.

    Raises:
        ValueError: ``seen`` holds it already: an image may be in both halves.
    """
    if key in seen:
        raise ValueError(f"{where}: {str(key)!r} is listed before, in {seen[key]}")
    seen[key] = where


def inside(folder: Path, name: str, where: str) -> Path:
    """Raises ValueError where a list's text leads out of its folder. Links are the user's, and followed."""
    path = PurePath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"{where}: must name a file inside {str(folder)!r}, got {name!r}")
    return folder / path


def check_box(box: Box, where: str) -> Box:
    """Raises ValueError where left, top, right, bottom are no box."""
    left, top, right, bottom = box
    if not (all(abs(side) < FAR for side in box) and left < right and top < bottom):
        raise ValueError(
            f"{where}: must be a box of finite, positive size, got left, top, right, bottom {box}"
        )
    return box


def require(root: Path, what: str, files: Iterable[str] = (), folders: Iterable[str] = ()) -> None:
    """Raises FileNotFoundError, naming the data set and what of it is missing."""
    if not root.is_dir():
        raise FileNotFoundError(f"{what}: {str(root)!r} is not a folder")
    missing = [name for name in files if not (root / name).is_file()]
    missing += [name for name in folders if not (root / name).is_dir()]
    if missing:
        raise FileNotFoundError(f"{what}: {str(root)!r} lacks {', '.join(missing)}")


def require_images(root: Path, what: str, records: Iterable[Record]) -> None:
    """Raises FileNotFoundError where listed images are not there: an incomplete download."""
    missing = [record.path for record in records if not record.path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{what}: {len(missing)} images that the lists name are missing under {str(root)!r}, "
            f"the first is {str(missing[0])!r}"
        )


def hold_out(
    records: Sequence[Record], share: float, seed: int
) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Split off ``share`` of every class, at least one image where a class has two: (kept, held out).

    Raises:
        ValueError: ``share`` is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"validation must be in [0, 1), got {share!r}")
    by_class: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        by_class[record.label].append(record)
    held: set[Record] = set()
    shuffle = random.Random(seed).shuffle
    for label in sorted(by_class):
        members = by_class[label]
        shuffle(members)
        count = min(max(round(share * len(members)), 1), len(members) - 1) if share else 0
        held.update(members[:count])
    return tuple(r for r in records if r not in held), tuple(r for r in records if r in held)
