# SPDX-License-Identifier: BSD-3-Clause
"""The benchmark's cases beside the main one: sizes, windows, fewest bytes, who is compared, what is shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from crop import comparison as comparison_of_crops
from crop import probes, report, validation
from crop.cases import Case, floor_bytes, make_inputs
from crop.comparison import Comparison
from crop.contestants import GRID_SAMPLE, LOOP, OURS, ROI_ALIGN
from crop.images import synthetic
from crop.results import Results
from crop.sweeps import PLAIN, TAKERS, sweeps
from racnn_ops import _library

if not _library.has_cpu:
    pytest.skip(f"no compiled library: {_library.cpu_error}", allow_module_level=True)

CPU = torch.device("cpu")
ALL = sweeps(Case(16), quick=False)
SMALL = sweeps(Case(2, image=32, crop=16), quick=False)
ADDED = ("half sides", "reductions", "feature windows")


def test_cases_are_those_of_the_issue() -> None:
    types = (("float32", "float32"), ("bfloat16", "bfloat16"), ("uint8", "float32"))
    half_sides = [(c.dtype, c.out_dtype, c.half_side) for c in ALL["half sides"]]
    assert half_sides == [(*pair, tl) for pair in types for tl in (60, 112, 200)]
    assert {(c.batch, c.image_size, c.crop) for c in ALL["half sides"]} == {(16, (448, 448), 224)}
    assert {c.dtype for c in ALL["batch"] if c.batch == 1} == {"float32", "bfloat16"}
    reductions = [(c.image_size, c.half_side, c.dtype) for c in ALL["reductions"]]
    square, wide = (1024, 1024), (2160, 3840)
    assert reductions == [
        (square, 256, "float32"),
        (square, 448, "float32"),
        (wide, 900, "float32"),
        (wide, 900, "uint8"),
    ]
    assert {(c.batch, c.channels, c.crop) for c in ALL["reductions"]} == {(4, 3, 224)}
    features = {(c.channels, c.image, c.crop, c.half_side, c.windows) for c in ALL["feature windows"]}
    maps = {(256, 56, crop, tl, k) for crop, tl in ((14, 14), (7, 10)) for k in (4, 32)}
    assert features == maps | {(1024, 14, 7, 3.5, 8)}


def test_quick_runs_have_a_part_of_each_sweep() -> None:
    quick = sweeps(Case(16), quick=True)
    assert quick.keys() == ALL.keys()
    for name, cases in quick.items():
        assert set(cases) < set(ALL[name]) or cases == ALL[name]
    assert max(max(case.image_size) for cases in quick.values() for case in cases) <= 1024


def test_labels_name_the_size_and_the_half_side() -> None:
    assert Case(16).label == "16x3x448² → 224², float32"
    assert ALL["reductions"][-1].label == "4x3x2160x3840 → 224², tl = 900, uint8 → float32"
    assert ALL["feature windows"][1].label == "8x256x56² → 14², K = 32, tl = 14, float32"


CASES = [case for sweep in (ALL, SMALL) for name in ("windows", *ADDED) for case in sweep[name]]


@pytest.mark.parametrize("case", [c for c in CASES if max(c.image_size) <= 448], ids=lambda case: case.label)
def test_windows_are_inside_and_no_sample_is_on_a_pixel(case: Case) -> None:
    images, windows, grad_output = make_inputs(case, synthetic, CPU)
    assert images.shape == (case.batch, case.channels, *case.image_size)
    assert grad_output.shape == (*windows.shape[:-1], case.channels, case.crop, case.crop)
    centres, half = windows[..., :2].double(), windows[..., 2:].double()
    ends = torch.tensor([1 / case.crop - 1, 1 - 1 / case.crop], dtype=torch.float64)
    samples = centres[..., None] + half[..., None] * ends - 0.5
    height, width = case.image_size
    last = torch.tensor([width, height])[:, None] - 1
    assert ((samples >= 0) & (samples <= last)).all()
    every = (2 * torch.arange(case.crop) + 1) / case.crop - 1
    pixels = centres[..., None] + half[..., None] * every - 0.5
    assert (pixels - pixels.round()).abs().min() > 1 / (16 * case.crop)


def test_many_windows_are_anywhere_in_the_image() -> None:
    case = ALL["feature windows"][1]
    centres = make_inputs(case, synthetic, CPU).windows[..., :2]
    room = case.image - 2 * case.half_side - 2
    assert (centres.amax((0, 1)) - centres.amin((0, 1)) > 0.9 * room).all()


@pytest.mark.parametrize(
    ("case", "forward", "both"),
    [
        # 6 planes of 36 pixels and 16 outputs; their images have 200 pixels.
        (Case(2, image=10, image_width=20, crop=4, tl=3), 864 + 384, 864 + 384 + 4800),
        # Of 6 x 6 pixels two samples an axis touch 4 x 4; two windows.
        (Case(1, channels=1, image=8, crop=2, windows=2, tl=3), 128 + 32, 128 + 32 + 256),
        # Five of them share the 64 pixels of the image.
        (Case(1, channels=1, image=8, crop=2, windows=5, tl=3), 256 + 80, 256 + 80 + 256),
        (Case(1, channels=1, image=8, crop=2, windows=5, tl=3, dtype="uint8"), 64 + 80, None),
    ],
    ids=lambda value: getattr(value, "label", None),
)
def test_floors_are_the_bytes_that_must_move(case: Case, forward: int, both: int | None) -> None:
    assert floor_bytes(case, "forward") == floor_bytes(case, "backward window") == forward
    if both is not None:
        assert floor_bytes(case, "backward both") == both


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    compared = Comparison(synthetic, CPU, tick=lambda: None)
    for name in ADDED:
        for case in SMALL[name]:
            compared.run(name, case, TAKERS.get(name, PLAIN), rounds=3)
    return compared


def test_everyone_is_right_and_timed_in_every_mode_that_he_can(comparison: Comparison) -> None:
    assert not comparison.refused
    timed = [(r["experiment"], r["case"], r["mode"], r["contestant"]) for r in comparison.times]
    assert sorted(timed, key=str) == sorted(
        (
            (name, case.to_json(), mode, contestant.name)
            for name in ADDED
            for case in SMALL[name]
            for mode in case.modes
            for contestant in TAKERS.get(name, PLAIN)
            if contestant.takes_part(mode)
        ),
        key=str,
    )
    assert {GRID_SAMPLE, LOOP} <= set(TAKERS["reductions"])
    assert {GRID_SAMPLE, ROI_ALIGN} <= set(TAKERS["feature windows"])


def test_coordinates_in_float32_are_allowed_for_where_images_are_wide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To others alone."""

    def nearly(*rest: Any, **options: Any) -> torch.Tensor:
        return OURS.crop(*rest, **options) * (1 + 6e-4)

    near = replace(OURS, name="near", crop=nearly)
    wide = Case(1, channels=1, image=8, image_width=4096, crop=4, tl=2)
    compared = Comparison(synthetic, CPU, tick=lambda: None)
    for case in (wide, replace(wide, image_width=8)):
        compared.run("size", case, [OURS, near], rounds=3)
    assert {r["case"]["label"] for r in compared.times if r["contestant"] == "near"} == {wide.label}
    assert {r["case"]["image_width"] for r in compared.refused} == {8}

    monkeypatch.setattr(comparison_of_crops, "OURS", near)
    monkeypatch.setattr(validation, "OURS", near)
    with pytest.raises(validation.WrongResult, match="crops differ by"):
        compared.run("size", wide, [near], rounds=3)


def data(**parts: Any) -> dict[str, Any]:
    """A report, as bench_crop.py makes it, with these parts alone."""
    lists = ("sweeps", "times", "filters", "refused", "memory", "overhead", "threads", "launches")
    return {"copy_bytes_per_s": 1e9} | {name: [] for name in (*lists, "device_times")} | parts


def test_sweeps_are_shown_with_those_who_took_part(comparison: Comparison) -> None:
    text = report.details(Results(data(sweeps=list(ADDED), times=comparison.times)))
    tables = {name: text.split(f"### By {name}\n")[1].split("###")[0] for name in ADDED}
    for name, shown in tables.items():
        assert all(f"| {case.label} |" in shown for case in SMALL[name])
        takers = TAKERS.get(name, PLAIN)
        for contestant in (GRID_SAMPLE, ROI_ALIGN, LOOP):
            assert (f"| {contestant.name} fwd |" in shown) == (contestant in takers)
    assert "| roi_align +bwd images |" in tables["feature windows"]
    (record,) = Results({"times": comparison.times}).find(
        "times", case=SMALL["reductions"][0].to_json(), mode="both", contestant=OURS.name
    )
    share = f"{record['floor_bytes'] / record['median_s'] / 1e9:.0%}"
    assert f" ms {share} |" in tables["reductions"]


def test_threads_stand_beside_a_copy_by_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(probes, "large_copy", lambda device: (lambda: None, 100))
    cases = [Case(2, image=32, crop=16), SMALL["feature windows"][0]]
    torch.set_num_threads(2)
    try:
        records = probes.thread_scaling(cases, synthetic, rounds=3)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    measured = [(r["case"] and r["case"]["label"], r["mode"], r["contestant"], r["threads"]) for r in records]
    assert sorted(measured, key=str) == sorted(
        [(None, "forward", probes.COPY, n) for n in (1, 2)]
        + [(case.label, "forward", probes.WINDOW_COPY, n) for case in cases for n in (1, 2)]
        + [
            (case.label, mode, contestant.name, n)
            for case in cases
            for mode in case.modes
            for contestant in (OURS, GRID_SAMPLE)
            for n in (1, 2)
        ],
        key=str,
    )
    seconds = {1: 0.4, 2: 0.25}
    for record in records:
        record["median_s"] = seconds[record["threads"]] * (
            2 if record["contestant"] == GRID_SAMPLE.name else 1
        )
        record["floor_bytes"] = 10**9 if record["contestant"] == probes.COPY else 10**8
    text = report.details(Results(data(threads=records)))
    assert "| a plain copy, `copy_` |  | 2.5 GB/s |  | 4.0 GB/s |  |" in text
    for case in cases:
        assert f"| {case.label}: its windows, `clone` |  | 400 ms 10% |  | 250 ms 10% |  |" in text
        assert f"| {case.label} | both | 400 ms 10% | 2.0x | 250 ms 10% | 2.0x |" in text
