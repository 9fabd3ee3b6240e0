# SPDX-License-Identifier: BSD-3-Clause
"""Kills training runs at random moments of every phase, resumes them, and compares them with whole ones.

A case takes one of the runs with everything random switched on: once to its end, and once with a SIGKILL in
each of its phases. Both must end with the same files, bit for bit. Exit status 1 if not; the line that
is printed then starts with the same case.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "model")]

import attack  # noqa: E402
import torch  # noqa: E402
from trees import RANDOM_RUNS, make_cub, random_config  # noqa: E402

from racnn.config import Config  # noqa: E402
from racnn.data import Split, read_split  # noqa: E402
from racnn.training.folder import BEST, HISTORY, LAST  # noqa: E402
from racnn.training.phases import Phase  # noqa: E402
from racnn.training.processes import Processes  # noqa: E402
from racnn.training.trainer import Trainer  # noqa: E402

ALONE = Processes(0, 1, torch.device("cpu"))
LIMIT = 60.0
"""Seconds after which a run hangs."""


class Failure(Exception):
    pass


class Reporting(Trainer):
    """Tells the parent when a phase starts."""

    pipe: int

    def _run_phase(self, phase: Phase) -> None:
        os.write(self.pipe, f"{phase.name}\n".encode())
        super()._run_phase(phase)


class Run:
    """A training run in a process of its own, forked: it starts within milliseconds."""

    def __init__(self, config: Config, split: Split, output: Path) -> None:
        self.started = time.monotonic()
        self.phases: dict[str, float] = {}
        self.status: int | None = None
        self.log = output.with_suffix(".log")
        self._pipe, write = os.pipe()
        os.set_blocking(self._pipe, False)
        self.process = os.fork()
        if self.process == 0:
            os._exit(_train(config, split, output, self.log, write))
        os.close(write)

    def look(self) -> None:
        """Take note of phases that have started, and of the end."""
        with contextlib.suppress(BlockingIOError):
            for name in os.read(self._pipe, 1 << 16).decode().splitlines():
                self.phases[name] = time.monotonic() - self.started
        if self.status is None:
            process, status = os.waitpid(self.process, os.WNOHANG)
            if process:
                self.status = os.waitstatus_to_exitcode(status)
                os.close(self._pipe)

    def moments(self) -> Iterator[float]:
        """Until it ends."""
        while True:
            now = time.monotonic() - self.started
            self.look()
            if self.status is not None:
                return
            if now > LIMIT:
                os.kill(self.process, signal.SIGKILL)
                os.waitpid(self.process, 0)
                raise Failure(f"hangs: {self.log.read_text()[-2000:]}")
            yield now
            time.sleep(0.001)

    def finish(self) -> float:
        """Returns the seconds it took."""
        for _ in self.moments():
            pass
        if self.status != 0:
            raise Failure(f"ended with {self.status}: {self.log.read_text()[-2000:]}")
        return time.monotonic() - self.started

    def kill_in(self, phase: str, after: float) -> bool:
        """So many seconds after the phase has started. False if it was over before."""
        for now in self.moments():
            if phase in self.phases and now >= self.phases[phase] + after:
                os.kill(self.process, signal.SIGKILL)
        if self.status not in (0, -signal.SIGKILL):
            raise Failure(f"ended with {self.status}: {self.log.read_text()[-2000:]}")
        return self.status != 0


def _train(config: Config, split: Split, output: Path, log: Path, pipe: int) -> int:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        trainer = Reporting(config, split, output, ALONE, resume=(output / LAST).is_file())
        trainer.pipe = pipe
        trainer.run()
        return 0
    except BaseException:
        traceback.print_exc()
        return 1


def case(number: int, folder: Path) -> list[str]:
    """Returns in which phases the run was killed."""
    chance = random.Random(number)
    config = random_config(make_cub(folder / "birds", each=9), list(RANDOM_RUNS)[number % len(RANDOM_RUNS)])
    config.training = replace(config.training, seed=number)
    split = read_split("cub", config.data.root)
    whole = Run(config, split, folder / "whole")
    seconds = whole.finish()
    starts = [*whole.phases.values(), seconds]
    killed_in = []
    for phase, (start, end) in zip(whole.phases, pairwise(starts), strict=True):
        run = Run(freely(config, chance), split, folder / "killed")
        if run.kill_in(phase, chance.uniform(0, end - start)):
            killed_in.append(list(run.phases)[-1])
    Run(freely(config, chance), split, folder / "killed").finish()
    compare(folder / "whole", folder / "killed")
    return killed_in


def freely(config: Config, chance: random.Random) -> Config:
    """With other values of what a resumed run may change."""
    data = replace(config.data, workers=chance.choice((0, 0, 1)), keep=chance.random() < 0.5)
    return replace(config, data=data, training=replace(config.training, checkpoint_every=chance.randrange(4)))


def compare(whole: Path, killed: Path) -> None:
    if (whole / HISTORY).read_bytes() != (killed / HISTORY).read_bytes():
        raise Failure(f"{HISTORY} differs")
    for file in (LAST, BEST):
        states = [torch.load(folder / file, weights_only=True) for folder in (whole, killed)]
        for state in states:
            del state["config"]  # what :func:`freely` changes
        if where := difference(*states):
            raise Failure(f"{file} differs at {where}")
    if left := [path.name for path in killed.iterdir() if path.name[0] == "." and path.name != ".lock"]:
        raise Failure(f"temporary files are left: {left}")


def difference(one: Any, other: Any, where: str = "state") -> str | None:
    """Where two states differ in a bit."""
    if type(one) is not type(other):
        return where
    if isinstance(one, torch.Tensor):
        return None if one.numpy().tobytes() == other.numpy().tobytes() else where
    if isinstance(one, dict | list):
        keys = list(one) if isinstance(one, dict) else list(range(len(one)))
        if keys != (list(other) if isinstance(other, dict) else list(range(len(other)))):
            return where
        found = (difference(one[key], other[key], f"{where}[{key!r}]") for key in keys)
        return next((place for place in found if place), None)
    return None if one == other else where


def main() -> int:
    options = attack.parser(__doc__).parse_args()
    torch.set_num_threads(1)  # who forks must have no threads
    kills = Counter[str]()

    def kill(number: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            kills.update(case(number, Path(folder)))

    status = attack.run(options, kill)
    print("killed in " + ", ".join(f"{phase} {count}" for phase, count in sorted(kills.items())))
    return status


if __name__ == "__main__":
    sys.exit(main())
