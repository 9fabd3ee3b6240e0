# SPDX-License-Identifier: BSD-3-Clause
"""Feature extractors: any network of timm, and ``small``, for training from scratch.

A backbone maps normalised images (B, 3, S, S) to feature maps (B, C, h, w). Each scale has its own, made for
the side S of its input.
"""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SMALL = "small"
DESCRIPTORS = ("mean", "fc")


class Backbone(NamedTuple):
    """A feature extractor and the normalisation ``(x - mean) / std`` of pixels in [0, 1] that it expects.

    For ``descriptor="fc"`` it has a method ``with_head``, see :class:`TimmFeatures`.
    """

    features: nn.Module
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


BackboneFactory = Callable[[str | Path | None], "Backbone | nn.Module"]
"""Takes ``weights``; a plain module means ImageNet's normalisation."""


def make_backbone(
    backbone: str | BackboneFactory, weights: str | Path | None, side: int, descriptor: str = "mean"
) -> Backbone:
    """Build one feature extractor.

    Args:
        backbone: a model's name in timm, ``"small"``, or a callable that takes ``weights`` and returns a
            :class:`Backbone` or a module.
        weights: ``"DEFAULT"``, timm's pretrained weights, downloaded if need be; the path of a state dict of
            the whole network, as timm or torchvision name its entries (.safetensors or torch's); or None:
            random.
        side: of its images, in pixels.
        descriptor: ``"fc"``: with the layers before the network's classifier.

    Raises:
        ValueError: an unknown name, a state dict of another network, or no head for ``"fc"``.
        FileNotFoundError: ``weights`` names no file.
    """
    if weights is not None and weights != "DEFAULT" and not Path(weights).is_file():
        raise FileNotFoundError(f"weights must be 'DEFAULT', None or a file's path, got {str(weights)!r}")
    if callable(backbone):
        made = backbone(weights)
        made = made if isinstance(made, Backbone) else Backbone(made)
    elif backbone == SMALL:
        made = _small(weights)
    else:
        made = _timm(backbone, weights, side, head=descriptor == "fc")
    if descriptor == "fc" and not hasattr(made.features, "with_head"):
        raise ValueError(f"descriptor must be 'mean' for a backbone without a head, got {descriptor!r}")
    return made


class TimmFeatures(nn.Module):
    """A network of timm up to its feature maps and, with a head, on to what its classifier reads.

    The maps are what ``forward_features`` gives. VGG ends at its last ReLU, before the last pooling: conv5_4
    of VGG-19, which the paper's APN reads. A transformer's tokens are laid out as their grid, without those
    of class and registers.
    """

    network: Any
    pool: nn.Module

    def __init__(self, network: Any) -> None:
        from timm.models import VGG

        super().__init__()
        network.reset_classifier(0)
        self.network, self.pool = network, nn.Identity()
        if isinstance(network, VGG):
            network.features, self.pool = network.features[:-1], network.features[-1]
        self.channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
        self.grid = getattr(getattr(network, "patch_embed", None), "grid_size", None)
        self.prefix: int = getattr(network, "num_prefix_tokens", 0)

    def forward(self, images: Tensor) -> Tensor:
        return self._maps(self.network.forward_features(images))

    def with_head(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, C, h, w) and what the classifier would read (B, D): of VGG, pooling, fc6 and fc7."""
        seen = self.network.forward_features(images)
        return self._maps(seen), self.network.forward_head(self.pool(seen), pre_logits=True)

    def _maps(self, seen: Tensor) -> Tensor:
        if self.grid is not None and seen.dim() == 3:
            seen = seen[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)
        return seen.permute(0, 3, 1, 2) if self.channels_last else seen

    def drop_head(self, side: int) -> None:
        """Leave out what maps of images of this side do not need: most of VGG-19 is fc6 and fc7."""
        called: set[nn.Module] = set()
        hooks = [m.register_forward_pre_hook(lambda module, _: called.add(module)) for m in self.modules()]
        _try_out(self, self, side)
        for hook in hooks:
            hook.remove()
        for name, child in self.network.named_children():
            if called.isdisjoint(child.modules()) and any(True for _ in child.parameters()):
                setattr(self.network, name, nn.Identity())


def _timm(name: str, weights: str | Path | None, side: int, head: bool) -> Backbone:
    import timm
    from timm.data.config import resolve_model_data_config

    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if config is None:
        raise ValueError(f"backbone must be a callable, {SMALL!r} or one of timm.list_models(), got {name!r}")
    options: dict[str, Any] = {"pretrained": weights is not None}
    if config.fixed_input_size:
        options["img_size"] = side  # pretrained positions are interpolated
    network: Any
    if weights is None or weights == "DEFAULT":
        try:
            network = timm.create_model(name, **options)
        except RuntimeError as error:
            raise ValueError(f"weights must be None or a file's path for {name!r}: {error}") from error
    else:
        with _naming(weights):
            options["pretrained_cfg_overlay"] = {"state_dict": _read(weights)}
            network = timm.create_model(name, **options)
        del network.pretrained_cfg["state_dict"]
    statistics = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    features = TimmFeatures(network)
    if not head:
        features.drop_head(side)
    return Backbone(features, statistics["mean"], statistics["std"])


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
        with _naming(weights):
            features.load_state_dict(_read(weights))
    return Backbone(features, mean=(0.5,) * 3, std=(0.25,) * 3)


def _convolution(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.SiLU())


def _read(path: str | Path) -> dict[str, Tensor]:
    if Path(path).suffix == ".safetensors":
        from safetensors.torch import load_file

        state: dict[str, Tensor] = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not state:  # timm would download its own
        raise ValueError("it holds no weights by name")
    return state


@contextlib.contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Whatever a foreign file leads to is one line that names it."""
    try:
        yield
    except Exception as error:
        why = textwrap.shorten(str(error), 250, placeholder=" ...")
        what = f"weights must be a state dict of this backbone, got {str(path)!r}"
        raise ValueError(f"{what}: {why}") from error


def blocks(features: nn.Module) -> list[list[nn.Parameter]]:
    """A backbone's parameters in parts, from the images on.

    Of timm's networks: the stem, then stages, or blocks of a transformer, or single layers of VGG, as
    ``group_matcher(coarse=True)`` has them. Of another module: its children.
    """
    if not isinstance(features, TimmFeatures):
        return [list(child.parameters()) for child in features.children()]
    from timm.models import group_parameters

    network = features.network
    groups = group_parameters(network, network.group_matcher(coarse=True), return_values=True)
    return [groups[number] for number in sorted(groups)]


def extract(features: nn.Module, images: Tensor, descriptor: str) -> tuple[Tensor, Tensor]:
    """Feature maps (B, C, h, w) and descriptors (B, D): their mean, or what the backbone's head gives."""
    if descriptor == "fc":
        maps, described = features.with_head(images)  # type: ignore[operator]
        return maps, described.float()
    maps = features(images)
    return maps, maps.float().mean((2, 3))


def measure(features: nn.Module, side: int, descriptor: str = "mean") -> tuple[tuple[int, int, int], int]:
    """(C, h, w) of the feature map of a ``side`` x ``side`` image, and D of its descriptor.

    Raises:
        ValueError: the image is too small for the network, or the result is no feature map.
    """
    if descriptor == "fc":
        maps, described = _try_out(features, features.with_head, side)
    else:
        maps = described = _try_out(features, features, side)
    if not isinstance(maps, Tensor) or maps.dim() != 4 or 0 in maps.shape:
        got = f"shape {tuple(maps.shape)}" if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(f"backbone must give feature maps (B, C, h, w), got {got}")
    _, channels, height, width = maps.shape
    return (channels, height, width), described.shape[1]


def _try_out(features: nn.Module, call: Any, side: int) -> Any:
    """What ``call`` makes of an image, in evaluation mode."""
    was_training = features.training
    features.eval()
    try:
        with torch.no_grad():
            return call(torch.zeros(1, 3, side, side))
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"sizes: the backbone fails on images of {side} x {side} pixels: {error}") from error
    finally:
        features.train(was_training)
