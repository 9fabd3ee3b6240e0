# SPDX-License-Identifier: BSD-3-Clause
"""Puts benchmarks/results/NAME.md between the marks NAME of the READMEs, or checks that it is there.

    python benchmarks/readme.py [--update]

A mark is a line ``<!-- NAME:begin -->`` or ``<!-- NAME:end -->``; between ``<!-- NAME:first-table:begin -->``
and its end are the first table and the last paragraph alone. Programs write their sections themselves
(``--output benchmarks/results``); only the links in them change here, to lead from the README's folder.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
READMES = tuple(
    ROOT / path
    for path in (
        "README.md",
        "docs/conventions.md",
        "racnn/README.md",
        "racnn/REFERENCE.md",
        "racnn_ops/README.md",
    )
)
MARK = re.compile(r"^<!-- (\S+):(?:begin|end) -->$", re.MULTILINE)
SECTION = re.compile(r"^(<!-- (\S+):begin -->\n).*?^(<!-- \2:end -->)$", re.MULTILINE | re.DOTALL)
RELATIVE_LINK = re.compile(r"\]\((?![a-z]+:|[/#])([^)]+)\)")


def spliced(readme: str, folder: Path) -> str:
    """The text of a README in ``folder`` with the sections as they are now; raises ValueError or OSError."""
    unpaired = MARK.findall(SECTION.sub("", readme))
    if unpaired:
        raise ValueError(
            f"the mark {unpaired[0]} needs a line {unpaired[0]}:begin and a line {unpaired[0]}:end"
        )
    to_results = Path(os.path.relpath(RESULTS, folder)).as_posix()

    def section(match: re.Match[str]) -> str:
        begin, mark, end = match.groups()
        name, _, part = mark.partition(":")
        if part not in ("", "first-table"):
            raise ValueError(f"the mark {mark} must name all of a section or its first-table")
        text = (RESULTS / f"{name}.md").read_text(encoding="utf-8")
        if part:
            text = first_table(text)
        return begin + RELATIVE_LINK.sub(rf"]({to_results}/\1)", text) + end

    return SECTION.sub(section, readme)


def first_table(section: str) -> str:
    """And the note behind everything, which says what the numbers are and who made them."""
    blocks = section.strip().split("\n\n")
    return "\n\n".join([next(block for block in blocks if block.startswith("|")), blocks[-1]]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--update", action="store_true", help="write; without it a difference is an error")
    update = parser.parse_args().update
    for path in READMES:
        readme = path.read_text(encoding="utf-8")
        try:
            new = spliced(readme, path.parent)
        except (OSError, ValueError) as error:
            parser.error(f"{path.relative_to(ROOT)}: {error}")
        if update:
            path.write_text(new, encoding="utf-8")
        elif new != readme:
            parser.exit(1, f"{path.relative_to(ROOT)} differs from benchmarks/results: --update renews it\n")


if __name__ == "__main__":
    main()
