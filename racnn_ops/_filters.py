# SPDX-License-Identifier: BSD-3-Clause
"""The separable filters as dense tables: the weight of every pixel of an axis in every output.

Output j of ``out`` samples at s_j = centre + half * u_j, outputs are sigma = 2 * half / out pixels apart, the
centre of pixel x is c_x = x + 1/2. A filter f of radius R weighs pixel x by f(s_j - c_x); with ``antialias``
by f((s_j - c_x) / rho) / N, rho = max(1, sigma), N the sum over all pixels. Weights are differentiable
functions of the window, to any order, with the set of pixels held constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._arguments import MAX_SIDE
from ._options import KernelOptions

# Below this half width a footprint is a point: the average is the interpolant itself, to rounding.
_POINT = 1e-3
# Windows beyond are as good as there, and their numbers finite.
_FARTHEST = 4.0 * MAX_SIDE
# Lanczos' weights are summed one by one up to this stretch; beyond it the series for the sum is exact enough.
_SUMMED_STRETCH = 16


class Jump(NamedTuple):
    """Of a filter's derivative of this order at this place, from the left to the right."""

    place: int
    order: int
    height: float


class Filter(NamedTuple):
    """A weight function, 0 outside ``[-radius, radius]``, with what its sum over whole steps needs."""

    weight: Callable[[Tensor], Tensor]
    radius: int
    integral: float
    jumps: tuple[Jump, ...]


def constants(values: float | Sequence[float], like: Tensor) -> Tensor:
    """Numbers as a tensor of that dtype, on that device: torch.onnx rounds Python's to float32.

    By no new_tensor, which detaches in place: a graph made by ``run_decompositions`` may not.
    """
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)


def _hat(z: Tensor) -> Tensor:
    """Its derivative at the kinks is the one from the right."""
    return torch.where((z >= -1) & (z < 1), torch.where(z < 0, 1 + z, 1 - z), 0.0)


def _cubic(a: float) -> Filter:
    """Keys' cubic convolution (1981)."""

    def weight(z: Tensor) -> Tensor:
        z = z.abs()
        inner = ((a + 2) * z - (a + 3)) * z * z + 1
        outer = ((a * z - 5 * a) * z + 8 * a) * z - 4 * a
        return torch.where(z <= 1, inner, torch.where(z < 2, outer, torch.zeros_like(z)))

    jumps = [Jump(0, 3, 12 * (a + 2))]
    for place, second, third in ((1, -8 * a - 6, -12.0), (2, -2 * a, -6 * a)):
        jumps += [Jump(place, 2, second), Jump(place, 3, third)]
        jumps += [Jump(-place, 2, -second), Jump(-place, 3, third)]
    return Filter(weight, 2, 1.0, tuple(jumps))


# Of (cos 2t - cos 4t) / (6 t^2) = 1 - 5/3 t^2 + ...
_LANCZOS3_SERIES = [(-1) ** (k + 1) * (16**k - 4**k) / (6 * math.factorial(2 * k)) for k in range(1, 12)]


def _lanczos3(z: Tensor) -> Tensor:
    """sinc(z) sinc(z / 3), by its series around 0: there torch.sinc has no second derivative."""
    third, *coefficients = constants([math.pi / 3, *reversed(_LANCZOS3_SERIES)], z).unbind()
    t = torch.where(z.abs() < 3, z, 0.0) * third
    near = t.abs() < 0.3
    square = t * t
    series = torch.zeros_like(t)
    for coefficient in coefficients:
        series = series * square + coefficient
    far = torch.where(near, 1.0, t)
    direct = (torch.cos(2 * far) - torch.cos(4 * far)) / (6 * far * far)
    return torch.where(z.abs() < 3, torch.where(near, series, direct), 0.0)


# Derivatives of sinc(z) sinc(z / 3) at z = 3, from the second on.
_LANCZOS3_AT_3 = (2 / 9, -4 / 9, -3.98498982769845, 14.270953746649134)
_LANCZOS3_INTEGRAL = 0.9970553459543396

BILINEAR = Filter(_hat, 1, 1.0, (Jump(-1, 1, 1.0), Jump(0, 1, -2.0), Jump(1, 1, 1.0)))
LANCZOS3 = Filter(
    _lanczos3,
    3,
    _LANCZOS3_INTEGRAL,
    tuple(
        Jump(place, order, (-1 if place > 0 else (-1) ** order) * derivative)
        for order, derivative in enumerate(_LANCZOS3_AT_3, 2)
        for place in (-3, 3)
    ),
)
PLAIN = {"bilinear": BILINEAR, "bicubic": _cubic(-0.75)}
ANTIALIASED = {"bilinear": BILINEAR, "bicubic": _cubic(-0.5), "lanczos3": LANCZOS3}


class Pixels(NamedTuple):
    """Those that windows may read along an axis: ``[first, last]``, (B, K, 1), integers as floats."""

    first: Tensor
    last: Tensor
    limit: bool
    """Whether nothing lies beyond them; else zeros do."""


def dense_taps(centre: Tensor, half: Tensor, size: int, out: int, options: KernelOptions) -> Tensor:
    """The weights (B, K, out, size) of one axis from centre and half side (B, K), in pixels.

    ``half`` is not negative, and the window is clipped already where the boundary says so.
    """
    centre, half = limited(centre, -_FARTHEST, _FARTHEST), limited(half, -_FARTHEST, _FARTHEST)
    position = sample_positions(centre, half, out)
    pixels = _pixels(centre, half, size, options.boundary)
    if options.interpolation == "nearest":
        pixel = nearest_pixel(centre, half, size, out, options.boundary).unsqueeze(-1)
        weights = (pixel == torch.arange(size, device=pixel.device)).to(position.dtype)
    elif options.interpolation == "area":
        weights = _area(position, half.unsqueeze(-1) / out, pixels, size)
    elif options.antialias or options.interpolation == "lanczos3":
        stretch = 2 * half.unsqueeze(-1) / out
        stretch = torch.where(stretch > 1, stretch, 1.0)
        filter = ANTIALIASED[options.interpolation]
        weights = _antialiased(filter, position, stretch, pixels, size)
    else:
        weights = _plain(PLAIN[options.interpolation], position, pixels, size)
    if options.mask_steepness is not None:
        x = _centres(position, size)
        weights = weights * mask_values(x, centre, half, options.mask_steepness)
    return weights


def sample_positions(centre: Tensor, half: Tensor, out: int) -> Tensor:
    """s_j (B, K, out), in pixels."""
    u = torch.arange(1 - out, out, 2, device=centre.device, dtype=centre.dtype) / out
    return centre.unsqueeze(-1) + half.unsqueeze(-1) * u


def mask_values(x: Tensor, centre: Tensor, half: Tensor, steepness: float) -> Tensor:
    """The paper's soft boxcar (equations 5 and 6) at places x, broadcast with (B, K, 1, 1)."""
    low, high = (centre - half)[..., None, None], (centre + half)[..., None, None]
    k = constants(steepness, centre)
    return torch.sigmoid(k * (x - low)) - torch.sigmoid(k * (x - high))


def mask_values_along(
    x: Tensor, axis: tuple[Tensor, Tensor], d_axis: tuple[Tensor, Tensor], steepness: float
) -> Tensor:
    """How they change along a change of ``axis``, the centre and the half side."""

    def slope(edge: Tensor) -> Tensor:
        value = torch.sigmoid(steepness * (x - edge[..., None, None]))
        return steepness * value * (1 - value)

    (centre, half), (d_centre, d_half) = axis, d_axis
    d_low, d_high = (d_centre - d_half)[..., None, None], (d_centre + d_half)[..., None, None]
    return slope(centre + half) * d_high - slope(centre - half) * d_low


def limited(value: Tensor, low: Any, high: Any) -> Tensor:
    """Limited to [low, high], numbers or tensors; beyond the limits, not at them, there is no derivative."""
    inside = (value >= low) & (value <= high)
    return torch.where(inside, value, value.detach().clamp(low, high))


def _pixels(centre: Tensor, half: Tensor, size: int, boundary: str) -> Pixels:
    """The whole image or, of boundary "window", the window's own: at least one, the nearest."""
    if boundary != "window":
        zeros = torch.zeros_like(centre).unsqueeze(-1)
        return Pixels(zeros, zeros + (size - 1), boundary != "zeros")
    first = (centre - half).detach().floor().clamp(0, size - 1)
    last = (centre + half).detach().ceil().clamp(max=size) - 1
    return Pixels(first.unsqueeze(-1), torch.maximum(first, last).unsqueeze(-1), True)


def _centres(position: Tensor, size: int) -> Tensor:
    return torch.arange(size, device=position.device, dtype=position.dtype) + 0.5


def nearest_pixel(centre: Tensor, half: Tensor, size: int, out: int, boundary: str) -> Tensor:
    """The pixel (B, K, out), int64, in which each position lies; negative or ``size`` and more: outside.

    ``half`` is not negative, and the window is clipped already where the boundary says so.
    """
    centre, half = (limited(value.detach(), -_FARTHEST, _FARTHEST) for value in (centre, half))
    # By the product first: where positions lie on pixels' edges, as at a reduction by 2, it is exact.
    steps = torch.arange(1 - out, out, 2, device=centre.device, dtype=centre.dtype)
    pixel = (centre.unsqueeze(-1) + half.unsqueeze(-1) * steps / out).floor().long()
    pixels = _pixels(centre, half, size, boundary)
    if not pixels.limit:
        return pixel
    # As integers: float32 may round the last pixel's number up.
    return pixel.clamp(pixels.first.long(), pixels.last.long()).clamp(max=size - 1)


def _plain(filter: Filter, position: Tensor, pixels: Pixels, size: int) -> Tensor:
    """What lies outside reads zero or, limited, the edge pixel."""
    x = _centres(position, size) - 0.5
    # Beyond these limits all pixels read are outside, or all are the edge pixel.
    at = limited(position - 0.5, -filter.radius - 1, size + filter.radius)
    lower = at.detach().floor()
    near = at - lower
    weights = torch.zeros_like(at.unsqueeze(-1) * x)
    for step in range(1 - filter.radius, filter.radius + 1):
        pixel = lower + step
        if pixels.limit:
            pixel = pixel.clamp(pixels.first, pixels.last)
        weight = filter.weight(near - step)
        weights = weights + torch.where(pixel.unsqueeze(-1) == x, weight.unsqueeze(-1), 0.0)
    return weights


def _antialiased(filter: Filter, position: Tensor, stretch: Tensor, pixels: Pixels, size: int) -> Tensor:
    """Normalised over all whole positions or, limited, over the pixels that may be read."""
    x = _centres(position, size)
    if pixels.limit:
        position = limited(position, pixels.first, pixels.last + 1)
    weights = filter.weight((position.unsqueeze(-1) - x) / stretch.unsqueeze(-1))
    if not pixels.limit:
        return weights / sum_of_weights(filter, position, stretch).unsqueeze(-1)
    allowed = (x > pixels.first.unsqueeze(-1)) & (x < pixels.last.unsqueeze(-1) + 1)
    weights = torch.where(allowed, weights, 0.0)
    return weights / weights.sum(-1, keepdim=True)


def sum_of_weights(filter: Filter, position: Tensor, stretch: Tensor) -> Tensor:
    """N = sum over all whole x of f((s - x - 1/2) / rho), whatever rho: by Euler and Maclaurin.

    N = rho * integral of f + sum over f's jumps of (-1/rho)^m J B_{m+1}({1/2 + rho z - s}) / (m + 1)!, with
    Bernoulli polynomials B. Exact for piecewise polynomials; for Lanczos to rounding from rho = 16 on.
    """
    series = stretch * constants(filter.integral, stretch)
    for jump in filter.jumps:
        place = 0.5 + stretch * jump.place - position
        fraction = place - (place.detach().ceil() - 1)  # in (0, 1]: derivatives in s are from the right
        factor = constants(jump.height / math.factorial(jump.order + 1), stretch)
        series = series + factor * (-1 / stretch) ** jump.order * _bernoulli(jump.order + 1, fraction)
    if filter is not LANCZOS3:
        return series
    near = stretch.clamp(max=_SUMMED_STRETCH).unsqueeze(-1)
    steps = torch.arange(-3 * _SUMMED_STRETCH - 1, 3 * _SUMMED_STRETCH + 2, device=position.device)
    x = position.detach().floor().unsqueeze(-1) + steps + 0.5
    summed = filter.weight((position.unsqueeze(-1) - x) / near).sum(-1)
    return torch.where(stretch < _SUMMED_STRETCH, summed, series)


def _bernoulli(order: int, x: Tensor) -> Tensor:
    coefficients = {  # of x^order and the lower powers
        2: (1.0, -1.0, 1 / 6),
        3: (1.0, -1.5, 0.5, 0.0),
        4: (1.0, -2.0, 1.0, 0.0, -1 / 30),
        5: (1.0, -2.5, 5 / 3, 0.0, -1 / 6, 0.0),
        6: (1.0, -3.0, 2.5, 0.0, -0.5, 0.0, 1 / 42),
    }[order]
    value = torch.zeros_like(x)
    for coefficient in constants(coefficients, x).unbind():
        value = value * x + coefficient
    return value


def _area(position: Tensor, radius: Tensor, pixels: Pixels, size: int) -> Tensor:
    """The mean of the bilinear interpolant over [s - r, s + r], in closed form (PrRoIPool's bins)."""
    x = _centres(position, size)
    r = radius.clamp(min=_POINT).unsqueeze(-1)
    at = position.unsqueeze(-1)
    first, last = pixels.first.unsqueeze(-1) + 0.5, pixels.last.unsqueeze(-1) + 0.5
    if pixels.limit:
        # Beyond, the whole footprint is the edge pixel, to which differences of far numbers are not exact.
        at = limited(at, (first - r - 1).detach(), (last + r + 1).detach())
    weights = (_hat_sum(at + r - x) - _hat_sum(at - r - x)) / (2 * r)
    if pixels.limit:
        # Beyond the edge pixels' centres the interpolant goes on as it is there.
        before = (_before(at + r - first) - _before(at - r - first)) / (2 * r)
        after = (_before(last - at + r) - _before(last - at - r)) / (2 * r)
        edge = torch.where(first == last, 1.0, torch.where(x == first, before, after))
        weights = torch.where((x == first) | (x == last), edge, weights)
        weights = torch.where((x >= first) & (x <= last), weights, 0.0)
    point = _plain(BILINEAR, position, pixels, size)
    return torch.where(radius.unsqueeze(-1) < _POINT, point, weights)


def _hat_sum(z: Tensor) -> Tensor:
    """The antiderivative of the hat: 0 below -1, 1 above 1."""
    z = z.clamp(-1, 1)
    return torch.where(z < 0, (z + 1) ** 2 / 2, 1 - (1 - z) ** 2 / 2)


def _before(z: Tensor) -> Tensor:
    """The antiderivative of what the first pixel's weight is: 1 below its centre, the hat's slope above."""
    return torch.where(z < 0, z + 0.5, _hat_sum(z.clamp(min=0)))
