# SPDX-License-Identifier: BSD-3-Clause
"""Models as folders: kept whole, read as they were written, refused in one line where they are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trees import draw, random_images, tiny_backbone

from racnn import RACNN, Usage
from racnn.commands import main
from racnn.config import Config, DataConfig, ModelConfig, TrainingConfig
from racnn.loading import load_model
from racnn.pretrained import CONFIG, WEIGHTS
from racnn.training import checkpoint

pytest.importorskip("safetensors")

CLASSES = ("red", "\u00e9 green", "blue")
OTHERS: dict[str, Any] = {
    "scales": 2,
    "sizes": (16, 12),
    "num_windows": 2,
    "crop_from": "image",
    "mask_steepness": 0.5,
    "chain_gradient": False,
    "half_side_bounds": (0.4, 0.9),
    "initial_half_side": 0.3,
    "hidden": 8,
    "dropout": 0.1,
}


def make(**options: Any) -> RACNN:
    torch.manual_seed(0)
    model = RACNN(3, "small", **({"scales": 2, "sizes": 16, "weights": None, "hidden": 8} | options)).eval()
    model.usage = Usage(40, CLASSES)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make().save_pretrained(tmp_path / "birds")
    return tmp_path / "birds"


@pytest.mark.parametrize("options", [{}, OTHERS], ids=["defaults", "others"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_model_is_read_as_it_was_written(
    options: dict[str, Any], layout: torch.memory_format, tmp_path: Path
) -> None:
    model = make(**options).to(memory_format=layout)
    model.usage = Usage(40, CLASSES, "response")
    model.save_pretrained(tmp_path / "deep/er/birds")
    again = RACNN.from_pretrained(str(tmp_path / "deep/er/birds"))
    assert sorted(path.name for path in (tmp_path / "deep/er/birds").iterdir()) == [CONFIG, WEIGHTS]
    assert not again.training
    known, found = (json.loads(json.dumps(m.arguments)) for m in (model, again))
    assert found == known
    assert again.crop_options == model.crop_options
    assert (again.usage.image_side, tuple(again.usage.classes), again.usage.window_source) == (
        40,
        CLASSES,
        "response",
    )
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    images = random_images(2, 40)
    torch.testing.assert_close(again(images).fused_logits[0], model(images).fused_logits[0])


def test_what_cannot_be_read_again_is_not_written(tmp_path: Path) -> None:
    model = make()
    with pytest.raises(ValueError, match="backbone must be a name for the model to be saved, got <function"):
        RACNN(3, tiny_backbone, 1, 16, weights=None).save_pretrained(tmp_path / "birds")
    model.usage = Usage(40, CLASSES[:2])
    with pytest.raises(ValueError, match="classes must be 3 names or none, got 2"):
        model.save_pretrained(tmp_path / "birds")
    model = make()
    with torch.no_grad():
        model.each_scale()[1].classifier.bias[0] = torch.nan
    with pytest.raises(ValueError, match=r"finite .* scales.1.classifier.bias is not"):
        model.save_pretrained(tmp_path / "birds")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_written_whole_and_over_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="birds' is there already: it is left as it is"):
        make().save_pretrained(folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before

    def interrupted(*arguments: Any, **options: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(json, "dumps", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make().save_pretrained(tmp_path / "others")
    assert list(tmp_path.iterdir()) == [folder]


def refused(folder: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        RACNN.from_pretrained(folder)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda values: values.pop(name)


def other(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda values: values.update({name: value})


FOREIGN: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "no classes": ("", without("classes"), "config.json must hold arguments, classes"),
    "another version": ("", other("version", 2), "of version 1"),
    "a number as arguments": ("", other("arguments", 3), "arguments must map names to values, got 3"),
    "a missing argument": ("arguments", without("hidden"), "arguments.hidden is missing"),
    "an unknown argument": ("arguments", other("moon", 1), "arguments.moon is unknown"),
    "an unknown backbone": ("arguments", other("backbone", "x"), "backbone must be"),
    "a number as backbone": ("arguments", other("backbone", 3), "backbone must be a name, got 3"),
    "another backbone": ("arguments", other("backbone", "test_resnet"), "mean and std are"),
    "a text as number": ("arguments", other("num_windows", "two"), "num_windows must be a whole number"),
    "too large a number": ("arguments", other("num_classes", 2**63), "num_classes|Overflow"),
    "more scales": ("arguments", other("scales", 2**31), "does not hold 2147483648 scales"),
    "more layers": ("arguments", other("hidden", 9), "size mismatch"),
    "fewer classes": ("", other("classes", ["a"]), "classes must be 3 names or none, got 1"),
    "numbers as classes": ("", other("classes", [1, 2, 3]), "classes must be names"),
    "a text as classes": ("", other("classes", "abc"), "classes must be names"),
    "another source": ("", other("window_source", "elsewhere"), "window_source must be one of 'proposed'"),
    "a small side": ("preprocessing", other("image_side", 4), "image_side must be"),
    "a huge side": ("preprocessing", other("image_side", 2**31), "image_side must be"),
    "other statistics": ("preprocessing", other("mean", [0.1] * 3), "mean and std are"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_configuration_is_refused_in_one_line(folder: Path, what: str) -> None:
    section, change, message = FOREIGN[what]
    config = json.loads((folder / CONFIG).read_text())
    change(config[section] if section else config)
    (folder / CONFIG).write_text(json.dumps(config))
    refused(folder, message)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"5", b"{}", b'{"version": 1'])
def test_what_is_no_configuration_is_refused_in_one_line(folder: Path, content: bytes) -> None:
    (folder / CONFIG).write_bytes(content)
    refused(folder, "cannot be used")


def test_every_flipped_bit_of_the_weights_is_found(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    for position in range(0, len(whole), len(whole) // 50):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        (folder / WEIGHTS).write_bytes(flipped)
        refused(folder, "model.safetensors is damaged, or was not saved together with config.json")
    (folder / WEIGHTS).write_bytes(whole[:-1])
    refused(folder, "is damaged")
    (folder / WEIGHTS).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"birds' is no folder of a model: it lacks model.safetensors"
    ):
        RACNN.from_pretrained(folder)
    with pytest.raises(FileNotFoundError, match=r"nowhere' is no folder of a model: it lacks config.json"):
        RACNN.from_pretrained(folder / "nowhere")


@pytest.fixture
def best(tmp_path: Path) -> Path:
    """A checkpoint; its run looked at the highest responses."""
    model = ModelConfig(backbone="small", weights=None, scales=2, sizes=[16], hidden=8)
    training = TrainingConfig(window_source="response")
    config = Config(DataConfig(image_side=40), model, training)
    weights = make().state_dict()
    checkpoint.save(
        {"model": weights, "classes": list(CLASSES), "config": config.to_dict()}, tmp_path / "run/best.pt"
    )
    return tmp_path / "run/best.pt"


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_commands_take_a_folder_in_place_of_its_checkpoint(
    best: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, image = tmp_path / "birds", tmp_path / "bird.png"
    draw(image, 0, 0)
    assert run("export", best, "--to", folder) == 0
    assert capsys.readouterr().out == f"wrote {folder}\n"
    shown = []
    for source in (best, folder):
        assert run("predict", "--checkpoint", source, image) == 0
        shown.append(capsys.readouterr().out)
        assert run("visualize", "--checkpoint", source, "--images", image, "--output", tmp_path / "out") == 0
        capsys.readouterr()
    assert shown[0] == shown[1]
    assert "green" in shown[0]
    assert load_model(folder).usage.window_source == "response"
    assert run("export", folder, "--to", tmp_path / "birds.pt2") == 0
    program = torch.export.load(tmp_path / "birds.pt2").module()
    images = random_images(3, 40)
    expected = make()(images, window_source="response").windows[0]
    torch.testing.assert_close(program(images)["windows_2"], expected)


def test_commands_that_need_data_want_a_run(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = ("visualize", "--class_name", "red", "--output", tmp_path / "out")
    for words in (("evaluate",), drawn):
        assert run(*words, "--checkpoint", folder) == 1
        assert "birds' knows no data set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("model.pt", "the file must end with one of .aoti.pt2, .aten.pt2, .pt2, .onnx"),
        ("bird.png", "must end with one of"),
        ("there.pt2", "there.pt2' is there already"),
        ("run", "run' is there already"),
    ],
)
def test_export_writes_over_nothing(
    best: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str, message: str
) -> None:
    draw(tmp_path / "bird.png", 0, 0)
    (tmp_path / "there.pt2").touch()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run("export", best, "--to", tmp_path / target) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert run("export", tmp_path / "none.pt", "--to", tmp_path / "new.onnx") == 1
    assert "none.pt' does not exist or is no file" in capsys.readouterr().err
