# SPDX-License-Identifier: BSD-3-Clause
"""Every filter where it is easily wrong: far windows, kinks, and what is not finite."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from samples import FILTERS, each_filter, generator
from torch import Tensor

from racnn_ops import attention_crop, reference
from racnn_ops._dense import contract_dense
from racnn_ops._filters import ANTIALIASED, BILINEAR, LANCZOS3, PLAIN, sum_of_weights

STRETCHED = [o for o in FILTERS if o["interpolation"] == "lanczos3" or o.get("antialias")]
UNSTRETCHED = [options for options in FILTERS if options not in STRETCHED]
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("far", [100.0, 1e4, 1e5, 1e9, 1e20], ids=str)
@each_filter
def test_far_windows_read_the_edge(options: dict[str, Any], far: float, dtype: torch.dtype) -> None:
    """Plain filters under "border" the edge pixel; all of them under "window", which is that pixel; under
    "clip" and stretched ones under "border" what a window at the edge reads; under "zeros" nothing."""
    images = torch.rand(1, 2, 9, 12, generator=generator("far"), dtype=torch.float64).to(dtype)
    middle = images[..., 4:5, :]
    for place, edge, column in ((far, 12.0, -1), (-far, 0.0, 0)):
        windows = torch.tensor([[place, 4.5, 2.1, 0.0]], dtype=dtype)
        at_edge = torch.tensor([[edge, 4.5, 0.0, 0.0]], dtype=dtype)
        windows.requires_grad_()

        def crop(boundary: str, windows: Tensor = windows) -> Tensor:
            return attention_crop(images, windows, (1, 5), boundary=boundary, **options)

        pixel = middle[..., column, None].expand(1, 2, 1, 5)
        close = {"rtol": 0, "atol": 1e-6 if dtype == torch.float32 else 1e-12}
        torch.testing.assert_close(
            crop("window"), pixel if options in UNSTRETCHED else crop("window", at_edge), **close
        )
        torch.testing.assert_close(crop("clip"), crop("clip", at_edge), **close)
        assert (crop("zeros") == 0).all()
        border = crop("border")
        if options in UNSTRETCHED:
            torch.testing.assert_close(border, pixel, **close)
            if options["interpolation"] != "nearest":
                (gradient,) = torch.autograd.grad(border.sum(), windows)
                torch.testing.assert_close(gradient[:, ::2], torch.zeros_like(gradient[:, ::2]), **close)
        elif abs(far) >= 1e4:  # each output is at the limit
            torch.testing.assert_close(border, crop("border", at_edge).expand_as(border), **close)


def derivative(function: Any, at: Tensor) -> Tensor:
    at = at.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(at).sum(), at)
    return gradient


def test_the_hats_derivative_is_the_one_from_the_right() -> None:
    z = torch.tensor([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5], dtype=torch.float64)
    assert derivative(BILINEAR.weight, z).tolist() == [0, 1, 1, -1, -1, 0, 0]
    assert BILINEAR.weight(z).tolist() == [0, 0, 0.5, 1, 0.5, 0, 0]


def second_derivatives(function: Any, at: Tensor) -> list[Tensor]:
    """By reverse and forward mode in each order."""

    def total(z: Tensor) -> Tensor:
        return function(z).sum()

    def along(function: Any, z: Tensor) -> Tensor:
        return torch.func.jvp(function, (z,), (torch.ones_like(z),))[1]

    return [
        torch.func.grad(lambda z: torch.func.grad(total)(z).sum())(at),
        along(torch.func.grad(total), at),
        torch.func.grad(lambda z: along(total, z))(at),
        along(lambda z: along(function, z), at),
    ]


def test_second_derivative_of_lanczos_at_a_pixels_centre() -> None:
    """Where an odd number of outputs samples a whole image, the middle one is on a pixel."""
    at = torch.tensor([0.0, 1e-9, -1e-6, 1e-4, 0.3], dtype=torch.float64)
    step = 1e-2
    x = at[:, None] + step * torch.arange(-2, 3)
    coefficients = torch.tensor([-1, 16, -30, 16, -1], dtype=torch.float64) / (12 * step**2)
    expected = (LANCZOS3.weight(x) * coefficients).sum(1)
    for found in second_derivatives(LANCZOS3.weight, at):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ANTIALIASED)
def test_derivative_of_the_sum_of_weights_is_that_of_the_weights(name: str) -> None:
    """On kinks too: whole positions and stretches, from the right."""
    filter = ANTIALIASED[name]
    positions = torch.tensor([3.0, 3.5, 4.0, 4.25, -2.0], dtype=torch.float64)
    x = torch.arange(-200, 200, dtype=torch.float64) + 0.5
    for stretch in (1.0, 1.5, 2.0, 4.0, 20.0):
        stretches = torch.full_like(positions, stretch)

        def summed(s: Tensor, rho: Tensor) -> Tensor:
            return filter.weight((s[:, None] - x) / rho[:, None]).sum(1)

        for found, expected in (
            (lambda s: sum_of_weights(filter, s, stretches), lambda s: summed(s, stretches)),  # noqa: B023
            (lambda r: sum_of_weights(filter, positions, r), lambda r: summed(positions, r)),
        ):
            at = positions if found.__code__.co_varnames[0] == "s" else stretches
            torch.testing.assert_close(derivative(found, at), derivative(expected, at), rtol=0, atol=1e-8)


def test_derivatives_at_kinks_are_those_of_the_kernels() -> None:
    """Positions on pixels' centres: bilinear by dense tables, and by two taps."""
    images = torch.rand(1, 2, 9, 12, generator=generator("kinks"), dtype=torch.float64)
    windows = torch.tensor([[6.0, 4.5, 2.0, 1.5]], dtype=torch.float64)
    found = []
    for boundary in ("zeros", "border"):
        for antialias in (False, True):
            at = windows.clone().requires_grad_()
            crops = attention_crop(images, at, (3, 4), boundary=boundary, antialias=antialias)
            found += torch.autograd.grad(crops.square().sum(), at)
    for gradient in found[1:]:
        torch.testing.assert_close(gradient, found[0])


def crops_and_inputs(options: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    images = torch.rand(2, 2, 16, 18, generator=generator("not finite"), dtype=torch.float64)
    window = [[5.2, 5.3, 3.1], [6.1, 6.2, 4.2], [14.2, 12.1, 3.2]]
    windows = torch.tensor([window, window], dtype=torch.float64)
    images.requires_grad_(), windows.requires_grad_()
    return attention_crop(images, windows, 3, **options), images, windows


@pytest.mark.parametrize("boundary", ["zeros", "border", "window"])
@pytest.mark.parametrize("value", [NAN, INF, -INF], ids=str)
@each_filter
def test_a_gradient_reaches_only_what_is_read(options: dict[str, Any], value: float, boundary: str) -> None:
    options = {**options, "boundary": boundary}
    crops, images, windows = crops_and_inputs(options)
    grad_output = torch.randn(crops.shape, generator=generator("gradient"), dtype=torch.float64)
    clean = torch.autograd.grad(crops, (images, windows), grad_output, retain_graph=True, allow_unused=True)
    output = 0, 1, 1, 2, 0
    grad_output[output] = 0
    without = torch.autograd.grad(crops, (images, windows), grad_output, retain_graph=True)
    (read,) = torch.autograd.grad(crops[output], images, retain_graph=True)
    grad_output[output] = value
    of_images, of_windows = torch.autograd.grad(crops, (images, windows), grad_output)
    assert (of_images.isfinite() == (read == 0)).all()
    torch.testing.assert_close(of_images[read == 0], without[0][read == 0], rtol=1e-12, atol=1e-14)
    others = torch.ones(2, 3, dtype=torch.bool)
    if options["interpolation"] != "nearest":
        others[0, 1] = False
        assert not of_windows[0, 1].isfinite().any()
    torch.testing.assert_close(of_windows[others], clean[1][others], rtol=1e-12, atol=1e-14)


def tables() -> tuple[Tensor, Tensor, Tensor]:
    """Pixels and weights, some of them zero."""
    values = [
        torch.randn(sizes, generator=generator("tables"), dtype=torch.float64)
        for sizes in ((2, 2, 5, 6), (2, 3, 4, 5), (2, 3, 2, 6))
    ]
    values[1][..., 1] = 0
    values[2][..., 2] = 0
    pixels, rows, columns = (value.requires_grad_() for value in values)
    return pixels, rows, columns


def test_dense_contraction_differentiates_in_every_way() -> None:
    inputs = tables()
    assert torch.autograd.gradcheck(contract_dense, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(contract_dense, inputs, check_fwd_over_rev=True)

    def energy(inputs: tuple[Tensor, ...]) -> Tensor:
        return contract_dense(*inputs).pow(3).sum()

    def plain(inputs: tuple[Tensor, ...]) -> Tensor:
        return torch.einsum("bcyx,bkiy,bkjx->bkcij", *inputs).pow(3).sum()

    direction = tuple(torch.randn_like(value) for value in inputs)

    def twice(function: Any, inputs: tuple[Tensor, ...]) -> Tensor:
        def once(inputs: tuple[Tensor, ...]) -> Tensor:
            return torch.func.jvp(function, (inputs,), (direction,))[1]

        return torch.func.jvp(once, (inputs,), (direction,))[1]

    torch.testing.assert_close(twice(energy, inputs), twice(plain, inputs))
    for found, expected in zip(
        torch.func.jvp(torch.func.grad(energy), (inputs,), (direction,))[1],
        torch.func.jvp(torch.func.grad(plain), (inputs,), (direction,))[1],
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_pixel_that_is_not_finite(compiled: bool) -> None:
    """As where two pixels an axis are read: its own gradient does not depend on it, that of windows does."""
    pixels, rows, columns = tables()
    with torch.no_grad():
        pixels[0, 1, 3, 4] = NAN
        pixels[1, 0, 1, 2] = INF  # which no weight reads
    function = contract_dense
    if compiled:
        torch._dynamo.reset()
        function = torch.compile(contract_dense, backend="aot_eager", fullgraph=True)
    crops = function(pixels, rows, columns)
    assert crops[0, :, 1].isnan().all()
    assert crops[0, :, 0].isfinite().all()
    assert crops[1].isfinite().all()
    grad_output = torch.randn(crops.shape, generator=generator("grad"), dtype=torch.float64)
    of_pixels, of_rows, of_columns = torch.autograd.grad(crops, (pixels, rows, columns), grad_output)
    expected = torch.einsum("bkcij,bkiy,bkjx->bcyx", grad_output, rows, columns)
    torch.testing.assert_close(of_pixels, expected)
    assert of_rows[0].isnan().all()
    assert of_columns[0].isnan().all()
    assert of_rows[1].isfinite().all()
    assert of_columns[1].isfinite().all()


def test_plain_weights_sum_to_one() -> None:
    """Everywhere, so that what is limited to an edge is the edge."""
    near = torch.linspace(0, 1, 101, dtype=torch.float64)
    for filter in PLAIN.values():
        steps = torch.arange(1 - filter.radius, filter.radius + 1)
        torch.testing.assert_close(filter.weight(near[:, None] - steps).sum(1), torch.ones_like(near))


def test_reference_and_dispatch_agree() -> None:
    crops, images, windows = crops_and_inputs({"interpolation": "bicubic"})
    torch.testing.assert_close(
        reference.attention_crop(images, windows, 3, interpolation="bicubic"), crops, rtol=1e-9, atol=1e-9
    )
