# SPDX-License-Identifier: BSD-3-Clause
"""``interpolation="nearest"`` of integer and bool images: label maps, masks, indices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from samples import generator
from torch import Tensor, nn

from racnn_ops import AttentionCrop, attention_crop, reference
from racnn_ops._options import SELECTED_DTYPES

INTEGERS = (torch.uint8, *SELECTED_DTYPES)
each_dtype = pytest.mark.parametrize("dtype", INTEGERS, ids=lambda dtype: str(dtype).removeprefix("torch."))
SIZE = (11, 14)


def labels(dtype: torch.dtype) -> Tensor:
    """(2, 3, 11, 14), over all of the dtype."""
    if dtype == torch.bool:
        return torch.rand(2, 3, *SIZE, generator=generator("labels")) < 0.5
    limits = torch.iinfo(dtype)
    values = torch.randint(-(2**63), 2**63 - 1, (2, 3, *SIZE), generator=generator("labels"))
    return values.bitwise_right_shift(64 - limits.bits).to(dtype)


def numbers(images: Tensor) -> Any:
    """Exactly, as Python's integers, in an array."""
    return images.numpy().astype(object)


@pytest.mark.parametrize("out", [(7, 9), SIZE, (30, 41), (1, 1)], ids=str)
@each_dtype
def test_agrees_with_interpolate(dtype: torch.dtype, out: tuple[int, int]) -> None:
    """Of a map of the pixels' numbers, which float64 holds."""
    images = labels(dtype)
    window = torch.tensor([[7.0, 5.5, 7.0, 5.5]]).expand(2, 4)
    places = torch.arange(images.numel(), dtype=torch.float64).view(images.shape)
    chosen = nn.functional.interpolate(places, size=out, mode="nearest-exact").long()
    for boundary in ("zeros", "border", "clip", "window"):
        for crop in (attention_crop, reference.attention_crop):
            crops = crop(images, window, out, interpolation="nearest", boundary=boundary)
            assert crops.dtype == dtype
            assert crops.shape == (2, 3, *out)
            assert (numbers(crops) == numbers(images).reshape(-1)[chosen.numpy()]).all()


@each_dtype
def test_agrees_with_floats(dtype: torch.dtype) -> None:
    """Windows over edges, outside, points and rectangles, in every boundary, K an image; NaN gives 0."""
    values = [
        *([6.3, 4.2, 3.1, 2.2], [1.4, 9.8, 4.7, 5.2], [7.1, 5.3, 30.2, 20.3], [3.3, 4.4, 0.0, -1.0]),
        *([-50.0, 4.0, 3.0, 3.0], [1e30, 3.0, 2.0, 2.0], [float("nan"), 3.0, 2.0, 2.0]),
    ]
    windows = torch.tensor([values, values])
    images = labels(dtype)
    index = torch.arange(images.numel(), dtype=torch.float64).view(images.shape) + 1
    for boundary in ("zeros", "border", "clip", "window"):
        options: dict[str, Any] = {"interpolation": "nearest", "boundary": boundary}
        with_nan = reference.attention_crop(index, windows.double(), (5, 6), **options)
        places = with_nan.nan_to_num(0.0).long()
        known = numbers(torch.cat((torch.zeros(1, dtype=dtype), images.flatten())))
        assert (numbers(attention_crop(images, windows, (5, 6), **options)) == known[places.numpy()]).all()
        assert (places[:, -1] == 0).all()


def test_is_exact_beyond_floats() -> None:
    images = torch.tensor([2**53 + 1, -(2**63), 2**63 - 1, -1]).view(1, 1, 1, 4)
    window = torch.tensor([[2.0, 0.5, 2.0, 0.5]])
    assert torch.equal(attention_crop(images, window, (1, 4), interpolation="nearest"), images)
    large = torch.tensor([2**53 + 1, 2**63 - 1]).to(torch.uint64).view(1, 1, 1, 2)
    crops = attention_crop(
        large, torch.tensor([[1.0, 0.5, 2.0, 0.5]]), (1, 4), interpolation="nearest", fill=2**64 - 1
    )
    assert crops.flatten().tolist() == [2**64 - 1, 2**53 + 1, 2**63 - 1, 2**64 - 1]


@each_dtype
def test_fill(dtype: torch.dtype) -> None:
    images, limit = labels(dtype), 1 if dtype == torch.bool else torch.iinfo(dtype).max
    windows = torch.tensor([[2.0, 3.0, 6.0]]).expand(2, 3)
    fill = [0, limit, 1]
    crops = attention_crop(images, windows, 12, interpolation="nearest", fill=fill)
    padded = numbers(images.new_zeros((2, 3, 12, 12)))
    padded[:] = torch.tensor(fill, dtype=torch.float64).long().numpy()[None, :, None, None]
    padded[:, 1] = limit
    padded[:, :, 3:12, 4:12] = numbers(images)[:, :, :9, :8]
    assert (numbers(crops) == padded).all()
    if dtype == torch.bool:
        flags = attention_crop(images, windows, 12, interpolation="nearest", fill=[False, True, True])
        assert torch.equal(crops, flags)


@each_dtype
def test_layouts_and_modules(dtype: torch.dtype) -> None:
    images = labels(dtype)
    windows = torch.tensor([[[6.3, 4.2, 3.1], [1.4, 9.8, 4.7]]]).expand(2, 2, 3).contiguous()
    plain = attention_crop(images, windows, (4, 5), interpolation="nearest")
    assert plain.is_contiguous()
    module = AttentionCrop((4, 5), interpolation="nearest", dtype=dtype)
    last = module(images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), windows)
    assert last.stride(2) == 1
    assert torch.equal(last, plain)
    strided = images.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(module(strided, windows), plain)
    assert module(images[:0], windows[:0]).shape == (0, 2, 3, 4, 5)
    assert module(images[:, :0], windows).shape == (2, 2, 0, 4, 5)
    assert module(images, windows[:, :0]).shape == (2, 0, 3, 4, 5)


@each_dtype
def test_transforms(dtype: torch.dtype) -> None:
    """vmap, compile, and windows that are learned with images of floats beside."""
    images = labels(dtype)
    windows = torch.tensor([[[6.3, 4.2, 3.1], [1.4, 9.8, 4.7]]]).expand(2, 2, 3).contiguous().requires_grad_()

    def crop(images: Tensor, windows: Tensor) -> Tensor:
        return attention_crop(images, windows, (4, 5), interpolation="nearest", fill=1)

    expected = crop(images, windows)
    assert not expected.requires_grad
    by_window = torch.func.vmap(crop, (None, 1), out_dims=1)(images, windows)
    by_channel = torch.func.vmap(crop, (1, None), out_dims=2)(images[:, :, None], windows)[:, :, :, 0]
    by_image = torch.func.vmap(crop)(images[:, None], windows[:, None])[:, 0]
    for mapped in (by_window, by_channel, by_image):
        assert torch.equal(mapped, expected)
    torch._dynamo.reset()
    assert torch.equal(torch.compile(crop, backend="aot_eager", fullgraph=True)(images, windows), expected)


NAMES = "float16, bfloat16, float32, float64, uint8"
ALL_NAMES = f"{NAMES}, int8, int16, int32, int64, uint16, uint32, uint64, bool"


@pytest.mark.parametrize(
    ("dtype", "options", "error", "message"),
    [
        (
            torch.int64,
            {"interpolation": "bilinear"},
            TypeError,
            f"images must be {NAMES}, got torch.int64; integer and bool images need interpolation='nearest'",
        ),
        (
            torch.bool,
            {"interpolation": "area"},
            TypeError,
            f"images must be {NAMES}, got torch.bool; integer and bool images need interpolation='nearest'",
        ),
        (torch.complex64, {}, TypeError, f"images must be {ALL_NAMES}, got torch.complex64"),
        (torch.int16, {"mean": 0.5}, ValueError, "mean must be None for int16 images, got (0.5,)"),
        (
            torch.int16,
            {"std": [1, 2, 3]},
            ValueError,
            "std must be None for int16 images, got (1.0, 2.0, 3.0)",
        ),
        (
            torch.bool,
            {"mask_steepness": 0.5},
            ValueError,
            "mask_steepness must be None for bool images, got 0.5",
        ),
        (
            torch.int32,
            {"dtype": torch.float32},
            ValueError,
            "dtype must be int32 or None for int32 images, got torch.float32",
        ),
        (
            torch.float32,
            {"dtype": torch.int32},
            ValueError,
            "dtype may be int32 only for int32 images, got images float32",
        ),
        (
            torch.float32,
            {"dtype": torch.complex64},
            TypeError,
            f"dtype must be {ALL_NAMES} or None, got torch.complex64",
        ),
        (
            torch.int8,
            {"fill": 128},
            ValueError,
            "fill must be a whole number within [-128, 127] for int8 crops "
            "with interpolation='nearest', got 128",
        ),
        (
            torch.uint8,
            {"fill": [0, 0.5, 1]},
            ValueError,
            "fill must be a whole number within [0, 255] for uint8 crops "
            "with interpolation='nearest', got 0.5",
        ),
        (torch.bool, {"fill": 2}, ValueError, "fill must be 0 or 1, False or True, for bool images, got 2"),
        (
            torch.int64,
            {"fill": [1, 2]},
            ValueError,
            "fill must be one number or one per channel (3), got 2 numbers",
        ),
        (torch.int64, {"fill": False}, TypeError, "fill must be a number, got False"),
    ],
    ids=str,
)
def test_errors(dtype: torch.dtype, options: dict[str, Any], error: type[Exception], message: str) -> None:
    images, windows = torch.zeros(2, 3, *SIZE, dtype=dtype), torch.ones(2, 3)
    for crop in (attention_crop, reference.attention_crop):
        with pytest.raises(error) as caught:
            crop(images, windows, 3, **{"interpolation": "nearest", **options})
        assert str(caught.value) == message


def test_windows_are_float32() -> None:
    images = torch.zeros(2, 3, *SIZE, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"windows must be float32 with int64 images, got torch\.float64"):
        attention_crop(images, torch.ones(2, 3, dtype=torch.float64), 3, interpolation="nearest")


@pytest.mark.filterwarnings("error")
def test_is_no_fallback_of_which_to_warn() -> None:
    attention_crop(labels(torch.int64), torch.ones(2, 3), 3, interpolation="nearest")
