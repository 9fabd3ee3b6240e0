# SPDX-License-Identifier: BSD-3-Clause
"""The specification: ``attention_crop`` in plain PyTorch.

The window's two tap tables are written as dense matrices, ``A`` of shape ``(w, W)`` and ``B`` of shape
``(h, H)``, and the crop is the contraction ``B @ image @ A.T``. That is another algorithm than the kernels',
which never build a matrix; autograd differentiates it. All tests compare with it, and it answers where no
compiled library could be loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ._arguments import Boxcar, CropOptions, check_arguments, check_options, is_channels_last
from ._boxcar import boxcar_window_grad, with_surrogate

__all__ = ["attention_crop", "boxcar_window_grad"]


# From pixels (B, C, H, W) and the taps of both axes to crops (B, K, C, h, w).
Contraction = Callable[[Tensor, "AxisTaps", "AxisTaps"], Tensor]


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
    boxcar = None
    if options.window_grad == "boxcar":
        boxcar = options.boxcar.scaled_to(images.shape[2], images.shape[3])
    return sample(
        images,
        windows,
        options.output_size,
        options.boundary,
        options.mask_steepness,
        *options.affine(images),
        options.output_dtype(images.dtype),
        boxcar,
        contract,
    )


def sample(
    images: Tensor,
    windows: Tensor,
    output_size: tuple[int, int],
    boundary: str,
    mask_steepness: float | None,
    scale: Sequence[float],
    shift: Sequence[float],
    dtype: torch.dtype,
    boxcar: Boxcar | None,
    contraction: Contraction,
) -> Tensor:
    """The crops, with the contraction left open: here it is made of dense matrices, in ``_taps`` of kernels.

    Args:
        scale, shift: of each channel, or both empty.
        boxcar: the surrogate's constants, in pixels of this image, if it takes the place of the gradient.
    """
    height, width = images.shape[-2:]
    pixels = images.to(windows.dtype)
    if scale:
        shape = (1, -1, 1, 1)
        pixels = pixels * pixels.new_tensor(scale).view(shape) + pixels.new_tensor(shift).view(shape)

    batched = windows if windows.dim() == 3 else windows.unsqueeze(1)
    finite = torch.isfinite(batched).all(-1)
    safe = torch.where(finite.unsqueeze(-1), batched, torch.zeros_like(batched))
    geometry = safe if boxcar is None else safe.detach()
    rows = axis_taps(geometry[..., 1], geometry[..., -1], height, output_size[0], boundary, mask_steepness)
    columns = axis_taps(geometry[..., 0], geometry[..., 2], width, output_size[1], boundary, mask_steepness)
    crops = contraction(pixels, rows, columns)
    if boxcar is not None:
        crops = with_surrogate(crops, safe, boxcar, by_kernel=contraction is not contract)

    # A window that is not finite gives NaN, and a NaN gradient to itself alone.
    nan_if_lost = torch.zeros_like(finite, dtype=windows.dtype).masked_fill(~finite, float("nan"))
    lost = torch.where(finite.unsqueeze(-1), torch.zeros_like(batched), batched).sum(-1) * nan_if_lost
    crops = torch.where(finite[..., None, None, None], crops, lost[..., None, None, None])
    if dtype == torch.uint8:
        crops = crops.detach().nan_to_num(0.0).round().clamp(0, 255)
    crops = crops.to(dtype)
    if is_channels_last(images):
        crops = crops.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    return crops if windows.dim() == 3 else crops.squeeze(1)


class AxisTaps(NamedTuple):
    """What the outputs along one axis of B x K windows read.

    ``pixels`` (B, K, out), whole numbers: the lower of two neighbours, non-decreasing; where one lies outside
    the image it is not read. ``weights`` (B, K, out, 2): of the lower and the upper pixel, mask included.
    """

    pixels: Tensor
    weights: Tensor


def axis_taps(
    centre: Tensor, half: Tensor, size: int, out: int, boundary: str, mask_steepness: float | None
) -> AxisTaps:
    """The tap tables of one axis from centre and half side (B, K), in pixels, of an image of ``size`` pixels.

    The weights are differentiable functions of the window, to any order.
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
        # On the last pixel's centre there is no pixel to move on to.
        inside = (position >= 0) & (position < size - 1)
        position = torch.where(inside, position, position.detach().clamp(0, size - 1))
    lower = position.detach().floor()
    fraction = position - lower
    weights = torch.stack((1 - fraction, fraction), -1)
    if mask_steepness is not None:
        pixel = torch.stack((lower, lower + 1), -1) + 0.5
        low_edge, high_edge = (centre - half)[..., None, None], (centre + half)[..., None, None]
        mask = torch.sigmoid(mask_steepness * (pixel - low_edge)) - torch.sigmoid(
            mask_steepness * (pixel - high_edge)
        )
        weights = weights * mask
    return AxisTaps(lower, weights)


def tap_matrix(taps: AxisTaps, size: int) -> Tensor:
    """The matrix ``a_j(x)`` of the design, (B, K, out, size): the weights of all pixels in all outputs."""
    pixel = torch.arange(size, device=taps.pixels.device, dtype=taps.pixels.dtype)
    lower = taps.pixels.unsqueeze(-1)
    at_lower, at_upper = (pixel == lower).to(taps.weights.dtype), (pixel == lower + 1).to(taps.weights.dtype)
    return taps.weights[..., :1] * at_lower + taps.weights[..., 1:] * at_upper


def contract(pixels: Tensor, rows: AxisTaps, columns: AxisTaps) -> Tensor:
    """Pixels (B, C, H, W) with dense tap matrices: crops (B, K, C, h, w)."""
    height, width = pixels.shape[-2:]
    return torch.einsum("bkiy,bcyx,bkjx->bkcij", tap_matrix(rows, height), pixels, tap_matrix(columns, width))


def _keep_gradient(value: Tensor, of: Tensor) -> Tensor:
    """``value``, with the gradient of ``of``: a half side below zero counts as zero and can still grow."""
    return value.detach() + (of - of.detach())


def _clamp(value: Tensor, size: int) -> Tensor:
    """Clamped to [0, size]; at the bounds themselves the gradient still flows."""
    inside = (value >= 0) & (value <= size)
    return torch.where(inside, value, value.detach().clamp(0, size))
