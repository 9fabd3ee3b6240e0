# SPDX-License-Identifier: BSD-3-Clause
"""Calls of the operators, as Python makes them: eagerly below autograd, in a graph as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._options import Boxcar, KernelOptions

# The operators' registered autograd is Python: where nobody differentiates, going below it saves its time.
below_autograd = torch._C._AutoDispatchBelowAutograd

_DEFAULTS = tuple(KernelOptions._field_defaults.values())
_REQUIRED = len(KernelOptions._fields) - len(_DEFAULTS)


def _call(operator: Any, *arguments: Any) -> Tensor:
    if torch.compiler.is_compiling():
        return operator(*arguments)  # type: ignore[no-any-return]
    with below_autograd():
        return operator(*arguments)  # type: ignore[no-any-return]


def crop_kernel(images: Tensor, windows: Tensor, options: tuple[Any, ...]) -> Tensor:
    """The crops for :class:`KernelOptions`, or a tuple of the same."""
    # What is as by default need not be converted at each call.
    given = options[:_REQUIRED] if options[_REQUIRED:] == _DEFAULTS else options
    return _call(torch.ops.racnn_ops._crop_forward.default, images, windows, *given)


def image_grad_kernel(
    grad_output: Tensor,
    windows: Tensor,
    height: int,
    width: int,
    channels_last: bool,
    dtype: torch.dtype,
    options: KernelOptions,
) -> Tensor:
    """The gradient of images of that size, layout and dtype."""
    return _call(
        torch.ops.racnn_ops._crop_image_grad.default,
        *(grad_output, windows, height, width, options.boundary, options.mask_steepness, options.scale),
        *(channels_last, dtype, options.interpolation, options.antialias),
    )


def window_grad_kernel(
    grad_output: Tensor, images: Tensor, windows: Tensor, options: KernelOptions
) -> Tensor:
    """The gradient of the windows."""
    return _call(
        torch.ops.racnn_ops._crop_window_grad.default,
        *(grad_output, images, windows, options.boundary, options.mask_steepness, options.scale),
        *(options.shift, options.interpolation, options.antialias),
    )


def boxcar_grad_kernel(grad_output: Tensor, windows: Tensor, boxcar: Boxcar) -> Tensor:
    """The surrogate gradient of the windows, from options scaled to the image."""
    return _call(torch.ops.racnn_ops._crop_boxcar_grad.default, grad_output, windows, *boxcar[:4])


def tap_crop_kernel(images: Tensor, *tables: Tensor) -> Tensor:
    """Crops by tap tables."""
    return _call(torch.ops.racnn_ops._tap_crop.default, images, *tables)


def tap_image_grad_kernel(grad_output: Tensor, *tables_and_format: Any) -> Tensor:
    """The gradient of their images."""
    return _call(torch.ops.racnn_ops._tap_image_grad.default, grad_output, *tables_and_format)
