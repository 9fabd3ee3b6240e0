# SPDX-License-Identifier: BSD-3-Clause
"""One seed of ``known_windows.py``: what all methods share, and the runs of one of them."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch

from . import known_tasks as tasks
from .digits import SIDE, make_canvases
from .methods import Method

BEGINNINGS = ("response", "middle")
TASKS = ("alone", *BEGINNINGS)
EXAMPLES = 6


class Effort(NamedTuple):
    train: int = 3000  # canvases
    test: int = 500
    read_steps: int = 700
    alone_canvases: int = 24  # each with every start
    alone_steps: int = 60
    imitate_steps: int = 200
    rank_steps: int = 150
    judge_every: int = 15


QUICK = Effort(96, 32, 4, 2, 3, 2, 2, 1)


class Experiment:
    """A reader, frozen; canvases to train, to choose a rate and to judge; both beginnings of the APN."""

    def __init__(self, effort: Effort, seed: int) -> None:
        sets = (("train", effort.train), ("train", effort.test), ("test", effort.test))
        made = [make_canvases(half, count, 3 * seed + part) for part, (half, count) in enumerate(sets)]
        self.effort = effort
        self.reader = tasks.train_reader(made[0], effort.read_steps, seed)
        self.train, self.validation, self.test = (tasks.Scene.of(part, self.reader) for part in made)
        self.apn = self.reader.proposal(1)
        self.beginnings = {"middle": copy.deepcopy(self.apn.state_dict())}
        tasks.imitate(self.reader, self.train, effort.imitate_steps)
        self.beginnings["response"] = copy.deepcopy(self.apn.state_dict())

    def given(self) -> dict[str, Any]:
        """What the methods start from, on the canvases to judge."""
        accuracy = tasks.read(self.reader, self.test, self.test.tight)
        found: dict[str, Any] = {"reader": {"scale 1": accuracy[0], "scale 2, tight windows": accuracy[1]}}
        found["alone"] = self.run_alone(self.test, Method(), 0.0, steps=0)
        for beginning in BEGINNINGS:
            self.apn.load_state_dict(self.beginnings[beginning])
            found[beginning] = tasks.judge(self.reader, self.test)
        return found

    def run(self, task: str, scene: tasks.Scene, method: Method, rate: float) -> dict[str, Any]:
        if task == "alone":
            return self.run_alone(scene, method, rate, self.effort.alone_steps)
        self.apn.load_state_dict(self.beginnings[task])
        steps, every = self.effort.rank_steps, self.effort.judge_every
        curve = tasks.rank(self.reader, self.train, scene, method, rate, steps, every)
        with torch.no_grad():
            examples = self.apn(scene.features[:EXAMPLES])[:, 0] * SIDE
        return {**curve[-1], "curve": curve, "examples": examples.tolist()}

    def run_alone(self, scene: tasks.Scene, method: Method, rate: float, steps: int) -> dict[str, Any]:
        part = scene.pick(torch.arange(self.effort.alone_canvases))
        many, start = tasks.starts(part, seed=0)
        trace, windows = tasks.descend(self.reader, many, start, method, rate, steps)
        found = (trace >= tasks.FOUND).float().mean(1)
        by_start = trace[-1].view(len(tasks.DISTANCES), len(tasks.FACTORS), -1).mean(2)
        return {
            "iou": trace[-1].mean().item(),
            "found": found[-1].item(),
            "half_side": (windows[:, 2] / many.tight[:, 2]).mean().item(),
            "iou_by_start": by_start.tolist(),
            "iou_by_step": trace.mean(1).tolist(),
            "found_by_step": found.tolist(),
        }
