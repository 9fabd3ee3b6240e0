# SPDX-License-Identifier: BSD-3-Clause
"""Whole runs in one process: what is logged, what is refused."""

from __future__ import annotations

import io
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trees import make_cub, tiny_config

from racnn.config import Config
from racnn.data import Images, Sample, hold_out, read_split
from racnn.training.batches import load
from racnn.training.folder import BEST, TRACKED
from racnn.training.processes import Processes
from racnn.training.trainer import Trainer

CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU)


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cub(tmp_path_factory.mktemp("birds"), each=9)


def run(config: Config, output: Path, resume: bool = False) -> Trainer:
    trainer = Trainer(config, read_split("cub", config.data.root), output, ALONE, resume=resume)
    trainer.run()
    return trainer


def same(one: Trainer, other: Trainer) -> bool:
    states = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_other_seeds_give_other_weights(birds: Path, tmp_path: Path) -> None:
    config = tiny_config(birds, window_source="response")
    first = run(config, tmp_path / "0")
    other = run(replace(config, training=replace(config.training, seed=1)), tmp_path / "1")
    assert not same(first, other)


def test_the_ranking_loss_reaches_windows_in_four_ways(birds: Path, tmp_path: Path) -> None:
    gradients = []
    for way in ("exact", "boxcar", "difference", "antithetic"):
        history = run(tiny_config(birds, rank_gradient=way), tmp_path / way).history
        rank = next(record["train"] for record in history if record["phase"] == "rank 1")
        gradients.append(rank["window gradient 2"])
    assert len({*gradients, 0.0}) == 5


def test_the_log_answers_what_fails_silently(birds: Path, tmp_path: Path) -> None:
    trainer = run(tiny_config(birds), tmp_path)
    rank = next(record for record in trainer.history if record["phase"] == "rank 1")
    for n in (2, 3):
        assert {f"tl mean {n}", f"tl spread {n}", f"at a bound {n}"} <= rank["train"].keys()
        assert rank["train"][f"window gradient {n}"] > 0
    assert 0 <= rank["train"]["hinge active 1-2"] <= 1
    assert len(rank["windows"]) == 2
    assert len(rank["windows"][0]) == min(TRACKED, len(trainer.validation_images))
    logged = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Tags()
    assert {"train/tl_mean_2", "train/window_gradient_3", "validation/loss"} <= set(logged["scalars"])
    assert logged["images"] == ["windows"]


def test_an_unreadable_image_does_not_end_a_run(birds: Path, tmp_path: Path) -> None:
    root = make_cub(tmp_path / "data", each=9)
    broken = read_split("cub", root).train[0].path
    broken.write_bytes(b"no picture")
    trainer = run(tiny_config(root, window_source="response"), tmp_path / "run")
    assert [path for u in trainer.unreadable for path in u.paths] == [broken]


@pytest.mark.parametrize("half", ["training", "validation"])
def test_a_half_without_one_readable_image_ends_the_run(tmp_path: Path, half: str) -> None:
    root = make_cub(tmp_path / "data", each=9)
    config = tiny_config(root, window_source="response")
    train, validation = hold_out(read_split("cub", root).train, config.data.validation, 0)
    for record in train if half == "training" else validation:
        record.path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=f"not one of the {half} images in .* can be read"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run" / BEST).exists()


class Broken(io.TextIOWrapper):
    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("kind", [io.TextIOWrapper, Broken])
def test_a_failed_print_does_not_end_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[io.TextIOWrapper]
) -> None:
    root = make_cub(tmp_path / "data", each=9)
    name = root / "images/011.red/[/caf\udce9].jpg"  # no UTF-8, and rich's markup
    name.parent.mkdir()
    name.write_bytes(b"no picture")
    split = read_split("cub", root)
    split = replace(split, train=(split.train[0]._replace(path=name), *split.train[1:]))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", kind(written, encoding="ascii", errors="strict"))
    Trainer(tiny_config(root), split, tmp_path / "run", ALONE).run()
    if kind is io.TextIOWrapper:
        text = written.getvalue().decode().replace("\n", "")
        assert r"[/caf\udce9].jpg" in text
        assert r"\xb1" in text  # the plus-minus sign


def test_a_process_of_the_loader_that_dies_is_one_line(birds: Path) -> None:
    images = Images(read_split("cub", birds).train, 32)
    with pytest.raises(OSError, match="a process that reads images failed") as caught:
        list(load(KillsItsReader(images.records, 32), [[0]], 1))
    assert len(str(caught.value).splitlines()) == 1


class KillsItsReader(Images):
    def __getitem__(self, index: int) -> Sample:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_a_phase_that_only_makes_it_worse_is_undone(birds: Path, tmp_path: Path) -> None:
    config = tiny_config(birds, imitate_epochs=2, rank_epochs=0, lr_apn=1e4)
    trainer = Trainer(config, read_split("cub", birds), tmp_path, ALONE)
    start = {name: value.clone() for name, value in trainer.model.proposal(1).state_dict().items()}
    trainer.run()
    imitate = [record for record in trainer.history if record["phase"] == "imitate"]
    assert min(record["validation"]["loss"] for record in imitate) > trainer.done[1].best
    torch.testing.assert_close(trainer.model.proposal(1).state_dict(), start, atol=0, rtol=0)


def test_runs_do_not_overwrite_each_other(birds: Path, tmp_path: Path) -> None:
    config = tiny_config(birds, window_source="response")
    split = read_split("cub", birds)
    run(config, tmp_path)
    with pytest.raises(FileExistsError, match="holds a run"):
        Trainer(config, split, tmp_path, ALONE)
    other = replace(config, training=replace(config.training, lr_apn=0.5))
    with pytest.raises(ValueError, match=r"last.pt.*training.lr_apn must be 0.001 as in it, got 0.5"):
        Trainer(other, split, tmp_path, ALONE, resume=True)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Trainer(config, split, tmp_path / "other", ALONE, resume=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 500}, "training.batch_size must be at most"),
        ({"rounds": 0}, "training.rounds must be at least 1, got 0"),
    ],
)
def test_wrong_configurations_are_refused(
    birds: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(tiny_config(birds, **options), tmp_path)


def test_processes_share_batches_evenly(birds: Path, tmp_path: Path) -> None:
    config, two = tiny_config(birds, batch_size=7), Processes(0, 2, CPU)
    with pytest.raises(ValueError, match=r"batch_size must be a multiple of 2, the processes, got 7"):
        Trainer(config, read_split("cub", birds), tmp_path, two)
