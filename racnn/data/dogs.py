# SPDX-License-Identifier: BSD-3-Clause
"""Stanford Dogs (Khosla et al., FGVC workshop at CVPR 2011)."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from .matlab import read_mat
from .records import Box, Record, Split, require, require_images

LISTS = ("train_list.mat", "test_list.mat")


def read_dogs(root: Path) -> Split:
    """Read ``train_list.mat``, ``test_list.mat``, ``Images/`` and the boxes in ``Annotation/``.

    An image with several dogs has the first one's box.

    Raises:
        FileNotFoundError: a list, an image or an annotation is missing.
        ValueError: a file that cannot be read.
    """
    require(root, "Stanford Dogs", (*LISTS, "Images", "Annotation"))
    names: dict[int, str] = {}
    halves = []
    for name in LISTS:
        files, annotations, labels = read_mat(root / name, "file_list", "annotation_list", "labels")
        records = []
        for file, annotation, label in zip(files.ravel(), annotations.ravel(), labels.ravel(), strict=True):
            number = int(label) - 1
            names.setdefault(number, str(file).split("/")[0].partition("-")[2])
            records.append(
                Record(root / "Images" / str(file), number, _box(root / "Annotation" / annotation))
            )
        require_images(root, "Stanford Dogs", records)
        halves.append(tuple(records))
    if sorted(names) != list(range(len(names))):
        raise ValueError(f"{root}: labels must be 1 to the number of classes, got {sorted(names)}")
    return Split(tuple(names[n] for n in sorted(names)), halves[0], halves[1]).check(root)


def _box(path: Path) -> Box:
    if not path.is_file():
        raise FileNotFoundError(f"Stanford Dogs: the annotation {str(path)!r} is missing")
    try:
        found = ElementTree.parse(path).find("object/bndbox")
        assert found is not None
        left, top, right, bottom = (float(found.findtext(t, "")) for t in ("xmin", "ymin", "xmax", "ymax"))
    except (ElementTree.ParseError, AssertionError, ValueError) as error:
        raise ValueError(f"{path} must hold object/bndbox with xmin, ymin, xmax, ymax") from error
    return left, top, right, bottom
