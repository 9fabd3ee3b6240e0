# SPDX-License-Identifier: BSD-3-Clause
"""Random crops of batches: a window of its own for every sample, drawn and cut where the images are.

torchvision's v2 transforms draw one window for a whole batch, and are called image by image where each is to
have its own; here that is one call of :func:`racnn_ops.attention_crop`. Nothing waits for the device, so the
modules compile (``fullgraph=True``) and may be captured in CUDA graphs. They have no parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ._arguments import (
    check_arguments,
    check_count,
    check_images,
    check_number,
    check_options,
    check_positive,
    check_size,
)
from ._dispatch import crop
from .boxes import windows_from_boxes

__all__ = ["MultiCrop", "RandomResizedCrop"]

TRIES = 10  # torchvision's; windows that do not fit into the image are drawn again so often
MOST = 1e6  # of an area and a ratio: far beyond use, and products with the largest images are finite

Range = Sequence[float]


class RandomResizedCrop(nn.Module):
    """Windows of random area and proportions at random places, zoomed to one size: one, or K, an image.

    Windows are distributed as torchvision's ``RandomResizedCrop.get_params`` draws them, in whole pixels:
    up to 10 tries of an area (uniform within ``scale``) and a ratio (log-uniform within ``ratio``), of which
    the first that fits has its corner anywhere in the image (uniform); otherwise the largest window of an
    allowed ratio in the image's middle. A crop is what ``torchvision.transforms.v2.functional.resized_crop``
    makes of its window.

    Args:
        size (int or (int, int)): ``h, w`` of a crop.
        scale ((float, float)): the least and the most of an image's area that a window has.
        ratio ((float, float)): the least and the most of a window's width divided by its height.
        interpolation, antialias: as in :func:`racnn_ops.attention_crop`; ``"nearest"`` and ``"area"`` need
            ``antialias=False``.
        crops (int, optional): K, how many crops to make of each image; by default one, without an axis for K.
        flip (float): the probability with which a crop is mirrored left-right.
        mean, std, dtype, memory_format: as in :func:`racnn_ops.attention_crop`.

    Raises:
        TypeError, ValueError: before any work, naming the argument, what it was and what is allowed.

    Example:
        >>> random_crop = RandomResizedCrop(224, scale=(0.2, 1.0), crops=2, flip=0.5)
        >>> random_crop(torch.zeros(8, 3, 256, 320, dtype=torch.uint8)).shape
        torch.Size([8, 2, 3, 224, 224])
    """

    def __init__(
        self,
        size: int | Sequence[int],
        scale: Range = (0.08, 1.0),
        ratio: Range = (3 / 4, 4 / 3),
        interpolation: str = "bilinear",
        antialias: bool = True,
        *,
        crops: int | None = None,
        flip: float = 0.0,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        dtype: torch.dtype | None = None,
        memory_format: torch.memory_format | None = None,
    ) -> None:
        super().__init__()
        self.size = check_size("size", size)
        self.scale = _check_range("scale", scale)
        self.ratio = _check_range("ratio", ratio)
        self.crops = None if crops is None else check_count("crops", crops, 1, " or None")
        self.flip = _check_probability("flip", flip)
        self.options = check_options(
            *(self.size, interpolation, antialias, None, "window", None),
            *("exact", mean, std, dtype, memory_format, None),
        )

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Crops of windows that are drawn anew.

        Args:
            images (Tensor[B, C, H, W]): as in :func:`racnn_ops.attention_crop`.
            generator (torch.Generator, optional): where random numbers come from, of the images' device; by
                default torch's own, which ``torch.manual_seed`` sets. torch.compile knows no generators:
                compiled, it must be left out.

        Returns:
            Tensor[B, C, h, w], or Tensor[B, K, C, h, w] with ``crops=K``.
        """
        check_images(images, self.options)
        batch, _, height, width = images.shape
        windows, flip = self.windows(batch, height, width, device=images.device, generator=generator)
        if images.dtype == torch.float64:
            windows = windows.double()
        return crop(images, windows, self.options, flip if self.flip else None)

    def windows(
        self,
        batch: int,
        height: int,
        width: int,
        *,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What :meth:`forward` draws, to be used more than once: for labels, masks and boxes, too.

        Args:
            batch (int): B, how many images; 0 or more.
            height, width (int): of the images, in pixels.
            device (torch.device, optional): where to draw; by default the generator's, or torch's default.
            generator (torch.Generator, optional): as in :meth:`forward`.

        Returns:
            - Tensor[B, 4] or Tensor[B, K, 4], windows ``tx, ty, tw, th``: float32, exact in float64, too.
            - Tensor[B] or Tensor[B, K], bool: which crops are mirrored.
        """
        shape: tuple[int, ...] = (check_count("batch", batch, 0),)
        height, width = check_size("height, width", (height, width))
        device = _check_generator(generator, device)
        if self.crops is not None:
            shape = (*shape, self.crops)
        # Not torch.rand, whose generator=None does not compile with a batch of dynamic size.
        numbers = torch.empty(*shape, 2 * TRIES + 3, dtype=torch.float32, device=device)
        numbers.uniform_(generator=generator)
        areas, ratios, x, y, coin = numbers.split((TRIES, TRIES, 1, 1, 1), -1)
        area = height * width * _between(areas, *self.scale)
        ratio = _between(ratios, *map(math.log, self.ratio)).exp()
        # All tries at once, then the first that fits: a loop until one does would wait for the device.
        widths, heights = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
        none, first = ~fits.any(-1, keepdim=True), fits.int().argmax(-1, keepdim=True)
        sides = zip((widths, heights), (width, height), self._central(height, width), (x, y), strict=True)
        corners, lengths = [], []
        for tried, full, central, number in sides:
            length = tried.gather(-1, first).masked_fill(none, central)  # where would wait to copy a number
            room = full - length
            corner = (number * (room + 1)).floor()  # at most room, the number being below 1, rounded as well
            corners.append(torch.where(none, (room / 2).floor(), corner))
            lengths.append(length)
        boxes = torch.cat((*corners, *lengths), -1)
        return windows_from_boxes(boxes, "xywh"), coin.squeeze(-1) < self.flip

    def crop(self, images: Tensor, windows: Tensor, flip: Tensor | None = None) -> Tensor:
        """Crops of windows that were drawn, by :meth:`windows` of this module or of another.

        Args:
            images (Tensor[B, C, H, W]): as in :meth:`forward`.
            windows (Tensor[B, 4] or Tensor[B, K, 4]): as :meth:`windows` gives them; of float64 images
                ``windows.double()``.
            flip (Tensor[B] or Tensor[B, K], bool, optional): which crops to mirror; by default none.

        Returns:
            Tensor[B, C, h, w] or Tensor[B, K, C, h, w].
        """
        check_arguments(images, windows, self.options, flip)
        return crop(images, windows, self.options, flip)

    def _central(self, height: int, width: int) -> tuple[int, int]:
        """Width and height of the window that is taken where none fits."""
        least, most = self.ratio
        return max(min(width, round(height * most)), 1), max(min(height, round(width / least)), 1)

    def extra_repr(self) -> str:
        shown = {name: getattr(self, name) for name in ("size", "scale", "ratio", "crops", "flip")}
        names = ("interpolation", "antialias", "mean", "std", "dtype", "memory_format")
        shown |= {name: getattr(self.options, name) for name in names}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items() if value is not None)


class MultiCrop(nn.Module):
    """Some large crops of large parts of each image and more small crops of small parts, as SwAV and DINO do.

    Two :class:`RandomResizedCrop`, ``global_crop`` and ``local_crop``, one call each.

    Args:
        global_size, local_size (int or (int, int)): ``h, w`` of the large and of the small crops.
        global_crops, local_crops (int): how many of them to make of each image.
        global_scale, local_scale ((float, float)): the least and the most of an image's area in windows.
        ratio, interpolation, antialias, flip, mean, std, dtype, memory_format: of both, as in
            :class:`RandomResizedCrop`.

    Raises:
        TypeError, ValueError: before any work, naming the argument, what it was and what is allowed.

    Example:
        >>> large, small = MultiCrop()(torch.rand(4, 3, 256, 256))
        >>> large.shape, small.shape
        (torch.Size([4, 2, 3, 224, 224]), torch.Size([4, 8, 3, 96, 96]))
    """

    def __init__(
        self,
        global_size: int | Sequence[int] = 224,
        local_size: int | Sequence[int] = 96,
        global_crops: int = 2,
        local_crops: int = 8,
        global_scale: Range = (0.32, 1.0),
        local_scale: Range = (0.05, 0.32),
        *,
        ratio: Range = (3 / 4, 4 / 3),
        interpolation: str = "bilinear",
        antialias: bool = True,
        flip: float = 0.0,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        dtype: torch.dtype | None = None,
        memory_format: torch.memory_format | None = None,
    ) -> None:
        super().__init__()

        def part(name: str, size: int | Sequence[int], crops: int, scale: Range) -> RandomResizedCrop:
            return RandomResizedCrop(
                check_size(f"{name}_size", size),
                _check_range(f"{name}_scale", scale),
                ratio,
                interpolation,
                antialias,
                crops=check_count(f"{name}_crops", crops, 1),
                flip=flip,
                mean=mean,
                std=std,
                dtype=dtype,
                memory_format=memory_format,
            )

        self.global_crop = part("global", global_size, global_crops, global_scale)
        self.local_crop = part("local", local_size, local_crops, local_scale)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Large and small crops of windows that are drawn anew.

        Args:
            images (Tensor[B, C, H, W]): as in :func:`racnn_ops.attention_crop`.
            generator (torch.Generator, optional): as in :meth:`RandomResizedCrop.forward`.

        Returns:
            Tensor[B, K, C, h, w] of each of the two sizes.
        """
        return self.global_crop(images, generator), self.local_crop(images, generator)


def _between(numbers: Tensor, least: float, most: float) -> Tensor:
    return least + (most - least) * numbers


def _check_range(name: str, values: Range) -> tuple[float, float]:
    if isinstance(values, (str, bytes, bytearray)) or not isinstance(values, Sequence) or len(values) != 2:
        raise TypeError(f"{name} must be a pair of numbers (least, most), got {values!r}")
    least, most = (check_positive(name, value, 1 / MOST, MOST) for value in values)
    if least > most:
        raise ValueError(f"{name} must have the lesser number first, got {values!r}")
    return least, most


def _check_probability(name: str, value: float) -> float:
    probability = check_number(name, value)
    if not 0 <= probability <= 1:
        raise ValueError(f"{name} must be a probability within [0, 1], got {value!r}")
    return probability


def _check_generator(
    generator: torch.Generator | None, device: torch.device | str | None
) -> torch.device | str | None:
    """Where to draw."""
    if generator is None:
        return device
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator or None, got {type(generator).__name__}")
    if device is None:
        return generator.device
    if generator.device.type != torch.device(device).type:
        raise ValueError(f"generator must be of device {device}, got one of {generator.device}")
    return device
