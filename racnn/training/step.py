# SPDX-License-Identifier: BSD-3-Clause
"""What one step computes: the losses of the phases, and the numbers that tell whether they work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import windows as geometry
from ..config import TrainingConfig
from ..losses import classification_loss, diversity_loss, imitation_loss, ranking_hinges
from ..model import RACNN
from ..output import RACNNOutput
from .differences import ESTIMATES, TrueClassProbability
from .phases import Phase


class Batch(NamedTuple):
    """Of images (B, 3, S, S), uint8 or floats from 0 to 1.

    jitter is N - 1 x (B, K, 3); shares (B, classes): of mixed images, for the classifiers in place of labels.
    """

    images: Tensor
    labels: Tensor
    jitter: tuple[Tensor, ...] | None = None
    shares: Tensor | None = None


Windows = tuple[Tensor, ...]
Result = tuple[Tensor, Windows, dict[str, Tensor]]
"""A phase's loss, the relative windows, and what else the log shows."""


def classify(model: RACNN, batch: Batch, window_source: str, config: TrainingConfig) -> Result:
    """Scales learn from L_cls; the APNs are fixed."""
    output = model(batch.images, window_source=window_source, jitter=batch.jitter)
    loss = classification_loss(output.logits, batch.labels if batch.shares is None else batch.shares)
    return loss, output.relative_windows, _accuracy(output, batch.labels)


def imitate(model: RACNN, batch: Batch, window_source: str, config: TrainingConfig) -> Result:
    """APNs learn to propose the windows around the highest response; the scales are fixed."""
    scales, count = len(model.sizes) - 1, model.num_windows  # what the last scale sees teaches no APN
    with torch.no_grad():
        features = model(batch.images, window_source=window_source, scales=scales).features
    half = model.initial_half_side
    targets = [geometry.highest_response(maps, 1 if n else count, half) for n, maps in enumerate(features)]
    relative = _propose(model, features)
    loss = imitation_loss(relative, [target.reshape(-1, count, 3) for target in targets], batch.labels)
    return loss, relative, {}


def rank(model: RACNN, batch: Batch, window_source: str, config: TrainingConfig) -> Result:
    """APNs learn from L_rank, and to keep an image's windows apart; the scales are fixed."""
    learns, slopes_of = torch.is_grad_enabled(), ESTIMATES.get(config.rank_gradient)
    images, labels, jitter, _ = batch
    with torch.set_grad_enabled(learns and slopes_of is None):
        output = model(images, window_source=window_source, jitter=jitter)
    fused = config.rank_on == "fused"
    ranked = (output.logits[0], *output.fused_logits) if fused else output.logits
    hinges, valid = ranking_hinges(ranked, labels, config.margin), (labels >= 0).sum().clamp(min=1)
    loss, relative, windows = hinges.sum() / valid, output.relative_windows, output.windows
    if learns and slopes_of is not None:
        relative = _propose(model, output.features[:-1])
        whole = geometry.whole(len(images), float(images.shape[-1]), relative[0]).unsqueeze(1)
        windows = tuple(map(geometry.compose, (whole, *output.windows[:-1]), relative))
        for n, scale in enumerate(relative, 2):
            probability = TrueClassProbability(model, images, labels, output, n, fused)
            slopes = slopes_of(probability, scale.detach(), config.difference_step)
            # Of value 0: only its gradient, that of -p where the hinge is active, is wanted.
            linear = (slopes * (scale.detach() - scale)).sum((1, 2))
            loss = loss + ((hinges[n - 2] > 0) * linear).sum() / valid
    overlap = diversity_loss(windows)
    terms = _accuracy(output, labels) | {"overlap": overlap}
    terms |= {f"hinge active {n}-{n + 1}": (h > 0).sum() / valid for n, h in enumerate(hinges, 1)}
    return loss + config.diversity * overlap, relative, terms


def fuse(model: RACNN, batch: Batch, window_source: str, config: TrainingConfig) -> Result:
    """The fusion heads learn from L_cls; all else is fixed."""
    output = model(batch.images, window_source=window_source, jitter=batch.jitter)
    loss = classification_loss(output.fused_logits, batch.labels)
    return loss, output.relative_windows, _accuracy(output, batch.labels)


class TrainingStep(nn.Module):
    """A phase's loss as a module, so that ``DistributedDataParallel`` can wrap it.

    The result maps names to scalars, ``"loss"`` among them. Names that begin with ``"sum "`` are sums over
    the batch's images (``"sum images"`` counts them), all others are means.
    """

    def __init__(self, model: RACNN, phase: Phase, config: TrainingConfig) -> None:
        super().__init__()
        self.model, self.phase, self.config = model, phase, config
        self.learn = {"classify": classify, "imitate": imitate, "rank": rank, "fuse": fuse}[phase.kind]
        self.windows: Windows = ()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        loss, relative, terms = self.learn(self.model, batch, self.phase.window_source, self.config)
        self.windows = tuple(window for window in relative if window.requires_grad)
        for window in self.windows:
            window.retain_grad()
        terms |= {"loss": loss, "sum images": (batch.labels >= 0).sum()}
        return terms | _window_statistics(self.model, relative)

    def window_gradients(self) -> dict[str, Tensor]:
        """After ``backward``: the mean norm of d loss / d (tx, ty, tl) of an image, per coarser side."""
        norms = {
            f"window gradient {n}": w.grad.flatten(1).norm(dim=1).mean()
            for n, w in enumerate(self.windows, 2)
            if w.grad is not None
        }
        self.windows = ()
        return norms


def _propose(model: RACNN, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Relative windows N - 1 x (B, K, 3), with gradients of the APNs alone."""
    shape = (-1, model.num_windows, 3)
    return tuple(model.proposal(n)(maps).reshape(shape) for n, maps in enumerate(features, 1))


@torch.no_grad()
def _accuracy(output: RACNNOutput, labels: Tensor) -> dict[str, Tensor]:
    named = output.by_name().items()
    return {f"sum top-1 {name}": (logits.argmax(1) == labels).sum() for name, logits in named}


@torch.no_grad()
def _window_statistics(model: RACNN, relative: Sequence[Tensor]) -> dict[str, Tensor]:
    statistics = {}
    for n, windows in enumerate(relative, 1):
        for k, name in enumerate(("tx", "ty", "tl")):
            statistics[f"{name} mean {n + 1}"] = windows[..., k].mean()
            statistics[f"{name} spread {n + 1}"] = windows[..., k].std(unbiased=False)
        statistics[f"at a bound {n + 1}"] = model.proposal(n).share_at_bounds(windows)
    return statistics
