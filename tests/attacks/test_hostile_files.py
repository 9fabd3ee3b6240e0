# SPDX-License-Identifier: BSD-3-Clause
"""A moment of hostile_files.py, and whether it would see anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def attack(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "hostile_files.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_hostile_files_are_read_or_refused_in_one_line() -> None:
    kinds = ("image", "cub", "dogs", "cars", "entries", "history", "picture", "judged")
    result = attack("--seed", "0", "--cases", "125", "--limit", "60", "--kinds", *kinds)
    assert result.returncode == 0, result.stderr
    assert "no findings" in result.stdout


@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        ("planted exception", "KeyError: 'planted'"),
        ("planted crash", "the process ended with status -11"),
        ("planted hang", "takes more than 1 seconds"),
    ],
)
def test_an_attack_names_what_it_finds(plant: str, reason: str) -> None:
    result = attack("--seed", "7", "--cases", "1", "--limit", "1", "--kinds", plant)
    assert result.returncode == 1
    assert reason in result.stderr
    assert "--seed 7 --cases 1" in result.stderr
