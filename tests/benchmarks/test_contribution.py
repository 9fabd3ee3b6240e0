# SPDX-License-Identifier: BSD-3-Clause
"""Committed contributions are valid and tell every loss; broken ones are refused."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bench_crop
from crop import contribution, report
from crop.compared import compared, faster
from crop.results import times_ours

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
COMMITTED = sorted((RESULTS / contribution.FOLDER).glob("*.json"))
FIRST = "cpu-amd-epyc-avx512"

pytest.importorskip("jsonschema")


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return json.loads((RESULTS / f"{FIRST}.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture
def contributed() -> dict[str, Any]:
    return contribution.load(RESULTS / contribution.FOLDER / f"{FIRST}.json")


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_contributions_are_valid(path: Path) -> None:
    found = contribution.load(path)
    whole = RESULTS / path.name
    if whole.exists():  # of the same run
        assert found == contribution.contribution(json.loads(whole.read_text()))


def test_both_instruction_sets_are_committed() -> None:
    assert {path.stem for path in COMMITTED} >= {FIRST, "cpu-amd-epyc-avx2"}


def pair(name: str, value: Any, who: str = "theirs") -> Callable[[dict[str, Any]], None]:
    return lambda found: found["pairs"][0][who].update({name: value})


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a negative time": (pair("median_s", -1.0), r"\$\.pairs\[0\]\.theirs\.median_s: -1.0"),
    "no time": (pair("median_s", 0, "ours"), r"ours\.median_s: 0"),
    "text for a time": (pair("median_s", "1 ms"), r"theirs\.median_s: '1 ms'"),
    "quartiles in disorder": (pair("upper_quartile_s", 1e-9), r"theirs: the median is not between"),
    "an unknown field of times": (pair("mean_s", 1.0), "'mean_s' was unexpected"),
    "an unknown field": (lambda found: found.update(note="fast"), "'note' was unexpected"),
    "no machine": (lambda found: found.pop("machine"), "'machine' is a required property"),
    "no pairs": (lambda found: found["pairs"].clear(), r"\$\.pairs: \[\]"),
    "half a commit": (lambda found: found["git"].update(commit="372ef1e"), r"\$\.git\.commit: '372ef1e'"),
    "another program": (lambda found: found.update(command="python x.py"), r"\$\.command: 'python x.py'"),
    "true for a number": (pair("samples", True), r"theirs\.samples: True"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_contributions_are_refused(contributed: dict[str, Any], what: str) -> None:
    contribution.check(contributed)
    spoil, message = BROKEN[what]
    spoil(contributed)
    with pytest.raises(ValueError, match=message):
        contribution.check(contributed)


def test_names_and_numbers_of_files_are_checked(contributed: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(contributed))
    with pytest.raises(ValueError, match=rf"mine\.json must be {FIRST}\.json"):
        contribution.load(path)
    contributed["copy_bytes_per_s"] = float("nan")
    path.write_text(json.dumps(contributed))
    with pytest.raises(ValueError, match="NaN is no number"):
        contribution.load(path)


def test_a_contribution_is_made_of_a_results_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, measured: dict[str, Any]
) -> None:
    """What is not as it should be is in it: changes, who was missing, who was refused."""
    measured = copy.deepcopy(measured)
    measured["git"]["changed"] = True
    refusal = {"contestant": "kornia", "case": {"label": "c"}, "mode": "forward", "reason": "crops differ"}
    measured["refused"] = [refusal]
    measured["times"] = [record for record in measured["times"] if record["contestant"] != "kornia"]
    (tmp_path / "x.json").write_text(json.dumps(measured))
    words = ["bench_crop.py", "--contribute", str(tmp_path / "x.json"), "--output", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as stopped:
        bench_crop.parse_arguments()
    assert not stopped.value.code
    found = contribution.load(tmp_path / "contributed" / f"{FIRST}.json")
    assert found["git"]["changed"] is True
    assert found["absent"] == ["kornia"]
    text = contribution.tables([found])
    assert "Not timed: kornia; kornia, c, forward: crops differ." in text
    assert "`372ef1e37c` with changes" in text


@pytest.mark.parametrize("option", [["--only", "dtype"], ["--models"], ["--filters-only"]])
def test_a_part_is_no_contribution(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench_crop.py", "--contribute", "--device", "cpu", *option])
    with pytest.raises(SystemExit):
        bench_crop.parse_arguments()
    assert "--contribute needs everything" in capsys.readouterr().err


def test_another_programs_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no report of bench_crop\.py: it has no .*copy_bytes_per_s"):
        contribution.write(json.loads((RESULTS / "digits.json").read_text()), tmp_path)


def slowed(measured: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    """The same report, with contestants of these values a hundred times faster."""
    found = copy.deepcopy(measured)
    for section in ("times", "filters", "augmentation", "paste", "lists", "threads", "overhead"):
        for record in found[section]:
            if record["contestant"] == wanted["contestant"]:
                for name in ("median_s", "lower_quartile_s", "upper_quartile_s", "least_s"):
                    record[name] /= 1000
    return found


@pytest.mark.parametrize(
    "contestant",
    ["grid_sample", "kornia", "roi_align", "PIL resize", "resized_crop", "grid_sample, compiled"],
)
def test_every_loss_is_told(measured: dict[str, Any], contestant: str) -> None:
    """In the sentence, bold in tables, and in what is contributed, whoever it is and wherever."""
    found = slowed(measured, contestant=contestant)
    pairs = compared(found)
    theirs = [pair for pair in pairs if pair.theirs["contestant"] == contestant]
    assert theirs
    assert all(pair.ratio < 1 for pair in theirs)
    sentence, text = faster(pairs), report.tables(found) + report.details(report.Results(found))
    for each in theirs:
        assert f"{contestant}, {each.experiment}: {each.what} ({times_ours(each.ratio)})" in sentence
    assert sentence in report.main_note(found)
    assert len(re.findall(r"\*\*0\.\d\dx\*\*", text)) >= len(theirs)
    shown = contribution.contribution(found)["pairs"]
    assert sum(each["theirs"]["contestant"] == contestant for each in shown) >= len(theirs)


def test_no_loss_is_told_too(measured: dict[str, Any]) -> None:
    wins = [pair for pair in compared(measured) if pair.ratio >= 1]
    assert faster(wins) == f"Faster than racnn_ops, in 0 of {len(wins)} comparisons: none."


@pytest.mark.parametrize(("ratio", "text"), [(7.66, "7.7x"), (1.0, "1.0x"), (0.98, "**0.98x**")])
def test_ratios_below_one_are_bold(ratio: float, text: str) -> None:
    assert times_ours(ratio) == text
