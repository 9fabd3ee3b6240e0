# SPDX-License-Identifier: BSD-3-Clause
"""Losses against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from racnn import classification_loss, diversity_loss, ranking_loss
from racnn.losses import imitation_loss, ranking_hinges


def logits_of(*probabilities: float) -> torch.Tensor:
    """Two classes; the probability of class 0."""
    return torch.tensor([[math.log(p), math.log(1 - p)] for p in probabilities])


LABELS = torch.tensor([0, 0])


def test_classification_is_summed_over_scales() -> None:
    loss = classification_loss([logits_of(0.5, 0.25), logits_of(0.8, 0.1)], LABELS)
    expected = -(math.log(0.5) + math.log(0.25) + math.log(0.8) + math.log(0.1)) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_ranking_asks_finer_scales_to_be_surer() -> None:
    scales = [logits_of(0.6, 0.3), logits_of(0.5, 0.5), logits_of(0.52, 0.9)]
    hinges = ranking_hinges(scales, LABELS)
    expected = torch.tensor([[0.6 - 0.5 + 0.05, 0.0], [0.5 - 0.52 + 0.05, 0.0]])
    torch.testing.assert_close(hinges, expected)
    assert ranking_loss(scales, LABELS).item() == pytest.approx(expected.sum().item() / 2, rel=1e-5)


def test_the_coarser_scale_is_a_mark_to_beat() -> None:
    coarse = logits_of(0.6).requires_grad_()
    fine = logits_of(0.5).requires_grad_()
    ranking_loss([coarse, fine], LABELS[:1]).backward()
    assert coarse.grad is None
    assert fine.grad is not None
    assert fine.grad[0, 0] < 0


def test_unreadable_images_count_for_nothing() -> None:
    labels = torch.tensor([0, -1])
    scales = [logits_of(0.6, 0.001), logits_of(0.5, 0.001)]
    one = [scale[:1] for scale in scales]
    for loss in (classification_loss, ranking_loss):
        torch.testing.assert_close(loss(scales, labels), loss(one, labels[:1]))
        nothing = loss([s.requires_grad_() for s in scales], torch.tensor([-1, -1]))
        assert nothing == 0
        nothing.backward()


def test_ranking_needs_two_scales() -> None:
    with pytest.raises(ValueError, match="logits must be those of 2 scales or more"):
        ranking_loss([logits_of(0.5)], LABELS[:1])


def test_imitation_is_a_squared_distance() -> None:
    target = torch.tensor([[[0.5, 0.5, 0.25]]])
    found = torch.tensor([[[0.6, 0.5, 0.45]]])
    assert imitation_loss([found], [target], LABELS[:1]).item() == pytest.approx(0.01 + 0.04, rel=1e-5)


def test_diversity_is_the_overlap_and_pushes_windows_apart() -> None:
    windows = torch.tensor([[[20.0, 20.0, 10.0], [25.0, 20.0, 10.0]]], requires_grad=True)
    loss = diversity_loss([windows])
    assert loss.item() == pytest.approx(15 / 25)
    loss.backward()
    assert windows.grad is not None
    assert windows.grad[0, 0, 0] > 0  # descending moves the left one further left
    assert windows.grad[0, 1, 0] < 0
    assert diversity_loss([windows[:, :1]]) == 0
