# SPDX-License-Identifier: BSD-3-Clause
"""Tables of costs in the tree, a row for each case: what cost_model.py and instruction_counts.py share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TOLERANCE = 0.02

Row = dict[str, Any]
Table = dict[str, Row]


def rounded(value: Any) -> Any:
    """Four digits: what differs in the fifth is the same."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def problems(measured: Table, table: Table, names: Iterable[str]) -> list[str]:
    """Which of the costs `names` have grown, and what is not in the table; `measured` may be a part of it."""
    names = tuple(names)
    found = []
    for key, now in measured.items():
        if key not in table:
            found.append(f"{key}: not in the table")
            continue
        before = table[key]
        for name in names:
            if name in now and name in before and now[name] > before[name] * (1 + TOLERANCE):
                found.append(f"{key}: {name} {now[name]:g}, {before[name]:g} in the table")
    return found


def write(path: Path, head: dict[str, str], name: str, table: Table) -> None:
    """JSON: what `head` says, then the table under `name`, a line for each row."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    rows = ",\n".join(f"  {json.dumps(key)}: {json.dumps(row)}" for key, row in table.items())
    lines.append(f"{json.dumps(name)}: {{\n{rows}\n}}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
