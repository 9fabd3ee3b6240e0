# SPDX-License-Identifier: BSD-3-Clause
"""What the gradients are where there is a choice, and who gets one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from samples import BOUNDARIES, MASKS, generator, make_images
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from racnn_ops import attention_crop, reference

each_implementation = pytest.mark.parametrize(
    "crop", [attention_crop, reference.attention_crop], ids=["kernels", "reference"]
)


class Recorded(TorchDispatchMode):
    """The names of our operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "racnn_ops":
            self.names.append(func._schema.name.removeprefix("racnn_ops::"))
        return func(*args, **(kwargs or {}))


@each_implementation
@pytest.mark.parametrize("mask_steepness", MASKS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_half_side_below_zero_is_zero(
    device: str, boundary: str, mask_steepness: float | None, crop: Any
) -> None:
    """The same crop and the same gradients as with 0, so a collapsed window can grow again."""
    g = generator(boundary, mask_steepness)
    images = make_images((1, 2, 8, 9), torch.float64, g).to(device).requires_grad_()
    grad_output = torch.randn(1, 2, 3, 4, generator=g).double().to(device)
    results = []
    for half in (0.0, -0.0, -3.0, -1e30):
        windows = torch.tensor(
            [[4.3, 3.2, half, 1.9]], device=device, dtype=torch.float64, requires_grad=True
        )
        crops = crop(images, windows, (3, 4), boundary=boundary, mask_steepness=mask_steepness)
        results.append((crops, *torch.autograd.grad(crops, (images, windows), grad_output)))
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))
    crops, _, grad_windows = results[0]
    assert torch.equal(crops, crops[..., :1].expand_as(crops))
    assert grad_windows[0, 2] != 0


def row_of_squares(device: str) -> Tensor:
    """1 x 6 pixels 0, 1, 4, 9, ...: between pixels i and i + 1 the slope is 2i + 1."""
    return torch.arange(6, dtype=torch.float64, device=device).square().view(1, 1, 1, 6)


def slope(crop: Any, tx: float, tl: float, index: int, boundary: str) -> Tensor:
    """d of the one sample / d window[index], at (tx, tl)."""
    images = row_of_squares(torch.get_default_device().type)
    windows = torch.tensor([[tx, 0.5, tl, 0.0]], dtype=torch.float64, requires_grad=True)
    crops = crop(images, windows, (1, 2), boundary=boundary)
    return torch.autograd.grad(crops[0, 0, 0, 1], windows)[0][0, index]


@each_implementation
def test_slopes_between_pixels(device: str, crop: Any) -> None:
    with torch.device(device):
        for boundary in BOUNDARIES:
            assert slope(crop, 2.75, 0.0, 0, boundary) == 5.0
            assert slope(crop, 2.75, 0.0, 2, boundary) == 5.0 * 0.5  # the right one of two samples: u = 1/2


@each_implementation
def test_slope_on_a_pixel_is_that_to_its_right(device: str, crop: Any) -> None:
    with torch.device(device):
        for boundary in BOUNDARIES:
            for pixel in range(5):
                assert slope(crop, pixel + 0.5, 0.0, 0, boundary) == 2 * pixel + 1


@each_implementation
def test_slopes_at_the_edge(device: str, crop: Any) -> None:
    with torch.device(device):
        assert slope(crop, 5.5, 0.0, 0, "zeros") == -25.0  # towards zero outside
        assert slope(crop, 6.0, 0.0, 0, "zeros") == -25.0
        assert slope(crop, 6.5, 0.0, 0, "zeros") == 0.0
        for boundary in ("border", "clip"):
            assert slope(crop, 5.5, 0.0, 0, boundary) == 0.0
            assert slope(crop, 5.75, 0.0, 0, boundary) == 0.0
            assert slope(crop, 0.25, 0.0, 0, boundary) == 0.0
            assert slope(crop, -3.0, 0.0, 0, boundary) == 0.0


@each_implementation
def test_clipped_edge_does_not_move(device: str, crop: Any) -> None:
    """Window [1, 9] on 6 pixels is clipped to [1, 6]: only its left edge moves the sample."""
    with torch.device(device):
        # The right one of two samples is at 1 + 5 * 3/4 = 4.75, between pixels 4 and 5 (slope 9); a quarter
        # of the left edge's movement reaches it.
        assert slope(crop, 5.0, 4.0, 0, "clip") == pytest.approx(9 * 0.25)
        assert slope(crop, 5.0, 4.0, 2, "clip") == pytest.approx(-9 * 0.25)
        # An edge exactly at the image's still moves: [0, 6], sample at 4.5 = pixel 4, slope to its right.
        assert slope(crop, 3.0, 3.0, 0, "clip") == pytest.approx(9 * 1.0)
        assert slope(crop, 3.0, 3.0, 2, "clip") == pytest.approx(9 * 0.5)


@pytest.mark.parametrize("window_grad", ["exact", "boxcar"])
@pytest.mark.parametrize("asked", [(True, False), (False, True), (True, True), (False, False)])
def test_gradient_only_where_asked(device: str, asked: tuple[bool, bool], window_grad: str) -> None:
    images = torch.randn(1, 2, 6, 6, device=device, requires_grad=asked[0])
    windows = torch.tensor([[3.0, 3.0, 2.0]], device=device, requires_grad=asked[1])
    with Recorded() as recorded:
        crops = attention_crop(images, windows, 4, window_grad=window_grad)
        assert crops.requires_grad == any(asked)
        if crops.requires_grad:
            crops.sum().backward()
    of_window = "_crop_window_grad" if window_grad == "exact" else "_crop_boxcar_grad"
    expected = ["_crop_forward"] + ["_crop_image_grad"] * asked[0] + [of_window] * asked[1]
    assert sorted(recorded.names) == sorted(expected)
    assert (images.grad is not None, windows.grad is not None) == asked


def test_no_gradient_of_uint8(device: str) -> None:
    images = torch.zeros(1, 1, 4, 4, dtype=torch.uint8, device=device)
    windows = torch.tensor([[2.0, 2.0, 1.0]], device=device, requires_grad=True)
    assert not attention_crop(images, windows, 3).requires_grad
    assert not reference.attention_crop(images, windows, 3).requires_grad
    assert attention_crop(images, windows, 3, dtype=torch.float16).requires_grad


def test_no_grad_mode(device: str) -> None:
    images = torch.randn(1, 1, 4, 4, device=device, requires_grad=True)
    windows = torch.tensor([[2.0, 2.0, 1.0]], device=device, requires_grad=True)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert not attention_crop(images, windows, 3).requires_grad


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
@pytest.mark.parametrize("where", ["pixel", "gradient"])
def test_what_is_not_finite_keeps_to_its_window_in_each_derivative(
    device: str, where: str, value: float
) -> None:
    """Of two windows that read different pixels, first and second derivatives by the window and the image."""
    windows = torch.tensor([[[3.3, 3.6, 2.1], [9.7, 3.2, 2.2]]], device=device)
    images = make_images((1, 3, 7, 13), torch.float32, generator(where)).to(device)
    factors = torch.ones(1, 2, 3, 4, 5, device=device)
    results = []
    for bad in (0.5, value):
        if where == "pixel":
            images[0, 1, 3, 9] = bad  # the second window's
        else:
            factors[0, 1, 2, 3, 4] = bad
        inputs = images.clone().requires_grad_(), windows.clone().requires_grad_()
        loss = (attention_crop(*inputs, (4, 5), mask_steepness=0.7).square() * factors).sum()
        first = torch.autograd.grad(loss, inputs, create_graph=True)
        second = torch.autograd.grad([gradient.square().sum() for gradient in first], inputs)
        results.append((*first, *second))
    for clean, spoiled in zip(*results, strict=True):
        if clean.shape == windows.shape:
            assert not spoiled[0, 1].isfinite().all()
            assert torch.equal(spoiled[0, 0], clean[0, 0])
        else:
            assert not spoiled[..., 6:].isfinite().all()
            assert torch.equal(spoiled[..., :6], clean[..., :6])
