# SPDX-License-Identifier: BSD-3-Clause
"""Trained models, and the data that they were trained on."""

from __future__ import annotations

from pathlib import Path

import torch

from .config import Config
from .data import Images, hold_out, read_split
from .model import RACNN
from .output import printable
from .pretrained import CONFIG, Usage
from .training import checkpoint
from .training.processes import choose_device


def load_model(path: str | Path, device: str = "auto") -> RACNN:
    """The model of a checkpoint (``best.pt``, ``last.pt``) or of a folder of
    :meth:`racnn.RACNN.save_pretrained`, in evaluation mode. Its ``usage`` says what images, classes and
    windows are.

    Args:
        device: such as "cpu" or "cuda"; "auto": a GPU where there is one.

    Raises:
        FileNotFoundError, ValueError: there is no such model, or no such device. One line, which names it.
    """
    path = Path(path)
    if (path / CONFIG).exists():
        return RACNN.from_pretrained(path).to(choose_device(device))
    return load_run(path, device)[0]


def load_run(path: Path, device: str = "auto") -> tuple[RACNN, Config]:
    """The model of a checkpoint as :func:`load_model` gives it, and the configuration of its run.

    Raises:
        FileNotFoundError, ValueError: as there; a folder knows no configuration.
    """
    if (path / CONFIG).exists():
        raise ValueError(f"checkpoint must be one of a run: {printable(path)!r} knows no data set")
    place = choose_device(device)
    state = checkpoint.load(path)
    config: Config = state["config"]
    classes: list[str] = state["classes"]
    with checkpoint.naming(path):
        model = config.model.build(len(classes), pretrained=False)
        checkpoint.load_weights(model, state["model"])
        source = config.training.window_source
        model.usage = Usage(config.data.image_side, classes, source).check(len(classes))
    model.to(memory_format=torch.channels_last)
    return model.to(place).eval(), config


def half_of_data(config: Config, half: str, root: Path | None = None) -> tuple[Images, tuple[str, ...]]:
    """The images of a run's ``"validation"`` or ``"test"`` half, and the names of its classes.

    Args:
        root: the data set's folder, if it has moved.
    """
    split = read_split(config.data.name, root or config.data.root)
    records = split.test
    if half == "validation":
        records = hold_out(split.train, config.data.validation, config.training.seed)[1]
    return Images(records, config.data.image_side), split.classes
