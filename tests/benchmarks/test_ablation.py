# SPDX-License-Identifier: BSD-3-Clause
"""The ablation trains every variant once, resumes, and summarises what the runs found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from trees import make_cub

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/ablation.py"
VARIANTS = ("difference", "larger input")
CONFIG = """
data: {image_side: 40, validation: 0.2}
model: {backbone: test_resnet, weights: null, scales: 2, sizes: [32], hidden: 8}
training: {batch_size: 6, classify_epochs: 1, imitate_epochs: 1, rank_epochs: 1, fuse_epochs: 1, rounds: 1,
           freeze_blocks: -1, device: cpu}
"""


def test_variants_over_seeds(tmp_path: Path) -> None:
    make_cub(tmp_path / "data", each=9)
    (tmp_path / "config.yaml").write_text(CONFIG)
    options = ("--config", "config.yaml", "--root", "data", "--runs", "runs", "--output", "results")
    command = [sys.executable, str(SCRIPT), *options, "--seeds", "0", "1"]
    command += ["--variants", *VARIANTS]
    for _ in range(2):
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    assert "epoch" not in result.stdout  # the second call found everything done
    report = json.loads((tmp_path / "results/digits.json").read_text())
    assert set(report["summary"]) == set(VARIANTS)
    tested = [json.loads((tmp_path / f"runs/difference-{seed}/test.json").read_text()) for seed in (0, 1)]
    values = [run["accuracy"]["1+2"]["top1"] for run in tested]
    cell = report["summary"]["difference"]["top1"]["1+2"]
    assert cell["mean"] == pytest.approx(sum(values) / 2)
    assert cell["std"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert list(report["summary"]["larger input"]["top1"]) == ["1"]
    assert (tmp_path / "results/digits.png").stat().st_size > 1000
    section = (tmp_path / "results/digits.md").read_text()
    assert section in result.stdout
    assert f"{100 * cell['mean']:.1f} ± {100 * cell['std']:.1f}" in section
    assert report["command"] in section
