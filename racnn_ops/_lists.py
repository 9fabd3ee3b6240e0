# SPDX-License-Identifier: BSD-3-Clause
"""Images and windows in other forms than (B, C, H, W) and (B, [K,] 3 or 4), made of crops of that one form.

Windows may name their images (``image_index``), images may be a list of different sizes, windows a list with
any number for each image. All that is a matter of plain tensor operations around crops; where kernels know
those forms themselves, they do the same without copies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ._arguments import is_channels_last
from ._options import Images, Windows

CropOfBatch = Callable[[Tensor, Tensor], Tensor]
"""Crops (B, [K,] C, h, w) of images (B, C, H, W) and windows (B, [K,] 3 or 4)."""


def crop_any(images: Images, windows: Windows, image_index: Tensor | None, crop: CropOfBatch) -> Tensor:
    """The crops of images and windows in any form, by ``crop``."""
    if isinstance(images, Tensor):
        if not isinstance(windows, Tensor):
            windows, image_index = joined(windows)
        if image_index is None:
            return crop(images, windows)
        if len(images) == 0 or not _is_known(image_index):
            return crop(*gathered(images, windows, image_index))
        images = images.unbind(0)
    if not isinstance(windows, Tensor):
        return _one_by_one(images, windows, crop)
    assert image_index is not None
    windows, index = existing(windows, image_index, len(images))
    order = index.argsort(stable=True)
    counts = index.bincount(minlength=len(images)).tolist()
    crops = _one_by_one(images, windows.index_select(0, order).split(counts), crop)
    return _selected(crops, order.argsort())


def _is_known(index: Tensor) -> bool:
    """Whether its numbers can be had: neither in a graph nor under vmap. Otherwise every crop gets a copy."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() or torch._C._is_tracing():
        return False
    return not (index.is_meta or torch._C._functorch.is_functorch_wrapped_tensor(index))


def _one_by_one(images: Sequence[Tensor], windows: Sequence[Tensor], crop: CropOfBatch) -> Tensor:
    crops = [crop(image.unsqueeze(0), own.unsqueeze(0)) for image, own in zip(images, windows, strict=True)]
    return torch.cat([each.squeeze(0) for each in crops])


def _selected(tensor: Tensor, index: Tensor) -> Tensor:
    """Of images or crops (B, C, H, W), in their layout."""
    layout = torch.channels_last if is_channels_last(tensor) else torch.contiguous_format
    return tensor.index_select(0, index).contiguous(memory_format=layout)


def joined(windows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Windows of all images one behind the other, (N, 3 or 4), and of which image each is, (N,)."""
    together = torch.cat(tuple(windows))
    return together, index_of(windows).to(together.device)


def index_of(windows: Sequence[Tensor]) -> Tensor:
    """Of which image each window is, on the host."""
    counts = [each.shape[0] for each in windows]
    index = torch.arange(len(windows))
    return index.repeat_interleave(torch.tensor(counts), output_size=sum(counts))


def gathered(images: Tensor, windows: Tensor, image_index: Tensor) -> tuple[Tensor, Tensor]:
    """An image for each window; windows that are NaN where there is no such image."""
    windows, index = existing(windows, image_index, images.shape[0])
    if images.shape[0] == 0:
        images = images.new_zeros((1, *images.shape[1:]))
    return _selected(images, index), windows


def existing(windows: Tensor, image_index: Tensor, images: int) -> tuple[Tensor, Tensor]:
    """Windows that are NaN where there is no such image, and indices of images that there are."""
    exists = is_image(image_index, images)
    return torch.where(exists.unsqueeze(-1), windows, float("nan")), torch.where(exists, image_index, 0)


def is_image(image_index: Tensor, images: int) -> Tensor:
    """Which windows have an image, (N,)."""
    return (image_index >= 0) & (image_index < images)


def are_channels_last(images: Sequence[Tensor]) -> bool:
    """Whether a list's crops are: as all of its images."""
    return all(image.stride(0) == 1 and is_channels_last(image.unsqueeze(0)) for image in images)
