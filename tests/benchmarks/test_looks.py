# SPDX-License-Identifier: BSD-3-Clause
"""The table of estimates: whose step makes the true class surer."""

from __future__ import annotations

import pytest
import torch
from test_attention_learns import SIDE, blobs, surer_when_brighter

import looks


class Blobs(looks.Signal):
    """Scale 2 is the surer the brighter its crop is: p rises towards the blob, and smoothly."""

    def __init__(self) -> None:
        self.model = surer_when_brighter("image")
        self.pixels, self.centres = blobs(24, seed=0)
        self.labels = torch.zeros(24, dtype=torch.long)
        with torch.no_grad():
            self.output = self.model(self.pixels)
        self.start = self.output.relative_windows[0][:, 0]

    def way(self) -> torch.Tensor:
        return (self.centres / SIDE - self.start[:, :2]) / self.start[:, 2:]


def test_a_derivative_is_per_half_side() -> None:
    signal = Blobs()
    here, step = signal.start * torch.tensor([0.97, 1.02, 1.3]), 1e-3  # between samples on pixel centres
    found = looks.derivative(signal, here)
    for axis, way in enumerate(torch.eye(3)):
        ends = []
        for move in (step * way, -step * way):
            half = here[:, 2:] * move[2:].exp()
            ends.append(signal(torch.cat((here[:, :2] + here[:, 2:] * move[:2], half), 1)))
        torch.testing.assert_close(found[:, axis], (ends[0] - ends[1]) / (2 * step), rtol=0.05, atol=0.02)


def test_where_p_is_smooth_all_estimates_go_up(monkeypatch: pytest.MonkeyPatch) -> None:
    signal = Blobs()
    way = torch.cat((signal.way(), torch.zeros(24, 1)), 1)
    monkeypatch.setattr(looks, "way_to_box", lambda signal: way)
    torch.manual_seed(0)
    found = looks.gains(signal)
    for name in ("exact", "exact, not antialiased", "difference over 0.3 half sides"):
        gain = torch.tensor(found[name]["gain"])
        assert (gain > 0).float().mean() > 0.9, name
    cosines = torch.tensor(found["way to the box"]["cosine"])
    torch.testing.assert_close(cosines, torch.ones(24))
    chance = torch.tensor(found["random"]["gain"])
    assert chance.mean() < torch.tensor(found["exact"]["gain"]).mean() / 2
    # What an estimate needs to know is set back.
    assert signal.model.crop_options["antialias"]
    assert signal.model.crop_options["window_grad"] == "exact"


def test_a_smooth_signal_is_as_steep_over_all_distances_and_a_rough_one_is_not() -> None:
    report = {
        "slopes": {
            "line": {"0": [4.0, 4.0], "0.5": [4.0, 4.0]},
            "noise": {"0": [400.0, 400.0], "0.5": [4.0, 4.0]},
        }
    }
    found = looks.roughness(report)
    assert found["line"] == {0.0: 1.0, 0.5: 1.0}
    assert found["noise"][0.0] == pytest.approx(10)
