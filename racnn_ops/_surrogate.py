# SPDX-License-Identifier: BSD-3-Clause
"""A window gradient that is not the crop's derivative, in the place of it.

``window_grad="boxcar"`` is one. It composes with reverse mode and vmap; what only a derivative has, forward
mode and a derivative of its own, is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._vmap import fold, unfold

# From the crops' gradient (B, K, C, h, w) and windows (B, K, 3 or 4) to the windows' gradient.
WindowGradient = Callable[[Tensor, Tensor], Tensor]

REFUSAL = (
    "racnn_ops: window_grad='boxcar' is a surrogate, not a derivative: it has no forward mode and no second "
    "derivative; use window_grad='exact'"
)


class WithSurrogate(torch.autograd.Function):
    """The identity on the crops; to the windows it sends ``gradient``."""

    @staticmethod
    def forward(crops: Tensor, windows: Tensor, gradient: WindowGradient) -> Tensor:
        return crops.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, windows, ctx.gradient = inputs
        ctx.save_for_backward(windows)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad_output is None or not ctx.needs_input_grad[1]:
            return grad_output, None, None
        (windows,) = ctx.saved_tensors
        return grad_output, _SurrogateGradient.apply(grad_output, windows, ctx.gradient), None

    @staticmethod
    def jvp(ctx: Any, crops: Tensor | None, windows: Tensor | None, gradient: None) -> Tensor | None:
        if windows is not None:
            raise NotImplementedError(REFUSAL)
        return crops

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        return _vmap(WithSurrogate, info, in_dims, inputs)


class _SurrogateGradient(torch.autograd.Function):
    @staticmethod
    def forward(grad_output: Tensor, windows: Tensor, gradient: WindowGradient) -> Tensor:
        return gradient(grad_output, windows)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[None, ...]:
        raise NotImplementedError(REFUSAL)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        raise NotImplementedError(REFUSAL)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        return _vmap(_SurrogateGradient, info, in_dims, inputs)


def _vmap(function: Any, info: Any, in_dims: tuple[Any, ...], inputs: tuple[Any, ...]) -> tuple[Tensor, int]:
    crops, windows, gradient = inputs
    size = info.batch_size
    result = function.apply(fold(crops, in_dims[0], size, 0), fold(windows, in_dims[1], size, 0), gradient)
    return unfold(result, size, 0, windows, in_dims[1]), 0
