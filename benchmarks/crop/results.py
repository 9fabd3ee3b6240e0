# SPDX-License-Identifier: BSD-3-Clause
"""Questions to a results file, as ``bench_crop.py`` writes it: one record for each thing measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Record = dict[str, Any]


def times_ours(ratio: float) -> str:
    """Of a contestant's time and ours; where ours is slower, bold and with a digit more: ``**0.98x**``."""
    return f"{ratio:.1f}x" if ratio >= 1 else f"**{ratio:.2f}x**"


class Results:
    def __init__(self, data: Record) -> None:
        self.data = data

    @property
    def main(self) -> Record:
        """The case that everything else varies."""
        return self.data["main_case"]

    @property
    def is_cuda(self) -> bool:
        return self.data["arguments"]["device"] == "cuda"

    def find(self, section: str, **wanted: Any) -> Iterator[Record]:
        """Records of a section that have these values; a case is named by its JSON form."""
        for record in self.data[section]:
            if all(record.get(key) == value for key, value in wanted.items()):
                yield record

    def cases(self, experiment: str) -> list[Record]:
        """The cases of an experiment, in the order in which they were measured."""
        cases: list[Record] = []
        for record in self.find("times", experiment=experiment):
            if record["case"] not in cases:
                cases.append(record["case"])
        return cases

    def time(self, case: Record, mode: str, contestant: str, experiment: str = "main") -> Record | None:
        found = self.find("times", experiment=experiment, case=case, mode=mode, contestant=contestant)
        return next(found, None)

    def ratio(self, case: Record, mode: str, contestant: str, experiment: str = "main") -> float | None:
        """How many times longer than ours the contestant takes: medians of one run."""
        ours = self.time(case, mode, "racnn_ops", experiment)
        other = self.time(case, mode, contestant, experiment)
        return other["median_s"] / ours["median_s"] if ours and other else None

    def share_of_copy_bandwidth(self, record: Record) -> float:
        """The rate at which the fewest bytes were moved, against that of a plain copy."""
        rate = record["floor_bytes"] / record["median_s"]
        return float(rate / self.data["copy_bytes_per_s"])
