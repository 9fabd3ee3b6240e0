# SPDX-License-Identifier: BSD-3-Clause
"""How times are taken: contestants by turns, medians, and on a GPU inputs that the cache does not hold."""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch

from .cases import Case, floor_bytes

Call = Callable[[], object]
Name = TypeVar("Name", bound=Hashable)
WARM_UP_CALLS = 1
"""Of each set of inputs; every contestant has been called once before, to be checked."""


class Times(NamedTuple):
    """Over all samples of one run; seconds are those of a call."""

    median_s: float
    lower_quartile_s: float
    upper_quartile_s: float
    least_s: float
    samples: int

    @classmethod
    def of(cls, samples: Sequence[float], calls: int = 1) -> Times:
        """Of samples that took ``calls`` calls each."""
        lower, median, upper = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(*(value / calls for value in (median, lower, upper, min(samples))), len(samples))


def take_cpu_sample(calls: Sequence[Call]) -> float:
    start = time.perf_counter()
    for call in calls:
        call()
    return (time.perf_counter() - start) / len(calls)


def take_cuda_sample(calls: Sequence[Call]) -> float:
    """Between two events on the stream, host time included wherever the GPU waits for the host."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for call in calls:
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / len(calls)


def sampler(device: torch.device) -> Callable[[Sequence[Call]], float]:
    return take_cuda_sample if device.type == "cuda" else take_cpu_sample


def interleaved(
    contestants: Mapping[Name, Sequence[Call]],
    rounds: int,
    take_sample: Callable[[Sequence[Call]], float],
    before: Callable[[Name], None] = lambda name: None,
    after_round: Callable[[], None] = lambda: None,
    calls_each: int = 1,
) -> dict[Name, Times]:
    """One sample of every contestant a round, so that whatever else the machine does meets all of them alike.

    The order within a round is drawn anew each time: nobody always follows the one that clears the caches.
    A call may stand for several, ``calls_each``.
    """
    samples: dict[Name, list[float]] = {name: [] for name in contestants}
    order = list(contestants)
    shuffle = random.Random(0).shuffle
    for name, calls in contestants.items():
        before(name)
        for call in WARM_UP_CALLS * list(calls):
            call()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                before(name)
                samples[name].append(take_sample(contestants[name]))
            after_round()
    finally:
        gc.enable()
    return {name: Times.of(values, calls_each) for name, values in samples.items()}


MOST_INPUT_SETS = 32
CALLS_A_SAMPLE = 8


def input_sets(case: Case, device: torch.device) -> int:
    """How many sets of inputs to go through, so that a GPU's L2 cache has lost each before it comes again."""
    if device.type != "cuda":
        return 1
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return min(max(math.ceil(3 * cache / floor_bytes(case, "forward")), 2), MOST_INPUT_SETS)


def calls_of_a_sample(steps: Sequence[Call], device: torch.device) -> list[Call]:
    """One call on a CPU; on a GPU, where an event costs as much as a small kernel, turns of all inputs."""
    if device.type != "cuda":
        return list(steps)
    return list(steps) * math.ceil(CALLS_A_SAMPLE / len(steps))


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second, read and written, of a large ``copy_``."""
    copy, moved = large_copy(device)
    times = interleaved({"copy": calls_of_a_sample([copy], device)}, 11, sampler(device))
    return moved / times["copy"].median_s


def large_copy(device: torch.device) -> tuple[Call, int]:
    """A call of ``copy_``, and the bytes that it reads and writes."""
    numbers = 2**28 if device.type == "cuda" else 2**26
    source, target = (torch.ones(numbers, device=device) for _ in range(2))
    return lambda: target.copy_(source), 2 * source.nbytes
