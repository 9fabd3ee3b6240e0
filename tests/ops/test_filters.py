# SPDX-License-Identifier: BSD-3-Clause
"""Every filter against independent implementations: torch's, PIL's, torchvision's, and integrals."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from samples import FILTERS, check_vmap_and_compile, each_filter, generator
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from racnn_ops import AttentionCrop, attention_crop, reference
from racnn_ops._filters import ANTIALIASED, sum_of_weights

SIZE = (23, 31)
OUTS = [(7, 9), SIZE, (40, 50), (5, 60), (1, 1)]
WHOLE = (0.0, 0.0, 31.0, 23.0)
SLICE = (5.0, 3.0, 27.0, 20.0)


def image(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(1, 2, *SIZE, generator=generator("filters"), dtype=torch.float64).to(dtype)


def window(box: tuple[float, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    """(1, 4) from left, top, right, bottom."""
    left, top, right, bottom = box
    values = [(left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2]
    return torch.tensor([values], dtype=dtype)


@pytest.mark.parametrize("out", OUTS, ids=str)
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("nearest-exact", {"interpolation": "nearest"}),
        ("bilinear", {"interpolation": "bilinear"}),
        ("bicubic", {"interpolation": "bicubic"}),
        ("bilinear", {"interpolation": "bilinear", "antialias": True}),
        ("bicubic", {"interpolation": "bicubic", "antialias": True}),
    ],
    ids=str,
)
def test_agrees_with_interpolate(mode: str, options: dict[str, Any], out: tuple[int, int]) -> None:
    images = image()
    arguments: dict[str, Any] = {"size": out, "mode": mode, "antialias": options.get("antialias", False)}
    if mode != "nearest-exact":
        arguments["align_corners"] = False
    for box, boundary in ((WHOLE, "border"), (WHOLE, "clip"), (WHOLE, "window"), (SLICE, "window")):
        left, top, right, bottom = (int(edge) for edge in box)
        expected = nn.functional.interpolate(images[..., top:bottom, left:right], **arguments)
        crops = attention_crop(images, window(box), out, boundary=boundary, **options)
        torch.testing.assert_close(crops, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("crop", [attention_crop, reference.attention_crop], ids=["kernels", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_nearest_at_whole_reductions(dtype: torch.dtype, crop: Any) -> None:
    """Between two pixels the right one, for every output: no rounding of a position decides."""
    for out, reduction in itertools.product(range(1, 65), (2, 4, 6)):
        size = out * reduction
        images = torch.arange(size, dtype=dtype).view(1, 1, 1, size)
        windows = torch.tensor([[size / 2, 0.5, size / 2, 0.5]], dtype=dtype)
        expected = nn.functional.interpolate(images, (1, out), mode="nearest-exact")
        crops = crop(images, windows, (1, out), interpolation="nearest")
        assert torch.equal(crops, expected), (size, out)


@pytest.mark.parametrize("box", [WHOLE, (2.25, 1.75, 28.5, 20.875), (4.125, 5.25, 9.875, 11.25)], ids=str)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos3"])
def test_agrees_with_pil(interpolation: str, box: tuple[float, ...]) -> None:
    """Boxes with fractions; PIL computes in float32 here."""
    images = image(torch.float32)[:, :1]
    picture = Image.fromarray(images[0, 0].numpy(), mode="F")
    mode = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    for height, width in ((7, 9), (30, 40), (3, 2)):
        resized = picture.resize((width, height), mode.get(interpolation, Image.Resampling.LANCZOS), box=box)
        options: dict[str, Any] = {"interpolation": interpolation, "antialias": True, "boundary": "border"}
        crops = attention_crop(images.double(), window(box), (height, width), **options)
        expected = torch.from_numpy(np.array(resized)).double()
        torch.testing.assert_close(crops[0, 0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", [InterpolationMode.BILINEAR, InterpolationMode.BICUBIC], ids=str)
def test_agrees_with_resized_crop(mode: InterpolationMode) -> None:
    images = image(torch.float32)
    left, top, right, bottom = (int(edge) for edge in SLICE)
    for out in OUTS:
        expected = transforms.resized_crop(
            images, top, left, bottom - top, right - left, list(out), interpolation=mode, antialias=True
        )
        options: dict[str, Any] = {"interpolation": mode.value, "antialias": True, "boundary": "window"}
        crops = attention_crop(images, window(SLICE, torch.float32), out, **options)
        torch.testing.assert_close(crops, expected, rtol=0, atol=1e-5)


def interpolant(size: int, position: Tensor, first: int, last: int, zeros: bool) -> Tensor:
    """The weights (n, size) of linear interpolation at positions (n,), in pixels, by definition."""
    below = (position - 0.5).floor()
    weights = torch.zeros(len(position), size, dtype=torch.float64)
    for step, weight in ((0, 1 - (position - 0.5 - below)), (1, position - 0.5 - below)):
        pixel = below + step
        inside = (pixel >= 0) & (pixel < size)
        pixel = pixel if zeros else pixel.clamp(first, last)
        kept = torch.where(inside, weight, 0.0) if zeros else weight
        weights.scatter_add_(1, pixel.clamp(0, size - 1).long()[:, None], kept[:, None])
    return weights


@pytest.mark.parametrize("boundary", ["zeros", "border", "window"])
@pytest.mark.parametrize(
    ("centre", "half", "size", "out"),
    [
        *[(10.3, 6.2, 23, 5), (2.1, 7.7, 23, 4), (20.2, 9.9, 23, 7), (11.0, 40.0, 23, 3)],
        *[(5.2, 0.4, 9, 4), (0.4, 3.3, 1, 3), (-30.0, 5.0, 9, 3), (4.3, 1e-4, 9, 2), (4.3, 0.0, 9, 2)],
    ],
)
def test_area_is_the_integral_of_the_interpolant(
    centre: float, half: float, size: int, out: int, boundary: str
) -> None:
    """PrRoIPool's definition, by the midpoint rule."""
    lines = torch.eye(size, dtype=torch.float64)[:, None, None].transpose(0, 1)  # (1, size, 1, size)
    windows = torch.tensor([[centre, 0.5, half, 0.0]], dtype=torch.float64)
    crops = attention_crop(lines, windows, (1, out), interpolation="area", boundary=boundary)
    actual = crops[0, :, 0].T
    first, last = 0, size - 1
    if boundary == "window":
        first = min(max(math.floor(centre - half), 0), size - 1)
        last = max(first, min(math.ceil(centre + half), size) - 1)
    count = 20001
    for j in range(out):
        middle, r = centre + half * ((2 * j + 1) / out - 1), half / out
        steps = (2 * torch.arange(count, dtype=torch.float64) + 1) / count - 1
        weights = interpolant(size, middle + r * steps, first, last, boundary == "zeros")
        torch.testing.assert_close(actual[j], weights.mean(0), rtol=0, atol=1e-4 if half < 1e-2 else 2e-8)


def test_area_is_the_limit_of_roi_align() -> None:
    images, windows = image(), window((4.3, 6.1, 25.2, 18.7))
    boxes = [torch.tensor([[4.3, 6.1, 25.2, 18.7]], dtype=torch.float64)]
    expected = torchvision.ops.roi_align(images, boxes, (4, 5), sampling_ratio=400, aligned=True)
    crops = attention_crop(images, windows, (4, 5), interpolation="area", boundary="border")
    torch.testing.assert_close(crops, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("stretch", [1.0, 1.3, 7.9, 15.99, 16.0, 63.1, 1000.0])
@pytest.mark.parametrize("name", ANTIALIASED)
def test_sum_of_weights(name: str, stretch: float) -> None:
    filter = ANTIALIASED[name]
    positions = torch.linspace(-3.7, 5.1, 23, dtype=torch.float64)
    reach = int(filter.radius * stretch) + 8
    x = torch.arange(-reach, reach + 1, dtype=torch.float64) + 0.5
    summed = filter.weight((positions[:, None] - x) / stretch).sum(1)
    found = sum_of_weights(filter, positions, torch.full_like(positions, stretch))
    torch.testing.assert_close(found, summed, rtol=2e-11, atol=0)


def cases() -> list[Any]:
    found = []
    for options in FILTERS[1:]:
        for boundary in ("zeros", "border", "clip", "window"):
            if options == {"interpolation": "bilinear"} and boundary != "window":
                continue  # two taps: test_gradients.py
            for mask_steepness in (None, 0.4) if boundary == "zeros" else (0.4,):
                case = {**options, "boundary": boundary, "mask_steepness": mask_steepness}
                found.append(pytest.param(case, id="-".join(map(str, case.values()))))
    return found


@pytest.mark.parametrize("options", cases())
def test_gradcheck(options: dict[str, Any]) -> None:
    """Windows inside, over the edge and larger than the image; away from kinks."""
    images = torch.rand(1, 1, 9, 11, generator=generator("gradcheck"), dtype=torch.float64)
    windows = torch.tensor(
        [[[4.31, 3.77, 2.13], [9.13, 2.21, 6.37], [0.23, 7.93, 1.19]]], dtype=torch.float64
    )
    inputs = images.requires_grad_(), windows.requires_grad_()

    def crop(images: Tensor, windows: Tensor) -> Tensor:
        return attention_crop(images, windows, (3, 2), **options)

    assert torch.autograd.gradcheck(crop, inputs)
    assert torch.autograd.gradcheck(
        crop, inputs, check_forward_ad=True, check_backward_ad=False, fast_mode=True
    )
    if options["interpolation"] != "bilinear" and options["boundary"] == "border":
        assert torch.autograd.gradgradcheck(crop, inputs)


@pytest.mark.parametrize(
    "options", [{"interpolation": "area"}, {"interpolation": "bicubic", "antialias": True}], ids=str
)
def test_gradient_goes_through_a_change_of_the_number_of_taps(options: dict[str, Any]) -> None:
    """tl from where an output reads some pixels to where it reads more: the difference is the integral."""
    images = image()
    half = torch.linspace(5.0, 9.0, 4001, dtype=torch.float64)
    windows = torch.stack((torch.full_like(half, 15.3), torch.full_like(half, 11.7), half), -1)[None]
    windows.requires_grad_()
    crops = attention_crop(images, windows, 3, boundary="border", **options).square().sum((2, 3, 4))[0]
    (gradient,) = torch.autograd.grad(crops.sum(), windows)
    integral = torch.trapezoid(gradient[0, :, 2], half)
    torch.testing.assert_close(integral, crops[-1] - crops[0], rtol=1e-5, atol=0)


@each_filter
def test_hostile_windows(options: dict[str, Any]) -> None:
    """Far, tiny, huge, not finite: finite crops, NaN where the window is, and no other crop changed."""
    nan = float("nan")
    plain = [15.0, 11.0, 6.0]
    hostile = [[3e38, 11, 6], [15, 11, 1e-30], [15, 11, -3], [15, 11, 1e6], [15, 11, 3e38], [nan, 11, 6]]
    windows = torch.tensor([[plain, *hostile]]).requires_grad_()
    images = image(torch.float32).requires_grad_()
    crops = attention_crop(images, windows, (4, 5), **options)
    assert crops[0, :-1].isfinite().all()
    assert crops[0, -1].isnan().all()
    alone = attention_crop(images, windows[:, :1], (4, 5), **options)
    torch.testing.assert_close(crops[:, :1], alone)
    of_images, of_windows = torch.autograd.grad(crops[0, :-1].sum(), (images, windows))
    assert of_images.isfinite().all()
    assert of_windows[0, :-1].isfinite().all()
    (lost,) = torch.autograd.grad(attention_crop(images, windows, 2, **options).sum(), windows)
    assert lost[0, -1].isnan().all()
    assert lost[0, :-1].isfinite().all()


@each_filter
def test_a_pixel_reaches_only_what_reads_it(options: dict[str, Any]) -> None:
    images = image()
    images[0, 0, 11, 15] = torch.nan
    windows = torch.tensor([[[15.2, 11.3, 4.0], [25.0, 4.0, 3.0]]], dtype=torch.float64)
    crops = attention_crop(images, windows, 3, **options)
    assert crops[0, 0, 0].isnan().any()
    assert crops[0, 0, 1].isfinite().all()
    assert crops[0, 1].isfinite().all()


@each_filter
def test_dtypes_layouts_and_modules(options: dict[str, Any]) -> None:
    images = (image() * 255).to(torch.uint8).contiguous(memory_format=torch.channels_last)
    windows = window(SLICE, torch.float32)[:, None].expand(1, 3, 4)
    exact = attention_crop(images.double(), windows.double(), (4, 5), **options)
    rounded = AttentionCrop((4, 5), **options)(images, windows)
    assert rounded.dtype == torch.uint8
    assert rounded.stride(-3) == 1
    assert (rounded.double() - exact.round().clamp(0, 255)).abs().max() <= 1
    options = {**options, "mean": [0.4, 0.5], "std": 0.25, "dtype": torch.bfloat16}
    normalised = reference.attention_crop(images, windows, (4, 5), **options)
    assert normalised.dtype == torch.bfloat16
    assert torch.equal(normalised, attention_crop(images, windows, (4, 5), **options))


@each_filter
def test_vmap_and_compile(options: dict[str, Any]) -> None:
    images, windows = image(), window(SLICE)[:, None].expand(1, 3, 4) + 0.1 * torch.arange(3.0)[:, None]

    def crop(windows: Tensor) -> Tensor:
        return attention_crop(images, windows, (4, 5), **options)

    check_vmap_and_compile(crop, windows)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"interpolation": "cubic"}, "interpolation must be one of 'nearest', 'bilinear', 'bicubic',"),
        ({"antialias": 1}, "antialias must be True or False, got 1"),
        ({"interpolation": "area", "antialias": True}, "antialias must be False with interpolation='area'"),
        ({"interpolation": "nearest", "antialias": True}, "antialias must be False with"),
    ],
)
def test_errors(options: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        attention_crop(image(), window(WHOLE), 3, **options)
    with pytest.raises((TypeError, ValueError), match=error):
        AttentionCrop(3, **options)
