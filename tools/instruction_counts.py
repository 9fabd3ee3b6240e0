# SPDX-License-Identifier: BSD-3-Clause
"""Instructions of the CPU kernels for each number that they compute, against a committed table.

``python tools/instruction_counts.py`` counts the runs of tests/kernels/counted_cases.py under valgrind, with
the kernels for AVX2 (valgrind knows no AVX-512) in ``build/``, prints them beside the table, and fails if one
has grown by more than 2 %; ``--update`` rewrites the table, ``--only TEXT`` looks at the runs with that text
in their name. Counts are the same in every run and on every machine, but each compiler has its own, and each
C library: they are compared only with those that the table was made with.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import cost_table
from cost_table import Table

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "tests"))

from emulation.build import CannotBuild  # noqa: E402
from kernels import build  # noqa: E402
from kernels.counted_cases import CountedCase, counted_cases  # noqa: E402

TABLE = _ROOT / "tests" / "kernels" / "instruction_counts.json"
ISA = "avx2"
COUNT = "instructions"  # for each number of the result
HOW_TO_UPDATE = "if it must be so: python tools/instruction_counts.py --update"


class CannotCount(Exception):
    """What is missing on this machine."""


def made_by(command: list[str]) -> str:
    """What counts depend on besides the kernels."""
    compiler = subprocess.run(
        [*command, "version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return f"{compiler}, {' '.join(platform.libc_ver())}"


def count(command: list[str], case: CountedCase) -> int:
    """Instructions within the kernel, its calls of the C library included."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise CannotCount("valgrind is not installed")
    callgrind = ["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"]
    callgrind.append(f"--toggle-collect=*::{ISA}::run_units*")
    run = subprocess.run(
        [valgrind, *callgrind, *command, *case.words, "checked=0"],
        env=os.environ | {"RACNN_CPU_CAPABILITY": ISA},
        capture_output=True,
        text=True,
        check=False,
    )
    collected = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode != 0 or collected is None:
        raise RuntimeError(f"{case.key}: {run.stdout}{run.stderr}")
    if not run.stdout.startswith(f"{ISA}:"):
        raise CannotCount(f"under valgrind this machine has no {ISA}: {run.stdout}")
    return int(collected[1])


def measure(chosen: Iterable[CountedCase]) -> tuple[str, Table]:
    """What the counts were made by, and a row for each run; raises CannotBuild or CannotCount."""
    command = build.native()
    table = {case.key: {COUNT: cost_table.rounded(count(command, case) / case.outputs)} for case in chosen}
    return made_by(command), table


def problems(measured: Table, table: Table) -> list[str]:
    return cost_table.problems(measured, table, [COUNT])


def read_table() -> tuple[str, Table]:
    """What it was made by, and the rows."""
    content = json.loads(TABLE.read_text())
    return content["made_by"], content["runs"]


def write_table(made: str, table: Table) -> None:
    cost_table.write(
        TABLE, {"about": f"{COUNT} for each number computed, {ISA}", "made_by": made}, "runs", table
    )


def show(measured: Table, table: Table) -> str:
    """A line for each run; what the table says follows in brackets, if it differs."""
    lines = []
    for key, row in measured.items():
        now, before = row[COUNT], table.get(key, row)[COUNT]
        lines.append(
            f"{now:8.4g}  {key}" + (f" ({before:.4g}, {now / before - 1:+.1%})" if now != before else "")
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="rewrite the table")
    parser.add_argument("--only", default="", metavar="TEXT", help="runs with this in their name")
    arguments = parser.parse_args()
    try:
        made, measured = measure(case for case in counted_cases() if arguments.only in case.key)
    except (CannotBuild, CannotCount) as missing:
        sys.exit(str(missing))
    made_before, table = read_table() if TABLE.exists() else (made, {})
    print(show(measured, table))
    if arguments.update:
        if arguments.only and made != made_before:
            sys.exit(f"the table was made by {made_before}: update all of it")
        write_table(made, table | measured if arguments.only else measured)
    elif made != made_before:
        sys.exit(f"the table was made by {made_before}, this by {made}: they cannot be compared")
    elif found := problems(measured, table):
        sys.exit("\n".join([*found, HOW_TO_UPDATE]))


if __name__ == "__main__":
    main()
