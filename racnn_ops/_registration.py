# SPDX-License-Identifier: BSD-3-Clause
"""What Python registers with the operators ``torch.ops.racnn_ops.*``: fake kernels and derivatives.

Schemas are in ``csrc/torch/schemas.cpp``. Fake kernels give shapes, dtypes and strides; Inductor relies on
all three. The operators are private, but used directly they differentiate all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._arguments import is_channels_last
from ._autograd import gradients, has_tangent, save_for_gradients
from ._kernels import below_autograd, decoded
from ._library import NAMESPACE
from ._options import KernelOptions

_PRIVATE = (
    "racnn_ops: torch.ops.racnn_ops.{0} is private and has no {1}; racnn_ops.attention_crop has every one"
)


_library: torch.library.Library | None = None  # registrations last as long as it does


def register() -> None:
    """Call once, after the library that holds the schemas was loaded."""
    global _library
    _library = torch.library.Library(NAMESPACE, "IMPL")
    _register("_crop_forward", _fake_forward, gradients, _save_crop)
    _register("_crop_window_grad", _fake_window_grad)
    _register("_crop_image_grad", _fake_image_grad)
    _register("_crop_boxcar_grad", _fake_boxcar_grad)
    _register_coded("_crop_forward", _fake_coded_forward)
    _register_coded("_crop_window_grad", _fake_window_grad)
    _register_coded("_crop_image_grad", _fake_coded_image_grad)
    _register("_crop_list", _fake_list)
    _register("_crop_list_window_grad", _fake_list_window_grad)
    _register("_tap_crop", _fake_tap_crop)
    _register("_tap_image_grad", _fake_tap_image_grad)


def _register(
    name: str,
    fake: Callable[..., Any],
    backward: Callable[..., tuple[Any, ...]] | None = None,
    save: Callable[[Any, tuple[Any, ...]], None] | None = None,
) -> None:
    """Fake and autograd kernels of an operator; without ``backward`` one that refuses to differentiate.

    torch.library.register_autograd would do, but that forward mode then gives no tangent and no error.
    """
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake)
    operator = getattr(getattr(torch.ops, NAMESPACE), name).default

    def redispatch(keyset: Any, arguments: tuple[Any, ...]) -> Any:
        with below_autograd():
            return operator.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)

    class Registered(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments_and_keyset: Any) -> Any:
            *arguments, keyset = arguments_and_keyset
            if save is not None:
                save(ctx, tuple(arguments))
            return redispatch(keyset, tuple(arguments))

        @staticmethod
        def backward(ctx: Any, *grad_outputs: Any) -> tuple[Any, ...]:
            if backward is None:
                raise NotImplementedError(_PRIVATE.format(name, "derivative"))
            found = backward(ctx, *grad_outputs)
            return *found, *(None,) * (len(ctx.needs_input_grad) - len(found))

    def kernel(keyset: Any, *arguments: Any) -> Any:
        tensors = [
            tensor
            for argument in arguments
            for tensor in (argument if isinstance(argument, list) else [argument])
            if isinstance(tensor, Tensor)
        ]
        if has_tangent(*tensors):
            raise NotImplementedError(_PRIVATE.format(name, "forward mode"))
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return Registered.apply(*arguments, keyset)
        return redispatch(keyset, arguments)

    assert _library is not None
    _library.impl(name, kernel, "Autograd", with_keyset=True)


def _register_coded(name: str, fake: Callable[..., Any]) -> None:
    """The overload of eager calls, which are below autograd: passing it over costs them nothing."""
    torch.library.register_fake(f"{NAMESPACE}::{name}.coded", fake)
    assert _library is not None
    _library.impl(f"{name}.coded", torch.library.fallthrough_kernel, "Autograd")


def _empty(like: Tensor, sizes: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> Tensor:
    """A dense tensor (..., C, H, W), its channels innermost in memory or not."""
    if not channels_last:
        return like.new_empty(sizes, dtype=dtype)
    *outer, channels, height, width = sizes
    return like.new_empty((*outer, height, width, channels), dtype=dtype).movedim(-1, -3)


def _save_crop(ctx: Any, inputs: tuple[Any, ...]) -> None:
    images, windows, options, index = forward_arguments(*inputs)
    save_for_gradients(ctx, images, windows, options, index)


def forward_arguments(
    images: Any, windows: Tensor, *others: Any
) -> tuple[Any, Tensor, KernelOptions, Tensor | None]:
    """Images, windows, options and, if there is one, the index of ``_crop_forward``."""
    count = len(KernelOptions._fields)
    return images, windows, KernelOptions(*others[:count]), others[count] if others[count:] else None


def _empty_crops(
    images: Tensor,
    windows: Tensor,
    height: int,
    width: int,
    dtype: torch.dtype,
    channels_last: bool | None,
) -> Tensor:
    sizes = (*windows.shape[:-1], images.shape[1], height, width)
    return _empty(images, sizes, dtype, is_channels_last(images) if channels_last is None else channels_last)


def _fake_forward(*arguments: Any) -> Tensor:
    images, windows, of, _ = forward_arguments(*arguments)
    return _empty_crops(images, windows, of.height, of.width, of.dtype, of.channels_last)


def _fake_coded_forward(
    images: Tensor, windows: Tensor, height: int, width: int, code: int, mask_steepness: float
) -> Tensor:
    channels_last, dtype = decoded(code)
    return _empty_crops(images, windows, height, width, dtype, channels_last)


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
    interpolation: str = "bilinear",
    antialias: bool = False,
    image_index: Tensor | None = None,
    images: int = 0,
) -> Tensor:
    batch = grad_output.shape[0] if image_index is None else images
    sizes = (batch, grad_output.shape[-3], height, width)
    return _empty(grad_output, sizes, dtype, channels_last)


def _fake_coded_image_grad(
    grad_output: Tensor, windows: Tensor, height: int, width: int, code: int, mask_steepness: float
) -> Tensor:
    channels_last, dtype = decoded(code)
    sizes = (grad_output.shape[0], grad_output.shape[-3], height, width)
    return _empty(grad_output, sizes, dtype, bool(channels_last))


def _fake_boxcar_grad(grad_output: Tensor, windows: Tensor, *options: Any) -> Tensor:
    return windows.new_empty(windows.shape)


def _fake_list(images: list[Tensor], windows: Tensor, image_index: Tensor, *options: Any) -> Tensor:
    return _fake_forward(images[0].unsqueeze(0), windows, *options)


def _fake_list_window_grad(
    grad_output: Tensor, images: list[Tensor], windows: Tensor, *others: Any
) -> Tensor:
    return windows.new_empty(windows.shape)


def _fake_tap_crop(
    images: Tensor, rows: Tensor, row_weights: Tensor, columns: Tensor, column_weights: Tensor
) -> Tensor:
    sizes = (*rows.shape[:2], images.shape[1], rows.shape[2], columns.shape[2])
    return _empty(images, sizes, images.dtype, is_channels_last(images))


def _fake_tap_image_grad(
    grad_output: Tensor,
    rows: Tensor,
    row_weights: Tensor,
    columns: Tensor,
    column_weights: Tensor,
    height: int,
    width: int,
    channels_last: bool,
) -> Tensor:
    sizes = (grad_output.shape[0], grad_output.shape[2], height, width)
    return _empty(grad_output, sizes, grad_output.dtype, channels_last)
