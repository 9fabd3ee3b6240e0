# SPDX-License-Identifier: BSD-3-Clause
"""Prints the READMEs' sections of numbers; ``--update`` puts them where the last ones were.

python benchmarks/readme_table.py [--update] [benchmarks/results/cpu-….json …]

README.md: the operator's section is made of the benchmark's results, the model's of those of ``ablation.py``.
racnn/README.md: its sections are made of those of ``known_windows.py`` and ``window_directions.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

from ablation import names_of, percent, table_rows
from cases import MODES
from contestants import ALL
from known_table import rows
from results import Results

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
KNOWN, DIRECTIONS = RESULTS / "known_windows.json", RESULTS / "window_directions.json"
README, MODEL_README = ROOT / "README.md", ROOT / "racnn" / "README.md"
ABLATIONS = {"birds": "bird", "digits": "digit"}  # name of results and section -> what boxes are around


def section(path: Path) -> str:
    """Picture, table and provenance of one results file."""
    results = Results.read(path)
    picture = path.with_suffix(".png")
    lines = [f"![Time of a call against racnn_ops]({_relative(picture)})", ""] if picture.exists() else []
    lines += ["| | " + " | ".join(MODES.values()) + " |", "|---|" + "---:|" * len(MODES)]
    for contestant in ALL:
        cells = [_cell(results, mode, contestant.name) for mode in MODES]
        if any(cells):
            lines.append(f"| {contestant.name} | " + " | ".join(cell or "" for cell in cells) + " |")
    return "\n".join([*lines, "", _provenance(results, path)])


def _cell(results: Results, mode: str, contestant: str) -> str:
    record = results.time(results.main, mode, contestant)
    if record is None:
        return ""
    images_only = "" if record["complete"] else ", images only"
    ratio = results.ratio(results.main, mode, contestant)
    return f"{1e3 * record['median_s']:.3g} ms ({ratio:.1f}x{images_only})"


def _provenance(results: Results, path: Path) -> str:
    data, machine = results.data, results.data["machine"]
    where = machine["device"] + ("" if results.is_cuda else f", {machine['threads']} threads")
    return (
        f"{results.main['label']}, medians of one run with contestants by turns; in brackets: times ours. "
        f"{where}, torch {data['versions']['torch']}, {data['images']}, {data['date'][:10]}, commit "
        f"`{(data['git']['commit'] or 'unknown')[:10]}`. Made by `{data['command']}`; everything measured: "
        f"[{path.name}]({_relative(path)})."
    )


def ablation_section(path: Path, thing: str) -> str:
    """Picture, table and provenance of the results file of ``ablation.py``."""
    report = json.loads(path.read_text(encoding="utf-8"))
    summary: dict[str, Any] = report["summary"]
    names = names_of(summary)
    lines = [f"![Accuracy of scales and windows]({_relative(path.with_suffix('.png'))})", ""]
    lines += [
        "| windows | " + " | ".join(names) + " | inside | IoU |",
        "|---|" + "---:|" * (len(names) + 2),
    ]
    lines += [_row(title, values, names) for title, values in table_rows(summary)]
    provenance = (
        f"Top-1 % on the {report['test_images']} test images by scales, {_seeds(report)}; scale 2's windows: "
        f"% inside the {thing}'s box, IoU % with the tight window. {report['cpu']}, "
        f"{report['date'][:10]}, commit `{(report['git']['commit'] or 'unknown')[:10]}`. "
        f"Made by `{report['command']}`; everything measured: [{path.name}]({_relative(path)})."
    )
    return "\n".join([*lines, "", provenance])


def _seeds(report: dict[str, Any]) -> str:
    count = len(report["seeds"])
    return f"mean ± standard deviation over {count} seeds" if count > 1 else "one seed"


def _row(title: str, values: dict[str, Any], names: list[str]) -> str:
    cells = [values["top1"].get(name) for name in names]
    cells += [values["attention"].get("2", {}).get(name) for name in ("inside", "iou")]
    return f"| {title} | " + " | ".join(map(percent, cells)) + " |"


def known_section(path: Path) -> str:
    """Picture, table and provenance of the results file of ``known_windows.py``, for ``racnn/README.md``."""
    report = json.loads(path.read_text(encoding="utf-8"))
    head, *body = rows(report)
    picture, results = (_relative(file, MODEL_README.parent) for file in (path.with_suffix(".png"), path))
    lines = [f"![How windows find digits by different gradients]({picture})", ""]
    lines += [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    lines += [f"| {' | '.join(row)} |" for row in body]
    provenance = (
        "IoU with the tight window; found: IoU of a half or more; tl: in tight half sides; scale 2: its "
        "accuracy; alone: windows alone; APN: pre-trained; middle: APN from the middle; steps: of the "
        "pre-trained APN, half of "
        f"the best one's way. Mean ± standard deviation over {len(report['seeds'])} seeds, unseen canvases. "
        f"{report['cpu']}, "
        f"{report['threads']} thread{'s' * (report['threads'] > 1)}, {report['date'][:10]}, commit "
        f"`{(report['git']['commit'] or 'unknown')[:10]}`. Made by `{report['command']}`; "
        f"everything measured: [{path.name}]({results})."
    )
    return "\n".join([*lines, "", provenance])


def directions_section(path: Path) -> str:
    """Table and provenance of the results file of ``window_directions.py``, for ``racnn/README.md``."""
    report = json.loads(path.read_text(encoding="utf-8"))
    lines = ["| gradient | tx % | ty % | tl % | cosine |", "|---|---:|---:|---:|---:|"]
    for name, values in report["results"].items():
        shares = " | ".join(f"{100 * values[key]:.0f}" for key in ("tx", "ty", "tl"))
        lines.append(f"| {name} | {shares} | {values['cosine']:.3f} |")
    provenance = (
        f"Share of {report['images']} training images where it has the sign of the way to the bird; mean "
        f"cosine of its (tx, ty) with that way. {report['date'][:10]}, commit "
        f"`{(report['git']['commit'] or 'unknown')[:10]}`. Made by `{report['command']}`."
    )
    return "\n".join([*lines, "", provenance])


def _relative(path: Path, folder: Path = ROOT) -> str:
    """As a link in a file of ``folder``."""
    path = path.resolve()
    if not path.is_relative_to(ROOT):
        return path.as_posix()
    return Path(os.path.relpath(path, folder)).as_posix()


def marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def updated(readme: str, name: str, text: str) -> str:
    """The README with the text between the two marks of this name."""
    begin, end = marks(name)
    if readme.count(begin) != 1 or readme.count(end) != 1:
        raise ValueError(f"the README must have {begin} and {end} once each")
    before, rest = readme.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{text}\n{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "results",
        nargs="*",
        type=Path,
        help="results files; default: all of benchmarks/results but the quick ones",
    )
    parser.add_argument("--update", action="store_true", help="write the sections into the READMEs")
    arguments = parser.parse_args()
    known = sorted([*RESULTS.glob("cpu-*.json"), *RESULTS.glob("cuda-*.json")])
    full = (path for path in known if not re.search(r"-quick\b", path.stem))
    paths: list[Path] = arguments.results or list(full)
    if not paths:
        parser.error(f"there are no results in {_relative(RESULTS)}; run benchmarks/bench_crop.py")
    for path in paths:
        if not path.is_file():
            parser.error(f"{path} does not exist")
    sections = {README: {"bench": "\n\n".join(section(path) for path in paths)}, MODEL_README: {}}
    for name, thing in ABLATIONS.items():
        if (RESULTS / f"{name}.json").is_file():
            sections[README][name] = ablation_section(RESULTS / f"{name}.json", thing)
    if KNOWN.is_file():
        sections[MODEL_README]["known"] = known_section(KNOWN)
    if DIRECTIONS.is_file():
        sections[MODEL_README]["directions"] = directions_section(DIRECTIONS)
    if not arguments.update:
        print("\n\n".join(text for made in sections.values() for text in made.values()))
        return
    try:
        for readme, made in sections.items():
            text = readme.read_text(encoding="utf-8")
            for name, new in made.items():
                text = updated(text, name, new)
            readme.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
