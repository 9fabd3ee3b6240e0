# SPDX-License-Identifier: BSD-3-Clause
"""``window_grad="boxcar"`` against a transcription of the authors' formulas, number by number."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from samples import FLOATS, LAYOUTS, Shape, generator, make_images, make_windows, window_dtype, window_sizes
from torch import Tensor

from racnn_ops import Boxcar, attention_crop, reference

each_implementation = pytest.mark.parametrize(
    "crop", [attention_crop, reference.attention_crop], ids=["kernels", "reference"]
)

SHAPES = (
    Shape(2, 3, 30, 20, 5, 7),
    Shape(1, 1, 448, 448, 9, 4),
    Shape(2, 5, 16, 40, 1, 33),
    Shape(1, 2, 20, 20, 130, 140),  # more than one unit of work
)


def h(z: float, k: float) -> float:
    return 1 / (1 + math.exp(-k * z))


def dh(z: float, k: float) -> float:
    return k * math.exp(-k * z) / (1 + math.exp(-k * z)) ** 2


def energies(g: list[list[list[float]]], boxcar: Boxcar) -> list[list[list[float]]]:
    """D of every channel; of all channels together for the squared norm."""
    if boxcar.energy == "square":
        rows, columns = range(len(g[0])), range(len(g[0][0]))
        g = [[[sum(channel[i][j] ** 2 for channel in g) for j in columns] for i in rows]]
    result = []
    for channel in g:
        most = max(abs(value) for row in channel for value in row)
        result.append([[abs(v) / most * boxcar.scale if most else 0.0 for v in row] for row in channel])
    return result


def transcription(grad: Tensor, window: list[float], boxcar: Boxcar) -> list[float]:
    """The gradient of one window: tx, ty, and what tl gets through x and through y."""
    tx, ty, tw, th = window[0], window[1], max(window[2], 0.0), max(window[-1], 0.0)
    k, (height, width) = boxcar.steepness, grad.shape[1:]
    dtx = dty = dtw = dth = 0.0
    columns, rows = [], []
    for j in range(width):
        x = tx - tw + 2 * tw * j / width
        left, right = x - (tx - tw), x - (tx + tw)
        columns.append((h(left, k) - h(right, k), dh(left, k), dh(right, k)))
    for i in range(height):
        y = ty - th + 2 * th * i / height
        top, bottom = y - (ty - th), y - (ty + th)
        rows.append((h(top, k) - h(bottom, k), dh(top, k), dh(bottom, k)))
    for d in energies(grad.tolist(), boxcar):
        for i, (inside_y, at_top, at_bottom) in enumerate(rows):
            for j, (inside_x, at_left, at_right) in enumerate(columns):
                dtx += d[i][j] * (at_left - at_right) * inside_y
                dty += d[i][j] * (at_top - at_bottom) * inside_x
                dtw += d[i][j] * (boxcar.shrink / 2 - (at_left + at_right) * inside_y)
                dth += d[i][j] * (boxcar.shrink / 2 - (at_top + at_bottom) * inside_x)
    return [dtx, dty, dtw + dth] if len(window) == 3 else [dtx, dty, dtw, dth]


def by_transcription(grad_output: Tensor, windows: Tensor, boxcar: Boxcar, shape: Shape) -> Tensor:
    ratio = 1.0 if boxcar.side is None else boxcar.side / max(shape.height, shape.width)
    scaled = boxcar._replace(steepness=boxcar.steepness * ratio, shrink=boxcar.shrink * ratio)
    grads = grad_output.double().cpu().reshape(-1, shape.channels, *shape.out)
    each = windows.detach().double().cpu().reshape(-1, windows.shape[-1]).tolist()
    sums = [transcription(g, w, scaled) for g, w in zip(grads, each, strict=True)]
    return torch.tensor(sums, dtype=torch.float64).view(windows.shape)


def boxcar_grad(
    crop: Any, images: Tensor, windows: Tensor, size: Any, grad: Tensor, **options: Any
) -> Tensor:
    windows = windows.detach().requires_grad_()
    crops = crop(images, windows, size, window_grad="boxcar", **options)
    return torch.autograd.grad(crops, windows, grad)[0]


@each_implementation
@pytest.mark.parametrize("energy", ["abs", "square"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_agrees_with_the_formulas(device: str, dtype: torch.dtype, energy: str, crop: Any) -> None:
    g = generator(dtype, energy)
    for form, shape in enumerate(SHAPES):
        # Sides and steepnesses that do not vanish in float32, and the authors' own constants.
        for boxcar in (Boxcar(energy=energy), Boxcar(0.2, energy, 0.3, 0.05, None)):
            images = make_images(shape.images, dtype, g).to(device)
            windows = make_windows(window_sizes(form + 1, shape.batch), shape, g)
            windows = windows.to(device, window_dtype(dtype))
            sizes = (*windows.shape[:-1], shape.channels, *shape.out)
            grad = LAYOUTS[list(LAYOUTS)[form]](torch.randn(sizes, generator=g).to(device, dtype))
            actual = boxcar_grad(crop, images, windows, shape.out, grad, boxcar=boxcar).double().cpu()
            exact = by_transcription(grad, windows, boxcar, shape)
            error = (actual - exact).abs().max() / exact.abs().max()
            assert error <= (1e-12 if dtype == torch.float64 else 5e-5), (shape, boxcar)


@each_implementation
def test_every_layout_of_the_incoming_gradient(device: str, crop: Any) -> None:
    shape = SHAPES[0]
    g = generator("layouts")
    images = make_images(shape.images, torch.float64, g).to(device)
    windows = make_windows((2, 3), shape, g).to(device)
    for layout in LAYOUTS.values():
        grad = layout(torch.randn(2, shape.channels, *shape.out, generator=g).double().to(device))
        for boxcar in (Boxcar(), Boxcar(energy="square")):
            actual = boxcar_grad(crop, images, windows, shape.out, grad, boxcar=boxcar).cpu()
            exact = by_transcription(grad, windows, boxcar, shape)
            assert torch.allclose(actual, exact, rtol=1e-11, atol=0)


@each_implementation
@pytest.mark.parametrize("energy", ["abs", "square"])
def test_depends_on_windows_half_side_and_gradient_only(device: str, energy: str, crop: Any) -> None:
    grad = torch.randn(1, 2, 6, 5, device=device, dtype=torch.float64)
    options = {"size": (6, 5), "boxcar": Boxcar(energy=energy)}
    window = torch.tensor([[9.0, 9.0, 4.0]], device=device, dtype=torch.float64)
    images = torch.randn(1, 2, 18, 18, device=device, dtype=torch.float64)
    exact = boxcar_grad(crop, images, window, grad=grad, **options)
    moved = window + torch.tensor([[500.0, -3.0, 0.0]], device=device)
    assert torch.allclose(boxcar_grad(crop, images, moved, grad=grad, **options), exact, rtol=1e-12)
    for boundary in ("border", "clip"):
        other = boxcar_grad(
            crop, images * 7, window, grad=-3 * grad, boundary=boundary, mask_steepness=1.0, **options
        )
        assert torch.allclose(other, exact, rtol=1e-12)


@each_implementation
def test_constants_are_of_a_448_pixel_side(device: str, crop: Any) -> None:
    """A picture twice as large, its window twice as large: the same pull in pixels, up to the factor 2."""
    grad = torch.randn(1, 1, 8, 8, device=device, dtype=torch.float64)
    results = []
    for side in (224, 448, 896):
        images = torch.zeros(1, 1, 10, side, device=device, dtype=torch.float64)
        window = torch.tensor([[100.0, 5.0, side / 5]], device=device, dtype=torch.float64)
        results.append(boxcar_grad(crop, images, window, 8, grad) * side)
        unscaled = boxcar_grad(crop, images, window, 8, grad, boxcar=Boxcar(side=None)) * side
        assert torch.allclose(unscaled, results[-1], rtol=1e-12) == (side == 448)
    assert torch.allclose(results[0], results[1], rtol=1e-12)
    assert torch.allclose(results[2], results[1], rtol=1e-12)


@each_implementation
@pytest.mark.parametrize("energy", ["abs", "square"])
def test_zero_gradient_gives_zero(device: str, energy: str, crop: Any) -> None:
    images = torch.randn(2, 3, 6, 6, device=device)
    windows = torch.tensor([[3.0, 3.0, 2.0]] * 2, device=device)
    grad = torch.zeros(2, 3, 4, 4, device=device)
    grad[1, 2] = 1.0  # one channel of the second crop alone
    result = boxcar_grad(crop, images, windows, 4, grad, boxcar=Boxcar(energy=energy))
    assert torch.equal(result[0], torch.zeros_like(result[0]))
    assert (result[1, 2] != 0).all()


@each_implementation
def test_image_gradient_stays_exact(device: str, crop: Any) -> None:
    images = torch.randn(2, 3, 9, 8, device=device, requires_grad=True)
    windows = torch.tensor([[4.0, 4.0, 2.9], [3.0, 5.0, 3.3]], device=device, requires_grad=True)
    grad = torch.randn(2, 3, 6, 6, device=device)
    exact, boxcar = (
        torch.autograd.grad(crop(images, windows, 6, window_grad=name), (images, windows), grad)
        for name in ("exact", "boxcar")
    )
    assert torch.equal(exact[0], boxcar[0])
    assert not torch.allclose(exact[1], boxcar[1])


@each_implementation
def test_uint8_images(device: str, crop: Any) -> None:
    images = torch.randint(0, 256, (1, 3, 9, 8), dtype=torch.uint8, device=device)
    window = torch.tensor([[4.0, 4.0, 3.0]], device=device)
    grad = torch.randn(1, 3, 6, 6, device=device)
    result = boxcar_grad(crop, images, window, 6, grad, mean=0.5, std=0.5)
    exact = by_transcription(grad, window, Boxcar(), Shape(1, 3, 9, 8, 6, 6))
    assert torch.allclose(result.cpu().double(), exact, rtol=1e-4, atol=1e-13)
