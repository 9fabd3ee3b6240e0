# SPDX-License-Identifier: BSD-3-Clause
"""The crop by kernels as one differentiable function, and its gradients."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ._arguments import are_pixels_far_apart, is_channels_last
from ._kernels import boxcar_grad_kernel, crop_kernel, image_grad_kernel, window_grad_kernel
from ._lists import crop_any, is_image
from ._options import Boxcar, KernelOptions
from ._transforms import crop_by_taps


def has_tangent(*tensors: Tensor) -> bool:
    """Whether forward mode differentiates one. Its level alone does not tell: all threads share it."""
    forward_ad = torch.autograd.forward_ad
    if forward_ad._current_level < 0:
        return False
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def is_differentiated(*tensors: Tensor) -> bool:
    """Whether autograd is to differentiate by one of them, in reverse or in forward mode."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return True
    return has_tangent(*tensors)


def differentiable_crop(
    images: Tensor, windows: Tensor, options: KernelOptions, image_index: Tensor | None
) -> Tensor:
    """The crops in eager mode, leaner than the gradients that are registered with the operator."""
    if windows.requires_grad and not options.boxcar and are_pixels_far_apart(images):
        images = _copied_once(images, windows.detach())
    return _Crop.apply(images, windows, options, image_index)  # type: ignore[no-any-return]


def _copied_once(images: Tensor, windows: Tensor) -> Tensor:
    """Images that the kernels would copy forwards and backwards: one copy if windows read most of them.

    Not of small numbers, which the kernels copy more than twice as fast as torch.
    """
    if images.element_size() < 4:
        return images
    area = 4 * (windows[..., 2] * windows[..., -1]).mean().item()
    return images.contiguous() if area > 0.5 * images.shape[2] * images.shape[3] else images


class _Crop(torch.autograd.Function):
    """Without setup_context, at half the cost: with it, torch binds a signature each time."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, windows: Tensor, options: KernelOptions, image_index: Tensor | None
    ) -> Tensor:
        save_for_gradients(ctx, images, windows, options, image_index)
        crops = crop_kernel(images, windows, options, image_index)
        if crops.dtype == torch.uint8:
            ctx.mark_non_differentiable(crops)
        return crops

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return *gradients(ctx, grad_output), None, None


def save_for_gradients(
    ctx: Any, images: Tensor, windows: Tensor, options: KernelOptions, image_index: Tensor | None
) -> None:
    """Keep what :func:`gradients` needs."""
    ctx.options = options
    ctx.save_for_backward(images, windows, image_index)


def gradients(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Of images and windows, where asked for."""
    again = torch.is_grad_enabled() or torch._C._are_functorch_transforms_active() or has_tangent(grad_output)
    if again and not torch.compiler.is_compiling():
        return _gradients_by_taps(ctx, grad_output)
    images, windows, index = ctx.saved_tensors
    count, _, height, width = images.shape
    options: KernelOptions = ctx.options
    needs_images, needs_windows, *_ = ctx.needs_input_grad
    grad_images = grad_windows = None
    if needs_images and needs_windows and are_pixels_far_apart(grad_output):
        grad_output = grad_output.contiguous()  # once, not in each of two kernels
    if needs_images:
        grad_images = image_grad_kernel(
            *(grad_output, windows, height, width, is_channels_last(images), images.dtype, options),
            *(index, count),
        )
    if needs_windows and options.boxcar:
        boxcar = Boxcar.of(options.boxcar).scaled_to(height, width)
        grad_windows = boxcar_grad_kernel(grad_output, windows, boxcar)
        if index is not None:
            grad_windows = torch.where(is_image(index, count).unsqueeze(-1), grad_windows, 0.0)
    elif needs_windows:
        grad_windows = window_grad_kernel(grad_output, images, windows, options, index)
    return grad_images, grad_windows


def _gradients_by_taps(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The same, differentiable again; made of what differentiates to any order (see ``_transforms``)."""
    images, windows, index = ctx.saved_tensors
    needed = ctx.needs_input_grad[:2]
    options: KernelOptions = ctx.options._replace(dtype=grad_output.dtype)
    with torch.enable_grad():
        crops = crop_any(images, windows, index, partial(crop_by_taps, options=options))
    wanted = [tensor for tensor, need in zip((images, windows), needed, strict=True) if need]
    found = iter(torch.autograd.grad(crops, wanted, grad_output, create_graph=torch.is_grad_enabled()))
    grad_images, grad_windows = (next(found) if need else None for need in needed)
    return grad_images, grad_windows
