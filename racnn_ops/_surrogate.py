# SPDX-License-Identifier: BSD-3-Clause
"""RA-CNN's surrogate gradient of the window: its formula, and how it takes the gradient's place.

It composes with reverse mode, vmap and torch.compile. What only a derivative has, forward mode and a
derivative of its own, is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._kernels import boxcar_grad_kernel
from ._options import Boxcar
from ._signature import with_signature
from ._vmap import fold, unfold

_REFUSAL = (
    "racnn_ops: window_grad='boxcar' is a surrogate, not a derivative: it has no forward mode and no second "
    "derivative; use window_grad='exact'"
)


def boxcar_window_grad(grad_output: Tensor, windows: Tensor, boxcar: Boxcar) -> Tensor:
    """RA-CNN's surrogate gradient of the window (the authors' released backward).

    Args:
        grad_output: (B, K, C, h, w).
        windows: (B, K, 3) or (B, K, 4).
        boxcar: constants in pixels of the image at hand (see :meth:`Boxcar.scaled_to`).

    Returns:
        The shape of ``windows``: minus the sum over pixels of D times the derivative of the soft boxcar mask,
        and a constant push towards smaller windows.
    """
    g = grad_output.to(windows.dtype)
    energy = g.abs() if boxcar.energy == "abs" else g.square().sum(2, keepdim=True)
    most = energy.amax((-2, -1), keepdim=True)
    d = torch.where(most == 0, torch.zeros_like(energy), energy * (boxcar.scale / most)).sum(2)

    def edges(half: Tensor, out: int) -> tuple[Tensor, Tensor, Tensor]:
        step = torch.arange(out, device=half.device, dtype=half.dtype) / out
        side = 2 * half.clamp(min=0).unsqueeze(-1)
        low = torch.sigmoid(boxcar.steepness * side * step)
        high = torch.sigmoid(boxcar.steepness * side * (step - 1))
        d_low, d_high = (boxcar.steepness * s * (1 - s) for s in (low, high))
        return low - high, d_low - d_high, d_low + d_high

    inside_x, difference_x, sum_x = edges(windows[..., 2], g.shape[-1])
    inside_y, difference_y, sum_y = edges(windows[..., -1], g.shape[-2])

    def contract(along_y: Tensor, along_x: Tensor) -> Tensor:
        return (d * along_y.unsqueeze(-1) * along_x.unsqueeze(-2)).sum((-2, -1))

    shrink = boxcar.shrink * d.sum((-2, -1))
    grad_x, grad_y = contract(inside_y, difference_x), contract(difference_y, inside_x)
    half_x = shrink / 2 - contract(inside_y, sum_x)
    half_y = shrink / 2 - contract(sum_y, inside_x)
    if windows.shape[-1] == 3:
        return torch.stack((grad_x, grad_y, half_x + half_y), -1)
    return torch.stack((grad_x, grad_y, half_x, half_y), -1)


def with_surrogate(crops: Tensor, windows: Tensor, boxcar: Boxcar, by_kernel: bool) -> Tensor:
    """The crops (B, K, C, h, w) with :func:`boxcar_window_grad` as gradient of the windows (B, K, 3 or 4)."""
    steepness, energy, scale, shrink, _ = boxcar
    return _apply(crops, windows, steepness, energy, scale, shrink, by_kernel)  # type: ignore[no-any-return]


def surrogate_gradient(grad_output: Tensor, windows: Tensor, boxcar: Boxcar) -> Tensor:
    """:func:`boxcar_window_grad` by kernel, under transforms, of (B, [K,] C, h, w) and (B, [K,] 3 or 4)."""
    return _SurrogateGradient.apply(grad_output, windows, *boxcar[:4], True)  # type: ignore[no-any-return]


@torch.compiler.allow_in_graph  # type: ignore[untyped-decorator]
def _apply(crops: Tensor, windows: Tensor, *constants: Any) -> Tensor:
    return _WithSurrogate.apply(crops, windows, *constants)  # type: ignore[no-any-return]


class _WithSurrogate(torch.autograd.Function):
    @staticmethod
    @with_signature
    def forward(crops: Tensor, windows: Tensor, *constants: Any) -> Tensor:
        return crops.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, windows, *ctx.constants = inputs
        ctx.save_for_backward(windows)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_windows = None
        if grad_output is not None and ctx.needs_input_grad[1]:
            grad_windows = _SurrogateGradient.apply(grad_output, *ctx.saved_tensors, *ctx.constants)
        return grad_output, grad_windows, None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, crops: Tensor | None, windows: Tensor | None, *constants: None) -> Tensor | None:
        if windows is not None:
            raise NotImplementedError(_REFUSAL)
        return crops

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        return _vmap(_WithSurrogate, info, in_dims, inputs)


class _SurrogateGradient(torch.autograd.Function):
    @staticmethod
    @with_signature
    def forward(
        grad_output: Tensor,
        windows: Tensor,
        steepness: float,
        energy: str,
        scale: float,
        shrink: float,
        by_kernel: bool,
    ) -> Tensor:
        boxcar = Boxcar(steepness, energy, scale, shrink, None)
        return (boxcar_grad_kernel if by_kernel else boxcar_window_grad)(grad_output, windows, boxcar)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[None, ...]:
        raise NotImplementedError(_REFUSAL)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        raise NotImplementedError(_REFUSAL)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        return _vmap(_SurrogateGradient, info, in_dims, inputs)


def _vmap(function: Any, info: Any, in_dims: tuple[Any, ...], inputs: tuple[Any, ...]) -> tuple[Tensor, int]:
    crops, windows, *constants = inputs
    size = info.batch_size
    result = function.apply(fold(crops, in_dims[0], size, 0), fold(windows, in_dims[1], size, 0), *constants)
    return unfold(result, size, 0, windows, in_dims[1]), 0
