# SPDX-License-Identifier: BSD-3-Clause
"""The order of training: which part learns from which loss, and when that ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from ..backbones import blocks
from ..config import TrainingConfig
from ..model import RACNN

TOLERANCE = 0.01
"""Losses that differ by less, relative, are the same."""

Kind = Literal["classify", "imitate", "rank", "fuse"]


@dataclass(frozen=True)
class Phase:
    """Attributes:
    name: unique in a run: "classify", "imitate", "classify 1", "rank 1", ..., "fuse".
    kind: what is learned, see the functions of these names in :mod:`racnn.training.step`.
    window_source: where windows come from, see :meth:`racnn.RACNN.forward`.
    epochs: at most.
    """

    name: str
    kind: Kind
    window_source: str
    epochs: int


@dataclass(frozen=True)
class PhaseResult:
    """``best`` is the least validation loss."""

    phase: Phase
    best: float
    epochs: int


def next_phase(config: TrainingConfig, scales: int, done: list[PhaseResult]) -> Phase | None:
    """What follows the phases that are ``done``; None at the end.

    The paper's order (section 3.4) is: classifiers on the initial windows, APNs pre-trained on them, then, by
    turns, classifiers and APNs until neither loss changes any more, then fusion of the frozen scales.
    """
    source = config.window_source
    learned = source == "proposed"
    initial = "response" if learned else source
    plan = [Phase("classify", "classify", initial, config.classify_epochs)]
    if scales > 1:
        if learned:
            plan.append(Phase("imitate", "imitate", "response", config.imitate_epochs))
            for turn in range(1, config.rounds + 1):
                plan.append(Phase(f"classify {turn}", "classify", source, config.classify_epochs))
                if config.rank_on == "fused":
                    plan.append(Phase(f"fuse {turn}", "fuse", source, config.fuse_epochs))
                plan.append(Phase(f"rank {turn}", "rank", source, config.rank_epochs))
            # The classifiers have the last word on the windows that were learned.
            plan.append(Phase("classify last", "classify", source, config.classify_epochs))
        plan.append(Phase("fuse", "fuse", source, config.fuse_epochs))
    if _settled(done):
        plan = [phase for phase in plan if not phase.name[-1].isdigit() or _is_done(phase, done)]
    remaining = [phase for phase in plan if phase.epochs > 0 and not _is_done(phase, done)]
    return remaining[0] if remaining else None


def _is_done(phase: Phase, done: list[PhaseResult]) -> bool:
    return any(result.phase.name == phase.name for result in done)


def _settled(done: list[PhaseResult]) -> bool:
    """Whether neither loss of the alternation's last turn differs from the turn before."""
    turns = {
        kind: [r.best for r in done if r.phase.kind == kind and r.phase.name[-1].isdigit()]
        for kind in ("classify", "rank")
    }
    if len(turns["classify"]) != len(turns["rank"]) or len(turns["rank"]) < 2:
        return False
    return all(
        abs(values[-1] - values[-2]) <= TOLERANCE * max(abs(values[-2]), 1e-12) for values in turns.values()
    )


def set_trainable(model: RACNN, phase: Phase, config: TrainingConfig) -> None:
    """Freeze what a phase does not train: no gradients, no dropout, no batch-norm statistics."""
    model.eval()
    model.requires_grad_(False)
    for scale in model.each_scale():
        if phase.kind == "classify":
            _thaw_backbone(scale.features, config)
            scale.dropout.train()
            scale.classifier.requires_grad_(True).train()
        if phase.kind in ("imitate", "rank") and scale.proposal is not None:
            scale.proposal.requires_grad_(True).train()
    if phase.kind == "fuse":
        model.fusion.requires_grad_(True).train()


def _thaw_backbone(features: nn.Module, config: TrainingConfig) -> None:
    if config.freeze_blocks == -1:
        return
    features.requires_grad_(True).train()
    for block in blocks(features)[: config.freeze_blocks] if config.freeze_blocks else ():
        for parameter in block:
            parameter.requires_grad_(False)
    for module in features.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()
