# SPDX-License-Identifier: BSD-3-Clause
"""The benchmark's rows for longer filters: who is in them, and that nobody wrong is timed."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

import bench_crop
from crop import filter_report
from crop.cases import Case
from crop.filter_cases import DETAILS, STEPS, FilterCase, filter_cases, floor_bytes, make_filter_inputs
from crop.filter_comparison import FilterComparison
from crop.filter_contestants import (
    ALL,
    OPENCV,
    OURS,
    OURS_AREA,
    OURS_BINS,
    OURS_FRAMES,
    OURS_SAMPLED,
    RESIZED_CROP,
    FilterContestant,
)
from crop.images import synthetic
from crop.validation import WrongResult
from racnn_ops import _library

pytestmark = pytest.mark.filterwarnings("ignore:racnn_ops:RuntimeWarning")

if not _library.has_cpu:
    pytest.skip(f"no compiled library: {_library.cpu_error}", allow_module_level=True)

CPU = torch.device("cpu")
MAIN = Case(2, image=32, crop=16)
CASES = filter_cases(MAIN, quick=False)
INSTALLED = [contestant for contestant in ALL if contestant.is_installed]


@pytest.fixture(scope="module")
def comparison() -> FilterComparison:
    compared = FilterComparison(synthetic, CPU, tick=lambda: None)
    for case in CASES:
        compared.run(case, INSTALLED, rounds=3)
    return compared


def case_of(experiment: str, dtype: str = "float32") -> FilterCase:
    return next(case for case in CASES if (case.experiment, case.dtype) == (experiment, dtype))


def run(
    case: FilterCase, takers: list[FilterContestant]
) -> tuple[set[tuple[str, str]], dict[tuple[str, str], str]]:
    """Who was timed in which step, and who was not and why."""
    compared = FilterComparison(synthetic, CPU, tick=lambda: None)
    compared.run(case, takers, rounds=3)
    timed = {(record["contestant"], record["step"]) for record in compared.times}
    return timed, {(record["contestant"], record["mode"]): record["reason"] for record in compared.refused}


def test_cases_are_those_that_the_goals_name() -> None:
    cases = filter_cases(Case(16), quick=False)
    antialias = {(c.window / c.crop, c.dtype) for c in cases if c.experiment == "antialias"}
    assert antialias == {(ratio, dtype) for ratio in (1.5, 2, 4, 8, 0.5) for dtype in ("float32", "uint8")}
    images, features = (c for c in cases if c.experiment == "area")
    assert (images.channels, images.window, images.crop, images.windows) == (3, 448, 224, 1)
    assert (features.channels, features.image, features.crop, features.windows) == (256, 56, 7, 64)
    linear = [c for c in cases if c.experiment == "linear"]
    assert {(c.window / c.crop, c.dtype) for c in linear} == {
        (ratio, dtype) for ratio in (4, 8, 16, 32) for dtype in ("float32", "uint8")
    }
    assert {c.image for c in linear} == {4096}


def test_pictures_and_reductions_are_those_of_the_issue() -> None:
    cases = filter_cases(Case(16), quick=False)
    resize = {(c.least, c.window, c.layout, c.threads) for c in cases if c.experiment == "resize"}
    sizes = ((None, 448), (100, 400))
    layouts = ("contiguous", "channels_last")
    assert resize == {(*size, layout, n) for size in sizes for layout in layouts for n in (1, 2)}
    frames = {(c.least, c.window, c.out_dtype, c.threads) for c in cases if c.experiment == "frames"}
    assert frames == {
        (*size, dtype, n) for size in sizes for dtype in ("float32", "bfloat16") for n in (1, 2)
    }
    pictures = [c for c in cases if c.experiment in ("resize", "frames")]
    assert {(c.batch, c.channels, c.crop, c.dtype) for c in pictures} == {(16, 3, 224, "uint8")}
    reductions = [(c.image_size, c.window, c.dtype) for c in cases if c.experiment == "reductions"]
    square, wide = (1024, 1024), (2160, 3840)
    assert reductions == [
        (square, 512, "float32"),
        (square, 896, "float32"),
        (wide, 1800, "float32"),
        (wide, 1800, "uint8"),
    ]


HALF_SIDES = torch.tensor([3.0, 3.0, 1.0])


@pytest.mark.parametrize(
    ("case", "half_sides", "bytes_of_steps"),
    [
        # 3 channels of 4 + 36 source pixels and of two crops of 16.
        (FilterCase("resize", 2, 10, 6, 4, dtype="uint8", least=2), HALF_SIDES[1:], (120 + 96,)),
        (
            FilterCase("frames", 2, 10, 6, 4, dtype="uint8", least=2, out_dtype="float32"),
            HALF_SIDES[1:],
            (120 + 4 * 96,),
        ),
        # 76 pixels under three windows on an image of 64; crops of 4.
        (FilterCase("area", 1, 8, 6, 2, 1, windows=3), HALF_SIDES, (304, 304, 304, 560)),
        # The same with 12 pixels.
        (FilterCase("area", 1, 8, 2, 2, 1, windows=3), HALF_SIDES[2:].expand(3), (96, 304, 96, 352)),
        (FilterCase("reductions", 1, 8, 6, 2, 1, image_width=10), HALF_SIDES[:1], (160, 336, 160, 480)),
    ],
    ids=lambda value: getattr(value, "label", None),
)
def test_floors_are_the_bytes_that_must_move(
    case: FilterCase, half_sides: Tensor, bytes_of_steps: tuple[int, ...]
) -> None:
    windows = half_sides[:, None].expand(-1, 3)
    windows = windows[None] if case.windows > 1 else windows
    assert tuple(floor_bytes(case, windows, step) for step in case.steps) == bytes_of_steps


def test_threads_are_those_of_the_case_and_then_those_of_before() -> None:
    before, used = torch.get_num_threads(), set()

    def counted(images: Tensor, windows: Tensor, side: int) -> Tensor:
        used.add(torch.get_num_threads())
        crops: Tensor = OURS_SAMPLED.crop(images, windows, side)
        return crops

    for threads in (1, 2):
        used.clear()
        run(replace(case_of("resize", "uint8"), threads=threads), [replace(OURS_SAMPLED, crop=counted)])
        assert used == {threads}
        assert torch.get_num_threads() == before


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_windows_are_inside_and_of_whole_pixels_where_others_slice(case: FilterCase) -> None:
    windows = make_filter_inputs(case, synthetic, CPU).windows.reshape(-1, 3)
    low, high = windows[:, :2] - windows[:, 2:], windows[:, :2] + windows[:, 2:]
    height, width = case.image_size
    margin = 1 if case.experiment == "area" else 0
    assert low.min() >= margin
    assert (high.amax(0) <= torch.tensor([width, height]) - margin).all()
    if case.experiment == "area":
        assert (windows[:, 2] <= case.window / 2).all()
        assert (windows != windows.round()).any()
    else:
        assert torch.equal(low, low.round())
        least = case.least or case.window
        assert ((least <= high - low) & (high - low <= case.window)).all()
        assert torch.equal(high, high.round())
    if case.windows > 1:
        assert len(windows[:, 2].unique()) > 1


def test_everyone_is_timed_in_every_step_that_he_can(comparison: FilterComparison) -> None:
    assert not comparison.refused
    timed = [(r["case"], r["step"], r["contestant"]) for r in comparison.times]
    assert timed == [
        (case.to_json(), step, contestant.name)
        for case in CASES
        for step in case.steps
        for contestant in INSTALLED
        if contestant.takes_part(case, step)
    ]
    steps = {step for case, step, name in timed if name == "racnn_ops" and case["experiment"] == "area"}
    assert steps == set(STEPS)


def test_every_peer_has_its_control_beside_it(comparison: FilterComparison) -> None:
    for record in comparison.times:
        assert record["errors"], record
        if record["measure"] is not None and record["step"] == "forward":
            assert ("difference" in record) != ("psnr" in record), record
    resized = [r for r in comparison.times if r["contestant"] == RESIZED_CROP.name and r["step"] == "forward"]
    assert len(resized) == 10
    for record in resized:
        assert record["difference"] <= (1 if record["case"]["dtype"] == "uint8" else 1e-5)


def test_rows_are_rendered(comparison: FilterComparison) -> None:
    text = filter_report.tables({"filters": comparison.times})
    assert not any(case.label in text for case in CASES if case.experiment in DETAILS)
    text += "\n\n" + filter_report.details({"filters": comparison.times})
    rows = re.findall(r"^\| ((?!-).+?) \|", text, re.MULTILINE)
    expected: Counter[str] = Counter()
    for case in CASES:
        expected[case.label] += 1 + (case.experiment == "antialias" and len(case.steps) > 1)
    assert {label: rows.count(label) for label in expected} == expected
    both = r"^\|  \| racnn_ops \| racnn_ops, area \|.*$"
    for experiment, head in zip(("antialias", "resize"), re.findall(both, text, re.MULTILINE), strict=True):
        for contestant in INSTALLED:
            if experiment in contestant.experiments:
                assert f"| {contestant.name} |" in head
    linear = case_of("linear")
    record = next(r for r in comparison.times if r["case"] == linear.to_json())
    each = 1e9 * record["median_s"] / linear.window**2
    assert f"| {linear.label} | {1e3 * record['median_s']:.3g} ms | {each:.3g} ns |" in text


def record(contestant: FilterContestant, seconds: float, **facts: Any) -> dict[str, Any]:
    case = case_of("antialias").to_json()
    named = {"contestant": contestant.name, "measure": contestant.measure, "median_s": seconds}
    return {"case": case, "step": "forward", **named, **facts}


def test_ratios_are_to_the_nearest_of_ours() -> None:
    records = [
        record(OURS, 0.002),
        record(OURS_AREA, 0.004),
        record(RESIZED_CROP, 0.007, difference=2.4e-7),
        record(OPENCV, 0.006, psnr=38.4),
    ]
    text = filter_report.tables({"filters": records})
    assert "| 2 ms | 4 ms | 3.5x (±2e-07) | 1.5x (38 dB) |" in text


def test_the_share_of_a_copy_is_beside_our_times() -> None:
    records = [record(OURS, 0.002, floor_bytes=10**6), record(RESIZED_CROP, 0.007, floor_bytes=10**6)]
    text = filter_report.tables({"filters": records, "copy_bytes_per_s": 2e9})
    assert "| 2 ms 25% | 3.5x |" in text
    assert filter_report.SHARES in text
    assert filter_report.SHARES not in filter_report.tables({"filters": records})


def test_reports_without_longer_filters_have_no_tables_of_them() -> None:
    assert filter_report.tables({}) == filter_report.details({}) == ""


def moved(contestant: FilterContestant) -> FilterContestant:
    """One that reads a pixel further to the left."""
    return replace(contestant, prepare=lambda images: contestant.prepare(images.roll(1, -1)))


@pytest.mark.parametrize(
    ("contestant", "case"),
    [
        (contestant, case_of(contestant.experiments[0], dtype))
        for contestant in ALL
        for dtype in contestant.dtypes
        if contestant.measure is not None
    ],
    ids=lambda value: getattr(value, "name", getattr(value, "dtype", None)),
)
def test_a_wrong_peer_is_not_timed(contestant: FilterContestant, case: FilterCase) -> None:
    if not contestant.is_installed:
        pytest.skip(f"{contestant.needs} is not installed")
    wrong = replace(moved(contestant), name="wrong")
    timed, refused = run(case, [OURS, OURS_AREA, OURS_BINS, contestant, wrong])
    assert (contestant.name, "forward") in timed
    assert ("wrong", "forward") not in timed
    assert refused["wrong", "forward"].startswith("crops differ by")


@pytest.mark.parametrize("contestant", [c for c in ALL if c.gradients and c.measure is not None])
def test_a_wrong_gradient_is_not_timed(contestant: FilterContestant) -> None:
    if not contestant.is_installed:
        pytest.skip(f"{contestant.needs} is not installed")

    def half_the_gradient(images: Tensor, windows: Tensor, side: int) -> Tensor:
        crops: Tensor = contestant.crop((images + images.detach()) / 2, windows, side)
        return crops

    wrong = replace(contestant, crop=half_the_gradient)
    timed, refused = run(case_of(contestant.experiments[0]), [OURS, OURS_AREA, OURS_BINS, wrong])
    assert (wrong.name, "forward") in timed
    assert (wrong.name, "images") not in timed
    assert refused[wrong.name, "images"].startswith("images differ by")


def test_who_is_not_installed_is_named() -> None:
    console = Console(record=True, width=200)
    absent = replace(OPENCV, needs="nothing_of_this_name")
    assert bench_crop.installed([OURS, absent], console) == [OURS]
    told = "OpenCV INTER_AREA does not take part: nothing_of_this_name is not installed"
    assert told in console.export_text()


def test_our_own_error_ends_the_run() -> None:
    for ours, case in (
        (OURS, case_of("antialias")),
        (OURS, case_of("linear", "uint8")),
        (OURS_SAMPLED, case_of("resize", "uint8")),
        (OURS_FRAMES, case_of("frames", "uint8")),
    ):
        with pytest.raises(WrongResult, match="crops differ by"):
            run(case, [moved(ours)])

    def half_the_gradient(images: Tensor, windows: Tensor, side: int) -> Tensor:
        crops: Tensor = OURS_BINS.crop(images, (windows + windows.detach()) / 2, side)
        return crops

    with pytest.raises(WrongResult, match="windows differ by"):
        run(case_of("area"), [replace(OURS_BINS, crop=half_the_gradient)])
