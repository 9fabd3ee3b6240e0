# SPDX-License-Identifier: BSD-3-Clause
"""Where commands write: never over what they, or others, may want to read again."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from .output import printable

TABLE = b"image,name_1,probability_1"
"""How a CSV file of predictions begins."""
PREDICTIONS = {"model", "classes", "predictions"}
"""What a JSON file of predictions holds."""


def figure_files(folder: Path, names: Iterable[str], inputs: Iterable[Path]) -> list[Path]:
    """A file in the folder for each name, whatever its characters; equal names are numbered.

    Raises:
        OSError: the folder cannot be made or written to.
        ValueError: one of the files is an input.
    """
    files: dict[str, Path] = {}
    for name in names:
        stem, suffix = os.path.splitext(re.sub(r"[/\\]", "_", printable(name)))
        choices = itertools.chain([stem], (f"{stem}-{n}" for n in itertools.count(2)))
        unique = next(f"{c}{suffix}" for c in choices if f"{c}{suffix}".casefold() not in files)
        files[unique.casefold()] = folder / unique
    _make_writable(folder)
    known = {_identity(path) for path in inputs if path.exists()}
    for file in files.values():
        if file.exists() and (_identity(file) in known or not file.is_file()):
            raise ValueError(f"--output must be a folder of no inputs: {printable(file)!r} would be lost")
    return list(files.values())


def check_result(path: Path) -> None:
    """Whether a result may be written there: to a new file, or over an earlier result.

    Raises:
        OSError: its folder cannot be made or written to.
        ValueError: it is another file, an input perhaps, or no file.
    """
    _make_writable(path.parent)
    if path.exists() and not (path.is_file() and (path.stat().st_size == 0 or _is_result(path))):
        raise ValueError(
            f"--output must be a new file or an earlier result, got {printable(path)!r}: it is left as it is"
        )


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Another path, of the same name, for a file or a folder: what is there at the end becomes ``path``, and
    what was written beside it goes along. After an error nothing is there.

    Raises:
        OSError: its folder cannot be made or written to.
        ValueError: the path is there already.
    """
    check_new(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        yield Path(folder) / path.name
        written = sorted(Path(folder).iterdir(), key=lambda made: made.name == path.name)
        for made in written:
            check_new(path.with_name(made.name))
        for made in written:  # the path itself comes last
            os.replace(made, path.with_name(made.name))


def check_new(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise ValueError(f"{printable(path)!r} is there already: it is left as it is")


def _is_result(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(len(TABLE))
    if start[:1] != b"{":  # a checkpoint is large
        return start == TABLE
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return False
    return isinstance(known, dict) and ("accuracy" in known or known.keys() == PREDICTIONS)


def _make_writable(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"--output: {printable(folder)!r} cannot be written to")


def _identity(path: Path) -> tuple[int, int]:
    """The same for all names and links of a file."""
    found = path.stat()
    return found.st_dev, found.st_ino
