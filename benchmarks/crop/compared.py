# SPDX-License-Identifier: BSD-3-Clause
"""Every contestant's time beside ours, in whatever part of a report: who is faster is told, whoever it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .probes import WINDOW_COPY
from .results import Record, times_ours

OURS = "racnn_ops"
SECTIONS = ("times", "filters", "augmentation", "paste", "lists", "threads", "overhead", "models")
SECTIONS += ("device_times",)
SAME = ("experiment", "case", "model", "step", "label", "mode", "threads")
"""What records of one comparison share."""


class Pair(NamedTuple):
    """What was done, such as "resize", "÷2, uint8: 16x3x512², 448² → 224², 1 thread, forward"; who did it."""

    experiment: str
    what: str
    ours: Record
    theirs: Record

    @property
    def ratio(self) -> float:
        """How many times longer than ours the contestant takes."""
        return float(self.theirs["median_s"] / self.ours["median_s"])


def compared(data: Record) -> list[Pair]:
    """All pairs of a report. A plain copy of windows is no contestant: it resamples nothing."""
    return [pair for section in SECTIONS for pair in _pairs(section, data.get(section, []))]


def _pairs(section: str, records: list[Record]) -> Iterator[Pair]:
    timed = [record for record in records if "median_s" in record]
    known = {(_same(record), record["contestant"]): record for record in timed}
    for record in timed:
        contestant = record["contestant"]
        ours = known.get((_same(record), record.get("measure") or OURS))
        if ours is not None and not contestant.startswith(OURS) and contestant != WINDOW_COPY:
            yield Pair(*_words(section, record), ours, record)


def _same(record: Record) -> str:
    return json.dumps([record.get(name) for name in SAME])


def _words(section: str, record: Record) -> tuple[str, str]:
    case = record.get("case") or {}
    experiment = record.get("experiment") or case.get("experiment") or section
    facts = [record.get("model"), case.get("label") or record.get("label")]
    facts += [record.get("step"), record.get("mode")]
    if "threads" in record:
        facts.append(f"{record['threads']} thread{'s' * (record['threads'] > 1)}")
    return experiment, ", ".join(filter(None, facts))


def faster(pairs: Sequence[Pair], total: int | None = None) -> str:
    """A sentence on those in which ours is slower; ``total``: of how many, by default of ``pairs``."""
    lost = sorted((pair for pair in pairs if pair.ratio < 1), key=lambda pair: pair.ratio)
    listed = "; ".join(
        f"{pair.theirs['contestant']}, {pair.experiment}: {pair.what} ({times_ours(pair.ratio)})"
        for pair in lost
    )
    total = len(pairs) if total is None else total
    return f"Faster than racnn_ops, in {len(lost)} of {total} comparisons: {listed or 'none'}."
