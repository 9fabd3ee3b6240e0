# SPDX-License-Identifier: BSD-3-Clause
"""NaN and infinity go where the formula takes them and nowhere else.

An output reads the pixels floor(p) and floor(p) + 1 along each axis, where they lie inside the image; one
with the weight 0 is read all the same, as 0 * NaN is NaN. What it does not read, within a vector, a run or a
padded line, must not reach it, nor its gradient what it does not read.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from samples import LAYOUTS, MODES, Shape, generator, make_windows
from torch import Tensor

from racnn_ops import attention_crop, reference

pytestmark = pytest.mark.every_instruction_set
each_implementation = pytest.mark.parametrize(
    "crop", [attention_crop, reference.attention_crop], ids=["kernels", "reference"]
)
each_layout = pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed", "every_second"])
each_mode = pytest.mark.parametrize(("boundary", "mask"), MODES)

SHAPE = Shape(2, 3, 19, 37, 6, 21)
SIZES = (SHAPE.batch, 2, 4)  # of the windows


def read_along(centre: float, half: float, size: int, out: int, boundary: str) -> list[set[int]]:
    """The pixels that each output reads, straight from the formula."""
    half = max(half, 0.0)
    if boundary == "clip":
        low, high = (min(max(edge, 0.0), size) for edge in (centre - half, centre + half))
        centre, half = (low + high) / 2, (high - low) / 2
    pixels = []
    for j in range(out):
        p = centre + half * ((2 * j + 1) / out - 1) - 0.5
        if boundary != "zeros":
            p = min(max(p, 0), size - 1)
        pixels.append({x for x in (math.floor(p), math.floor(p) + 1) if 0 <= x < size})
    return pixels


def reads(windows: Tensor, boundary: str) -> Tensor:
    """Whether an output reads a pixel: (B, K, h, H, w, W)."""
    found = torch.zeros(*windows.shape[:2], SHAPE.out_height, SHAPE.height, SHAPE.out_width, SHAPE.width)
    for b, k in itertools.product(*map(range, windows.shape[:2])):
        x, y, half_x, half_y = windows[b, k].tolist()
        rows = read_along(y, half_y, SHAPE.height, SHAPE.out_height, boundary)
        columns = read_along(x, half_x, SHAPE.width, SHAPE.out_width, boundary)
        for (i, of_row), (j, of_column) in itertools.product(enumerate(rows), enumerate(columns)):
            for row, column in itertools.product(of_row, of_column):
                found[b, k, i, row, j, column] = 1
    return found


def sprinkled(shape: tuple[int, ...], bad: float, g: torch.Generator) -> Tensor:
    """A number in a hundred is ``bad``."""
    values = torch.rand(shape, generator=g) + 0.5
    return values.masked_fill(torch.rand(shape, generator=g) < 0.01, bad)


@each_implementation
@each_layout
@each_mode
def test_pixels_reach_the_outputs_that_read_them(
    device: str, boundary: str, mask: float | None, layout: str, crop
) -> None:
    g = generator(boundary, mask, layout)
    windows = make_windows(SIZES, SHAPE, g).float()
    read = reads(windows, boundary)
    for bad in (math.nan, math.inf):
        images = sprinkled(SHAPE.images, bad, g)
        crops = crop(
            LAYOUTS[layout](images.to(device)),
            windows.to(device),
            SHAPE.out,
            boundary=boundary,
            mask_steepness=mask,
        )
        reached = torch.einsum("bkiyjx,bcyx->bkcij", read, (~images.isfinite()).float()) > 0
        assert reached.any()
        assert torch.equal(~crops.cpu().isfinite(), reached)


@each_implementation
@each_layout
@each_mode
def test_what_a_window_does_not_read_may_be_anything(
    device: str, boundary: str, mask: float | None, layout: str, crop
) -> None:
    """Its crop and its gradient are the same bits."""
    g = generator(boundary, mask, layout, "unread")
    windows = make_windows((SHAPE.batch, 1, 4), SHAPE, g).float()
    unread = reads(windows, boundary).sum((1, 2, 4)).unsqueeze(1) == 0
    grad_output = torch.rand(SHAPE.batch, 1, SHAPE.channels, *SHAPE.out, generator=g).to(device)
    images = torch.rand(SHAPE.images, generator=g)
    found = []
    for unread_pixel in (0.0, math.nan, math.inf):
        leaf = windows.to(device).requires_grad_()
        filled = LAYOUTS[layout](images.masked_fill(unread, unread_pixel).to(device))
        crops = crop(filled, leaf, SHAPE.out, boundary=boundary, mask_steepness=mask)
        found.append((crops, *torch.autograd.grad(crops, leaf, grad_output)))
    for crops, of_windows in found[1:]:
        assert torch.equal(crops, found[0][0])
        assert torch.equal(of_windows, found[0][1])


@each_implementation
@each_layout
@each_mode
def test_gradients_reach_the_pixels_that_were_read(
    device: str, boundary: str, mask: float | None, layout: str, crop
) -> None:
    g = generator(boundary, mask, layout, "gradient")
    windows = make_windows(SIZES, SHAPE, g).float()
    read = reads(windows, boundary)
    images = LAYOUTS[layout](torch.rand(SHAPE.images, generator=g).to(device)).requires_grad_()
    crops = crop(images, windows.to(device), SHAPE.out, boundary=boundary, mask_steepness=mask)
    for bad in (math.nan, math.inf):
        grad_output = sprinkled(tuple(crops.shape), bad, g)
        (of_images,) = torch.autograd.grad(crops, images, grad_output.to(device), retain_graph=True)
        reached = torch.einsum("bkiyjx,bkcij->bcyx", read, (~grad_output.isfinite()).float()) > 0
        assert torch.equal(~of_images.cpu().isfinite(), reached)
