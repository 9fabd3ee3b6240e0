# SPDX-License-Identifier: BSD-3-Clause
"""The recipe of ``make demo`` on fewer canvases: attention reads digits that scale 1 cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attention import digits
from attention.runs import read_config
from racnn.data import Images, read_split
from racnn.evaluation import evaluate
from racnn.training.processes import Processes
from racnn.training.trainer import Trainer

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def make_data(root: Path, train: int, test: int) -> Path:
    digits.write_cub(root, digits.make_canvases("train", train, 0), digits.make_canvases("test", test, 1))
    return root


def test_canvases_are_read_as_they_were_made(tmp_path: Path) -> None:
    split = read_split("cub", make_data(tmp_path, 12, 10))
    made = digits.make_canvases("train", 12, 0)
    assert len(split.test) == 10
    images = Images(split.train, digits.SIDE)
    for number in range(len(images)):
        sample = images[number]
        assert torch.equal(sample.image, made.images[number])
        assert sample.label == made.labels[number]
        torch.testing.assert_close(sample.box, made.boxes[number])
        left, top, right, bottom = sample.box.int().tolist()
        assert sample.image[:, top:bottom, left:right].float().mean() > sample.image.float().mean()


def test_halves_share_no_digit() -> None:
    with pytest.raises(ValueError, match="half must be 'train' or 'test', got 'validation'"):
        digits.make_canvases("validation", 1, 0)
    # Without clutter a canvas holds its digit alone, at the same place for the same seed.
    train, test = (digits.make_canvases(half, 3, 0, pieces=0) for half in ("train", "test"))
    assert not torch.equal(train.images, test.images)
    for image, box in zip(train.images, train.boxes.int().tolist(), strict=True):
        left, top, right, bottom = box
        inside = image[:, top:bottom, left:right].float().sum()
        assert inside == image.float().sum() > 0


def test_attention_reads_what_scale_1_cannot(tmp_path: Path) -> None:
    root = make_data(tmp_path / "digits", 1500, 300)
    config = read_config(BENCHMARKS / "configs/digits.yaml", root)
    shorter = replace(config.training, classify_epochs=7, rank_epochs=5, fuse_epochs=2, device="cpu")
    config = replace(config, training=shorter)
    split = read_split("cub", root)
    model = Trainer(config, split, tmp_path / "run", Processes(0, 1, torch.device("cpu"))).run()
    result = evaluate(model, Images(split.test, 128), batch_size=100)
    accuracy, learned = result["accuracy"], result["attention"]["2"]
    initial = result["baselines"]["response"]["attention"]["2"]
    assert accuracy["2"]["top1"] > accuracy["1"]["top1"] + 0.15
    assert accuracy["2"]["top1"] > result["baselines"]["centre"]["accuracy"]["2"]["top1"] + 0.2
    # What the ranking loss adds to the pre-training on the highest response: windows close in on the digit.
    assert learned["covered"] > 0.8
    assert learned["iou"] > 1.15 * initial["iou"]
