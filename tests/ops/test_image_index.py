# SPDX-License-Identifier: BSD-3-Clause
"""``image_index``: crops out of any image in any order are, to the bit, the crops one by one."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import EVERY_BOUNDARY, FILTERS, generator
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from racnn_ops import AttentionCrop, attention_crop, reference
from racnn_ops._options import IMAGE_DTYPES, SELECTED_DTYPES

OUT = (7, 10)
# Repeats, one image behind the other and not, one that nobody names.
INDEX = torch.tensor([2, 0, 0, 4, 2, 2, 1])
OPTIONS: dict[str, dict[str, Any]] = {
    **{"-".join(map(str, each.values())): each for each in FILTERS},
    **{boundary: {"boundary": boundary} for boundary in EVERY_BOUNDARY},
    "mask": {"mask_steepness": 0.4},
    "boxcar": {"window_grad": "boxcar"},
    "normalised": {"mean": 0.3, "std": (0.5, 0.6, 0.7), "fill": 0.2},
    "channels_last": {"memory_format": torch.channels_last},
    "flip": {"flip": torch.tensor([True, False, True, True, False, False, True])},
}


def inputs(
    dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = (5, 3, 40, 53), crops: int = len(INDEX)
) -> tuple[Tensor, Tensor]:
    """Images, and windows that lie inside, over the edges and outside."""
    of = generator("index")
    images = torch.rand(shape, generator=of, dtype=torch.float64)
    width, height = shape[3], shape[2]
    windows = torch.rand(crops, 4, generator=of, dtype=torch.float64)
    windows = windows * torch.tensor([1.2, 1.2, 0.5, 0.5]) + torch.tensor([-0.1, -0.1, 0.02, 0.02])
    windows = windows * torch.tensor([width, height, width, height])
    images = (images * 255).to(dtype) if not dtype.is_floating_point else images.to(dtype)
    return images, windows.to(torch.float64 if dtype == torch.float64 else torch.float32)


def one_by_one(images: Tensor, windows: Tensor, index: Tensor, **options: Any) -> Tensor:
    flip = options.pop("flip", None)
    crops = []
    for n, image in enumerate(index.tolist()):
        own = {} if flip is None else {"flip": flip[n : n + 1]}
        crops.append(attention_crop(images[image, None], windows[n, None], OUT, **own, **options))
    return torch.cat(crops)


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [tensor.detach().clone().requires_grad_(tensor.is_floating_point()) for tensor in tensors]


@pytest.mark.parametrize("shape", [(5, 3, 40, 53), (5, 40, 14, 15), (5, 1, 90, 7)], ids=str)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_crops_and_their_gradients_are_those_one_by_one(
    options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    if "std" in options:
        options = options | {"std": 0.5}
    for layout in (torch.contiguous_format, torch.channels_last):
        images, windows = inputs(shape=shape)
        images = images.contiguous(memory_format=layout)
        ours, theirs = leaves(images, windows), leaves(images, windows)
        found = attention_crop(*ours, OUT, image_index=INDEX, **options)
        expected = one_by_one(*theirs, INDEX, **options)
        assert torch.equal(found, expected)
        assert torch.equal(found, attention_crop(images, windows, OUT, image_index=INDEX.int(), **options))
        grad_output = torch.rand(found.shape, generator=generator("grad"))
        (of_images, of_windows), (one_images, one_windows) = (
            torch.autograd.grad(crops, inputs, grad_output)
            for crops, inputs in ((found, ours), (expected, theirs))
        )
        assert torch.equal(of_windows, one_windows)
        torch.testing.assert_close(of_images, one_images, rtol=1e-5, atol=1e-5)  # summed in another order
        assert of_images.stride() == images.stride()
        assert not of_images[3].any()


@pytest.mark.parametrize("dtype", [*IMAGE_DTYPES, *SELECTED_DTYPES], ids=str)
def test_every_dtype(dtype: torch.dtype) -> None:
    options = {"interpolation": "nearest"} if dtype in SELECTED_DTYPES else {}
    images, windows = inputs(dtype)
    found = attention_crop(images, windows, OUT, image_index=INDEX, **options)
    assert torch.equal(found, one_by_one(images, windows, INDEX, **options))
    converted = {} if options else {"dtype": torch.float32}
    found = attention_crop(images, windows, OUT, image_index=INDEX, **options, **converted)
    assert torch.equal(found, one_by_one(images, windows, INDEX, **options, **converted))


def test_windows_in_order_are_those_of_a_batch() -> None:
    for channels, size in itertools.product((3, 32), ((60, 70), (14, 14))):
        images, _ = inputs(shape=(5, channels, *size))
        _, windows = inputs(shape=(5, channels, *size), crops=20)
        index = torch.arange(5).repeat_interleave(4)
        ours, theirs = leaves(images, windows), leaves(images, windows.view(5, 4, 4))
        found = attention_crop(*ours, OUT, image_index=index)
        expected = attention_crop(*theirs, OUT).flatten(0, 1)
        assert torch.equal(found, expected)
        grad_output = torch.rand(found.shape, generator=generator("grad"))
        grads = torch.autograd.grad(found, ours, grad_output)
        others = torch.autograd.grad(expected, theirs, grad_output)
        assert torch.equal(grads[0], others[0])
        assert torch.equal(grads[1], others[1].flatten(0, 1))


@pytest.mark.parametrize("options", [{}, {"antialias": True}, {"window_grad": "boxcar"}], ids=str)
@pytest.mark.parametrize("crop", [attention_crop, reference.attention_crop], ids=["kernels", "reference"])
def test_no_such_image(crop: Any, options: dict[str, Any]) -> None:
    index = torch.tensor([0, -1, 5, 2**62, -(2**63), 4, 2**32])
    missing = torch.tensor([False, True, True, True, True, False, True])
    for shape in ((5, 3, 40, 53), (5, 40, 14, 15)):
        images, windows = leaves(*inputs(shape=shape))
        with torch.no_grad():
            windows[1] = torch.nan
        crops = crop(images, windows, OUT, image_index=index, **options)
        assert torch.equal(crops.isnan().flatten(1).all(1), missing)
        assert torch.equal(crops.isnan().flatten(1).any(1), missing)
        of_images, of_windows = torch.autograd.grad(crops, (images, windows), torch.ones_like(crops))
        assert not of_images[1:4].any()
        assert of_images.isfinite().all()
        assert not of_windows[missing].any()
        assert of_windows[~missing].all()
    whole = crop((images.detach() * 255).byte(), windows.detach(), OUT, image_index=index)
    assert not whole[missing].any()
    assert whole[~missing].any()


def test_no_crops_and_no_images() -> None:
    images, windows = leaves(*inputs(crops=0))
    crops = attention_crop(images, windows, OUT, image_index=torch.empty(0, dtype=torch.int64))
    assert crops.shape == (0, 3, *OUT)
    (of_images,) = torch.autograd.grad(crops, images, torch.ones_like(crops))
    assert of_images.shape == images.shape
    assert not of_images.any()
    _, windows = inputs()
    for crop in (attention_crop, reference.attention_crop):
        crops = crop(torch.empty(0, 3, 4, 5), windows, OUT, image_index=INDEX)
        assert crops.shape == (7, 3, *OUT)
        assert crops.isnan().all()


def test_ten_thousand_windows_on_one_image() -> None:
    images, windows = leaves(*inputs(shape=(2, 3, 40, 53), crops=10_000))
    index = torch.ones(10_000, dtype=torch.int64)
    crops = attention_crop(images, windows, 3, image_index=index)
    grad_output = torch.rand(crops.shape, generator=generator("grad"))
    found = torch.autograd.grad(crops, (images, windows), grad_output)
    batch = attention_crop(images[1:], windows.unsqueeze(0), 3).squeeze(0)
    expected = torch.autograd.grad(batch, (images, windows), grad_output)
    assert torch.equal(crops, batch)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    mixed = torch.randint(0, 2, (10_000,), generator=generator("mixed"))
    crops = attention_crop(images.flip(0)[mixed.unique()], windows, 3, image_index=1 - mixed)
    assert torch.equal(crops, attention_crop(images, windows, 3, image_index=mixed))


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_index_agrees_with_the_reference(data: st.DataObject) -> None:
    batch, channels, crops = (data.draw(st.integers(*limits)) for limits in ((1, 4), (1, 20), (0, 9)))
    size = data.draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
    index = torch.tensor(data.draw(st.lists(st.integers(-1, batch), min_size=crops, max_size=crops)))
    options = data.draw(st.sampled_from([{}, {"antialias": True}, {"boundary": "clip"}]))
    images, windows = inputs(torch.float64, (batch, channels, *size), crops)
    ours, theirs = leaves(images, windows), leaves(images, windows)
    found = attention_crop(*ours, OUT, image_index=index.long(), **options)
    expected = reference.attention_crop(*theirs, OUT, image_index=index.long(), **options)
    torch.testing.assert_close(found, expected, equal_nan=True)
    grads = torch.autograd.grad(found, ours, torch.ones_like(found))
    others = torch.autograd.grad(expected, theirs, torch.ones_like(found))
    for grad, other in zip(grads, others, strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-6, atol=1e-8)


def test_derivatives_of_any_order() -> None:
    images, windows = leaves(*inputs(torch.float64, (3, 1, 8, 9), 4))
    index = torch.tensor([2, 0, 3, 2])
    images.requires_grad_()
    windows.requires_grad_()

    def crop(images: Tensor, windows: Tensor) -> Tensor:
        return attention_crop(images, windows, (3, 4), image_index=index)[[0, 1, 3]]

    assert gradcheck(crop, (images, windows), check_forward_ad=True)
    assert gradgradcheck(crop, (images, windows))


def test_transforms() -> None:
    images, windows = inputs()
    expected = attention_crop(images, windows, OUT, image_index=INDEX)

    def crop(images: Tensor, windows: Tensor) -> Tensor:
        return attention_crop(images, windows, OUT, image_index=INDEX)

    found = torch.func.vmap(crop, (None, 0))(images, torch.stack((windows, windows + 1)))
    torch.testing.assert_close(found[0], expected)
    both = torch.func.grad(lambda *inputs: crop(*inputs).square().sum(), (0, 1))(images, windows)
    ours = leaves(images, windows)
    eager = torch.autograd.grad(crop(*ours).square().sum(), ours)
    for grad, other in zip(both, eager, strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dynamic", [False, True])
def test_module_compiled(dynamic: bool) -> None:
    module = AttentionCrop(OUT, antialias=True)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    images, windows = inputs()
    ours, theirs = leaves(images, windows), leaves(images, windows)
    found = compiled(*ours, image_index=INDEX)
    expected = module(*theirs, image_index=INDEX)
    assert torch.equal(found, expected)
    grads = (torch.autograd.grad(crops.sum(), of) for crops, of in ((found, ours), (expected, theirs)))
    for grad, other in zip(*grads, strict=True):
        assert torch.equal(grad, other)


def test_exported() -> None:
    images, windows = inputs()
    number = torch.export.Dim("number")
    program = torch.export.export(
        AttentionCrop(OUT),
        (images, windows),
        {"image_index": INDEX},
        dynamic_shapes={"images": None, "windows": {0: number}, "image_index": {0: number}},
    )
    found = program.module()(images, windows[:5], image_index=INDEX[:5])
    assert torch.equal(found, attention_crop(images, windows[:5], OUT, image_index=INDEX[:5]))


def test_far_apart_pixels() -> None:
    images, windows = inputs()
    spread = torch.empty(40, 53, 3, 5).permute(3, 2, 0, 1).copy_(images)
    grad_output = torch.rand(10, 7, 3, 7, generator=generator("far")).permute(3, 2, 1, 0)
    ours, theirs = leaves(spread, windows), leaves(images, windows)
    assert ours[0].stride() == spread.stride()
    found = attention_crop(*ours, OUT, image_index=INDEX)
    expected = attention_crop(*theirs, OUT, image_index=INDEX)
    assert torch.equal(found, expected)
    grads = torch.autograd.grad(found, ours, grad_output)
    others = torch.autograd.grad(expected, theirs, grad_output.contiguous())
    for grad, other in zip(grads, others, strict=True):
        assert torch.equal(grad, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_index": 3}, "image_index must be a torch.Tensor, got int"),
        ({"image_index": INDEX.float()}, "image_index must be int32 or int64, got torch.float32"),
        (
            {"image_index": INDEX[:5]},
            r"image_index must have one value for each window, \(7,\), got \(5,\)",
        ),
        (
            {"image_index": INDEX.to("meta")},
            "image_index must be on the device of windows: got meta for windows on cpu",
        ),
        (
            {"windows": torch.zeros(7, 2, 4)},
            r"windows must have shape \(N, 3\) for tx, ty, tl, \(N, 4\) for tx, ty, tw, th, got \(7, 2, 4\)",
        ),
        (
            {"flip": torch.zeros(5, dtype=torch.bool)},
            r"flip must have one value for each window, \(7,\), got \(5,\)",
        ),
    ],
)
def test_errors(change: dict[str, Any], message: str) -> None:
    images, windows = inputs()
    arguments = {"windows": windows, "image_index": INDEX} | change
    for crop in (attention_crop, reference.attention_crop):
        with pytest.raises((TypeError, ValueError), match=message):
            crop(images, output_size=OUT, **arguments)
