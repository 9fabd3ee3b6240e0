# SPDX-License-Identifier: BSD-3-Clause
"""Paired comparisons of two rows of an accuracy table, over the same test images and seeds.

The spread over seeds alone says nothing about other images: a difference is judged by resampling both, images
and seeds, in pairs (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

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
        ours, theirs (Tensor[seeds, images]): hits, bool; a row of one seed is the same for all of the other.
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
