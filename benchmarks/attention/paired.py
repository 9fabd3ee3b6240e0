# SPDX-License-Identifier: BSD-3-Clause
"""Paired comparisons of two rows of an accuracy table, over the same test images and seeds.

The spread over seeds alone says nothing about other images: a difference is judged by resampling both, images
and seeds, in pairs (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from record.section import table

DRAWS = 4000


class Difference(NamedTuple):
    """Of two accuracies, as shares: its mean, standard error and central 95 % by the bootstrap."""

    mean: float
    error: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """More than two standard errors from 0, or not."""
        if abs(self.mean) <= 2 * self.error:
            return "not shown"
        return "more" if self.mean > 0 else "less"


def compare(ours: Tensor, theirs: Tensor, draws: int = DRAWS) -> Difference:
    """``ours`` minus ``theirs``.

    Args:
        ours, theirs (Tensor[seeds, images]): hits, bool.
    """
    difference = ours.double() - theirs.double()
    seeds, images = difference.shape
    generator = torch.Generator().manual_seed(0)
    means = torch.stack(
        [
            difference[torch.randint(seeds, (seeds,), generator=generator)]
            .mean(0)[torch.randint(images, (images,), generator=generator)]
            .mean()
            for _ in range(draws)
        ]
    )
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Difference(float(difference.mean()), float(means.std()), low, high)


def packed(hits: Tensor) -> str:
    """Hits (images,) as a line of 0 and 1, for a results file."""
    return "".join(map(str, hits.int().tolist()))


def unpacked(runs: list[str]) -> Tensor:
    """(seeds, images), bool."""
    return torch.tensor([[digit == "1" for digit in run] for run in runs])


class Claim(NamedTuple):
    """That the first accuracy is more than the second; each is that of a row through its scales."""

    ours: tuple[str, str]
    theirs: tuple[str, str]


def against(ours: tuple[str, str], *theirs: tuple[str, str]) -> list[Claim]:
    return [Claim(ours, other) for other in theirs]


def judge(hits: Mapping[str, Sequence[Mapping[str, str]]], claims: Iterable[Claim]) -> list[dict[str, Any]]:
    """Each claim whose rows are there, for the results file; with both accuracies, means over the seeds that
    both rows have.

    Args:
        hits: row -> seed -> scales -> packed hits.
    """
    found = []
    for claim in claims:
        if all(row in hits for row, _ in claim):
            count = min(len(hits[row]) for row, _ in claim)
            pair = [unpacked([seed[scales] for seed in hits[row][:count]]) for row, scales in claim]
            difference = compare(*pair)
            means = [float(side.double().mean()) for side in pair]
            found.append(
                claim._asdict()
                | ({"of_seeds": count} if any(len(hits[row]) > count for row, _ in claim) else {})
                | {"top1": means, **difference._asdict(), "verdict": difference.verdict}
            )
    return found


def claims_table(claims: Iterable[Mapping[str, Any]], cost: Callable[[str, str], float] | None = None) -> str:
    """Args:
    cost: of a row through its scales, where it is to be shown.
    """
    rows = []
    for claim in claims:
        cells = []
        for key, top1 in zip(("ours", "theirs"), claim["top1"], strict=True):
            row, scales = claim[key]
            paid = [f"{cost(row, scales):.1f}"] if cost is not None else []
            cells += [f"{row}, {scales}", *paid, f"{100 * top1:.1f}"]
        cells.append(f"{100 * claim['mean']:+.1f} ± {100 * claim['error']:.1f}")
        few = f", {claim['of_seeds']} seed" if "of_seeds" in claim else ""
        between = f"{100 * claim['low']:+.1f} … {100 * claim['high']:+.1f}"
        rows.append([*cells, between, claim["verdict"] + few])
    paid = ["cost"] * (cost is not None)
    head = ["row, scales", *paid, "top-1 %", "against", *paid, "top-1 %", "points ± s.e.", "95 %", ""]
    return table(head, rows)


NOTE = (
    "Points: paired differences over test images and seeds, their bootstrapped standard errors and central "
    "95 %: more or less by over two standard errors, or not shown."
)
