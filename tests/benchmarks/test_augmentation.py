# SPDX-License-Identifier: BSD-3-Clause
"""The benchmark's rows for random crops: who is in them, and that nobody wrong is timed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from crop import report
from crop.augmentation import (
    ALL,
    KORNIA,
    OURS,
    OURS_SAMPLED,
    TORCHVISION,
    Augmentation,
    AugmentationCase,
    AugmentationComparison,
    Transform,
    augmentation_cases,
    augmentation_table,
)
from crop.cases import Case
from crop.images import synthetic
from crop.results import Results
from crop.validation import WrongResult
from racnn_ops import _library

if not _library.has_cpu:
    pytest.skip(f"no compiled library: {_library.cpu_error}", allow_module_level=True)

CPU = torch.device("cpu")
UINT8, FLOAT32 = augmentation_cases(Case(2, image=40, crop=16), quick=False)


def run(case: AugmentationCase, takers: list[Augmentation]) -> AugmentationComparison:
    compared = AugmentationComparison(synthetic, CPU, tick=lambda: None)
    with torch.random.fork_rng(devices=[]):
        compared.run(case, takers, rounds=3)
    return compared


def test_cases_are_those_that_the_goals_name() -> None:
    cases = augmentation_cases(Case(16), quick=False)
    assert [case.label for case in cases] == [
        "64x3x448² → 224², uint8",
        "64x3x448² → 224², float32",
    ]
    assert augmentation_cases(Case(16), quick=True) == cases[1:]


def test_everyone_is_timed_and_was_compared() -> None:
    installed = [contestant for contestant in ALL if contestant.is_installed]
    records = []
    for case in (UINT8, FLOAT32):
        compared = run(case, installed)
        assert not compared.refused
        takers = [contestant.name for contestant in installed if case.dtype in contestant.dtypes]
        assert [record["contestant"] for record in compared.times] == takers
        for record in compared.times:
            assert record["samples"] == 3
            assert 0 < record["errors"]["crops"] < (1.25 if case is UINT8 else 3e-4)
        records += compared.times
    text = augmentation_table({"augmentation": records})
    assert f"| {UINT8.label} | " in text
    for record in records:
        assert f"{1e3 * record['median_s']:.3g} ms" in text
        ours = next(
            (r for r in records if (r["case"], r["contestant"]) == (record["case"], record["measure"])), None
        )
        if ours is not None:
            assert f"({record['median_s'] / ours['median_s']:.1f}x)" in text
    lists = ("times", "filters", "refused", "memory", "overhead", "threads", "sweeps", "device_times")
    data = {name: [] for name in lists} | {"augmentation": records, "copy_bytes_per_s": 1e9}
    assert text in report.details(Results(data))
    assert augmentation_table({}) == ""


@pytest.mark.parametrize("case", [UINT8, FLOAT32], ids=lambda case: case.dtype)
def test_a_wrong_contestant_is_refused_before_it_is_timed(case: AugmentationCase) -> None:
    pytest.importorskip("torchvision")
    calls = []

    def moved(transform: Transform, images: Tensor) -> Tensor:
        calls.append(transform)
        crops: Tensor = TORCHVISION.call(transform, images.roll(1, -1))
        return crops

    def one_for_all(transform: Transform, images: Tensor) -> Tensor:
        crops: Tensor = transform(images)
        return crops

    def only_one(transform: Transform, images: Tensor) -> Tensor:
        return TORCHVISION.windows(transform, images[:1]).expand(len(images), 4)

    wrong = replace(TORCHVISION, name="moved", call=moved)
    batch = replace(TORCHVISION, name="one window", call=one_for_all, windows=only_one)
    sampled = replace(TORCHVISION, name="sampled", antialias=False)
    compared = run(case, [OURS, wrong, batch, sampled])
    assert [record["contestant"] for record in compared.times] == ["racnn_ops"]
    reasons = {refused["contestant"]: refused["reason"] for refused in compared.refused}
    assert reasons.keys() == {"moved", "one window", "sampled"}
    assert reasons["one window"] == "one window for all images"
    assert all(reasons[name].startswith("crops differ by") for name in ("moved", "sampled"))
    assert len(calls) == 1

    with pytest.raises(WrongResult, match="crops differ by"):
        run(case, [replace(OURS, make=OURS_SAMPLED.make)])


def test_kornias_windows_are_its_own() -> None:
    pytest.importorskip("kornia")
    compared = run(FLOAT32, [OURS_SAMPLED, replace(KORNIA, windows=lambda t, i: KORNIA.windows(t, i) + 1)])
    assert [refused["contestant"] for refused in compared.refused] == [KORNIA.name]
