# SPDX-License-Identifier: BSD-3-Clause
"""What the model returns, and how paths are printed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True)
class RACNNOutput:
    """What :class:`RACNN` found, for B images, N scales, K windows an image; scale 1 is the whole image.

    Attributes:
        logits: N x (B, classes), one for each scale.
        fused_logits: N - 1 x (B, classes), of scales 1 to 2, 1 to 3, ... together.
        descriptors: N x (B, D), of K windows one after another; not normalised.
        windows: N - 1 x (B, K, 3), ``tx, ty, tl`` in pixels of the images given to the model.
        relative_windows: the same in units of the coarser window's side.
        crops: N x what the backbones saw, normalised: (B, 3, s, s), then (B, K, 3, s, s).
        features: N x feature maps: (B, C, h, w), then (B * K, C, h, w).
    """

    logits: tuple[Tensor, ...]
    fused_logits: tuple[Tensor, ...]
    descriptors: tuple[Tensor, ...]
    windows: tuple[Tensor, ...]
    relative_windows: tuple[Tensor, ...]
    crops: tuple[Tensor, ...]
    features: tuple[Tensor, ...]

    @property
    def probabilities(self) -> tuple[Tensor, ...]:
        """N x (B, classes), the softmax of ``logits``."""
        return tuple(logits.float().softmax(1) for logits in self.logits)

    def by_name(self) -> dict[str, Tensor]:
        """Logits of ``"1"``, ``"2"``, ..., ``"1+2"``, ``"1+2+3"``, ...: the rows of the paper's tables."""
        named = {str(n): logits for n, logits in enumerate(self.logits, 1)}
        return named | {fusion_name(n): logits for n, logits in enumerate(self.fused_logits, 2)}


# torch.export and other transformations take it apart, and put it together again.
torch.export.register_dataclass(RACNNOutput, serialized_type_name="racnn.RACNNOutput")


def fusion_name(scales: int) -> str:
    """``"1+2+3"`` for 3."""
    return "+".join(str(n) for n in range(1, scales + 1))


def printable(path: Path | str) -> str:
    """On one line, in characters that any UTF-8 stream takes: names of files can hold any bytes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path))
