# SPDX-License-Identifier: BSD-3-Clause
"""Memory formats of results: they follow the images, and the fake kernels foretell them."""

from __future__ import annotations

import pytest
import torch
from samples import LAYOUTS
from torch._subclasses.fake_tensor import FakeTensorMode

from racnn_ops import attention_crop, reference

PAIRS = [(torch.float32, torch.float32), (torch.float16, torch.bfloat16), (torch.uint8, torch.float64)]


@pytest.mark.parametrize("shape", [(2, 3, 6, 7), (1, 1, 5, 1), (2, 4, 1, 1), (0, 3, 4, 5), (2, 0, 4, 5)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fake_strides_are_the_kernels(device: str, layout: str, shape: tuple[int, ...]) -> None:
    for (image_dtype, dtype), window_shape in zip(
        PAIRS, ((shape[0], 3), (shape[0], 2, 4), (shape[0], 0, 3)), strict=True
    ):
        images = LAYOUTS[layout](torch.zeros(shape, device=device)).to(image_dtype)
        windows = torch.ones(window_shape, device=device)
        crops = attention_crop(images, windows, (4, 3), dtype=dtype)
        with FakeTensorMode() as mode:
            fake = attention_crop(mode.from_tensor(images), mode.from_tensor(windows), (4, 3), dtype=dtype)
        assert (fake.shape, fake.stride(), fake.dtype) == (crops.shape, crops.stride(), crops.dtype)
        assert fake.device == crops.device


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fake_gradients_have_the_strides_of_the_kernels(device: str, layout: str) -> None:
    operators = torch.ops.racnn_ops
    for windows in (torch.ones(2, 3, device=device), torch.ones(2, 3, 4, device=device)):
        images = LAYOUTS[layout](torch.zeros(2, 3, 6, 7, device=device))
        grad = attention_crop(images, windows, (4, 5))
        for channels_last in (False, True):
            image_grad = [6, 7, "zeros", None, [], channels_last, torch.float32]
            for call in (
                lambda g, i, w, options=image_grad: operators._crop_image_grad(g, w, *options),
                lambda g, i, w: operators._crop_window_grad(g, i, w, "zeros", None, [], []),
                lambda g, i, w: operators._crop_boxcar_grad(g, w, 0.05, "abs", 1e-7, 0.005),
            ):
                result = call(grad, images, windows)
                with FakeTensorMode() as mode:
                    fake = call(*map(mode.from_tensor, (grad, images, windows)))
                assert (fake.shape, fake.stride(), fake.dtype) == (
                    result.shape,
                    result.stride(),
                    result.dtype,
                )


@pytest.mark.parametrize("crop", [attention_crop, reference.attention_crop])
def test_memory_format_follows_images(device: str, crop) -> None:
    windows = torch.full((2, 3), 4.0, device=device)
    images = torch.randn(2, 3, 8, 9, device=device)
    contiguous = crop(images, windows, 5)
    assert contiguous.is_contiguous()
    last = images.to(memory_format=torch.channels_last)
    for dtype in (torch.float32, torch.float16, torch.float64):
        crops = crop(last, windows, 5, dtype=dtype)
        assert crops.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(crops, contiguous.to(dtype)) or dtype != torch.float32
    several = crop(last, windows[:, None].expand(2, 4, 3), 5)
    assert several.shape == (2, 4, 3, 5, 5)
    assert several[:, 1].stride()[1:] == (1, 15, 3)


@pytest.mark.parametrize("channels_last", [False, True])
def test_image_gradient_has_the_memory_format_of_images(device: str, channels_last: bool) -> None:
    format = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.randn(2, 3, 8, 9, device=device).contiguous(memory_format=format).requires_grad_()
    windows = torch.full((2, 3), 4.0, device=device)
    attention_crop(images, windows, 5).sum().backward()
    assert images.grad is not None
    assert images.grad.is_contiguous(memory_format=format)
