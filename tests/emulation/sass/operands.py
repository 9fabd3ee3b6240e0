# SPDX-License-Identifier: BSD-3-Clause
"""Operands of machine instructions: parsed once, then read and written for all threads of a block at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

ZERO, TRUE = 255, 7  # RZ, PT
UNIFORM_ZERO = 63  # URZ


class Registers:
    """Of all threads. Uniform registers, a warp's, are held once for every thread too."""

    def __init__(self, threads: int, constants: bytes) -> None:
        self.threads = threads
        self.r = np.zeros((256, threads), np.uint32)
        self.p = np.zeros((8, threads), bool)
        self.ur = np.zeros((64, threads), np.uint32)
        self.up = np.zeros((8, threads), bool)
        self.p[TRUE] = self.up[TRUE] = True
        self.constants = np.frombuffer(constants + bytes(16), np.uint8)

    def constant(self, offsets: Array, count: int) -> list[Array]:
        """`count` words from each byte offset on. Those of threads that are not asked may be anywhere."""
        found = self.constants[(offsets[:, None] + np.arange(4 * count)) % len(self.constants)]
        return list(np.ascontiguousarray(found).view(np.uint32).T)


@dataclass(frozen=True)
class Operand:
    kind: str  # r, ur, p, up, c, number, other
    index: int = 0  # of a register, or the offset in a constant bank
    base: int = ZERO  # the register that is added to that offset
    negative: bool = False
    inverted: bool = False  # ~ or !
    absolute: bool = False
    part: str = ""  # H0, H1, B0 ... B3
    text: str = ""

    def words(self, registers: Registers, count: int = 1) -> list[Array]:
        """`count` 32-bit words without what is done to them."""
        if self.kind in ("r", "ur"):
            file, zero = (registers.r, ZERO) if self.kind == "r" else (registers.ur, UNIFORM_ZERO)
            return [file[zero if self.index == zero else self.index + n] for n in range(count)]
        if self.kind == "c":
            return registers.constant(registers.r[self.base].astype(np.int64) + self.index, count)
        if self.kind == "number":
            value = int(self.text, 0) % (1 << 32 * count)
            words = [value >> 32 * n & 0xFFFFFFFF for n in range(count)]
            return [np.full(registers.threads, word, np.uint32) for word in words]
        raise NotImplementedError(f"operand {self.text}")

    def integer(self, registers: Registers) -> Array:
        (word,) = self.words(registers)
        if self.part:
            shift = int(self.part[1]) * (16 if self.part[0] == "H" else 8)
            word = word >> np.uint32(shift) & np.uint32(0xFFFF if self.part[0] == "H" else 0xFF)
        if self.absolute:
            word = np.abs(word.view(np.int32)).view(np.uint32)
        if self.inverted:
            return ~word
        return (0 - word.astype(np.int64)).astype(np.uint32) if self.negative else word

    def addend(self, registers: Registers) -> Array:
        """As it enters a sum with a carry: -x is 2^32 - x."""
        word = self.words(registers)[0].astype(np.int64)
        if self.inverted:
            word = 0xFFFFFFFF - word
        return (1 << 32) - word if self.negative else word

    def long(self, registers: Registers) -> Array:
        low, high = self.words(registers, 2)
        value = high.astype(np.uint64) << np.uint64(32) | low
        return np.uint64(0) - value if self.negative else value

    def real(self, registers: Registers) -> Array:
        if self.kind == "number":
            value = np.full(registers.threads, self.text.replace("QNAN", "nan"), np.float32)
        else:
            value = np.ascontiguousarray(self.words(registers)[0]).view(np.float32)
        return self._signed(value)

    def double(self, registers: Registers) -> Array:
        if self.kind == "number":
            value = np.full(registers.threads, self.text.replace("QNAN", "nan"), np.float64)
        else:
            value = Operand(self.kind, self.index, self.base, text=self.text).long(registers).view(np.float64)
        return self._signed(value)

    def halves(self, registers: Registers) -> Array:
        """Two float16 of each thread, the lower first."""
        word = np.ascontiguousarray(self.words(registers)[0]).view(np.float16).reshape(-1, 2)
        if self.part:
            word = np.repeat(word[:, int(self.part[1]), None], 2, axis=1)
        return self._signed(word)

    def truth(self, registers: Registers) -> Array:
        value = (registers.p if self.kind == "p" else registers.up)[self.index]
        return ~value if self.inverted else value

    def write(self, registers: Registers, mask: Array, *words: Array) -> None:
        file, zero = (registers.r, ZERO) if self.kind == "r" else (registers.ur, UNIFORM_ZERO)
        if self.index != zero:
            for n, word in enumerate(words):
                np.copyto(file[self.index + n], word, where=mask)

    def write_lanes(self, registers: Registers, lanes: Array, words: Array) -> None:
        """words: of each lane."""
        for n in range(words.shape[1]):
            if self.index + n < ZERO:
                registers.r[self.index + n, lanes] = words[:, n]

    def write_long(self, registers: Registers, mask: Array, value: Array) -> None:
        bits = value.view(np.uint64)
        self.write(registers, mask, bits.astype(np.uint32), (bits >> np.uint64(32)).astype(np.uint32))

    def write_truth(self, registers: Registers, mask: Array, value: Array) -> None:
        if self.index != TRUE:
            np.copyto((registers.p if self.kind == "p" else registers.up)[self.index], value, where=mask)

    def _signed(self, value: Array) -> Array:
        value = np.abs(value) if self.absolute else value
        return -value if self.negative else value


_REGISTER = re.compile(
    r"(-|~|!)?(\|)?(U)?(R|P)(\d+|Z|T)(?:\.(?:(H[01])(?:_H[01])?|(B[0-3])|64|U32|F32))*(\|)?"
)
_CONSTANT = re.compile(r"(-|~)?(\|)?c\[0x0\]\[(?:R(\d+|Z)\+?)?(?:0x([0-9a-f]+))?\](\|)?")
_NUMBER = re.compile(r"[-+]?(0x[0-9a-f]+|[\d.]+(e[-+]?\d+)?|INF|QNAN)")


def parse(text: str) -> Operand:
    text = text.strip()
    if found := _REGISTER.fullmatch(text):
        sign, bar, uniform, letter, number, half, byte, _ = found.groups()
        kind = ("u" if uniform else "") + letter.lower()
        last = {"r": ZERO, "ur": UNIFORM_ZERO, "p": TRUE, "up": TRUE}[kind]
        index = last if number in "ZT" else int(number)
        return Operand(
            kind, index, ZERO, sign == "-", sign in ("~", "!"), bool(bar), half or byte or "", text
        )
    if found := _CONSTANT.fullmatch(text):
        sign, bar, base, offset, _ = found.groups()
        register = ZERO if base in (None, "Z") else int(base)
        return Operand("c", int(offset or "0", 16), register, sign == "-", sign == "~", bool(bar), "", text)
    return Operand("number" if _NUMBER.fullmatch(text) else "other", text=text)


_ADDRESS = re.compile(r"(?:desc\[UR\d+\])?\[(?:(U?R(?:\d+|Z))(\.64|\.U32)?)?\+?(UR\d+)?\+?(-?0x[0-9a-f]+)?\]")


def parse_address(text: str) -> Callable[[Registers], Array]:
    """The byte addresses that ``[R2.64+0x4]`` names."""
    found = _ADDRESS.fullmatch(text.strip())
    if found is None:
        raise NotImplementedError(f"address {text}")
    base, wide, added, offset = found.groups()
    register = parse(base) if base else None
    other = parse(added) if added else None
    constant = int(offset or "0", 16)

    def address(registers: Registers) -> Array:
        total = np.full(registers.threads, constant, np.int64)
        if register is not None:
            is_long = wide == ".64"
            total += (register.long if is_long else register.integer)(registers).astype(np.int64)
        if other is not None:
            total += (other.long if wide == ".U32" else other.integer)(registers).astype(np.int64)
        return total

    return address


# What an instruction does to the registers of the threads in a mask; made from the parts of its name behind
# the first and from its operands.
Effect = Callable[[Registers, Array], None]
Meanings = dict[str, Callable[[list[str], list[Operand]], Effect]]
