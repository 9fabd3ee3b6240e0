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

from racnn_ops import _library

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
IGNORED = BENCHMARKS.parent / ".gitignore"
CPU = torch.device("cpu")

pytest.importorskip("rich", reason="rich is not installed: pip install '.[bench]'")
pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install '.[bench]'")
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


@pytest.mark.skipif(not IGNORED.exists(), reason="not a checkout")
def test_a_run_leaves_the_tree_as_it_was(results_path: Path) -> None:
    """Also where its name is that of a committed file: another machine of the same brand."""
    checkout = results_path.parents[2]
    assert not git(checkout, "diff", "--name-only")
    assert not git(checkout, "ls-files", "--others", "--exclude-standard")


@pytest.mark.parametrize(
    "script", ["ablation", "bench_crop", "bench_model", "demo", "known_windows", "window_directions"]
)
def test_programs_write_where_git_does_not_look(script: str) -> None:
    help = run(f"{script}.py", "--help")
    assert "folder, default: build/results" in help.stdout


@pytest.mark.usefixtures("modules")
def test_the_command_is_told_without_where_it_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    import machine

    monkeypatch.setattr(sys, "argv", ["somewhere/bench_crop.py", "--quick", "--output", "x", "--batch", "2"])
    assert machine.command() == "python benchmarks/bench_crop.py --quick --batch 2"


@pytest.fixture(scope="module")
def results(results_path: Path) -> dict[str, Any]:
    return json.loads(results_path.read_text())  # type: ignore[no-any-return]


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark's modules can be imported, as beside its script."""
    monkeypatch.syspath_prepend(BENCHMARKS)


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


def test_goals_are_judged(results: dict[str, Any]) -> None:
    assert {goal["name"] for goal in results["goals"]} >= {
        "faster than grid_sample, forward",
        "two threads against one, forward",
        "host overhead, forward",
    }
    for goal in results["goals"]:
        assert goal["met"] is None or goal["met"] == (
            goal["value"] >= goal["limit"] if goal["at_least"] else goal["value"] <= goal["limit"]
        )


def test_plot_is_drawn(results_path: Path) -> None:
    assert results_path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_readme_table_is_made_of_the_results(results_path: Path, results: dict[str, Any]) -> None:
    table = run("readme_table.py", results_path)
    assert table.returncode == 0, table.stderr
    main = next(r for r in results["times"] if r["experiment"] == "main" and r["contestant"] == "racnn_ops")
    assert f"| racnn_ops | {1e3 * main['median_s']:.3g} ms (1.0x)" in table.stdout
    assert results["machine"]["device"] in table.stdout


@pytest.mark.usefixtures("modules")
def test_readme_is_changed_between_its_marks_only() -> None:
    import readme_table

    begin, end = readme_table.marks("bench")
    others = "".join(readme_table.marks("birds"))
    readme = f"above\n{begin}\nold\n{end}\nbelow {others}\n"
    assert readme_table.updated(readme, "bench", "new") == readme.replace("old", "new")
    with pytest.raises(ValueError, match="once each"):
        readme_table.updated("no marks", "bench", "new")


@pytest.mark.usefixtures("modules")
def test_a_wrong_contestant_is_refused_before_it_is_timed() -> None:
    import contestants
    from cases import Case
    from comparison import Comparison
    from images import synthetic

    calls = []

    def off_by_half_a_pixel(case: Case, images: Tensor, windows: Tensor) -> Tensor:
        calls.append(case)
        return contestants.grid_sample(case, images, windows + 0.5)

    wrong = contestants.Contestant("wrong", off_by_half_a_pixel)
    comparison = Comparison(synthetic, CPU, tick=lambda: None)
    comparison.run("main", Case(2, image=32, crop=16), [contestants.OURS, wrong], rounds=3)
    assert {record["contestant"] for record in comparison.times} == {"racnn_ops"}
    assert [(refused["contestant"], refused["mode"]) for refused in comparison.refused] == [
        ("wrong", mode) for mode in ("forward", "window", "both")
    ]
    assert all(re.match("crops differ by", refused["reason"]) for refused in comparison.refused)
    assert len(calls) == len(comparison.refused)


@pytest.mark.usefixtures("modules")
def test_wrong_gradients_are_refused_and_our_own_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    import contestants
    from cases import Case
    from comparison import Comparison
    from images import synthetic
    from validation import WrongResult

    def half_the_gradient(case: Case, images: Tensor, windows: Tensor) -> Tensor:
        return contestants.grid_sample(case, images, (windows + windows.detach()) / 2)

    case = Case(2, image=32, crop=16)
    wrong = contestants.Contestant("wrong", half_the_gradient)
    comparison = Comparison(synthetic, CPU, tick=lambda: None)
    comparison.run("main", case, [contestants.OURS, wrong], rounds=3)
    assert [refused["mode"] for refused in comparison.refused] == ["window", "both"]

    monkeypatch.setattr("comparison.OURS", wrong)
    with pytest.raises(WrongResult, match="windows differ by"):
        comparison.run("main", case, [wrong], rounds=3)


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("dtypes", "megabytes"),
    [
        (("float32", "float32"), (77, 77, 231)),
        (("bfloat16", "bfloat16"), (39, 39, 116)),
        (("uint8", "float32"), (48, 48, None)),
        (("uint8", "bfloat16"), (29, 29, None)),
    ],
)
def test_floors_are_counted_as_the_goals_count_them(
    dtypes: tuple[str, str], megabytes: tuple[int | None, ...]
) -> None:
    from cases import Case, floor_bytes

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
    ],
)
def test_wrong_options_are_named(options: tuple[str, str], message: str) -> None:
    result = run("bench_crop.py", *options)
    assert result.returncode == 2
    assert message in result.stderr
