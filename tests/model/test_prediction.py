# SPDX-License-Identifier: BSD-3-Clause
"""``predict``: files, folders and lists, in batches, to JSON and CSV."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from trees import draw, tiny_config

from racnn import RACNN, Usage, load_model, pictures, prediction
from racnn.commands import main
from racnn.config import Config, DataConfig, ModelConfig
from racnn.data import read_square
from racnn.output import RACNNOutput
from racnn.training import checkpoint


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = ModelConfig(backbone="test_resnet", weights=None, scales=3, sizes=[32], hidden=8, num_windows=2)
    config = Config(data=DataConfig(image_side=32), model=model)
    torch.manual_seed(0)
    state = {"model": model.build(3).state_dict(), "classes": ["a", "b, c", "d"], "config": config.to_dict()}
    path = tmp_path_factory.mktemp("run") / "best.pt"
    checkpoint.save(state | {"phase": None}, path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With images at two depths, and much else."""
    folder = tmp_path / "images"
    for n, name in enumerate(("b.png", "deep/c.JPG", "a.png", "deep/er/d.png", ".hidden.png", ".old/e.png")):
        draw(folder / name, n % 3, n, size=(40 + 5 * n, 30))
    (folder / "note.txt").write_text("no image")
    (folder / "folder.png").mkdir()
    (folder / "deep/loop").symlink_to(folder)
    return folder


NAMES = ("a.png", "b.png", "deep/c.JPG", "deep/er/d.png")


def predict(best: Path, *arguments: object) -> int:
    return main(["predict", "--checkpoint", str(best), *map(str, arguments)])


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_json_says_what_the_model_says(best: Path, folder: Path, tmp_path: Path) -> None:
    assert predict(best, folder, "--output", tmp_path / "r.json", "--top", 2, "--batch_size", 3) == 0
    result, model = read(tmp_path / "r.json"), load_model(best)
    assert result["model"] == str(best)
    assert result["classes"] == ["a", "b, c", "d"]
    assert [found["image"] for found in result["predictions"]] == [str(folder / name) for name in NAMES]
    for found in result["predictions"]:
        pixels, placement = read_square(Path(found["image"]), 32)
        with torch.no_grad():
            output = model(pixels.unsqueeze(0))
        shares, labels = output.by_name()["1+2+3"][0].softmax(0).topk(2)
        assert [label["name"] for label in found["labels"]] == [result["classes"][n] for n in labels]
        assert [label["probability"] for label in found["labels"]] == pytest.approx(shares.tolist())
        windows = [[pictures.corners_of(window) for window in scale[0]] for scale in output.windows]
        assert len(found["windows"]) == len(found["windows"][0]) == 2
        for scale, expected in zip(found["windows"], windows, strict=True):
            for window, square in zip(scale, expected, strict=True):
                assert window == pytest.approx(placement.to_file(square), abs=1e-3)


def test_csv_has_a_row_an_image(best: Path, folder: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9,\n.png"))
    draw(odd, 0, 0)
    for output in ("r.csv", "r.json"):
        assert predict(best, folder, "--output", tmp_path / output) == 0
    with (tmp_path / "r.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert str(odd) in [row["image"] for row in rows]
    for row, found in zip(rows, read(tmp_path / "r.json")["predictions"], strict=True):
        assert row["image"] == found["image"]
        assert row["name_3"] == found["labels"][2]["name"]
        assert float(row["probability_1"]) == found["labels"][0]["probability"]
        assert float(row["scale_3_window_2_bottom"]) == found["windows"][1][1][3]


def test_batches_and_processes_change_nothing(best: Path, folder: Path, tmp_path: Path) -> None:
    results = []
    for options in (("--batch_size", 1), ("--batch_size", 3, "--workers", 2)):
        assert predict(best, folder, "--output", tmp_path / "r.json", *options) == 0
        results.append(read(tmp_path / "r.json")["predictions"])
    for one, other in zip(*results, strict=True):
        assert one["image"] == other["image"]
        assert one["labels"] == [
            label | {"probability": pytest.approx(label["probability"])} for label in other["labels"]
        ]


def test_a_list_names_files_and_folders(
    best: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = os.fsencode(folder) + b"/caf\xe9.png"
    names = (bad, b"", os.fsencode(folder / "deep"))
    (tmp_path / "list.txt").write_bytes(b"\r\n".join(names))
    options = ("--list", tmp_path / "list.txt", "--output", tmp_path / "r.json")
    assert predict(best, folder / "a.png", *options) == 1
    found = [Path(row["image"]) for row in read(tmp_path / "r.json")["predictions"]]
    assert found == [folder / name for name in ("a.png", *NAMES[2:])]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert r"caf\udce9.png" in line


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.txt", None, "--output must end with one of .json, .csv"),
        ("r.csv", b"image,label\n", "must be a new file or an earlier result"),
        ("r.json", b'{"model": 1, "classes": 2}', "must be a new file or an earlier result"),
    ],
)
def test_predict_writes_over_its_earlier_result_alone(
    best: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes | None,
    message: str,
) -> None:
    output = tmp_path / name
    if content is not None:
        output.write_bytes(content)
    assert predict(best, folder, "--output", output) == 1
    assert message in capsys.readouterr().err
    assert (output.read_bytes() if output.exists() else None) == content
    if output.suffix != ".txt":
        output.unlink()
        for _ in range(2):
            assert predict(best, folder, "--output", output) == 0


def test_an_interrupted_command_says_so_by_its_status(
    best: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path, side: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prediction, "read_square", interrupted)
    assert predict(best, folder) == 130


def test_nothing_to_look_at_is_said(best: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for names in ((), (tmp_path,)):
        assert predict(best, *names) == 1
        assert "there are no images to look at in" in capsys.readouterr().err


def known_output(model: RACNN) -> RACNNOutput:
    """Two images; scale 1 sees class 2 in channel 3 alone, at row 1, column 2 of the second image; channel 5
    is stronger, elsewhere. Scale 2 sees it in channel 3 of its first window, in channel 5 of its second."""
    maps = torch.zeros(2, 12, 4, 4)
    maps[1, 3, 1, 2], maps[1, 5, 3, 0] = 1.0, 5.0
    finer = maps.repeat_interleave(2, 0)
    finer[3] = finer[3].flip(-1)
    descriptors = (maps.mean((2, 3)), finer.mean((2, 3)).unflatten(0, (2, 2)).flatten(1))
    for scale in model.each_scale():
        torch.nn.init.zeros_(scale.classifier.weight)
        scale.classifier.weight.data[2, 3] = 1.0
    model.each_scale()[1].classifier.weight.data[2, 12 + 5] = 1.0
    logits, fused = model.classify(descriptors)
    return RACNNOutput(logits, fused, descriptors, (), (), (), (maps, finer))


def peak(response: torch.Tensor) -> tuple[int, int]:
    row, column = divmod(int(response.argmax()), response.shape[1])
    return row, column


def test_heat_is_highest_where_the_class_is_seen(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    config.model.scales, config.model.num_windows = 2, 2
    model = config.model.build(3).eval()
    for scale in model.each_scale():
        torch.nn.init.zeros_(scale.classifier.bias)
    with torch.no_grad():
        output = known_output(model)
        assert output.logits[0][1].argmax() == 2
        assert pictures.class_response(model, output, 1).shape == (2, 1, 4, 4)
        assert peak(pictures.class_response(model, output, 1)[1, 0]) == (1, 2)
        assert [peak(window) for window in pictures.class_response(model, output, 2)[1]] == [(1, 2), (3, 3)]
        model.each_scale()[0].descriptor = "fc"
        assert peak(pictures.class_response(model, output, 1)[1, 0]) == (3, 0)


def test_heat_is_drawn_below(tmp_path: Path) -> None:
    model = tiny_config(tmp_path).model.build(3).eval()
    model.usage = Usage(32, ("a", "b", "c"))
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    heights = []
    for heat in (False, True):
        pictures.draw_image(model, image, tmp_path / "drawn.png", heat=heat)
        with pictures.Image.open(tmp_path / "drawn.png") as drawn:
            heights.append(drawn.height)
    assert heights[1] > 1.5 * heights[0]
