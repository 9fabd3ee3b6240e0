# SPDX-License-Identifier: BSD-3-Clause
"""Backbones: timm's networks up to their feature maps, their heads, their weights, their blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from trees import make_cub, random_images, tiny_backbone

from racnn import RACNN, Backbone
from racnn.backbones import TimmFeatures, blocks, make_backbone, measure
from racnn.config import Config, DataConfig, ModelConfig, TrainingConfig
from racnn.data import read_split
from racnn.training.engine import Engine
from racnn.training.phases import Phase, set_trainable
from racnn.training.processes import Processes
from racnn.training.step import Batch
from racnn.training.trainer import Trainer

ALONE = Processes(0, 1, torch.device("cpu"))
CLASSIFY = Phase("classify", "classify", "response", 1)


def made(name: str, side: int = 64, descriptor: str = "mean", weights: Any = None) -> TimmFeatures:
    torch.manual_seed(0)
    features = make_backbone(name, weights, side, descriptor).features.eval()
    assert isinstance(features, TimmFeatures)
    return features


# A convolutional network, one with channels last, and transformers with one and with several tokens more.
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("test_convnext", (64, 3, 3)),
        ("test_mambaout", (64, 3, 3)),
        ("test_vit", (64, 6, 6)),
        ("deit_tiny_distilled_patch16_224", (192, 6, 6)),
    ],
)
@torch.no_grad()
def test_maps_are_those_of_timm(name: str, shape: tuple[int, int, int]) -> None:
    features, images = made(name, 96), torch.rand(2, 3, 96, 96)
    assert measure(features, 96) == (shape, shape[0])
    options = {"indices": 1, "norm": True, "intermediates_only": True}
    expected = features.network.forward_intermediates(images, **options)[-1]
    torch.testing.assert_close(features(images), expected)


@torch.no_grad()
def test_vgg_ends_at_its_last_relu_and_fc_are_its_own_layers() -> None:
    features, images = made("vgg11", descriptor="fc"), torch.rand(2, 3, 64, 64)
    network = timm.create_model("vgg11").eval()
    network.features.load_state_dict(features.network.features.state_dict())
    network.pre_logits.load_state_dict(features.network.pre_logits.state_dict())
    maps, descriptors = features.with_head(images)
    torch.testing.assert_close(maps, network.features[:-1](images))
    assert maps.shape == (2, 512, 4, 4)
    expected = network.forward_head(network.forward_features(images), pre_logits=True)
    assert descriptors.shape == (2, 4096)
    torch.testing.assert_close(descriptors, expected)


def test_vggs_own_layers_learn() -> None:
    torch.manual_seed(0)
    model = RACNN(3, "vgg11", 1, 64, weights=None, descriptor="fc")
    engine = Engine(model, CLASSIFY, TrainingConfig(lr_backbone=0.1), ALONE)
    layer = model.each_scale()[0].features.network.pre_logits.fc1
    before = layer.weight[:8].clone()
    engine.start_step(0, 0.0)
    engine.train(Batch(random_images(3, 64), torch.arange(3)))
    assert not torch.equal(layer.weight[:8], before)


@torch.no_grad()
def test_classifiers_and_fusion_read_the_descriptor() -> None:
    name, images = "mobilenetv3_small_050", random_images(2, 64)
    torch.manual_seed(0)
    model = RACNN(3, name, 2, 64, weights=None, hidden=8, descriptor="fc").eval()
    output = model(images)
    assert [tuple(d.shape) for d in output.descriptors] == [(2, 1024)] * 2
    assert model.fusion[0].classifier.in_features == 2048
    network = model.each_scale()[0].features.network
    expected = network.forward_head(network.forward_features(output.crops[0]), pre_logits=True)
    torch.testing.assert_close(output.descriptors[0], expected)
    mean = RACNN(3, name, 2, 64, weights=None, hidden=8)
    assert [tuple(d.shape) for d in mean(images).descriptors] == [(2, 288)] * 2


def test_what_maps_do_not_need_is_left_out() -> None:
    for name in ("vgg11", "mobilenetv3_small_050", "test_convnext", "test_vit"):
        features = made(name).train()
        features(torch.rand(2, 3, 64, 64)).square().sum().backward()
        # Several processes would wait for gradients that never come.
        assert [key for key, value in features.named_parameters() if value.grad is None] == []


def test_normalisation_is_timms() -> None:
    for name, mean, std in (("test_vit", 0.5, 0.5), ("resnet18", 0.485, 0.229)):
        backbone = make_backbone(name, None, 64)
        assert (backbone.mean[0], backbone.std[0]) == (mean, std)


def test_weights_from_a_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = timm.create_model("test_resnet").state_dict()
    torch.save(state, tmp_path / "whole.pt")
    save_file(state, tmp_path / "whole.safetensors")
    for name in ("whole.pt", "whole.safetensors"):
        found = made("test_resnet", weights=tmp_path / name).network.state_dict()
        assert len(found) == len(state) - 2
        assert all(torch.equal(value, state[key]) for key, value in found.items())


def test_positions_are_interpolated(tmp_path: Path) -> None:
    network = timm.create_model("test_vit")
    torch.nn.init.constant_(network.pos_embed, 3.0)
    torch.save(network.state_dict(), tmp_path / "vit.pt")
    found = made("test_vit", 48, weights=tmp_path / "vit.pt").network
    assert found.pos_embed.shape[1] == 9 + 1 < network.pos_embed.shape[1]
    torch.testing.assert_close(found.pos_embed, torch.full_like(found.pos_embed, 3.0))
    assert torch.equal(found.blocks[0].mlp.fc1.weight, network.blocks[0].mlp.fc1.weight)


def test_weights_of_torchvisions_vgg(tmp_path: Path) -> None:
    from torchvision import models

    with torch.device("meta"):
        shapes = {name: value.shape for name, value in models.vgg11(weights=None).state_dict().items()}
    # Of one number each: the file stays small.
    state = {name: torch.tensor(float(n)).expand(shape) for n, (name, shape) in enumerate(shapes.items())}
    torch.save(state, tmp_path / "vgg11.pth")
    found = made("vgg11", weights=tmp_path / "vgg11.pth").network.state_dict()
    assert len(found) == 16
    assert all(torch.equal(value, state[name]) for name, value in found.items())


@pytest.mark.parametrize("name", ["test_resnet", "small"])
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match="weights must be 'DEFAULT', None or a file's path"):
        make_backbone(name, tmp_path / "missing.pt", 64)
    file = tmp_path / "other.pt"
    for content, why in (
        ({"stem.weight": torch.zeros(3)}, "Missing key"),
        ({}, "no weights"),
        (3, "no weights"),
    ):
        torch.save(content, file)
        with pytest.raises(ValueError, match=rf"weights must be a state dict of .*other.pt.*{why}"):
            make_backbone(name, file, 64)
    file.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="weights must be a state dict") as caught:
        make_backbone(name, file, 64)
    assert len(str(caught.value).splitlines()) == 1


def test_networks_without_maps_and_sizes_without_room_are_refused() -> None:
    with pytest.raises(ValueError, match=r"backbone must give feature maps .* got shape \(1, 4, 512\)"):
        RACNN(3, "mixer_s32_224", 1, 64, weights=None)
    with pytest.raises(ValueError, match="sizes: the backbone fails on images of 8 x 8 pixels"):
        RACNN(3, "vgg11", 1, 8, weights=None)


def test_the_small_backbone_from_scratch(tmp_path: Path) -> None:
    features = make_backbone("small", None, 32).features
    assert measure(features, 32) == ((64, 8, 8), 64)
    torch.save(features.state_dict(), tmp_path / "small.pt")
    again = make_backbone("small", tmp_path / "small.pt", 32).features
    assert all(torch.equal(value, features.state_dict()[key]) for key, value in again.state_dict().items())
    with pytest.raises(ValueError, match="no pretrained weights"):
        make_backbone("small", "DEFAULT", 32)


def test_a_callable_is_a_backbone() -> None:
    assert make_backbone(tiny_backbone, None, 16).mean == (0.5,) * 3
    module = tiny_backbone().features
    assert make_backbone(lambda weights: module, None, 16) == Backbone(module)


# Stem and positions, then blocks or stages; what follows the last of them counts to it.
@pytest.mark.parametrize(
    ("name", "count", "frozen", "learns"),
    [
        ("test_vit", 7, ("cls_token", "pos_embed", "patch_embed.", "blocks.0.", "blocks.1."), "blocks.2."),
        ("test_convnext", 5, ("stem.", "stages.0.", "stages.1."), "stages.2."),
        ("vgg11", 8, ("features.0.", "features.3.", "features.6."), "features.8."),
    ],
)
def test_leading_blocks_are_frozen(name: str, count: int, frozen: tuple[str, ...], learns: str) -> None:
    model = RACNN(3, name, 1, 64, weights=None)
    features = model.each_scale()[0].features
    assert len(blocks(features)) == count
    set_trainable(model, CLASSIFY, TrainingConfig(freeze_blocks=3))
    parameters = dict(features.network.named_parameters())
    kept = {key for key, value in parameters.items() if not value.requires_grad}
    assert kept == {key for key in parameters if key.startswith(frozen)}
    modules = dict(features.network.named_modules())
    assert not modules[frozen[-1].rstrip(".")].training
    assert modules[learns.rstrip(".")].training
    set_trainable(model, CLASSIFY, TrainingConfig(freeze_blocks=-1))
    assert not any(value.requires_grad for value in parameters.values())
    assert not any(module.training for module in modules.values())


def test_a_vision_transformer_goes_through_every_phase(tmp_path: Path) -> None:
    options = {f"{name}_epochs": 1 for name in ("classify", "imitate", "rank", "fuse")}
    config = Config(
        DataConfig(root=make_cub(tmp_path / "birds"), image_side=64, validation=0.2),
        ModelConfig("test_vit", None, scales=2, sizes=[64, 48], hidden=8),
        TrainingConfig(batch_size=6, rounds=1, device="cpu", **options),
    )
    trainer = Trainer(config, read_split("cub", config.data.root), tmp_path / "run", ALONE)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.run()
    names = ["classify", "imitate", "classify 1", "rank 1", "classify last", "fuse"]
    assert [result.phase.name for result in trainer.done] == names
    changed = {
        name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])
    }
    for part in ("0.features.network.blocks.0", "1.features.network.blocks.0", "0.classifier", "0.proposal"):
        assert any(name.startswith(f"scales.{part}") for name in changed), part
    assert any(name.startswith("fusion.") for name in changed)


@pytest.mark.slow
def test_vgg19_at_the_papers_sizes() -> None:
    torch.manual_seed(0)
    model = RACNN(200, "vgg19", weights=None)
    images, labels = random_images(2, 448), torch.tensor([0, 1])
    engine = Engine(model, Phase("rank 1", "rank", "proposed", 1), TrainingConfig(margin=1.0), ALONE)
    weight = model.proposal(2).output.weight
    before = weight.detach().clone()
    engine.start_step(0, 0.0)
    terms = engine.train(Batch(images, labels))
    assert terms["loss"] > 0
    assert terms["window gradient 2"] > 0
    assert terms["window gradient 3"] > 0
    assert not torch.equal(weight, before)
    with torch.no_grad():
        output = model(images)
    assert [tuple(maps.shape) for maps in output.features] == [(2, 512, s, s) for s in (28, 14, 14)]
    assert output.by_name()["1+2+3"].shape == (2, 200)
