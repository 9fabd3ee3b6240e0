# SPDX-License-Identifier: BSD-3-Clause
"""Who takes part: ways of cropping windows that do the same work, each in its usual form.

All of them take images (B, C, H, W) and windows (B, 3) or (B, K, 3) of ``tx, ty, tl`` in pixels and give
(B, C, h, w) or (B, K, C, h, w). What a library wants besides (a grid, boxes, another dtype) is made inside,
because its user would have to make it too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from cases import Case, Inputs
from torch import Tensor

from racnn_ops import attention_crop, reference

Crop = Callable[[Case, Tensor, Tensor], Tensor]


def ours(case: Case, images: Tensor, windows: Tensor) -> Tensor:
    dtype = None if case.out_dtype == case.dtype else case.out_type
    return attention_crop(images, windows, case.crop, dtype=dtype)


def grid_sample(case: Case, images: Tensor, windows: Tensor) -> Tensor:
    """``affine_grid`` and ``grid_sample``. An image's K grids are stacked, so that no image is copied."""
    tx, ty, tl = windows.reshape(-1, 3).mul(2 / case.image).unbind(1)
    zero = torch.zeros_like(tl)
    theta = torch.stack((tl, zero, tx - 1, zero, tl, ty - 1), 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, [len(theta), 1, case.crop, case.crop], align_corners=False)
    # The images' dtype must be that of the grid, and in 16-bit floats a grid is off by whole pixels.
    pixels = images.to(torch.float32)
    crops: Tensor = F.grid_sample(pixels, grid.view(len(images), -1, case.crop, 2), align_corners=False)
    return _split_stacked(case, crops).to(case.out_type)


def _split_stacked(case: Case, crops: Tensor) -> Tensor:
    if case.windows == 1:
        return crops
    stacked: Tensor = crops.unflatten(2, (case.windows, case.crop))
    return stacked.transpose(1, 2)


def roi_align(case: Case, images: Tensor, windows: Tensor) -> Tensor:
    """One sample a bin, as the crop takes it. It has no gradient for the boxes."""
    from torchvision import ops

    tx, ty, tl = windows.reshape(-1, 3).unbind(1)
    image = torch.arange(len(images), device=images.device, dtype=torch.float32)
    boxes = torch.stack((image.repeat_interleave(case.windows), tx - tl, ty - tl, tx + tl, ty + tl), 1)
    crops: Tensor = ops.roi_align(images.to(torch.float32), boxes, case.crop, sampling_ratio=1, aligned=True)
    return _split(case, crops.to(case.out_type))


def slice_loop(case: Case, images: Tensor, windows: Tensor) -> Tensor:
    """The loop of public RA-CNN code: integer edges, one ``interpolate`` a window."""
    crops = []
    for image, window in _each_window(case, images, windows):
        left, top, right, bottom = integer_edges(window)
        part = image[:, :, top:bottom, left:right].to(case.out_type)
        crops.append(F.interpolate(part, size=(case.crop, case.crop), mode="bilinear", align_corners=False))
    return _split(case, torch.cat(crops))


def integer_edges(window: list[float]) -> tuple[int, int, int, int]:
    tx, ty, tl = window
    return int(tx - tl), int(ty - tl), int(tx + tl), int(ty + tl)


def _each_window(case: Case, images: Tensor, windows: Tensor) -> list[tuple[Tensor, list[float]]]:
    rows = windows.reshape(-1, 3).tolist()
    return [(images[n // case.windows].unsqueeze(0), row) for n, row in enumerate(rows)]


def _split(case: Case, crops: Tensor) -> Tensor:
    return crops if case.windows == 1 else crops.unflatten(0, (-1, case.windows))


def kornia_crop(case: Case, images: Tensor, windows: Tensor) -> Tensor:
    """kornia's boxes are between pixel centres, so they are the first and last sample of our windows."""
    from kornia.geometry.transform import crop_and_resize

    tx, ty, tl = windows.reshape(-1, 3).unbind(1)
    reach = tl * (1 - 1 / case.crop)
    left, right, top, bottom = (edge - 0.5 for edge in (tx - reach, tx + reach, ty - reach, ty + reach))
    corners = torch.stack((left, top, right, top, right, bottom, left, bottom), 1).view(-1, 4, 2)
    pixels = images.to(torch.float32)
    if case.windows > 1:
        pixels = pixels.repeat_interleave(case.windows, 0)
    crops = crop_and_resize(pixels, corners, (case.crop, case.crop))
    return _split(case, crops.to(case.out_type))


def expected_crop(case: Case, images: Tensor, windows: Tensor) -> Tensor:
    return reference.attention_crop(images.double(), windows.double(), case.crop)


def expected_slice(case: Case, images: Tensor, windows: Tensor) -> Tensor:
    """The reference at the loop's own windows: a slice is an image of its own, and its edge pixels go on."""
    crops = []
    for image, window in _each_window(case, images.double(), windows):
        left, top, right, bottom = integer_edges(window)
        part = image[:, :, top:bottom, left:right]
        half_height, half_width = part.shape[2] / 2, part.shape[3] / 2
        whole = part.new_tensor([[half_width, half_height, half_width, half_height]])
        crops.append(reference.attention_crop(part, whole, case.crop, boundary="border"))
    return _split(case, torch.cat(crops))


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


OURS = Contestant("racnn_ops", ours)
GRID_SAMPLE = Contestant("grid_sample", grid_sample)
ROI_ALIGN = Contestant("roi_align", roi_align, gradients=frozenset({"images"}), needs="torchvision")
LOOP = Contestant("slice + interpolate", slice_loop, gradients=frozenset({"images"}), expected=expected_slice)
COMPILED = Contestant("grid_sample, compiled", grid_sample, compiled=True)
KORNIA = Contestant("kornia", kornia_crop, needs="kornia")
ALL = (OURS, GRID_SAMPLE, COMPILED, ROI_ALIGN, LOOP, KORNIA)

Step = Callable[[], dict[str, Tensor]]


def crop_function(contestant: Contestant, case: Case) -> Callable[[Tensor, Tensor], Tensor]:
    def crop(images: Tensor, windows: Tensor) -> Tensor:
        return contestant.crop(case, images, windows)

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
