# SPDX-License-Identifier: BSD-3-Clause
"""What a crop and its gradients are, in float64, and how far from it arithmetic of a given precision may be.

Written from the formulas, not from the kernels or their reference: taps are gathered one by one,
derivatives are written out. N = B * K windows throughout. A *kink* is where a derivative jumps, an output
at a pixel's centre or a window's edge at the image's; within the reach of rounding nothing is said about
derivatives there, nor about which pixels are read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

VAGUE = 0.25  # pixels: with a larger error a position says nothing
EPSILON = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}


@dataclass
class Axis:
    """The taps of one axis of every window; [N, 2, out] for the lower and the upper pixel."""

    pixel: Tensor  # within the image
    inside: Tensor
    linear: Tensor  # the interpolation's weights, 0 outside
    weight: Tensor  # with the mask
    by_centre: Tensor  # derivatives of `weight`
    by_half: Tensor
    error: Tensor  # [N, 1, 1] of a weight
    slope_error: Tensor  # of a derivative
    at_kink: Tensor  # [N, out] an output
    edge_at_kink: Tensor  # [N] the window itself


def make_axis(
    centre: Tensor, half: Tensor, size: int, out: int, boundary: str, k: float | None, epsilon: float
) -> Axis:
    half = half.clamp(min=0)
    error = 4 * epsilon * (1 + centre.abs() + half)
    one, edge_at_kink = torch.ones_like(centre), torch.zeros_like(centre, dtype=torch.bool)
    low_moves = high_moves = one  # with the window's own edges
    if boundary == "clip":
        low, high = centre - half, centre + half
        for edge in (low, high):
            edge_at_kink = edge_at_kink | (edge.abs() <= error) | ((edge - size).abs() <= error)
        low_moves = ((low >= 0) & (low <= size)).double()
        high_moves = ((high >= 0) & (high <= size)).double()
        low, high = low.clamp(0, size), high.clamp(0, size)
        centre, half = (low + high) / 2, (high - low) / 2
    u = (2 * torch.arange(out, dtype=torch.float64) + 1) / out - 1
    raw = centre[:, None] + half[:, None] * u - 0.5
    if boundary == "zeros":
        position, moves = raw.clamp(-3, size + 2), torch.ones_like(raw)
    else:
        position, moves = raw.clamp(0, size - 1), ((raw >= 0) & (raw <= size - 1)).double()
    reach = error[:, None]
    near = (raw >= -1.5 - reach) & (raw <= size + 0.5 + reach)
    at_kink = near & (((raw - raw.round()).abs() <= reach) | (reach > VAGUE))

    lower = position.floor()
    pixel = torch.stack((lower, lower + 1), 1)
    inside = (pixel >= 0) & (pixel <= size - 1)
    linear = torch.stack((1 - (position - lower), position - lower), 1)
    by_position = torch.stack((-moves, moves), 1)
    if boundary != "zeros":  # the last pixel's upper neighbour is itself
        pixel, inside = pixel.clamp(0, size - 1), torch.ones_like(inside)
    linear, by_position = linear * inside, by_position * inside

    # The edges low = centre - half, high = centre + half and, clipped or not, how they move with the window.
    mask, by_low, by_high = torch.ones_like(linear), torch.zeros_like(linear), torch.zeros_like(linear)
    steep = 0.0
    if k is not None:
        steep = k
        x = pixel + 0.5
        above_low = torch.sigmoid(k * (x - (centre - half)[:, None, None]))
        above_high = torch.sigmoid(k * (x - (centre + half)[:, None, None]))
        mask = above_low - above_high
        by_low, by_high = -k * above_low * (1 - above_low), k * above_high * (1 - above_high)
    # position = (low + high) / 2 + (high - low) / 2 * u - 1/2
    along_low = by_position * mask * ((1 - u) / 2) + linear * by_low
    along_high = by_position * mask * ((1 + u) / 2) + linear * by_high
    along_low, along_high = along_low * low_moves[:, None, None], along_high * high_moves[:, None, None]
    error = error[:, None, None]
    weight_error = error * (1 + steep) + 8 * epsilon
    return Axis(
        pixel.clamp(0, size - 1).long(),
        inside,
        linear,
        linear * mask,
        along_low + along_high,
        along_high - along_low,
        weight_error,
        8 * (1 + steep) * weight_error,
        at_kink,
        edge_at_kink,
    )


def gather(images: Tensor, windows_each: int, rows: Axis, columns: Axis) -> Tensor:
    """What the outputs read: [N, C, 2, h, 2, w], 0 outside."""
    found = []
    for n in range(rows.pixel.shape[0]):
        image = images[n // windows_each]
        found.append(image[:, rows.pixel[n].flatten()[:, None], columns.pixel[n].flatten()].double())
    h, w = rows.pixel.shape[-1], columns.pixel.shape[-1]
    values = torch.stack(found).view(len(found), images.shape[1], 2, h, 2, w)
    return torch.where(
        rows.inside[:, None, :, :, None, None] & columns.inside[:, None, None, None], values, 0
    )


def contract(values: Tensor, row_weights: Tensor, column_weights: Tensor) -> Tensor:
    return torch.einsum("ncsitj,nsi,ntj->ncij", values, row_weights, column_weights)


def tap_matrix(axis: Axis, weights: Tensor, size: int) -> Tensor:
    """[N, out, size]"""
    matrix = torch.zeros(*weights.shape[::2], size, dtype=torch.float64)
    for s in range(2):
        matrix.scatter_add_(2, axis.pixel[:, s, :, None], (weights[:, s] * axis.inside[:, s])[..., None])
    return matrix


def touched(axis: Axis, size: int, surely: bool) -> Tensor:
    """[N, out, size], 0 or 1: which pixels an output reads; if not `surely`, those that it may read."""
    if surely:
        return (tap_matrix(axis, axis.weight, size) > 2 * axis.error).double()
    read = tap_matrix(axis, torch.ones_like(axis.linear), size) > 0
    beside = torch.nn.functional.max_pool1d(read.double(), 3, 1, 1) > 0
    beside = beside | (axis.error > VAGUE)
    return torch.where(axis.at_kink[..., None], beside, read).double()


def boxcar(g: Tensor, windows: Tensor, steepness: float, energy: str, scale: float, shrink: float) -> Tensor:
    """RA-CNN's surrogate, [N, 4] for tx, ty, tw, th: one edge of the soft boxcar at a time."""
    e = g.abs() if energy == "abs" else g.square().sum(1, keepdim=True)
    most = e.amax((-2, -1), keepdim=True)
    d = torch.where(most > 0, scale * e / most, 0.0).sum(1)

    def edges(half: Tensor, out: int) -> tuple[Tensor, Tensor, Tensor]:
        x = 2 * half.clamp(min=0)[:, None] * torch.arange(out, dtype=torch.float64) / out  # from the low edge
        low = torch.sigmoid(steepness * x)
        high = torch.sigmoid(steepness * (x - 2 * half.clamp(min=0)[:, None]))
        d_low, d_high = steepness * low * (1 - low), steepness * high * (1 - high)
        return low - high, d_low - d_high, d_low + d_high

    x, y = edges(windows[:, 2], g.shape[-1]), edges(windows[:, 3], g.shape[-2])
    total = lambda rows, columns: torch.einsum("nij,ni,nj->n", d, rows, columns)  # noqa: E731
    push = shrink / 2 * d.sum((-2, -1))
    return torch.stack(
        (total(y[0], x[1]), total(y[1], x[0]), push - total(y[0], x[2]), push - total(y[2], x[0])), -1
    )
