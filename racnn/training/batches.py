# SPDX-License-Identifier: BSD-3-Clause
"""Batches depend on seed, epoch and step alone: a run can resume anywhere, on any number of processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..data import Images, Sample
from .processes import Processes


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(mixed(seed, epoch))
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order


def mixed(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch) % 2**63


def epoch_batches(count: int, batch: int, seed: int, epoch: int, processes: Processes) -> list[list[int]]:
    """This process' numbers: step x image. Together, the processes' shares are the same joint batch.

    An incomplete last batch is left out.
    """
    order = epoch_order(count, seed, epoch)
    joint = [order[start : start + batch] for start in range(0, count - batch + 1, batch)]
    return [numbers[processes.rank :: processes.world] for numbers in joint]


class Loader:
    """Images in batches, read ahead by processes that stay from epoch to epoch.

    The loader draws its workers' seed: from a generator of its own, or the first step after a resume would
    see torch's generator one number further on than the same step of a run that was not stopped.

    Args:
        workers: these processes; 0: this one reads.
        keep: hold in memory what was read, 3 * side**2 bytes an image.
        pin: into page-locked memory, from which a GPU takes a batch while it computes.
    """

    def __init__(self, images: Images, workers: int, *, keep: bool = False, pin: bool = False) -> None:
        self.pin = pin
        self._kept: dict[int, Sample] | None = {} if keep else None
        self._wanted: list[list[int]] = []
        self._read: Iterator[Sample] = iter(())
        self._loader: DataLoader[Sample] | None = DataLoader(
            images,
            batch_sampler=self._wanted,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin,
            generator=torch.Generator(),
            worker_init_fn=leave_signals_to_the_run,
        )

    def __call__(self, batches: Sequence[Sequence[int]]) -> Iterator[Sample]:
        """One after another, each image at most once.

        Raises:
            OSError: one of the processes has ended.
        """
        assert self._loader is not None, "the loader is closed"
        known = [self._kept is not None and self._kept.keys() >= set(numbers) for numbers in batches]
        self._wanted[:] = [list(b) for b, is_known in zip(batches, known, strict=True) if not is_known]
        self._read = each(self._loader)
        for numbers, is_known in zip(batches, known, strict=True):
            yield self._remember(numbers) if is_known else self._keep(Sample(*next(self._read)))

    def close(self) -> None:
        """End the processes. They ignore signals, so one that is left would keep the program from ending."""
        self._loader, self._read = None, iter(())

    def _keep(self, batch: Sample) -> Sample:
        if self._kept is not None:
            for row, number in enumerate(batch.number.tolist()):
                self._kept[number] = Sample(*(part[row].clone() for part in batch))
        return batch

    def _remember(self, numbers: Sequence[int]) -> Sample:
        assert self._kept is not None
        parts = map(torch.stack, zip(*(self._kept[number] for number in numbers), strict=True))
        return Sample(*(part.pin_memory() if self.pin else part for part in parts))


def load(images: Images, batches: Sequence[Sequence[int]], workers: int) -> Iterator[Sample]:
    """As a :class:`Loader` does, for one time."""
    yield from Loader(images, workers)(batches)


T = TypeVar("T")


def each(loader: DataLoader[T]) -> Iterator[T]:
    """Raises OSError where one of the loader's processes has ended."""
    try:
        yield from loader
    except RuntimeError as error:
        if not loader.num_workers:
            raise
        reason = str(error).splitlines()[0]
        raise OSError(f"a process that reads images failed, is there too little memory? {reason}") from error


def leave_signals_to_the_run(worker: int) -> None:
    """Ctrl-C and most schedulers signal all processes; these have to last until the run has stopped."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def in_order(count: int, batch: int) -> list[list[int]]:
    return [list(range(start, min(start + batch, count))) for start in range(0, count, batch)]


def draw_moves(shape: tuple[int, int, int], jitter: float, seed: int, key: int) -> Tensor | None:
    """How windows are moved: (images, N - 1, K, 3), uniform in [-jitter, jitter]; None for jitter 0."""
    if jitter == 0:
        return None
    generator = torch.Generator().manual_seed(mixed(seed + 13, key))
    return jitter * (2 * torch.rand((*shape, 3), generator=generator) - 1)


def pick(moves: Tensor | None, numbers: Tensor, device: torch.device) -> tuple[Tensor, ...] | None:
    """A batch's moves as :meth:`racnn.RACNN.forward` takes them: N - 1 x (B, K, 3)."""
    return None if moves is None else moves[numbers].to(device, non_blocking=True).unbind(1)
