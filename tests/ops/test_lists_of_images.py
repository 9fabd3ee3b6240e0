# SPDX-License-Identifier: BSD-3-Clause
"""Lists: images of different sizes, and a different number of windows for each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import generator
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from racnn_ops import AttentionCrop, attention_crop, reference
from racnn_ops._options import IMAGE_DTYPES

OUT = (7, 10)
SIZES = ((40, 53), (9, 120), (64, 31), (1, 1), (200, 180))
COUNTS = (3, 0, 4, 1, 2)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "antialias": {"antialias": True},
    "area": {"interpolation": "area", "boundary": "border"},
    "mask": {"mask_steepness": 0.4},
    "boxcar": {"window_grad": "boxcar"},
    "normalised": {"mean": 0.3, "std": 0.5, "fill": 0.2},
    "bfloat16": {"dtype": torch.bfloat16},
    "channels_last": {"memory_format": torch.channels_last},
    "flip": {"flip": torch.arange(sum(COUNTS)) % 3 == 0},
}


def inputs(
    dtype: torch.dtype = torch.float32,
    channels: int = 3,
    sizes: Any = SIZES,
    counts: Any = COUNTS,
) -> tuple[list[Tensor], list[Tensor]]:
    of = generator("lists")
    images, windows = [], []
    for (height, width), count in zip(sizes, counts, strict=True):
        image = torch.rand(channels, height, width, generator=of, dtype=torch.float64)
        images.append(image.to(dtype) if dtype.is_floating_point else (image * 255).to(dtype))
        shares = torch.rand(count, 4, generator=of, dtype=torch.float64)
        shares = shares * torch.tensor([1.2, 1.2, 0.5, 0.5]) + torch.tensor([-0.1, -0.1, 0.02, 0.02])
        own = shares * torch.tensor([width, height, width, height])
        windows.append(own.to(torch.float64 if dtype == torch.float64 else torch.float32))
    return images, windows


def one_by_one(images: list[Tensor], windows: list[Tensor], **options: Any) -> Tensor:
    flip = options.pop("flip", None)
    crops, at = [], 0
    for image, own in zip(images, windows, strict=True):
        flips = {} if flip is None else {"flip": flip[None, at : at + len(own)]}
        crops.append(attention_crop(image[None], own[None], OUT, **flips, **options)[0])
        at += len(own)
    return torch.cat(crops)


def leaves(*lists: list[Tensor]) -> tuple[list[Tensor], ...]:
    return tuple(
        [each.detach().clone().requires_grad_(each.is_floating_point()) for each in one] for one in lists
    )


@pytest.mark.parametrize("channels", [1, 3, 40])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_crops_and_their_gradients_are_those_one_by_one(options: dict[str, Any], channels: int) -> None:
    lists = inputs(channels=channels)
    ours, theirs = leaves(*lists), leaves(*lists)
    found = attention_crop(*ours, OUT, **options)
    expected = one_by_one(*theirs, **options)
    assert found.shape == (sum(COUNTS), channels, *OUT)
    assert torch.equal(found, expected)
    assert torch.equal(found, attention_crop(*map(tuple, lists), OUT, **options))
    assert found.is_contiguous(memory_format=options.get("memory_format", torch.contiguous_format))
    grad_output = torch.rand(found.shape, generator=generator("grad")).to(found.dtype)
    grads = torch.autograd.grad(found, ours[0] + ours[1], grad_output)
    others = torch.autograd.grad(expected, theirs[0] + theirs[1], grad_output)
    for grad, other in zip(grads, others, strict=True):
        assert torch.equal(grad, other)


@pytest.mark.parametrize("dtype", [*IMAGE_DTYPES, torch.int32], ids=str)
def test_every_dtype(dtype: torch.dtype) -> None:
    options = {"interpolation": "nearest"} if dtype == torch.int32 else {}
    images, windows = inputs(dtype)
    found = attention_crop(images, windows, OUT, **options)
    assert torch.equal(found, one_by_one(images, windows, **options))
    assert found.dtype == dtype


def test_layouts_of_their_own() -> None:
    images, windows = inputs()
    last = [image.permute(1, 2, 0).contiguous().permute(2, 0, 1) for image in images]
    mixed = [image if n % 2 else other for n, (image, other) in enumerate(zip(images, last, strict=True))]
    turned = [torch.empty(image.shape[::-1]).permute(2, 1, 0).copy_(image) for image in images]
    expected = attention_crop(images, windows, OUT)
    for layout, channels_last in ((last, True), (mixed, False), (turned, False)):
        if channels_last:
            layout = [image for image in layout if image.shape[1:] != (1, 1)]
        pairs = [own for own, size in zip(windows, SIZES, strict=True) if not channels_last or size != (1, 1)]
        ours = leaves(layout, pairs)
        for image, leaf in zip(layout, ours[0], strict=True):
            assert image.stride() == leaf.stride()
        found = attention_crop(*ours, OUT)
        assert found.is_contiguous(memory_format=torch.channels_last) == channels_last
        if not channels_last:
            assert torch.equal(found, expected)
        for grad, image in zip(torch.autograd.grad(found.sum(), ours[0]), ours[0], strict=True):
            assert grad.shape == image.shape


def test_windows_by_index() -> None:
    images, lists = inputs()
    windows = torch.cat(lists)
    index = torch.arange(5).repeat_interleave(torch.tensor(COUNTS))
    expected = attention_crop(images, lists, OUT)
    shuffle = torch.randperm(len(index), generator=generator("shuffle"))
    ours = leaves(images, [windows[shuffle]])
    found = attention_crop(ours[0], ours[1][0], OUT, image_index=index[shuffle].int())
    assert torch.equal(found, expected[shuffle])
    by_reference = reference.attention_crop(images, windows[shuffle], OUT, image_index=index[shuffle])
    torch.testing.assert_close(found, by_reference, rtol=1e-4, atol=1e-4)
    grad_output = torch.rand(found.shape, generator=generator("grad"))
    grads = torch.autograd.grad(found, ours[0] + ours[1], grad_output)
    theirs = leaves(images, lists)
    others = torch.autograd.grad(
        attention_crop(*theirs, OUT), theirs[0] + theirs[1], grad_output[shuffle.argsort()]
    )
    for grad, other in zip(grads[:5], others[:5], strict=True):
        torch.testing.assert_close(grad, other)
    assert torch.equal(grads[5], torch.cat(others[5:])[shuffle])
    index[1], index[4] = -1, 5
    crops = attention_crop(*ours[:1], ours[1][0], OUT, image_index=index)
    lost = torch.tensor([n in (1, 4) for n in range(len(index))])
    assert torch.equal(crops.isnan().flatten(1).all(1), lost)
    (of_windows,) = torch.autograd.grad(crops.sum(), ours[1])
    assert not of_windows[lost].any()


def test_a_batch_with_a_list_of_windows() -> None:
    images = torch.rand(5, 3, 40, 53, generator=generator("batch"))
    _, windows = inputs(sizes=((40, 53),) * 5)
    found = attention_crop(images, windows, OUT)
    assert torch.equal(found, attention_crop(list(images), windows, OUT))
    flip = torch.arange(sum(COUNTS)) % 2 == 0
    flipped = attention_crop(images, windows, OUT, flip=flip)
    assert torch.equal(flipped, reference.mirrored(found, flip))
    compiled = torch.compile(attention_crop, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(images, windows, OUT), found)


def test_a_hundred_images_of_a_hundred_sizes() -> None:
    of = generator("sizes")
    sizes = torch.randint(1, 90, (100, 2), generator=of).tolist()
    counts = torch.randint(0, 4, (100,), generator=of).tolist()
    lists = inputs(sizes=sizes, counts=counts)
    ours, theirs = leaves(*lists), leaves(*lists)
    found, expected = attention_crop(*ours, OUT), one_by_one(*theirs)
    assert torch.equal(found, expected)
    grads = torch.autograd.grad(found.square().sum(), ours[0] + ours[1])
    others = torch.autograd.grad(expected.square().sum(), theirs[0] + theirs[1])
    assert all(map(torch.equal, grads, others))


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_list_agrees_with_the_reference(data: st.DataObject) -> None:
    side = st.integers(1, 25)
    sizes = data.draw(st.lists(st.tuples(side, side), min_size=1, max_size=5))
    counts = [data.draw(st.integers(0, 3)) for _ in sizes]
    options = data.draw(st.sampled_from([{}, {"antialias": True}, {"boundary": "clip"}]))
    lists = inputs(torch.float64, data.draw(st.integers(1, 18)), sizes, counts)
    ours, theirs = leaves(*lists), leaves(*lists)
    found = attention_crop(*ours, OUT, **options)
    expected = reference.attention_crop(*theirs, OUT, **options)
    torch.testing.assert_close(found, expected)
    grads = torch.autograd.grad(found, ours[0] + ours[1], torch.ones_like(found))
    others = torch.autograd.grad(expected, theirs[0] + theirs[1], torch.ones_like(found))
    for grad, other in zip(grads, others, strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-6, atol=1e-8)


def test_derivatives_of_any_order() -> None:
    images, windows = leaves(*inputs(torch.float64, 1, ((6, 7), (5, 9)), (1, 2)))

    def crop(*tensors: Tensor) -> Tensor:
        return attention_crop(tensors[:2], tensors[2:], (3, 4))

    assert gradcheck(crop, (*images, *windows), check_forward_ad=True)
    assert gradgradcheck(crop, (*images, *windows))
    along = torch.func.jvp(crop, (*images, *windows), (*images, *windows))[1]
    assert along.shape == (3, 1, 3, 4)


def test_module_compiled() -> None:
    module = AttentionCrop(OUT)
    lists = inputs()
    ours, theirs = leaves(*lists), leaves(*lists)
    found = torch.compile(module, fullgraph=True, backend="aot_eager")(*ours)
    expected = module(*theirs)
    assert torch.equal(found, expected)
    grads = torch.autograd.grad(found.sum(), ours[0] + ours[1])
    others = torch.autograd.grad(expected.sum(), theirs[0] + theirs[1])
    assert all(map(torch.equal, grads, others))


IMAGE = torch.zeros(3, 8, 9)
WINDOW = torch.ones(2, 4)


@pytest.mark.parametrize(
    ("images", "windows", "options", "message"),
    [
        ([], [], {}, r"images must be a list of at least one tensor, got \[\]"),
        ([IMAGE, 3], [WINDOW] * 2, {}, r"images\[1\] must be a torch.Tensor, got int"),
        ([IMAGE, IMAGE[0]], [WINDOW] * 2, {}, r"images\[1\] must have shape \(C, H, W\), got \(8, 9\)"),
        (
            [IMAGE[:, :0]],
            [WINDOW],
            {},
            r"images\[0\] must be at least 1 pixel high and wide, got \(3, 0, 9\)",
        ),
        (
            [IMAGE, IMAGE.half()],
            [WINDOW] * 2,
            {},
            r"images must share one dtype: got torch.float16 in images\[1\] behind torch.float32",
        ),
        (
            [IMAGE, IMAGE.to("meta")],
            [WINDOW] * 2,
            {},
            r"images must share one device: got meta in images\[1\] behind cpu",
        ),
        (
            [IMAGE, IMAGE[:2]],
            [WINDOW] * 2,
            {},
            r"images must have the same number of channels: got \(2, 8, 9\) in images\[1\] behind",
        ),
        ([IMAGE], WINDOW, {}, "windows must be a list with a list of images, or have an image_index"),
        (
            [IMAGE, IMAGE],
            [WINDOW],
            {},
            "windows must be a list of one tensor for each of the images, 2, got 1",
        ),
        (
            [IMAGE, IMAGE],
            [WINDOW, WINDOW[:, :3]],
            {},
            r"windows must all hold 3 or all hold 4 numbers: got \(2, 3\) in windows\[1\] behind \(2, 4\)",
        ),
        (
            [IMAGE],
            [torch.ones(1, 2, 4)],
            {},
            r"windows\[0\] must have shape \(K, 3\) for tx, ty, tl, \(K, 4\) for .* got \(1, 2, 4\)",
        ),
        ([IMAGE], [WINDOW.double()], {}, r"windows\[0\] must be float32 with float32 images"),
        (
            [IMAGE],
            [WINDOW],
            {"image_index": torch.zeros(2, dtype=torch.int64)},
            "image_index must be None with a list of windows",
        ),
        ([IMAGE], [WINDOW], {"mean": (0.1, 0.2)}, r"mean must be one number or one per channel \(3\)"),
    ],
)
def test_errors(images: Any, windows: Any, options: dict[str, Any], message: str) -> None:
    for crop in (attention_crop, reference.attention_crop):
        with pytest.raises((TypeError, ValueError), match=message):
            crop(images, windows, OUT, **options)
