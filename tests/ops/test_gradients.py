# SPDX-License-Identifier: BSD-3-Clause
"""Both gradients are those of the specification, whatever the layout of images and incoming gradient."""

from __future__ import annotations

import pytest
import torch
from samples import (
    BOUNDARIES,
    FLOAT_PAIRS,
    LAYOUTS,
    MASKS,
    MODES,
    SHAPES,
    TOLERANCE,
    UINT8_PAIRS,
    Shape,
    expected,
    generator,
    make_images,
    make_smooth_windows,
    relative_error,
    window_dtype,
    window_sizes,
)
from torch import Tensor

from racnn_ops import attention_crop, reference

# A window's gradient is accumulated and returned in float32 whatever the images' dtype. Its terms cancel: the
# sum of 10^4 of either sign is about 10^2 of them, each with the error of a position.
WINDOW_TOLERANCE = {torch.float32: 5e-4, torch.float64: 1e-11}


def gradients(crops: Tensor, grad_output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(crops, inputs, grad_output)


@pytest.mark.every_instruction_set
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("image_dtype", "dtype"), FLOAT_PAIRS + [pair for pair in UINT8_PAIRS if pair[1] != torch.uint8], ids=str
)
def test_agree_with_reference(device: str, image_dtype: torch.dtype, dtype: torch.dtype, layout: str) -> None:
    g = generator(image_dtype, dtype, layout)
    first = int(torch.randint(0, 100, (), generator=g))
    for i in (first, first + 7):
        boundary, mask = MODES[i % len(MODES)]
        shape = SHAPES[i % len(SHAPES)]
        grad_layout = LAYOUTS[list(LAYOUTS)[i % len(LAYOUTS)]]
        options = {"boundary": boundary, "mask_steepness": mask}
        if i % 3 == 0:
            options |= {"mean": [0.3], "std": torch.linspace(0.5, 2, shape.channels).tolist()}
        images = LAYOUTS[layout](make_images(shape.images, image_dtype, g).to(device))
        windows = make_smooth_windows(window_sizes(i, shape.batch), shape, boundary, g)
        windows = windows.to(device, window_dtype(image_dtype)).requires_grad_()
        exact_images, exact_windows = images.double(), windows.detach().double().requires_grad_()
        wanted, exact_wanted = [windows], [exact_windows]
        if image_dtype != torch.uint8:
            wanted.append(images.requires_grad_())
            exact_wanted.append(exact_images.requires_grad_())
        elif "mean" in options:
            exact_images = exact_images / 255
        crops = attention_crop(images, windows, shape.out, dtype=dtype, **options)
        exact = expected(exact_images, exact_windows, shape.out, **options)
        grad_output = grad_layout(torch.randn(crops.shape, generator=g).to(device, dtype))
        ours = gradients(crops, grad_output, *wanted)
        theirs = gradients(exact, grad_output.double(), *exact_wanted)
        assert relative_error(ours[0], theirs[0]) <= WINDOW_TOLERANCE[windows.dtype], (shape, options)
        if len(ours) == 2:
            assert ours[1].dtype == image_dtype
            assert relative_error(ours[1], theirs[1]) <= TOLERANCE[image_dtype], (shape, options)


@pytest.mark.every_instruction_set
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced", "batch_innermost"])
@pytest.mark.parametrize("mask_steepness", MASKS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_gradcheck(device: str, boundary: str, mask_steepness: float | None, layout: str) -> None:
    g = generator(boundary, mask_steepness, layout)
    form = int(torch.randint(0, 4, (), generator=g))
    for shape in (Shape(1, 2, 4, 5, 3, 4), Shape(2, 1, 1, 5, 2, 3)):
        images = LAYOUTS[layout](make_images(shape.images, torch.float64, g).to(device)).requires_grad_()
        windows = make_smooth_windows(window_sizes(form, shape.batch), shape, boundary, g).to(device)

        def crop(images: Tensor, windows: Tensor, shape: Shape = shape) -> Tensor:
            return attention_crop(
                images,
                windows,
                shape.out,
                boundary=boundary,
                mask_steepness=mask_steepness,
                mean=0.2,
                std=1.7,
            )

        assert torch.autograd.gradcheck(crop, (images, windows.requires_grad_()), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("grad_layout", LAYOUTS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_incoming_gradient_may_have_any_stride(device: str, layout: str, grad_layout: str) -> None:
    g = generator(layout, grad_layout)
    for shape in SHAPES:
        images = LAYOUTS[layout](make_images(shape.images, torch.float32, g).to(device)).requires_grad_()
        windows = make_smooth_windows((shape.batch, 3, 3), shape, "zeros", g).float().to(device)
        crops = attention_crop(images, windows.requires_grad_(), shape.out)
        grad_output = LAYOUTS[grad_layout](torch.randn(crops.shape, generator=g).to(device))
        strided = gradients(crops, grad_output, images, windows)
        crops = attention_crop(images, windows, shape.out)
        dense = gradients(crops, grad_output.contiguous(), images, windows)
        for one, other in zip(strided, dense, strict=True):
            assert torch.equal(one, other)


def test_gradient_of_sum(device: str) -> None:
    images = torch.randn(2, 3, 9, 8, device=device, requires_grad=True)
    windows = torch.tensor([[4.0, 4.0, 2.9], [3.0, 5.0, 3.3]], device=device, requires_grad=True)
    attention_crop(images, windows, 6).sum().backward()
    with_ones = gradients(
        attention_crop(images, windows, 6), torch.ones(2, 3, 6, 6, device=device), images, windows
    )
    assert torch.equal(images.grad, with_ones[0])
    assert torch.equal(windows.grad, with_ones[1])


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_gradients_of_several_windows_add_up(device: str, boundary: str, layout: str) -> None:
    g = generator(boundary, layout)
    shape = SHAPES[0]
    images = LAYOUTS[layout](make_images(shape.images, torch.float64, g).to(device)).requires_grad_()
    windows = make_smooth_windows((2, 5, 4), shape, boundary, g).to(device).requires_grad_()
    grad_output = torch.randn((2, 5, shape.channels, *shape.out), generator=g).double().to(device)
    crops = attention_crop(images, windows, shape.out, boundary=boundary)
    grad_images, grad_windows = gradients(crops, grad_output, images, windows)
    total = torch.zeros_like(images)
    for k in range(5):
        one = windows[:, k].detach().requires_grad_()
        crop = attention_crop(images, one, shape.out, boundary=boundary)
        assert torch.equal(crop, crops[:, k])
        of_images, of_window = gradients(crop, grad_output[:, k], images, one)
        assert torch.equal(of_window, grad_windows[:, k])
        total += of_images
    assert relative_error(grad_images, total) <= TOLERANCE[torch.float64]


@pytest.mark.every_instruction_set
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_large_image_gradient(device: str, dtype: torch.dtype) -> None:
    """Beyond 32 MiB the CPU writes past the caches; 1101 numbers a row begin at every alignment."""
    g = generator("large", dtype)
    shape = Shape(2, 4, 1101, 1101, 40, 50)
    images = make_images(shape.images, dtype, g).to(device).requires_grad_()
    windows = make_smooth_windows((2, 3), shape, "zeros", g).to(device, dtype)
    grad_output = make_images((2, 4, *shape.out), dtype, g).to(device)
    (actual,) = gradients(attention_crop(images, windows, shape.out), grad_output, images)
    exact_images = images.detach().double().requires_grad_()
    crops = reference.attention_crop(exact_images, windows.double(), shape.out)
    (exact,) = gradients(crops, grad_output.double(), exact_images)
    assert relative_error(actual, exact) < TOLERANCE[dtype]
