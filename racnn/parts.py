# SPDX-License-Identifier: BSD-3-Clause
"""What the model is made of, besides the APN."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbones import extract
from .proposal import AttentionProposal


class Scale(nn.Module):
    """One scale: features, a linear classifier of their descriptor, and, except the last, an APN.

    Args:
        features: a backbone.
        descriptor: ``"mean"`` or ``"fc"``, see :class:`racnn.RACNN`.
        width: numbers of a descriptor.
    """

    def __init__(
        self,
        features: nn.Module,
        descriptor: str,
        width: int,
        num_classes: int,
        dropout: float,
        proposal: AttentionProposal | None,
    ) -> None:
        super().__init__()
        self.features, self.descriptor = features, descriptor
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, num_classes)
        self.proposal = proposal

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Feature maps (B, C, h, w) and descriptors (B, D) of normalised images."""
        return extract(self.features, images, self.descriptor)

    def classify(self, descriptor: Tensor) -> Tensor:
        return _in_float32(self.classifier, self.dropout(descriptor))


class FusionHead(nn.Module):
    """Each descriptor normalised independently, concatenated, one fully connected layer (paper, section 3.3).

    The paper does not name the norm: it is the Euclidean one, the usual reading.
    """

    def __init__(self, widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(sum(widths), num_classes)

    def forward(self, descriptors: Sequence[Tensor]) -> Tensor:
        normalised = [F.normalize(d.float(), dim=-1) for d in descriptors]
        return _in_float32(self.classifier, torch.cat(normalised, -1))


def _in_float32(classifier: nn.Linear, descriptor: Tensor) -> Tensor:
    """Under autocast too: the ranking loss compares probabilities, and bfloat16's logits are too coarse."""
    with torch.autocast(descriptor.device.type, enabled=False):
        logits: Tensor = classifier(descriptor)
    return logits
