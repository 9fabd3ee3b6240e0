# SPDX-License-Identifier: BSD-3-Clause
"""A run that was stopped, wherever, ends as one that was not."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from trees import RANDOM_RUNS, make_cub, random_config

from racnn.config import Config
from racnn.data import read_split
from racnn.training.processes import Processes
from racnn.training.trainer import BEST, HISTORY, LAST, Stopped, Trainer

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
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("name", RANDOM_RUNS)
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
