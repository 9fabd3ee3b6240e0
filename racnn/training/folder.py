# SPDX-License-Identifier: BSD-3-Clause
"""A run's folder: one run at a time has it, and goes on only with what it began with."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ..config import Config
from ..data import Record, Split
from . import checkpoint
from .processes import Processes

LAST, BEST, HISTORY = "last.pt", "best.pt", "history.json"
TRACKED = 8
"""Images whose windows the history has."""
# What a resumed run may change: it decides where and how fast, not what.
FREE = {"data.root", "data.workers", "data.keep", "training.device", "training.checkpoint_every"}
KEYS = ("data", "optimizer", "done", "history", "meters", "position")
"""What ``last.pt`` holds besides that which ``best.pt`` holds."""


class RunFolder:
    """Locked until its ``with`` block or this process ends. The first process has the lock for all.

    Attributes:
        warning: where the file system knows no locks, what that means.

    Raises:
        FileExistsError: the folder holds a run, and ``resume`` is False.
        FileNotFoundError: there is nothing to resume.
        OSError: another process has it, or it cannot be written to.
    """

    def __init__(self, path: Path, processes: Processes, *, resume: bool) -> None:
        self.path, self.processes, self.warning = path, processes, ""
        self._lock: IO[str] | None = None
        processes.on_first(lambda: self._take(resume))

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.close()

    def _take(self, resume: bool) -> None:
        if not resume:
            self.path.mkdir(parents=True, exist_ok=True)
        elif not (self.path / LAST).is_file():
            raise FileNotFoundError(f"{str(self.path / LAST)!r} does not exist: nothing to resume")
        self._lock = open(self.path / ".lock", "a")  # noqa: SIM115 it stays open
        try:
            # A lock of this process alone; flock's would last as long as the loader's processes do.
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise OSError(f"output {str(self.path)!r} is in use by another process") from None
        except OSError as error:
            self.warning = (
                f"{str(self.path)!r} cannot be locked ({error.strerror}): start no second run in it"
            )
        else:
            for name in (LAST, BEST, HISTORY):
                checkpoint.remove_unfinished(self.path / name)
        if not resume and (self.path / LAST).is_file():
            raise FileExistsError(f"output {str(self.path)!r} holds a run: resume it, or name another folder")

    def state(self, config: Config, split: Split) -> dict[str, Any]:
        """What ``last.pt`` holds.

        Raises:
            ValueError: it is no such file, or of a run with another configuration or other data.
        """
        path = self.path / LAST
        state = checkpoint.load(path, self.processes.device, KEYS)
        with checkpoint.naming(path):
            _check_options(state["config"].to_dict(), config.to_dict())
            _check_classes(state["classes"], split.classes)
            _check_images(state["data"], fingerprint(split.train, config.data.root))
        return state


def _check_options(then: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> None:
    for section, values in now.items():
        for name, value in values.items():
            before = then[section][name]
            if before != value and f"{section}.{name}" not in FREE:
                raise ValueError(f"{section}.{name} must be {before!r} as in it, got {value!r}")


def _check_classes(then: Sequence[str], now: Sequence[str]) -> None:
    for n, (before, name) in enumerate(zip_longest(then, now)):
        if before != name:
            raise ValueError(
                f"the classes must be its {len(then)}, got {len(now)}: class {n} was {before!r}, is {name!r}"
            )


def _check_images(then: dict[str, Any], now: dict[str, Any]) -> None:
    if then != now:
        raise ValueError(
            f"data.root must hold its {then['images']} training images with their labels, got "
            f"{now['images']}, or other names or labels"
        )


def fingerprint(records: Sequence[Record], root: Path) -> dict[str, Any]:
    """Of the images' names below ``root`` and their labels, in their order."""
    lines = (os.fsencode(os.path.relpath(record.path, root)) + b"\0%d\0" % record.label for record in records)
    return {"images": len(records), "sha256": hashlib.sha256(b"".join(lines)).hexdigest()}
