# SPDX-License-Identifier: BSD-3-Clause
"""Files of the commands: none is lost, one that is bad does not cost the others, names are only names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from trees import draw, make_cub

from racnn.commands import main
from racnn.config import Config, DataConfig, ModelConfig
from racnn.pictures import read_history
from racnn.targets import figure_files
from racnn.training import checkpoint

ROOT = Path(__file__).resolve().parents[2]
WINDOWS = [[[[20.0, 20.0, 10.0]]] * 3]  # one scale, three images


@pytest.fixture
def best(tmp_path: Path) -> Path:
    """A model that has not learned anything, and its data."""
    data = DataConfig(root=make_cub(tmp_path / "data", each=9), image_side=32, validation=0.2)
    model = ModelConfig(backbone="test_resnet", weights=None, scales=2, sizes=[32], hidden=8)
    config = Config(data=data, model=model)
    torch.manual_seed(0)
    classes = ["011.red", "012.green", "013.blue"]
    state = {"model": model.build(3).state_dict(), "classes": classes, "config": config.to_dict()}
    checkpoint.save(state, tmp_path / "run/best.pt")
    epochs = [{"phase": "rank 1", "epoch": n, "windows": WINDOWS} for n in (1, 2)]
    (tmp_path / "run/history.json").write_text(json.dumps(epochs))
    return tmp_path / "run/best.pt"


def run(command: str, best: Path, *arguments: object) -> int:
    return main([command, "--checkpoint", str(best), *map(str, arguments)])


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_visualize_writes_beside_the_pictures_not_over_them(best: Path, tmp_path: Path) -> None:
    draw(tmp_path / "pictures/bird.png", 0, 0)
    draw(tmp_path / "pictures/windows.png", 0, 1)
    before = contents(tmp_path)
    folder = tmp_path / "pictures"
    assert (
        run("visualize", best, "--images", folder / "bird.png", folder / "windows.png", "--output", folder)
        == 0
    )
    after = contents(tmp_path)
    assert {path: after[path] for path in before} == before
    assert {path.name for path in after.keys() - before.keys()} == {"bird.windows.png", "windows.windows.png"}


@pytest.mark.parametrize("link", [False, True])
def test_visualize_does_not_write_over_an_input(
    best: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], link: bool
) -> None:
    folder = tmp_path / "pictures"
    draw(folder / "bird.jpg", 0, 0)
    draw(folder / "bird.windows.png", 0, 1)
    if link:  # another name of the second picture
        (folder / "other.png").hardlink_to(folder / "bird.windows.png")
    second = "other.png" if link else "bird.windows.png"
    before = contents(tmp_path)
    assert run("visualize", best, "--images", folder / "bird.jpg", folder / second, "--output", folder) == 1
    assert "bird.windows.png' would be lost" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_visualize_does_not_write_over_the_data(
    best: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "data/images/011.red"
    (images / "image_6.jpg").rename(images / "windows.png")
    listed = tmp_path / "data/images.txt"
    listed.write_text(listed.read_text().replace("011.red/image_6.jpg", "011.red/windows.png"))
    before = contents(tmp_path)
    drawn = ("--class_name", "011.red", "--history", "true")
    assert run("visualize", best, *drawn, "--output", images) == 1
    assert "windows.png' would be lost" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_figures_of_equal_names_are_numbered(best: Path, tmp_path: Path) -> None:
    for folder in "ab":
        draw(tmp_path / folder / "1.png", 0, 0)
    pictures = (tmp_path / "a/1.png", tmp_path / "b/1.png")
    assert run("visualize", best, "--images", *pictures, "--output", tmp_path / "out") == 0
    assert {path.name for path in contents(tmp_path / "out")} == {"1.windows.png", "1.windows-2.png"}


def test_names_of_figures_stay_in_the_folder(tmp_path: Path) -> None:
    names = ("../../a.png", "a/b.png", "a_b.png", "A_B.png", "a\0\n.png", "\udce9.png")
    files = figure_files(tmp_path / "out", names, [])
    assert {file.parent for file in files} == {tmp_path / "out"}
    assert len({file.name.casefold() for file in files}) == len(names)
    for file in files:
        file.write_bytes(b"")
        assert file.name.isprintable()


def test_a_class_called_like_a_path_or_a_formula_is_drawn(best: Path, tmp_path: Path) -> None:
    name = "../../$\\frac{a}$"
    classes = tmp_path / "data/classes.txt"
    classes.write_text(classes.read_text().replace("012.green", name))
    state = torch.load(best, weights_only=True)
    state["classes"][1] = name
    torch.save(state, best)
    assert run("visualize", best, "--class_name", name, "--output", tmp_path / "deep/er/out") == 0
    assert [path.name for path in contents(tmp_path / "deep")] == [".._.._$_frac{a}$.png"]


def test_visualize_refuses_a_file_as_its_folder_before_anything_is_drawn(
    best: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path / "bird.png", 0, 0)
    before = contents(tmp_path)
    assert run("visualize", best, "--images", tmp_path / "bird.png", "--output", tmp_path / "bird.png") == 1
    assert "bird.png" in capsys.readouterr().err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("target", ["run/best.pt", "run/history.json", "data/images.txt", "data"])
def test_evaluate_does_not_write_over_another_file(
    best: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    before = contents(tmp_path)
    assert run("evaluate", best, "--output", tmp_path / target) == 1
    errors = capsys.readouterr().err
    assert "--output must be a new file or an earlier result" in errors
    assert len(errors.splitlines()) == 1
    assert contents(tmp_path) == before


def test_evaluate_does_not_replace_a_device(best: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "null")
    assert run("evaluate", best, "--output", tmp_path / "null") == 1
    assert (tmp_path / "null").is_fifo()


def test_evaluate_writes_over_its_earlier_result(best: Path, tmp_path: Path) -> None:
    (tmp_path / "result.json").touch()  # as mktemp leaves it
    for _ in range(2):
        arguments = ("--output", tmp_path / "result.json", "--baselines", "false")
        assert run("evaluate", best, *arguments) == 0
        assert "accuracy" in json.loads((tmp_path / "result.json").read_text())


def test_evaluate_says_that_no_image_can_be_read(
    best: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path / "data/images").rglob("*.jpg"):
        path.write_bytes(b"")
    assert run("evaluate", best) == 1
    assert "there are no images to look at: 9 cannot be read, the first is" in capsys.readouterr().err


def test_predict_answers_for_the_good_images_and_names_the_bad_ones(
    best: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    draw(tmp_path / "good.png", 0, 0)
    draw(tmp_path / "fine.png", 0, 0)
    (tmp_path / "bad.png").write_bytes(b"nothing")
    bad = (tmp_path / "bad.png", tmp_path / "missing.png")
    assert run("predict", best, tmp_path / "good.png", *bad, tmp_path / "fine.png") == 1
    out, errors = capsys.readouterr()
    assert "good.png" in out
    assert "fine.png" in out
    assert [line.startswith("error: ") for line in errors.splitlines()] == [True, True]
    assert "bad.png" in errors.splitlines()[0]
    assert "missing.png" in errors.splitlines()[1]
    assert run("predict", best, tmp_path / "good.png") == 0


def test_visualize_draws_the_good_images_and_names_the_bad_ones(
    best: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path / "good.png", 0, 0)
    (tmp_path / "bad.png").write_bytes(b"nothing")
    pictures = (tmp_path / "bad.png", tmp_path / "good.png")
    assert run("visualize", best, "--images", *pictures, "--output", tmp_path / "out") == 1
    assert [path.name for path in contents(tmp_path / "out")] == ["good.windows.png"]
    assert "bad.png" in capsys.readouterr().err


ODD = [b"caf\xe9", b"[/red]", b"[bold]", b":bird:", b"a\nb", b"null", b"\xe4\xb8\xad", b"5"]


@pytest.mark.parametrize("encoding", ["ascii:strict", "utf-8:strict"])
def test_any_name_and_any_terminal(best: Path, tmp_path: Path, encoding: str) -> None:
    """Names that are no UTF-8, or mean something to a terminal; a terminal that cannot show them."""
    names = [Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name + b".png")) for name in ODD]
    for path in names:
        draw(path, 0, 0)
    names[0].with_suffix(".gif").write_bytes(b"broken")
    arguments = ["predict", "--checkpoint", best, *names, names[0].with_suffix(".gif")]
    result = subprocess.run(
        [sys.executable, "-m", "racnn", *map(os.fsencode, arguments)],
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT), "COLUMNS": "300"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    output = result.stdout.decode(encoding.split(":")[0])
    assert result.returncode == 1, result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert rb"caf\udce9.gif" in result.stderr
    for shown in (r"caf\udce9.png", "[/red].png", "[bold].png", ":bird:.png", r"a\nb.png", "null.png"):
        assert shown in output
    arguments = ["visualize", "--checkpoint", str(best), "--output", str(tmp_path / "out"), "--images"]
    assert main([*arguments, *map(str, names)]) == 0
    assert len(contents(tmp_path / "out")) == len(names)


@pytest.mark.parametrize("options", [("--top", "0"), ("--top", "-1"), ("--top", "two")])
def test_numbers_of_labels_are_positive(best: Path, options: tuple[str, str]) -> None:
    with pytest.raises(SystemExit):
        run("predict", best, *options, "bird.png")


HISTORIES: list[Any] = [
    5,
    [5],
    [{}],
    {"windows": 5},
    [{"windows": WINDOWS}],
    [{"phase": "a", "epoch": 1, "windows": 5}],
    [{"phase": "a", "epoch": 1, "windows": [[[["a"] * 3]]]}],
    [{"phase": "a", "epoch": 1, "windows": [[[[1.0, 2.0]]]]}],
    [{"phase": "a", "epoch": 1, "windows": [[[[1.0, 2.0, float("nan")]] * 2]]}],
    [{"phase": "a", "epoch": 1, "windows": [[[[1.0, 2.0, 10**400]] * 2]]}],
    [{"phase": "a", "epoch": 1, "windows": [WINDOWS[0][:1]]}],
]


@pytest.mark.parametrize("history", HISTORIES)
def test_a_history_of_something_else_is_one_line(tmp_path: Path, history: Any) -> None:
    (tmp_path / "history.json").write_text(json.dumps(history))
    with pytest.raises(ValueError, match=r"history.json must be the history of a run"):
        read_history(tmp_path / "history.json", 2)
    (tmp_path / "history.json").write_bytes(b"\xff" + b"[" * 100_000)
    with pytest.raises(ValueError, match=r"history.json must be the history of a run"):
        read_history(tmp_path / "history.json", 2)
    with pytest.raises(OSError, match="history"):
        read_history(tmp_path / "no/history.json", 2)
