# SPDX-License-Identifier: BSD-3-Clause
"""Decoded instructions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .meaning import meaning
from .operands import Array, Registers, parse, parse_address

# What a block does itself (block.py): control, other lanes, the thread's place.
OF_BLOCKS = (
    "BAR BMOV BRA BREAK BSSY BSYNC CALL EXIT NOP RET S2R S2UR SHFL VOTE VOTEU WARPSYNC".split()  # noqa: SIM905
)
_ACCESSES = ("LDG", "STG", "LDS", "STS", "LD", "ST")
_BYTES = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}


class Step:
    """One instruction; `instruction` is one of tools/machine_code.py."""

    def __init__(self, instruction: Any) -> None:
        operation, *rest = instruction.text.replace(".reuse", "").split(maxsplit=1)
        self.name, *self.modifiers = operation.split(".")
        self.texts = [text.strip() for text in rest[0].split(",")] if rest else []
        self.operands = [parse(text) for text in self.texts]
        self.predicate = parse(instruction.predicate) if instruction.predicate else None
        self.stall = max(1, instruction.stall)
        self.sets: int = instruction.sets
        self.sets_when_read: int = instruction.sets_when_read
        self.waits = [scoreboard for scoreboard in range(6) if instruction.waits_for(scoreboard)]
        self.effect: Callable[[Registers, Array], None] | None = None
        self.address: Callable[[Registers], Array] | None = None
        if self.name in _ACCESSES:
            where = next(n for n, text in enumerate(self.texts) if "[" in text)
            self.address = parse_address(self.texts[where])
            self.data = self.operands[1 - where]
        elif self.name not in OF_BLOCKS:
            self.effect = meaning(operation, self.operands, instruction.immediate)

    @property
    def target(self) -> int:
        return int(self.texts[-1], 16) // 16

    @property
    def bytes(self) -> int:
        """Of a thread's access."""
        return next((_BYTES[modifier] for modifier in self.modifiers if modifier in _BYTES), 4)


class Program:
    """Decodes what is executed, when it first is: the rest may be unknown."""

    def __init__(self, code: Sequence[Any]) -> None:
        self._code = code
        self._steps: list[Step | None] = [None] * len(code)

    def __len__(self) -> int:
        return len(self._code)

    def __getitem__(self, index: int) -> Step:
        step = self._steps[index]
        if step is None:
            step = self._steps[index] = Step(self._code[index])
        return step
