# SPDX-License-Identifier: BSD-3-Clause
"""Committed Markdown says what the JSON beside it holds, and READMEs what the Markdown says."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import readme
from record import provenance
from record.section import Section, table

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RESULTS = sorted((BENCHMARKS / "results").glob("*.json"))


def maker(path: Path) -> Section:
    """Of the program that a results file names."""
    program = Path(json.loads(path.read_text())["command"].split()[1])
    section: Section = importlib.import_module(program.stem).SECTION
    return section


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_committed_sections_are_those_of_their_json(path: Path) -> None:
    made = maker(path).markdown(json.loads(path.read_text()), path.stem)
    assert path.with_suffix(".md").read_text() == made
    assert not maker(path).picture or path.with_suffix(".png").is_file()


def test_no_section_is_without_json() -> None:
    assert {path.stem for path in RESULTS} == {path.stem for path in (BENCHMARKS / "results").glob("*.md")}


def test_readmes_hold_the_sections() -> None:
    """As ``python benchmarks/readme.py`` finds."""
    named = 0
    for path in readme.READMES:
        text = path.read_text()
        assert readme.spliced(text, path.parent) == text
        named += len(readme.SECTION.findall(text))
    assert named >= 4


def test_links_of_readmes_lead_to_files() -> None:
    for path in readme.READMES:
        for target in readme.RELATIVE_LINK.findall(path.read_text()):
            assert (path.parent / target.split("#")[0]).exists(), target


def test_readme_is_changed_between_its_marks_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readme, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/a.md").write_text("![b](b.png), [c](https://c.org), [d](#d)\n")
    marks = "<!-- a:begin -->\n", "<!-- a:end -->\n"
    text = "above [e](e.md)\n{}{}{}below\n".format(marks[0], "old\n", marks[1])
    found = readme.spliced(text, tmp_path / "docs")
    assert found == text.replace("old", "![b](../results/b.png), [c](https://c.org), [d](#d)")
    (tmp_path / "results/c.md").write_text("![b](b.png)\n\n| 1 |\n|---|\n\nc\n\n| 2 |\n\nd\n")
    first = "<!-- c:first-table:begin -->\n{}<!-- c:first-table:end -->\n"
    assert readme.spliced(first.format("old\n"), tmp_path) == first.format("| 1 |\n|---|\n\nd\n")
    with pytest.raises(ValueError, match="the mark a:second must name"):
        readme.spliced(text.replace("a:", "a:second:"), tmp_path)
    for missing in marks:
        with pytest.raises(ValueError, match="the mark a needs"):
            readme.spliced(text.replace(missing, ""), tmp_path)
    with pytest.raises(OSError, match=r"b\.md"):
        readme.spliced(text.replace("a:", "b:"), tmp_path)


def test_the_command_is_told_without_where_it_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["somewhere/bench_crop.py", "--quick", "--output", "x", "--batch", "2"])
    assert provenance.command() == "python benchmarks/bench_crop.py --quick --batch 2"


@pytest.mark.parametrize(("changed", "told"), [(False, ""), (True, ", with changes")])
def test_provenance_is_told(changed: bool, told: str) -> None:
    report = provenance.describe()
    report |= {"command": "python x.py", "git": {"commit": "0123456789ab", "changed": changed}}
    device, threads = (report["machine"][name] for name in ("device", "threads"))
    torch_version, capability = (report["versions"][name] for name in ("torch", "cpu_capability"))
    assert provenance.sentence(report, "x") == (
        f"{device}, {capability}, {threads} thread{'s' * (threads > 1)}, torch {torch_version}, "
        f"{report['date'][:10]}, commit `0123456789`{told}. Made by `python x.py`; everything measured: "
        "[x.json](x.json)."
    )


def test_processor_and_instruction_set_are_in_names() -> None:
    """The set is that of the kernels, whatever the environment says; a GPU has none."""
    report = provenance.describe()
    report["machine"]["device"] = "AMD(R) EPYC  9B14"
    for capability, name in (("avx512", "avx512"), ("avx2", "avx2"), (None, "reference")):
        report["versions"]["cpu_capability"] = capability
        assert provenance.slug(report) == f"cpu-amd-epyc-9b14-{name}"
    report["machine"]["multiprocessors"] = 132
    assert provenance.slug(report) == "cuda-amd-epyc-9b14"


@pytest.mark.parametrize("name", ["cpu-amd-epyc-avx512", "cpu-amd-epyc-avx2", "model-cpu-amd-epyc-avx512"])
def test_committed_times_are_named_so(name: str) -> None:
    report = json.loads((BENCHMARKS / "results" / f"{name}.json").read_text())
    assert provenance.slug(report) == name.removeprefix("model-")


def test_a_gpu_has_no_instruction_set_of_the_cpu() -> None:
    report = provenance.describe() | {"command": "python x.py"}
    capability = report["versions"]["cpu_capability"]
    assert capability in provenance.sentence(report, "x")
    report["machine"]["multiprocessors"] = 132
    assert capability not in provenance.sentence(report, "x")


def test_tables_are_markdown() -> None:
    assert table(["", "a"], [["b", "1"]]) == "|  | a |\n|---|---:|\n| b | 1 |"


def test_a_results_file_is_rendered_again(tmp_path: Path) -> None:
    """Without the program's other arguments."""
    path = tmp_path / "digits.json"
    path.write_bytes((BENCHMARKS / "results/digits.json").read_bytes())
    command = [sys.executable, BENCHMARKS / "ablation.py", "--render"]
    result = subprocess.run([*command, path], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert path.with_suffix(".md").read_text() == (BENCHMARKS / "results/digits.md").read_text()
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    result = subprocess.run([*command, tmp_path / "none.json"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "No such file" in result.stderr
