# SPDX-License-Identifier: BSD-3-Clause
"""The kernels of every filter against the reference in float64: crops and both gradients."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from samples import (
    EVERY_BOUNDARY,
    FILTERS,
    FLOAT_PAIRS,
    LAYOUTS,
    TOLERANCE,
    UINT8_PAIRS,
    Shape,
    each_filter,
    expected,
    filter_id,
    generator,
    make_images,
    make_windows,
    relative_error,
    window_dtype,
    window_sizes,
)
from torch import Tensor

from racnn_ops import AttentionCrop, Boxcar, attention_crop, reference

# As in test_gradients.py; images may be 2600 pixels wide here, with that much larger errors of positions.
WINDOW_TOLERANCE = {torch.float32: 5e-4, torch.float64: 1e-10}
WIDE_PIXELS = [(1, "contiguous", 2600), (3, "channels_last", 900), (40, "channels_last", 900)]
# The sum of weights is an integral at reductions beyond 4096: its derivative is not exact to rounding.
TIMES = {torch.float32: 20.0, torch.float64: 100.0}


def check(
    images: Tensor,
    windows: Tensor,
    out: tuple[int, int],
    options: dict[str, Any],
    grad_layout: Callable[[Tensor], Tensor] = Tensor.contiguous,
    times: float = 1.0,
) -> None:
    """Crops and gradients, by `times` the tolerances of the tests with two taps an axis."""
    what = (images.shape, images.stride(), images.dtype, windows.tolist(), out, options)
    windows = windows.detach().requires_grad_()
    exact_windows = windows.detach().double().requires_grad_()
    exact_images = images.detach().double()
    wanted, exact_wanted = [windows], [exact_windows]
    if images.is_floating_point():
        wanted.append(images.requires_grad_())
        exact_wanted.append(exact_images.requires_grad_())
    crops = attention_crop(images, windows, out, **options)
    if images.dtype == torch.uint8:
        exact_images = images
    exact = expected(exact_images, exact_windows, out, **options)
    if crops.dtype == torch.uint8:
        # Positions are float32, and rounding may fall to the other side.
        assert (crops - exact.clamp(0, 255)).abs().max() <= 0.5 + 255 * 1e-4, what
        return
    tolerance = max(TOLERANCE[images.dtype] if images.is_floating_point() else 1e-4, TOLERANCE[crops.dtype])
    assert relative_error(crops, exact) <= times * tolerance, what
    g = torch.randn(crops.shape, generator=generator(out, crops.shape), dtype=torch.float64)
    g = grad_layout(g.to(crops.device, crops.dtype))
    found = torch.autograd.grad(crops, wanted, g)
    by_reference = torch.autograd.grad(exact, exact_wanted, g.double(), materialize_grads=True)
    assert relative_error(found[0], by_reference[0]) <= times * WINDOW_TOLERANCE[windows.dtype], what
    if len(found) == 2:
        assert found[1].dtype == images.dtype
        assert relative_error(found[1], by_reference[1]) <= times * TOLERANCE[images.dtype], what


def normalisation(channels: int) -> dict[str, Any]:
    return {
        "mean": [0.3 + 0.01 * c for c in range(channels)],
        "std": [0.5 + 0.1 * c for c in range(channels)],
    }


def draw_options(draw: random.Random, channels: int) -> dict[str, Any]:
    options: dict[str, Any] = {**draw.choice(FILTERS), "boundary": draw.choice(EVERY_BOUNDARY)}
    if draw.random() < 0.3:
        options["mask_steepness"] = draw.choice((0.1, 1.0, 5.0))
    elif options["boundary"] == "zeros" and draw.random() < 0.5:
        options["fill"] = [2.0 + c for c in range(channels)]  # bytes, too
    if draw.random() < 0.4:
        options |= normalisation(channels)
    return options


def draw_windows(draw: random.Random, shape: Shape, dtype: torch.dtype, g: torch.Generator) -> Tensor:
    """Inside and outside, at reductions from nearly 0 to 100 and more, sometimes far away."""
    windows = make_windows(window_sizes(draw.randrange(4), shape.batch), shape, g)
    windows[..., 2:] *= draw.choice((0.02, 0.3, 1.0, 1.0, 5.0, 100.0))
    if draw.random() < 0.1:
        windows[..., draw.randrange(2)] += draw.choice((1e3, -1e3, 1e7, -1e7))
    if draw.random() < 0.05:
        windows[..., draw.randrange(2, windows.shape[-1])] = draw.choice((1e-30, 1e7, 1e30, 0.0))
    return windows.to(dtype)


@pytest.mark.every_instruction_set
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("seed", range(8))
def test_random_calls(device: str, seed: int, dtype: torch.dtype) -> None:
    draw, g = random.Random(f"{seed} {dtype}"), generator(seed, dtype)
    for _ in range(16):
        channels = draw.choice((1, 2, 3, 5, 16, 20))
        sides = [draw.choice((1, 2, 7, 16, 33, 70)) for _ in range(2)]
        outs = [draw.choice((1, 2, 5, 16, 17, 41)) for _ in range(2)]
        shape = Shape(draw.choice((1, 2)), channels, sides[0], sides[1], outs[0], outs[1])
        images = make_images(shape.images, dtype, g).to(device)
        images = LAYOUTS[draw.choice(list(LAYOUTS))](images)
        windows = draw_windows(draw, shape, dtype, g).to(device)
        grad_layout = LAYOUTS[draw.choice(list(LAYOUTS))]
        check(images, windows, shape.out, draw_options(draw, channels), grad_layout, TIMES[dtype])


@pytest.mark.every_instruction_set
@pytest.mark.parametrize(("image_dtype", "dtype"), FLOAT_PAIRS + UINT8_PAIRS, ids=str)
def test_every_dtype_and_layout(device: str, image_dtype: torch.dtype, dtype: torch.dtype) -> None:
    draw, g = random.Random(f"{image_dtype} {dtype}"), generator(image_dtype, dtype)
    for i, layout in enumerate(LAYOUTS):
        shape = Shape(2, (3, 20)[i % 2], 13, 21, (5, 33)[i // 2 % 2], (7, 18)[i // 4 % 2])
        images = LAYOUTS[layout](make_images(shape.images, image_dtype, g).to(device))
        windows = make_windows(window_sizes(i, 2), shape, g).to(device, window_dtype(image_dtype))
        options = draw_options(draw, shape.channels)
        if dtype == torch.uint8:
            options = {name: value for name, value in options.items() if name not in ("mean", "std")}
        check(images, windows, shape.out, {**options, "dtype": dtype}, LAYOUTS[layout])


@pytest.mark.every_instruction_set
@pytest.mark.parametrize("boundary", EVERY_BOUNDARY)
@each_filter
def test_every_reduction(device: str, options: dict[str, Any], boundary: str) -> None:
    """From zooming in to a hundred pixels an output, the number of taps changing from one to the next."""
    shape = Shape(1, 3, 60, 70, 7, 6)
    g = generator(filter_id(options), boundary)
    images = make_images(shape.images, torch.float64, g).to(device)
    reductions = torch.tensor([0.2, 0.7, 0.999, 1.0, 1.001, 1.5, 2.03, 3.7, 8.1, 19.9, 100.0]).double()
    windows = torch.empty(1, len(reductions), 4, dtype=torch.float64)
    windows[0, :, 0] = 34.37 + torch.rand(len(reductions), generator=g)
    windows[0, :, 1] = 29.13 + torch.rand(len(reductions), generator=g)
    windows[0, :, 2] = reductions * shape.out_width / 2
    windows[0, :, 3] = reductions * shape.out_height / 2
    options = {**options, "boundary": boundary}
    check(images, windows.to(device), shape.out, options)
    check(LAYOUTS["channels_last"](images), windows.to(device), shape.out, options)


@pytest.mark.every_instruction_set
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("channels", "layout", "width"), WIDE_PIXELS)
@each_filter
def test_wide_crops(
    device: str, options: dict[str, Any], channels: int, layout: str, width: int, dtype: torch.dtype
) -> None:
    """More pixels a row than are at work at a time, and runs longer than that."""
    shape = Shape(1, channels, 3, width, 2, 130)
    g = generator("wide", channels)
    images = LAYOUTS[layout](make_images(shape.images, dtype, g).to(device))
    windows = torch.tensor([[[0.49917, 1.4, 0.51311, 1.3], [0.96723, 1.7, 0.02417, 5.3]]], dtype=dtype)
    windows = windows.to(device)
    windows[..., ::2] *= width
    check(images, windows, shape.out, {**options, "boundary": "border"}, times=TIMES[dtype])
    huge = torch.tensor([[0.50337 * width, 1.2, 1.3171 * width, 2.1]], dtype=dtype, device=device)
    check(images, huge, (1, 2), {**options, **normalisation(channels)}, times=TIMES[dtype])


@pytest.mark.parametrize("boundary", EVERY_BOUNDARY)
@each_filter
def test_huge_windows_read_the_whole_image_at_most(
    device: str, options: dict[str, Any], boundary: str
) -> None:
    """However many pixels an output covers: work for each of them would not end."""
    images = make_images((1, 1, 1, 20011), torch.float64, generator("huge")).to(device)
    for half in (3e4, 1e9, 1e30):
        windows = torch.tensor([[10002.3, 0.6, half, half]], dtype=torch.float64, device=device)
        check(images, windows, (2, 5), {**options, "boundary": boundary}, times=1e3)
    (crops,) = attention_crop(images, windows, (2, 5), antialias=True, boundary="border")
    torch.testing.assert_close(crops, images[0].mean().expand_as(crops), rtol=0, atol=1e-6)


@pytest.mark.every_instruction_set
@pytest.mark.parametrize("channels", [3, 20])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed"])
@each_filter
def test_lost_windows(device: str, options: dict[str, Any], layout: str, channels: int) -> None:
    """NaN for themselves alone, bytes 0; no gradient of theirs reaches an image."""
    g = generator("lost", channels)
    shape = Shape(2, channels, 20, 30, 18, 21)
    images = LAYOUTS[layout](make_images(shape.images, torch.float32, g).to(device)).requires_grad_()
    windows = make_windows((2, 5, 4), shape, g).float().to(device)
    lost = torch.zeros(2, 5, dtype=torch.bool, device=device)
    for k, value in enumerate((math.nan, math.inf, -math.inf)):
        windows[k % 2, k, k + 1] = value
        lost[k % 2, k] = True
    windows.requires_grad_()
    whole = torch.where(lost[..., None], 5.0, windows.detach()).requires_grad_()
    crops, others = (attention_crop(images, w, shape.out, **options) for w in (windows, whole))
    assert crops[lost].isnan().all()
    assert torch.equal(crops[~lost], others[~lost])
    grad_output = torch.randn(crops.shape, generator=g).to(device)
    of_images, of_windows = torch.autograd.grad(crops, (images, windows), grad_output)
    assert of_windows[lost].isnan().all()
    others_grad = grad_output * ~lost[..., None, None, None]
    of_images_alone, of_others = torch.autograd.grad(others, (images, whole), others_grad)
    assert torch.equal(of_windows[~lost], of_others[~lost])
    torch.testing.assert_close(of_images, of_images_alone, rtol=1e-5, atol=1e-5)
    photographs = LAYOUTS[layout](make_images(shape.images, torch.uint8, g).to(device))
    bytes = attention_crop(photographs, windows, shape.out, **options)
    assert (bytes[lost] == 0).all()
    assert bytes[~lost].any()


@each_filter
def test_boxcar_gradient(device: str, options: dict[str, Any]) -> None:
    """The crop and the image's gradient are those of "exact", bit by bit; the window's is the surrogate."""
    shape = Shape(2, 3, 20, 30, 9, 8)
    g = generator("boxcar")
    images = make_images(shape.images, torch.float64, g).to(device).requires_grad_()
    windows = make_windows((2, 3, 4), shape, g).to(device).requires_grad_()
    boxcar = Boxcar(0.2, "square", 0.3, 0.05)
    exact, crops = (
        AttentionCrop(shape.out, window_grad=name, boxcar=boxcar, **options)(images, windows)
        for name in ("exact", "boxcar")
    )
    assert torch.equal(crops, exact)
    grad_output = torch.randn(crops.shape, generator=g).double().to(device)
    of_images, of_windows = torch.autograd.grad(crops, (images, windows), grad_output)
    assert torch.equal(of_images, torch.autograd.grad(exact, images, grad_output)[0])
    surrogate = reference.boxcar_window_grad(grad_output, windows.detach(), boxcar.scaled_to(20, 30))
    torch.testing.assert_close(of_windows, surrogate, rtol=1e-11, atol=1e-14)


def test_kernels_answer(device: str) -> None:
    """Not the reference, with which the tests compare: there are no kernels of its dense tables."""
    for options in FILTERS:
        images = torch.rand(1, 1, 4, 5, device=device, requires_grad=True)
        windows = torch.tensor([[2.0, 2.0, 1.5]], device=device, requires_grad=True)
        crops = attention_crop(images, windows, 3, boundary="window", **options)
        assert type(crops.grad_fn).__name__ == "_CropBackward", options


@pytest.mark.parametrize("boundary", ["zeros", "border", "clip"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_what_is_not_reduced_takes_the_kernels_of_two_entries(boundary: str, dtype: torch.dtype) -> None:
    """To the bit the plain interpolation, in a batch with windows that are reduced too."""
    images = make_images((1, 3, 40, 50), dtype, generator(0))
    windows = torch.tensor([[[20.2, 17.1, 9.4], [25.0, 20.0, 19.5], [8.31, 7.13, 4.02]]])
    results = []
    for antialias in (False, True):
        leaf = windows.clone().requires_grad_()
        crops = attention_crop(
            images, leaf, (20, 23), dtype=torch.float32, boundary=boundary, antialias=antialias
        )
        (grad,) = torch.autograd.grad(crops.square().sum(), leaf)
        results.append((crops.detach(), grad))
    for plain, antialiased in zip(*results, strict=True):
        assert torch.equal(plain[:, ::2], antialiased[:, ::2])
        assert not torch.equal(plain[:, 1], antialiased[:, 1])


LONG_RUNS = [{"antialias": True}, {"interpolation": "area", "mean": [0.4, 0.1], "std": [0.3, 2.0]}]


@pytest.mark.parametrize("options", LONG_RUNS, ids=["antialias", "area"])
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_one_axis_reduced_by_hundreds(device: str, layout: str, options: dict[str, Any]) -> None:
    """Rows are added up in groups, and copied in groups where they lie far apart or at the tensor's end."""
    g = generator(layout, "long runs")
    images = make_images((2, 2, 1500, 30), torch.float64, g).to(device)
    windows = torch.tensor([[15.1, 750.0, 14.3, 750.0], [14.2, 751.0, 13.0, 640.0]], dtype=torch.float64)
    grad_output = torch.randn(2, 2, 5, 30, generator=g, dtype=torch.float64).to(device)
    results = []
    for crop, pixels in ((attention_crop, LAYOUTS[layout](images)), (reference.attention_crop, images)):
        leaves = (pixels.detach().requires_grad_(), windows.to(device).requires_grad_())
        crops = crop(*leaves, (5, 30), **options)
        results.append((crops, *torch.autograd.grad(crops, leaves, grad_output)))
    for ours, theirs in zip(*results, strict=True):
        assert relative_error(ours, theirs) <= 1e-10
