# SPDX-License-Identifier: BSD-3-Clause
"""What is measured, against counts by hand; pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from trees import make_cub, random_images, tiny_backbone

from racnn import RACNN, RACNNOutput, pictures
from racnn.data import Images, read_split
from racnn.evaluation import Accuracy, evaluate, tables, window_quality


def make(scales: int = 3) -> RACNN:
    torch.manual_seed(0)
    return RACNN(3, tiny_backbone, scales, (16,), weights=None, hidden=8)


def test_window_quality_of_known_squares() -> None:
    box = torch.tensor([10.0, 20.0, 30.0, 30.0])  # 20 x 10; its tight square is 10 to 30, 15 to 35
    half_inside = torch.tensor([30.0, 25.0, 10.0])
    inside, covered, iou = window_quality(half_inside, box, 100).tolist()
    assert inside == pytest.approx(10 * 10 / 400)
    assert covered == pytest.approx(0.5)
    assert iou == pytest.approx(200 / 600)
    assert window_quality(torch.tensor([20.0, 25.0, 10.0]), box, 100).tolist() == [0.5, 1.0, 1.0]


def test_accuracy_counts_readable_images() -> None:
    logits = torch.tensor([[6, 5, 4, 3, 2, 1, 0.0]]).repeat(4, 1)
    accuracy = Accuracy()
    accuracy.add(RACNNOutput((logits,), (), (), (), (), (), ()), torch.tensor([0, 4, 5, -1]))
    assert accuracy.images == 3
    assert accuracy.result() == {"1": {"top1": 1 / 3, "top5": 2 / 3}}
    assert accuracy.hits() == {"1": "1000"}


def test_evaluation_reports_every_scale_fusion_and_baseline(tmp_path: Path) -> None:
    split = read_split("cub", make_cub(tmp_path))
    split.test[0].path.write_bytes(b"no picture")
    result = evaluate(make(), Images(split.test, 32), batch_size=4)
    assert list(result["accuracy"]) == ["1", "2", "3", "1+2", "1+2+3"]
    assert list(result["baselines"]) == ["response", "centre", "random", "box"]
    assert result["images"] == len(split.test) - 1
    assert result["unreadable"] == [str(split.test[0].path)]
    assert result["images_per_second"] > 0
    # The same weights see the same whole image, whatever the windows.
    assert all(b["accuracy"]["1"] == result["accuracy"]["1"] for b in result["baselines"].values())
    box = result["baselines"]["box"]["attention"]
    assert box["2"]["covered"] == pytest.approx(1)
    assert box["3"]["iou"] == pytest.approx(1)
    for found in (result, *result["baselines"].values()):
        for name, hits in found["hits"].items():
            assert len(hits) == len(split.test)
            assert hits.count("1") == round(found["accuracy"][name]["top1"] * result["images"])
    json.dumps(result)
    console = Console(record=True, width=160)
    for table in tables(result):
        console.print(table)
    text = console.export_text()
    assert "1+2+3" in text
    assert "response" in text


def test_one_scale_has_no_windows_to_judge(tmp_path: Path) -> None:
    split = read_split("cub", make_cub(tmp_path))
    result = evaluate(make(1), Images(split.test, 32))
    assert list(result["accuracy"]) == ["1"]
    assert result["baselines"] == {}


def test_evaluation_is_repeatable_for_any_batch_size(tmp_path: Path) -> None:
    images = Images(read_split("cub", make_cub(tmp_path)).test, 32)
    results = [evaluate(make(), images, batch_size=size) for size in (2, 6)]
    for result in results:
        del result["images_per_second"], result["baselines"]["random"]
    assert results[0]["accuracy"] == results[1]["accuracy"]
    assert results[0]["attention"]["2"] == pytest.approx(results[1]["attention"]["2"])


def test_pictures_are_drawn(tmp_path: Path) -> None:
    images = list(random_images(3, 64))
    pictures.draw_image(make(), images[0], tmp_path / "one.png")
    pictures.draw_contact_sheet(make(), images, 1, tmp_path / "sheet.png")
    history = [
        {"phase": "rank 1", "epoch": n, "windows": [[[[32.0, 32.0, 16.0 - n]]] * 3]} for n in range(1, 13)
    ]
    pictures.draw_history(history, images, tmp_path / "windows.png")
    pictures.draw_history(history, images, tmp_path / "windows.gif")
    for name in ("one.png", "sheet.png", "windows.png"):
        with Image.open(tmp_path / name) as picture:
            assert len(picture.convert("L").getcolors(256) or []) > 50
    with Image.open(tmp_path / "windows.gif") as animation:
        assert animation.n_frames == 12
        assert animation.size == (3 * 64, 64)


def test_windows_are_drawn_where_they_are(tmp_path: Path) -> None:
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    windows = [[[[40.0, 24.0, 10.0]], [[20.0, 44.0, 10.0]]]]  # one scale, two images
    record = {"phase": "rank 1", "epoch": 1, "windows": windows}
    pictures.draw_history([record], [image, image], tmp_path / "windows.gif")
    with Image.open(tmp_path / "windows.gif") as animation:
        pixels = animation.convert("RGB")
    for left, middle in ((30, 24), (64 + 10, 44)):
        assert pixels.getpixel((left, middle)) != (0, 0, 0)
        assert pixels.getpixel((left + 10, middle)) == (0, 0, 0)
        assert pixels.getpixel((left - 6, middle)) == (0, 0, 0)


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="history holds no windows"):
        pictures.draw_history([], [], tmp_path / "windows.png")
    with pytest.raises(ValueError, match="there are no images of 'class 0'"):
        pictures.draw_contact_sheet(make(), [], 0, tmp_path / "sheet.png")


def test_top_labels() -> None:
    logits = torch.tensor([0.7, 0.2, 0.1]).log()
    assert pictures.top_labels(logits, ("a", "b", "c"), 2) == ["70.0 % a", "20.0 % b"]
