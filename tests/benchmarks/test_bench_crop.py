# SPDX-License-Identifier: BSD-3-Clause
"""The benchmark runs, checks whom it times, and writes what the README quotes. No time is asserted."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from crop import comparison as comparing
from crop import contestants, filter_report
from crop.cases import Case, floor_bytes
from crop.comparison import Comparison
from crop.filter_cases import EXPERIMENTS
from crop.images import synthetic
from crop.probes import COPY, WINDOW_COPY
from crop.sweeps import sweeps
from crop.validation import WrongResult
from racnn_ops import _library

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
IGNORED = BENCHMARKS.parent / ".gitignore"
CPU = torch.device("cpu")

if not _library.has_cpu:
    pytest.skip(f"no compiled library: {_library.cpu_error}", allow_module_level=True)


def run(script: str, *options: str | Path, folder: Path = BENCHMARKS) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, folder / script, *options]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def results_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run as a newcomer starts it, in a checkout of its own."""
    checkout = tmp_path_factory.mktemp("checkout")
    shutil.copytree(BENCHMARKS, checkout / "benchmarks")
    if IGNORED.exists():
        shutil.copy(IGNORED, checkout)
    git(checkout, "init", "--quiet")
    git(checkout, "add", ".")
    sizes = ("--batch", "2", "--image", "32", "--crop", "16", "--rounds", "3")
    options = ("--quick", "--synthetic", "--no-compile", "--device", "cpu")
    result = run("bench_crop.py", *sizes, *options, folder=checkout / "benchmarks")
    assert result.returncode == 0, result.stderr
    (path,) = (checkout / "build" / "results").glob("cpu-*-quick.json")
    return path


def git(checkout: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=checkout, capture_output=True, text=True, check=True
    ).stdout


def test_parts_are_measured_alone(tmp_path: Path) -> None:
    sizes = ("--batch", "2", "--image", "32", "--crop", "16", "--rounds", "3")
    options = ("--only", "layout", "--synthetic", "--device", "cpu", "--output", tmp_path)
    result = run("bench_crop.py", *sizes, *options)
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.glob("cpu-*.json")
    report = json.loads(path.read_text())
    assert {record["experiment"] for record in report["times"]} == set(report["sweeps"]) == {"layout"}
    assert report["filters"] == report["memory"] == report["overhead"] == []


@pytest.mark.skipif(not IGNORED.exists(), reason="not a checkout")
def test_a_run_leaves_the_tree_as_it_was(results_path: Path) -> None:
    """Also where its name is that of a committed file: another machine of the same brand."""
    checkout = results_path.parents[2]
    assert not git(checkout, "diff", "--name-only")
    assert not git(checkout, "ls-files", "--others", "--exclude-standard")


@pytest.mark.parametrize(
    "script", ["ablation", "bench_crop", "bench_model", "birds", "demo", "known_windows", "looks"]
)
def test_programs_write_where_git_does_not_look(script: str) -> None:
    help = run(f"{script}.py", "--help")
    assert "folder, default: build/results" in help.stdout


@pytest.fixture(scope="module")
def results(results_path: Path) -> dict[str, Any]:
    return json.loads(results_path.read_text())  # type: ignore[no-any-return]


def test_results_tell_where_and_how_they_were_measured(results: dict[str, Any]) -> None:
    assert results["machine"].keys() >= {"device", "cpu", "cores", "threads", "load_average_before"}
    assert results["versions"].keys() >= {"torch", "torchvision", "racnn-ops", "python"}
    assert results["git"].keys() == {"commit", "changed"}
    assert results["arguments"]["batch"] == 2
    assert results["images"] == "random images"
    assert results["copy_bytes_per_s"] > 0


def test_results_hold_medians_and_quartiles_of_all_samples(results: dict[str, Any]) -> None:
    for record in results["times"] + results["overhead"] + results["threads"]:
        quartiles = record["lower_quartile_s"], record["median_s"], record["upper_quartile_s"]
        assert 0 < record["least_s"] <= quartiles[0] <= quartiles[1] <= quartiles[2]
        assert record["samples"] == 3


def test_every_contestant_was_validated(results: dict[str, Any]) -> None:
    for record in results["times"]:
        assert "crops" in record["errors"], record
        if record["mode"] != "forward":
            assert record["errors"].keys() & {"windows", "images"}, record
    assert not results["refused"]


def test_every_mode_has_the_contestants_that_can_do_it(results: dict[str, Any]) -> None:
    def names(mode: str) -> set[str]:
        main = (record for record in results["times"] if record["experiment"] == "main")
        return {record["contestant"] for record in main if record["mode"] == mode}

    assert names("forward") >= {"racnn_ops", "grid_sample", "roi_align", "slice + interpolate"}
    assert names("window") >= {"racnn_ops", "grid_sample"}
    assert not names("window") & {"roi_align", "slice + interpolate"}


def test_quick_runs_have_every_sweep_and_thread_count(results: dict[str, Any]) -> None:
    names = sweeps(Case(2), quick=True).keys()
    assert {record["experiment"] for record in results["times"]} == {"main", *names}
    assert {record["contestant"] for record in results["threads"]} == {
        COPY,
        WINDOW_COPY,
        "racnn_ops",
        "grid_sample",
    }
    cases = [record["case"] for record in results["threads"] if record["case"]]
    assert {(case["channels"], case["windows"]) for case in cases} == {(3, 1), (512, 1), (256, 4)}


def test_memory_beyond_the_results_is_that_of_tables(results: dict[str, Any]) -> None:
    """O(B·K·(h + w)): no sampling grid, no copy of the images."""
    ours = [record for record in results["memory"] if record["contestant"] == "racnn_ops"]
    assert {record["case"]["layout"] for record in ours} == {"contiguous", "channels_last"}
    for record in ours:
        rows_and_columns = record["case"]["batch"] * record["case"]["windows"] * 2 * record["case"]["crop"]
        assert record["torch_bytes"] - record["result_bytes"] <= 64 * rows_and_columns, record


def test_plot_is_drawn(results_path: Path) -> None:
    assert results_path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_section_is_made_of_the_results(results_path: Path, results: dict[str, Any]) -> None:
    section = results_path.with_suffix(".md").read_text()
    main = next(r for r in results["times"] if r["experiment"] == "main" and r["contestant"] == "racnn_ops")
    assert f"| racnn_ops | {1e3 * main['median_s']:.3g} ms (1.0x)" in section
    assert results["machine"]["device"] in section
    assert f"]({results_path.with_suffix('.png').name})" in section
    assert {record["case"]["experiment"] for record in results["filters"]} == set(EXPERIMENTS)
    assert filter_report.tables(results) in section


def test_a_wrong_contestant_is_refused_before_it_is_timed() -> None:
    calls = []

    def off_by_half_a_pixel(images: Tensor, windows: Tensor, *rest: Any, **options: Any) -> Tensor:
        calls.append(windows)
        return contestants.grid_sample(images, windows + 0.5, *rest, **options)

    wrong = contestants.Contestant("wrong", off_by_half_a_pixel)
    comparison = Comparison(synthetic, CPU, tick=lambda: None)
    comparison.run("main", Case(2, image=32, crop=16), [contestants.OURS, wrong], rounds=3)
    assert {record["contestant"] for record in comparison.times} == {"racnn_ops"}
    assert [(refused["contestant"], refused["mode"]) for refused in comparison.refused] == [
        ("wrong", mode) for mode in ("forward", "window", "both")
    ]
    assert all(re.match("crops differ by", refused["reason"]) for refused in comparison.refused)
    assert len(calls) == len(comparison.refused)


def test_wrong_gradients_are_refused_and_our_own_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def half_the_gradient(images: Tensor, windows: Tensor, *rest: Any, **options: Any) -> Tensor:
        return contestants.grid_sample(images, (windows + windows.detach()) / 2, *rest, **options)

    case = Case(2, image=32, crop=16)
    wrong = contestants.Contestant("wrong", half_the_gradient)
    comparison = Comparison(synthetic, CPU, tick=lambda: None)
    comparison.run("main", case, [contestants.OURS, wrong], rounds=3)
    assert [refused["mode"] for refused in comparison.refused] == ["window", "both"]

    monkeypatch.setattr(comparing, "OURS", wrong)
    with pytest.raises(WrongResult, match="windows differ by"):
        comparison.run("main", case, [wrong], rounds=3)


@pytest.mark.parametrize(
    ("dtypes", "megabytes"),
    [
        (("float32", "float32"), (77, 77, 231)),
        (("bfloat16", "bfloat16"), (39, 39, 116)),
        (("uint8", "float32"), (48, 48, None)),
        (("uint8", "bfloat16"), (29, 29, None)),
    ],
)
def test_floors_are_the_bytes_that_must_move(
    dtypes: tuple[str, str], megabytes: tuple[int | None, ...]
) -> None:
    case = replace(Case(64), dtype=dtypes[0], out_dtype=dtypes[1])
    for step, expected in zip(("forward", "backward window", "backward both"), megabytes, strict=True):
        if expected is not None:
            assert round(floor_bytes(case, step) / 1e6) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rounds", "0"), "--rounds: must be a whole number of at least 3, got '0'"),
        (("--threads", "two"), "--threads: must be a whole number of at least 1, got 'two'"),
        (("--device", "tpu"), "invalid choice: 'tpu'"),
        (("--only", "speed"), "invalid choice: 'speed'"),
    ],
)
def test_wrong_options_are_named(options: tuple[str, str], message: str) -> None:
    result = run("bench_crop.py", *options)
    assert result.returncode == 2
    assert message in result.stderr
