# SPDX-License-Identifier: BSD-3-Clause
"""Pixels and dense tables of weights to crops, where what is not finite reaches only what reads it.

A matrix product multiplies with every weight, zeros too, and 0 * NaN is NaN. So products are made of what is
finite, and where something is not, one more, of the marks of it and of weights that are not 0, says what it
reaches. Autograd's own derivative of a product would multiply with zeros again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._signature import with_signature


def contract_dense(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels (B, C, H, W) with weights (B, K, h, H) and (B, K, w, W): crops (B, K, C, h, w).

    An output that reads a pixel that is not finite is NaN, and so is the gradient of its window; a gradient
    that is not finite reaches the pixels that its output reads, and its window. Nothing else knows of it.
    """
    return _contract(pixels, rows, columns)  # type: ignore[no-any-return]


@torch.compiler.allow_in_graph  # type: ignore[untyped-decorator]
def _contract(pixels: Tensor, rows: Tensor, columns: Tensor) -> Any:
    if forward_levels() > 1:
        return _bounded(_crops, pixels, rows, columns)
    return _Contraction.apply(pixels, rows, columns)


def forward_levels() -> int:
    """How many torch.func.jvp are at work.

    Inside a second one torch takes the tangent from an autograd.Function's ``jvp`` to be constant, without an
    error: there plain operations have to answer.
    """
    jvp = torch._C._functorch.TransformType.Jvp
    return sum(level.key() == jvp for level in torch._C._functorch.get_interpreter_stack() or ())


def _crops(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """By bmm, not einsum, which autograd.grad(is_grads_batched=True) cannot run in a backward."""
    lines = _contracted_along_x(pixels, columns)
    crops = torch.bmm(rows.flatten(0, 1), lines)  # (B K, h, C w)
    return crops.reshape(*rows.shape[:3], pixels.shape[1], columns.shape[2]).permute(0, 1, 3, 2, 4)


def _of_pixels(grad: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    pixels = torch.bmm(_contracted_along_y(grad, rows), columns.flatten(1, 2))
    return pixels.reshape(grad.shape[0], grad.shape[2], rows.shape[3], columns.shape[3])


def _of_rows(grad: Tensor, pixels: Tensor, columns: Tensor) -> Tensor:
    batch, windows, channels, height, width = grad.shape
    grad = grad.permute(0, 1, 3, 2, 4).reshape(batch * windows, height, channels * width)
    rows = torch.bmm(grad, _contracted_along_x(pixels, columns).mT)
    return rows.reshape(batch, windows, height, pixels.shape[2])


def _of_columns(grad: Tensor, pixels: Tensor, rows: Tensor) -> Tensor:
    columns = torch.bmm(_contracted_along_y(grad, rows).mT, pixels.flatten(1, 2))
    return columns.reshape(*rows.shape[:2], grad.shape[4], pixels.shape[3])


def _contracted_along_x(pixels: Tensor, columns: Tensor) -> Tensor:
    """(B, C, H, W) with (B, K, w, W): (B K, H, C w)."""
    batch, channels, height, _ = pixels.shape
    _, windows, width, _ = columns.shape
    lines = torch.bmm(pixels.flatten(1, 2), columns.flatten(1, 2).mT)
    lines = lines.reshape(batch, channels, height, windows, width).permute(0, 3, 2, 1, 4)
    return lines.reshape(batch * windows, height, channels * width)


def _contracted_along_y(grad: Tensor, rows: Tensor) -> Tensor:
    """(B, K, C, h, w) with (B, K, h, H): (B, C H, K w)."""
    batch, windows, channels, out_height, width = grad.shape
    height = rows.shape[3]
    lines = grad.permute(0, 1, 3, 2, 4).reshape(batch * windows, out_height, channels * width)
    lines = torch.bmm(rows.flatten(0, 1).mT, lines)
    lines = lines.reshape(batch, windows, height, channels, width).permute(0, 3, 2, 1, 4)
    return lines.reshape(batch, channels * height, windows * width)


def _bounded(product: Callable[..., Tensor], values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The product, NaN where a value is read that is not finite."""
    finite = values.isfinite()
    if _is_all(finite):
        return product(values, rows, columns)
    read = [(weights.detach() != 0).to(weights.dtype) for weights in (rows, columns)]
    reached = product((~finite).to(rows.dtype), *read) > 0
    return product(_finite(values), rows, columns).masked_fill(reached, float("nan"))


def _finite(values: Tensor) -> Tensor:
    return torch.where(values.isfinite(), values, 0.0)


def _is_all(condition: Tensor) -> bool:
    """Whether that is found out at no cost."""
    return is_eager(condition) and condition.is_cpu and bool(condition.all())


def is_eager(tensor: Tensor) -> bool:
    """Whether its numbers are there, if on its device: not inside a graph, nor under a transform."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    if torch._C._len_torch_dispatch_stack() or torch._C._is_tracing():
        return False
    if type(tensor) is not Tensor or tensor.is_meta:
        return False
    # Of torch.autograd.grad(is_grads_batched=True), which is no transform.
    return not torch._C._functorch.is_legacy_batchedtensor(tensor)


class _Contraction(torch.autograd.Function):
    """Linear in pixels, in rows and in columns; its derivatives are plain operations."""

    generate_vmap_rule = True

    @staticmethod
    @with_signature
    def forward(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        # Not a view, of which forward mode wants tangents in the same layout.
        return _bounded(_crops, pixels, rows, columns).clone(memory_format=torch.contiguous_format)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)
        ctx.save_for_forward(*inputs, output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        pixels, rows, columns, crops = ctx.saved_tensors
        of_pixels = of_rows = of_columns = None
        if grad is not None and ctx.needs_input_grad[0]:
            of_pixels = _bounded(_of_pixels, grad, rows, columns)
        if grad is not None and (ctx.needs_input_grad[1] or ctx.needs_input_grad[2]):
            lost = ~(grad.isfinite() & crops.isfinite())
            lost = lost.any(-1).any(-1).any(-1)[..., None, None]
            finite, read = _finite(grad), _finite(pixels)
            of_rows = _of_rows(finite, read, columns).masked_fill(lost, float("nan"))
            of_columns = _of_columns(finite, read, rows).masked_fill(lost, float("nan"))
        return of_pixels, of_rows, of_columns

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor | None:
        pixels, rows, columns, crops = ctx.saved_tensors
        of_pixels, of_rows, of_columns = tangents
        along: list[Tensor] = []
        if of_pixels is not None:
            along.append(_bounded(_crops, of_pixels, rows, columns))
        if of_rows is not None:
            along.append(_crops(_finite(pixels), of_rows, columns).masked_fill(crops.isnan(), float("nan")))
        if of_columns is not None:
            along.append(_crops(_finite(pixels), rows, of_columns).masked_fill(crops.isnan(), float("nan")))
        return sum(along[1:], along[0]) if along else None
