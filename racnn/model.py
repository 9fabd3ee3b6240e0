# SPDX-License-Identifier: BSD-3-Clause
"""RA-CNN: look at the whole image, propose where to look closer, crop, zoom, look again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from racnn_ops import AttentionCrop, attention_crop

from . import pretrained
from . import windows as geometry
from .backbones import DESCRIPTORS, BackboneFactory, make_backbone, measure
from .output import RACNNOutput
from .parts import FusionHead, Scale
from .pretrained import Usage
from .proposal import AttentionProposal
from .windows import INITIAL_HALF_SIDE, Bounds

CROP_FROM = ("previous", "image")


class RACNN(nn.Module):
    """The recurrent attention network of Fu, Zheng, Mei, "Look Closer to See Better", CVPR 2017.

    Args:
        num_classes: at least 2.
        backbone: the name of a model in timm, such as ``"resnet50"`` or ``"vit_small_patch14_dinov2"``;
            ``"small"``, for training from scratch; or a callable that takes ``weights`` and returns a module
            from images to feature maps, called once a scale, as scales share no parameters.
        scales: at least 1; 1 is the backbone alone.
        sizes (int or sequence of int): side of each scale's input, in pixels. The last one counts for all
            further scales.
        weights: ``"DEFAULT"`` (pretrained), the path of a state dict, or None (random).
        descriptor: what a scale's classifier and fusion read of its feature map: ``"mean"``, its mean, or
            ``"fc"``, what the backbone's own layers make of it before its classifier (VGG: fc6 and fc7).
        num_windows: K, windows an image at every scale but the first. Each proposes one window at the next
            scale; a scale's descriptor is that of its windows one after another.
        crop_from: ``"previous"`` cuts a scale's input out of the previous one's, as in the paper;
            ``"image"`` composes the windows and cuts it out of the image, so that it sees real pixels.
        mask_steepness: see :func:`racnn_ops.attention_crop`.
        chain_gradient: whether a scale's loss reaches windows coarser than its own (in the release not).
        half_side_bounds (float, float): of tl, as shares of the coarser scale's tl. The paper: at least 1/3.
        initial_half_side: tl of windows that are not learned and of untrained APNs, as a share of the coarser
            scale's side. The paper: 1/4, half the side.
        hidden: width of the APN's hidden layer.
        dropout: before each scale's classifier.

    Attributes:
        crop_options: what :func:`racnn_ops.attention_crop` is called with. Its ``window_grad`` and
            ``boxcar`` may be set here: they change gradients alone.
        usage: a :class:`racnn.Usage`, how the model is to be used; :meth:`save_pretrained` keeps it.

    Shapes: images (B, 3, S, S), uint8 or floats in [0, 1], of any side S; they are resized to ``sizes[0]``
    for scale 1. The result is an :class:`RACNNOutput`.

    Raises:
        TypeError, ValueError, FileNotFoundError: naming the argument, what it was and what is allowed.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        num_classes: int,
        backbone: str | BackboneFactory = "vgg19",
        scales: int = 3,
        sizes: int | Sequence[int] = (448, 224, 224),
        *,
        weights: str | Path | None = "DEFAULT",
        descriptor: str = "mean",
        num_windows: int = 1,
        crop_from: str = "previous",
        mask_steepness: float | None = None,
        chain_gradient: bool = True,
        half_side_bounds: Sequence[float] = (1 / 3, 1.0),
        initial_half_side: float = INITIAL_HALF_SIDE,
        hidden: int = 1024,
        dropout: float = 0.0,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        self.arguments: dict[str, Any] = arguments  # kept by save_pretrained
        for name, value, least in (
            ("num_classes", num_classes, 2),
            ("scales", scales, 1),
            ("num_windows", num_windows, 1),
            ("hidden", hidden, 1),
        ):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        for name, choice, allowed in (
            ("crop_from", crop_from, CROP_FROM),
            ("descriptor", descriptor, DESCRIPTORS),
        ):
            if choice not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {choice!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout!r}")
        if len(half_side_bounds) != 2:
            raise ValueError(f"half_side_bounds must be a pair, got {half_side_bounds!r}")
        if not 0 < initial_half_side <= 0.5:
            raise ValueError(f"initial_half_side must be in (0, 0.5], got {initial_half_side!r}")
        self.num_classes, self.sizes = num_classes, _check_sizes(sizes, scales)
        self.num_windows, self.crop_from, self.chain_gradient = num_windows, crop_from, chain_gradient
        self.crop_options: dict[str, Any] = {"boundary": "border", "mask_steepness": mask_steepness}
        AttentionCrop(self.sizes[0], **self.crop_options)  # refuses options that no crop can have
        self.bounds, self.initial_half_side = Bounds(*half_side_bounds).check(), initial_half_side

        self.scales = nn.ModuleList()
        widths = []
        for n, size in enumerate(self.sizes, 1):
            made = make_backbone(backbone, weights, size, descriptor)
            shape, width = measure(made.features, size, descriptor)
            proposal = None
            if n < scales:
                proposal = AttentionProposal(
                    shape,
                    count=num_windows if n == 1 else 1,
                    hidden=hidden,
                    bounds=self.bounds,
                    half_side=initial_half_side,
                )
            widths.append(width * (num_windows if n > 1 else 1))
            self.scales.append(Scale(made.features, descriptor, widths[-1], num_classes, dropout, proposal))
        # Scale n's head fuses scales 1 to n.
        self.fusion = nn.ModuleList(FusionHead(widths[:n], num_classes) for n in range(2, scales + 1))
        self.register_buffer("mean", torch.tensor(made.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(made.std).view(1, -1, 1, 1), persistent=False)
        self.statistics: dict[str, Any] = {"mean": made.mean, "std": made.std}
        self.usage = Usage(self.sizes[0])

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> RACNN:
        """The model in a folder of :meth:`save_pretrained`, on the CPU, in evaluation mode.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: it is damaged, or no model of this version. One line, which names the folder.
        """
        return pretrained.load(cls, Path(folder))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a new folder: ``config.json``, the arguments of this class, ``usage`` and the normalisation,
        and ``model.safetensors``.

        Raises:
            ValueError: the folder is there already, the backbone is no name, ``usage`` does not fit, or a
                weight is not finite.
            OSError: it cannot be written.
        """
        pretrained.save(self, Path(folder))

    def proposal(self, n: int) -> AttentionProposal:
        """The APN of scale ``n`` (from 1), which proposes the windows of scale ``n + 1``."""
        proposal = self.scales[n - 1].proposal
        assert isinstance(proposal, AttentionProposal)
        return proposal

    def forward(
        self,
        images: Tensor,
        windows: Sequence[Tensor] | None = None,
        *,
        window_source: str = "proposed",
        scales: int | None = None,
        jitter: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> RACNNOutput:
        """Look at all scales.

        Args:
            images (Tensor[B, 3, S, S]): uint8, or floats in [0, 1].
            windows: N - 1 tensors (B, K, 3), pixels of ``images``, in place of those of a source.
            window_source: where windows come from: ``"proposed"`` by the APNs; ``"response"``, around the
                highest responses of the features; ``"centre"`` or ``"random"``, all of the initial half side.
            scales: look no closer than this one; all by default.
            jitter: N - 1 tensors (B, K, 3) that move the windows of a source, see
                :func:`racnn.windows.moved`.
            generator: of ``"random"`` windows.
        """
        self._check(images, windows, window_source)
        side = float(images.shape[-1])
        crops = [self._first_input(images)]
        coarse, descriptor = self.each_scale()[0].extract(crops[0])
        features, descriptors = [coarse], [descriptor]
        parent = geometry.whole(images.shape[0], side, crops[0]).unsqueeze(1)
        absolute: list[Tensor] = []
        relative: list[Tensor] = []
        for n in range(1, scales or len(self.scales)):
            if windows is None:
                maps = self._link(features[-1]) if n > 1 else coarse
                unmoved = self._relative_windows(window_source, n, maps, generator)
                relative.append(
                    unmoved if jitter is None else geometry.moved(unmoved, jitter[n - 1], self.bounds)
                )
                absolute.append(geometry.compose(self._link(parent), relative[-1]))
            else:
                absolute.append(windows[n - 1].to(parent))
                relative.append(geometry.relative_to(self._link(parent), absolute[-1]))
            parent = absolute[-1]
            crops.append(self._crop(images, crops[-1], absolute[-1], relative[-1], self.sizes[n]))
            maps, descriptor = self.each_scale()[n].extract(crops[-1].flatten(0, 1))
            features.append(maps)
            descriptors.append(descriptor.unflatten(0, parent.shape[:2]).flatten(1))
        by_scale = (descriptors, absolute, relative, crops, features)
        return RACNNOutput(*self.classify(descriptors), *map(tuple, by_scale))

    def descriptors_at(self, images: Tensor, output: RACNNOutput, n: int, relative: Tensor) -> Tensor:
        """Descriptors (B, L, D) of scale ``n``, from 2 on, at L times K windows in place of those it had.

        Args:
            output: the model's of these images.
            relative (Tensor[B, L, K, 3]): in units of scale ``n - 1``'s side; that scale stays as it is.
        """
        relative = relative.transpose(1, 2)  # a coarser scale's crops have all L of their child
        shape = relative.shape[1:3]
        side = float(images.shape[-1])
        whole = geometry.whole(images.shape[0], side, relative).unsqueeze(1)
        parent = whole if n == 2 else output.windows[n - 3]
        absolute = geometry.compose(parent.unsqueeze(2), relative).flatten(1, 2)
        crops = self._crop(images, output.crops[n - 2], absolute, relative.flatten(1, 2), self.sizes[n - 1])
        _, descriptor = self.each_scale()[n - 1].extract(crops.flatten(0, 1))
        each: Tensor = descriptor.unflatten(0, (images.shape[0], *shape)).transpose(1, 2)
        return each.flatten(2)

    def classify(self, descriptors: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Logits of each scale, and of scales 1 to 2, 1 to 3, ... fused, from descriptors (B, D).

        Of the first scales only, where there are fewer descriptors than scales.
        """
        known = len(descriptors)
        logits = tuple(
            scale.classify(d) for scale, d in zip(self.each_scale()[:known], descriptors, strict=True)
        )
        fused = tuple(head(descriptors[:n]) for n, head in enumerate(self.fusion[: known - 1], 2))
        return logits, fused

    def each_scale(self) -> list[Scale]:
        return [scale for scale in self.scales if isinstance(scale, Scale)]

    def _first_input(self, images: Tensor) -> Tensor:
        pixels = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        size = self.sizes[0]
        if images.shape[-1] != size:
            pixels = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
        return (pixels - self.mean) / self.std

    def _relative_windows(
        self, source: str, n: int, features: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Relative windows (B, K, 3) of scale n + 1."""
        count = self.num_windows if n == 1 else 1
        if source == "proposed":
            relative: Tensor = self.proposal(n)(features)
        elif source == "response":
            relative = geometry.highest_response(features, count, self.initial_half_side)
        else:
            half = self.initial_half_side
            relative = torch.full((features.shape[0], count, 3), 0.5, device=features.device)
            relative[..., 2] = half
            if source == "random":
                place = torch.rand((*relative.shape[:2], 2), generator=generator)
                relative[..., :2] = half + (1 - 2 * half) * place.to(relative)
        # From scale 2 on, features are those of B * K crops.
        return relative.reshape(-1, self.num_windows, 3)

    def _link(self, value: Tensor) -> Tensor:
        return value if self.chain_gradient else value.detach()

    def _crop(
        self, images: Tensor, previous: Tensor, absolute: Tensor, relative: Tensor, size: int
    ) -> Tensor:
        """(B, K, 3, size, size)"""
        if self.crop_from == "image":
            return self.cut(images, absolute, size, dtype=torch.float32, **self.statistics)
        pixels = relative * previous.shape[-1]
        source = self._link(previous)
        if previous.dim() == 5:
            # Every window of the coarser scale has its own children, one or L of them.
            source = source.flatten(0, 1)
            pixels = pixels.reshape(source.shape[0], -1, 3)
        return self.cut(source, pixels, size).reshape(*absolute.shape[:2], -1, size, size)

    def cut(self, images: Tensor, windows: Tensor, size: int, **normalisation: Any) -> Tensor:
        """Crops (B, K, C, size, size) out of images (B, C, H, W) at windows (B, K, 3) in their pixels.

        A subclass may cut in another way; ``normalisation`` is ``mean``, ``std`` and ``dtype``.
        """
        return attention_crop(images, windows.contiguous(), size, **self.crop_options, **normalisation)

    def _check(self, images: Tensor, windows: Sequence[Tensor] | None, window_source: str) -> None:
        if images.dim() != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise ValueError(
                f"images must have shape (B, 3, S, S); resize or pad others: got {tuple(images.shape)}"
            )
        geometry.check_source(window_source)
        if windows is None:
            return
        if window_source != "proposed":
            raise ValueError(f"window_source must not be given together with windows, got {window_source!r}")
        expected = (images.shape[0], self.num_windows, 3)
        shapes = [tuple(scale.shape) if isinstance(scale, Tensor) else scale for scale in windows]
        if shapes != [expected] * (len(self.scales) - 1):
            raise ValueError(
                f"windows must be {len(self.scales) - 1} tensors of shape {expected}, got shapes {shapes}"
            )


def _check_sizes(sizes: int | Sequence[int], scales: int) -> tuple[int, ...]:
    given = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    if not given or not all(isinstance(size, int) and size >= 8 for size in given):
        raise ValueError(f"sizes must be whole numbers of at least 8, got {sizes!r}")
    return (given + given[-1:] * scales)[:scales]
