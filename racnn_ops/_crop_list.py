# SPDX-License-Identifier: BSD-3-Clause
"""The crops of a list of images by kernels, as one differentiable function.

One operator makes of a list what a batch is to the kernels: crops, each of them out of some image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._arguments import is_channels_last
from ._autograd import has_tangent, is_differentiated
from ._kernels import boxcar_grad_kernel, image_grad_kernel, list_crop_kernel, list_window_grad_kernel
from ._lists import CropOfBatch, crop_any, existing, index_of
from ._options import Boxcar, KernelOptions, Windows


def crop_list(
    images: Sequence[Tensor],
    windows: Windows,
    image_index: Tensor | None,
    options: KernelOptions,
    crop: CropOfBatch,
) -> Tensor:
    """The crops (N, C, h, w) of images (C, H, W) and their windows; ``crop`` is the same of a batch.

    The host has to know which window is of which image: an index on a GPU is waited for.
    """
    if isinstance(windows, Tensor):
        assert image_index is not None
        windows, index = existing(windows, image_index, len(images))
        index = index.cpu()
    else:
        index = index_of(windows)
        windows = torch.cat(tuple(windows))
    if is_differentiated(*images, windows):
        return _CropList.apply(windows, index, options, crop, *images)  # type: ignore[no-any-return]
    return list_crop_kernel(images, windows, index, options)


class _CropList(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, windows: Tensor, index: Tensor, options: KernelOptions, crop: CropOfBatch, *images: Tensor
    ) -> Tensor:
        ctx.options, ctx.crop = options, crop
        ctx.save_for_backward(windows, index, *images)
        crops = list_crop_kernel(images, windows, index, options)
        if crops.dtype == torch.uint8:
            ctx.mark_non_differentiable(crops)
        return crops

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled() or has_tangent(grad_output):
            return _gradients_again(ctx, grad_output)
        windows, index, *images = ctx.saved_tensors
        needs_windows, _, _, _, *needs_images = ctx.needs_input_grad
        options: KernelOptions = ctx.options
        grad_windows = None
        if needs_windows and options.boxcar:
            grad_windows = _boxcar_grad(grad_output, windows, index, images, Boxcar.of(options.boxcar))
        elif needs_windows:
            grad_windows = list_window_grad_kernel(grad_output, images, windows, index, options)
        grad_images = [
            _image_grad(grad_output, windows, index == at, image, options) if needed else None
            for at, (image, needed) in enumerate(zip(images, needs_images, strict=True))
        ]
        return grad_windows, None, None, None, *grad_images


def _image_grad(
    grad_output: Tensor, windows: Tensor, is_own: Tensor, image: Tensor, options: KernelOptions
) -> Tensor:
    """Of an image alone, as image 0 of 1: the other windows are of none."""
    index = torch.where(is_own, 0, -1).to(windows.device)
    height, width = image.shape[1:]
    channels_last = is_channels_last(image.unsqueeze(0))
    return image_grad_kernel(
        *(grad_output, windows, height, width, channels_last, image.dtype, options, index, 1)
    ).squeeze(0)


def _boxcar_grad(
    grad_output: Tensor, windows: Tensor, index: Tensor, images: Sequence[Tensor], boxcar: Boxcar
) -> Tensor:
    """Its constants are in pixels of each image."""
    grad_windows = torch.empty_like(windows)
    for at, image in enumerate(images):
        own = (index == at).nonzero().squeeze(1).to(windows.device)
        scaled = boxcar.scaled_to(*image.shape[1:])
        grad_windows[own] = boxcar_grad_kernel(grad_output[own], windows[own], scaled)
    return grad_windows


def _gradients_again(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    """The same, differentiable again: image by image."""
    windows, index, *images = ctx.saved_tensors
    needed = [ctx.needs_input_grad[0], *ctx.needs_input_grad[4:]]
    with torch.enable_grad():
        crops = crop_any(images, windows, index, ctx.crop)
    wanted = [tensor for tensor, need in zip((windows, *images), needed, strict=True) if need]
    found = iter(torch.autograd.grad(crops, wanted, grad_output, create_graph=torch.is_grad_enabled()))
    grad_windows, *grad_images = (next(found) if need else None for need in needed)
    return grad_windows, None, None, None, *grad_images
