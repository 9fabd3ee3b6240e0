# SPDX-License-Identifier: BSD-3-Clause
"""One process, or several started by ``torchrun``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor


class Processes(NamedTuple):
    """This process among ``world``; ``device`` is its own."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.world > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def total_of(self, sums: dict[str, float]) -> dict[str, float]:
        """Sums over all processes, which need not know the same names."""
        gathered: list[dict[str, float]] = [{} for _ in range(self.world)]
        dist.all_gather_object(gathered, sums)
        names = sorted({name for part in gathered for name in part})
        return {name: sum(part.get(name, 0.0) for part in gathered) for name in names}

    def on_first(self, action: Callable[[], None]) -> None:
        """Done by the first process; an error of it is raised on all, so that none waits for the others."""
        found: list[Exception | None] = [None]
        if self.is_first:
            try:
                action()
            except Exception as error:
                found = [error]
        if self.world > 1:
            dist.broadcast_object_list(found)
        if found[0] is not None:
            raise found[0]

    def wait(self) -> None:
        if self.world > 1:
            dist.barrier()


def choose_device(device: str) -> torch.device:
    """Raises:
    ValueError: ``device`` is unknown or missing here.
    """
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        found = torch.device(chosen)
    except RuntimeError as error:
        raise ValueError(f"device must be 'auto' or name a device, got {device!r}") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but torch finds no CUDA device")
    return found


def start(device: str) -> Processes:
    """Join the other processes if ``torchrun`` started this one."""
    found = choose_device(device)
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return Processes(0, 1, found)
    if found.type == "cuda":
        found = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(found)
    dist.init_process_group("nccl" if found.type == "cuda" else "gloo")
    return Processes(dist.get_rank(), dist.get_world_size(), found)


def finish() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
