# SPDX-License-Identifier: BSD-3-Clause
"""Readers of published formats; images to squares; broken folders and broken images."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from trees import CLASSES, SQUARE, make_cars, make_cub, make_dogs, make_folder

from racnn.data import UNREADABLE, Images, Placement, Record, Split, Unreadable, hold_out, read_split
from racnn.training.batches import in_order, load

MAKERS: dict[str, Callable[[Path], Path]] = {
    "cub": make_cub,
    "dogs": make_dogs,
    "cars": make_cars,
    "folder": make_folder,
}


@pytest.fixture(params=MAKERS)
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    return request.param, MAKERS[request.param](tmp_path / "data")


def test_labels_and_boxes_are_those_of_the_pictures(tree: tuple[str, Path]) -> None:
    name, root = tree
    split = read_split(name, root)
    for record in split.train + split.test:
        # The picture is a square of the class' colour.
        pixels = Images((record,), 40)[0].image.float()
        channel = CLASSES.index(split.classes[record.label]) if name == "folder" else record.label
        excess = pixels[channel] - pixels.sum(0) / 3
        where = (excess > 80).nonzero()
        assert len(where) > 60
        if record.box is not None:
            left, top, right, bottom = Placement(1.0, 40 / 30).to_square(record.box)
            assert abs(where[:, 1].min() - left) <= 1.5
            assert abs(where[:, 0].max() + 1 - bottom) <= 1.5
            assert right - left == pytest.approx(SQUARE)
            assert top < bottom
    assert (split.train[0].box is None) == (name == "folder")


def test_the_published_split(tmp_path: Path) -> None:
    cub = read_split("cub", make_cub(tmp_path / "cub"))
    assert cub.classes == ("011.red", "012.green", "013.blue")
    assert Counter(r.label for r in cub.train) == {0: 4, 1: 4, 2: 4}
    assert Counter(r.label for r in cub.test) == {0: 2, 1: 2, 2: 2}
    dogs = read_split("dogs", make_dogs(tmp_path / "dogs"))
    assert dogs.classes == ("Chihuahua", "toy_terrier")
    assert (len(dogs.train), len(dogs.test)) == (6, 4)
    cars = read_split("cars", make_cars(tmp_path / "cars"))
    assert cars.classes == ("AM General Hummer", "Acura RL", "Acura TL")
    assert {r.path.parent.name for r in cars.test} == {"cars_test"}
    folder = read_split("folder", make_folder(tmp_path / "folder"))
    assert folder.classes == tuple(sorted(CLASSES))


def test_wrong_folders_are_named(tree: tuple[str, Path], tmp_path: Path) -> None:
    name, _ = tree
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        read_split(name, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty' lacks .*(images|train)"):
        read_split(name, tmp_path / "empty")


def test_missing_images_are_counted_and_named(tmp_path: Path) -> None:
    root = make_cub(tmp_path)
    for path in sorted((root / "images/011.red").iterdir())[:2]:
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"2 images that the lists name are missing.*first is.*jpg"):
        read_split("cub", root)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("images.txt", "five red.jpg", r"images.txt, line 1: must be an id and a value, got 'five red.jpg'"),
        ("image_class_labels.txt", "5 11", "lists other images than images.txt"),
        ("classes.txt", "99 other", "class '11' is not in classes.txt"),
    ],
)
def test_unreadable_cub_lists(tmp_path: Path, file: str, text: str, message: str) -> None:
    root = make_cub(tmp_path)
    (root / file).write_text(text + "\n")
    with pytest.raises(ValueError, match=message):
        read_split("cub", root)


def test_cub_box_and_split_values_are_checked(tmp_path: Path) -> None:
    root = make_cub(tmp_path)
    original = (root / "bounding_boxes.txt").read_text()
    (root / "bounding_boxes.txt").write_text(original.replace("10.0 10.0", "10.0 wide", 1))
    with pytest.raises(ValueError, match="must be x y width height"):
        read_split("cub", root)
    (root / "bounding_boxes.txt").write_text(original)
    split = (root / "train_test_split.txt").read_text()
    (root / "train_test_split.txt").write_text(split.replace("5 1", "5 2", 1))
    with pytest.raises(ValueError, match="must be 0 or 1, got '2'"):
        read_split("cub", root)


def test_broken_matlab_and_xml_files(tmp_path: Path) -> None:
    dogs = make_dogs(tmp_path / "dogs")
    annotation = next((dogs / "Annotation/n01-Chihuahua").iterdir())
    annotation.write_text("<annotation></annotation>")
    with pytest.raises(ValueError, match="must hold object/bndbox"):
        read_split("dogs", dogs)
    (dogs / "train_list.mat").write_text("not a MATLAB file, whatever its name says" * 20)
    with pytest.raises(ValueError, match=r"train_list.mat must be a MATLAB file"):
        read_split("dogs", dogs)
    cars = make_cars(tmp_path / "cars")
    (cars / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(FileNotFoundError, match="the test half has no labels"):
        read_split("cars", cars)


def test_folder_classes_must_agree(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    shutil.copytree(root / "val/red", root / "val/violet")
    with pytest.raises(ValueError, match="must hold the classes of train/, got violet besides"):
        read_split("folder", root)


def test_unknown_data_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data set must be one of 'cub', .*got 'cats'"):
        read_split("cats", tmp_path)


def test_a_corrupt_image_is_named_and_counted_once(tmp_path: Path) -> None:
    split: Split = read_split("cub", make_cub(tmp_path))
    broken = split.train[1].path
    broken.write_bytes(broken.read_bytes()[:200])
    images, unreadable = Images(split.train, 32), Unreadable(split.train)
    seen = []
    for _ in range(2):
        for batch in load(images, in_order(len(images), 4), 0):
            seen += unreadable.note(batch)
            assert batch.image.shape[1:] == (3, 32, 32)
            assert ((batch.label == UNREADABLE) == (batch.number == 1)).all()
    assert seen == [broken]
    assert unreadable.paths == [broken]


def test_workers_read_the_same(tmp_path: Path) -> None:
    images = Images(read_split("cub", make_cub(tmp_path)).train, 16)
    batches = in_order(len(images), 5)
    for one, other in zip(load(images, batches, 0), load(images, batches, 1), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_hold_out_takes_from_every_class(tmp_path: Path) -> None:
    records = tuple(Record(tmp_path / f"{n}.jpg", n % 3) for n in range(60))
    kept, held = hold_out(records, 0.2, seed=1)
    assert Counter(r.label for r in held) == {0: 4, 1: 4, 2: 4}
    assert set(kept) | set(held) == set(records)
    assert not set(kept) & set(held)
    assert hold_out(records, 0.2, seed=1)[1] == held
    assert hold_out(records, 0.2, seed=2)[1] != held
    assert hold_out(records, 0.0, seed=1) == (records, ())
    with pytest.raises(ValueError, match="validation must be in"):
        hold_out(records, 1.0, seed=1)
