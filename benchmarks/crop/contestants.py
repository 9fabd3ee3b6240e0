# SPDX-License-Identifier: BSD-3-Clause
"""Who takes part: ways of cropping windows that do the same work, each in its usual form.

All of them take images (B, C, H, W), windows (B, 3) or (B, K, 3) of ``tx, ty, tl`` in pixels, the size (h, w)
of crops and their dtype, by default the images'; they give (B, C, h, w) or (B, K, C, h, w). What a library
wants besides (a grid, boxes, another dtype) is made inside, because its user would have to make it too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from racnn_ops import attention_crop, reference

from .cases import Case, Inputs
from .images import Size

Dtype = torch.dtype | None
Edges = tuple[int, int, int, int]
"""Left, top, right, bottom."""


class Crop(Protocol):
    def __call__(self, images: Tensor, windows: Tensor, size: Size, *, dtype: Dtype = None) -> Tensor: ...


def grid_sample(images: Tensor, windows: Tensor, size: Size, *, dtype: Dtype = None) -> Tensor:
    """``affine_grid`` and ``grid_sample``. An image's K grids are stacked, so that no image is copied."""
    height, width = images.shape[-2:]
    tx, ty, tl = windows.reshape(-1, 3).mul(2 / width).unbind(1)
    half_height = tl
    if height != width:
        ty, half_height = ty * (width / height), tl * (width / height)
    zero = torch.zeros_like(tl)
    theta = torch.stack((tl, zero, tx - 1, zero, half_height, ty - 1), 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, [len(theta), 1, *size], align_corners=False)
    # The images' dtype must be that of the grid, and in 16-bit floats a grid is off by whole pixels.
    pixels = images.to(windows.dtype)
    crops: Tensor = F.grid_sample(pixels, grid.view(len(images), -1, size[1], 2), align_corners=False)
    if windows.dim() == 3:
        crops = crops.unflatten(2, (windows.shape[1], size[0])).transpose(1, 2)
    return crops.to(dtype or images.dtype)


def roi_align(
    images: Tensor, windows: Tensor, size: Size, *, dtype: Dtype = None, sampling_ratio: int = 1
) -> Tensor:
    """One sample a bin, as the crop takes it. It has no gradient for the boxes."""
    from torchvision import ops

    tx, ty, tl = windows.reshape(-1, 3).unbind(1)
    image = torch.arange(len(images), device=images.device, dtype=windows.dtype)
    image = image.repeat_interleave(len(tx) // len(images))
    boxes = torch.stack((image, tx - tl, ty - tl, tx + tl, ty + tl), 1)
    crops: Tensor = ops.roi_align(
        images.to(windows.dtype), boxes, size, sampling_ratio=sampling_ratio, aligned=True
    )
    return split(windows, crops.to(dtype or images.dtype))


def slice_loop(
    images: Tensor, windows: Tensor, size: Size, *, dtype: Dtype = None, antialias: bool = False
) -> Tensor:
    """The loop of public RA-CNN code: integer edges, one ``interpolate`` a window."""
    crops = []
    for image, (left, top, right, bottom) in each_window(images, windows):
        part = image[:, :, top:bottom, left:right].to(dtype or images.dtype)
        crops.append(
            F.interpolate(part, size=size, mode="bilinear", align_corners=False, antialias=antialias)
        )
    return split(windows, torch.cat(crops))


def each_window(images: Tensor, windows: Tensor) -> list[tuple[Tensor, Edges]]:
    """Image (1, C, H, W) and integer edges of each."""
    edges = integer_edges(windows)
    count = len(edges) // len(images)
    return [(images[n // count].unsqueeze(0), its_edges) for n, its_edges in enumerate(edges)]


def integer_edges(windows: Tensor) -> list[Edges]:
    return [
        (int(tx - tl), int(ty - tl), int(tx + tl), int(ty + tl))
        for tx, ty, tl in windows.reshape(-1, 3).tolist()
    ]


def split(windows: Tensor, crops: Tensor) -> Tensor:
    return crops if windows.dim() == 2 else crops.unflatten(0, windows.shape[:2])


def kornia_crop(images: Tensor, windows: Tensor, size: Size, *, dtype: Dtype = None) -> Tensor:
    """kornia's boxes are between pixel centres, so they are the first and last sample of our windows."""
    from kornia.geometry.transform import crop_and_resize

    tx, ty, tl = windows.reshape(-1, 3).unbind(1)
    reach_y, reach_x = (tl * (1 - 1 / length) for length in size)
    left, right, top, bottom = (
        edge - 0.5 for edge in (tx - reach_x, tx + reach_x, ty - reach_y, ty + reach_y)
    )
    corners = torch.stack((left, top, right, top, right, bottom, left, bottom), 1).view(-1, 4, 2)
    pixels = images.to(windows.dtype)
    if windows.dim() == 3:
        pixels = pixels.repeat_interleave(windows.shape[1], 0)
    return split(windows, crop_and_resize(pixels, corners, size).to(dtype or images.dtype))


def expected_crop(images: Tensor, windows: Tensor, size: Size, *, dtype: Dtype = None) -> Tensor:
    return reference.attention_crop(images.double(), windows.double(), size)


def expected_slice(images: Tensor, windows: Tensor, size: Size, *, dtype: Dtype = None) -> Tensor:
    """The reference at the loop's own windows: a slice is an image of its own, and its edge pixels go on."""
    crops = []
    for image, (left, top, right, bottom) in each_window(images.double(), windows):
        part = image[:, :, top:bottom, left:right]
        half_height, half_width = part.shape[2] / 2, part.shape[3] / 2
        whole = part.new_tensor([[half_width, half_height, half_width, half_height]])
        crops.append(reference.attention_crop(part, whole, size, boundary="border"))
    return split(windows, torch.cat(crops))


@dataclass(frozen=True)
class Contestant:
    """``crop``, and what is known about it.

    Attributes:
        gradients: what it can be differentiated in. Without "windows" it is timed in the mode "both" with the
            images' gradient alone, and not at all in the mode "window".
        expected: what its result must be, in float64.
        needs: the package without which it does not take part.
        compiled: to be run through torch.compile.
    """

    name: str
    crop: Crop
    gradients: frozenset[str] = frozenset({"images", "windows"})
    expected: Crop = expected_crop
    needs: str = "torch"
    compiled: bool = False

    @property
    def is_installed(self) -> bool:
        return find_spec(self.needs) is not None

    def takes_part(self, mode: str) -> bool:
        return mode != "window" or "windows" in self.gradients


OURS = Contestant("racnn_ops", attention_crop)
GRID_SAMPLE = Contestant("grid_sample", grid_sample)
ROI_ALIGN = Contestant("roi_align", roi_align, gradients=frozenset({"images"}), needs="torchvision")
LOOP = Contestant("slice + interpolate", slice_loop, gradients=frozenset({"images"}), expected=expected_slice)
COMPILED = Contestant("grid_sample, compiled", grid_sample, compiled=True)
KORNIA = Contestant("kornia", kornia_crop, needs="kornia")
ALL = (OURS, GRID_SAMPLE, COMPILED, ROI_ALIGN, LOOP, KORNIA)

Step = Callable[[], dict[str, Tensor]]


def crop_function(contestant: Contestant, case: Case) -> Callable[[Tensor, Tensor], Tensor]:
    size = (case.crop, case.crop)
    dtype = None if case.out_dtype == case.dtype else case.out_type

    def crop(images: Tensor, windows: Tensor) -> Tensor:
        return contestant.crop(images, windows, size, dtype=dtype)

    if not contestant.compiled:
        return crop
    torch.compiler.reset()  # otherwise each case recompiles this function, and after a few, eager answers
    return torch.compile(crop, dynamic=False)


def make_step(
    crop: Callable[[Tensor, Tensor], Tensor], gradients: frozenset[str], inputs: Inputs, mode: str
) -> Step:
    """One call in this mode; it returns crops and gradients, so that what is timed can be checked."""
    images, windows, grad_output = inputs
    leaves = {}
    if mode == "both" and "images" in gradients:
        leaves["images"] = images = images.detach().requires_grad_()
    if mode != "forward" and "windows" in gradients:
        leaves["windows"] = windows = windows.detach().requires_grad_()

    def forward() -> dict[str, Tensor]:
        with torch.no_grad():
            return {"crops": crop(images, windows)}

    def forward_and_backward() -> dict[str, Tensor]:
        crops = crop(images, windows)
        results = torch.autograd.grad(crops, tuple(leaves.values()), grad_output)
        return {"crops": crops, **dict(zip(leaves, results, strict=True))}

    return forward if mode == "forward" else forward_and_backward
