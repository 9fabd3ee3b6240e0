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
from ._arguments import CropOptions, are_pixels_far_apart
from ._operators import below_autograd, gradients, has_tangent, save_for_gradients
from ._taps import crop_by_taps

# Pairs of image and output dtype with a kernel of their own; the rule is kFused in csrc/glue.h.
_FLOATS16 = (torch.float16, torch.bfloat16)


def crop(images: Tensor, windows: Tensor, options: CropOptions) -> Tensor:
    """The crops for checked arguments, by the compiled kernels or, without them, the reference."""
    if not _has_kernels(images):
        return reference.crop(images, windows, options)
    dtype = options.output_dtype(images.dtype)
    fused = dtype if _is_fused(images.dtype, dtype) else windows.dtype
    scale, shift = options.affine(images)
    energy, constants = None, []
    if options.window_grad == "boxcar":
        energy, constants = options.boxcar.energy, options.boxcar.constants()
    height, width = options.output_size
    out: Tensor = _apply(
        images,
        windows,
        height,
        width,
        options.boundary,
        options.mask_steepness,
        scale,
        shift,
        fused,
        energy,
        constants,
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
        f"racnn_ops: no compiled kernels for {device} tensors ({reason}); "
        "the slower pure-PyTorch reference answers",
        RuntimeWarning,
        stacklevel=4,
    )


@torch.compiler.allow_in_graph  # type: ignore[untyped-decorator]
def _apply(images: Tensor, windows: Tensor, *options: Any) -> Tensor:
    if torch._C._are_functorch_transforms_active() or has_tangent(images) or has_tangent(windows):
        return crop_by_taps(images, windows, *options)
    if torch.compiler.is_compiling():
        return _Crop.apply(images, windows, *options)  # type: ignore[no-any-return]
    if torch.is_grad_enabled() and (images.requires_grad or windows.requires_grad):
        if windows.requires_grad and are_pixels_far_apart(images):
            images = _copied_once(images, windows.detach())
        return _EagerCrop.apply(images, windows, *options)  # type: ignore[no-any-return]
    with below_autograd():
        return _Crop.forward(images, windows, *options)


def _copied_once(images: Tensor, windows: Tensor) -> Tensor:
    """Images that the kernels would copy forwards and backwards: one copy if windows read most of them.

    Not of small numbers, which the kernels copy more than twice as fast as torch.
    """
    if images.element_size() < 4:
        return images
    area = 4 * (windows[..., 2] * windows[..., -1]).mean().item()
    return images.contiguous() if area > 0.5 * images.shape[2] * images.shape[3] else images


class _Crop(torch.autograd.Function):
    """For torch.compile and export. Inputs: those of ``_crop_forward``."""

    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        return torch.ops.racnn_ops._crop_forward.default(*inputs)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        save_for_gradients(ctx, inputs)
        if output.dtype == torch.uint8:
            ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
        return *gradients(ctx, grad_output), *(None,) * 9


class _EagerCrop(torch.autograd.Function):
    """The same in the older form, at half the cost: with setup_context, torch binds a signature each time."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        with below_autograd():
            output = _Crop.forward(*inputs)
        _Crop.setup_context(ctx, inputs, output)
        return output

    backward = _Crop.backward
