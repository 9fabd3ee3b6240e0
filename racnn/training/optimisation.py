# SPDX-License-Identifier: BSD-3-Clause
"""Optimisers and learning rates. A rate is a function of the step alone, so there is no state to resume."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..config import TrainingConfig
from ..model import RACNN

MOMENTUM = 0.9
MARKS = {".proposal.": "apn", ".features.": "backbone", ".fusion.": "fusion"}
"""Parts of parameters' names; what has none of them is a classifier."""


def parameter_groups(model: RACNN, config: TrainingConfig) -> list[dict[str, object]]:
    """Trainable parameters of backbones, classifiers, APNs and fusion heads, each with its ``peak_lr``.

    Biases and batch norms have groups of their own, without weight decay: that of an APN's output decides
    where windows are, and decay would move them.
    """
    parts: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = next((part for mark, part in MARKS.items() if mark in f".{name}"), "classifier")
            parts.setdefault((part, parameter.dim() > 1), []).append(parameter)
    groups: list[dict[str, object]] = []
    for (part, is_weight), parameters in sorted(parts.items(), key=lambda item: item[0]):
        rate, decay = getattr(config, f"lr_{part}"), config.weight_decay if is_weight else 0.0
        groups.append({"params": parameters, "peak_lr": rate, "lr": rate, "weight_decay": decay})
    return groups


def make_optimizer(model: RACNN, config: TrainingConfig) -> torch.optim.Optimizer:
    groups = parameter_groups(model, config)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups)
    return torch.optim.SGD(groups, lr=config.lr_classifier, momentum=MOMENTUM)


def set_rates(optimizer: torch.optim.Optimizer, progress: float) -> None:
    """They fall to 0 as a cosine does; ``progress``: the share of the phase that is over."""
    factor = 0.5 * (1 + math.cos(math.pi * progress))
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak_lr"]
