# SPDX-License-Identifier: BSD-3-Clause
"""Agreement with the samplers that everybody knows: grid_sample, interpolate and torchvision's roi_align."""

from __future__ import annotations

import pytest
import torch
from samples import SHAPES, Shape, generator, make_images, make_windows, relative_error
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from racnn_ops import attention_crop, reference

each_implementation = pytest.mark.parametrize(
    "crop", [attention_crop, reference.attention_crop], ids=["kernels", "reference"]
)


def by_grid_sample(images: Tensor, windows: Tensor, shape: Shape, boundary: str) -> Tensor:
    theta = torch.zeros(len(windows), 2, 3, dtype=windows.dtype, device=windows.device)
    for row, size in enumerate((shape.width, shape.height)):
        theta[:, row, row] = 2 * windows[:, 2 + row] / size
        theta[:, row, 2] = 2 * windows[:, row] / size - 1
    grid = affine_grid(theta, [len(windows), shape.channels, *shape.out], align_corners=False)
    return grid_sample(images, grid, padding_mode=boundary, align_corners=False)


@each_implementation
@pytest.mark.parametrize("boundary", ["zeros", "border"])
def test_grid_sample(device: str, boundary: str, crop) -> None:
    g = generator(boundary)
    for shape in SHAPES:
        images = make_images(shape.images, torch.float64, g).to(device).requires_grad_()
        windows = make_windows((shape.batch, 4), shape, g)
        windows[:, 2:] = windows[:, 2:].abs()
        windows = windows.to(device).requires_grad_()
        ours = crop(images, windows, shape.out, boundary=boundary)
        theirs = by_grid_sample(images, windows, shape, boundary)
        assert relative_error(ours, theirs) <= 1e-10
        grad_output = torch.randn(theirs.shape, generator=g).to(theirs)
        for one, other in zip(
            torch.autograd.grad(ours, (images, windows), grad_output),
            torch.autograd.grad(theirs, (images, windows), grad_output),
            strict=True,
        ):
            assert relative_error(one, other) <= 1e-9


@each_implementation
def test_roi_align(device: str, crop) -> None:
    roi_align = pytest.importorskip("torchvision").ops.roi_align
    g = generator("roi_align")
    for shape in SHAPES:
        images = make_images(shape.images, torch.float64, g).to(device).requires_grad_()
        # Samples between the outermost pixels' centres: roi_align has no zeros outside.
        windows = torch.rand((shape.batch, 3, 4), generator=g, dtype=torch.float64)
        for axis, size in enumerate((shape.width, shape.height)):
            windows[..., axis] = 0.5 + windows[..., axis] * (size - 1)
            room = torch.minimum(windows[..., axis] - 0.5, size - 0.5 - windows[..., axis])
            windows[..., 2 + axis] *= room
        windows = windows.to(device)
        centre, half = windows[..., :2], windows[..., 2:]
        boxes = torch.cat((centre - half, centre + half), -1)
        theirs = roi_align(images, list(boxes), shape.out, sampling_ratio=1, aligned=True)
        ours = crop(images, windows, shape.out)
        theirs = theirs.view_as(ours)
        assert relative_error(ours, theirs) <= 1e-10
        grad_output = torch.randn(ours.shape, generator=g).to(ours)
        (one,) = torch.autograd.grad(ours, images, grad_output)
        (other,) = torch.autograd.grad(theirs, images, grad_output)
        assert relative_error(one, other) <= 1e-10


@each_implementation
def test_interpolate(device: str, crop) -> None:
    """A window with integer edges, clipped to the image, is a slice, resized: the authors' layer."""
    images = torch.randn(1, 3, 12, 15, dtype=torch.float64, device=device)
    for left, top, right, bottom in ((2, 3, 9, 10), (-4, -2, 6, 30), (0, 0, 15, 12)):
        window = [(left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2]
        ours = crop(
            images, torch.tensor([window], dtype=torch.float64, device=device), (8, 9), boundary="clip"
        )
        part = images[:, :, max(top, 0) : bottom, max(left, 0) : right]
        if (left, top, right, bottom) == (0, 0, 15, 12):
            theirs = interpolate(part, (8, 9), mode="bilinear")
            assert relative_error(ours, theirs) <= 1e-12
        else:  # at a slice's own edges interpolate repeats its pixels, a window sees their neighbours
            inner = (..., slice(1, -1), slice(1, -1))
            assert relative_error(ours[inner], interpolate(part, (8, 9), mode="bilinear")[inner]) <= 1e-12
