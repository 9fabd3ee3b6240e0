# SPDX-License-Identifier: BSD-3-Clause
"""One phase's optimisation: backward and update."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..config import TrainingConfig
from ..model import RACNN
from .optimisation import make_optimizer, set_rates
from .phases import Phase, set_trainable
from .processes import Processes
from .step import Batch, TrainingStep


def autocast(amp: str, device: torch.device) -> torch.autocast:
    """As ``training.amp`` says."""
    return torch.autocast(device.type, torch.bfloat16, enabled=amp == "bf16")


class Engine:
    """Trains what ``phase`` trains, on all processes."""

    def __init__(self, model: RACNN, phase: Phase, config: TrainingConfig, processes: Processes) -> None:
        self.model, self.phase, self.config, self.processes = model, phase, config, processes
        set_trainable(model, phase, config)
        self.step = TrainingStep(model, phase, config)
        self.optimizer = make_optimizer(model, config)
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
        set_rates(self.optimizer, progress)
        self.optimizer.zero_grad(set_to_none=True)

    def train(self, batch: Batch) -> dict[str, Tensor]:
        """One step with this process' share of a batch. Returns the step's terms."""
        with self.autocast():
            terms: dict[str, Tensor] = self._wrapped(batch)
        terms["loss"].backward()
        self.optimizer.step()
        return {name: value.detach() for name, value in terms.items()} | self.step.window_gradients()

    def autocast(self) -> torch.autocast:
        return autocast(self.config.amp, self.processes.device)
