# SPDX-License-Identifier: BSD-3-Clause
"""RA-CNN's losses. Labels below 0 mark images that could not be read: they count for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from . import windows as geometry

MARGIN = 0.05
"""The paper's margin between probabilities (section 3.3)."""


def classification_loss(logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Cross-entropy, mean over the batch, summed over scales (paper, equation 8).

    Args:
        logits: (B, classes) of each scale.
        labels (Tensor[B] or Tensor[B, classes]): int64, or the classes' shares of mixed images.
    """
    if labels.is_floating_point():
        known, counted = labels, labels.sum()
    else:
        known, counted = labels.clamp(min=-1), (labels >= 0).sum()
    losses = [F.cross_entropy(s.float(), known, reduction="sum", ignore_index=-1) for s in logits]
    return torch.stack(losses).sum() / counted.clamp(min=1)


def ranking_hinges(logits: Sequence[Tensor], labels: Tensor, margin: float = MARGIN) -> Tensor:
    """``max(0, p_s - p_{s+1} + margin)`` of the true class' probabilities (paper, equation 9): (pairs, B).

    Unlike in the formula, the coarser probability has no gradient: it is a mark to beat. Otherwise a window
    at scale 2 may lower L_rank(2, 3) by looking at nothing.
    """
    rows = torch.arange(len(labels), device=labels.device)
    true = [scale.float().softmax(1)[rows, labels.clamp(min=0)] for scale in logits]
    hinges = [F.relu(coarse.detach() - fine + margin) for coarse, fine in pairwise(true)]
    if not hinges:
        raise ValueError(f"logits must be those of 2 scales or more, got {len(logits)}")
    return torch.stack(hinges) * (labels >= 0)


def ranking_loss(logits: Sequence[Tensor], labels: Tensor, margin: float = MARGIN) -> Tensor:
    """:func:`ranking_hinges`, mean over the batch, summed over pairs of scales."""
    valid = (labels >= 0).sum().clamp(min=1)
    return ranking_hinges(logits, labels, margin).sum() / valid


def imitation_loss(relative: Sequence[Tensor], targets: Sequence[Tensor], labels: Tensor) -> Tensor:
    """APN pre-training: squared distance of relative windows (B, K, 3), mean over images, summed over scales.

    K windows are matched in the order in which they are given.
    """
    weight = (labels >= 0).float()
    losses = [(r - t.detach()).square().sum(-1).mean(1) for r, t in zip(relative, targets, strict=True)]
    return (torch.stack(losses) * weight).sum() / weight.sum().clamp(min=1)


def diversity_loss(windows: Sequence[Tensor]) -> Tensor:
    """Mean overlap (intersection over union) of the K windows (B, K, 3) of an image, summed over scales.

    0 for one window an image. Between 0 (apart) and 1 (equal) for each scale.
    """
    total = windows[0].new_zeros(())
    for scale in windows:
        boxes = geometry.corners(scale)
        pairs = [geometry.overlap(a, b) for a, b in combinations(boxes.unbind(1), 2)]
        if pairs:
            total = total + torch.stack(pairs).mean()
    return total
