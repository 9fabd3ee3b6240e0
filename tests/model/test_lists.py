# SPDX-License-Identifier: BSD-3-Clause
"""Lists that are wrong, damaged or hostile: one line that names the file and the place in it."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from trees import draw, make_cars, make_cub, make_dogs, make_folder

from racnn.data import read_split
from racnn.data.matlab import read_mat


def change(path: Path, old: str, new: str) -> None:
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new, 1))


@pytest.mark.parametrize("name", ["../../secret.jpg", "/etc/passwd", "011.red/../../../secret.jpg", "."])
def test_a_cub_list_does_not_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    root = make_cub(tmp_path / "birds")
    draw(tmp_path / "secret.jpg", 0, 0)
    change(root / "images.txt", "6 012.green/image_1.jpg", f"6 {name}")
    with pytest.raises(ValueError, match=r"images.txt, line 2: must name a file inside .*got "):
        read_split("cub", root)


def test_links_are_followed(tmp_path: Path) -> None:
    """Many keep their images elsewhere."""
    root = make_cub(tmp_path / "birds")
    (root / "images").rename(tmp_path / "elsewhere")
    (root / "images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(root)
    assert len(read_split("cub", tmp_path / "link").train) == 12


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("images.txt", "6 012", "5 012", r"images.txt, line 2: '5' is listed before, in .*line 1"),
        ("images.txt", "6 012", "05 012", r"images.txt, line 2: '5' is listed before, in .*line 1"),
        (
            "images.txt",
            "8 011.red/image_3",
            "8 011.red//image_0",
            r"line 4: '.*image_0.jpg' is listed before",
        ),
        ("classes.txt", "12 012.green", "12 011.red", r"classes.txt, line 2: '011.red' is listed before"),
        ("classes.txt", "13 ", "11 ", r"classes.txt, line 3: '11' is listed before"),
        ("image_class_labels.txt", "5 11", "5 14", r"labels.txt, line 1: class '14' is not in classes.txt"),
        ("train_test_split.txt", "5 1", "5 2", r"split.txt, line 1: must be 0 or 1, got '2'"),
        ("bounding_boxes.txt", "10.0 10.0", "10.0 wide", r"line 1: must be x y width height"),
        ("bounding_boxes.txt", "10.0 10.0", "nan 10.0", r"boxes.txt, line 1: must be a box of finite"),
        ("bounding_boxes.txt", "10.0 10.0", "10.0 inf", r"boxes.txt, line 1: must be a box of finite"),
        ("bounding_boxes.txt", "10.0 10.0", "-10.0 10.0", r"boxes.txt, line 1: must be a box of finite"),
        ("bounding_boxes.txt", "10.0 10.0", "10.0 1e300", r"boxes.txt, line 1: must be a box of finite"),
    ],
)
def test_cub_lists_are_checked_line_by_line(
    tmp_path: Path, file: str, old: str, new: str, message: str
) -> None:
    root = make_cub(tmp_path)
    change(root / file, old, new)
    with pytest.raises(ValueError, match=message):
        read_split("cub", root)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_cub_list_in_another_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    root = make_cub(tmp_path)
    (root / "classes.txt").write_text("11 r\xf6t\n12 gr\xfcn\n13 blau\n", encoding=encoding)
    with pytest.raises(ValueError, match=r"classes.txt must be text in UTF-8: 'utf-8' codec can't"):
        read_split("cub", root)


def test_a_pipe_in_place_of_a_list_is_not_waited_for(tmp_path: Path) -> None:
    root = make_cub(tmp_path)
    (root / "images.txt").unlink()
    os.mkfifo(root / "images.txt")
    with pytest.raises(FileNotFoundError, match=r"lacks images.txt"):
        read_split("cub", root)


def cells(*values: object) -> np.ndarray[Any, Any]:
    found = np.empty((len(values), 1), dtype=object)
    found[:, 0] = values
    return found


def row(**changed: object) -> np.ndarray[Any, Any]:
    """Annotations of one car."""
    values = {"bbox_x1": 1, "bbox_y1": 1, "bbox_x2": 9, "bbox_y2": 9, "class": 1, "fname": "00000.jpg"}
    values |= changed  # type: ignore[arg-type]
    found = np.empty((1, 1), dtype=[(name, object) for name in values])
    found[0, 0] = tuple(values.values())
    return found


def test_matlab_texts_of_any_kind(tmp_path: Path) -> None:
    texts = ["a", "caf\xe9 \u4e2d\U0001f600", "x" * 70_000]
    savemat(
        tmp_path / "a.mat", {"texts": cells(*texts), "rows": np.array(["ab ", "cde"]), "none": np.zeros(0)}
    )
    assert read_mat(tmp_path / "a.mat", "texts", "rows", "none") == [texts, ["ab ", "cde"], []]


def test_a_crash_of_the_reader_is_no_crash_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damaged files have ended scipy's compiled code by a signal."""
    root = make_dogs(tmp_path)
    monkeypatch.setattr("racnn.data.matlab.READER", "import os; os.kill(os.getpid(), 11)")
    with pytest.raises(ValueError, match=r"train_list.mat must be a MATLAB file, .*ended scipy by SIGSEGV"):
        read_split("dogs", root)
    monkeypatch.setattr("racnn.data.matlab.READER", "import time; time.sleep(60)")
    monkeypatch.setattr("racnn.data.matlab.SECONDS", 0.2)
    with pytest.raises(ValueError, match=r"train_list.mat must be .*does not come to an end"):
        read_split("dogs", root)


def test_a_half_of_one_image(tmp_path: Path) -> None:
    """MATLAB's lists of one are no lists."""
    dogs = make_dogs(tmp_path / "dogs")
    lists = {"file_list": cells("n01-Chihuahua/test_0.jpg"), "annotation_list": cells("n01-Chihuahua/test_0")}
    savemat(dogs / "test_list.mat", lists | {"labels": np.array([[1]])})
    assert len(read_split("dogs", dogs).test) == 1
    cars = make_cars(tmp_path / "cars")
    savemat(cars / "cars_test_annos_withlabels.mat", {"annotations": row()})
    assert read_split("cars", cars).test[0].box == (0, 0, 9, 9)


DOGS: list[tuple[dict[str, object], str]] = [
    ({"annotation_list": np.arange(6)}, r"train_list.mat, image 1: must be text, got 0"),
    ({"file_list": np.arange(6)}, r"image 1: must be text, got 0"),
    ({"file_list": cells(*["n01-Chihuahua/train_0.jpg"] * 6)}, r"image 2: '.*train_0.jpg' is listed before"),
    ({"file_list": cells("../n01-Chihuahua/train_0.jpg")}, r"got 1 files, 6 annotations and 6 labels"),
    ({"file_list": cells(*["/etc/passwd"] * 6)}, r"image 1: must name a file inside .*'/etc/passwd'"),
    ({"annotation_list": cells(*["../../x"] * 6)}, r"image 1: must name a file inside .*'../../x'"),
    ({"labels": np.array([1.5] * 6)}, r"image 1: must be a whole number, got 1.5"),
    ({"labels": np.array([np.nan] * 6)}, r"image 1: must be a whole number, got nan"),
    ({"labels": np.array([1] * 6)}, r"image 4: label 1 must be of one folder"),
    ({"labels": np.array([1, 1, 1, 3, 3, 3])}, r"label 3: 'toy_terrier' is listed before, in .*label 2"),
    ({"labels": cells("a", "a", "a", "b", "b", "b")}, r"image 1: must be a number, got 'a'"),
]


@pytest.mark.parametrize(("changed", "message"), DOGS)
def test_dogs_lists_are_checked(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    root = make_dogs(tmp_path)
    lists = {name: value for name, value in loadmat(root / "train_list.mat").items() if name[0] != "_"}
    savemat(root / "train_list.mat", lists | changed)
    with pytest.raises(ValueError, match=message):
        read_split("dogs", root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotation><object></object></annotation>", "must hold object/bndbox"),
        ("<annotation>", "must hold object/bndbox"),
        ("<?xml version='1.0' encoding='no-such'?><annotation/>", "must hold object/bndbox"),
        ("<a><object><bndbox><xmin>1</xmin></bndbox></object></a>", "must hold object/bndbox"),
        (
            "<a><object><bndbox><xmin>9</xmin><ymin>1</ymin><xmax>5</xmax><ymax>9</ymax></bndbox></object></a>",
            "must be a box of finite, positive size",
        ),
    ],
)
def test_dogs_annotations_are_checked(tmp_path: Path, content: str, message: str) -> None:
    root = make_dogs(tmp_path)
    (root / "Annotation/n01-Chihuahua/train_0").write_text(content)
    with pytest.raises(ValueError, match=f"n01-Chihuahua/train_0.*{message}"):
        read_split("dogs", root)


CARS: list[tuple[object, str]] = [
    (5, r"annos.mat, image 1: annotations must have the fields bbox_x1"),
    ("text", r"image 1: annotations must have the fields"),
    (row(bbox_x1=np.array([1, 2])), r"image 1, bbox_x1: must be a number, got \[1, 2\]"),
    (row(bbox_x1="left"), r"image 1, bbox_x1: must be a number, got 'left'"),
    (row(bbox_x1=np.nan), r"image 1: must be a box of finite"),
    (row(bbox_x1=20), r"image 1: must be a box of finite, positive size"),
    (row(fname=7), r"image 1: must be text, got 7"),
    (row(fname="../cars_test/00000.jpg"), r"image 1: must name a file inside"),
    (row(**{"class": 4}), r"image 1: class must be 1 to 3, got 4"),
    (row(**{"class": 1.5}), r"image 1, class: must be a whole number"),
    (np.concatenate([row(), row()]), r"image 2: '.*00000.jpg' is listed before"),
]


@pytest.mark.parametrize(("annotations", "message"), CARS)
def test_cars_annotations_are_checked(tmp_path: Path, annotations: object, message: str) -> None:
    root = make_cars(tmp_path)
    savemat(root / "devkit/cars_train_annos.mat", {"annotations": annotations})
    with pytest.raises(ValueError, match=message):
        read_split("cars", root)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (3, "cars_meta.mat, class 1: must be text, got 3"),
        ("one", "class must be 1 to 1, got 2"),
        (cells("a", "b", "a"), "cars_meta.mat, class 3: 'a' is listed before"),
    ],
)
def test_cars_classes_are_checked(tmp_path: Path, names: object, message: str) -> None:
    root = make_cars(tmp_path)
    savemat(root / "devkit/cars_meta.mat", {"class_names": names})
    with pytest.raises(ValueError, match=message):
        read_split("cars", root)


def broken_header(content: bytes) -> bytes:
    return content[:124] + bytes(4) + content[128:]


def nested(content: bytes) -> bytes:
    """A cell in a cell in a cell ..."""
    inner = b""
    for _ in range(3000):
        head = (
            b"\x06\0\0\0\x08\0\0\0\x01"
            + bytes(7)
            + b"\x05\0\0\0\x08\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0"
        )
        inner = b"\x0e\0\0\0" + (len(head) + len(inner)).to_bytes(4, "little") + head + inner
    return content[:128] + inner


def too_large(content: bytes) -> bytes:
    """A kilobyte for every megabyte."""
    packed = zlib.compress(bytes(1 << 20) * 300)
    return content[:128] + b"\x0f\0\0\0" + len(packed).to_bytes(4, "little") + packed


@pytest.mark.parametrize(
    "damage", [broken_header, nested, too_large, lambda c: c[:100], lambda c: c[:-20], lambda c: b""]
)
def test_damaged_matlab_files_are_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    root = make_dogs(tmp_path)
    path = root / "train_list.mat"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"train_list.mat must (be a MATLAB file|hold)"):
        read_split("dogs", root)


def test_what_editors_and_file_managers_leave_is_no_class_and_no_image(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    known = read_split("folder", root)
    for half in ("train", "val"):
        draw(root / half / ".ipynb_checkpoints/0-checkpoint.png", 0, 0)
        draw(root / half / "red/.ipynb_checkpoints/0-checkpoint.png", 0, 0)
    (root / "train/red/._0.png").write_bytes(b"\0\x05\x16\x07")
    (root / "train/red/folder.png").mkdir()
    assert read_split("folder", root) == known


def test_a_root_below_a_hidden_folder_is_as_any_other(tmp_path: Path) -> None:
    assert len(read_split("folder", make_folder(tmp_path / ".cache/data")).train) == 6
