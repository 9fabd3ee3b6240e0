# SPDX-License-Identifier: BSD-3-Clause
"""Stanford Cars (Krause et al., 3dRR at ICCV 2013)."""

from __future__ import annotations

from pathlib import Path

from .matlab import read_mat
from .records import Record, Split, require, require_images

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
    require(root, "Stanford Cars", ("devkit/cars_meta.mat", TRAIN, "cars_train", "cars_test"))
    test = next((name for name in TEST if (root / name).is_file()), None)
    if test is None:
        raise FileNotFoundError(f"Stanford Cars: {str(root)!r} lacks {TEST[0]}: the test half has no labels")
    (meta,) = read_mat(root / "devkit/cars_meta.mat", "class_names")
    classes = tuple(str(name) for name in meta.ravel())
    halves = [
        _read(root, root / name, root / folder, len(classes))
        for name, folder in ((TRAIN, "cars_train"), (test, "cars_test"))
    ]
    return Split(classes, halves[0], halves[1]).check(root)


def _read(root: Path, path: Path, folder: Path, classes: int) -> tuple[Record, ...]:
    (annotations,) = read_mat(path, "annotations")
    missing = [field for field in FIELDS if field not in (annotations.dtype.names or ())]
    if missing:
        raise ValueError(f"{path}: annotations must have the fields {', '.join(FIELDS)}, got no {missing[0]}")
    records = []
    for row in annotations.ravel():
        left, top, right, bottom = (float(row[field]) for field in FIELDS[:4])
        label = int(row["class"])
        if not 1 <= label <= classes:
            raise ValueError(f"{path}: class must be 1 to {classes}, got {label} for {row['fname']}")
        # MATLAB counts pixels from 1, and the last one belongs to the box.
        box = (left - 1, top - 1, right, bottom)
        records.append(Record(folder / str(row["fname"]), label - 1, box))
    require_images(root, "Stanford Cars", records)
    return tuple(records)
