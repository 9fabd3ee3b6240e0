# SPDX-License-Identifier: BSD-3-Clause
"""Any data set of one folder a class."""

from __future__ import annotations

from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from ..output import printable
from .records import Record, Split, require

TEST_NAMES = ("test", "val")


def read_folder(root: Path) -> Split:
    """Read ``train/<class>/*`` and ``test/<class>/*`` (or ``val/``), torchvision's ``ImageFolder`` layout.

    Raises:
        FileNotFoundError: a half is missing.
        ValueError: a class of the test half is not in the training half, or there are no images.
    """
    require(root, "image folder", folders=["train"])
    test = next((name for name in TEST_NAMES if (root / name).is_dir()), None)
    if test is None:
        raise FileNotFoundError(f"image folder: {str(root)!r} lacks {' or '.join(TEST_NAMES)}")
    classes = tuple(sorted(_folders(root / "train")))
    unknown = sorted(_folders(root / test) - set(classes))
    if unknown:
        raise ValueError(
            f"{root / test} must hold the classes of train/, "
            f"got {', '.join(map(printable, unknown[:3]))} besides"
        )
    halves = [
        tuple(
            Record(path, label)
            for label, name in enumerate(classes)
            for path in images_in(root / half / name)
        )
        for half in ("train", test)
    ]
    return Split(classes, halves[0], halves[1]).check(root)


def _folders(half: Path) -> set[str]:
    return {path.name for path in half.iterdir() if path.is_dir() and not path.name.startswith(".")}


def images_in(folder: Path) -> list[Path]:
    """What looks like an image by its name, at any depth, sorted. Links to folders are not followed."""
    found = (path for path in folder.rglob("*") if _is_image(path.relative_to(folder)))
    return sorted(path for path in found if not path.is_dir())


def _is_image(path: Path) -> bool:
    """By its name. Editors and file managers leave copies in ``.ipynb_checkpoints/`` and as ``._name``."""
    return path.suffix.lower() in IMG_EXTENSIONS and not any(part.startswith(".") for part in path.parts)
