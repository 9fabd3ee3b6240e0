# SPDX-License-Identifier: BSD-3-Clause
"""The specification: ``attention_crop`` in plain PyTorch.

The window's two tap tables are written as dense matrices, ``A`` of shape ``(w, W)`` and ``B`` of shape
``(h, H)``, and the crop is the contraction ``B @ image @ A.T``. That is another algorithm than the kernels',
which never build a matrix; autograd differentiates it. All tests compare with it, and it answers where no
compiled library could be loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._arguments import Boxcar, CropOptions, check_arguments, check_options, is_channels_last

__all__ = ["attention_crop", "boxcar_window_grad"]


def attention_crop(
    images: Tensor,
    windows: Tensor,
    output_size: int | Sequence[int],
    *,
    mask_steepness: float | None = None,
    boundary: str = "zeros",
    window_grad: str = "exact",
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    dtype: torch.dtype | None = None,
    boxcar: Boxcar | None = None,
) -> Tensor:
    """As :func:`racnn_ops.attention_crop`, in plain PyTorch: slower, and needs memory for dense matrices.

    Every argument, shape, dtype and error is the same; forward mode and higher derivatives are autograd's.
    """
    options = check_options(output_size, mask_steepness, boundary, window_grad, mean, std, dtype, boxcar)
    check_arguments(images, windows, options)
    return crop(images, windows, options)


def crop(images: Tensor, windows: Tensor, options: CropOptions) -> Tensor:
    """:func:`attention_crop` behind its checks."""
    height, width = images.shape[-2:]
    out_dtype = options.output_dtype(images.dtype)
    pixels = images.to(windows.dtype)
    scale, shift = options.affine(images)
    if scale:
        shape = (1, -1, 1, 1)
        pixels = pixels * pixels.new_tensor(scale).view(shape) + pixels.new_tensor(shift).view(shape)

    batched = windows if windows.dim() == 3 else windows.unsqueeze(1)
    finite = torch.isfinite(batched).all(-1)
    safe = torch.where(finite.unsqueeze(-1), batched, torch.zeros_like(batched))
    geometry = safe.detach() if options.window_grad == "boxcar" else safe
    x, y, half_x = geometry[..., 0], geometry[..., 1], geometry[..., 2]
    half_y = geometry[..., -1]
    columns = tap_matrix(x, half_x, width, options.output_size[1], options.boundary, options.mask_steepness)
    rows = tap_matrix(y, half_y, height, options.output_size[0], options.boundary, options.mask_steepness)
    crops = torch.einsum("bkiy,bcyx,bkjx->bkcij", rows, pixels, columns)
    if options.window_grad == "boxcar":
        crops = _BoxcarSurrogate.apply(crops, safe, options.boxcar.scaled_to(height, width))

    # A window that is not finite gives NaN, and a NaN gradient to itself alone.
    nan_if_lost = torch.zeros_like(x).masked_fill(~finite, float("nan")).detach()
    lost = torch.where(finite.unsqueeze(-1), torch.zeros_like(batched), batched).sum(-1) * nan_if_lost
    crops = torch.where(finite[..., None, None, None], crops, lost[..., None, None, None])
    if out_dtype == torch.uint8:
        crops = crops.detach().nan_to_num(0.0).round().clamp(0, 255)
    crops = crops.to(out_dtype)
    if is_channels_last(images):
        crops = crops.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    return crops if windows.dim() == 3 else crops.squeeze(1)


def tap_matrix(
    centre: Tensor, half: Tensor, size: int, out: int, boundary: str, mask_steepness: float | None
) -> Tensor:
    """The weights of all ``size`` pixels in all ``out`` samples along one axis.

    Args:
        centre, half: (B, K), pixels.

    Returns:
        Tensor[B, K, out, size], the matrix ``a_j(x)`` of the design, mask included.
    """
    half = _keep_gradient(half.clamp(min=0), half)
    if boundary == "clip":
        low = _clamp(centre - half, size)
        high = _clamp(centre + half, size)
        centre, half = (low + high) / 2, (high - low) / 2
    u = (2 * torch.arange(out, device=centre.device, dtype=centre.dtype) + 1 - out) / out
    position = centre.unsqueeze(-1) + half.unsqueeze(-1) * u - 0.5
    if boundary == "zeros":
        position = position.clamp(-2, size)
    else:
        position = _clamp(position, size - 1)
    lower = position.detach().floor()
    fraction = (position - lower).unsqueeze(-1)
    upper = lower + 1 if boundary == "zeros" else (lower + 1).clamp(max=size - 1)
    pixel = torch.arange(size, device=centre.device, dtype=centre.dtype)
    at_lower = (pixel == lower.unsqueeze(-1)).to(centre.dtype)
    at_upper = (pixel == upper.unsqueeze(-1)).to(centre.dtype)
    weights = (1 - fraction) * at_lower + fraction * at_upper
    if mask_steepness is not None:
        low_edge, high_edge = (centre - half).unsqueeze(-1), (centre + half).unsqueeze(-1)
        mask = torch.sigmoid(mask_steepness * (pixel + 0.5 - low_edge)) - torch.sigmoid(
            mask_steepness * (pixel + 0.5 - high_edge)
        )
        weights = weights * mask.unsqueeze(-2)
    return weights


def _keep_gradient(value: Tensor, of: Tensor) -> Tensor:
    """``value``, with the gradient of ``of``: a half side below zero counts as zero and can still grow."""
    return value.detach() + (of - of.detach())


def _clamp(value: Tensor, size: int) -> Tensor:
    """Clamped to [0, size]; at the bounds themselves the gradient still flows."""
    inside = (value >= 0) & (value <= size)
    return torch.where(inside, value, value.detach().clamp(0, size))


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
        return torch.einsum("bkij,bki,bkj->bk", d, along_y, along_x)

    shrink = boxcar.shrink * d.sum((-2, -1))
    grad_x, grad_y = contract(inside_y, difference_x), contract(difference_y, inside_x)
    half_x = shrink / 2 - contract(inside_y, sum_x)
    half_y = shrink / 2 - contract(sum_y, inside_x)
    if windows.shape[-1] == 3:
        return torch.stack((grad_x, grad_y, half_x + half_y), -1)
    return torch.stack((grad_x, grad_y, half_x, half_y), -1)


class _BoxcarSurrogate(torch.autograd.Function):
    """The identity on the crops, with :func:`boxcar_window_grad` as the gradient of the windows."""

    @staticmethod
    def forward(crops: Tensor, windows: Tensor, boxcar: Boxcar) -> Tensor:
        return crops.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.boxcar = inputs[2]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor, None]:
        (windows,) = ctx.saved_tensors
        return grad_output, boxcar_window_grad(grad_output, windows, ctx.boxcar), None
