# SPDX-License-Identifier: BSD-3-Clause
"""What one step computes: the losses of a phase, and the numbers that tell whether it works."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import windows as geometry
from ..config import TrainingConfig
from ..losses import classification_loss, diversity_loss, imitation_loss, ranking_hinges
from ..model import RACNN
from ..output import RACNNOutput, named_logits
from . import differences
from .phases import Phase


class Known(NamedTuple):
    """What frozen parts said before about the images of a batch; None: not known.

    Shapes: coarse_features (B, C, h, w); descriptors N x (B, D).
    """

    coarse_features: Tensor | None = None
    descriptors: tuple[Tensor, ...] | None = None


class TrainingStep(nn.Module):
    """A phase's loss as a module, so that ``DistributedDataParallel`` can wrap it.

    The result maps names to scalars, ``"loss"`` among them. Names that begin with ``"sum "`` are sums over
    the batch's images (``"sum images"`` counts them), all others are means.
    """

    def __init__(self, model: RACNN, phase: Phase, config: TrainingConfig) -> None:
        super().__init__()
        self.model, self.phase, self.config = model, phase, config
        self.windows: tuple[Tensor, ...] = ()

    def forward(
        self,
        images: Tensor,
        labels: Tensor,
        known: Known = Known(),  # noqa: B008
        jitter: tuple[Tensor, ...] | None = None,
    ) -> dict[str, Tensor]:
        kind = self.phase.kind
        if known.descriptors is not None:
            return self._from_descriptors(known.descriptors, labels)
        if kind == "imitate":
            return self._imitate(images, labels, known)
        if kind == "rank" and self.config.rank_gradient == "difference":
            return self._rank_by_differences(images, labels, known)
        output = self.model(images, self.phase.windows, coarse_features=known.coarse_features, jitter=jitter)
        self._watch(output.relative_windows)
        terms = _accuracy(output.logits, output.fused_logits, labels)
        if kind == "classify":
            terms["classification"] = classification_loss(output.logits, labels)
        if kind == "rank":
            terms |= self._rank(output, labels)
        if kind == "fuse":
            terms["classification"] = classification_loss(output.fused_logits, labels)
        terms["loss"] = self._sum(terms)
        return terms | self._window_statistics(output.relative_windows)

    def _sum(self, terms: dict[str, Tensor]) -> Tensor:
        total = terms.get("classification", torch.zeros(()))
        if "ranking" in terms:
            total = total + terms["ranking"] + self.config.diversity * terms["overlap"]
        return total

    def _from_descriptors(self, descriptors: tuple[Tensor, ...], labels: Tensor) -> dict[str, Tensor]:
        logits, fused = self.model.classify(descriptors)
        terms = _accuracy(logits, fused, labels)
        terms["loss"] = classification_loss(fused if self.phase.kind == "fuse" else logits, labels)
        return terms

    def _imitate(self, images: Tensor, labels: Tensor, known: Known) -> dict[str, Tensor]:
        with torch.no_grad():
            scales = len(self.model.sizes) - 1  # what the last one sees teaches no APN
            coarse = known.coarse_features
            features = self.model(images, self.phase.windows, scales=scales, coarse_features=coarse).features
        targets = [geometry.highest_response(features[0], self.model.num_windows)]
        targets += [geometry.highest_response(maps) for maps in features[1:]]
        relative = self._propose(features)
        targets = [target.reshape(-1, self.model.num_windows, 3) for target in targets]
        terms = {"loss": imitation_loss(relative, targets, labels)}
        terms["sum images"] = (labels >= 0).sum()
        return terms | self._window_statistics(relative)

    def _rank(self, output: RACNNOutput, labels: Tensor) -> dict[str, Tensor]:
        hinges = ranking_hinges(output.logits, labels, self.config.margin)
        valid = (labels >= 0).sum().clamp(min=1)
        active = (hinges > 0).sum(1) / valid
        terms = {f"hinge active {n}-{n + 1}": share for n, share in enumerate(active, 1)}
        return terms | {"ranking": hinges.sum() / valid, "overlap": diversity_loss(output.windows)}

    def _rank_by_differences(self, images: Tensor, labels: Tensor, known: Known) -> dict[str, Tensor]:
        with torch.no_grad():
            seen = self.model(images, self.phase.windows, coarse_features=known.coarse_features)
        relative = self._propose(seen.features[:-1])
        terms = _accuracy(seen.logits, seen.fused_logits, labels) | self._rank(seen, labels)
        terms["loss"] = self._sum(terms)
        if torch.is_grad_enabled():
            self._watch(relative)
            active = ranking_hinges(seen.logits, labels, self.config.margin) > 0
            step, valid = self.config.difference_step, (labels >= 0).sum().clamp(min=1)
            for n, windows in enumerate(relative, 2):
                slopes = differences.slopes(self.model, images, seen, n, windows.detach(), labels, step)
                # Of value 0: only its gradient, that of -p where the hinge is active, is wanted.
                towards = (slopes * (windows.detach() - windows)).sum((1, 2))
                terms["loss"] = terms["loss"] + (active[n - 2] * towards).sum() / valid
            overlap = self.config.diversity * diversity_loss(self._absolute(seen, relative, images))
            terms["loss"] = terms["loss"] + overlap - overlap.detach()
        return terms | self._window_statistics(seen.relative_windows)

    def _propose(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Relative windows N - 1 x (B, K, 3), with gradients of the APNs alone."""
        shape = (-1, self.model.num_windows, 3)
        return tuple(self.model.proposal(n)(maps).reshape(shape) for n, maps in enumerate(features, 1))

    def _absolute(self, seen: RACNNOutput, relative: Sequence[Tensor], images: Tensor) -> tuple[Tensor, ...]:
        whole = geometry.whole(len(images), float(images.shape[-1]), relative[0]).unsqueeze(1)
        parents = (whole, *seen.windows[:-1])
        return tuple(geometry.compose(p, r) for p, r in zip(parents, relative, strict=True))

    def _watch(self, windows: tuple[Tensor, ...]) -> None:
        """Keep the windows whose gradients :meth:`window_gradients` reports."""
        self.windows = tuple(w for w in windows if w.requires_grad)
        for window in self.windows:
            window.retain_grad()

    def window_gradients(self) -> dict[str, float]:
        """After ``backward``: the mean norm of d loss / d (tx, ty, tl) of an image, per coarser side."""
        norms = {
            f"window gradient {n}": float(w.grad.flatten(1).norm(dim=1).mean())
            for n, w in enumerate(self.windows, 2)
            if w.grad is not None
        }
        self.windows = ()
        return norms

    @torch.no_grad()
    def _window_statistics(self, relative: Sequence[Tensor]) -> dict[str, Tensor]:
        found = {}
        for n, windows in enumerate(relative, 1):
            for k, name in enumerate(("tx", "ty", "tl")):
                found[f"{name} mean {n + 1}"] = windows[..., k].mean()
                found[f"{name} spread {n + 1}"] = windows[..., k].std(unbiased=False)
            found[f"at a bound {n + 1}"] = self.model.proposal(n).share_at_bounds(windows)
        return found


@torch.no_grad()
def _accuracy(logits: Sequence[Tensor], fused_logits: Sequence[Tensor], labels: Tensor) -> dict[str, Tensor]:
    terms = {"sum images": (labels >= 0).sum()}
    for name, scale in named_logits(logits, fused_logits).items():
        terms[f"sum top-1 {name}"] = (scale.argmax(1) == labels).sum()
    return terms
