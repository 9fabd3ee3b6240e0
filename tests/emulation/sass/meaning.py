# SPDX-License-Identifier: BSD-3-Clause
"""What an instruction that only computes does to the registers of the threads in a mask."""

from __future__ import annotations

from .integers import INTEGERS
from .operands import Effect, Meanings, Operand
from .reals import REALS, half_meaning

_ALL: Meanings = INTEGERS | REALS


def meaning(operation: str, operands: list[Operand], immediate: int) -> Effect:
    """`immediate`: the 32 bits of the instruction that hold one, where it has one."""
    name, *modifiers = operation.split(".")
    if name in ("HFMA2", "HADD2"):
        return half_meaning(name, modifiers, operands, immediate)
    # Uniform instructions are the same on other registers: UIADD3, UISETP, ...
    for known in (name, name.removeprefix("U")):
        if known in _ALL:
            return _ALL[known](modifiers, operands)
    raise NotImplementedError(
        f"no meaning for {operation}: add one to integers.py or reals.py in tests/emulation/sass"
    )
