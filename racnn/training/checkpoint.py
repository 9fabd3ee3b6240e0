# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints: written whole or not at all, and read whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import textwrap
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Config


def save(state: dict[str, Any], path: Path) -> None:
    """To a file beside it first, then renamed: whoever reads ``path`` finds the old state or the new one.

    Raises:
        FloatingPointError: a weight is not finite.
        OSError: the file cannot be written.
    """
    if broken := _not_finite(state["model"]):
        raise FloatingPointError(f"{broken} is not finite, {str(path)!r} stays as it was")
    _replace(path, lambda temporary: _write(state, temporary))


def _write(state: dict[str, Any], path: Path) -> None:
    try:
        torch.save(state, path)
    except RuntimeError as error:  # of torch's writer, also where the disk is full
        raise OSError(f"{str(path)!r} cannot be written, is the disk full? {_one_line(error)}") from error


def save_json(value: Any, path: Path) -> None:
    save_text(json.dumps(value, indent=1, default=str) + "\n", path)


def save_text(text: str, path: Path) -> None:
    """Names of files in it keep their bytes."""
    _replace(path, lambda temporary: temporary.write_bytes(text.encode("utf-8", "surrogateescape")))


def _replace(path: Path, write: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(path: Path) -> None:
    """What processes that were killed while they wrote ``path`` have left beside it."""
    for temporary in path.parent.glob(f".{path.name}.*"):
        temporary.unlink(missing_ok=True)


def load(path: Path, device: torch.device | str = "cpu", keys: Sequence[str] = ()) -> dict[str, Any]:
    """The state; ``"config"`` is a :class:`racnn.config.Config` again.

    Args:
        keys: what it must hold besides a model, its classes and its configuration.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or no checkpoint of this version. One line, which names the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {str(path)!r} does not exist or is no file")
    try:
        _check_archive(path)
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise ValueError(f"checkpoint {str(path)!r} cannot be read: {_one_line(error)}") from error
    with naming(path):
        _check(state, ("model", "classes", "config", *keys))
        state["config"] = Config.from_dict(state["config"])
    return state


def _check_archive(path: Path) -> None:
    """torch.load does not compare checksums, and of files said to be folders or larger it reads memory."""
    with zipfile.ZipFile(path) as archive:
        odd = [f.filename for f in archive.infolist() if f.compress_size != f.file_size or f.external_attr]
        if name := odd[0] if odd else archive.testzip():
            raise ValueError(f"it is damaged at {name!r}")


def _check(state: Any, keys: Sequence[str]) -> None:
    missing = [key for key in keys if key not in state] if isinstance(state, dict) else keys
    if missing:
        raise ValueError(f"it must hold {', '.join(map(repr, missing))}")
    model, classes = state["model"], state["classes"]
    if not isinstance(model, dict) or not all(isinstance(value, Tensor) for value in model.values()):
        raise ValueError("'model' must map names to tensors")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("'classes' must be a list of names")


def load_weights(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Raises:
    ValueError: a weight is not finite.
    RuntimeError: names or shapes are others.
    """
    model.load_state_dict(state)
    if broken := _not_finite(state):
        raise ValueError(f"{broken} is not finite")


def _not_finite(weights: dict[str, Tensor]) -> str | None:
    return next((name for name, value in weights.items() if not value.isfinite().all()), None)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """What does not fit while a checkpoint's state is used: a ValueError of one line that names the file."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"checkpoint {str(path)!r} cannot be used: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    text = repr(error) if isinstance(error, KeyError) else str(error)
    return textwrap.shorten(text, 250, placeholder=" ...")
