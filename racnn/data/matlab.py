# SPDX-License-Identifier: BSD-3-Clause
"""The .mat files of Stanford Dogs and Stanford Cars."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def read_mat(path: Path, *names: str) -> list[Any]:
    """The named variables of a MATLAB file.

    Raises:
        ValueError: it is no such file, or a variable is missing.
        ImportError: scipy is not installed.
    """
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise ImportError(f"{path} needs scipy: pip install 'racnn-ops[racnn]'") from error
    try:
        variables = loadmat(str(path), squeeze_me=True, chars_as_strings=True)
    except (MatReadError, ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(f"{path} must be a MATLAB file: {error}") from error
    missing = [name for name in names if name not in variables]
    if missing:
        raise ValueError(f"{path} must hold the variable {', '.join(missing)}")
    return [variables[name] for name in names]
