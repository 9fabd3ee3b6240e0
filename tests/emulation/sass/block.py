# SPDX-License-Identifier: BSD-3-Clause
"""One block of threads that runs machine code.

Among the threads that can go on, those at the lowest address do: where lanes part they meet again as the code
(BSSY, BSYNC) says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .memory import Memory, shared_wavefronts
from .operands import Array, Registers, parse
from .program import Program, Step
from .timing import (
    CYCLES,
    L1_CYCLES,
    MEMORY_CYCLES,
    OPERAND_CYCLES,
    OTHER_CYCLES,
    SHARED_CYCLES,
    SHUFFLE_CYCLES,
    SPECIAL_REGISTER_CYCLES,
    WARP,
    Cost,
    Timing,
)

_PARAMS_OFFSET = 0x210  # in the constant bank; sizes of block and grid come first
_SHARED_WINDOW = 0x7F  # upper word of shared memory's generic addresses: no array is there
_RESERVED_SHARED = 1 << 10  # at the beginning of shared memory, by the system
_ALL = -1  # the whole warp, as a group whose threads wait for each other
_NOWHERE = np.iinfo(np.int64).max


Size = Sequence[int]  # along x, y and z


class Block:
    """Block `number` of a grid. shared: bytes of dynamic shared memory."""

    def __init__(
        self,
        program: Program,
        memory: Memory,
        number: int,
        *,
        grid: Size,
        block: Size,
        shared: int,
        params: bytes,
    ) -> None:
        self._program, self._memory, self._number = program, memory, number
        self._grid, self._block = grid, block
        threads = int(np.prod(block))
        sizes = np.array([*block, *grid], np.uint32).tobytes()
        lanes = -(-threads // WARP) * WARP
        self._registers = Registers(lanes, sizes.ljust(_PARAMS_OFFSET, b"\0") + params)
        self._shared = np.zeros(_RESERVED_SHARED + shared, np.uint8)
        self._timing = Timing(lanes // WARP, len(program))
        self._thread = np.arange(lanes)
        self._alive = self._thread < threads
        self._pc = np.where(self._alive, 0, _NOWHERE)  # of the threads that can go on
        self._resume = np.zeros(lanes, np.int64)  # where those go on that wait
        # A convergence barrier names a group of threads, those of a warp that will meet. Code that needs the
        # barrier for another group keeps the name in a register meanwhile (BMOV).
        self._barriers = np.zeros((16, lanes), np.int64)
        self._groups: dict[int, Array] = {}  # the threads that have not met yet
        self._last_group = 0
        self._waiting = np.zeros(lanes, np.int64)  # for which group
        self._at_barrier = np.zeros(lanes, bool)

    def run(self) -> Cost:
        with np.errstate(all="ignore"):  # threads that an instruction is not for compute too
            while self._alive.any():
                now = int(self._pc.min())
                if now == _NOWHERE:
                    self._open_barrier()
                else:
                    self._run_step(now)
        return self._timing.finish()

    def _run_step(self, now: int) -> None:
        step = self._program[now]
        active = self._pc == now
        warps = _warps(active)
        self._timing.begin(step, now, warps)
        mask = active & step.predicate.truth(self._registers) if step.predicate else active
        np.copyto(self._pc, now + 1, where=active)
        cycles: int | Array | None
        if step.effect is not None:
            step.effect(self._registers, mask)
            cycles = CYCLES.get(step.name)
        elif step.address is not None:
            cycles = self._access(step, mask)
        else:
            cycles = getattr(self, f"_{step.name.lower()}")(step, mask, active)
        self._timing.end(step, warps, OTHER_CYCLES if cycles is None else cycles)

    def _access(self, step: Step, mask: Array) -> int | Array:
        assert step.address is not None
        lanes = np.flatnonzero(mask)
        if len(lanes) == 0:
            return OPERAND_CYCLES
        addresses = step.address(self._registers)[lanes]
        words = max(1, step.bytes // 4)
        is_load, is_global = step.name[0] == "L", step.name[2:] == "G"
        if step.name in ("LD", "ST"):  # generic: where shared memory begins the upper word tells
            is_global = int(addresses[0]) >> 32 != _SHARED_WINDOW
            if not is_global:
                addresses = addresses & 0xFFFFFFFF
        cycles = self._count_access(step, lanes, addresses, is_global)
        offsets = addresses[:, None] + np.arange(step.bytes)
        if is_load:
            values = np.zeros((len(lanes), 4 * words), np.uint8)
            found = self._memory.read(addresses, step.bytes) if is_global else self._shared[offsets]
            values[:, : step.bytes] = found
            if {"S8", "S16"} & set(step.modifiers):
                narrow = values[:, : step.bytes].copy().view(f"i{step.bytes}")
                values = narrow.astype(np.int32).view(np.uint8)
            step.data.write_lanes(self._registers, lanes, values.view(np.uint32))
        else:
            words_of = [word[lanes] for word in step.data.words(self._registers, words)]
            values = np.stack(words_of, axis=1).view(np.uint8)[:, : step.bytes]
            if is_global:
                self._memory.write(addresses, values)
            else:
                self._shared[offsets] = values
        return cycles

    def _count_access(self, step: Step, lanes: Array, addresses: Array, is_global: bool) -> int | Array:
        cost = self._timing.cost
        if not is_global:
            cost.shared_wavefronts += shared_wavefronts(lanes // WARP, addresses, step.bytes)
            return SHARED_CYCLES
        warps = np.zeros(len(self._thread) // WARP, bool)
        warps[lanes // WARP] = True
        if self._memory.is_data(int(addresses[0])):
            self._timing.access_data(warps)
        if step.name[0] == "S":
            cost.stores += int(warps.sum())
            return OPERAND_CYCLES
        self._timing.load(step, warps)
        cycles = np.full(len(warps), L1_CYCLES)
        cycles[lanes[self._memory.first_touch(addresses)] // WARP] = MEMORY_CYCLES
        return cycles

    # Control, by the name of the instruction. `mask`: the active threads for which its predicate holds.

    def _bra(self, step: Step, mask: Array, active: Array) -> None:
        if (
            "DIV" in step.modifiers
        ):  # leads to where lanes that have parted meet: here they wait for each other
            self._meet_all(active)
            return
        for condition in step.operands[:-1]:
            mask = mask & condition.truth(self._registers)
        self._jump(mask, step.target)

    def _call(self, step: Step, mask: Array, active: Array) -> None:
        self._jump(mask, step.target)

    def _ret(self, step: Step, mask: Array, active: Array) -> None:
        register = parse(step.texts[0].split()[0])
        self._jump(mask, register.integer(self._registers).astype(np.int64) // 16)

    def _jump(self, mask: Array, target: int | Array) -> None:
        np.copyto(self._pc, target, where=mask)
        self._timing.jump(_warps(mask))

    def _exit(self, step: Step, mask: Array, active: Array) -> None:
        self._pc[mask] = _NOWHERE
        self._alive &= ~mask
        self._leave(mask, list(self._groups))

    def _bssy(self, step: Step, mask: Array, active: Array) -> None:
        self._last_group += 1
        self._groups[self._last_group] = active.copy()
        self._barriers[int(step.texts[0][1:]), active] = self._last_group

    def _bsync(self, step: Step, mask: Array, active: Array) -> None:
        self._meet(self._barriers[int(step.texts[0][1:])], mask)

    def _break(self, step: Step, mask: Array, active: Array) -> None:
        for condition in step.operands[:-1]:
            mask = mask & condition.truth(self._registers)
        groups = self._barriers[int(step.texts[-1][1:])]
        self._leave(mask, np.unique(groups[mask]).tolist())

    def _bmov(self, step: Step, mask: Array, active: Array) -> None:
        to, source = step.operands
        if to.kind == "r":
            groups = self._barriers[int(step.texts[1][1:])]
            to.write(self._registers, mask, groups.astype(np.uint32))
            if "CLEAR" in step.modifiers:
                groups[mask] = 0
        else:
            np.copyto(self._barriers[int(step.texts[0][1:])], source.integer(self._registers), where=mask)

    def _warpsync(self, step: Step, mask: Array, active: Array) -> None:
        if "COLLECTIVE" in step.modifiers:
            raise NotImplementedError("a collective: no BRA.DIV should lead there")
        self._meet_all(mask)

    def _meet_all(self, mask: Array) -> None:
        self._groups[_ALL] = self._alive.copy()
        self._meet(np.full(len(mask), _ALL), mask)

    def _meet(self, groups: Array, mask: Array) -> None:
        """The threads wait until their whole group does."""
        mask = mask & (groups != 0)
        self._resume[mask] = self._pc[mask]
        self._waiting[mask] = groups[mask]
        self._pc[mask] = _NOWHERE
        self._release(np.unique(groups[mask]).tolist())

    def _leave(self, mask: Array, groups: list[int]) -> None:
        for group in groups:
            if group in self._groups:
                self._groups[group] &= ~mask
        self._release(groups)

    def _release(self, groups: list[int]) -> None:
        for group in groups:
            here = self._waiting == group
            going = here & ~np.repeat(_warps(self._groups.get(group, here) & ~here), WARP)
            self._pc[going] = self._resume[going]
            self._waiting[going] = 0
            if group in self._groups:
                self._groups[group] &= ~going
                if not self._groups[group].any():
                    del self._groups[group]

    def _bar(self, step: Step, mask: Array, active: Array) -> None:
        self._resume[mask] = self._pc[mask]
        self._at_barrier |= mask
        self._pc[mask] = _NOWHERE

    def _open_barrier(self) -> None:
        if not (self._at_barrier == self._alive).all():
            raise RuntimeError(f"block {self._number}: threads wait for each other")
        self._timing.open_barrier()
        self._pc[self._at_barrier] = self._resume[self._at_barrier]
        self._at_barrier[:] = False

    def _nop(self, step: Step, mask: Array, active: Array) -> None:
        pass

    # What asks for the thread's place, or for other lanes.

    def _s2r(self, step: Step, mask: Array, active: Array) -> int:
        special: dict[str, Any] = {
            "SR_LANEID": self._thread % WARP,
            "SR_CgaCtaId": 0,
            "SR_SWINHI": _SHARED_WINDOW,
        }
        for name, index, size in (
            ("SR_TID", self._thread, self._block),
            ("SR_CTAID", self._number, self._grid),
        ):
            special[f"{name}.X"] = index % size[0]
            special[f"{name}.Y"] = index // size[0] % size[1]
            special[f"{name}.Z"] = index // size[0] // size[1]
        value = np.broadcast_to(special[step.texts[1]], len(self._thread)).astype(np.uint32)
        step.operands[0].write(self._registers, mask, value)
        return SPECIAL_REGISTER_CYCLES

    _s2ur = _s2r

    def _shfl(self, step: Step, mask: Array, active: Array) -> int:
        r = self._registers
        to, result, value, by, limits = step.operands
        shift, limit, lane = by.integer(r).astype(int), limits.integer(r).astype(int), self._thread % WARP
        segment = limit >> 8 & 31
        first = lane & segment
        last = first | limit & 31 & ~segment
        kind = step.modifiers[0]
        sources = {"UP": lane - shift, "DOWN": lane + shift, "BFLY": lane ^ shift}
        source = sources.get(kind, first | shift & ~segment)
        inside = source >= last if kind == "UP" else source <= last
        result.write(r, mask, value.integer(r)[self._thread - lane + np.where(inside, source, lane)])
        to.write_truth(r, mask, inside)
        return SHUFFLE_CYCLES

    def _vote(self, step: Step, mask: Array, active: Array) -> None:
        r = self._registers
        *results, condition = step.operands
        voters, votes = (truth.reshape(-1, WARP) for truth in (mask, condition.truth(r) & mask))
        agreed = votes.any(1) if step.modifiers[0] == "ANY" else (votes | ~voters).all(1)
        bits = (votes.astype(np.uint32) << np.arange(WARP, dtype=np.uint32)).sum(1).astype(np.uint32)
        for result in results:
            if result.kind in ("r", "ur"):
                result.write(r, mask, np.repeat(bits, WARP))
            else:
                result.write_truth(r, mask, np.repeat(agreed, WARP))

    _voteu = _vote


def _warps(threads: Array) -> Array:
    """Those with one of the threads."""
    return threads.reshape(-1, WARP).any(1)
