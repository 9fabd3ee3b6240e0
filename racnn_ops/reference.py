# SPDX-License-Identifier: BSD-3-Clause
"""The specification: ``attention_crop`` in plain PyTorch.

Every output of two taps an axis gathers the four pixels that they name, out of the whole image at once, and
blends them; longer filters are dense tables (``_filters``) and two matrix products (``_dense``). What an
output does not read cannot reach it, nor its gradients reach what it does not read, NaN and infinity
included. Both are other algorithms than the kernels', which walk along rows; autograd differentiates them.
All tests compare with them, and they answer where there are no kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._arguments import MAX_SIDE, check_arguments, check_options, is_channels_last
from ._dense import contract_dense
from ._filters import (
    constants,
    dense_taps,
    limited,
    mask_values,
    mask_values_along,
    nearest_pixel,
    sample_positions,
)
from ._lists import crop_any
from ._options import SELECTED_DTYPES, Boxcar, KernelOptions
from ._surrogate import boxcar_window_grad, with_surrogate

__all__ = ["attention_crop", "boxcar_window_grad"]


# From pixels (B, C, H, W) and finite windows (B, K, 3 or 4) to crops (B, K, C, h, w) of two taps an axis.
Contraction = Callable[[Tensor, Tensor, KernelOptions], Tensor]


def attention_crop(
    images: Tensor | Sequence[Tensor],
    windows: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    *,
    interpolation: str = "bilinear",
    antialias: bool = False,
    mask_steepness: float | None = None,
    boundary: str = "zeros",
    fill: float | Sequence[float] | None = None,
    window_grad: str = "exact",
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    boxcar: Boxcar | None = None,
    flip: Tensor | None = None,
    image_index: Tensor | None = None,
) -> Tensor:
    """As :func:`racnn_ops.attention_crop`, in plain PyTorch: slower, and needs memory for what it gathers.

    Every argument, shape, dtype and error is the same; forward mode and higher derivatives are autograd's.
    """
    options = check_options(
        *(output_size, interpolation, antialias, mask_steepness, boundary, fill),
        *(window_grad, mean, std, dtype, memory_format, boxcar),
    )
    check_arguments(images, windows, options, flip, image_index)
    if image_index is not None:
        image_index = image_index.to(torch.int64)
    crops = crop_any(images, windows, image_index, lambda batch, own: sample(batch, own, options.of(batch)))
    return crops if flip is None else mirrored(crops, flip)


def mirrored(crops: Tensor, flip: Tensor) -> Tensor:
    """Crops (..., C, h, w), those mirrored left-right whose ``flip`` (...) is true."""
    return torch.where(flip[..., None, None, None], crops.flip(-1), crops)


def sample(
    images: Tensor,
    windows: Tensor,
    options: KernelOptions,
    contraction: Contraction | None = None,
) -> Tensor:
    """The crops for checked arguments; with ``_transforms``' contraction kernels make the surrogate too."""
    if images.dtype in SELECTED_DTYPES:
        return _select(images, windows, options)
    pixels = normalise(images, windows.dtype, options)
    boxcar = Boxcar.of(options.boxcar).scaled_to(*images.shape[-2:]) if options.boxcar else None

    batched, finite, safe = safe_windows(windows)
    geometry = safe if boxcar is None else safe.detach()
    if options.two_taps:
        crops = (contraction or contract_taps)(pixels, geometry, options)
    else:
        rows, columns = (axis_weights(*axis) for axis in axes(pixels, options, geometry))
        crops = contract_dense(pixels, rows, columns)
    if boxcar is not None:
        crops = with_surrogate(crops, safe, boxcar, contraction is not None)
    if options.offset:
        crops = crops + constants(options.offset, crops).view(-1, 1, 1)

    # A window that is not finite gives NaN, and a NaN gradient to itself alone.
    nan_if_lost = torch.zeros_like(finite, dtype=windows.dtype).masked_fill(~finite, float("nan"))
    lost = torch.where(finite.unsqueeze(-1), torch.zeros_like(batched), batched).sum(-1) * nan_if_lost
    crops = torch.where(finite[..., None, None, None], crops, lost[..., None, None, None])
    if options.dtype == torch.uint8:
        crops = crops.detach().nan_to_num(0.0).round().clamp(0, 255)
    return finished(crops, images, windows, options)


def finished(crops: Tensor, images: Tensor, windows: Tensor, options: KernelOptions) -> Tensor:
    """Crops (B, K, C, h, w) in dtype, layout and shape of the result."""
    return _laid_out(crops.to(options.dtype), images, windows, options)


def _laid_out(crops: Tensor, images: Tensor, windows: Tensor, options: KernelOptions) -> Tensor:
    channels_last = is_channels_last(images) if options.channels_last is None else options.channels_last
    crops = crops.movedim(2, -1).contiguous().movedim(-1, 2) if channels_last else crops.contiguous()
    return crops if windows.dim() == 3 else crops.squeeze(1)


def axes(images: Tensor, options: KernelOptions, *windows: Tensor) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Of y, and of x: centre and half side of each of ``windows``, numbers of pixels and outputs, options."""
    height, width = images.shape[-2:]
    along_y = (part for each in windows for part in (each[..., 1], each[..., -1]))
    along_x = (part for each in windows for part in (each[..., 0], each[..., 2]))
    return (*along_y, height, options.height, options), (*along_x, width, options.width, options)


def safe_windows(windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As (B, K, values); which are finite, (B, K); and the same with zeros for those that are not."""
    batched = windows if windows.dim() == 3 else windows.unsqueeze(1)
    finite = torch.isfinite(batched).all(-1)
    return batched, finite, torch.where(finite.unsqueeze(-1), batched, torch.zeros_like(batched))


def _select(images: Tensor, windows: Tensor, options: KernelOptions) -> Tensor:
    """The nearest pixels as they are, of any dtype; outside the options' offset, or 0."""
    _, finite, safe = safe_windows(windows.detach())
    (y, y_inside), (x, x_inside) = (_nearest(*axis) for axis in axes(images, options, safe))
    pixels = _selectable(images)
    batch = torch.arange(images.shape[0], device=images.device).view(-1, 1, 1, 1)
    read = pixels.movedim(1, -1)[batch, y.unsqueeze(-1), x.unsqueeze(-2)]  # (B, K, h, w, C)
    inside = (y_inside.unsqueeze(-1) & x_inside.unsqueeze(-2)).unsqueeze(-1)
    fill = pixels.new_tensor([_as_signed(int(value), pixels.dtype) for value in options.offset or (0,)])
    crops = torch.where(inside, read, fill)
    crops = torch.where(finite[..., None, None, None], crops, torch.zeros_like(crops)).movedim(-1, 2)
    crops = crops.to(images.dtype) if torch.compiler.is_exporting() else crops.view(images.dtype)
    return _laid_out(crops, images, windows, options)


_SIGNED = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _selectable(images: Tensor) -> Tensor:
    """As signed integers, since torch indexes and selects few of the others: the same bits.

    Exported, by conversions, which keep the low bits: others than torch have no view of bits, and select
    among int32 and int64.
    """
    if torch.compiler.is_exporting():
        return images.to(torch.int64 if images.dtype.itemsize == 8 else torch.int32)
    return images.view(_SIGNED[images.dtype.itemsize])


def _as_signed(value: int, dtype: torch.dtype) -> int:
    """The number with the same bits in the signed dtype, where that does not hold it."""
    return value - 2 ** (8 * dtype.itemsize) if value >= 2 ** (8 * dtype.itemsize - 1) else value


def _nearest(
    centre: Tensor, half: Tensor, size: int, out: int, options: KernelOptions
) -> tuple[Tensor, Tensor]:
    """The pixels (B, K, out) that positions lie in, limited to the image, and whether they are in it."""
    pixel = nearest_pixel(*clipped(centre, half, size, options.boundary), size, out, options.boundary)
    return pixel.clamp(0, size - 1), (pixel >= 0) & (pixel < size)


def normalise(images: Tensor, dtype: torch.dtype, options: KernelOptions) -> Tensor:
    """Pixels of ``dtype``, scaled and shifted channel by channel where the options say so."""
    pixels = images.to(dtype)
    if not options.scale:
        return pixels
    scale, shift = (constants(values, pixels).view(1, -1, 1, 1) for values in (options.scale, options.shift))
    return pixels * scale + shift


class AxisTaps(NamedTuple):
    """What the outputs along one axis of B x K windows read.

    ``pixels`` (B, K, out), int64: the lower of two neighbours, non-decreasing; where one lies outside the
    image it is not read. ``weights`` (B, K, out, 2): of the lower and the upper pixel, mask included.
    """

    pixels: Tensor
    weights: Tensor


def axis_taps(centre: Tensor, half: Tensor, size: int, out: int, options: KernelOptions) -> AxisTaps:
    """The tap tables of one axis from centre and half side (B, K), in pixels, of an image of ``size`` pixels.

    Of both axes at once from (B, K, 2), where they have as many pixels and outputs. The weights are
    differentiable functions of the window, to any order.
    """
    centre, half = clipped(centre, half, size, options.boundary)
    lower, fraction, _ = _two_pixels(centre, half, size, out, options.boundary)
    weights = torch.stack((1 - fraction, fraction), -1)
    if options.mask_steepness is not None:
        weights = weights * mask_values(_centres(lower), centre, half, options.mask_steepness)
    return AxisTaps(lower, weights)


def axis_taps_along(
    centre: Tensor,
    half: Tensor,
    d_centre: Tensor,
    d_half: Tensor,
    size: int,
    out: int,
    options: KernelOptions,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, pixels and weights, and how the weights change along a change of centre and half side.

    Written out, it takes a fraction of the operations that forward mode makes of :func:`axis_taps`.
    """
    d_centre, d_half = _clipped_along(centre, half, d_centre, d_half, size, options.boundary)
    centre, half = clipped(centre, half, size, options.boundary)
    lower, fraction, inside = _two_pixels(centre, half, size, out, options.boundary)
    moved = torch.where(inside, sample_positions(d_centre, d_half, out), 0.0)
    weights, d_weights = torch.stack((1 - fraction, fraction), -1), torch.stack((-moved, moved), -1)
    if options.mask_steepness is not None:
        pixel = _centres(lower)
        mask = mask_values(pixel, centre, half, options.mask_steepness)
        d_mask = mask_values_along(pixel, (centre, half), (d_centre, d_half), options.mask_steepness)
        d_weights = d_weights * mask + weights * d_mask
        weights = weights * mask
    return lower, weights, d_weights


def _two_pixels(
    centre: Tensor, half: Tensor, size: int, out: int, boundary: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each output the lower pixel, the upper one's share, and whether that moves with the window."""
    position = sample_positions(centre, half, out) - 0.5
    # Limited as integers: float32 may round the last pixel's number up. On its centre there is no pixel to
    # move on to.
    first, last = (-2, size) if boundary == "zeros" else (0, size - 1)
    below = position.detach().clamp(first, MAX_SIDE).floor()
    lower = below.long().clamp(max=last)
    inside = (position >= first) & (lower < last)
    return lower, torch.where(inside, position - below, 0.0), inside


def _centres(lower: Tensor) -> Tensor:
    """Of the two pixels, (B, K, out, 2)."""
    return torch.stack((lower, lower + 1), -1) + 0.5


def axis_weights(centre: Tensor, half: Tensor, size: int, out: int, options: KernelOptions) -> Tensor:
    """The same for every filter, with the weight of each pixel in each output: (B, K, out, size)."""
    return dense_taps(*clipped(centre, half, size, options.boundary), size, out, options)


def clipped(centre: Tensor, half: Tensor, size: int, boundary: str) -> tuple[Tensor, Tensor]:
    half = _keep_gradient(half.clamp(min=0), half)
    if boundary != "clip":
        return centre, half
    low, high = limited(centre - half, 0, size), limited(centre + half, 0, size)
    return (low + high) / 2, (high - low) / 2


def _clipped_along(
    centre: Tensor, half: Tensor, d_centre: Tensor, d_half: Tensor, size: int, boundary: str
) -> tuple[Tensor, Tensor]:
    """The change of :func:`clipped`."""
    if boundary != "clip":
        return d_centre, d_half
    half = half.clamp(min=0)
    edges = ((centre - half, d_centre - d_half), (centre + half, d_centre + d_half))
    d_low, d_high = (torch.where((edge >= 0) & (edge <= size), moved, 0.0) for edge, moved in edges)
    return (d_low + d_high) / 2, (d_high - d_low) / 2


def contract_taps(pixels: Tensor, windows: Tensor, options: KernelOptions) -> Tensor:
    """Pixels (B, C, H, W) and finite windows (B, K, 3 or 4): crops (B, K, C, h, w)."""
    rows, columns = (axis_taps(*axis) for axis in axes(pixels, options, windows))
    return contract(pixels, rows, columns)


def contract(pixels: Tensor, rows: AxisTaps, columns: AxisTaps) -> Tensor:
    """Pixels (B, C, H, W) with the taps of both axes: crops (B, K, C, h, w)."""
    batch, channels, height, width = pixels.shape
    windows, out_height = rows.pixels.shape[1:]
    lines = pixels.movedim(1, 2).reshape(batch, height, channels * width)
    lines = _gather(lines, rows.pixels.flatten(1))  # (B, K h, 2, C W)
    lines = lines.reshape(batch * windows, out_height * 2 * channels, width).movedim(1, 2)
    read = _gather(lines, columns.pixels.flatten(0, 1))  # (B K, w, 2, h 2 C)
    read = read.unflatten(-1, (out_height, 2, channels)).unflatten(0, (batch, windows))
    blended = (read * columns.weights[..., None, None, None]).sum(3)  # (B, K, w, h, 2, C)
    crops: Tensor = (blended * rows.weights[:, :, None, ..., None]).sum(4)
    return crops.permute(0, 1, 4, 3, 2).contiguous()


def _gather(lines: Tensor, lower: Tensor) -> Tensor:
    """Out of ``lines`` (N, size, M) those numbered ``lower`` (N, out) and the next ones: (N, out, 2, M).

    Zeros for those outside. It is an embedding, whose gradient adds up in a fixed order on every device.
    """
    count, size, _ = lines.shape
    pixel = torch.stack((lower, lower + 1), -1)
    inside = (pixel >= 0) & (pixel < size)
    first = size * torch.arange(count, device=lower.device).view(-1, 1, 1)
    read = torch.nn.functional.embedding(pixel.clamp(0, size - 1) + first, lines.flatten(0, 1))
    return torch.where(inside.unsqueeze(-1), read, torch.zeros_like(read))


def _keep_gradient(value: Tensor, of: Tensor) -> Tensor:
    """``value``, with the gradient of ``of``: a half side below zero counts as zero and can still grow."""
    return value.detach() + (of - of.detach())
