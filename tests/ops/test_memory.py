# SPDX-License-Identifier: BSD-3-Clause
"""What is read: the window's pixels and nothing else, however large or scattered the memory."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from samples import (
    EVERY_BOUNDARY,
    LAYOUTS,
    MODES,
    SHAPES,
    Shape,
    each_filter,
    generator,
    make_images,
    make_windows,
    relative_error,
    window_dtype,
    window_sizes,
)
from torch import Tensor

from racnn_ops import attention_crop

NAN = float("nan")
# Layouts that lie in a larger buffer full of NaN.
SURROUNDED = ["sliced", "channels_last_sliced", "some_channels_last", "every_second"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("layout", SURROUNDED)
def test_nothing_is_read_beside_the_image(device: str, layout: str, dtype: torch.dtype) -> None:
    g = generator(layout, dtype)
    for form, shape in enumerate(SHAPES):
        images = LAYOUTS[layout](make_images(shape.images, dtype, g).to(device)).requires_grad_()
        windows = make_windows(window_sizes(form, shape.batch), shape, g).to(device, window_dtype(dtype))
        windows.requires_grad_()
        boundary, mask = MODES[form % len(MODES)]
        crops = attention_crop(images, windows, shape.out, boundary=boundary, mask_steepness=mask)
        assert crops.isfinite().all(), (shape, boundary, mask)
        grad_output = LAYOUTS[layout](torch.randn(crops.shape, generator=g).to(device, dtype))
        for grad in torch.autograd.grad(crops, (images, windows), grad_output):
            assert grad.isfinite().all(), (shape, boundary, mask)


@pytest.mark.every_instruction_set
@pytest.mark.parametrize("layout", SURROUNDED)
@each_filter
def test_nothing_is_read_beside_the_image_by_any_filter(
    device: str, options: dict[str, Any], layout: str
) -> None:
    for form, shape in enumerate(SHAPES):
        g = generator(layout, form)
        dtype = (torch.float32, torch.bfloat16, torch.float64)[form % 3]
        images = LAYOUTS[layout](make_images(shape.images, dtype, g).to(device)).requires_grad_()
        windows = make_windows(window_sizes(form, shape.batch), shape, g).to(device, window_dtype(dtype))
        windows.requires_grad_()
        boundary = EVERY_BOUNDARY[form // 2 % 4]
        crops = attention_crop(images, windows, shape.out, boundary=boundary, **options)
        assert crops.isfinite().all(), (shape, boundary)
        grad_output = LAYOUTS[layout](torch.randn(crops.shape, generator=g).to(device, dtype))
        for grad in torch.autograd.grad(crops, (images, windows), grad_output):
            assert grad.isfinite().all(), (shape, boundary)


@pytest.mark.parametrize("value", [NAN, float("inf")])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("channels", [3, 20])
def test_pixels_out_of_reach_do_not_leak(device: str, channels: int, layout: str, value: float) -> None:
    images = torch.rand(1, channels, 40, 60, device=device)
    images[:, :, :10] = images[:, :, 30:] = value
    images[:, :, :, :13] = images[:, :, :, 44:] = value
    images = LAYOUTS[layout](images)
    # The last samples of the window lie between the last two good pixels.
    windows = torch.tensor([[28.5, 20.0, 15.4, 9.9]], device=device, requires_grad=True)
    for out in ((3, 4), (9, 30), (37, 61)):
        for boundary, mask in MODES:
            crops = attention_crop(images, windows, out, boundary=boundary, mask_steepness=mask)
            samples_x = 28.5 + 15.4 * offsets(out[1], device)
            samples_y = 20.0 + 9.9 * offsets(out[0], device)
            good_x = (samples_x >= 13.5) & (samples_x < 43.5)
            good_y = (samples_y >= 10.5) & (samples_y < 29.5)
            good = good_y[:, None] & good_x
            assert good.any()
            assert crops[..., good].isfinite().all()
            assert not crops[..., ~good].isfinite().any()


def offsets(out: int, device: str) -> Tensor:
    return (2 * torch.arange(out, dtype=torch.float64, device=device) + 1 - out) / out


def test_zeros_outside_are_no_products(device: str) -> None:
    """Under "zeros" what lies outside is nothing, not 0 times the edge pixel, NaN for an infinite one."""
    images = torch.full((1, 1, 3, 3), float("inf"), device=device)
    crops = attention_crop(images, torch.tensor([[-20.0, 1.5, 4.0]], device=device), 5)
    assert torch.equal(crops, torch.zeros_like(crops))


def test_more_than_2_to_the_31_images_elements(device: str) -> None:
    """As a batch: 2^19 images of 2^13 pixels, one in memory."""
    images = torch.rand(1, 1, 64, 128, device=device).expand(2**19, 1, 64, 128)
    windows = torch.tensor([[64.0, 32.0, 5.0]], device=device).expand(2**19, 3)
    crops = attention_crop(images, windows, 1)
    assert torch.equal(crops, attention_crop(images[:1], windows[:1], 1).expand_as(crops))


def test_sides_of_2_to_the_17(device: str) -> None:
    """As one image: 2^34 pixels, one in memory. The window hangs over the far corner."""
    images = torch.ones(1, 1, 1, 1, device=device).expand(1, 2, 2**17, 2**17)
    windows = torch.tensor([[2.0**17, 2.0**17, 4.0]], device=device, requires_grad=True)
    crops = attention_crop(images, windows, 8)
    inside = torch.ones(8, device=device)
    inside[4:] = 0
    assert torch.equal(crops[0, 0], inside[:, None] * inside)
    crops.sum().backward()
    assert windows.grad.isfinite().all()


@each_filter
def test_filters_on_sides_of_2_to_the_17(device: str, options: dict[str, Any]) -> None:
    """The time is that of the window's pixels. Of a window over the far corner a quarter is inside."""
    images = torch.ones(1, 1, 1, 1, device=device).expand(1, 2, 2**17, 2**17)
    windows = torch.tensor([[2.0**17, 2.0**17, 40.0]], device=device, requires_grad=True)
    for boundary in EVERY_BOUNDARY if device == "cpu" else ():  # the reference makes tables of all pixels
        crops = attention_crop(images, windows, 8, boundary=boundary, **options)
        assert (crops[..., :1, :1] - 1).abs().max() < 1e-4
        assert (crops[..., 7:, 7:] - float(boundary != "zeros")).abs().max() < 1e-4
        (of_windows,) = torch.autograd.grad(crops.sum(), windows)
        assert of_windows.isfinite().all()


def lazily_allocated(sizes: tuple[int, ...], strides: tuple[int, ...], dtype: type[np.generic]) -> Tensor:
    """Real memory of any extent, of which the system provides only the pages that are written."""
    extent = 1 + sum((n - 1) * stride for n, stride in zip(sizes, strides, strict=True))
    return torch.from_numpy(np.zeros(extent, dtype)).as_strided(sizes, strides)


@pytest.mark.parametrize(
    "strides",
    [(2**31 + 3, 150, 12, 1), (1, 2, 2**28 + 1, 6), (5, 2**31 + 11, 60, 10), (1, 2, 5, 2**28)],
    ids=["image", "row", "channel", "pixel"],
)
def test_offsets_beyond_2_to_the_31(strides: tuple[int, ...]) -> None:
    sizes = (2, 2, 12, 12)
    images = lazily_allocated(sizes, strides, np.uint8)
    images.copy_(torch.randint(0, 256, sizes, generator=generator(strides), dtype=torch.uint8))
    windows = torch.tensor([[6.2, 5.9, 6.3], [7.0, 4.0, 3.0]], requires_grad=True)
    results = []
    for same in (images, images.contiguous()):
        crops = attention_crop(same, windows, 9, dtype=torch.float32)
        results.append((crops, *torch.autograd.grad(crops.sum(), windows)))
    assert all(map(torch.equal, *results))


FAR_APART = """
import resource
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
import numpy as np, torch
from racnn_ops import attention_crop
numbers = np.zeros(15 * 2**28 + 16384, np.uint8)
images = torch.from_numpy(numbers).as_strided((1, 1, 16384, 16), (1, 1, 1, 2**28))
windows = torch.tensor([[8.0, 8192.0, 8.0, 8192.0]], requires_grad=True)
for size in ((2048, 2), (8192, 16)):  # few pixels are read where they lie, many are copied
    crops = attention_crop(images, windows, size, dtype=torch.float32)
    torch.autograd.grad(crops.sum(), windows)
"""


def test_what_lies_between_far_apart_pixels_costs_nothing() -> None:
    """16384 rows of pixels 2^28 bytes apart: work for each cache line between them would not end."""
    assert subprocess.run([sys.executable, "-c", FAR_APART], check=False).returncode == 0


@pytest.mark.parametrize(
    "shared", [(3, 5, 1, 40), (3, 1, 30, 40), (1, 5, 30, 40)], ids=["rows", "channels", "batch"]
)
def test_far_apart_pixels_of_expanded_images(shared: tuple[int, ...]) -> None:
    """One row, channel or image for all."""
    storage = torch.rand(*shared, generator=generator(shared)).permute(3, 2, 1, 0).contiguous()
    images = torch.cat([storage] * 40, 3).permute(3, 2, 1, 0)[: shared[0]].expand(3, 5, 30, 40)
    assert images.stride(3) * images.element_size() > 64
    windows = torch.tensor(
        [[[20.3, 18.2, 9.0, 7.5], [22.0, 19.0, 12.0, 6.0]]] * 3
    )  # the first rows are not read
    grad_output = (
        torch.rand(1, 1, 1, 12, 40).transpose(-1, -2).contiguous().transpose(-1, -2).expand(3, 2, 5, 12, 40)
    )
    for boundary, mask in MODES:
        results = []
        for change in (lambda t: t, Tensor.contiguous):
            inputs = change(images).requires_grad_(), windows.clone().requires_grad_()
            crops = attention_crop(*inputs, (12, 40), boundary=boundary, mask_steepness=mask)
            results.append((crops, *torch.autograd.grad(crops, inputs, change(grad_output))))
        for far, near in zip(*results, strict=True):
            torch.testing.assert_close(far, near, rtol=0, atol=0)


@pytest.mark.parametrize("layout", ["transposed", "batch_innermost", "some_channels_last", "every_second"])
@each_filter
def test_strided_pixels_give_every_filter_what_contiguous_ones_give(
    options: dict[str, Any], layout: str
) -> None:
    """The same bits where pixels are so far apart that they are copied."""
    for channels, dtype in ((3, torch.float32), (20, torch.float32), (3, torch.bfloat16)):
        g = generator(layout, channels, dtype)
        images = make_images((3, channels, 50, 60), dtype, g)
        windows = make_windows((3, 2, 4), Shape(3, channels, 50, 60, 1, 1), g).float()
        for i, out in enumerate(((40, 36), (3, 5))):
            grad_output = torch.randn((3, 2, channels, *out), generator=g).to(dtype)
            results = []
            for change in (LAYOUTS[layout], Tensor.contiguous):
                inputs = change(images).requires_grad_(), windows.clone().requires_grad_()
                crops = attention_crop(*inputs, out, boundary=EVERY_BOUNDARY[i + channels % 3], **options)
                results.append((crops, *torch.autograd.grad(crops, inputs, change(grad_output))))
            for far, near in zip(*results, strict=True):
                if layout == "transposed":
                    assert torch.equal(far, near), (channels, dtype, out)
                error = relative_error(far, near.double())
                assert error <= (0.01 if dtype == torch.bfloat16 else 2e-6), (channels, dtype, out)


def test_far_apart_pixels_are_copied_once_where_windows_read_most_of_them() -> None:
    """For both directions, as by a user's contiguous(); where little is read the image stays as it is."""
    images = LAYOUTS["transposed"](torch.rand(2, 3, 40, 50))
    for half, copied in ((20.0, True), (5.0, False)):
        windows = torch.tensor([[25.0, 20.0, half]] * 2, requires_grad=True)
        saved, *_ = attention_crop(images, windows, 16).grad_fn.saved_tensors
        assert saved.is_contiguous() == copied
        assert torch.equal(saved, images)


@pytest.mark.parametrize("window_grad", ["exact", "boxcar"])
@pytest.mark.parametrize("layout", ["transposed", "batch_innermost", "some_channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_far_apart_pixels_give_the_bits_of_contiguous_ones(
    dtype: torch.dtype, layout: str, window_grad: str
) -> None:
    """Whether they are copied first (large outputs) or read where they lie, whatever part is read."""
    g = generator(dtype, layout)
    images = make_images((3, 40, 90, 110), dtype, g)
    windows = make_windows((3, 2, 4), Shape(3, 40, 90, 110, 1, 1), g).to(window_dtype(dtype))
    windows[2, 0, 0] = NAN
    for out, (boundary, mask) in itertools.product(((70, 66), (3, 5)), MODES):
        if window_grad == "boxcar" and (boundary, mask) != MODES[0]:
            continue
        grad_output = torch.randn((3, 2, 40, *out), generator=g).to(dtype)
        results = []
        for change in (LAYOUTS[layout], Tensor.contiguous):
            inputs = change(images).requires_grad_(), windows.clone().requires_grad_()
            options = {"boundary": boundary, "mask_steepness": mask, "window_grad": window_grad}
            crops = attention_crop(*inputs, out, **options)
            results.append((crops, *torch.autograd.grad(crops, inputs, change(grad_output))))
        for far, near in zip(*results, strict=True):
            torch.testing.assert_close(far, near, rtol=0, atol=0, equal_nan=True)


def test_incoming_gradient_beyond_2_to_the_31() -> None:
    sizes = (2, 2, 6, 6)
    grad_output = lazily_allocated(sizes, (2**30 + 5, 2**29 + 1, 9, 1), np.float32)
    grad_output.copy_(torch.randn(sizes, generator=generator("gradient")))
    images = torch.randn(2, 2, 9, 8, requires_grad=True)
    windows = torch.tensor([[4.2, 4.0, 3.3], [3.0, 4.0, 5.0]], requires_grad=True)
    for window_grad in ("exact", "boxcar"):
        results = []
        for grad in (grad_output, grad_output.contiguous()):
            crops = attention_crop(images, windows, 6, window_grad=window_grad)
            results.append(torch.autograd.grad(crops, (images, windows), grad))
        assert all(map(torch.equal, *results))
