# SPDX-License-Identifier: BSD-3-Clause
"""NaN and infinity go where the formula takes them and nowhere else.

An output reads the pixels floor(p) and floor(p) + 1 along each axis, where they lie inside the image; one
with the weight 0 is read all the same, as in grid_sample: 0 * NaN is NaN. What it does not read, within a
vector, a run or a padded line, must not reach it, nor its gradient what it does not read.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from samples import EVERY_BOUNDARY, LAYOUTS, MODES, each_filter, generator, make_images, window_dtype
from torch import Tensor

from racnn_ops import attention_crop, reference
from racnn_ops._filters import dense_taps
from racnn_ops._options import KernelOptions

pytestmark = pytest.mark.every_instruction_set
each_implementation = pytest.mark.parametrize(
    "crop", [attention_crop, reference.attention_crop], ids=["kernels", "reference"]
)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
each_layout = pytest.mark.parametrize(
    ("layout", "channels"),
    [("contiguous", 3), ("channels_last", 3), ("channels_last", 20), ("transposed", 2), ("every_second", 2)],
)

HEIGHT, WIDTH = 16, 32
OUTS = [(16, 32), (5, 9), (13, 17), (40, 77), (90, 301)]  # the first on the pixels, then less, then more
CASES = [(OUTS[(n + m) % 5], *mode) for n, mode in enumerate(MODES) for m in (0, 2)]
WINDOWS = [  # the whole image, over its edges, over a corner, inside
    [[16, 8, 16, 8], [15.3, 9.1, 21.7, 3.3]],
    [[30.2, 3.9, 2.2, 1.1], [9.4, 9.2, 9.9, 6.7]],
]


def reads(centre: Tensor, half: Tensor, size: int, out: int, boundary: str) -> Tensor:
    """(B, K, out, size): 1 where the output reads the pixel, straight from the formula."""
    if boundary == "clip":
        low, high = (centre - half).clamp(0, size), (centre + half).clamp(0, size)
        centre, half = (low + high) / 2, (high - low) / 2
    u = (2 * torch.arange(out, dtype=torch.float64, device=centre.device) + 1 - out) / out
    position = centre[..., None] + half[..., None] * u - 0.5
    if boundary != "zeros":
        position = position.clamp(0, size - 1)
    lower = position.floor()[..., None]
    pixel = torch.arange(size, device=centre.device)
    return ((pixel == lower) | (pixel == lower + 1)).double()


def read_along_rows_and_columns(
    windows: Tensor, out: tuple[int, int], boundary: str
) -> tuple[Tensor, Tensor]:
    x, y, half_x, half_y = windows.double().unbind(-1)
    return reads(y, half_y, HEIGHT, out[0], boundary), reads(x, half_x, WIDTH, out[1], boundary)


def with_a_few(values: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """NaN and both infinities in three places, and 1 where they are."""
    values, where = values.clone(), torch.zeros(values.shape, dtype=torch.float64, device=values.device)
    for bad in (math.nan, math.inf, -math.inf):
        place = tuple(int(torch.randint(0, n, (), generator=g)) for n in values.shape)
        values[place], where[place] = bad, 1.0
    return values, where


@each_implementation
@each_layout
@each_dtype
def test_pixels_reach_the_outputs_and_windows_that_read_them(
    device: str, dtype: torch.dtype, layout: str, channels: int, crop
) -> None:
    g = generator(layout, channels, dtype)
    leaf = torch.tensor(WINDOWS, device=device, dtype=window_dtype(dtype), requires_grad=True)
    plain = make_images((2, channels, HEIGHT, WIDTH), dtype, g).to(device)
    for out, boundary, mask in CASES:
        images, where = with_a_few(plain, g)
        rows, columns = read_along_rows_and_columns(leaf.detach(), out, boundary)
        crops = crop(LAYOUTS[layout](images), leaf, out, boundary=boundary, mask_steepness=mask)
        reached = torch.einsum("bcyx,bkiy,bkjx->bkcij", where, rows, columns) > 0
        assert torch.equal(~crops.isfinite(), reached), (out, boundary, mask)
        (of_windows,) = torch.autograd.grad(crops.sum(), leaf)
        assert torch.equal(~of_windows.isfinite().all(-1), reached.any((2, 3, 4))), (out, boundary, mask)


@each_implementation
@each_layout
@each_dtype
def test_gradients_reach_the_pixels_that_were_read(
    device: str, dtype: torch.dtype, layout: str, channels: int, crop
) -> None:
    g = generator(layout, channels, dtype, "gradients")
    windows = torch.tensor(WINDOWS, device=device, dtype=window_dtype(dtype))
    images = LAYOUTS[layout](make_images((2, channels, HEIGHT, WIDTH), dtype, g).to(device)).requires_grad_()
    for out, boundary, mask in CASES:
        crops = crop(images, windows, out, boundary=boundary, mask_steepness=mask)
        grad_output, where = with_a_few(torch.zeros_like(crops), g)
        rows, columns = read_along_rows_and_columns(windows, out, boundary)
        (of_images,) = torch.autograd.grad(crops, images, grad_output)
        reached = torch.einsum("bkcij,bkiy,bkjx->bcyx", where, rows, columns) > 0
        assert torch.equal(~of_images.isfinite(), reached), (out, boundary, mask)


@each_implementation
@each_layout
def test_what_a_window_does_not_read_may_be_anything(device: str, layout: str, channels: int, crop) -> None:
    """Its crop and its gradient are the same bits."""
    g = generator(layout, channels, "unread")
    windows = torch.tensor(WINDOWS, device=device)[:, 1:]
    images = torch.rand(2, channels, HEIGHT, WIDTH, generator=g).to(device)
    for out, boundary, mask in CASES:
        rows, columns = read_along_rows_and_columns(windows, out, boundary)
        unread = torch.einsum("bkiy,bkjx->byx", rows, columns).unsqueeze(1) == 0
        found = []
        for pixel in (0.0, math.nan, math.inf):
            leaf = windows.clone().requires_grad_()
            filled = LAYOUTS[layout](images.masked_fill(unread, pixel))
            crops = crop(filled, leaf, out, boundary=boundary, mask_steepness=mask)
            found.append((crops, *torch.autograd.grad(crops.square().sum(), leaf)))
        for crops, of_windows in found[1:]:
            assert torch.equal(crops, found[0][0]), (out, boundary, mask)
            assert torch.equal(of_windows, found[0][1]), (out, boundary, mask)


def read_by_filter(windows: Tensor, out: tuple[int, int], options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """(B, K, out, size) for rows and columns: 1 where the output's weight of the pixel is not 0."""
    antialias = options.get("antialias", options["interpolation"] == "lanczos3")
    plain = (None, (), (), windows.dtype, (), options["interpolation"], antialias)
    of_kernels = KernelOptions(*out, options["boundary"], *plain)
    x, y, half_x, half_y = windows.unbind(-1)
    found = []
    for centre, half, size, side in ((y, half_y, HEIGHT, out[0]), (x, half_x, WIDTH, out[1])):
        if options["boundary"] == "clip":
            low, high = (centre - half).clamp(0, size), (centre + half).clamp(0, size)
            centre, half = (low + high) / 2, (high - low) / 2
        found.append((dense_taps(centre, half, size, side, of_kernels) != 0).double())
    return found[0], found[1]


# At random places no weight within a run is 0, but at a window's edge one of nearly 0 may be left out.
FILTER_WINDOWS = torch.tensor(
    [
        [[15.83, 8.17, 16.41, 8.39], [15.31, 9.12, 21.73, 3.29]],
        [[30.23, 3.91, 2.17, 1.13], [9.41, 9.23, 9.92, 6.71]],
    ],
    dtype=torch.float64,
)


@each_layout
@each_filter
def test_filters_read_their_runs_alone(
    device: str, options: dict[str, Any], layout: str, channels: int
) -> None:
    """Outputs and windows' gradients are not finite where they read such a pixel, and only there; gradients
    that are not finite reach what was read; what no output reads may be anything."""
    g = generator(layout, channels, "filters")
    windows = FILTER_WINDOWS.to(device).requires_grad_()
    plain = make_images((2, channels, HEIGHT, WIDTH), torch.float64, g).to(device)
    for boundary, out in zip(EVERY_BOUNDARY, ((5, 9), (13, 17), (4, 3), (40, 77)), strict=True):
        case = {**options, "boundary": boundary}
        if options == {"interpolation": "bilinear"} and boundary != "window":
            continue  # two taps, which are read with the weight 0, too
        rows, columns = read_by_filter(windows.detach(), out, case)
        images, where = with_a_few(plain, g)
        crops = attention_crop(LAYOUTS[layout](images), windows, out, **case)
        reached = torch.einsum("bcyx,bkiy,bkjx->bkcij", where, rows, columns) > 0
        assert torch.equal(~crops.isfinite(), reached), case
        (of_windows,) = torch.autograd.grad(crops.sum(), windows)
        if options["interpolation"] != "nearest":
            assert torch.equal(~of_windows.isfinite().all(-1), reached.any((2, 3, 4))), case

        unread = torch.einsum("bkiy,bkjx->byx", rows, columns).unsqueeze(1) == 0
        found = []
        for pixel in (0.0, math.nan, math.inf):
            images = LAYOUTS[layout](plain.masked_fill(unread, pixel)).requires_grad_()
            crops = attention_crop(images, windows, out, **case)
            found.append((crops, torch.autograd.grad(crops.square().sum(), windows, retain_graph=True)[0]))
        for other in found[1:]:
            assert all(map(torch.equal, other, found[0])), case
        grad_output, where = with_a_few(torch.zeros_like(crops), g)
        (of_images,) = torch.autograd.grad(crops, images, grad_output)
        reached = torch.einsum("bkcij,bkiy,bkjx->bcyx", where, rows, columns) > 0
        assert torch.equal(~of_images.isfinite(), reached), case


def test_rows_that_read_nothing_do_so_after_a_plane_that_is_not_finite(device: str) -> None:
    """Lines of small crops are kept from plane to plane; of a first row that is outside nothing may stay."""
    images = torch.rand(1, 2, 9, 9, generator=generator("rows")).to(device)
    images[0, 0, 4, 4] = math.nan
    windows = torch.tensor([[4.5, 0.0, 3.0, 6.0]], device=device)
    both = attention_crop(images, windows, (8, 6), interpolation="bicubic")
    alone = attention_crop(images[:, 1:], windows, (8, 6), interpolation="bicubic")
    assert torch.equal(both[:, 1:], alone)
    assert not both[:, 0].isfinite().all()
    assert not alone[:, :, 0].any()
