# SPDX-License-Identifier: BSD-3-Clause
"""Memory formats of results: as asked for or as the images', and the fake kernels foretell them."""

from __future__ import annotations

import pytest
import torch
from samples import LAYOUTS, generator
from torch._subclasses.fake_tensor import FakeTensorMode

from racnn_ops import AttentionCrop, attention_crop, reference

FORMATS = (torch.contiguous_format, torch.channels_last)
PAIRS = [(torch.float32, torch.float32), (torch.float16, torch.bfloat16), (torch.uint8, torch.float64)]


@pytest.mark.parametrize("shape", [(2, 3, 6, 7), (1, 1, 5, 1), (2, 4, 1, 1), (0, 3, 4, 5), (2, 0, 4, 5)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fake_strides_are_the_kernels(device: str, layout: str, shape: tuple[int, ...]) -> None:
    for (image_dtype, dtype), window_shape in zip(
        PAIRS, ((shape[0], 3), (shape[0], 2, 4), (shape[0], 0, 3)), strict=True
    ):
        images = LAYOUTS[layout](torch.zeros(shape, device=device)).to(image_dtype)
        windows = torch.ones(window_shape, device=device)
        for format in (None, *FORMATS):
            options = {"dtype": dtype, "memory_format": format}
            crops = attention_crop(images, windows, (4, 3), **options)
            with FakeTensorMode() as mode:
                fake = attention_crop(mode.from_tensor(images), mode.from_tensor(windows), (4, 3), **options)
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


ASKED = [
    {},
    {"mean": 0.3, "std": 0.2, "fill": 0.1},
    {"antialias": True, "mean": 0.3, "std": 0.2, "fill": 0.1},
    {"interpolation": "nearest"},
    {"interpolation": "bicubic", "boundary": "border", "dtype": torch.bfloat16},
]


@pytest.mark.every_instruction_set
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", ASKED, ids=str)
def test_memory_format_as_asked(device: str, options, layout: str) -> None:
    """The numbers of whichever format, bit by bit: by bands, by cells and by groups of channels."""
    windows = torch.tensor([[20.3, 17.1, 14.2], [5.0, 30.0, 21.0], [float("nan"), 3.0, 4.0]], device=device)
    windows = windows.expand(2, 3, 3)
    for channels, size, dtype in (
        (3, (24, 37), torch.float32),
        (3, (40, 33), torch.uint8),
        (4, (5, 18), torch.float32),
        (2, (9, 70), torch.float16),
        (20, (7, 6), torch.float32),
        (20, (33, 1), torch.float64),
    ):
        of = windows.double() if dtype == torch.float64 else windows
        images = LAYOUTS[layout](torch.randn(2, channels, 41, 39, generator=generator(channels)) * 50 + 100)
        images = images.to(device, dtype)
        plain = attention_crop(images, of, size, **options)
        slice, of_slice = images[:, 1:], of[:, 0]  # neither format
        plain_slice = attention_crop(slice, of_slice, size, **options)
        for format in FORMATS:
            crops = attention_crop(images, of, size, memory_format=format, **options)
            assert crops.flatten(0, 1).is_contiguous(memory_format=format)
            assert torch.equal(crops.nan_to_num(7.0), plain.nan_to_num(7.0))
            crops = AttentionCrop(size, memory_format=format, **options)(slice, of_slice)
            assert crops.is_contiguous(memory_format=format)
            assert torch.equal(crops, plain_slice)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_memory_format_under_everything(device: str, memory_format: torch.memory_format) -> None:
    images = torch.randn(2, 3, 18, 21, device=device, dtype=torch.float64)
    windows = torch.tensor([[9.0, 8.0, 5.0], [10.0, 7.0, 8.0]], device=device, dtype=torch.float64)

    def crop(images: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        return attention_crop(images, windows, (7, 5), memory_format=memory_format)

    def plain(images: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        return attention_crop(images, windows, (7, 5))

    for format in FORMATS:
        laid_out = images.contiguous(memory_format=format)
        compiled = torch.compile(crop, backend="aot_eager", fullgraph=True)(laid_out, windows)
        assert compiled.stride() == crop(laid_out, windows).stride()
        results = []
        for each in (crop, plain):
            i, w = laid_out.clone().requires_grad_(), windows.clone().requires_grad_()
            crops = each(i, w)
            grads = torch.autograd.grad((crops * crops).sum(), (i, w), create_graph=True)
            second = torch.autograd.grad(grads[1].square().sum(), (i, w))
            _, along = torch.func.jvp(each, (laid_out, windows), (laid_out, windows))
            batched = torch.func.vmap(each, (None, 0))(laid_out, torch.stack([windows, windows + 1]))
            results.append((crops, *grads, *second, along, batched))
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs)
        assert results[0][0].is_contiguous(memory_format=memory_format)
        assert results[0][-2].is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("channels_last", [False, True])
def test_image_gradient_has_the_memory_format_of_images(device: str, channels_last: bool) -> None:
    format = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.randn(2, 3, 8, 9, device=device).contiguous(memory_format=format).requires_grad_()
    windows = torch.full((2, 3), 4.0, device=device)
    attention_crop(images, windows, 5).sum().backward()
    assert images.grad is not None
    assert images.grad.is_contiguous(memory_format=format)
