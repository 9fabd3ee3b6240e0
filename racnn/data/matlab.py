# SPDX-License-Identifier: BSD-3-Clause
"""The .mat files of Stanford Dogs and Stanford Cars: MATLAB 5, the format of MATLAB 5 to 7.2.

scipy reads them too, but a damaged file can end the process in its compiled code.
"""

from __future__ import annotations

import math
import reprlib
import struct
import zlib
from collections.abc import Iterator
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LARGEST = 1 << 28
"""Bytes of one variable, uncompressed."""
DEEPEST = 16
"""Cells in structs in cells."""
MATRIX, COMPRESSED = 14, 15
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CODECS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
CELL, STRUCT, CHAR, NUMERIC = 1, 2, 4, range(6, 16)


class Element(NamedTuple):
    kind: int
    data: memoryview


def read_mat(path: Path, *names: str) -> list[list[Any]]:
    """The values of each named variable, column after column.

    A value is a number, a str, a dict of a struct's fields, or a list of such where it has not one of them.

    Raises:
        ValueError: it is no such file, or a variable is missing.
    """
    try:
        variables = _variables(memoryview(path.read_bytes()))
    except (ValueError, struct.error, zlib.error) as error:
        raise ValueError(f"{path} must be a MATLAB file, version 5: {error}") from error
    missing = [name for name in names if name not in variables]
    if missing:
        raise ValueError(f"{path} must hold the variable {', '.join(missing)}")
    return [value if isinstance(value, list) else [value] for value in map(variables.__getitem__, names)]


def text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: must be text, got {reprlib.repr(value)}")
    return value


def number(value: Any, where: str) -> float:
    if not isinstance(value, Real):
        raise ValueError(f"{where}: must be a number, got {reprlib.repr(value)}")
    return float(value)


def whole(value: Any, where: str) -> int:
    found = number(value, where)
    if not found.is_integer():
        raise ValueError(f"{where}: must be a whole number, got {found}")
    return int(found)


def _variables(file: memoryview) -> dict[str, Any]:
    order = {b"IM": "<", b"MI": ">"}.get(bytes(file[126:128]))
    if order is None:
        raise ValueError("its header is of another format")
    reader = Reader(order)
    found = {}
    for kind, data in reader.elements(file[128:]):
        if kind == COMPRESSED:
            stream = zlib.decompressobj()
            unpacked = stream.decompress(data, LARGEST)
            if not stream.eof:
                raise ValueError("a variable is cut off or too large")
            ((kind, data),) = reader.elements(memoryview(unpacked))
        if kind == MATRIX:
            name, value = reader.matrix(data, 0)
            found[name] = value
    return found


class Reader:
    """Of elements in one byte order, ``"<"`` or ``">"``."""

    def __init__(self, order: str) -> None:
        self.order = order
        self.word = struct.Struct(f"{order}I")

    def elements(self, data: memoryview) -> Iterator[Element]:
        at = 0
        while at < len(data):
            (kind,) = self.word.unpack_from(data, at)
            if kind >> 16:  # a small one: kind, size and data in 8 bytes
                kind, size, start, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
            else:
                (size,) = self.word.unpack_from(data, at + 4)
                start = at + 8
                end = start + size + (0 if kind == COMPRESSED else -size % 8)
            if start + size > min(end, len(data)):
                raise ValueError("it is cut off")
            yield Element(kind, data[start : start + size])
            at = end

    def matrix(self, data: memoryview, depth: int) -> tuple[str, Any]:
        """Name and value."""
        if depth > DEEPEST:
            raise ValueError("its values are nested too deeply")
        if not data:
            return "", []
        flags, shape, name, *rest = self.elements(data)
        kind, count = self.numbers(flags)[0] & 0xFF, math.prod(self.numbers(shape))
        values: list[Any] | None = None
        if kind == CELL:
            values = [self.inner(element, depth) for element in rest]
        elif kind == STRUCT:
            values = self.structs(rest, depth)
        elif kind == CHAR:
            values, count = self.rows(rest[0], self.numbers(shape)[0]), self.numbers(shape)[0]
        elif kind in NUMERIC:
            values = self.numbers(rest[0])
        if values is not None and len(values) != count:
            raise ValueError(f"an array holds {len(values)} values, not {count}")
        return bytes(name.data).decode("latin-1"), values[0] if values and count == 1 else values

    def inner(self, element: Element, depth: int) -> Any:
        if element.kind != MATRIX:
            raise ValueError(f"a cell holds an element of type {element.kind}")
        return self.matrix(element.data, depth + 1)[1]

    def structs(self, parts: list[Element], depth: int) -> list[Any]:
        length, names, *fields = parts
        step = max(self.numbers(length)[0], 1)
        text = bytes(names.data).decode("latin-1")
        keys = [text[at : at + step].split("\0")[0] for at in range(0, len(text), step)]
        values = [self.inner(field, depth) for field in fields]
        every = range(0, len(values), max(len(keys), 1))
        return [dict(zip(keys, values[at : at + len(keys)], strict=True)) for at in every]

    def rows(self, element: Element, count: int) -> list[str]:
        """Text is stored column after column."""
        codec = CODECS.get(element.kind)
        if codec is None:
            raise ValueError(f"text has the type {element.kind}")
        if codec in ("utf-16", "utf-32"):
            codec += "-le" if self.order == "<" else "-be"
        text = bytes(element.data).decode(codec)
        return [text[row::count] for row in range(count)]

    def numbers(self, element: Element) -> list[Any]:
        kind = NUMBERS.get(element.kind)
        if kind is None:
            raise ValueError(f"numbers have the type {element.kind}")
        values: list[Any] = (
            np.frombuffer(element.data, f"{self.order}{kind}").tolist() if element.data else []
        )
        return values
