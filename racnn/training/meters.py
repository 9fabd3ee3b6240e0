# SPDX-License-Identifier: BSD-3-Clause
"""Means over an epoch, on every process the same."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .processes import Processes

COUNT = "sum images"


class Meters:
    """Adds up what steps report, in float64 and where it is: a GPU is waited for only when sums are read."""

    def __init__(self, sums: Mapping[str, float] | None = None) -> None:
        self._before = {COUNT: 0.0, **(sums or {})}
        self._names: tuple[str, ...] = ()
        self._sums = self._is_mean = torch.empty(0)

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Scalars. ``"sum ..."`` terms are added up; means are weighted with the number of images."""
        if tuple(terms) != self._names:
            self._before, self._names, device = self.sums, tuple(terms), terms[COUNT].device
            start = [self._before.get(name, 0.0) for name in terms]
            self._sums = torch.tensor(start, dtype=torch.float64, device=device)
            self._is_mean = torch.tensor([not name.startswith("sum ") for name in terms], device=device)
        values = torch.stack([value.detach().double() for value in terms.values()])
        self._sums += torch.where(self._is_mean, values * terms[COUNT], values)

    @property
    def sums(self) -> dict[str, float]:
        """All of the state."""
        return self._before | dict(zip(self._names, self._sums.tolist(), strict=True))

    def totals(self, processes: Processes) -> dict[str, float]:
        """The sums over all processes; to be called on all of them."""
        if processes.world == 1:
            return self.sums
        return processes.total_of(self.sums)

    def means(self, processes: Processes) -> dict[str, float]:
        totals = self.totals(processes)
        images = totals.pop(COUNT)
        means = {name.removeprefix("sum "): total / max(images, 1) for name, total in totals.items()}
        return means | {"images": images}
