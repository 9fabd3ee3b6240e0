# SPDX-License-Identifier: BSD-3-Clause
"""The slope of a finer scale's probability over a window that moves by a good part of its size.

On photographs, p as a function of the window is rough at the scale of a pixel: its derivative, however exact,
says little about where p is higher some pixels further on, and what it says changes from pixel to pixel. A
difference over a step of about a third of the half side says it (``benchmarks/looks.py``): the
gradient of p as averaged over moved windows, which first-order estimates of rough functions miss (Suh et al.,
"Do Differentiable Simulators Give Better Policy Gradients?", ICML 2022).

All looks of all windows are one crop and one batch of the scale's network.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import windows as geometry
from ..model import RACNN
from ..output import RACNNOutput


class TrueClassProbability(NamedTuple):
    """p of the true class at scale ``n``, as a function of its windows.

    Attributes:
        output: the model's of the images (B, 3, S, S).
        fused: of scales 1 to ``n`` fused, instead of scale ``n`` alone.
    """

    model: RACNN
    images: Tensor
    labels: Tensor
    output: RACNNOutput
    n: int
    fused: bool = False

    def __call__(self, relative: Tensor) -> Tensor:
        """(B, L) at relative windows (B, L, K, 3)."""
        descriptors = self.model.descriptors_at(self.images, self.output, self.n, relative)
        many = descriptors.shape[1]
        if self.fused:
            coarser = [d.unsqueeze(1).expand(-1, many, -1) for d in self.output.descriptors]
            logits: Tensor = self.model.fusion[self.n - 2]([*coarser[: self.n - 1], descriptors])
        else:
            logits = self.model.each_scale()[self.n - 1].classify(descriptors)
        true = self.labels.clamp(min=0)[:, None, None].expand(-1, many, 1)
        return logits.float().softmax(2).gather(2, true).squeeze(2)


@torch.no_grad()
def slopes(probability: TrueClassProbability, relative: Tensor, step: float) -> Tensor:
    """Central differences of the true class' probability by ``relative`` (B, K, 3): 6 K looks.

    Args:
        step: how far a window is moved, as a share of its half side; its half side by ``exp(step)``. Windows
            stay inside their parent and their bounds: there the difference is taken over less.

    Returns:
        Tensor[B, K, 3]: per unit of the coarser window's side; 0 where a window cannot move.
    """
    _, count, numbers = relative.shape
    moves = step * torch.eye(count * numbers, device=relative.device).view(-1, count, numbers)
    ends, rise = _rise(probability, relative, moves)
    distance = (ends[0] - ends[1]).flatten(2).diagonal(dim1=1, dim2=2)
    return torch.where(distance > 1e-6, rise / distance.clamp(min=1e-6), 0).view_as(relative)


@torch.no_grad()
def antithetic_slopes(probability: TrueClassProbability, relative: Tensor, step: float) -> Tensor:
    """An estimate of the same by two looks, for any K: every window goes there and back along one of its
    axes, drawn at random. Its mean is that of :func:`slopes`.

    Moves along all axes at once, as random smoothing has them (Nesterov and Spokoiny, "Random Gradient-Free
    Minimization of Convex Functions", 2017), would judge a window's size while it is off its place.

    Returns:
        Tensor[B, K, 3]: per unit of the coarser window's side; 0 along the axes that were not drawn.
    """
    numbers = relative.shape[2]
    drawn = torch.randint(numbers, relative.shape[:2], device=relative.device)
    axes = torch.eye(numbers, device=relative.device)[drawn]  # one_hot would wait for the GPU
    ends, rise = _rise(probability, relative, step * axes.unsqueeze(1))
    distance = (ends[0] - ends[1]).squeeze(1)
    slope = numbers * rise.unsqueeze(2) / distance.clamp(min=1e-6)
    return torch.where((axes > 0) & (distance > 1e-6), slope, 0)


def _rise(probability: TrueClassProbability, relative: Tensor, moves: Tensor) -> tuple[list[Tensor], Tensor]:
    """Where moves (B or 1, L, K, 3) end, there and back; by how much p of the true class differs, (B, L)."""
    start = relative.unsqueeze(1)
    ends = [geometry.moved(start, sign * moves, probability.model.bounds) for sign in (1, -1)]
    there, back = probability(torch.cat(ends, 1)).chunk(2, 1)
    return ends, there - back


ESTIMATES = {"difference": slopes, "antithetic": antithetic_slopes}
"""What ``training.rank_gradient`` calls them."""
