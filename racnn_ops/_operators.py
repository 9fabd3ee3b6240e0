# SPDX-License-Identifier: BSD-3-Clause
"""The registered operators ``torch.ops.racnn_ops.*``: fake kernels and gradients.

Schemas and kernels are in C++ (``csrc/ops.cpp``). Fake kernels give shapes, dtypes and strides; Inductor
relies on all three. The operators are private, but used directly they differentiate all the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._arguments import is_channels_last

# Boxcar constants in pixels of the image at hand: steepness, energy, scale, shrink.
Surrogate = tuple[float, str, float, float]

_DOUBLE_BACKWARD = "racnn_ops: the gradient of attention_crop cannot be differentiated again"


def register() -> None:
    """Call once, after the library that holds the schemas was loaded."""
    torch.library.register_fake("racnn_ops::_crop_forward", _fake_forward)
    torch.library.register_fake("racnn_ops::_crop_window_grad", _fake_window_grad)
    torch.library.register_fake("racnn_ops::_crop_image_grad", _fake_image_grad)
    torch.library.register_fake("racnn_ops::_crop_boxcar_grad", _fake_boxcar_grad)
    torch.library.register_autograd("racnn_ops::_crop_forward", _backward, setup_context=_setup_context)
    for name in ("_crop_window_grad", "_crop_image_grad", "_crop_boxcar_grad"):
        torch.library.register_autograd(f"racnn_ops::{name}", _refuse_double_backward)


def _empty(like: Tensor, sizes: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> Tensor:
    """A dense tensor (..., C, H, W), its channels innermost in memory or not."""
    if not channels_last:
        return like.new_empty(sizes, dtype=dtype)
    *outer, channels, height, width = sizes
    return like.new_empty((*outer, height, width, channels), dtype=dtype).movedim(-1, -3)


def _fake_forward(
    images: Tensor,
    windows: Tensor,
    out_height: int,
    out_width: int,
    boundary: str,
    mask_steepness: float | None,
    scale: list[float],
    shift: list[float],
    dtype: torch.dtype,
) -> Tensor:
    sizes = (*windows.shape[:-1], images.shape[1], out_height, out_width)
    return _empty(images, sizes, dtype, is_channels_last(images))


def _fake_window_grad(grad_output: Tensor, images: Tensor, windows: Tensor, *options: Any) -> Tensor:
    return windows.new_empty(windows.shape)


def _fake_image_grad(
    grad_output: Tensor,
    windows: Tensor,
    height: int,
    width: int,
    boundary: str,
    mask_steepness: float | None,
    scale: list[float],
    channels_last: bool,
    dtype: torch.dtype,
) -> Tensor:
    sizes = (grad_output.shape[0], grad_output.shape[-3], height, width)
    return _empty(grad_output, sizes, dtype, channels_last)


def _fake_boxcar_grad(grad_output: Tensor, windows: Tensor, *options: Any) -> Tensor:
    return windows.new_empty(windows.shape)


def save_for_gradients(ctx: Any, inputs: tuple[Any, ...], surrogate: Surrogate | None) -> None:
    """Keep what :func:`gradients` needs; ``inputs`` are those of ``_crop_forward``."""
    images, windows, _, _, ctx.boundary, ctx.mask_steepness, ctx.scale, ctx.shift, _ = inputs
    ctx.surrogate = surrogate
    ctx.save_for_backward(images, windows)


def gradients(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Of images and windows, where asked for."""
    images, windows = ctx.saved_tensors
    needs_images, needs_windows, *_ = ctx.needs_input_grad
    grad_images = grad_windows = None
    if needs_images:
        grad_images = call(
            torch.ops.racnn_ops._crop_image_grad.default,
            grad_output,
            windows,
            images.shape[2],
            images.shape[3],
            ctx.boundary,
            ctx.mask_steepness,
            ctx.scale,
            is_channels_last(images),
            images.dtype,
        )
    if needs_windows and ctx.surrogate is not None:
        boxcar_grad = torch.ops.racnn_ops._crop_boxcar_grad.default
        grad_windows = call(boxcar_grad, grad_output, windows, *ctx.surrogate)
    elif needs_windows:
        grad_windows = call(
            torch.ops.racnn_ops._crop_window_grad.default,
            grad_output,
            images,
            windows,
            ctx.boundary,
            ctx.mask_steepness,
            ctx.scale,
            ctx.shift,
        )
    return grad_images, grad_windows


# The operators' registered autograd is Python: where nobody differentiates, going below it saves its time.
below_autograd = torch._C._AutoDispatchBelowAutograd


def call(operator: Any, *arguments: Any) -> Tensor:
    """A gradient operator. Eager calls go below autograd where gradients are off anyway."""
    if torch.compiler.is_compiling():
        return operator(*arguments)  # type: ignore[no-any-return]
    if torch._C._are_functorch_transforms_active():
        return _Gradient.apply(operator, *arguments)  # type: ignore[no-any-return]
    if torch.is_grad_enabled():
        return operator(*arguments)  # type: ignore[no-any-return]
    with below_autograd():
        return operator(*arguments)  # type: ignore[no-any-return]


class _Gradient(torch.autograd.Function):
    """A gradient operator under torch.func, whose transforms do not accept registered autograd."""

    @staticmethod
    def forward(operator: Any, *arguments: Any) -> Tensor:
        return operator(*arguments)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
        raise NotImplementedError(_DOUBLE_BACKWARD)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    save_for_gradients(ctx, inputs, None)


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
    return *gradients(ctx, grad_output), *(None,) * 7


def _refuse_double_backward(ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
    raise NotImplementedError(_DOUBLE_BACKWARD)
