# SPDX-License-Identifier: BSD-3-Clause
"""The attacks of tests/attacks, shortly and with the same numbers each time; `make attack` runs them long."""

from __future__ import annotations

import sys
from pathlib import Path

import direct_calls
import pytest
from emulation.build import CannotBuild
from programs import run

ATTACKS = Path(__file__).parent


def attack(name: str, *arguments: str, **env: str) -> str:
    command = (sys.executable, ATTACKS / f"{name}.py", "--seed", "1", "--seconds", "600", *arguments)
    result = run(*command, **env)
    assert result.returncode == 0, result.stdout[-6000:]
    return result.stdout


def test_random_calls_agree_with_the_formulas() -> None:
    assert "300 cases, no failure" in attack("random_calls", "--cases", "300")


@pytest.fixture(scope="module")
def sanitized_library() -> Path:
    try:
        return direct_calls.build()
    except CannotBuild as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["baseline", "avx2", "avx512"])
def test_no_direct_call_reaches_outside_its_tensors(sanitized_library: Path, capability: str) -> None:
    if f"with {capability} kernels" not in attack(
        "direct_calls", "--cases", "0", RACNN_CPU_CAPABILITY=capability
    ):
        pytest.skip(f"this machine has no {capability}")
    output = attack("direct_calls", "--cases", "1500", RACNN_CPU_CAPABILITY=capability)
    assert "1500 cases, no failure" in output


@pytest.mark.slow
def test_a_killed_run_goes_on_exactly() -> None:
    assert "1 cases, no failure" in attack("kill_runs", "--cases", "1")


def test_hostile_files_are_read_or_refused_in_one_line() -> None:
    kinds = ("image", "cub", "dogs", "cars", "entries", "history", "picture", "judged", "saved", "folders")
    output = attack("hostile_files", "--cases", "125", "--limit", "60", "--kinds", *kinds)
    assert "no findings" in output


@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        ("planted exception", "KeyError: 'planted'"),
        ("planted crash", "the process ended with status -11"),
        ("planted hang", "takes more than 1 seconds"),
    ],
)
def test_an_attack_names_what_it_finds(plant: str, reason: str) -> None:
    options = ("--seed", "7", "--cases", "1", "--limit", "1", "--kinds", plant)
    result = run(sys.executable, ATTACKS / "hostile_files.py", *options)
    assert result.returncode == 1
    assert reason in result.stdout
    assert "--seed 7 --cases 1" in result.stdout
