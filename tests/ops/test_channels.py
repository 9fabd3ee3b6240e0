# SPDX-License-Identifier: BSD-3-Clause
"""Small crops of maps with many channels, which the CPU kernels compute by groups of channels."""

from __future__ import annotations

import pytest
import torch
from samples import generator

from racnn_ops import attention_crop, reference

pytestmark = pytest.mark.every_instruction_set

# Of maps that are turned once for all windows, and of larger ones, of which what a window reads is turned;
# whole groups of channels and others; more windows than are taken at a time; windows that skip rows.
MAPS = [
    ((2, 32, 56, 56), 4, (7, 7)),
    ((1, 37, 14, 13), 70, (7, 9)),
    ((2, 3, 28, 28), 8, (8, 8)),
    ((1, 20, 100, 120), 3, (6, 5)),
    ((2, 16, 64, 24), 1, (5, 16)),
    ((1, 16, 2, 3), 2, (30, 20)),
]
OPTIONS = [
    {},
    {"boundary": "border"},
    {"boundary": "clip", "mask_steepness": 0.7},
    {"interpolation": "bicubic"},
    {"interpolation": "bilinear", "antialias": True},
    {"mean": 0.3, "std": 0.2, "interpolation": "bilinear", "fill": 0.1},
]


def sample(shape: tuple[int, ...], count: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    g = generator(shape, count)
    batch, _, height, width = shape
    images = torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)
    sides = torch.tensor([width, height, width, height], dtype=torch.float64)
    low = torch.tensor([0.2, 0.2, 0.06, 0.06])
    windows = (
        low + torch.rand((batch, count, 4), generator=g, dtype=torch.float64) * 0.5 * (1 - low)
    ) * sides
    windows[0, 0, 0] += width  # beyond the edge
    return images, windows.to(torch.float64 if dtype == torch.float64 else torch.float32)


def results(crop, images: torch.Tensor, windows: torch.Tensor, out: tuple[int, int], grad, **options: object):
    images, windows = images.clone().requires_grad_(), windows.clone().requires_grad_()
    crops = crop(images, windows, out, **options)
    return crops, *torch.autograd.grad(crops, (images, windows), grad.to(crops.dtype).expand_as(crops))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("shape", "count", "out"), MAPS)
def test_agrees_with_reference(device: str, shape, count: int, out, options) -> None:
    images, windows = (t.to(device) for t in sample(shape, count, torch.float32))
    grad = torch.randn(out, generator=generator(out)).to(device)  # expanded over windows and channels
    ours = results(attention_crop, images, windows, out, grad, **options)
    theirs = results(reference.attention_crop, images.double(), windows.double(), out, grad, **options)
    for value, expected in zip(ours, theirs, strict=True):
        scale = expected.abs().amax().clamp(min=1.0)
        torch.testing.assert_close(value.double() / scale, expected / scale, rtol=0.0, atol=3e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("shape", "count", "out"), MAPS)
def test_a_channel_alone_gives_the_same_bits(device: str, shape, count: int, out, dtype: torch.dtype) -> None:
    images, windows = (t.to(device) for t in sample(shape, count, dtype))
    crops = attention_crop(images, windows, out)
    for c in range(shape[1]):
        assert torch.equal(attention_crop(images[:, c : c + 1], windows, out), crops[:, :, c : c + 1])


@pytest.mark.parametrize(("shape", "count", "out"), MAPS)
def test_windows_that_are_not_finite(device: str, shape, count: int, out) -> None:
    images, windows = (t.to(device) for t in sample(shape, count, torch.float32))
    grad = torch.ones(out, device=device)
    expected = results(attention_crop, images, windows, out, grad)
    windows = torch.cat([windows, windows[:, :1]], dim=1)
    windows[:, -1, 2] = torch.nan
    crops, grad_images, grad_windows = results(attention_crop, images, windows, out, grad)
    assert crops[:, -1].isnan().all()
    assert torch.equal(crops[:, :-1], expected[0])
    assert torch.equal(grad_images, expected[1])
    assert torch.equal(grad_windows[:, :-1], expected[2])


def test_what_is_not_read_has_no_part(device: str) -> None:
    images, windows = (
        torch.ones(1, 16, 20, 20, device=device),
        torch.tensor([[10.0, 10.0, 4.0]], device=device),
    )
    images[:, :, 0] = torch.inf
    images[:, :, :, 19] = torch.nan
    crops, grad_images, grad_windows = results(attention_crop, images, windows, (6, 6), torch.ones(6, 6))
    assert (crops == 1).all()
    assert grad_images.isfinite().all()
    assert grad_windows.isfinite().all()
    # A row beyond the image: its gradient, NaN, has no part.
    windows = torch.tensor([[10.0, 24.0, 4.0, 6.0]], device=device)
    grad = torch.ones(6, 6, device=device)
    grad[-1] = torch.nan
    images.nan_to_num_(0.0, 0.0, 0.0)
    _, grad_images, grad_windows = results(attention_crop, images, windows, (6, 6), grad)
    assert grad_images.isfinite().all()
    assert grad_windows.isfinite().all()
