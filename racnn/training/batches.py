# SPDX-License-Identifier: BSD-3-Clause
"""Batches depend on seed, epoch and step alone: a run can resume anywhere, on any number of processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from racnn_ops import attention_crop

from ..config import DataConfig
from ..data import Images, Sample
from .processes import Processes


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(_mix(seed, epoch))
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order


def _mix(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch) % 2**63


def epoch_batches(count: int, batch: int, seed: int, epoch: int, processes: Processes) -> list[list[int]]:
    """This process' numbers: step x image. Together, the processes' shares are the same joint batch.

    An incomplete last batch is left out.
    """
    order = epoch_order(count, seed, epoch)
    joint = [order[start : start + batch] for start in range(0, count - batch + 1, batch)]
    return [numbers[processes.rank :: processes.world] for numbers in joint]


def load(images: Images, batches: list[list[int]], workers: int) -> Iterator[Sample]:
    """One batch after another, decoded ahead by ``workers`` processes.

    The loader draws its workers' seed: from a generator of its own, or the first step after a resume would
    see torch's generator one number further on than the same step of a run that was not stopped.

    Raises:
        OSError: one of the processes has ended.
    """
    loader: DataLoader[Sample] = DataLoader(
        images,
        batch_sampler=batches,
        num_workers=workers,
        generator=torch.Generator(),
        worker_init_fn=_leave_signals_to_the_run,
    )
    try:
        for batch in loader:
            yield Sample(*batch)
    except RuntimeError as error:
        if not workers:
            raise
        reason = str(error).splitlines()[0]
        raise OSError(f"a process that reads images failed, is there too little memory? {reason}") from error


def _leave_signals_to_the_run(worker: int) -> None:
    """Ctrl-C and most schedulers signal all processes; these have to last until the run has stopped."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def in_order(count: int, batch: int) -> list[list[int]]:
    return [list(range(start, min(start + batch, count))) for start in range(0, count, batch)]


def draw_moves(shape: tuple[int, int, int], jitter: float, seed: int, key: int) -> Tensor | None:
    """How windows are moved: (images, N - 1, K, 3), uniform in [-jitter, jitter]; None for jitter 0."""
    if jitter == 0:
        return None
    generator = torch.Generator().manual_seed(_mix(seed + 13, key))
    return jitter * (2 * torch.rand((*shape, 3), generator=generator) - 1)


def pick(moves: Tensor | None, numbers: Tensor, device: torch.device) -> tuple[Tensor, ...] | None:
    """A batch's moves as :meth:`racnn.RACNN.forward` takes them: N - 1 x (B, K, 3)."""
    return None if moves is None else moves[numbers].to(device).unbind(1)


class Augmentation:
    """Random mirroring and square crops, drawn for every image of an epoch at once.

    What an image gets depends on seed, epoch and its number alone, not on who loads it. Crops are made by
    :func:`racnn_ops.attention_crop`, from uint8 to uint8.

    Attributes:
        mirrored (Tensor[count]): whether an image is mirrored: every other one is.
    """

    def __init__(self, count: int, config: DataConfig, seed: int, epoch: int) -> None:
        generator = torch.Generator().manual_seed(_mix(seed + 7, epoch))
        numbers = torch.rand((count, 4), generator=generator)
        self.mirrored = (numbers[:, 0] >= 0.5) & config.flip
        half = (config.min_crop + (1 - config.min_crop) * numbers[:, 1:2]) / 2
        self.windows = torch.cat((half + (1 - 2 * half) * numbers[:, 2:], half), 1)
        self.crops = config.min_crop < 1

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        """images (B, 3, S, S) uint8, numbers (B): the same shape."""
        side = images.shape[-1]
        if self.crops:
            windows = self.windows[numbers].to(images.device) * side
            images = attention_crop(images, windows, side, boundary="border")
        mirrored = self.mirrored[numbers].to(images.device)
        return torch.where(mirrored[:, None, None, None], images.flip(-1), images)
