# SPDX-License-Identifier: BSD-3-Clause
"""The registered operators ``torch.ops.racnn_ops.*``: fake kernels and gradients.

Schemas and kernels are in C++ (``csrc/ops.cpp``). Fake kernels give shapes, dtypes and strides; Inductor
relies on all three. The operators are private, but used directly they differentiate all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ._arguments import Boxcar, are_pixels_far_apart, is_channels_last
from ._taps import crop_by_taps

_PRIVATE = (
    "racnn_ops: torch.ops.racnn_ops.{0} is private and has no {1}; racnn_ops.attention_crop has every one"
)


_library: torch.library.Library | None = None  # registrations last as long as it does


def register() -> None:
    """Call once, after the library that holds the schemas was loaded."""
    global _library
    _library = torch.library.Library("racnn_ops", "IMPL")
    _register("_crop_forward", _fake_forward, gradients, save_for_gradients)
    _register("_crop_window_grad", _fake_window_grad)
    _register("_crop_image_grad", _fake_image_grad)
    _register("_crop_boxcar_grad", _fake_boxcar_grad)
    _register("_tap_crop", _fake_tap_crop)
    _register("_tap_image_grad", _fake_tap_image_grad)
    _register("_tap_grad", _fake_tap_grad)


def _register(
    name: str,
    fake: Callable[..., Any],
    backward: Callable[..., tuple[Any, ...]] | None = None,
    save: Callable[[Any, tuple[Any, ...]], None] | None = None,
) -> None:
    """Fake and autograd kernels of an operator; without ``backward`` one that refuses to differentiate.

    torch.library.register_autograd would do, but that forward mode then gives no tangent and no error.
    """
    torch.library.register_fake(f"racnn_ops::{name}", fake)
    operator = getattr(torch.ops.racnn_ops, name).default

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
        tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
        if any(has_tangent(tensor) for tensor in tensors):
            raise NotImplementedError(_PRIVATE.format(name, "forward mode"))
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return Registered.apply(*arguments, keyset)
        return redispatch(keyset, arguments)

    assert _library is not None
    _library.impl(name, kernel, "Autograd", with_keyset=True)


def has_tangent(tensor: Tensor) -> bool:
    """Whether forward mode differentiates ``tensor``. Its level alone does not tell: all threads share it."""
    if torch.autograd.forward_ad._current_level < 0:
        return False
    return torch.autograd.forward_ad.unpack_dual(tensor).tangent is not None


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
    energy: str | None = None,
    boxcar: Sequence[float] = (),
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


def _fake_tap_grad(
    grad_output: Tensor,
    images: Tensor,
    rows: Tensor,
    row_weights: Tensor,
    columns: Tensor,
    column_weights: Tensor,
) -> tuple[Tensor, Tensor]:
    return row_weights.new_empty(row_weights.shape), column_weights.new_empty(column_weights.shape)


def save_for_gradients(ctx: Any, inputs: tuple[Any, ...]) -> None:
    """Keep what :func:`gradients` needs; ``inputs`` are those of ``_crop_forward``, the last two optional."""
    images, windows, _, _, ctx.boundary, ctx.mask_steepness, ctx.scale, ctx.shift, _, *surrogate = inputs
    ctx.energy, ctx.boxcar = surrogate or (None, [])
    ctx.save_for_backward(images, windows)


def gradients(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Of images and windows, where asked for."""
    again = torch.is_grad_enabled() or torch._C._are_functorch_transforms_active() or has_tangent(grad_output)
    if again and not torch.compiler.is_compiling():
        return _gradients_by_taps(ctx, grad_output)
    images, windows = ctx.saved_tensors
    needs_images, needs_windows, *_ = ctx.needs_input_grad
    grad_images = grad_windows = None
    if needs_images and needs_windows and are_pixels_far_apart(grad_output):
        grad_output = grad_output.contiguous()  # once, not in each of two kernels
    if needs_images:
        grad_images = _call(
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
    if needs_windows and ctx.energy is not None:
        boxcar = Boxcar.of(ctx.energy, ctx.boxcar).scaled_to(images.shape[2], images.shape[3])
        boxcar_grad = torch.ops.racnn_ops._crop_boxcar_grad.default
        grad_windows = _call(boxcar_grad, grad_output, windows, *boxcar[:4])
    elif needs_windows:
        grad_windows = _call(
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


def _call(operator: Any, *arguments: Any) -> Tensor:
    if torch.compiler.is_compiling():
        return operator(*arguments)  # type: ignore[no-any-return]
    with below_autograd():
        return operator(*arguments)  # type: ignore[no-any-return]


def _gradients_by_taps(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The same, differentiable again; made of what differentiates to any order (see ``_taps``)."""
    images, windows = ctx.saved_tensors
    height, width = grad_output.shape[-2:]
    with torch.enable_grad():
        crops = crop_by_taps(
            images,
            windows,
            height,
            width,
            ctx.boundary,
            ctx.mask_steepness,
            ctx.scale,
            ctx.shift,
            grad_output.dtype,
            ctx.energy,
            ctx.boxcar,
        )
    wanted = [
        tensor for tensor, needed in zip((images, windows), ctx.needs_input_grad, strict=False) if needed
    ]
    found = iter(torch.autograd.grad(crops, wanted, grad_output, create_graph=torch.is_grad_enabled()))
    grad_images, grad_windows = (next(found) if needed else None for needed in ctx.needs_input_grad[:2])
    return grad_images, grad_windows
