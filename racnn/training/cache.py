# SPDX-License-Identifier: BSD-3-Clause
"""What frozen networks say about fixed crops is said once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..data import Images, Sample
from ..model import RACNN
from .batches import Loader, draw_moves, in_order, load, pick
from .engine import autocast
from .phases import Phase
from .step import Known

BATCH = 32


class Cache:
    """Features of scale 1, and, while windows are fixed, descriptors of all scales, of every image of a set.

    An image is kept in several views: every second one is mirrored, and each has windows moved in its own
    way. Everything is computed in one fixed order, in batches of one size, so that a resumed run finds the
    same bits.

    Args:
        views: of each image.
        flip: whether every second view is mirrored.
        jitter: how far windows are moved, see :class:`racnn.config.TrainingConfig`.
        seed: of these moves, and of random windows.
        amp: see :class:`racnn.config.TrainingConfig`.
    """

    def __init__(
        self,
        model: RACNN,
        images: Images,
        *,
        views: int = 1,
        flip: bool = False,
        jitter: float = 0.0,
        seed: int = 0,
        amp: str = "none",
    ) -> None:
        self.model, self.images, self.device, self.seed = model, images, model.mean.device, seed
        self.amp = amp
        self.mirrored = [flip and view % 2 == 1 for view in range(views)]
        shape = len(images), len(model.sizes) - 1, model.num_windows
        self.moves = [draw_moves(shape, jitter, seed, -1 - view) for view in range(views)]
        self._features: dict[bool, list[Tensor]] = {mirrored: [] for mirrored in self.mirrored}
        self._labels: list[Tensor] = []
        self._descriptors: list[list[Tensor]] | None = None
        self._made_with: tuple[str, list[Tensor]] | None = None

    @torch.no_grad()
    def prepare(self, phase: Phase) -> None:
        """Call it with the model in evaluation mode, before the phase's parts are set to train."""
        with autocast(self.amp, self.device):
            self._prepare(phase)

    def _prepare(self, phase: Phase) -> None:
        if not self._labels:
            self._learn_features()
        if phase.kind not in ("classify", "fuse"):
            self._descriptors = None
            return
        made_with = (phase.windows, [p.clone() for p in self._proposal_weights()])
        if self._is_made_with(*made_with):
            return
        generator = torch.Generator().manual_seed(self.seed)
        found: list[list[list[Tensor]]] = [[] for _ in self.mirrored]
        for position, (numbers, batch) in enumerate(self._every_batch()):
            for view, (mirrored, moves) in enumerate(zip(self.mirrored, self.moves, strict=True)):
                output = self.model(
                    self._pixels(batch, mirrored),
                    phase.windows,
                    coarse_features=self._features[mirrored][position].to(self.device),
                    jitter=pick(moves, numbers, self.device),
                    generator=generator,
                )
                found[view].append([d.cpu() for d in output.descriptors])
        scales = range(len(self.model.sizes))
        self._descriptors = [[torch.cat([batch[n] for batch in view]) for n in scales] for view in found]
        self._made_with = made_with

    def _learn_features(self) -> None:
        for _, batch in self._every_batch():
            self._labels.append(batch.label)
            for mirrored, known in self._features.items():
                known.append(self.model(self._pixels(batch, mirrored), scales=1).features[0].cpu())

    def _every_batch(self) -> Iterator[tuple[Tensor, Sample]]:
        for numbers in in_order(len(self.images), BATCH):
            yield torch.tensor(numbers), next(load(self.images, [numbers], 0))

    def _pixels(self, batch: Sample, mirrored: bool) -> Tensor:
        pixels = batch.image.to(self.device)
        return pixels.flip(-1) if mirrored else pixels

    def _proposal_weights(self) -> list[Tensor]:
        proposals = [scale.proposal for scale in self.model.each_scale() if scale.proposal is not None]
        return [weight for proposal in proposals for weight in proposal.parameters()]

    def _is_made_with(self, windows: str, weights: list[Tensor]) -> bool:
        """Whether the descriptors that are known are those of the same windows."""
        if self._descriptors is None or self._made_with is None or self._made_with[0] != windows:
            return False
        return all(torch.equal(a, b) for a, b in zip(self._made_with[1], weights, strict=True))

    def batches(self, batches: list[list[int]], load: Loader) -> Iterator[Sample]:
        """As ``load`` gives them, but without pixels where descriptors say all."""
        if self._descriptors is None:
            yield from load(batches)
            return
        labels, nothing = torch.cat(self._labels), torch.empty(0)
        for numbers in map(torch.tensor, batches):
            yield Sample(nothing, labels[numbers], numbers, nothing)

    def look_up(self, numbers: Tensor, views: Tensor | None = None) -> Known:
        """Of images in any order; ``views`` (B) tells which view of each, the first one by default."""
        chosen = torch.zeros_like(numbers) if views is None else views
        pairs = list(zip(numbers.tolist(), chosen.tolist(), strict=True))
        if self._descriptors is not None:
            kept = self._descriptors
            scales = range(len(self.model.sizes))
            rows = [torch.stack([kept[view][n][number] for number, view in pairs]) for n in scales]
            return Known(descriptors=tuple(row.to(self.device) for row in rows))
        features = [
            self._features[self.mirrored[view]][number // BATCH][number % BATCH] for number, view in pairs
        ]
        return Known(coarse_features=torch.stack(features).to(self.device))
