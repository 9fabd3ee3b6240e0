# SPDX-License-Identifier: BSD-3-Clause
"""The crop under transforms: forward mode, higher derivatives, torch.func, vmap.

With its tap tables made, a crop is linear in the pixels, in the row weights b and in the column weights a;
with the incoming gradient g,

    F(g, I, b, a) = sum over n, c, i, j of  g[n, c, i, j] * sum over y, x of  b_i(y) a_j(x) I[n, c, y, x]

is linear in each of the four. Its derivatives are F again, with one argument left out: crops (no g), the
gradient of images (no I) and that of the weights (no b, or no a). Two kernels, each differentiated by the
other, give derivatives of every order: the gradient of a weight is a sum of g times a crop of the weight's
pixels alone, and the tables are plain tensors, a few numbers a row and column, which torch differentiates
itself. A derivative along b and a at once is a sum of two such crops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import reference
from ._arguments import is_channels_last
from ._dense import forward_levels
from ._kernels import tap_crop_kernel, tap_image_grad_kernel
from ._options import KernelOptions
from ._signature import with_signature
from ._vmap import fold, unfold

# rows (B, K, h), row_weights (B, K, h, 2), columns (B, K, w), column_weights (B, K, w, 2)
Tables = tuple[Tensor, Tensor, Tensor, Tensor]


def crop_by_taps(images: Tensor, windows: Tensor, options: KernelOptions) -> Tensor:
    """The crops, for any composition of transforms."""
    contraction = None if forward_levels() > 1 else _contract
    return reference.sample(images, windows, options, contraction)


def crops_along(images: Tensor, windows: Tensor, d_windows: Tensor, options: KernelOptions) -> Tensor:
    """How the crops change along a change of the windows, where an output reads two pixels an axis.

    It is the forward of a differentiable function, not one itself.
    """
    pixels = reference.normalise(images, windows.dtype, options)
    _, finite, safe = reference.safe_windows(windows)
    d_safe = d_windows if windows.dim() == 3 else d_windows.unsqueeze(1)
    (rows, row_weights, d_rows), (columns, column_weights, d_columns) = _for_both_axes(
        reference.axis_taps_along, pixels, options, safe, d_safe
    )
    tables = rows.int(), row_weights, columns.int(), column_weights
    by_rows, by_columns = (tap_crop_kernel(pixels, *moved) for moved in _moved(tables, d_rows, d_columns))
    crops = (by_rows + by_columns).masked_fill(~finite[..., None, None, None], float("nan"))
    return reference.finished(crops, images, windows, options)


def _contract(pixels: Tensor, windows: Tensor, options: KernelOptions) -> Tensor:
    (rows, row_weights), (columns, column_weights) = _for_both_axes(
        reference.axis_taps, pixels, options, windows
    )
    return _TapCrop.apply(pixels, rows.int(), row_weights, columns.int(), column_weights)  # type: ignore[no-any-return]


def _for_both_axes(
    make: Callable[..., tuple[Tensor, ...]], images: Tensor, options: KernelOptions, *windows: Tensor
) -> Any:
    """The tables that ``make`` gives for the rows and for the columns: at once where the axes are alike."""
    height, width = images.shape[2:]
    if not torch.compiler.is_compiling() and (height, options.height) == (width, options.width):
        both = make(
            *(part for each in windows for part in (each[..., :2], each[..., 2:])),
            height,
            options.height,
            options,
        )
        return zip(*(table.unbind(2)[::-1] for table in both), strict=True)
    return tuple(make(*axis) for axis in reference.axes(images, options, *windows))


def _moved(tables: Tables, d_rows: Tensor | None, d_columns: Tensor | None) -> list[Tables]:
    """Along a change of the weights the product rows x columns changes by the sum of these products."""
    rows, row_weights, columns, column_weights = tables
    moved = []
    if d_rows is not None:
        moved.append((rows, d_rows, columns, column_weights))
    if d_columns is not None:
        moved.append((rows, row_weights, columns, d_columns))
    return moved


def _add(*parts: Tensor | None) -> Tensor | None:
    total = None
    for part in parts:
        if part is not None:
            total = part if total is None else total + part
    return total


def _save(ctx: Any, tensors: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)
    ctx.set_materialize_grads(False)


class _TapCrop(torch.autograd.Function):
    """Crops (B, K, C, h, w): F without g."""

    @staticmethod
    @with_signature
    def forward(images: Tensor, *tables: Tensor) -> Tensor:
        return tap_crop_kernel(images, *tables)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _save(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None) -> tuple[Tensor | None, ...]:
        images, *tables = ctx.saved_tensors
        if grad_output is None:
            return (None,) * 5
        needs = ctx.needs_input_grad
        return (
            _image_grad(grad_output, tables, images) if needs[0] else None,
            None,
            _weight_grad(grad_output, images, tables, 0) if needs[2] else None,
            None,
            _weight_grad(grad_output, images, tables, 1) if needs[4] else None,
        )

    @staticmethod
    def jvp(
        ctx: Any, d_images: Tensor | None, _: None, d_rows: Tensor | None, __: None, d_columns: Tensor | None
    ) -> Tensor | None:
        images, *tables = ctx.saved_tensors
        by_images = None if d_images is None else _TapCrop.apply(d_images, *tables)
        by_taps = (_TapCrop.apply(images, *moved) for moved in _moved(tables, d_rows, d_columns))
        return _add(by_images, *by_taps)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        return _vmap(_TapCrop, 0, info, in_dims, inputs)


class _TapImageGrad(torch.autograd.Function):
    """The gradient of the images (B, C, H, W): F without I."""

    @staticmethod
    @with_signature
    def forward(grad_output: Tensor, *tables_and_format: Any) -> Tensor:
        return tap_image_grad_kernel(grad_output, *tables_and_format)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _save(ctx, inputs[:5])
        ctx.format = inputs[5:]

    @staticmethod
    def backward(ctx: Any, d_images: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_output, *tables = ctx.saved_tensors
        if d_images is None:
            return (None,) * 8
        needs = ctx.needs_input_grad
        return (
            _TapCrop.apply(d_images, *tables) if needs[0] else None,
            None,
            _weight_grad(grad_output, d_images, tables, 0) if needs[2] else None,
            None,
            _weight_grad(grad_output, d_images, tables, 1) if needs[4] else None,
            None,
            None,
            None,
        )

    @staticmethod
    def jvp(
        ctx: Any,
        d_grad: Tensor | None,
        _: None,
        d_rows: Tensor | None,
        __: None,
        d_columns: Tensor | None,
        *format: None,
    ) -> Tensor | None:
        grad_output, *tables = ctx.saved_tensors
        by_grad = None if d_grad is None else _TapImageGrad.apply(d_grad, *tables, *ctx.format)
        by_taps = (
            _TapImageGrad.apply(grad_output, *moved, *ctx.format)
            for moved in _moved(tables, d_rows, d_columns)
        )
        return _add(by_grad, *by_taps)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        return _vmap(_TapImageGrad, None, info, in_dims, inputs)


def _image_grad(grad_output: Tensor, tables: Tables, images: Tensor) -> Tensor:
    return _TapImageGrad.apply(  # type: ignore[no-any-return]
        grad_output, *tables, images.shape[2], images.shape[3], is_channels_last(images)
    )


def _weight_grad(grad_output: Tensor, images: Tensor, tables: Tables, axis: int) -> Tensor:
    """The gradient of the row weights (``axis`` 0) or the column weights (1), of the shape of those."""
    rows, row_weights, columns, column_weights = tables
    weights = column_weights if axis else row_weights
    sums = []
    for side in torch.eye(2, dtype=weights.dtype, device=weights.device):  # the lower and the upper pixels
        alone = side.expand(weights.shape)
        only = (rows, row_weights, columns, alone) if axis else (rows, alone, columns, column_weights)
        sums.append((grad_output * _TapCrop.apply(images, *only)).sum((2, 3 if axis else 4)))
    return torch.stack(sums, -1)


def _vmap(
    function: Any, images: int | None, info: Any, in_dims: tuple[Any, ...], inputs: tuple[Any, ...]
) -> tuple[Any, Any]:
    """A function with vmap's dimension folded into another.

    Images (at the place ``images``) that are the same for all stay as they are: it goes into the windows'
    axis; otherwise into that of the images.
    """
    axis = 1 if images is not None and in_dims[images] is None else 0
    folded = [
        fold(value, in_dim, info.batch_size, axis)
        if isinstance(value, Tensor) and not (axis == 1 and place == images)
        else value
        for place, (value, in_dim) in enumerate(zip(inputs, in_dims, strict=True))
    ]
    rows = 1 if images is None else images + 1  # this table has both axes
    output = function.apply(*folded)
    return unfold(output, info.batch_size, axis, inputs[rows], in_dims[rows]), axis
