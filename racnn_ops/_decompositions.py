# SPDX-License-Identifier: BSD-3-Clause
"""``attention_crop`` in exported programs as ATen operators alone, for what runs without this package.

All of it is the reference's own graph, but for outputs that read two pixels an axis: those are one
``grid_sampler_2d``, which runtimes have kernels for, where the reference gathers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import _library, reference
from ._filters import mask_values, sample_positions
from ._lists import gathered
from ._options import KernelOptions
from ._registration import forward_arguments

__all__ = ["decompositions"]

_FORWARD = "_crop_forward"


def decompositions() -> dict[Any, Callable[..., Any]]:
    """The table for ``ExportedProgram.run_decompositions`` (torch.export): crops in ATen operators alone.

    ::

        program = torch.export.export(model, args, dynamic_shapes=...)
        program = program.run_decompositions(racnn_ops.decompositions())

    What is then saved, or given to ``torch.onnx.export``, OpenVINO or ExecuTorch, needs nothing of this
    package. Every argument of ``attention_crop`` and what is made of it (``paste``, ``transforms``) is
    expressed, in every dtype; sizes that are dynamic stay so. Crops of plain bilinear become
    ``aten.grid_sampler_2d``, all others products with tables as wide as the image, of the weights of all
    pixels. A mask costs K masked copies of the images with plain bilinear, nothing with other filters.

    Other operators of the program stay as they are. Without the compiled library the table is empty: the
    program holds the reference then, which is ATen alone.

    Raises:
        NotImplementedError: by ``run_decompositions``, where the program holds a derivative of a crop.
    """
    if not _library.has_cpu:
        return {}
    every = torch._C._dispatch_get_all_op_names()
    # Without the overloads, which graphs do not hold.
    prefix, operators = f"{_library.NAMESPACE}::", getattr(torch.ops, _library.NAMESPACE)
    names = [name.removeprefix(prefix) for name in every if name.startswith(prefix) and "." not in name]
    return {
        getattr(operators, name).default: _crop_forward if name == _FORWARD else _refusal(name)
        for name in names
    }


def _refusal(name: str) -> Callable[..., Any]:
    def refuse(*arguments: Any) -> Any:
        raise NotImplementedError(
            f"the exported program contains {name}, of a derivative of attention_crop: only {_FORWARD} "
            "has a decomposition; export the model without a derivative inside"
        )

    return refuse


def _crop_forward(*arguments: Any) -> Tensor:
    """Of the operator of this name."""
    images, windows, options, image_index = forward_arguments(*arguments)
    flip = None
    if windows.shape[-1] == 5:
        flip = windows[..., 3] != 0
        windows = torch.cat((windows[..., :3], windows[..., 4:]), -1)
    if image_index is not None:
        images, windows = gathered(images, windows, image_index)
    options = options._replace(boxcar=())  # of the gradient alone
    crops = reference.sample(images, windows, options, _grid_sampled)
    return crops if flip is None else reference.mirrored(crops, flip)


def _grid_sampled(pixels: Tensor, windows: Tensor, options: KernelOptions) -> Tensor:
    """As ``reference.contract_taps``."""
    batch, count = windows.shape[:2]
    (grid_y, mask_y), (grid_x, mask_x) = (_axis(*axis) for axis in reference.axes(pixels, options, windows))
    shape = (batch, count, options.height, options.width)
    grid = torch.stack((grid_x.unsqueeze(2).expand(shape), grid_y.unsqueeze(3).expand(shape)), -1)
    bilinear, padding = 0, 0 if options.boundary == "zeros" else 1  # or the edge pixel
    if mask_y is None or mask_x is None:
        # The windows of an image one below the other in one grid: the image is not copied.
        crops = torch.grid_sampler_2d(pixels, grid.flatten(1, 2), bilinear, padding, False)
        return crops.unflatten(2, shape[1:3]).movedim(2, 1)  # type: ignore[no-any-return]
    # The mask moves with the window: each has its own masked image.
    masked = pixels.unsqueeze(1) * (mask_y.mT * mask_x).unsqueeze(2)  # (B, K, C, H, W)
    crops = torch.grid_sampler_2d(masked.flatten(0, 1), grid.flatten(0, 1), bilinear, padding, False)
    return crops.unflatten(0, shape[:2])  # type: ignore[no-any-return]


def _axis(
    centre: Tensor, half: Tensor, size: int, out: int, options: KernelOptions
) -> tuple[Tensor, Tensor | None]:
    """Where windows (B, K) sample along an axis, (B, K, out), in [-1, 1] over the image, and their mask of
    its pixels, (B, K, 1, size)."""
    centre, half = reference.clipped(centre, half, size, options.boundary)
    # Limited as in csrc/geometry.h: runtimes turn positions into integers without a look at their range.
    first, last = (-2, size) if options.boundary == "zeros" else (0, size - 1)
    position = (sample_positions(centre, half, out) - 0.5).clamp(first, last)
    grid = (2 * position + 1) / size - 1
    if options.mask_steepness is None:
        return grid, None
    pixels = torch.arange(size, device=centre.device, dtype=centre.dtype) + 0.5
    return grid, mask_values(pixels, centre, half, options.mask_steepness)
