# SPDX-License-Identifier: BSD-3-Clause
"""The runs of ``ablation.py``: variants of a configuration, trained and judged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from racnn.config import Config, DataConfig, ModelConfig, TrainingConfig
from racnn.data import read_split
from racnn.evaluation import evaluate
from racnn.loading import half_of_data, load_run
from racnn.training import checkpoint, processes
from racnn.training.folder import BEST, LAST
from racnn.training.trainer import Trainer

from .paired import against

DONE = "done"
LARGER = "larger"  # an input for which one scale costs about what two cost
LONG = "as long"  # classifiers learn as long as in all phases of the schedule together
MAIN = "difference"  # also judged through other windows than its own


# Variant -> what differs from the configuration. A larger input costs about what two scales cost.
VARIANTS: dict[str, dict[str, Any]] = {
    MAIN: {"training.rank_gradient": "difference"},
    "larger input": {"model.scales": 1, "model.sizes": LARGER, "training.classify_epochs": LONG},
}

ALONE, SINGLE = (MAIN, "2"), ("larger input", "1")
CLAIMS = [
    *against(ALONE, (MAIN, "1"), SINGLE, *((f"{w}, weights of {MAIN}", "2") for w in ("response", "box"))),
    *against((MAIN, "1+2"), ALONE, SINGLE),
]


def read_config(path: Path, root: Path) -> Config:
    parser = ArgumentParser()
    parser.add_class_arguments(DataConfig, "data")
    parser.add_class_arguments(ModelConfig, "model")
    parser.add_class_arguments(TrainingConfig, "training")
    config = Config.from_dict(parser.parse_path(str(path)).as_dict())
    return replace(config, data=replace(config.data, root=root)).check()


def vary(config: Config, changes: dict[str, Any], seed: int) -> Config:
    sections = config.to_dict()
    sections["training"]["seed"] = seed
    for key, value in changes.items():
        section, name = key.split(".")
        if value == LARGER:
            # Cost goes with the square of the side; rounded to what strides of 8 divide.
            value = [round(2**0.5 * sections["model"]["sizes"][0] / 8) * 8]
        if value == LONG:
            t = config.training
            value = (2 + t.rounds) * t.classify_epochs
        sections[section][name] = value
    return Config.from_dict(sections).check()


def train(config: Config, folder: Path) -> None:
    if (folder / DONE).is_file():
        return
    split = read_split(config.data.name, config.data.root)
    here = processes.start(config.training.device)
    Trainer(config, split, folder, here, resume=(folder / LAST).is_file()).run()
    (folder / DONE).touch()


def judge(folder: Path, root: Path, baselines: bool) -> dict[str, Any]:
    """The test half, once; with the same weights through other windows too, if ``baselines``."""
    path = folder / "test.json"
    if not path.is_file():
        model, config = load_run(folder / BEST)
        images, _ = half_of_data(config, "test", root)
        found = evaluate(
            model,
            images,
            window_source=model.usage.window_source,
            baselines=baselines,
            amp=config.training.amp,
        )
        checkpoint.save_json(found, path)
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result
