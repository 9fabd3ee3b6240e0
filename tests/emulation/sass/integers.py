# SPDX-License-Identifier: BSD-3-Clause
"""Meanings of the instructions on integers, predicates and constants."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .operands import Array, Effect, Meanings, Operand, Registers

_U64 = np.uint64
COMPARE = {"LT": np.less, "LE": np.less_equal, "GT": np.greater, "GE": np.greater_equal}
COMPARE |= {"EQ": np.equal, "NE": np.not_equal}
COMBINE = {"AND": np.logical_and, "OR": np.logical_or, "XOR": np.logical_xor}


def _split(operands: list[Operand]) -> tuple[list[Operand], list[Operand], list[Operand]]:
    """Carries out (after the result), sources, carries in (at the end)."""
    rest = list(operands)
    is_truth = [o.kind in ("p", "up") for o in rest]
    first = is_truth.index(False) if False in is_truth else len(rest)
    last = len(rest) - (is_truth[::-1].index(False) if False in is_truth else 0)
    return rest[:first], rest[first:last], rest[last:]


def _imad(modifiers: list[str], operands: list[Operand]) -> Effect:
    result, carries, (a, b, c), carry_in = operands[0], *_split(operands[1:])
    is_signed = "U32" not in modifiers
    wide, high = "WIDE" in modifiers, "HI" in modifiers

    def effect(r: Registers, mask: Array) -> None:
        x, y = a.integer(r), b.integer(r)
        carry = carry_in[0].truth(r).astype(np.uint32) if carry_in else np.uint32(0)
        if not (wide or high):
            result.write(r, mask, x * y + c.integer(r) + carry)
            return
        if is_signed:
            product = (x.view(np.int32).astype(np.int64) * y.view(np.int32)).view(_U64)
        else:
            product = x.astype(_U64) * y
        total = product + c.long(r) + carry
        if carries:
            carries[0].write_truth(r, mask, total < product)
        if wide:
            result.write_long(r, mask, total)
        else:
            result.write(r, mask, (total >> _U64(32)).astype(np.uint32))

    return effect


def _iadd3(modifiers: list[str], operands: list[Operand]) -> Effect:
    result, carries, sources, carry_in = operands[0], *_split(operands[1:])

    def effect(r: Registers, mask: Array) -> None:
        total = sum(source.addend(r) for source in sources) + sum(c.truth(r) for c in carry_in)
        result.write(r, mask, (total & 0xFFFFFFFF).astype(np.uint32))
        for n, carry in enumerate(carries):
            carry.write_truth(r, mask, total >> 32 > n)

    return effect


def _lea(modifiers: list[str], operands: list[Operand]) -> Effect:
    result, carries, sources, carry_in = operands[0], *_split(operands[1:])
    a, b, shift = sources[0], sources[1], int(sources[-1].text, 0)
    top = sources[2] if len(sources) == 4 else None

    def effect(r: Registers, mask: Array) -> None:
        low = a.integer(r).astype(_U64)
        if "SX32" in modifiers:
            low = low.astype(np.uint32).view(np.int32).astype(np.int64).view(_U64)
        elif top is not None:
            low |= top.integer(r).astype(_U64) << _U64(32)
        shifted = low << _U64(shift)
        part = shifted >> _U64(32) if "HI" in modifiers else shifted
        total = (part & _U64(0xFFFFFFFF)) + b.addend(r).astype(_U64)
        total += carry_in[0].truth(r) if carry_in else _U64(0)
        result.write(r, mask, total.astype(np.uint32))
        if carries:
            carries[0].write_truth(r, mask, total >> _U64(32) > 0)

    return effect


def _compare_integers(modifiers: list[str], operands: list[Operand]) -> Effect:
    to, to_other, a, b, *conditions = operands
    if conditions and conditions[0].kind not in ("p", "up"):
        raise NotImplementedError("a comparison of three")
    compare = COMPARE[modifiers[0]]
    combine = next(COMBINE[m] for m in modifiers if m in COMBINE)
    kind = np.uint32 if "U32" in modifiers else np.int32
    strict = {"LE": np.less, "GE": np.greater}.get(modifiers[0], compare)

    def effect(r: Registers, mask: Array) -> None:
        x, y = a.integer(r).view(kind), b.integer(r).view(kind)
        found = compare(x, y)
        if "EX" in modifiers:  # the upper half of 64 bits: the lower decides if they are equal
            low = conditions[1].truth(r)
            found = found | low if modifiers[0] == "NE" else strict(x, y) & (x != y) | (x == y) & low
        condition = conditions[0].truth(r)
        to_other.write_truth(r, mask, combine(~found, condition))
        to.write_truth(r, mask, combine(found, condition))

    return effect


def _lookup(table: int, a: Array, b: Array, c: Array) -> Array:
    """The bits of `table` are the results for a, b, c = 000, 001, ... 111."""
    result = np.zeros_like(a)
    for n in range(8):
        if table >> n & 1:
            result |= (a if n & 4 else ~a) & (b if n & 2 else ~b) & (c if n & 1 else ~c)
    return result


def _lop3(modifiers: list[str], operands: list[Operand]) -> Effect:
    truths, (result, a, b, c, table), _ = _split(operands)

    def effect(r: Registers, mask: Array) -> None:
        value = _lookup(int(table.text, 0), a.integer(r), b.integer(r), c.integer(r))
        result.write(r, mask, value)
        for truth in truths:
            truth.write_truth(r, mask, value != 0)

    return effect


def _plop3(modifiers: list[str], operands: list[Operand]) -> Effect:
    to, to_other, a, b, c, table, other_table = operands

    def effect(r: Registers, mask: Array) -> None:
        inputs = a.truth(r), b.truth(r), c.truth(r)
        other = _lookup(int(other_table.text, 0), *inputs)
        to.write_truth(r, mask, _lookup(int(table.text, 0), *inputs))
        to_other.write_truth(r, mask, other)

    return effect


def _shift(modifiers: list[str], operands: list[Operand]) -> Effect:
    result, low, amount, high = operands
    kind = next(m for m in modifiers if m[0] in "SU" and m[1:].isdigit())
    is_signed, left = kind[0] == "S", modifiers[0] == "L"

    def effect(r: Registers, mask: Array) -> None:
        bits = amount.integer(r)
        if "W" in modifiers:  # wraps
            bits = bits & np.uint32(31)
        bits = np.minimum(bits, np.uint32(63 if "64" in kind else 32)).astype(_U64)
        value = high.integer(r).astype(_U64) << _U64(32) | low.integer(r)
        if left:
            value = value << bits
        elif is_signed:
            value = (value.view(np.int64) >> bits.astype(np.int64)).view(_U64)
        else:
            value = value >> bits
        result.write(r, mask, (value >> _U64(32 if "HI" in modifiers else 0)).astype(np.uint32))

    return effect


def _permute(modifiers: list[str], operands: list[Operand]) -> Effect:
    result, a, selector, b = operands

    def effect(r: Registers, mask: Array) -> None:
        both = b.integer(r).astype(_U64) << _U64(32) | a.integer(r)
        chosen = selector.integer(r)
        value = np.zeros(r.threads, np.uint32)
        for n in range(4):
            nibble = chosen >> np.uint32(4 * n) & np.uint32(15)
            byte = (both >> (nibble & np.uint32(7)).astype(_U64) * _U64(8)).astype(np.uint32) & np.uint32(255)
            signs = np.where(byte & np.uint32(128), np.uint32(255), np.uint32(0))
            value |= np.where(nibble & np.uint32(8), signs, byte) << np.uint32(8 * n)
        result.write(r, mask, value)

    return effect


def _integers(f: Callable[..., Array]) -> Callable[[list[str], list[Operand]], Effect]:
    """`f`: of signed integers (unsigned with U32), and for those that choose of the predicate at the end."""

    def made(modifiers: list[str], operands: list[Operand]) -> Effect:
        result, *sources = operands
        kind = np.uint32 if "U32" in modifiers else np.int32

        def effect(r: Registers, mask: Array) -> None:
            values = [s.truth(r) if s.kind in ("p", "up") else s.integer(r).view(kind) for s in sources]
            result.write(r, mask, f(*values).astype(kind).view(np.uint32))

        return effect

    return made


def _select(modifiers: list[str], operands: list[Operand]) -> Effect:
    result, a, b, condition = operands
    return lambda r, mask: result.write(r, mask, np.where(condition.truth(r), a.integer(r), b.integer(r)))


def _predicates_to_register(modifiers: list[str], operands: list[Operand]) -> Effect:
    result, _, a, selected = operands

    def effect(r: Registers, mask: Array) -> None:
        bits = (r.p[:7] << np.arange(7)[:, None]).sum(0).astype(np.uint32)
        chosen = selected.integer(r)
        result.write(r, mask, bits & chosen | a.integer(r) & ~chosen)

    return effect


def _register_to_predicates(modifiers: list[str], operands: list[Operand]) -> Effect:
    _, a, selected = operands

    def effect(r: Registers, mask: Array) -> None:
        bits, chosen = a.integer(r), selected.integer(r)
        for n in range(7):
            wanted = mask & (chosen >> np.uint32(n) & np.uint32(1) != 0)
            np.copyto(r.p[n], bits >> np.uint32(n) & np.uint32(1) != 0, where=wanted)

    return effect


def _constant(modifiers: list[str], operands: list[Operand]) -> Effect:
    result, a = operands
    count = 4 if "128" in modifiers else 2 if "64" in modifiers else 1
    narrow = np.uint32(255 if "U8" in modifiers else 0xFFFF if "U16" in modifiers else 0xFFFFFFFF)
    return lambda r, mask: result.write(r, mask, *(word & narrow for word in a.words(r, count)))


def _first_bit(x: Array) -> Array:
    return np.where(x == 0, -1, np.frexp(x.view(np.uint32).astype(np.float64))[1] - 1)


def _reversed_bits(x: Array) -> Array:
    bits = np.unpackbits(np.ascontiguousarray(x).view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")
    return np.packbits(bits[:, ::-1], axis=1, bitorder="little").view(np.int32)[:, 0]


def _find_first(modifiers: list[str], operands: list[Operand]) -> Effect:
    # SH: counted from the top, as a shift would need it.
    return _integers(lambda x: 31 - _first_bit(x) if "SH" in modifiers else _first_bit(x))([], operands)


def _clear(modifiers: list[str], operands: list[Operand]) -> Effect:
    if operands[1].text != "SRZ":
        raise NotImplementedError(f"CS2R of {operands[1].text}")
    zero = np.zeros(1, np.uint32)
    words = (zero,) if "32" in modifiers else (zero, zero)
    return lambda r, mask: operands[0].write(r, mask, *words)


INTEGERS: Meanings = {
    "MOV": _integers(lambda x: x),
    "R2UR": _integers(lambda x: x),
    "IMAD": _imad,
    "IADD3": _iadd3,
    "VIADD": _iadd3,
    "LEA": _lea,
    "ISETP": _compare_integers,
    "LOP3": _lop3,
    "PLOP3": _plop3,
    "SEL": _select,
    "SHF": _shift,
    "PRMT": _permute,
    "IABS": _integers(np.abs),
    "POPC": _integers(lambda x: np.bitwise_count(x.view(np.uint32))),
    "BREV": _integers(_reversed_bits),
    "FLO": _find_first,
    "VIMNMX": _integers(lambda x, y, least: np.where(least, np.minimum(x, y), np.maximum(x, y))),
    "VIMNMX3": _integers(
        lambda x, y, z, least: np.where(
            least, np.minimum(np.minimum(x, y), z), np.maximum(np.maximum(x, y), z)
        )
    ),
    "VIADDMNMX": _integers(
        lambda x, y, z, least: np.where(least, np.minimum(x + y, z), np.maximum(x + y, z))
    ),
    "P2R": _predicates_to_register,
    "R2P": _register_to_predicates,
    "LDC": _constant,
    "ULDC": _constant,
    "CS2R": _clear,
}
