# SPDX-License-Identifier: BSD-3-Clause
"""Meanings of the instructions on float32, float64 and float16, and of conversions.

Roundings other than to nearest and flushing of denormals are left out: they decide no branch that counts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .integers import COMBINE, COMPARE
from .operands import TRUE, Array, Effect, Meanings, Operand, Registers

_U64 = np.uint64


def _compare_to_real(modifiers: list[str], operands: list[Operand]) -> Effect:
    result, a, b, condition = operands
    if modifiers[0] != "BF":  # 1 or 0
        raise NotImplementedError("a comparison whose result is no float")
    truth = Operand("p")
    compare = _compare(modifiers[1:], [truth, Operand("p", TRUE), a, b, condition], False)

    def effect(r: Registers, mask: Array) -> None:
        kept = r.p[truth.index].copy()
        compare(r, mask)
        result.write(r, mask, r.p[truth.index].astype(np.float32).view(np.uint32))
        r.p[truth.index] = kept

    return effect


def _compare(modifiers: list[str], operands: list[Operand], double: bool) -> Effect:
    to, to_other, a, b, condition = operands
    kind = modifiers[0]
    combine = next(COMBINE[m] for m in modifiers if m in COMBINE)

    def effect(r: Registers, mask: Array) -> None:
        x, y = (a.double(r), b.double(r)) if double else (a.real(r), b.real(r))
        unordered = np.isnan(x) | np.isnan(y)
        if kind in ("NAN", "NUM"):
            found = unordered if kind == "NAN" else ~unordered
        elif kind in ("MAX", "MIN"):  # whether the first is chosen; whether neither is a number
            to.write_truth(r, mask, (x > y if kind == "MAX" else x < y) | np.isnan(y))
            to_other.write_truth(r, mask, np.isnan(x) & np.isnan(y))
            return
        else:
            found = COMPARE[kind.removesuffix("U")](x, y) & ~unordered
            if kind.endswith("U"):
                found |= unordered
        given = condition.truth(r)
        to_other.write_truth(r, mask, combine(~found, given))
        to.write_truth(r, mask, combine(found, given))

    return effect


def _arithmetic(f: Callable[..., Array], double: bool) -> Callable[[list[str], list[Operand]], Effect]:
    def made(modifiers: list[str], operands: list[Operand]) -> Effect:
        result, *sources = operands

        def effect(r: Registers, mask: Array) -> None:
            value = f(*((s.double if double else s.real)(r) for s in sources))
            if "SAT" in modifiers:
                value = np.clip(np.nan_to_num(value), 0, 1)
            if double:
                result.write_long(r, mask, value)
            else:
                result.write(r, mask, value.astype(np.float32).view(np.uint32))

        return effect

    return made


def _fused(x: Array, y: Array, z: Array) -> Array:
    """One rounding, as near as makes no difference."""
    if x.dtype == np.float64:
        return (x.astype(np.longdouble) * y + z).astype(np.float64)
    return (x.astype(np.float64) * y + z).astype(np.float32)


def _minimum(modifiers: list[str], operands: list[Operand]) -> Effect:
    result, a, b, least = operands
    smaller, larger = (np.minimum, np.maximum) if "NAN" in modifiers else (np.fmin, np.fmax)

    def effect(r: Registers, mask: Array) -> None:
        x, y = a.real(r), b.real(r)
        result.write(r, mask, np.where(least.truth(r), smaller(x, y), larger(x, y)).view(np.uint32))

    return effect


def _select_reals(modifiers: list[str], operands: list[Operand]) -> Effect:
    result, a, b, condition = operands

    def effect(r: Registers, mask: Array) -> None:
        value = np.where(condition.truth(r), _real_or_bits(a, r), _real_or_bits(b, r))
        result.write(r, mask, value.view(np.uint32))

    return effect


def _real_or_bits(operand: Operand, r: Registers) -> Array:
    is_bits = operand.kind == "number" and "0x" in operand.text
    return operand.integer(r).view(np.float32) if is_bits else operand.real(r)


def _special(modifiers: list[str], operands: list[Operand]) -> Effect:
    result, a = operands
    functions = {"RCP": np.reciprocal, "RSQ": lambda x: 1 / np.sqrt(x), "SQRT": np.sqrt}
    functions |= {"EX2": np.exp2, "LG2": np.log2}
    kind = modifiers[0]

    def effect(r: Registers, mask: Array) -> None:
        if kind.endswith("64H"):  # the upper word of a double
            value = (a.integer(r).astype(_U64) << _U64(32)).view(np.float64)
            bits = functions[kind.removesuffix("64H")](value).view(_U64)
            result.write(r, mask, (bits >> _U64(32)).astype(np.uint32))
        else:
            result.write(r, mask, functions[kind](a.real(r)).astype(np.float32).view(np.uint32))

    return effect


def _between_reals(modifiers: list[str], operands: list[Operand]) -> Effect:
    result, a = operands
    to, source = modifiers[:2]
    if (to, source) == ("F32", "F64"):
        return lambda r, mask: result.write(r, mask, a.double(r).astype(np.float32).view(np.uint32))
    if (to, source) == ("F64", "F32"):
        return lambda r, mask: result.write_long(r, mask, a.real(r).astype(np.float64))
    raise NotImplementedError(f"F2F from {source} to {to}")


def _to_real(modifiers: list[str], operands: list[Operand]) -> Effect:
    result, a = operands
    # I2F.F64.S64: the result's type first, the source's last; I2FP.F32.S32.
    source = next((m for m in reversed(modifiers) if m[0] in "US" and m[1:].isdigit()), "S32")

    def effect(r: Registers, mask: Array) -> None:
        if source.endswith("64"):
            value = a.long(r).view(np.int64 if source == "S64" else _U64)
        else:
            kinds = {"S32": np.int32, "U32": np.uint32, "U16": np.uint16, "S16": np.int16, "U8": np.uint8}
            value = a.integer(r).astype(np.uint32).view(np.int32).astype(kinds[source])
        if "F64" in modifiers:
            result.write_long(r, mask, value.astype(np.float64))
        else:
            result.write(r, mask, value.astype(np.float32).view(np.uint32))

    return effect


def _to_integer(modifiers: list[str], operands: list[Operand]) -> Effect:
    result, a = operands
    target = next((m for m in modifiers if m in ("U32", "S64", "U64")), "S32")
    rounding = next((f for m, f in _ROUNDINGS.items() if m in modifiers), np.rint)
    bits = int(target[1:])
    least, most = (0, 2.0**bits) if target[0] == "U" else (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1))
    kind = {"U32": np.uint32, "S32": np.int32, "U64": _U64, "S64": np.int64}[target]

    def effect(r: Registers, mask: Array) -> None:
        value = a.double(r) if "F64" in modifiers else a.real(r).astype(np.float64)
        value = rounding(np.nan_to_num(value, nan=0.0, posinf=1e300, neginf=-1e300))
        whole = np.where(value < most, np.clip(value, least, np.nextafter(most, 0)), 0).astype(kind)
        whole = np.where(value >= most, np.iinfo(kind).max, whole)
        if bits == 64:
            result.write_long(r, mask, whole)
        else:
            result.write(r, mask, whole.view(np.uint32))

    return effect


_ROUNDINGS: dict[str, Any] = {"FLOOR": np.floor, "TRUNC": np.trunc, "CEIL": np.ceil}


def _round(modifiers: list[str], operands: list[Operand]) -> Effect:
    rounding = next((f for m, f in _ROUNDINGS.items() if m in modifiers), np.rint)
    return _arithmetic(rounding, "F64" in modifiers)(modifiers, operands)


def _pack(modifiers: list[str], operands: list[Operand]) -> Effect:
    result, high, low = operands

    def narrow(value: Array) -> Array:
        if "BF16" in modifiers:
            bits = value.view(np.uint32).astype(_U64)
            return ((bits + _U64(0x7FFF) + (bits >> _U64(16) & _U64(1))) >> _U64(16)).astype(np.uint32)
        return value.astype(np.float16).view(np.uint16).astype(np.uint32)

    return lambda r, mask: result.write(
        r, mask, narrow(high.real(r)) << np.uint32(16) | narrow(low.real(r)) & np.uint32(0xFFFF)
    )


def half_meaning(name: str, modifiers: list[str], operands: list[Operand], immediate: int) -> Effect:
    result, *sources = operands
    is_constant = sources[-1].kind == "number"  # two numbers, for the upper and the lower half
    registers = sources[:-2] if is_constant else sources

    def effect(r: Registers, mask: Array) -> None:
        values = [source.halves(r).astype(np.float32) for source in registers]
        if is_constant:
            constant = np.array([immediate], np.uint32).view(np.float16).astype(np.float32)
            values.append(np.broadcast_to(constant, (r.threads, 2)))
        value = values[0] * values[1] + values[2] if name == "HFMA2" else values[0] + values[1]
        if is_constant and not np.isfinite(constant).all():  # the bits of a number are moved
            result.write(r, mask, np.full(r.threads, immediate, np.uint32))
        elif "F32" in modifiers:
            result.write(r, mask, np.ascontiguousarray(value[:, 0]).view(np.uint32))
        else:
            result.write(r, mask, value.astype(np.float16).view(np.uint32)[:, 0])

    return effect


def _check_division(modifiers: list[str], operands: list[Operand]) -> Effect:
    """Whether a division needs the slow path: exponents near the ends."""
    to, a, b = operands

    def effect(r: Registers, mask: Array) -> None:
        x, y = np.abs(a.real(r)), np.abs(b.real(r))
        fine = (y > 2.0**-120) & (y < 2.0**120) & ((x == 0) | (x > 2.0**-100)) & (x < 2.0**120)
        to.write_truth(r, mask, ~fine)

    return effect


REALS: Meanings = {
    "FADD": _arithmetic(np.add, False),
    "FMUL": _arithmetic(np.multiply, False),
    "FFMA": _arithmetic(_fused, False),
    "FMNMX": _minimum,
    "FSEL": _select_reals,
    "FSETP": partial(_compare, double=False),
    "FSET": _compare_to_real,
    "FCHK": _check_division,
    "FRND": _round,
    "MUFU": _special,
    "DADD": _arithmetic(np.add, True),
    "DMUL": _arithmetic(np.multiply, True),
    "DFMA": _arithmetic(_fused, True),
    "DSETP": partial(_compare, double=True),
    "F2F": _between_reals,
    "I2F": _to_real,
    "I2FP": _to_real,
    "F2I": _to_integer,
    "F2FP": _pack,
}
