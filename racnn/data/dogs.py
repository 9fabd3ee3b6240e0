# SPDX-License-Identifier: BSD-3-Clause
"""Stanford Dogs (Khosla et al., FGVC workshop at CVPR 2011)."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from .matlab import read_mat, text, whole
from .records import Box, Record, Split, check_box, inside, once, require, require_images

LISTS = ("train_list.mat", "test_list.mat")


def read_dogs(root: Path) -> Split:
    """Read ``train_list.mat``, ``test_list.mat``, ``Images/`` and the boxes in ``Annotation/``.

    An image with several dogs has the first one's box.

    Raises:
        FileNotFoundError: a list, an image or an annotation is missing.
        ValueError: a file that cannot be read.
    """
    require(root, "Stanford Dogs", LISTS, ["Images", "Annotation"])
    folders: dict[int, str] = {}
    seen: dict[object, str] = {}
    halves = [_read(root, root / name, folders, seen) for name in LISTS]
    if sorted(folders) != list(range(len(folders))):
        raise ValueError(f"{root}: labels must be 1 to the number of classes, got {sorted(folders)!r:.60}")
    classes = tuple(folders[n].partition("-")[2] for n in range(len(folders)))
    for number, name in enumerate(classes, 1):
        once(seen, name, f"{root}, label {number}")
    return Split(classes, halves[0], halves[1]).check(root)


def _read(root: Path, path: Path, folders: dict[int, str], seen: dict[object, str]) -> tuple[Record, ...]:
    """One half. ``folders`` receives that of each class, ``seen`` the images."""
    files, annotations, labels = read_mat(path, "file_list", "annotation_list", "labels")
    if not len(files) == len(annotations) == len(labels):
        raise ValueError(
            f"{path} must hold as many annotations and labels as files, got "
            f"{len(files)} files, {len(annotations)} annotations and {len(labels)} labels"
        )
    records = []
    for position, (file, annotation, label) in enumerate(zip(files, annotations, labels, strict=True), 1):
        where = f"{path}, image {position}"
        name, number = text(file, where), whole(label, where) - 1
        folder = folders.setdefault(number, name.split("/")[0])
        if folder != name.split("/")[0]:
            raise ValueError(
                f"{where}: label {number + 1} must be of one folder, got {name!r} and {folder!r}"
            )
        box = _box(inside(root / "Annotation", text(annotation, where), where))
        image = inside(root / "Images", name, where)
        once(seen, image, where)
        records.append(Record(image, number, box))
    require_images(root, "Stanford Dogs", records)
    return tuple(records)


def _box(path: Path) -> Box:
    if not path.is_file():
        raise FileNotFoundError(f"Stanford Dogs: the annotation {str(path)!r} is missing")
    try:
        found = ElementTree.parse(path).find("object/bndbox")
        if found is None:
            raise ValueError("there is none")
        left, top, right, bottom = (float(found.findtext(t, "")) for t in ("xmin", "ymin", "xmax", "ymax"))
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise ValueError(
            f"{path} must hold object/bndbox with xmin, ymin, xmax, ymax: {error or 'one is missing'}"
        ) from error
    return check_box((left, top, right, bottom), str(path))
