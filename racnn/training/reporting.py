# SPDX-License-Identifier: BSD-3-Clause
"""What a run shows while it runs: a progress bar, a line an epoch, TensorBoard."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, cast

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor

from ..pictures import draw_moment
from .processes import Processes


class _Stream:
    """A stream that never ends a run: it escapes what it cannot encode, and drops what it cannot write."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        encoding = self._stream.encoding or "utf-8"
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


class Reporter:
    """Silent on all processes but the first."""

    def __init__(self, output: Path, processes: Processes, step: int) -> None:
        stream = cast(TextIO, _Stream(sys.stdout)) if sys.stdout else None
        quiet = not processes.is_first
        self.console = Console(file=stream, quiet=quiet, markup=False, emoji=False, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        shown = processes.is_first and self.console.is_terminal
        self.progress = Progress(*columns, console=self.console, transient=True, disable=not shown)
        self._task: TaskID | None = None
        self._writer: Any = None
        if processes.is_first:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(output / "tensorboard"), purge_step=step or None)

    def __enter__(self) -> Reporter:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()
        if self._writer is not None:
            self._writer.close()

    def start_epoch(self, title: str, steps: int, completed: int) -> None:
        if self._task is not None:
            self.progress.remove_task(self._task)
        self._task = self.progress.add_task(title, total=steps, completed=completed)

    def step(self) -> None:
        if self._task is not None:
            self.progress.advance(self._task)

    def note(self, text: str) -> None:
        self.console.print(text)

    def end_epoch(self, record: dict[str, Any], images: Sequence[Tensor]) -> None:
        """``images`` (3, S, S) uint8: those whose windows are in the record."""
        for part in ("train", "validation"):
            for name, value in record[part].items():
                if self._writer is not None:
                    tag = f"{part}/{name}".replace(" ", "_").replace("+", "-")
                    self._writer.add_scalar(tag, value, record["step"])
        if self._writer is not None and record["windows"]:
            overlay = np.asarray(draw_moment(record, images))
            self._writer.add_image("windows", overlay, record["step"], dataformats="HWC")
        self.note(f"{record['phase']}, epoch {record['epoch']}: {summary(record)}")


def summary(record: dict[str, Any]) -> str:
    """The numbers of an epoch that are worth a line."""
    parts = []
    for part in ("train", "validation"):
        values = record[part]
        if not values:
            continue
        names = sorted(values, key=lambda name: (len(name), name))
        shown = [f"loss {values['loss']:.4f}"]
        accuracies = [f"{100 * values[name]:.1f}" for name in names if name.startswith("top-1")]
        if accuracies:
            shown.append("top-1 % " + " ".join(accuracies))
        windows = [
            f"tl {values[f'tl mean {n}']:.3f}±{values[f'tl spread {n}']:.3f}"
            for n in range(2, 10)
            if f"tl mean {n}" in values
        ]
        active = [f"{100 * values[name]:.0f}" for name in sorted(values) if name.startswith("hinge active")]
        if active:
            shown.append("hinge active % " + " ".join(active))
        parts.append(f"{part} " + ", ".join([*shown, *windows]))
    return "; ".join(parts)
