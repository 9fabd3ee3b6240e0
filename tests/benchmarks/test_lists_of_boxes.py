# SPDX-License-Identifier: BSD-3-Clause
"""The benchmark's lists of boxes and images: everyone is right, nobody wrong is timed, and all are shown."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from crop import lists, report
from crop.results import Results
from crop.validation import WrongResult

CPU = torch.device("cpu")


def test_everyone_is_right_and_shown() -> None:
    pytest.importorskip("torchvision")
    records = lists.times(CPU, rounds=3, quick=True)
    shown = [(record["step"], record["contestant"]) for record in records]
    ways = [(step, way) for task in lists.tasks() for step in steps(task) for way in task.ways]
    assert shown == ways
    for record in records:
        record["median_s"] = 0.01 if record["contestant"] == lists.OURS else 0.025
    text = report.listed(Results({"lists": records}))
    assert text.startswith("### Lists of boxes and images: ms, times ours\n")
    assert "| 7²" not in text
    assert text.count(f"| {lists.OURS} | 10 | 1.0x |") == 4
    assert text.count("| 25 | 2.5x |") == 6


def steps(task: lists.Task) -> list[str]:
    return ["forward", "with the images' gradient"] if task.has_gradient else ["forward"]


def test_wrong_crops_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = lists.tasks(quick=True)[1:2]

    def wrong(*inputs: object) -> torch.Tensor:
        return task.ways[lists.OURS](*inputs).flip(0)  # type: ignore[arg-type]

    monkeypatch.setattr(lists, "tasks", lambda quick: [replace(task, ways={"wrong": wrong})])
    with pytest.raises(WrongResult, match="wrong is wrong: 100 boxes out of one 3x270x480 image"):
        lists.times(CPU, rounds=3)
