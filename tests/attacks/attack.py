# SPDX-License-Identifier: BSD-3-Clause
"""What the attacks share: their options, the loop over cases, and how a failure is told.

A case is known by its number alone: an attack is a function of it that raises where something is wrong.
Each attack is a program; `make attack` runs all for a while, with other numbers each time, pytest each for
a moment.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Sequence


def parser(description: str | None) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=(description or "").strip().splitlines()[0])
    options.add_argument("--seconds", type=float, default=20.0, help="begin no case after so long")
    options.add_argument("--seed", type=int, help="number of the first case; by default drawn anew each time")
    options.add_argument("--cases", type=int, help="end after so many cases")
    return options


def run(options: argparse.Namespace, case: Callable[[int], None]) -> int:
    """Cases one after the other until one fails or the time is up: the program's exit status."""
    first = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    until = time.monotonic() + options.seconds
    print(f"{sys.argv[0]}: from --seed {first}", flush=True)
    done = 0
    for number in itertools.count(first):
        if done == options.cases or time.monotonic() > until:
            break
        try:
            case(number)
        except Exception:
            traceback.print_exc()
            tell(number)
            return 1
        done += 1
    print(f"{sys.argv[0]}: {done} cases, no failure", flush=True)
    return 0


def tell(number: int, because: Sequence[str] = ()) -> None:
    """Say on stderr what failed, and how to have it again."""
    again = shlex.join(["python", sys.argv[0], "--seed", str(number), "--cases", "1"])
    print(*because, f"FAILED in case {number}; again with: {again}", sep="\n", file=sys.stderr, flush=True)
