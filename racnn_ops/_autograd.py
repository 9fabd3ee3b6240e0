# SPDX-License-Identifier: BSD-3-Clause
"""How a checked call reaches the kernels, with gradients.

Eager mode goes through a lean ``autograd.Function``, or straight to the operator where no gradient is asked
for. The wrapper is marked ``allow_in_graph``, so that torch.compile and export put the registered operators
into their graphs without looking into the Function.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from . import _library, reference
from ._arguments import CropOptions, is_channels_last

# Pairs of image and output dtype with a kernel of their own; the rule is kFused in csrc/glue.h.
_FLOATS16 = (torch.float16, torch.bfloat16)


def crop(images: Tensor, windows: Tensor, options: CropOptions) -> Tensor:
    """The crops for checked arguments, by the compiled kernels or, without them, the reference."""
    if not _has_kernels(images):
        return reference.crop(images, windows, options)
    dtype = options.output_dtype(images.dtype)
    fused = dtype if _is_fused(images.dtype, dtype) else windows.dtype
    scale, shift = options.affine(images)
    surrogate = None
    if options.window_grad == "boxcar":
        surrogate = tuple(options.boxcar.scaled_to(images.shape[2], images.shape[3]))[:4]
    height, width = options.output_size
    out = _apply(
        images,
        windows,
        height,
        width,
        options.boundary,
        options.mask_steepness,
        scale,
        shift,
        fused,
        surrogate,
    )
    return out if fused is dtype else out.to(dtype)


def _is_fused(image: torch.dtype, out: torch.dtype) -> bool:
    if image == out:
        return True
    if out == torch.float32:
        return image != torch.float64
    return out in _FLOATS16 and image in (torch.float32, torch.uint8)


def _has_kernels(images: Tensor) -> bool:
    if not _library.has_cpu:
        return False
    if images.is_cpu or images.is_meta or (images.is_cuda and _library.has_cuda):
        return True
    _warn_no_kernels(images.device.type)
    return False


_warned_devices: set[str] = set()


def _warn_no_kernels(device: str) -> None:
    if device in _warned_devices:
        return
    _warned_devices.add(device)
    reason = _library.cuda_error if device == "cuda" else "this device has no kernels"
    warnings.warn(
        f"racnn_ops: no compiled kernels for {device} tensors ({reason}); the slower pure-PyTorch reference answers",
        RuntimeWarning,
        stacklevel=4,
    )


@torch.compiler.allow_in_graph
def _apply(images: Tensor, windows: Tensor, *options: Any) -> Tensor:
    if torch.compiler.is_compiling() or _is_transformed():
        return _Crop.apply(images, windows, *options)  # type: ignore[no-any-return]
    if torch.is_grad_enabled() and (images.requires_grad or windows.requires_grad):
        return _EagerCrop.apply(images, windows, *options)  # type: ignore[no-any-return]
    with _BelowAutograd():
        return _Crop.forward(images, windows, *options)


def _is_transformed() -> bool:
    """Whether a torch.func transform or forward mode is at work."""
    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


# The operators' registered autograd is Python: where nobody differentiates, going below it saves its time.
_BelowAutograd = torch._C._AutoDispatchBelowAutograd


def _call(operator: Any, *arguments: Any) -> Tensor:
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return operator(*arguments)  # type: ignore[no-any-return]
    with _BelowAutograd():
        return operator(*arguments)  # type: ignore[no-any-return]


class _Crop(torch.autograd.Function):
    """For torch.func, torch.compile and export."""

    @staticmethod
    def forward(
        images: Tensor,
        windows: Tensor,
        height: int,
        width: int,
        boundary: str,
        mask_steepness: float | None,
        scale: tuple[float, ...],
        shift: tuple[float, ...],
        dtype: torch.dtype,
        surrogate: tuple[float, str, float, float] | None,
    ) -> Tensor:
        operator = torch.ops.racnn_ops._crop_forward.default
        return operator(images, windows, height, width, boundary, mask_steepness, scale, shift, dtype)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        images, windows, _, _, ctx.boundary, ctx.mask_steepness, ctx.scale, ctx.shift, _, ctx.surrogate = inputs
        ctx.save_for_backward(images, windows)
        if output.dtype == torch.uint8:
            ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
        images, windows = ctx.saved_tensors
        needs_images, needs_windows, *_ = ctx.needs_input_grad
        ops = torch.ops.racnn_ops
        grad_images = grad_windows = None
        if needs_images:
            grad_images = _call(
                ops._crop_image_grad.default,
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
            grad_windows = _call(ops._crop_boxcar_grad.default, grad_output, windows, *ctx.surrogate)
        elif needs_windows:
            grad_windows = _call(
                ops._crop_window_grad.default,
                grad_output,
                images,
                windows,
                ctx.boundary,
                ctx.mask_steepness,
                ctx.scale,
                ctx.shift,
            )
        return grad_images, grad_windows, None, None, None, None, None, None, None, None


class _EagerCrop(torch.autograd.Function):
    """The same in the older form, which costs half: with setup_context, torch binds a signature at each call."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        with _BelowAutograd():
            output = _Crop.forward(*inputs)
        _Crop.setup_context(ctx, inputs, output)
        return output

    backward = _Crop.backward
