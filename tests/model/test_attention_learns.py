# SPDX-License-Identifier: BSD-3-Clause
"""APNs learn from the ranking loss alone to look at what makes the finer scale surer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from racnn import RACNN, Backbone, ranking_loss
from racnn.config import TrainingConfig
from racnn.training.differences import TrueClassProbability, antithetic_slopes, slopes
from racnn.training.phases import Phase
from racnn.training.step import Batch, TrainingStep

SIDE = 48
BLOB = 6.0  # standard deviation, pixels


def pooled_pixels(weights: object) -> Backbone:
    return Backbone(nn.Sequential(nn.AvgPool2d(4)), (0.0,) * 3, (1.0,) * 3)


def blobs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images with one bright blob each, and its centre (count, 2): x, y."""
    generator = torch.Generator().manual_seed(seed)
    centres = SIDE * (0.25 + 0.5 * torch.rand((count, 2), generator=generator))
    grid = torch.arange(SIDE) + 0.5
    x, y = ((grid - centres[:, k, None]).square() for k in (0, 1))
    images = torch.exp(-(y[:, :, None] + x[:, None, :]) / (2 * BLOB**2))
    return images[:, None].expand(-1, 3, -1, -1).contiguous(), centres


def surer_when_brighter(crop_from: str) -> RACNN:
    """Two scales; the finer one's class 0 is as likely as its crop is bright. Only the APN has to learn."""
    torch.manual_seed(0)
    model = RACNN(2, pooled_pixels, 2, (SIDE, 24), weights=None, hidden=32, crop_from=crop_from)
    model.requires_grad_(False)
    for scale, gain in zip(model.each_scale(), (0.0, 8.0), strict=True):
        scale.classifier.weight.zero_()
        scale.classifier.weight[0] = gain / 3
        scale.classifier.bias.copy_(torch.tensor([0.0, gain / 2]))
    model.proposal(1).requires_grad_(True)
    return model


def distance(model: RACNN) -> tuple[float, float]:
    """From the blobs of unseen images, in pixels; and the mean half side."""
    images, centres = blobs(200, seed=1)
    with torch.no_grad():
        windows = model(images).windows[0][:, 0]
    return (windows[:, :2] - centres).norm(dim=1).mean().item(), windows[:, 2].mean().item()


@pytest.mark.parametrize("crop_from", ["previous", "image"])
def test_windows_find_what_makes_the_finer_scale_surer(crop_from: str) -> None:
    model = surer_when_brighter(crop_from)
    optimizer = torch.optim.Adam(model.proposal(1).parameters(), lr=2e-3)
    before, _ = distance(model)
    for step in range(150):
        images, _ = blobs(32, seed=100 + step)
        loss = ranking_loss(model(images).logits, torch.zeros(32, dtype=torch.long), margin=0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after, half = distance(model)
    # Where it started, in the middle of the image, and a window as small as it may be around the blob.
    assert before > 8
    assert after < 2.5
    assert half < SIDE / 6 + 1


@pytest.mark.parametrize("crop_from", ["previous", "image"])
def test_small_differences_are_the_derivative(crop_from: str) -> None:
    model = surer_when_brighter(crop_from)
    images, _ = blobs(16, seed=0)
    labels = torch.zeros(16, dtype=torch.long)
    output = model(images)
    relative = output.relative_windows[0].detach().requires_grad_()
    probability = TrueClassProbability(model, images, labels, output, 2)
    probability(relative.unsqueeze(1)).sum().backward()
    found = slopes(probability, relative.detach(), 0.05)
    # Not equal: between samples that lie on pixel centres, as here, a bilinear crop's derivative jumps.
    assert torch.cosine_similarity(found, relative.grad, dim=-1).min() > 0.97
    torch.testing.assert_close(found, relative.grad, rtol=0.05, atol=0.2)


@pytest.mark.parametrize("crop_from", ["previous", "image"])
def test_antithetic_estimates_are_the_differences_on_average(crop_from: str) -> None:
    model = surer_when_brighter(crop_from)
    images, _ = blobs(1, seed=0)
    labels = torch.zeros(1, dtype=torch.long)
    output = model(images)
    relative = output.relative_windows[0].detach()
    expected = slopes(TrueClassProbability(model, images, labels, output, 2), relative, 0.05)
    many = 4000
    torch.manual_seed(0)
    copies = images.expand(many, -1, -1, -1)
    probability = TrueClassProbability(model, copies, labels.expand(many), model(copies), 2)
    found = antithetic_slopes(probability, relative.expand(many, -1, -1), 0.05)
    assert ((found != 0).sum(2) <= 1).all()
    error = found.std(0) / many**0.5
    assert ((found.mean(0) - expected[0]).abs() < 4 * error + 0.05 * expected.abs().max()).all()
    assert (error < 0.1 * expected.abs().max()).all()


@pytest.mark.parametrize("crop_from", ["previous", "image"])
def test_descriptors_at_many_windows_are_those_one_by_one(crop_from: str) -> None:
    torch.manual_seed(0)
    sizes, options = (32, 24, 24), {"num_windows": 2, "crop_from": crop_from, "hidden": 8}
    model = RACNN(4, pooled_pixels, 3, sizes, weights=None, **options)
    images = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        output = model(images)
        for n in (2, 3):
            relative = torch.rand(3, 5, 2, 3) * 0.2 + 0.3
            found = model.descriptors_at(images, output, n, relative)
            assert found.shape[:2] == (3, 5)
            for at in range(5):
                one = model.descriptors_at(images, output, n, relative[:, at : at + 1])
                torch.testing.assert_close(found[:, at : at + 1], one)
            same = model.descriptors_at(images, output, n, output.relative_windows[n - 2].unsqueeze(1))
            torch.testing.assert_close(same[:, 0], output.descriptors[n - 1])
            labels, here = torch.tensor([3, 0, 1]), output.relative_windows[n - 2].unsqueeze(1)
            for fused, logits in ((False, output.logits[n - 1]), (True, output.fused_logits[n - 2])):
                p = TrueClassProbability(model, images, labels, output, n, fused)(here)
                torch.testing.assert_close(p, logits.softmax(1).gather(1, labels[:, None]))


@pytest.mark.parametrize("way", ["difference", "antithetic"])
def test_differences_over_a_good_part_of_a_window_find_it_too(way: Any) -> None:
    model = surer_when_brighter("image")
    config = TrainingConfig(rank_gradient=way, margin=0.5)
    step = TrainingStep(model, Phase("rank 1", "rank", "proposed", 1), config)
    optimizer = torch.optim.Adam(model.proposal(1).parameters(), lr=2e-3)
    before, _ = distance(model)
    for number in range(150):
        images, _ = blobs(32, seed=100 + number)
        optimizer.zero_grad()
        step(Batch(images, torch.zeros(32, dtype=torch.long)))["loss"].backward()
        assert step.window_gradients()["window gradient 2"] > 0
        optimizer.step()
    after, _ = distance(model)
    assert before > 8
    assert after < 2.5
