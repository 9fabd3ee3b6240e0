# SPDX-License-Identifier: BSD-3-Clause
"""The slope of a finer scale's probability over a window that moves by a good part of its size.

On photographs, p as a function of the window is rough at the scale of a pixel: its derivative, however exact,
says little about where p is higher some pixels further on, and what it says changes from pixel to pixel. A
difference over a step of about a third of the half side says it (``benchmarks/window_directions.py``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import windows as geometry
from ..model import RACNN
from ..output import RACNNOutput


@torch.no_grad()
def slopes(
    model: RACNN, images: Tensor, seen: RACNNOutput, n: int, relative: Tensor, labels: Tensor, step: float
) -> Tensor:
    """Central differences of the true class' probability at scale ``n`` by ``relative`` (B, K, 3).

    Args:
        step: how far a window is moved, as a share of its half side; its half side by ``exp(step)``. Windows
            stay inside their parent and their bounds: there the difference is taken over less.

    Returns:
        Tensor[B, K, 3]: per unit of the coarser window's side; 0 where a window cannot move.
    """
    found = torch.zeros_like(relative)
    for k in range(relative.shape[1]):
        for axis in range(3):
            amount = torch.zeros_like(relative)
            amount[:, k, axis] = step
            ends = [geometry.moved(relative, sign * amount, model.bounds) for sign in (1, -1)]
            further, back = (_true(model, images, seen, n, end, labels) for end in ends)
            way = (ends[0] - ends[1])[:, k, axis]
            found[:, k, axis] = torch.where(way > 1e-6, (further - back) / way.clamp(min=1e-6), 0)
    return found


def _true(
    model: RACNN, images: Tensor, seen: RACNNOutput, n: int, relative: Tensor, labels: Tensor
) -> Tensor:
    """(B): the probability of the true class."""
    probabilities = model.look_again(images, seen, n, relative).float().softmax(1)
    return probabilities.gather(1, labels.clamp(min=0)[:, None])[:, 0]
