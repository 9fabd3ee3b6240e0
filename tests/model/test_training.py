# SPDX-License-Identifier: BSD-3-Clause
"""Phases, freezing, rates, batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from trees import random_images, tiny_backbone

from racnn import RACNN, Backbone, classification_loss
from racnn.config import DataConfig, TrainingConfig
from racnn.training.augmentation import Augmentation
from racnn.training.batches import epoch_batches
from racnn.training.optimisation import make_optimizer, set_rates
from racnn.training.phases import Phase, PhaseResult, next_phase, set_trainable
from racnn.training.processes import Processes

CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU)


def names(config: TrainingConfig, scales: int, losses: dict[str, list[float]] | None = None) -> list[str]:
    done: list[PhaseResult] = []
    remaining = {kind: list(values) for kind, values in (losses or {}).items()}
    while phase := next_phase(config, scales, done):
        values = remaining.get(phase.kind, [])
        done.append(PhaseResult(phase, values.pop(0) if values else float(len(done)), 1))
    return [result.phase.name for result in done]


def test_the_papers_order() -> None:
    turns = ["classify 1", "rank 1", "classify 2", "rank 2", "classify last", "fuse"]
    assert names(TrainingConfig(rounds=2), 3) == ["classify", "imitate", *turns]
    fused = ["classify 1", "fuse 1", "rank 1", "classify last", "fuse"]
    assert names(TrainingConfig(rounds=1, rank_on="fused"), 2) == ["classify", "imitate", *fused]
    assert names(TrainingConfig(window_source="response"), 3) == ["classify", "fuse"]
    assert names(TrainingConfig(), 1) == ["classify"]


def test_alternation_ends_when_neither_loss_changes() -> None:
    config = TrainingConfig(rounds=5)
    losses = {"classify": [9.0, 1.0, 0.5, 0.5, 0.5], "rank": [0.3, 0.2, 0.2, 0.2, 0.2]}
    found = names(config, 2, losses)
    assert found[-3:] == ["rank 3", "classify last", "fuse"]


def with_batch_norm(weights: object) -> Backbone:
    layers = (nn.Conv2d(3, 6, 3, 4), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6))
    return Backbone(nn.Sequential(*layers))


PARTS = {"classify": (True, False, False), "rank": (False, True, False), "fuse": (False, False, True)}


@pytest.mark.parametrize("kind", PARTS)
def test_the_frozen_part_stays_as_it_is(kind: Any) -> None:
    torch.manual_seed(0)
    model = RACNN(3, with_batch_norm, 2, (16,), weights=None, hidden=8, dropout=0.5)
    config = TrainingConfig(lr_backbone=0.1, lr_classifier=0.1, lr_apn=0.1, lr_fusion=0.1)
    phase = Phase("p", kind, "proposed", 1)
    set_trainable(model, phase, config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = make_optimizer(model, config)
    output = model(random_images(4, 16))
    loss = sum(logits.square().sum() for logits in output.logits + output.fused_logits)
    loss.backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    scales = {n for n in changed if ".features." in n or (".classifier." in n and "scales" in n)}
    apns = {n for n in changed if ".proposal." in n}
    fusion = {n for n in changed if n.startswith("fusion")}
    assert (bool(scales), bool(apns), bool(fusion)) == PARTS[kind]
    assert changed == scales | apns | fusion
    assert any("running_mean" in n for n in changed) == (kind == "classify")
    frozen = [m for m in model.modules() if isinstance(m, (nn.Dropout, nn.BatchNorm2d))]
    assert all(m.training == (kind == "classify") for m in frozen)


def test_frozen_blocks() -> None:
    model = RACNN(3, with_batch_norm, 1, (16,), weights=None)
    phase = Phase("p", "classify", "proposed", 1)
    set_trainable(model, phase, TrainingConfig(freeze_blocks=3))
    features = list(model.scales[0].features.children())
    assert [any(p.requires_grad for p in f.parameters()) for f in features] == [
        False,
        False,
        False,
        True,
        True,
    ]
    assert [f.training for f in features if isinstance(f, nn.BatchNorm2d)] == [False, True]
    set_trainable(model, phase, TrainingConfig(freeze_blocks=-1))
    assert not any(p.requires_grad for f in features for p in f.parameters())
    assert model.scales[0].classifier.weight.requires_grad


def test_rates_of_parts_fall_as_a_cosine() -> None:
    model = RACNN(3, tiny_backbone, 2, (16,), weights=None)
    config = TrainingConfig(lr_backbone=1.0, lr_classifier=2.0, lr_apn=4.0, lr_fusion=8.0)
    set_trainable(model, Phase("p", "fuse", "proposed", 1), config)
    assert {group["lr"] for group in make_optimizer(model, config).param_groups} == {8.0}
    set_trainable(model, Phase("p", "rank", "proposed", 1), config)
    assert {group["lr"] for group in make_optimizer(model, config).param_groups} == {4.0}
    set_trainable(model, Phase("p", "classify", "proposed", 1), config)
    optimizer = make_optimizer(model, config)
    for progress, factor in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0)):
        set_rates(optimizer, progress)
        rates = sorted({group["lr"] for group in optimizer.param_groups})
        assert rates == pytest.approx(sorted({factor, 2.0 * factor}))


def test_weights_decay_and_biases_do_not() -> None:
    model = RACNN(3, tiny_backbone, 2, (16,), weights=None)
    config = TrainingConfig(optimizer="adamw", weight_decay=0.1)
    decays = {
        p: group["weight_decay"]
        for group in make_optimizer(model, config).param_groups
        for p in group["params"]
    }
    trained = dict(model.named_parameters())
    assert len(decays) == len(trained)
    for name, parameter in trained.items():
        assert decays[parameter] == (0.1 if parameter.dim() > 1 else 0.0), name


def test_processes_share_the_joint_batch() -> None:
    joint = epoch_batches(23, 8, seed=3, epoch=1, processes=ALONE)
    shares = [epoch_batches(23, 8, 3, 1, Processes(rank, 2, CPU)) for rank in (0, 1)]
    assert len(joint) == 2
    for step, numbers in enumerate(joint):
        assert sorted(n for mine in shares for n in mine[step]) == sorted(numbers)
        assert [len(mine[step]) for mine in shares] == [4, 4]
    assert joint != epoch_batches(23, 8, 3, 2, ALONE)


def test_augmentation_depends_on_the_image_alone() -> None:
    images = random_images(4, 32)
    numbers = torch.tensor([5, 1, 9, 2])
    labels = torch.tensor([0, 2, 1, -1])

    def augment(images: Tensor, numbers: Tensor, epoch: int = 3, **config: Any) -> Tensor:
        data = DataConfig(image_side=32, **config)
        changed, shares = Augmentation(12, 3, data, 0, epoch, mix=False)(images, labels, numbers)
        assert shares is None
        return changed

    together = augment(images, numbers, least_area=0.3)
    apart = [augment(images[i : i + 1], numbers[i : i + 1], least_area=0.3) for i in range(4)]
    assert together.dtype == torch.uint8
    assert torch.equal(together, torch.cat(apart))
    assert not torch.equal(together, augment(images, numbers, epoch=4, least_area=0.3))
    assert torch.equal(augment(images, numbers, flip=False), images)
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(augment(images, numbers), images, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(augment(images, numbers), images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert any(mirrored) or any(kept)


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mixed_images_have_the_shares_of_their_pixels(mix: Any) -> None:
    images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    images[0] = 255
    config = DataConfig(image_side=32, flip=False, mix=mix)
    augment = Augmentation(4, 3, config, 0, 0, mix=True)
    torch.manual_seed(1)
    mixed, shares = augment(images, torch.tensor([1, 0, 2, -1]), torch.arange(4))
    assert shares is not None
    white = mixed.double().mean((1, 2, 3)) / (255 if mixed.dtype == torch.uint8 else 1)
    assert 0.05 < white[0] < 0.95
    # Of the images' order (white of class 1, class 0, class 2, unreadable), each with the one before it.
    expected = torch.zeros(4, 3, dtype=torch.float64)
    expected[0, 1], expected[1, 1], expected[1, 0] = white[0], white[1], 1 - white[1]
    expected[2, 0], expected[2, 2], expected[3, 2] = white[1], 1 - white[1], white[1]
    torch.testing.assert_close(shares.double(), expected, atol=1e-5, rtol=0)
    logits = torch.randn(4, 3, dtype=torch.float64)
    log = logits.float().log_softmax(1)
    loss = classification_loss([logits], shares)
    torch.testing.assert_close(loss, -(shares * log).sum() / 3, atol=1e-5, rtol=0)
    assert Augmentation(4, 3, config, 0, 0, mix=False)(images, torch.arange(4), torch.arange(4))[1] is None


def test_rand_augment_changes_each_image_by_itself() -> None:
    images = random_images(1, 32).expand(6, -1, -1, -1).contiguous()
    augment = Augmentation(6, 3, DataConfig(image_side=32, flip=False, rand_augment=15), 0, 0, mix=False)
    labels = torch.zeros(6, dtype=torch.long)
    torch.manual_seed(0)
    changed, _ = augment(images, labels, torch.arange(6))
    assert changed.dtype == torch.uint8
    assert len({image.numpy().tobytes() for image in changed}) > 3
    torch.manual_seed(0)
    assert torch.equal(changed, augment(images, labels, torch.arange(6))[0])
