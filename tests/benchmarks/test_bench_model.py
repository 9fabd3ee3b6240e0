# SPDX-License-Identifier: BSD-3-Clause
"""The model's benchmark runs and says what it measured. No time is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/bench_model.py"


def run(*options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_three_ways_of_cropping_are_timed(tmp_path: Path) -> None:
    options = ("--backbone", "test_resnet", "--sizes", 48, 32, "--batch", 2, "--rounds", 2)
    result = run(*options, "--device", "cpu", "--threads", 1, "--output", tmp_path)
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.glob("model-cpu-*.json")
    found = json.loads(path.read_text())
    assert set(found["modes"]) == {"inference", "training"}
    for times in found["modes"].values():
        assert set(times) == {"racnn_ops", "grid_sample", "slice + interpolate"}
        assert all(cell["samples"] == 2 and cell["images_per_s"] > 0 for cell in times.values())
    speeds = (found["modes"][mode]["grid_sample"]["images_per_s"] for mode in ("inference", "training"))
    assert f"| grid_sample | {' | '.join(f'{speed:.1f}' for speed in speeds)} |" in result.stdout
    assert found["difference_of_logits"]["racnn_ops"] == 0
    assert found["difference_of_logits"]["grid_sample"] < 1e-3


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    result = run("--batch", 0)
    assert result.returncode == 2
    assert "--batch must be at least 1, got 0" in result.stderr
