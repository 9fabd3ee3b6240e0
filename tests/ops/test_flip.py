# SPDX-License-Identifier: BSD-3-Clause
"""``flip``: crops mirrored left-right are, to the bit, mirrored crops, whatever makes them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from samples import generator
from torch import Tensor
from torch.autograd import gradcheck

from racnn_ops import AttentionCrop, attention_crop, reference
from racnn_ops._options import SELECTED_DTYPES

OUT = (7, 10)
FLIP = torch.tensor([[True, False], [True, True], [False, True]])
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8)
# name -> options: two entries a tap, runs of any length by bands and by cells, and what else changes a row.
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "border": {"boundary": "border"},
    "clip": {"boundary": "clip"},
    "window": {"boundary": "window"},
    "mask": {"mask_steepness": 0.4},
    "nearest": {"interpolation": "nearest"},
    "bicubic": {"interpolation": "bicubic"},
    "antialias": {"antialias": True},
    "lanczos3": {"interpolation": "lanczos3"},
    "area": {"interpolation": "area"},
    "fill": {"fill": 7.0},
    "contiguous": {"memory_format": torch.contiguous_format},
    "channels_last": {"memory_format": torch.channels_last},
}


def inputs(
    dtype: torch.dtype = torch.float32, channels: int = 3, size: tuple[int, int] = (40, 53)
) -> tuple[Tensor, Tensor]:
    """Images and windows that lie inside, over the edges and outside."""
    of = generator("flip")
    images = torch.rand(3, channels, *size, generator=of, dtype=torch.float64)
    height, width = size
    shares = torch.tensor(
        [
            [[0.5, 0.4, 0.2, 0.3], [0.1, 0.9, 0.3, 0.2]],
            [[0.6, 0.5, 0.6, 0.7], [0.52, 0.48, 0.08, 0.07]],
            [[1.9, 0.5, 0.2, 0.2], [0.4, 0.6, 0.4, 0.3]],
        ]
    )
    windows = shares * torch.tensor([width, height, width, height])
    images = (images * 255).to(dtype) if dtype == torch.uint8 else images.to(dtype)
    return images, windows.to(torch.float64 if dtype == torch.float64 else torch.float32)


def mirrored(crops: Tensor, flip: Tensor) -> Tensor:
    return torch.stack([crop.flip(-1) if it else crop for crop, it in zip(crops, flip, strict=True)])


def check(images: Tensor, windows: Tensor, flip: Tensor, **options: Any) -> None:
    crops = attention_crop(images, windows, OUT, **options)
    found = attention_crop(images, windows, OUT, flip=flip, **options)
    assert found.stride() == crops.stride()
    assert found.dtype == crops.dtype
    if flip.dim() == 2:
        crops, found, flip = crops.flatten(0, 1), found.flatten(0, 1), flip.flatten()
    assert torch.equal(found, mirrored(crops, flip))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_mirrored_crops_are_crops_mirrored(options: dict[str, Any], dtype: torch.dtype) -> None:
    for channels, layout in itertools.product((1, 3, 20), (torch.contiguous_format, torch.channels_last)):
        images, windows = inputs(dtype, channels)
        images = images.contiguous(memory_format=layout)
        check(images, windows, FLIP, **options)
        check(images, windows[:, 0], FLIP[:, 0], **options)


@pytest.mark.parametrize("size", [(9, 11), (150, 211)], ids=str)
def test_enlarged_and_strongly_reduced(size: tuple[int, int]) -> None:
    for options, channels in itertools.product(
        ({}, {"antialias": True}, {"interpolation": "area"}), (1, 3, 32)
    ):
        images, windows = inputs(channels=channels, size=size)
        check(images, windows, FLIP, **options)
        check(images.permute(0, 1, 3, 2), windows, FLIP, **options)


@pytest.mark.parametrize("dtype", SELECTED_DTYPES, ids=str)
def test_selected_dtypes(dtype: torch.dtype) -> None:
    images, windows = inputs()
    check((images * 100).to(dtype), windows, FLIP, interpolation="nearest")


def test_three_numbers_a_window_and_normalised_frames() -> None:
    images, windows = inputs(torch.uint8)
    frames = images.contiguous(memory_format=torch.channels_last)
    options = {"mean": (0.4, 0.5, 0.6), "std": 0.2, "memory_format": torch.contiguous_format}
    check(frames, windows[..., :3].contiguous(), FLIP, **options)
    check(frames, windows[..., :3].contiguous(), FLIP, dtype=torch.bfloat16, antialias=True, **options)


def test_the_reference_agrees() -> None:
    images, windows = inputs(torch.float64)
    found = attention_crop(images, windows, OUT, flip=FLIP)
    torch.testing.assert_close(found, reference.attention_crop(images, windows, OUT, flip=FLIP))


def test_gradients() -> None:
    images, windows = inputs(torch.float64, channels=1, size=(8, 9))
    windows = windows + 0.037  # off the kinks
    images.requires_grad_()
    windows.requires_grad_()

    def crop(images: Tensor, windows: Tensor) -> Tensor:
        return attention_crop(images, windows, (3, 4), flip=FLIP)

    assert gradcheck(crop, (images, windows))
    crops = crop(images, windows)
    assert torch.equal(crops.detach(), crop(images.detach(), windows.detach()))
    plain = attention_crop(images, windows, (3, 4))
    grad_output = torch.rand(crops.shape, generator=generator("grad"), dtype=torch.float64)
    turned = reference.mirrored(grad_output, FLIP)
    found = torch.autograd.grad(crops, (images, windows), grad_output)
    expected = torch.autograd.grad(plain, (images, windows), turned)
    assert all(map(torch.equal, found, expected))


def test_boxcar_gradient_looks_at_the_mirrored_gradient() -> None:
    images, windows = inputs()
    windows.requires_grad_()
    grad_output = torch.rand(3, 2, 3, *OUT, generator=generator("boxcar"))
    options = {"window_grad": "boxcar"}
    crops = attention_crop(images, windows, OUT, flip=FLIP, **options)
    plain = attention_crop(images, windows, OUT, **options)
    (found,) = torch.autograd.grad(crops, windows, grad_output)
    (expected,) = torch.autograd.grad(plain, windows, reference.mirrored(grad_output, FLIP))
    assert torch.equal(found, expected)


def test_module_compile_and_vmap() -> None:
    images, windows = inputs()
    expected = attention_crop(images, windows, OUT, flip=FLIP)
    module = AttentionCrop(OUT)
    assert torch.equal(module(images, windows, FLIP), expected)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(images, windows, FLIP), expected)
    windows.requires_grad_()
    assert torch.equal(compiled(images, windows, FLIP), expected)
    windows = windows.detach()
    each = torch.func.vmap(lambda i, w, f: attention_crop(i[None], w[None], OUT, flip=f[None])[0])
    assert torch.equal(each(images, windows, FLIP), expected)


def test_export_knows_flip_as_torch_does() -> None:
    images, windows = inputs()
    program = torch.export.export(AttentionCrop(OUT), (images, windows, FLIP))
    assert torch.equal(
        program.module()(images, windows, FLIP), attention_crop(images, windows, OUT, flip=FLIP)
    )
    assert any("flip" in str(node.target) for node in program.graph.nodes)


def test_windows_that_are_not_finite_stay_nan() -> None:
    images, windows = inputs()
    windows[0, 0, 0] = torch.nan
    found = attention_crop(images, windows, OUT, flip=FLIP)
    assert found[0, 0].isnan().all()
    assert found[0, 1].isfinite().all()


@pytest.mark.parametrize(
    ("flip", "message"),
    [
        (torch.ones(3, 2), "flip must be bool, got torch.float32"),
        (
            torch.ones(3, dtype=torch.bool),
            r"flip must have one value for each window, \(3, 2\), got \(3,\)",
        ),
        (True, "flip must be a torch.Tensor, got bool"),
        (
            torch.ones(3, 2, dtype=torch.bool, device="meta"),
            "flip must be on the device of windows: got meta",
        ),
    ],
)
def test_errors(flip: Any, message: str) -> None:
    images, windows = inputs()
    for crop in (attention_crop, reference.attention_crop):
        with pytest.raises((TypeError, ValueError), match=message):
            crop(images, windows, OUT, flip=flip)


def test_gradients_of_the_private_operators_take_no_flip() -> None:
    images, windows = inputs()
    five = torch.cat((windows, FLIP.unsqueeze(-1).float()), -1)
    grad_output = torch.rand(3, 2, 3, *OUT)
    operators = torch.ops.racnn_ops
    with pytest.raises(ValueError, match="windows must hold 3 or 4 numbers each"):
        operators._crop_window_grad(grad_output, images, five, "zeros", None, [], [])
    with pytest.raises(ValueError, match="windows must hold 3 or 4 numbers each"):
        operators._crop_image_grad(grad_output, five, 40, 53, "zeros", None, [], False, torch.float32)
