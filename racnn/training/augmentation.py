# SPDX-License-Identifier: BSD-3-Clause
"""Training images as nobody has seen them, on the device where they are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from racnn_ops import attention_crop
from racnn_ops.transforms import RandomResizedCrop

from ..config import DataConfig
from .batches import mixed

MIXES = {"mixup": v2.MixUp, "cutmix": v2.CutMix}
"""With the parameter 1 of their beta distribution, as in torchvision."""


class Augmentation:
    """Of the training images in one epoch.

    Windows and mirroring are drawn for all images at once: what an image gets depends on seed, epoch and its
    number alone, not on who loads it. All else comes from torch's generator, as dropout does, which depends
    on step and process.

    Args:
        count: of training images.
        mix: whether images are mixed, where ``config`` says so.

    Attributes:
        windows (Tensor[count, 4]): ``tx, ty, tw, th`` in pixels.
        mirrored (Tensor[count]): bool.
    """

    def __init__(
        self, count: int, classes: int, config: DataConfig, seed: int, epoch: int, *, mix: bool
    ) -> None:
        generator = torch.Generator().manual_seed(mixed(seed + 7, epoch))
        self.side, self.classes = config.image_side, classes
        draw = RandomResizedCrop(self.side, (config.least_area, 1.0), flip=0.5 * config.flip)
        self.windows, self.mirrored = draw.windows(count, self.side, self.side, generator=generator)
        self.cuts = config.least_area < 1 or config.flip
        self.change = v2.RandAugment(magnitude=config.rand_augment) if config.rand_augment else None
        self.mix = MIXES[config.mix]() if mix and config.mix != "none" else None

    def __call__(self, images: Tensor, labels: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor | None]:
        """images (B, 3, S, S) uint8, labels (B) and numbers (B).

        Returns:
            - Tensor[B, 3, S, S]: uint8; mixed up: floats from 0 to 1.
            - Tensor[B, classes], None where images are not mixed: shares of the classes. What is missing of 1
              is the share of an image that could not be read.
        """
        if self.cuts:
            windows, mirrored = (
                drawn[numbers].to(images.device, non_blocking=True) for drawn in (self.windows, self.mirrored)
            )
            images = attention_crop(
                images, windows, self.side, antialias=True, boundary="window", flip=mirrored
            )
        if self.change is not None:
            images = torch.stack([self.change(image) for image in images])
        if self.mix is None:
            return images, None
        shares = F.one_hot(labels.clamp(min=0), self.classes) * (labels >= 0)[:, None]
        pixels = images / 255 if isinstance(self.mix, v2.MixUp) else images
        mixed_pixels, mixed_shares = self.mix(pixels, shares)
        return mixed_pixels, mixed_shares
