# SPDX-License-Identifier: BSD-3-Clause
"""Stanford Cars (Krause et al., 3dRR at ICCV 2013)."""

from __future__ import annotations

from pathlib import Path

from .matlab import number, read_mat, text, whole
from .records import Record, Split, check_box, inside, once, require, require_images

META = "devkit/cars_meta.mat"
TRAIN = "devkit/cars_train_annos.mat"
TEST = ("cars_test_annos_withlabels.mat", "devkit/cars_test_annos_withlabels.mat")
FIELDS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")


def read_cars(root: Path) -> Split:
    """Read ``devkit/cars_meta.mat``, the annotations of both halves, ``cars_train/`` and ``cars_test/``.

    The devkit's own test annotations have no labels; ``cars_test_annos_withlabels.mat``, published beside it,
    is looked for in the folder and in ``devkit/``.

    Raises:
        FileNotFoundError: a file or an image is missing.
        ValueError: a file that cannot be read.
    """
    require(root, "Stanford Cars", [META, TRAIN], ["cars_train", "cars_test"])
    test = next((name for name in TEST if (root / name).is_file()), None)
    if test is None:
        raise FileNotFoundError(f"Stanford Cars: {str(root)!r} lacks {TEST[0]}: the test half has no labels")
    (names,) = read_mat(root / META, "class_names")
    classes = tuple(text(name, f"{root / META}, class {n}") for n, name in enumerate(names, 1))
    seen: dict[object, str] = {}
    for n, name in enumerate(classes, 1):
        once(seen, name, f"{root / META}, class {n}")
    halves = [
        _read(root, root / name, root / folder, len(classes))
        for name, folder in ((TRAIN, "cars_train"), (test, "cars_test"))
    ]
    return Split(classes, halves[0], halves[1]).check(root)


def _read(root: Path, path: Path, folder: Path, classes: int) -> tuple[Record, ...]:
    (annotations,) = read_mat(path, "annotations")
    records: list[Record] = []
    seen: dict[object, str] = {}
    for position, row in enumerate(annotations, 1):
        where = f"{path}, image {position}"
        if not isinstance(row, dict) or not row.keys() >= set(FIELDS):
            raise ValueError(f"{where}: annotations must have the fields {', '.join(FIELDS)}")
        left, top, right, bottom = (number(row[field], f"{where}, {field}") for field in FIELDS[:4])
        label = whole(row["class"], f"{where}, class")
        if not 1 <= label <= classes:
            raise ValueError(f"{where}: class must be 1 to {classes}, got {label}")
        # MATLAB counts pixels from 1, and the last one belongs to the box.
        box = check_box((left - 1, top - 1, right, bottom), where)
        image = inside(folder, text(row["fname"], where), where)
        once(seen, image, where)
        records.append(Record(image, label - 1, box))
    require_images(root, "Stanford Cars", records)
    return tuple(records)
