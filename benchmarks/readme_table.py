# SPDX-License-Identifier: BSD-3-Clause
"""Prints the README's benchmark section from results files; ``--update`` puts it where the last one was.

python benchmarks/readme_table.py [--update] [benchmarks/results/cpu-….json …]
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from cases import MODES
from contestants import ALL
from results import Results

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


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


def _relative(path: Path) -> str:
    path = path.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.as_posix()


def updated(readme: str, text: str) -> str:
    """The README with the text between its two marks."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ValueError(f"the README must have {BEGIN} and {END} once each")
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "results",
        nargs="*",
        type=Path,
        help="results files; default: all of benchmarks/results but the quick ones",
    )
    parser.add_argument("--update", action="store_true", help="write the section into README.md")
    arguments = parser.parse_args()
    full = (path for path in sorted(RESULTS.glob("*.json")) if not re.search(r"-quick\b", path.stem))
    paths: list[Path] = arguments.results or list(full)
    if not paths:
        parser.error(f"there are no results in {_relative(RESULTS)}; run benchmarks/bench_crop.py")
    for path in paths:
        if not path.is_file():
            parser.error(f"{path} does not exist")
    text = "\n\n".join(section(path) for path in paths)
    if not arguments.update:
        print(text)
        return
    readme = ROOT / "README.md"
    try:
        readme.write_text(updated(readme.read_text(), text))
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
