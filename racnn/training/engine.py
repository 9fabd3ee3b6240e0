# SPDX-License-Identifier: BSD-3-Clause
"""One phase's optimisation: backward, update, and its state."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..config import TrainingConfig
from ..model import RACNN
from .optimisation import make_optimizer, set_rates
from .phases import Phase, set_trainable
from .processes import Processes
from .step import Known, TrainingStep

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(amp: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """As ``training.amp`` says."""
    if amp == "none":
        return contextlib.nullcontext()
    return torch.autocast(device.type, AUTOCAST[amp])


class Engine:
    """Trains what ``phase`` trains, on all processes.

    Raises:
        ValueError: ``training.amp`` does not work on this device.
    """

    def __init__(self, model: RACNN, phase: Phase, config: TrainingConfig, processes: Processes) -> None:
        if config.amp == "fp16" and processes.device.type != "cuda":
            raise ValueError(f"training.amp 'fp16' needs CUDA, got device {processes.device.type!r}")
        self.model, self.phase, self.config, self.processes = model, phase, config, processes
        set_trainable(model, phase, config)
        self.step = TrainingStep(model, phase, config)
        self.optimizer = make_optimizer(model, config)
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=config.amp == "fp16")
        self._wrapped: nn.Module = self.step
        if processes.world > 1:
            device_ids = [processes.device] if processes.device.type == "cuda" else None
            self._wrapped = DistributedDataParallel(self.step, device_ids=device_ids)

    def start_epoch(self) -> None:
        set_trainable(self.model, self.phase, self.config)

    def start_step(self, number: int, progress: float) -> None:
        """``progress``: the share of the phase that is over.

        Dropout's random numbers depend on seed, step and process: nothing to save and to restore.
        """
        seed = (self.config.seed * 1_000_003 + number) * 1009 + self.processes.rank
        torch.manual_seed(seed % 2**63)
        set_rates(self.optimizer, self.config.lr_schedule, progress)
        self.optimizer.zero_grad(set_to_none=True)

    def train(
        self, images: Tensor, labels: Tensor, known: Known, jitter: tuple[Tensor, ...] | None
    ) -> dict[str, Any]:
        """One step with this process' share of a batch. Returns the step's terms."""
        with self.autocast():
            terms: dict[str, Tensor] = self._wrapped(images, labels, known, jitter)
        self.scaler.scale(terms["loss"]).backward()
        found = {name: value.detach() for name, value in terms.items()} | self.step.window_gradients()
        self._update()
        return found

    def _update(self) -> None:
        self.scaler.unscale_(self.optimizer)
        proposals = [scale.proposal for scale in self.model.each_scale() if scale.proposal is not None]
        if self.config.clip_norm and proposals:
            weights = [p for proposal in proposals for p in proposal.parameters()]
            nn.utils.clip_grad_norm_(weights, self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        return autocast(self.config.amp, self.processes.device)

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
