# SPDX-License-Identifier: BSD-3-Clause
"""The script that tells where gradients of windows point."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from test_attention_learns import SIDE, blobs, surer_when_brighter
from trees import make_cub

import window_directions
from racnn.config import Config, DataConfig, ModelConfig, TrainingConfig
from racnn.training import checkpoint
from racnn_ops import Boxcar

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/window_directions.py"


class OnlyWhere(torch.nn.Module):
    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        return crops * self.weight


def test_the_exact_gradient_points_to_where_scale_2_is_surer() -> None:
    images, centres = blobs(40, seed=0)
    window = torch.tensor([SIDE / 2, SIDE / 2, SIDE / 4]).repeat(len(images), 1)
    way = window_directions.uphill(
        surer_when_brighter("image"), images, torch.zeros(len(images), dtype=torch.long), [window]
    )
    agreement = window_directions.summarise(
        way, torch.cat((centres - SIDE / 2, torch.zeros(len(images), 1)), 1)
    )
    assert agreement["cosine"] > 0.9
    assert agreement["tx"] > 0.9
    assert agreement["ty"] > 0.9


def test_the_surrogate_points_to_where_the_loss_is_sensitive() -> None:
    model = surer_when_brighter("image")
    model.crop_options |= {"window_grad": "boxcar", "boxcar": Boxcar(scale=1.0)}
    weight = torch.zeros(1, 1, 24, 24)
    weight[..., :, 16:] = 1  # scale 2 reads the right third of its crop alone
    features = model.scales[1].features
    model.scales[1].features = torch.nn.Sequential(OnlyWhere(weight), features)
    images, _ = blobs(8, seed=0)
    window = torch.tensor([SIDE / 2, SIDE / 2, SIDE / 4]).repeat(len(images), 1)
    way = window_directions.uphill(model, images, torch.zeros(len(images), dtype=torch.long), [window])
    assert (way[:, 0] > 0).all()


def test_the_command_writes_what_it_found(tmp_path: Path) -> None:
    root = make_cub(tmp_path / "data")
    config = Config(
        DataConfig(root=root, image_side=40),
        ModelConfig("test_resnet", None, scales=3, sizes=[32], crop_from="image", hidden=8),
        TrainingConfig(device="cpu"),
    )
    model = config.model.build(3)
    state = {"model": model.state_dict(), "classes": ["red", "green", "blue"], "config": config.to_dict()}
    checkpoint.save(state, tmp_path / "best.pt")
    command = [sys.executable, str(SCRIPT), "--checkpoint", "best.pt", "--images", "5", "--output", "results"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "results/window_directions.json").read_text())
    assert report["images"] == 5
    assert {"exact", "boxcar surrogate"} <= set(report["results"])
    for values in report["results"].values():
        assert all(0 <= values[name] <= 1 for name in ("tx", "ty", "tl"))
        assert -1 <= values["cosine"] <= 1
    assert f"| exact | {100 * report['results']['exact']['tx']:.0f} |" in result.stdout
