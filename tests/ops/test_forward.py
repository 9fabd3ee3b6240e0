# SPDX-License-Identifier: BSD-3-Clause
"""The crops are those of the specification, for every dtype, layout, boundary, mask and form of windows."""

from __future__ import annotations

import itertools

import pytest
import torch
from samples import (
    BOUNDARIES,
    FLOAT_PAIRS,
    LAYOUTS,
    MODES,
    SHAPES,
    TOLERANCE,
    UINT8_PAIRS,
    Shape,
    expected,
    generator,
    make_images,
    make_windows,
    relative_error,
    window_dtype,
    window_sizes,
)

from racnn_ops import _dispatch, attention_crop, reference
from racnn_ops._arguments import check_options


@pytest.mark.every_instruction_set
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("image_dtype", "dtype"), FLOAT_PAIRS + UINT8_PAIRS, ids=str)
def test_agrees_with_reference(
    device: str, image_dtype: torch.dtype, dtype: torch.dtype, layout: str
) -> None:
    g = generator(image_dtype, dtype, layout)
    first = int(torch.randint(0, 100, (), generator=g))
    for i in (first, first + 7, first + 14):
        boundary, mask = MODES[i % len(MODES)]
        shape = SHAPES[i % len(SHAPES)]
        options = {"boundary": boundary, "mask_steepness": mask}
        images = LAYOUTS[layout](make_images(shape.images, image_dtype, g).to(device))
        windows = make_windows(window_sizes(i, shape.batch), shape, g).to(device, window_dtype(image_dtype))
        crops = attention_crop(images, windows, shape.out, dtype=dtype, **options)
        assert crops.dtype == dtype
        exact = expected(images, windows, shape.out, **options)
        if dtype == torch.uint8:
            # The nearest integer, or one that only the float32 position makes the nearest.
            assert (crops.double() - exact).abs().max() <= 0.5 + 255 * TOLERANCE[torch.float32], options
        else:
            worse = TOLERANCE[dtype] if image_dtype == torch.float64 else max(TOLERANCE[dtype], 1e-4)
            assert relative_error(crops, exact) <= worse, (shape, options)


@pytest.mark.every_instruction_set
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_reference_for_every_shape(device: str, shape: Shape) -> None:
    g = generator(shape)
    for form, layout, image_dtype in itertools.product(
        range(4), ("contiguous", "channels_last"), (torch.float32, torch.float64)
    ):
        images = LAYOUTS[layout](make_images(shape.images, image_dtype, g).to(device))
        windows = make_windows(window_sizes(form, shape.batch), shape, g).to(device, image_dtype)
        crops = attention_crop(images, windows, shape.out)
        assert relative_error(crops, expected(images, windows, shape.out)) <= TOLERANCE[image_dtype]


@pytest.mark.parametrize("image_dtype", [pair[0] for pair in FLOAT_PAIRS[::4]] + [torch.uint8], ids=str)
def test_reference_has_every_dtype(image_dtype: torch.dtype) -> None:
    g = generator(image_dtype)
    shape = SHAPES[0]
    images = make_images(shape.images, image_dtype, g)
    windows = make_windows((2, 3), shape, g).to(window_dtype(image_dtype))
    for _, dtype in [pair for pair in FLOAT_PAIRS + UINT8_PAIRS if pair[0] == image_dtype]:
        crops = reference.attention_crop(images, windows, shape.out, dtype=dtype)
        ours = attention_crop(images, windows, shape.out, dtype=dtype)
        assert crops.dtype == dtype
        if dtype == torch.uint8:
            assert (crops.int() - ours.int()).abs().max() <= 1
        else:
            assert relative_error(ours, crops.double()) <= 2 * max(TOLERANCE[dtype], TOLERANCE[windows.dtype])


def test_uint8_rounds_half_to_even(device: str) -> None:
    # Halfway between two rows: 0.5, 1.5, ..., 254.5, exactly.
    upper = torch.arange(255, dtype=torch.uint8, device=device)
    images = torch.nn.functional.pad(torch.stack((upper, upper + 1)), (0, 1)).view(1, 1, 2, 256)
    crops = attention_crop(images, torch.tensor([[128.0, 1.0, 128.0, 0.0]], device=device), (1, 256))
    halves = torch.arange(255, dtype=torch.float64, device=device) + 0.5
    assert torch.equal(crops.flatten()[:-1], halves.round().to(torch.uint8))


@pytest.mark.every_instruction_set
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_uint8_is_the_rounded_float(device: str, layout: str) -> None:
    g = generator(layout)
    for shape in SHAPES:
        images = LAYOUTS[layout](make_images(shape.images, torch.uint8, g).to(device))
        windows = make_windows((shape.batch, 3), shape, g).float().to(device)
        exact = attention_crop(images, windows, shape.out, dtype=torch.float32)
        assert torch.equal(attention_crop(images, windows, shape.out), exact.round().to(torch.uint8))


@pytest.mark.every_instruction_set
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize(
    ("image_dtype", "dtype"), [pair for pair in FLOAT_PAIRS + UINT8_PAIRS if pair[1] != torch.uint8], ids=str
)
def test_normalises(device: str, image_dtype: torch.dtype, dtype: torch.dtype, layout: str) -> None:
    g = generator(image_dtype, dtype, layout)
    for shape, boundary in zip(SHAPES, itertools.cycle(BOUNDARIES), strict=False):
        each = torch.rand((2, shape.channels), generator=g) + 0.1
        for mean, std in ((each[0].tolist(), each[1].tolist()), (0.4, None), (None, [0.3])):
            images = LAYOUTS[layout](make_images(shape.images, image_dtype, g).to(device))
            windows = make_windows((shape.batch, 4), shape, g).to(device, window_dtype(image_dtype))
            options = {"boundary": boundary, "mean": mean, "std": std}
            crops = attention_crop(images, windows, shape.out, dtype=dtype, **options)
            exact = expected(images, windows, shape.out, **options)
            worst = TOLERANCE[dtype] if image_dtype == torch.float64 else max(TOLERANCE[dtype], 1e-4)
            assert relative_error(crops, exact) <= worst, (shape, options)


def test_normalisation_is_of_pixels_not_of_what_lies_outside(device: str) -> None:
    images = torch.full((1, 2, 4, 4), 51, dtype=torch.uint8, device=device)
    windows = torch.tensor([[4.0, 2.0, 4.0, 2.0]], device=device)
    crops = attention_crop(images, windows, (4, 8), mean=[0.1, 0.2], std=[0.5, 0.25])
    assert crops.dtype == torch.float32
    assert torch.allclose(crops[0, 0, :, :4], torch.tensor(0.2, device=device))  # (51/255 - 0.1) / 0.5
    assert torch.allclose(crops[0, 1, :, :4], torch.tensor(0.0, device=device), atol=1e-7)
    assert torch.equal(crops[..., 4:], torch.zeros_like(crops[..., 4:]))


def test_reference_normalises_as_written() -> None:
    g = generator("normalise")
    images = make_images((2, 3, 9, 8), torch.uint8, g)
    windows = torch.tensor([[4.0, 4.5, 3.0], [5.0, 3.0, 2.0]])
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4])
    by_hand = (images / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    crops = reference.attention_crop(images, windows, 6, mean=mean.tolist(), std=std.tolist())
    assert torch.allclose(crops, reference.attention_crop(by_hand, windows, 6), atol=1e-5)


@pytest.mark.every_instruction_set
def test_rounds_to_uint8_in_vectors_as_alone(device: str) -> None:
    """Saturated, ties to even, NaN to 0: all midpoints and their neighbours in float32, odd lengths."""
    middle = torch.arange(-4, 260, dtype=torch.float32) + 0.5
    bits = torch.cat((middle, middle - 0.5)).view(torch.int32)
    values = torch.cat([(bits + offset).view(torch.float32) for offset in (-1, 0, 1)])
    values = torch.cat([values, torch.tensor([float("nan"), 3.4e38, -3.4e38, 1e-45, -0.0, 2.0**31, 2.0**32])])
    # The value as the shift of a channel: an image of one pixel, a degenerate window that reads it 21 times.
    images = torch.zeros(1, len(values), 1, 1, dtype=torch.uint8, device=device)
    for layout in ("contiguous", "channels_last"):
        crops = torch.ops.racnn_ops._crop_forward(
            *(LAYOUTS[layout](images), torch.tensor([[0.5, 0.5, 0.0]], device=device), 1, 21, "border", None),
            *([1.0] * len(values), values.tolist(), torch.uint8),
        )
        exact = values.nan_to_num(0.0).round().clamp(0, 255).to(device, torch.uint8)
        assert torch.equal(crops, exact.view(1, -1, 1, 1).expand_as(crops))


@pytest.mark.every_instruction_set
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounds_to_half_precision_as_torch_does(device: str, dtype: torch.dtype) -> None:
    """Bitwise: every number of `dtype`, its neighbours in float32, ties, NaN; odd lengths."""
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype).float()
    tie = torch.tensor(1 << (15 if dtype == torch.bfloat16 else 12), dtype=torch.int32)
    bits = every.view(torch.int32)
    values = torch.cat([(bits + offset).view(torch.float32) for offset in (0, 1, -1, tie - 1, tie, tie + 1)])
    values = torch.where(values.isinf(), values.sign() * 3e38, values)
    values = torch.cat([values, values.new_tensor([5e-324, 1e-45, -1e-45, 65519.9, 65520.0, 3.4e38])])
    # A channel a number, an image of one pixel; the degenerate window reads it 21 times with the weight 1.
    images = values.reshape(1, -1, 1, 1).to(device)
    window = torch.tensor([[0.5, 0.5, 0.0]], device=device)
    crops = attention_crop(images, window, (1, 21), boundary="border", dtype=dtype)
    exact = images.to(dtype).expand_as(crops)
    torch.testing.assert_close(crops, exact, rtol=0, atol=0, equal_nan=True)


def test_identity(device: str) -> None:
    """The window that is the whole image, at its size, is the image: the coordinates' convention."""
    images = torch.randn(2, 3, 8, 8, device=device)
    windows = torch.tensor([[4.0, 4.0, 4.0]] * 2, device=device)
    for boundary in BOUNDARIES:
        assert torch.equal(attention_crop(images, windows, 8, boundary=boundary), images)
        assert torch.equal(reference.attention_crop(images, windows, 8, boundary=boundary), images)


def test_windows_may_have_any_stride(device: str) -> None:
    g = generator("windows")
    shape = SHAPES[0]
    images = make_images(shape.images, torch.float32, g).to(device)
    windows = make_windows((2, 5, 4), shape, g).float().to(device)
    exact = attention_crop(images, windows, shape.out)
    for strided in (LAYOUTS["batch_innermost"](windows), windows.repeat(1, 2, 2)[:, :5, :4]):
        assert not strided.is_contiguous()
        assert torch.equal(attention_crop(images, strided, shape.out), exact)
    one = windows[:1, 0].expand(2, 4)
    assert torch.equal(attention_crop(images, one, 7), attention_crop(images, one.contiguous(), 7))


@pytest.mark.parametrize("image_dtype", [torch.uint8, torch.float16, torch.float64], ids=str)
def test_more_channels_than_a_launch_normalises(image_dtype: torch.dtype, device: str) -> None:
    """Where kernels cannot, images are normalised before: the same crops and gradients."""
    channels = _dispatch.MOST_NORMALISED_ON_CUDA + 2
    g = generator("channels", image_dtype)
    images = make_images((2, channels, 7, 9), image_dtype, g).to(device)
    windows = torch.tensor([[4.2, 3.1, 3.0], [8.0, 1.0, 2.5]], device=device, dtype=window_dtype(image_dtype))
    mean, std = torch.rand(channels, generator=g).tolist(), (torch.rand(channels, generator=g) + 0.5).tolist()
    crop_options = check_options(
        (4, 5), "bilinear", False, 0.7, "zeros", None, "exact", mean, std, None, None, None
    )
    options = crop_options.of(images)
    normalised, rest = _dispatch.normalised_first(images, windows.dtype, options)
    assert (normalised.dtype, rest.scale, rest.shift) == (windows.dtype, (), ())
    composed = reference.sample(normalised, windows, rest)
    exact = expected(images, windows, (4, 5), mask_steepness=0.7, mean=mean, std=std)
    assert composed.dtype == options.dtype
    for crops in (composed, _dispatch.crop(images, windows, crop_options)):
        assert relative_error(crops, exact) <= TOLERANCE[options.dtype]
