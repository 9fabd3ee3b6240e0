# SPDX-License-Identifier: BSD-3-Clause
"""What frozen networks say about fixed crops is said once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..data import Images, Sample
from ..model import RACNN
from .batches import in_order, load
from .phases import Phase
from .step import Known

BATCH = 32


class Cache:
    """Features of scale 1, and, while windows are fixed, descriptors of all scales, of every image of a set.

    An image and its mirror image are different entries. Everything is computed in one fixed order, in batches
    of one size, so that a resumed run finds the same bits.

    Args:
        mirrored: whether mirror images are needed.
    """

    def __init__(self, model: RACNN, images: Images, mirrored: bool, device: torch.device) -> None:
        self.model, self.images, self.device = model, images, device
        self.versions = (False, True) if mirrored else (False,)
        self._features: list[list[Tensor]] = [[] for _ in self.versions]
        self._labels: list[Tensor] = []
        self._descriptors: list[list[Tensor]] | None = None
        self._made_with: tuple[str, list[Tensor]] | None = None

    @torch.no_grad()
    def prepare(self, phase: Phase) -> None:
        """Call it with the model in evaluation mode, before the phase's parts are set to train."""
        fixed = phase.kind in ("classify", "fuse")
        made_with = (phase.windows, [p.clone() for p in self._proposal_weights()])
        if fixed and self._is_made_with(*made_with):
            return
        found: list[list[list[Tensor]]] = [[] for _ in self.versions]
        if not fixed and self._features[0]:
            self._descriptors = None
            return
        for numbers in in_order(len(self.images), BATCH):
            batch = next(load(self.images, [numbers], 0))
            if len(self._labels) * BATCH <= numbers[0]:
                self._labels.append(batch.label)
            for version, mirrored in enumerate(self.versions):
                pixels = batch.image.to(self.device)
                pixels = pixels.flip(-1) if mirrored else pixels
                known = self._features[version]
                first = numbers[0] // BATCH
                coarse = known[first].to(self.device) if first < len(known) else None
                output = self.model(pixels, phase.windows, coarse_features=coarse)
                if coarse is None:
                    known.append(output.features[0].cpu())
                found[version].append([d.cpu() for d in output.descriptors])
        scales = range(len(self.model.sizes))
        stacked = [[torch.cat([batch[n] for batch in version]) for n in scales] for version in found]
        self._descriptors, self._made_with = (stacked, made_with) if fixed else (None, None)

    def _proposal_weights(self) -> list[Tensor]:
        proposals = [scale.proposal for scale in self.model.each_scale() if scale.proposal is not None]
        return [weight for proposal in proposals for weight in proposal.parameters()]

    def _is_made_with(self, windows: str, weights: list[Tensor]) -> bool:
        """Whether the descriptors that are known are those of the same windows."""
        if self._descriptors is None or self._made_with is None or self._made_with[0] != windows:
            return False
        return all(torch.equal(a, b) for a, b in zip(self._made_with[1], weights, strict=True))

    def batches(self, parts: list[list[int]], workers: int) -> Iterator[Sample]:
        """As :func:`racnn.training.batches.load`, but without pixels where descriptors say all."""
        if self._descriptors is None:
            yield from load(self.images, parts, workers)
            return
        labels, nothing = torch.cat(self._labels), torch.empty(0)
        for numbers in map(torch.tensor, parts):
            yield Sample(nothing, labels[numbers], numbers, nothing)

    def look_up(self, numbers: Tensor, mirrored: Tensor | None = None) -> Known:
        """Of images in any order; ``mirrored`` (B) tells which are mirrored."""
        versions = torch.zeros_like(numbers) if mirrored is None else mirrored.long()
        pairs = list(zip(numbers.tolist(), versions.tolist(), strict=True))
        if self._descriptors is not None:
            kept = self._descriptors
            scales = range(len(self.model.sizes))
            rows = [torch.stack([kept[version][n][number] for number, version in pairs]) for n in scales]
            return Known(descriptors=tuple(row.to(self.device) for row in rows))
        features = [self._features[version][number // BATCH][number % BATCH] for number, version in pairs]
        return Known(coarse_features=torch.stack(features).to(self.device))
