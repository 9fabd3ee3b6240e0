# SPDX-License-Identifier: BSD-3-Clause
"""``fill``: what lies outside the image, against images padded with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from samples import FILTERS, check_vmap_and_compile, each_filter, generator
from torch import Tensor

from racnn_ops import AttentionCrop, attention_crop, reference

MARGIN = 80
# Inside, over an edge, over all edges, mostly outside, wholly outside, a point, rectangular.
WINDOWS = [
    *([6.2, 5.1, 3.3, 2.7], [12.4, 8.3, 4.1, 5.0], [6.1, 5.4, 18.2, 17.1], [-6.3, 2.0, 8.9, 3.0]),
    *([40.0, 5.0, 4.0, 4.0], [0.2, 0.3, 0.0, 0.0], [3.1, 12.9, 20.0, 0.7]),
]


def sample(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Images (2, 3, 11, 13) with values 0..255 and windows (2, 7, 4)."""
    images = 255 * torch.rand(2, 3, 11, 13, generator=generator("fill"), dtype=torch.float64)
    windows = torch.tensor([WINDOWS, WINDOWS], dtype=torch.float64)
    if dtype == torch.uint8:
        images = images.round()
    return images.to(dtype), windows.to(torch.float64 if dtype == torch.float64 else torch.float32)


def padded(images: Tensor, fill: float | list[float], windows: Tensor) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = images.shape
    values = torch.tensor(fill, dtype=torch.float64).to(images.dtype).expand(channels).view(-1, 1, 1)
    wide = values.expand(batch, -1, height + 2 * MARGIN, width + 2 * MARGIN).clone()
    wide[..., MARGIN:-MARGIN, MARGIN:-MARGIN] = images
    moved = windows.clone()
    moved[..., :2] += MARGIN
    return wide, moved


@each_filter
@pytest.mark.parametrize("fill", [114.0, [10.0, 250.0, -70.5]], ids=str)
def test_is_a_pixel_like_any_other(options: dict[str, Any], fill: Any) -> None:
    images, windows = sample()
    for extra in ({}, {"mean": [100.0, 120.0, 90.0], "std": 60.0}, {"mean": 31.0}, {"std": [2.0, 3.0, 4.0]}):
        expected = attention_crop(*padded(images, fill, windows), (5, 4), **options, **extra)
        for crop in (attention_crop, reference.attention_crop):
            crops = crop(images, windows, (5, 4), fill=fill, **options, **extra)
            torch.testing.assert_close(crops, expected, rtol=0, atol=1e-9)
        without = attention_crop(images, windows, (5, 4), **options, **extra)
        assert (without - expected).abs().max() > 0.1


@each_filter
def test_of_bytes(options: dict[str, Any]) -> None:
    """uint8 stays uint8 without mean and std, rounded; with them it is normalised, fill as well."""
    images, windows = sample(torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    fill = [0, 255, 113]
    wide, moved = padded(images.double(), [float(value) for value in fill], windows.double())
    crops = AttentionCrop((5, 4), fill=fill, **options)(images, windows)
    exact = attention_crop(wide, moved, (5, 4), **options)
    assert crops.dtype == torch.uint8
    assert crops.stride(2) == 1
    # Positions are float32, and rounding may fall to the other side.
    assert (crops - exact.clamp(0, 255)).abs().max() <= 0.501
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    normalised = attention_crop(images, windows, (5, 4), fill=fill, mean=mean, std=std, **options)
    assert normalised.dtype == torch.float32
    expected = attention_crop(wide / 255, moved, (5, 4), mean=mean, std=std, **options)
    torch.testing.assert_close(normalised.double(), expected, rtol=0, atol=2e-4)
    outside = (torch.tensor(fill) / 255 - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(normalised[:, 4, :, 2, 2], outside.expand(2, 3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_other_dtypes(dtype: torch.dtype) -> None:
    images, windows = sample(dtype)
    for options in FILTERS[1:3]:
        crops = attention_crop(images, windows, (5, 4), fill=64.0, **options)
        wide, moved = padded(images.float(), 64.0, windows)
        expected = attention_crop(wide, moved, (5, 4), **options).to(dtype)
        torch.testing.assert_close(crops, expected, rtol=1e-2 if dtype == torch.bfloat16 else 2e-3, atol=1e-2)


def test_without_fill_the_outside_is_zero_after_normalisation() -> None:
    images, windows = sample(torch.uint8)
    options: dict[str, Any] = {"interpolation": "bicubic", "mean": 0.5, "std": 0.25}
    assert (attention_crop(images, windows, 3, **options)[:, 4] == 0).all()
    zero = attention_crop(images, windows, 3, fill=0, **options)
    assert (zero[:, 4] == -2).all()
    plain = {"interpolation": "bicubic", "fill": 0}
    assert torch.equal(
        attention_crop(images, windows, 3, **plain),
        attention_crop(images, windows, 3, interpolation="bicubic"),
    )


@each_filter
def test_gradients_are_those_of_padded_images(options: dict[str, Any]) -> None:
    images, windows = (tensor.requires_grad_() for tensor in sample())
    grad_output = torch.randn(2, 7, 3, 5, 4, generator=generator("of fill"), dtype=torch.float64)
    crops = attention_crop(images, windows, (5, 4), fill=[9.0, 99.0, 255.0], std=3.0, **options)
    inner = torch.autograd.grad(crops, (images, windows), grad_output)
    wide, moved = (tensor.detach() for tensor in padded(images, [9.0, 99.0, 255.0], windows))
    crops = attention_crop(wide.requires_grad_(), moved.requires_grad_(), (5, 4), std=3.0, **options)
    of_wide, of_windows = torch.autograd.grad(crops, (wide, moved), grad_output)
    of_images = of_wide[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
    torch.testing.assert_close(inner[0], of_images, rtol=0, atol=1e-10)
    keep = [0, 1, 2, 3, 4, 6]  # a point's position is on no kink, but moves between pixels
    torch.testing.assert_close(inner[1][:, keep], of_windows[:, keep], rtol=1e-9, atol=1e-8)


@each_filter
def test_gradcheck(options: dict[str, Any]) -> None:
    images = torch.rand(1, 2, 6, 7, generator=generator("check"), dtype=torch.float64).requires_grad_()
    windows = torch.tensor([[[2.31, 1.77, 1.13], [5.13, 2.21, 4.37]]], dtype=torch.float64).requires_grad_()

    def crop(images: Tensor, windows: Tensor) -> Tensor:
        return attention_crop(images, windows, (3, 2), fill=[0.3, 2.0], mean=0.1, std=0.7, **options)

    assert torch.autograd.gradcheck(crop, (images, windows), check_forward_ad=True)


def test_lost_windows_and_empty_batches() -> None:
    images, windows = sample(torch.float32)
    windows[0, 1, 2] = torch.nan
    crops = attention_crop(images, windows, 3, fill=7.0)
    assert crops[0, 1].isnan().all()
    assert crops[0, 0].isfinite().all()
    assert (attention_crop(images.byte(), windows, 3, fill=7)[0, 1] == 0).all()
    assert attention_crop(images[:0], windows[:0], 3, fill=7.0).shape == (0, 7, 3, 3, 3)
    assert attention_crop(images[:, :0], windows, 3, fill=7.0).shape == (2, 7, 0, 3, 3)


def test_vmap_and_compile() -> None:
    images, windows = sample()

    def crop(windows: Tensor) -> Tensor:
        return attention_crop(images, windows, (4, 5), fill=[1.0, 2.0, 3.0], mean=0.5)

    check_vmap_and_compile(crop, windows)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        *(
            (
                {"fill": 1.0, "boundary": boundary},
                ValueError,
                f"fill must be None with boundary={boundary!r}, where nothing outside is read, got 1.0",
            )
            for boundary in ("border", "clip", "window")
        ),
        (
            {"fill": 1.0, "mask_steepness": 0.5},
            ValueError,
            "fill must be None with mask_steepness: the mask would multiply what lies outside as well, "
            "which is not constant then, got 1.0",
        ),
        ({"fill": [1.0, 2.0]}, ValueError, "fill must be one number or one per channel (3), got 2 numbers"),
        ({"fill": []}, ValueError, "fill must be one number or one per channel (3), got 0 numbers"),
        ({"fill": float("nan")}, ValueError, "fill must be finite, got nan"),
        ({"fill": [0, float("inf"), 0]}, ValueError, "fill must be finite, got inf"),
        ({"fill": 1.1e15}, ValueError, "fill must be within [-1e+15, 1e+15], got 1100000000000000.0"),
        ({"fill": True}, TypeError, "fill must be a number, got True"),
        ({"fill": True, "interpolation": "nearest"}, TypeError, "fill must be a number, got True"),
        (
            {"fill": 10**16, "interpolation": "nearest"},
            ValueError,
            "fill must be within [-1e+15, 1e+15], got 10000000000000000",
        ),
        (
            {"fill": "red"},
            TypeError,
            "fill must be a number or a sequence of numbers, one per channel, got 'red'",
        ),
    ],
    ids=str,
)
def test_errors(options: dict[str, Any], error: type[Exception], message: str) -> None:
    images, windows = sample(torch.float32)
    for crop in (attention_crop, reference.attention_crop):
        with pytest.raises(error) as caught:
            crop(images, windows, 3, **options)
        assert str(caught.value) == message


def test_module_shows_it() -> None:
    assert "fill=(1.0, 2.0, 3.0)" in repr(AttentionCrop(3, fill=(1, 2, 3)))
    with pytest.raises(ValueError, match="fill must be None with boundary"):
        AttentionCrop(3, fill=1, boundary="border")
