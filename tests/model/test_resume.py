# SPDX-License-Identifier: BSD-3-Clause
"""A run that was stopped, wherever, ends as one that was not."""

from __future__ import annotations

import errno
import fcntl
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from trees import RANDOM_RUNS, locked, make_cub, random_config

from racnn.config import Config
from racnn.data import read_split
from racnn.training.folder import BEST, HISTORY, LAST
from racnn.training.processes import Processes
from racnn.training.trainer import Stopped, Trainer

ALONE = Processes(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cub(tmp_path_factory.mktemp("birds"), each=9)


def start(config: Config, output: Path, resume: bool = False) -> Trainer:
    return Trainer(config, read_split("cub", config.data.root), output, ALONE, resume=resume)


def run_in_pieces(config: Config, output: Path, steps: int, patch: pytest.MonkeyPatch) -> int:
    """Stops after so many steps, again and again. Returns the number of stops."""
    stops = 0
    while True:
        trainer = start(config, output, resume=stops > 0)
        until = trainer.at.step + steps
        patch.setattr(trainer, "_all_agree_to_stop", partial(has_done, trainer, until))
        try:
            trainer.run()
            return stops
        except Stopped:
            stops += 1


def has_done(trainer: Trainer, step: int) -> bool:
    return trainer.at.step == step


def weights(path: Path) -> dict[str, torch.Tensor]:
    model: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["model"]
    return model


# After every step, so also in the middle of an epoch and at its end; and with steps between two stops.
@pytest.mark.parametrize(("name", "steps"), [*((name, 1) for name in RANDOM_RUNS), ("paper", 2)])
def test_a_stopped_run_goes_on_exactly_from_every_step(
    birds: Path, tmp_path: Path, name: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = random_config(birds, name)
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    trainer = start(config, whole)
    trainer.run()
    assert run_in_pieces(config, pieces, steps, monkeypatch) == trainer.at.step // steps
    assert json.loads((whole / HISTORY).read_text()) == json.loads((pieces / HISTORY).read_text())
    for file in (LAST, BEST):
        expected, found = weights(whole / file), weights(pieces / file)
        assert [key for key, value in expected.items() if not torch.equal(value, found[key])] == []


def test_a_folder_belongs_to_one_run_at_a_time(birds: Path, tmp_path: Path) -> None:
    config = random_config(birds, "random windows")
    for resume in (False, True):
        with locked(tmp_path), pytest.raises(OSError, match="is in use by another process"):
            start(config, tmp_path, resume)
        start(config, tmp_path, resume).run()


def test_without_locks_a_run_warns_and_goes_on(
    birds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    start(random_config(birds, "random windows"), tmp_path).run()
    assert "cannot be locked (No locks available)" in " ".join(capsys.readouterr().out.split())


def test_what_killed_runs_left_half_written_is_removed(birds: Path, tmp_path: Path) -> None:
    config = random_config(birds, "random windows")
    start(config, tmp_path).run()
    kept = tmp_path / ".note"
    kept.touch()
    for name in (LAST, BEST, HISTORY):
        (tmp_path / f".{name}.123456").write_bytes(b"half")
    start(config, tmp_path, resume=True)
    assert {path.name for path in tmp_path.glob(".*")} == {".lock", ".note"}


def test_a_resumed_run_needs_the_same_classes_and_images(tmp_path: Path) -> None:
    root = make_cub(tmp_path / "birds", each=9)
    config = random_config(root, "random windows")
    output = tmp_path / "run"
    start(config, output).run()

    moved = root.rename(tmp_path / "moved")
    config.data = replace(config.data, root=moved)
    start(config, output, resume=True)

    lists = {path: path.read_text() for path in moved.glob("*.txt")}
    for file, before, after, message in (
        ("classes.txt", "12 012.green", "12 012.azure", "class 1 was '012.green', is '012.azure'"),
        ("classes.txt", "13 013.blue", "13 013.blue\n14 014.x", "its 3, got 4: class 3 was None, is '014.x'"),
        ("image_class_labels.txt", "5 11", "5 12", "its 18 training images with their labels, got 18, or"),
        ("train_test_split.txt", "5 1", "5 0", "its 18 training images with their labels, got 17, or"),
    ):
        path = moved / file
        path.write_text("".join(f"{line}\n" for line in lists[path].splitlines()).replace(before, after, 1))
        with pytest.raises(ValueError, match=message):
            start(config, output, resume=True)
        path.write_text(lists[path])


def test_only_a_last_checkpoint_can_be_resumed(birds: Path, tmp_path: Path) -> None:
    config = random_config(birds, "random windows")
    start(config, tmp_path).run()
    (tmp_path / BEST).replace(tmp_path / LAST)
    with pytest.raises(ValueError, match=r"last.pt' cannot be used: it must hold 'data', 'optimizer'"):
        start(config, tmp_path, resume=True)
