# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints: written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch


def save(state: dict[str, Any], path: Path) -> None:
    """To a file beside it first, then renamed: whoever reads ``path`` finds the old state or the new one."""
    _replace(path, lambda temporary: torch.save(state, temporary))


def save_json(value: Any, path: Path) -> None:
    text = json.dumps(value, indent=1, default=str)
    _replace(path, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))


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


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is no checkpoint of this package.
    """
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {str(path)!r} does not exist")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise ValueError(f"{str(path)!r} cannot be read as a checkpoint: {error}") from error
    if not isinstance(state, dict) or "model" not in state or "classes" not in state:
        raise ValueError(f"{str(path)!r} is no checkpoint of racnn: it must hold 'model' and 'classes'")
    return state
