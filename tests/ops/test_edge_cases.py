# SPDX-License-Identifier: BSD-3-Clause
"""Empty sizes, degenerate images, special numbers in windows and images: all defined."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import (
    BOUNDARIES,
    LAYOUTS,
    MASKS,
    MODES,
    TOLERANCE,
    Shape,
    expected,
    generator,
    make_images,
    make_windows,
    relative_error,
)
from torch import Tensor

from racnn_ops import attention_crop, reference

NAN, INF = float("nan"), float("inf")
each_implementation = pytest.mark.parametrize(
    "crop", [attention_crop, reference.attention_crop], ids=["kernels", "reference"]
)


@each_implementation
@pytest.mark.parametrize("window_grad", ["exact", "boxcar"])
@pytest.mark.parametrize(
    ("image_shape", "window_shape"),
    [((0, 3, 5, 6), (0, 3)), ((0, 3, 5, 6), (0, 2, 4)), ((2, 3, 5, 6), (2, 0, 3)), ((2, 0, 5, 6), (2, 2, 3))],
    ids=["B=0", "B=0 with K", "K=0", "C=0"],
)
def test_empty(device: str, image_shape, window_shape, window_grad: str, crop) -> None:
    for layout in ("contiguous", "channels_last"):
        images = LAYOUTS[layout](torch.ones(image_shape, device=device)).requires_grad_()
        windows = torch.ones(window_shape, device=device, requires_grad=True)
        crops = crop(images, windows, (4, 7), window_grad=window_grad)
        assert crops.shape == (*window_shape[:-1], image_shape[1], 4, 7)
        crops.sum().backward()
        assert torch.equal(images.grad, torch.zeros(image_shape, device=device))
        assert torch.equal(windows.grad, torch.zeros(window_shape, device=device))


def test_no_channels_and_a_window_that_is_not_finite(device: str) -> None:
    windows = torch.tensor([[1.0, 1.0, 1.0], [NAN, 1.0, 1.0]], device=device, requires_grad=True)
    attention_crop(torch.ones(2, 0, 5, 6, device=device), windows, 3).sum().backward()
    assert torch.equal(windows.grad[0], torch.zeros(3, device=device))
    assert windows.grad[1].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
def test_not_finite_window(device: str, layout: str, dtype: torch.dtype) -> None:
    """That crop is NaN (0 in uint8), its own gradient NaN; nothing else notices."""
    g = generator(layout, dtype)
    shape = Shape(3, 3, 12, 13, 5, 7)
    images = LAYOUTS[layout](make_images(shape.images, dtype, g).to(device))
    windows = make_windows((3, 2, 4), shape, g).to(
        device, torch.float64 if dtype == torch.float64 else torch.float32
    )
    grad_output = torch.randn(3, 2, 3, 5, 7, generator=g).to(device)
    for (boundary, mask), position in zip(MODES * 2, itertools.cycle(range(4)), strict=False):
        for bad in (NAN, INF, -INF):
            broken = windows.clone()
            broken[1, 1, position] = bad
            without = torch.ones(3, 2, dtype=torch.bool, device=device)
            without[1, 1] = False
            crops, of_images, of_windows = crop_and_gradients(images, broken, grad_output, boundary, mask)
            exact, _, exact_windows = crop_and_gradients(images, windows, grad_output, boundary, mask)
            assert torch.equal(crops[without], exact[without])
            if dtype == torch.uint8:
                assert torch.equal(crops[1, 1], torch.zeros_like(crops[1, 1]))
                continue
            assert crops[1, 1].isnan().all()
            assert of_windows[1, 1].isnan().all()
            assert torch.equal(of_windows[without], exact_windows[without])
            # For the images' gradient the window is not there: with no incoming gradient it is not either.
            _, without_it, _ = crop_and_gradients(
                images, windows, grad_output * without[..., None, None, None], boundary, mask
            )
            assert torch.equal(of_images, without_it)


def crop_and_gradients(
    images: Tensor, windows: Tensor, grad_output: Tensor, boundary: str, mask_steepness: float | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    images, windows = images.detach(), windows.detach().requires_grad_()
    if images.dtype != torch.uint8:
        images.requires_grad_()
    size = (grad_output.shape[-2], grad_output.shape[-1])
    crops = attention_crop(images, windows, size, boundary=boundary, mask_steepness=mask_steepness)
    if not crops.requires_grad:
        return crops, None, None
    return crops, *torch.autograd.grad(crops, (images, windows), grad_output.to(crops.dtype))


@each_implementation
@pytest.mark.parametrize("window_grad", ["exact", "boxcar"])
def test_gradient_of_a_window_that_is_not_finite(device: str, window_grad: str, crop) -> None:
    images = torch.randn(2, 1, 5, 6, device=device, requires_grad=True)
    windows = torch.tensor([[3.0, 2.0, 1.9], [3.0, 2.0, INF]], device=device, requires_grad=True)
    crops = crop(images, windows, 4, window_grad=window_grad)
    assert crops[1].isnan().all()
    crops.nansum().backward()
    assert torch.equal(images.grad[1], torch.zeros_like(images.grad[1]))
    assert images.grad[0].isfinite().all()
    assert windows.grad[0].isfinite().all()
    assert windows.grad[1].isnan().all()


@each_implementation
def test_wholly_outside(device: str, crop) -> None:
    images = torch.arange(1.0, 13.0, device=device).view(1, 1, 3, 4)
    windows = torch.tensor(
        [[[-9.0, -9.0, 2.0], [40.0, 1.5, 2.0], [2.0, 50.0, 3.0], [-1e9, 1e9, 2.0]]], device=device
    )
    windows.requires_grad_()
    crops = crop(images, windows, 5)
    assert torch.equal(crops, torch.zeros_like(crops))
    crops.sum().backward()
    assert torch.equal(windows.grad, torch.zeros_like(windows))
    for boundary in ("border", "clip"):
        crops = crop(images, windows, 5, boundary=boundary)
        assert torch.equal(crops[0, 0], torch.ones_like(crops[0, 0]))
        assert torch.equal(crops[0, 3], torch.full_like(crops[0, 3], 9.0))
        assert torch.equal(crops[0, 1, 0, 2], torch.full_like(crops[0, 1, 0, 2], 8.0))
        assert torch.equal(crops[0, 2, 0], crops[0, 2, 0, :1].expand(5, 5))


@pytest.mark.parametrize("sizes", [(1, 1), (1, 33), (33, 1)])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_one_pixel_wide_or_high(device: str, boundary: str, sizes: tuple[int, int]) -> None:
    g = generator(boundary, sizes)
    for out, layout in itertools.product(((1, 1), (5, 4), (1, 40), (40, 1)), ("contiguous", "channels_last")):
        shape = Shape(2, 3, *sizes, *out)
        images = LAYOUTS[layout](make_images(shape.images, torch.float64, g).to(device))
        windows = make_windows((2, 3, 4), shape, g).to(device)
        for mask in MASKS:
            options = {"boundary": boundary, "mask_steepness": mask}
            crops = attention_crop(images, windows, out, **options)
            assert (
                relative_error(crops, expected(images, windows, out, **options)) <= TOLERANCE[torch.float64]
            )


@pytest.mark.parametrize("half", [1e30, 3e38, 1e-30, 1e-45, 2.0**31, 2.0**33])
def test_huge_and_tiny_windows(device: str, half: float) -> None:
    images = torch.randn(1, 2, 7, 8, device=device)
    for centre, (boundary, mask) in itertools.product((3.3, -1e30, 3e38, 2.0**31), MODES):
        windows = torch.tensor([[centre, 3.6, half]], device=device, requires_grad=True)
        leaf = images.clone().requires_grad_()
        crops = attention_crop(leaf, windows, (5, 6), boundary=boundary, mask_steepness=mask)
        exact = expected(images, windows.detach(), (5, 6), boundary=boundary, mask_steepness=mask)
        assert relative_error(crops, exact) <= TOLERANCE[torch.float32]
        crops.sum().backward()
        assert leaf.grad.isfinite().all()
        assert windows.grad.isfinite().all()


SPECIAL = [
    0.0,
    -0.0,
    0.5,
    1.0,
    3.5,
    7.0,
    -1.0,
    1e-45,
    1e-30,
    1e30,
    -1e30,
    3.4e38,
    2.0**24,
    2.0**31,
    NAN,
    INF,
    -INF,
]


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    windows=st.lists(
        st.lists(st.sampled_from(SPECIAL) | st.floats(width=32), min_size=4, max_size=4),
        min_size=1,
        max_size=3,
    ),
    sizes=st.tuples(*[st.integers(1, 9)] * 2),
    out=st.tuples(*[st.integers(1, 40)] * 2),
    mode=st.sampled_from(MODES),
    layout=st.sampled_from(["contiguous", "channels_last", "sliced"]),
    channels=st.sampled_from([1, 3, 17]),
)
def test_any_number_in_a_window(device: str, windows, sizes, out, mode, layout, channels) -> None:
    """A crop is NaN if and only if its window is not finite; otherwise it lies within the image's values."""
    images = LAYOUTS[layout](torch.rand(1, channels, *sizes, generator=generator(sizes)).to(device) + 1)
    tensor = torch.tensor([windows], device=device)
    boundary, mask = mode
    ones = torch.ones(1, len(windows), channels, *out, device=device)
    crops, of_images, of_windows = crop_and_gradients(images, tensor, ones, boundary, mask)
    for k, window in enumerate(windows):
        if all(map(math.isfinite, window)):
            assert crops[0, k].min() >= -1e-5
            assert crops[0, k].max() <= 2 + 1e-5
            assert of_windows[0, k].isfinite().all()
            if boundary != "zeros" and mask is None:
                assert crops[0, k].min() >= 1 - 1e-5
        else:
            assert crops[0, k].isnan().all()
            assert of_windows[0, k].isnan().all()
    assert of_images.isfinite().all()
    assert of_images.min() >= -1e-5


@each_implementation
@pytest.mark.parametrize("size", [2**24 + extra for extra in range(1, 6)])
def test_sides_that_float32_cannot_count(device: str, size: int, crop) -> None:
    """Beyond 2^24 float32 rounds `size` and `size - 1`: no neighbour of the last pixel is read for it."""
    images = torch.zeros(1, 1, 2, size, dtype=torch.uint8, device=device)
    images[..., 0, -3:] = torch.tensor([3, 2, 1], device=device)
    images[..., 1, :4] = images[..., 0, :4] = 99
    far = torch.tensor([[[2.0**25, 0.5, 60, 0], [float(size + 2), 0.5, 0, 0]]], device=device)
    for boundary, value in (("zeros", 0), ("border", 1), ("clip", 1)):
        windows = far.clone().requires_grad_()
        crops = crop(images, windows, (1, 8), boundary=boundary, dtype=torch.float32)
        assert torch.equal(crops, torch.full_like(crops, value))
        (of_windows,) = torch.autograd.grad(crops.sum(), windows)
        assert torch.equal(of_windows[..., ::2], torch.zeros_like(of_windows[..., ::2]))  # tx, tw


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("size", [2**24 + 3, 2**24 + 4])
def test_image_gradient_on_a_side_that_float32_cannot_count(device: str, size: int, boundary: str) -> None:
    """It is the forward pass the other way round, and no output's weights are lost or counted twice."""
    windows = torch.tensor([[[2.0**25, 0.5, 60, 0], [2.0**24 - 2, 0.5, 3.5, 0]]], device=device)
    images = torch.zeros(1, 1, 1, size, device=device, requires_grad=True)
    crops = attention_crop(images, windows, (1, 8), boundary=boundary)
    grad_output = torch.arange(1.0, 17.0, device=device).view_as(crops)
    (of_images,) = torch.autograd.grad(crops, images, grad_output)
    image = torch.arange(size, device=device).remainder(7).to(torch.float32).view_as(images)
    ours = attention_crop(image, windows, (1, 8), boundary=boundary)
    assert (ours * grad_output).sum() == (of_images * image).sum()
    assert of_images.sum() == (grad_output[:, 1] if boundary == "zeros" else grad_output).sum()
