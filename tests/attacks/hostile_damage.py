# SPDX-License-Identifier: BSD-3-Clause
"""What hostile_files.py does to bytes, texts and values."""

from __future__ import annotations

from random import Random
from typing import Any

import torch

NUMBERS = (0, -1, 2**31 - 1, 2**31, 2**63, 1.5, 1e300, float("nan"), float("inf"))
TEXTS = (
    "",
    "x",
    "../../x",
    "/etc/passwd",
    "a\0b",
    "caf\xe9 \u2028",
    "$\\frac{a}$",
    "[/b]",
    "\ud800",
    "0" * 5000,
)
OTHERS = (None, True, [], {}, [1, 2], ["x"], {"x": 1}, [[[[1.0]]]])
TOKENS = (*map(str, NUMBERS), *TEXTS, "<!--", "&a;", "</object>", "{", "[[[[", "null", "\t", "\r", "\x85")


def damage(content: bytes, random: Random) -> bytes:
    """Bytes flipped, cut off, moved, repeated, filled or inserted, once or more."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        data = bytearray(content)
        at, to = sorted(random.randrange(len(data) + 1) for _ in range(2))
        if random.random() < 0.7:
            to = min(to, at + 16)
        kind = random.randrange(8)
        if kind == 0:
            del data[at:]
        elif kind == 1:
            del data[at:to]
        elif kind == 2:
            data[at:at] = data[at:to]
        elif kind == 3:
            data[at:to] = bytes([random.choice((0, 255, 127, 128))]) * (to - at)
        elif kind == 4:
            data[at:at] = random.randbytes(random.choice((1, 4, 100)))
        elif kind == 5:
            data[at:to], data[:0] = b"", bytes(data[at:to])
        else:  # headers are where it hurts
            for _ in range(random.choice((1, 2, 8, 50))):
                place = random.randrange(min(len(data), random.choice((200, 10**9))) or 1)
                data[place : place + 1] = bytes([random.randrange(256)])
        content = bytes(data)
    return content


def garble(content: bytes, random: Random) -> bytes:
    """Words and lines of a text exchanged; or bytes."""
    if random.random() < 0.3:
        return damage(content, random)
    lines = content.decode().splitlines(keepends=True)
    for _ in range(random.choice((1, 1, 3))):
        n, m = (random.randrange(len(lines)) for _ in range(2))
        words = lines[n].split(" ")
        kind = random.randrange(6)
        if kind == 0:
            words[random.randrange(len(words))] = random.choice(TOKENS)
            lines[n] = " ".join(words)
        elif kind == 1:
            start = random.randrange(len(lines[n]) + 1)
            lines[n] = lines[n][:start] + random.choice(TOKENS) + lines[n][start + random.randrange(5) :]
        elif kind == 2:
            lines[n] = lines[m]
        elif kind == 3:
            lines[n] = ""
        elif kind == 4:
            lines[n], lines[m] = lines[m], lines[n]
        else:
            words[-1] = lines[m].split(" ")[-1]
            lines[n] = " ".join(words)
    encoding = random.choice(("utf-8", "utf-8", "utf-8", "latin-1", "utf-16"))
    return "".join(lines).encode(encoding, "surrogatepass" if encoding != "latin-1" else "replace")


def spoil(value: Any, random: Random) -> Any:
    """A value somewhere in dicts and lists is lost, or becomes another."""
    inner = (
        list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    )
    if not inner or random.random() < 0.2:
        return hostile(value, random)
    key = random.choice(inner)
    changed = dict(value) if isinstance(value, dict) else list(value)
    if random.random() < 0.2:
        del changed[key]
    else:
        changed[key] = spoil(value[key], random)
    return changed


def hostile(value: Any, random: Random) -> Any:
    if isinstance(value, torch.Tensor) and random.random() < 0.7:
        return random.choice((value.flatten(), value[:0], value.double(), value * float("nan"), value[None]))
    return random.choice((*NUMBERS, *TEXTS, *OTHERS, torch.zeros(2, 2)))
