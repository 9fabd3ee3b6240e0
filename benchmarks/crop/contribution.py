# SPDX-License-Identifier: BSD-3-Clause
"""What one machine adds to the table of all: a short JSON of a report, checked by a schema, and that table.

It holds the headline's comparisons, every other in which ours is slower, who did not take part, and of what,
where and by which command it was made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from record import provenance
from record.section import table

from . import augmentation, contestants, filter_contestants
from .compared import OURS, Pair, compared, faster
from .results import Record, times_ours

SCHEMA = Path(__file__).with_name("contribution.schema.json")
FOLDER = "contributed"
FACTS = ("command", "date", "git", "machine", "versions", "images", "copy_bytes_per_s")
TIMES = ("contestant", "median_s", "lower_quartile_s", "upper_quartile_s", "samples")
TAKERS = {
    "times": contestants.ALL,
    augmentation.NAME: augmentation.ALL,
    "filters": filter_contestants.ALL,
}


def contribution(report: Record) -> Record:
    """Of a report of ``bench_crop.py``."""
    pairs = compared(report)
    lost = {_row(pair) for pair in pairs if pair.ratio < 1}
    shown = [pair for pair in pairs if is_headline(pair) or _row(pair) in lost]
    return {
        **{name: report[name] for name in FACTS},
        "comparisons": len(pairs),
        "pairs": [
            {
                "experiment": pair.experiment,
                "what": pair.what,
                "complete": pair.theirs.get("complete", True),
                "ours": {name: pair.ours[name] for name in TIMES},
                "theirs": {name: pair.theirs[name] for name in TIMES},
            }
            for pair in shown
        ],
        "absent": absent(report),
        "refused": [
            {
                "contestant": record["contestant"],
                "what": f"{record['case']['label']}, {record['mode']}",
                "reason": record["reason"],
            }
            for record in report["refused"]
        ],
    }


def is_headline(pair: Pair) -> bool:
    """The main case, antialiased crops of half the window, random crops."""
    halved = pair.experiment == "antialias" and pair.what.startswith("÷2,") and pair.what.endswith("forward")
    return halved or pair.experiment in ("main", augmentation.NAME)


def _row(pair: Pair) -> tuple[str, str, str]:
    """What the table shows in one row; the last is which of ours."""
    return pair.experiment, pair.what, pair.ours["contestant"]


def absent(report: Record) -> list[str]:
    """Contestants that were timed nowhere: not installed, refused, or left out."""
    known = [contestant.name for taking in TAKERS.values() for contestant in taking]
    timed = {record["contestant"] for section in TAKERS for record in report[section]}
    return [name for name in dict.fromkeys(known) if name not in timed]


def check(found: Any) -> None:
    """Raises ValueError, which names the place and what is wrong there."""
    import jsonschema

    validator = jsonschema.Draft7Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    error = jsonschema.exceptions.best_match(validator.iter_errors(found))
    if error is not None:
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
        raise ValueError(f"${place}: {error.message}")
    for number, pair in enumerate(found["pairs"]):
        for who in ("ours", "theirs"):
            times = [pair[who][name] for name in ("lower_quartile_s", "median_s", "upper_quartile_s")]
            if times != sorted(times):
                raise ValueError(f"$.pairs[{number}].{who}: the median is not between the quartiles")


def write(report: Record, folder: Path) -> Path:
    """To ``folder``/contributed/NAME.json, if the schema allows it; else raises ValueError."""
    missing = [name for name in (*FACTS, "times", "filters", "refused") if name not in report]
    if missing:
        raise ValueError(f"no report of bench_crop.py: it has no {', '.join(missing)}")
    found = contribution(report)
    check(found)
    path = folder / FOLDER / f"{provenance.slug(found)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {path}")
    return path


def load(path: Path) -> Record:
    """Raises ValueError for what is no contribution, or has another machine's name."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no number")

    found: Record = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    check(found)
    if path.stem != provenance.slug(found):
        raise ValueError(f"{path.name} must be {provenance.slug(found)}.json")
    return found


def tables(found: Sequence[Record]) -> str:
    """All contributions in one table, a row for each comparison; below it who was faster, and not there."""
    pairs = [
        [Pair(p["experiment"], p["what"], p["ours"], p["theirs"]) for p in one["pairs"]] for one in found
    ]
    names = list(dict.fromkeys(pair.theirs["contestant"] for one in pairs for pair in one))
    rows, notes = [], []
    for one, its_pairs in zip(found, pairs, strict=True):
        machine = _machine(one)
        cells: dict[tuple[str, str, str], dict[str, str]] = {}
        for pair, record in zip(its_pairs, one["pairs"], strict=True):
            row = cells.setdefault(_row(pair), {OURS: f"{1e3 * pair.ours['median_s']:.3g} ms"})
            images_only = "" if record["complete"] else ", images only"
            row[pair.theirs["contestant"]] = f"{times_ours(pair.ratio)}{images_only}"
        for (experiment, what, ours), row in cells.items():
            which = "" if ours == OURS else f" ({ours})"
            shown = [row.get(name, "") for name in (OURS, *names)]
            rows.append([machine, f"{experiment}: {what}{which}", *shown])
        notes.append(f"- {machine}: {_note(one, its_pairs)}")
    return f"{table(['', '', OURS, *names], rows)}\n\n" + "\n".join(notes) + "\n"


def _machine(one: Record) -> str:
    facts = [one["machine"]["device"]]
    if not provenance.is_gpu(one["machine"]):
        threads = one["machine"]["threads"]
        facts += [one["versions"]["cpu_capability"], f"{threads} thread{'s' * (threads > 1)}"]
    return ", ".join(facts)


def _note(one: Record, pairs: Sequence[Pair]) -> str:
    refused = [f"{each['contestant']}, {each['what']}: {each['reason']}" for each in one["refused"]]
    changed = {True: " with changes", False: "", None: " or changes unknown"}[one["git"]["changed"]]
    return (
        f"{faster(pairs, one['comparisons'])} Not timed: {'; '.join(one['absent'] + refused) or 'none'}. "
        f"torch {one['versions']['torch']}, {one['images']}, {one['date'][:10]}, "
        f"commit `{(one['git']['commit'] or 'unknown')[:10]}`{changed}, `{one['command']}`."
    )
