# SPDX-License-Identifier: BSD-3-Clause
"""Damaged and hostile files against readers and commands: each works, or is refused in one line.

A case is its number: the kind of file, what is done to it, and who reads it (hostile_cases.py). It may also
crash or hang, so cases run in a child process, which reports each before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import attack

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
START = 120.0
"""Seconds in which a child must have imported everything."""
BATCH = 2000
"""Cases of a child, so that what it piles up does not grow without end."""


class Finding(NamedTuple):
    number: int
    kind: str
    what: str


def parse() -> argparse.Namespace:
    options = attack.parser(__doc__)
    options.set_defaults(cases=10**9)
    options.add_argument("--kinds", nargs="+", default=[], help="these alone; other cases are passed over")
    options.add_argument("--limit", type=float, default=30.0, help="seconds that a case may take")
    options.add_argument("--reports", type=int, help=argparse.SUPPRESS)  # the child's: where it tells
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return options.parse_args()


PLANTED: dict[str, Callable[[], object]] = {
    "planted exception": lambda: {}["planted"],
    "planted crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "planted hang": lambda: time.sleep(3600),
}
"""Kinds that show that a finding would be seen."""


def cases(options: argparse.Namespace) -> Iterator[tuple[int, str, Callable[[], object]]]:
    numbers = range(options.seed, options.seed + options.cases)
    planted = [kind for kind in options.kinds if kind in PLANTED]
    if planted:
        yield from ((number, planted[0], PLANTED[planted[0]]) for number in numbers)
        return
    sys.path[:0] = [str(ROOT), str(ROOT / "tests/model"), str(HERE)]
    import hostile_cases

    for number in numbers:
        kind = hostile_cases.kind_of(number, options.kinds)
        if kind is not None:
            yield number, kind, partial(hostile_cases.KINDS[kind], random.Random(number), options.folder)


def work(options: argparse.Namespace) -> int:
    """The child: "begin N kind", then "end N" and what was found, or null."""
    with os.fdopen(options.reports, "w") as reports:
        for number, kind, case in cases(options):
            print("begin", number, kind, file=reports, flush=True)
            found = None
            try:
                case()
            except Exception:
                found = traceback.format_exc()
            print("end", number, json.dumps(found), file=reports, flush=True)
    return 0


class Child:
    """A process that runs cases, and the lines that it reports."""

    def __init__(self, options: argparse.Namespace, first: int, count: int, folder: Path) -> None:
        self.reports, theirs = os.pipe()
        command = [
            sys.executable,
            "-X",
            "faulthandler",
            __file__,
            "--seed",
            first,
            "--cases",
            count,
            "--reports",
            theirs,
        ]
        command += ["--folder", folder, *(["--kinds", *options.kinds] if options.kinds else [])]
        self.errors = folder / "errors"
        with self.errors.open("wb") as errors:
            words = [str(word) for word in command]
            self.process = subprocess.Popen(words, pass_fds=[theirs], stdout=errors, stderr=errors)
        os.close(theirs)
        self._unread = b""

    def line(self, seconds: float) -> str | None:
        """The next one; "" at the end, None where none comes in time."""
        until = time.monotonic() + seconds
        while b"\n" not in self._unread:
            if not select.select([self.reports], [], [], max(until - time.monotonic(), 0))[0]:
                return None
            more = os.read(self.reports, 1 << 16)
            if not more:
                return ""
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def end(self, patience: float) -> str:
        """How it ended, or was ended."""
        try:
            status = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        os.close(self.reports)
        tail = self.errors.read_text(errors="backslashreplace")[-2000:]
        return f"{tail}\nthe process ended with status {status}"


def findings(options: argparse.Namespace, first: int) -> Iterator[Finding | None]:
    """What each case found."""
    until, last = time.monotonic() + options.seconds, first + options.cases
    while first < last and time.monotonic() < until:
        count = min(last - first, BATCH)
        with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
            child, running, line = Child(options, first, count, Path(folder)), None, None
            try:
                while time.monotonic() < until or running is not None:
                    line = child.line(START if running is None else options.limit)
                    if not line:
                        break
                    word, number, rest = line.split(" ", 2)
                    if word == "begin":
                        running = int(number), rest
                        continue
                    kind, running, first = running[1], None, int(number) + 1
                    found = json.loads(rest)
                    yield Finding(int(number), kind, found) if found else None
            finally:
                how = child.end(START if line == "" else 0)
        if running is not None:
            why = f"takes more than {options.limit:g} seconds" if line is None else how
            yield Finding(*running, why)
            first = running[0] + 1
        elif line == "" and how.endswith("status 0"):
            first += count
        elif time.monotonic() < until:
            raise SystemExit(f"no case was begun: {how}")


def main() -> int:
    options = parse()
    if options.reports is not None:
        return work(options)
    first = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    print(f"{sys.argv[0]}: from --seed {first}", flush=True)
    done, alike = 0, Counter[tuple[str, str]]()
    for finding in findings(options, first):
        done += 1
        if finding is None:
            continue
        reason = finding.what.strip().splitlines()[-1]
        alike[finding.kind, reason[:60]] += 1
        if alike[finding.kind, reason[:60]] > 1:
            continue  # one of them is enough to begin with
        attack.tell(finding.number, (finding.what, finding.kind))
    for (kind, reason), count in alike.most_common():
        print(f"{count} x {kind}: {reason}", file=sys.stderr)
    print(f"{sys.argv[0]}: {done} cases, {sum(alike.values()) or 'no'} findings", flush=True)
    return 1 if alike else 0


if __name__ == "__main__":
    sys.exit(main())
