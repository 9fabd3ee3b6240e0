# SPDX-License-Identifier: BSD-3-Clause
"""The .mat files of Stanford Dogs and Stanford Cars, read by scipy in a process of its own.

A damaged file can end scipy's compiled code with a signal; then it ends that process, not a run.
"""

from __future__ import annotations

import json
import os
import reprlib
import signal
import subprocess
import sys
from numbers import Real
from pathlib import Path
from typing import Any

SECONDS = 120
READER = """
import json, resource, sys
from scipy.io import loadmat
resource.setrlimit(resource.RLIMIT_AS, (2**33, resource.getrlimit(resource.RLIMIT_AS)[1]))
path, *names = sys.argv[1:]
found = loadmat(path, simplify_cells=True, variable_names=names)
json.dump({name: found[name] for name in names if name in found}, sys.stdout, default=lambda v: v.tolist())
"""


def read_mat(path: Path, *names: str) -> list[list[Any]]:
    """The values of each named variable.

    A value is a number, a str, a dict of a struct's fields, or a list of such where it has not one of them.

    Raises:
        ImportError: there is no scipy.
        ValueError: it is no such file, or a variable is missing.
    """
    try:
        variables = json.loads(_output_of_reader(path, names))
    except ValueError as error:
        raise ValueError(f"{path} must be a MATLAB file, version 4 to 7.2: {error}") from error
    missing = [name for name in names if name not in variables]
    if missing:
        raise ValueError(f"{path} must hold the variable {', '.join(missing)}")
    return [value if isinstance(value, list) else [value] for value in map(variables.__getitem__, names)]


def _output_of_reader(path: Path, names: tuple[str, ...]) -> str:
    command = [sys.executable, "-c", READER, str(path), *names]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    try:
        result = subprocess.run(
            command, capture_output=True, encoding="utf-8", env=environment, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"scipy does not come to an end with it in {SECONDS} s") from None
    if result.returncode < 0:
        raise ValueError(f"it ended scipy by {signal.Signals(-result.returncode).name}")
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        if reason.startswith("ModuleNotFoundError"):
            raise ImportError(f"{path} needs the package scipy: pip install 'racnn-ops[racnn]'")
        raise ValueError(reason)
    return result.stdout


def text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: must be text, got {reprlib.repr(value)}")
    return value


def number(value: Any, where: str) -> float:
    if not isinstance(value, Real):
        raise ValueError(f"{where}: must be a number, got {reprlib.repr(value)}")
    return float(value)


def whole(value: Any, where: str) -> int:
    found = number(value, where)
    if not found.is_integer():
        raise ValueError(f"{where}: must be a whole number, got {found}")
    return int(found)
