# SPDX-License-Identifier: BSD-3-Clause
"""From counts to a predicted time: a model, never compared with a GPU. README.md says what it leaves out."""

from __future__ import annotations

from dataclasses import dataclass

from .costs import Launch
from .gpu import Gpu


@dataclass(frozen=True)
class Prediction:
    """Microseconds on the GPU, from the start of the first block to the end of the last."""

    time: float
    # If nothing else took time:
    dram: float
    l2: float
    wavefronts: float  # global and shared memory, one a cycle and multiprocessor
    issue: float
    latency: float  # blocks alone, one after the other in every place
    # Parts of the time:
    start: float  # before the first access to data, when all blocks of the first wave begin
    last_wave: float  # what it takes beyond its share of a full one
    bound: str  # which of the five decides most of the time
    resident_blocks: int  # of a multiprocessor
    waves: float

    @property
    def last_wave_share(self) -> float:
        """How full it is."""
        return self.waves % 1 or 1.0


def predict(gpu: Gpu, launch: Launch, registers: int, static_shared: int) -> Prediction:
    """Blocks run in waves. A wave takes as long as its scarcest resource, a block alone at least.

    registers: of a thread; static_shared: bytes of a block.
    """
    assert launch.work is not None
    traffic, work = launch.traffic, launch.work
    resident = gpu.resident_blocks(launch.threads, registers, launch.shared_bytes + static_shared)
    capacity = gpu.multiprocessors * resident
    full_waves, rest = divmod(launch.blocks, capacity)

    # Cycles that one block takes of what all share, and of its multiprocessor.
    dram = traffic.dram_bytes / launch.blocks / gpu.dram_bytes_per_second * gpu.hertz
    l2 = traffic.l2_bytes / launch.blocks / gpu.l2_bytes_per_second * gpu.hertz
    wavefronts = traffic.load_wavefronts + traffic.store_wavefronts + work.shared_wavefronts
    wavefronts /= launch.blocks
    issue = work.instructions / launch.blocks / gpu.issue_slots

    def bounds(blocks: int) -> dict[str, float]:
        busiest = -(-blocks // gpu.multiprocessors)
        return {
            "dram": dram * blocks,
            "l2": l2 * blocks,
            "wavefronts": wavefronts * busiest,
            "issue": issue * busiest,
            "latency": work.cycles,
        }

    waves = [bounds(capacity)] * full_waves + ([bounds(rest)] if rest else [])
    start = 0.0 if max(waves[0].values()) == waves[0]["latency"] else work.start_cycles
    time = start + sum(max(wave.values()) for wave in waves)
    sums = {name: sum(wave[name] for wave in waves) for name in waves[0]}
    decided = dict.fromkeys(sums, 0.0)
    for wave in waves:
        slowest = max(wave, key=lambda name: wave[name])
        decided[slowest] += wave[slowest]
    last = max(waves[-1].values())
    fair = max(bounds(capacity).values()) * rest / capacity if rest and full_waves else last
    microseconds = 1e6 / gpu.hertz
    return Prediction(
        time=time * microseconds,
        start=start * microseconds,
        last_wave=max(0.0, last - fair) * microseconds,
        bound=max(decided, key=lambda name: decided[name]),
        resident_blocks=resident,
        waves=launch.blocks / capacity,
        **{name: cycles * microseconds for name, cycles in sums.items()},
    )
