# SPDX-License-Identifier: BSD-3-Clause
"""Means over an epoch, on every process the same."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .processes import Processes

COUNT = "sum images"


class Meters:
    """Adds up what steps report; ``sums`` is all of its state."""

    def __init__(self, sums: Mapping[str, float] | None = None) -> None:
        self.sums = {COUNT: 0.0, **(sums or {})}

    def add(self, terms: Mapping[str, torch.Tensor | float]) -> None:
        """``"sum ..."`` terms are added up; means are weighted with the number of images."""
        images = float(terms[COUNT])
        for name, value in terms.items():
            amount = float(value) if name.startswith("sum ") else float(value) * images
            self.sums[name] = self.sums.get(name, 0.0) + amount

    def totals(self, processes: Processes) -> dict[str, float]:
        """The sums over all processes; to be called on all of them."""
        if processes.world == 1:
            return dict(self.sums)
        return processes.total_of(self.sums)

    def means(self, processes: Processes) -> dict[str, float]:
        totals = self.totals(processes)
        images = totals.pop(COUNT)
        means = {name.removeprefix("sum "): total / max(images, 1) for name, total in totals.items()}
        return means | {"images": images}
