# SPDX-License-Identifier: BSD-3-Clause
"""Phases, freezing, caches, batches, checkpoints: one process, in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from trees import make_cub, random_images, tiny_backbone

from racnn import RACNN, Backbone
from racnn.config import Config, DataConfig, ModelConfig, TrainingConfig
from racnn.data import Images, read_split
from racnn.training import checkpoint
from racnn.training.batches import Augmentation, epoch_batches
from racnn.training.cache import Cache
from racnn.training.optimisation import make_optimizer, set_rates
from racnn.training.phases import Phase, PhaseResult, next_phase, set_trainable
from racnn.training.processes import Processes
from racnn.training.trainer import LAST, Stopped, Trainer

CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU)


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cub(tmp_path_factory.mktemp("birds"), each=9)


class TinyConfig(ModelConfig):
    """Builds with the tests' backbone."""

    def build(self, num_classes: int, pretrained: bool = True) -> RACNN:
        options = dict(vars(self)) | {"backbone": tiny_backbone, "weights": None}
        del options["boxcar_scale"], options["boxcar_shrink"]
        return RACNN(num_classes, **options)


def tiny_config(root: Path, **training: Any) -> Config:
    short = {f"{name}_epochs": 1 for name in ("classify", "imitate", "rank", "joint", "fuse")}
    options = {"batch_size": 6, "rounds": 1, "device": "cpu", "track": 2} | short | training
    return Config(
        DataConfig(root=root, image_side=32, validation=0.2),
        TinyConfig(scales=3, sizes=[16], hidden=8),
        TrainingConfig(**options),
    )


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
    assert names(TrainingConfig(schedule="joint"), 3) == ["classify", "imitate", "joint", "fuse"]
    assert names(TrainingConfig(schedule="fixed"), 3) == ["classify", "fuse"]
    assert names(TrainingConfig(), 1) == ["classify"]


def test_alternation_ends_when_neither_loss_changes() -> None:
    config = TrainingConfig(rounds=5, tolerance=0.01)
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


def test_frozen_blocks_and_frozen_batch_norms() -> None:
    model = RACNN(3, with_batch_norm, 1, (16,), weights=None)
    phase = Phase("p", "classify", "proposed", 1)
    set_trainable(model, phase, TrainingConfig(freeze_blocks=3, freeze_batch_norm=True))
    features = list(model.scales[0].features.children())
    assert [any(p.requires_grad for p in f.parameters()) for f in features] == [
        False,
        False,
        False,
        True,
        True,
    ]
    assert not features[4].training
    set_trainable(model, phase, TrainingConfig(freeze_blocks=-1))
    assert not any(p.requires_grad for f in features for p in f.parameters())
    assert model.scales[0].classifier.weight.requires_grad


def test_rates_follow_their_schedule() -> None:
    model = RACNN(3, tiny_backbone, 2, (16,), weights=None)
    config = TrainingConfig(lr_backbone=1.0, lr_classifier=2.0, lr_apn=4.0, lr_fusion=8.0)
    set_trainable(model, Phase("p", "fuse", "proposed", 1), config)
    assert [group["lr"] for group in make_optimizer(model, config).param_groups] == [8.0]
    set_trainable(model, Phase("p", "joint", "proposed", 1), config)
    optimizer = make_optimizer(model, config)
    for schedule, progress, factor in (
        ("constant", 0.9, 1.0),
        ("cosine", 0.0, 1.0),
        ("cosine", 0.5, 0.5),
        ("cosine", 1.0, 0.0),
        ("step", 0.3, 1.0),
        ("step", 0.5, 0.1),
        ("step", 0.9, 0.01),
    ):
        set_rates(optimizer, schedule, progress)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([1.0 * factor, 2.0 * factor, 4.0 * factor])


def test_processes_share_the_joint_batch() -> None:
    joint = epoch_batches(23, 8, 1, seed=3, epoch=1, processes=ALONE)
    parts = [epoch_batches(23, 8, 2, 3, 1, Processes(rank, 2, CPU)) for rank in (0, 1)]
    assert len(joint) == 2
    for step, (numbers,) in enumerate(joint):
        seen = [n for mine in parts for part in mine[step] for n in part]
        assert sorted(seen) == sorted(numbers)
        assert [len(part) for mine in parts for part in mine[step]] == [2, 2, 2, 2]
    assert joint != epoch_batches(23, 8, 1, 3, 2, ALONE)


def test_augmentation_depends_on_the_image_alone() -> None:
    images = random_images(4, 32)
    numbers = torch.tensor([5, 1, 9, 2])
    augment = Augmentation(12, DataConfig(min_crop=0.5), seed=0, epoch=3)
    together = augment(images, numbers)
    apart = [augment(images[i : i + 1], numbers[i : i + 1]) for i in range(4)]
    assert together.dtype == torch.uint8
    assert torch.equal(together, torch.cat(apart))
    assert not torch.equal(together, Augmentation(12, DataConfig(min_crop=0.5), 0, 4)(images, numbers))
    assert torch.equal(Augmentation(12, DataConfig(flip=False), 0, 3)(images, numbers), images)


def run(config: Config, output: Path, resume: bool = False) -> Trainer:
    trainer = Trainer(config, read_split("cub", config.data.root), output, ALONE, resume=resume)
    trainer.run()
    return trainer


def same(one: Trainer, other: Trainer) -> bool:
    states = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"schedule": "joint", "accumulate": 2, "ema": 0.9, "diversity": 0.1, "amp": "bf16"},
        {"schedule": "fixed", "optimizer": "adamw", "lr_schedule": "step", "clip_norm": 1.0},
        {"freeze_blocks": -1, "cache": True},
    ],
)
def test_a_stopped_run_goes_on_exactly(
    birds: Path, tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(birds, **options)
    config.model.dropout = 0.2
    whole = run(config, tmp_path / "whole")
    stopped = Trainer(config, read_split("cub", birds), tmp_path / "stopped", ALONE)
    # In the middle of the second phase.
    monkeypatch.setattr(stopped, "_all_agree_to_stop", lambda: stopped.at.step == 3)
    with pytest.raises(Stopped):
        stopped.run()
    resumed = run(config, tmp_path / "stopped", resume=True)
    assert same(whole, resumed)
    assert whole.history == resumed.history
    assert whole.at.step == resumed.at.step > 3


def test_other_seeds_give_other_weights(birds: Path, tmp_path: Path) -> None:
    config = tiny_config(birds, schedule="fixed")
    first = run(config, tmp_path / "0")
    other = run(replace(config, training=replace(config.training, seed=1)), tmp_path / "1")
    assert not same(first, other)


def test_a_cache_changes_nothing_but_the_time(birds: Path, tmp_path: Path) -> None:
    plain = run(tiny_config(birds, freeze_blocks=-1), tmp_path / "plain")
    cached = run(tiny_config(birds, freeze_blocks=-1, cache=True), tmp_path / "cached")
    for one, other in zip(plain.history, cached.history, strict=True):
        assert one["validation"]["loss"] == pytest.approx(other["validation"]["loss"], rel=1e-3)
    torch.testing.assert_close(plain.model.state_dict(), cached.model.state_dict(), atol=2e-4, rtol=1e-3)


def test_a_cache_follows_the_windows(birds: Path) -> None:
    config = tiny_config(birds)
    model = config.model.build(3).eval()
    images = Images(read_split("cub", birds).train, 32)
    cache = Cache(model, images, True, CPU)
    phase = Phase("p", "classify", "proposed", 1)
    numbers, mirrored = torch.tensor([7, 2, 7]), torch.tensor([False, True, True])
    pixels = torch.stack([images[n].image for n in numbers.tolist()])
    pixels = torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels)
    seen = []
    for _ in range(2):
        cache.prepare(phase)
        known = cache.look_up(numbers, mirrored)
        assert known.descriptors is not None
        for descriptor, expected in zip(known.descriptors, model(pixels).descriptors, strict=True):
            torch.testing.assert_close(descriptor, expected)
        seen.append(known.descriptors[1])
        with torch.no_grad():
            model.proposal(1).output.bias += 1
    assert not torch.allclose(*seen)


def test_accumulated_parts_are_one_batch(birds: Path, tmp_path: Path) -> None:
    whole = run(tiny_config(birds, schedule="fixed"), tmp_path / "whole")
    parts = run(tiny_config(birds, schedule="fixed", accumulate=3), tmp_path / "parts")
    torch.testing.assert_close(whole.model.state_dict(), parts.model.state_dict(), atol=1e-5, rtol=1e-4)


def test_the_log_answers_what_fails_silently(birds: Path, tmp_path: Path) -> None:
    trainer = run(tiny_config(birds), tmp_path)
    rank = next(record for record in trainer.history if record["phase"] == "rank 1")
    for n in (2, 3):
        assert {f"tl mean {n}", f"tl spread {n}", f"at a bound {n}"} <= rank["train"].keys()
        assert rank["train"][f"window gradient {n}"] > 0
    assert 0 <= rank["train"]["hinge active 1-2"] <= 1
    assert len(rank["windows"]) == 2
    assert len(rank["windows"][0]) == 2
    assert (tmp_path / "tensorboard").is_dir()


def test_an_unreadable_image_does_not_end_a_run(birds: Path, tmp_path: Path) -> None:
    root = make_cub(tmp_path / "data", each=9)
    broken = read_split("cub", root).train[0].path
    broken.write_bytes(b"no picture")
    trainer = run(tiny_config(root, schedule="fixed"), tmp_path / "run")
    assert [path for u in trainer.unreadable for path in u.paths] == [broken]


def test_a_phase_that_only_makes_it_worse_is_undone(birds: Path, tmp_path: Path) -> None:
    config = tiny_config(birds, imitate_epochs=2, rank_epochs=0, lr_apn=1e4)
    trainer = Trainer(config, read_split("cub", birds), tmp_path, ALONE)
    start = {name: value.clone() for name, value in trainer.model.proposal(1).state_dict().items()}
    trainer.run()
    imitate = [record for record in trainer.history if record["phase"] == "imitate"]
    assert min(record["validation"]["loss"] for record in imitate) > trainer.done[1].best
    torch.testing.assert_close(trainer.model.proposal(1).state_dict(), start, atol=0, rtol=0)


def test_runs_do_not_overwrite_each_other(birds: Path, tmp_path: Path) -> None:
    config = tiny_config(birds, schedule="fixed")
    split = read_split("cub", birds)
    run(config, tmp_path)
    with pytest.raises(FileExistsError, match="holds a run"):
        Trainer(config, split, tmp_path, ALONE)
    other = replace(config, training=replace(config.training, lr_apn=0.5))
    with pytest.raises(ValueError, match=r"training.lr_apn must be 0.001 as in .*last.pt, got 0.5"):
        Trainer(other, split, tmp_path, ALONE, resume=True)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Trainer(config, split, tmp_path / "other", ALONE, resume=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 7, "accumulate": 2}, "training.batch_size must be a multiple"),
        ({"batch_size": 500}, "training.batch_size must be at most"),
        ({"cache": True}, "training.cache needs training.freeze_blocks -1"),
        ({"ema": 1.0}, "training.ema must be in"),
        ({"rounds": 0}, "training.rounds must be at least 1, got 0"),
        ({"amp": "fp16"}, "training.amp 'fp16' needs CUDA"),
    ],
)
def test_wrong_configurations_are_refused(
    birds: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(tiny_config(birds, **options), tmp_path)


def test_an_interrupted_write_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / LAST
    checkpoint.save({"model": {}, "classes": [], "n": 1}, path)

    def half(state: Any, file: Path) -> None:
        Path(file).write_bytes(b"half a checkpoint")
        raise OSError("the disk is full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="the disk is full"):
        checkpoint.save({"n": 2}, path)
    assert checkpoint.load(path)["n"] == 1
    assert [file.name for file in tmp_path.iterdir()] == [LAST]


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no checkpoint")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        checkpoint.load(tmp_path / "text.pt")
    torch.save({"other": 1}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="is no checkpoint of racnn"):
        checkpoint.load(tmp_path / "other.pt")
