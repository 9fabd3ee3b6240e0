# SPDX-License-Identifier: BSD-3-Clause
"""What a case must give: by the reference in float64, and by the compiled CPU kernels."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch

from racnn_ops import Boxcar, reference

from .arrays import EPSILON, Array, Doubles, decode
from .cases import BOXCAR, TAP_KERNELS, Case


def by_reference(case: Case) -> Doubles:
    return np.asarray(_reference(case))


def by_cpu(case: Case) -> Array:
    """The same from the CPU kernels, in the same dtype (bfloat16 as bits)."""
    result = _cpu(case)
    return np.asarray(result.view(torch.uint16) if result.dtype == torch.bfloat16 else result)


def _reference(case: Case) -> torch.Tensor:
    if case.kernel in TAP_KERNELS:
        return _tap_reference(case)
    windows = torch.from_numpy(case.window_array().astype(np.float64)).requires_grad_()
    grad_output = torch.from_numpy(decode(case.grad_output(), case.crop))
    if case.kernel == "boxcar_grad":
        steepness, scale, shrink = BOXCAR
        boxcar = Boxcar(steepness=steepness, energy=case.energy, scale=scale, shrink=shrink)
        result = reference.boxcar_window_grad(grad_output, windows.detach(), boxcar)
        result[~windows.isfinite().all(-1)] = torch.nan
        return result
    images = torch.from_numpy(decode(case.images(), case.image)).requires_grad_()
    pixels = images
    if case.affine:
        scale_shift = torch.tensor([case.scale, case.shift], dtype=torch.float64).view(2, 1, -1, 1, 1)
        pixels = images * scale_shift[0] + scale_shift[1]
    crops = _crops(case, pixels, windows)
    if case.offset:  # not as a fill, which limits what scale and shift can be
        crops = crops + torch.tensor(case.offsets, dtype=torch.float64).view(-1, 1, 1)
    if case.kernel == "forward":
        values = crops.detach()
        return values.nan_to_num(0.0).clamp(0, 255) if case.crop == "uint8" else values
    wanted = windows if case.kernel == "window_grad" else images
    (gradient,) = torch.autograd.grad(crops, wanted, grad_output, allow_unused=True)
    return torch.zeros_like(wanted.detach()) if gradient is None else gradient


def _crops(case: Case, pixels: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
    """Each out of its own image; those that have none are NaN, without a gradient."""
    if (index := case.image_index()) is not None:
        images = torch.from_numpy(index)
        exists = (images >= 0) & (images < case.batch)
        crops = torch.full(case.crop_shape, torch.nan, dtype=torch.float64)
        of_images = _crops(case.but(index=""), pixels[images[exists]], windows[exists])
        return crops.index_put((exists,), of_images)
    return reference.attention_crop(
        pixels,
        windows,
        case.out,
        interpolation=case.interpolation,
        antialias=case.antialias,
        boundary=case.boundary,
        mask_steepness=case.mask_steepness or None,
    )


def _tap_reference(case: Case) -> torch.Tensor:
    rows, row_weights, columns, column_weights = (torch.from_numpy(t) for t in case.tables())
    images = torch.from_numpy(decode(case.images(), case.image)).requires_grad_()
    crops = reference.contract(
        images,
        reference.AxisTaps(rows.long(), row_weights.double()),
        reference.AxisTaps(columns.long(), column_weights.double()),
    )
    if case.kernel == "tap_crop":
        return crops.detach()
    grad_output = torch.from_numpy(decode(case.grad_output(), case.crop))
    return torch.autograd.grad(crops, images, grad_output)[0]


def _cpu(case: Case) -> torch.Tensor:
    if case.kernel in TAP_KERNELS:
        return _tap_cpu(case)
    windows = torch.from_numpy(case.window_array())
    images, grad_output = _tensor(case.images(), case.image), _tensor(case.grad_output(), case.crop)
    options = (case.boundary, case.mask_steepness or None, case.scale)
    array = case.image_index()
    index = None if array is None else torch.from_numpy(array)
    ops = torch.ops.racnn_ops
    if case.kernel == "forward":
        result = ops._crop_forward(
            images,
            windows,
            *case.out,
            *options,
            case.shift,
            getattr(torch, case.crop),
            [],
            *case.filters,
            case.offsets,
            None,
            index,
        )
    elif case.kernel == "window_grad":
        result = ops._crop_window_grad(
            grad_output, images, windows, *options, case.shift, *case.filters, index
        )
    elif case.kernel == "image_grad":
        channels_last = case.layout.endswith("channels_last")
        dtype = getattr(torch, case.image)
        result = ops._crop_image_grad(
            grad_output,
            windows,
            *case.size,
            *options,
            channels_last,
            dtype,
            *case.filters,
            index,
            case.batch,
        )
    else:
        steepness, scale, shrink = BOXCAR
        result = ops._crop_boxcar_grad(grad_output, windows, steepness, case.energy, scale, shrink)
    assert isinstance(result, torch.Tensor)
    return result


def _tap_cpu(case: Case) -> torch.Tensor:
    images, grad_output = _tensor(case.images(), case.image), _tensor(case.grad_output(), case.crop)
    tables = [torch.from_numpy(t) for t in case.tables()]
    ops = torch.ops.racnn_ops
    if case.kernel == "tap_crop":
        result = ops._tap_crop(images, *tables)
    else:
        channels_last = case.layout.endswith("channels_last")
        result = ops._tap_image_grad(grad_output, *tables, *case.size, channels_last)
    assert isinstance(result, torch.Tensor)
    return result


def result_dtype(case: Case) -> str:
    return {"forward": case.crop, "image_grad": case.image}.get(case.kernel, case.accumulate)


def check(case: Case, kernels: ModuleType) -> None:
    assert_close(case, decode(case.run(kernels), result_dtype(case)), by_reference(case))


def check_bits(case: Case, kernels: ModuleType) -> None:
    """Neither the grid nor the order of threads changes a bit."""
    expected = case.run(kernels)
    for max_blocks in (1, 2, 7):
        np.testing.assert_array_equal(case.but(max_blocks=max_blocks).run(kernels), expected)
    kernels.set_reverse_order(True)
    try:
        np.testing.assert_array_equal(case.run(kernels), expected)
    finally:
        kernels.set_reverse_order(False)


def check_work(case: Case, kernels: ModuleType) -> None:
    """Every block has some: those that load no pixel and no gradient cost as much as others before theirs."""
    kernels.take_launches()
    case.run(kernels)
    launches = kernels.take_launches()
    if case.kernel != "forward":
        launches.pop()  # it adds up what the blocks left
    assert [launch.idle for launch in launches] == [0] * len(launches), case


def assert_close(case: Case, actual: Doubles, expected: Doubles) -> None:
    """Equal up to the rounding of the result's dtype, of the sums, and of the positions of the samples."""
    unit = 255.0 if case.image == "uint8" else 1.0  # of a pixel, or of a gradient
    if case.kernel == "window_grad":
        unit *= case.channels * case.out[0] * case.out[1]  # a sum, with cancellation
    largest = np.nanmax(np.abs(expected), initial=unit)
    reach = np.abs(np.nan_to_num(case.window_array(), posinf=0, neginf=0)).max(initial=1.0)
    rounding = EPSILON[case.accumulate] * min(max(reach, *case.size), 1e3)
    if case.interpolation == "area":
        # The reference divides differences of integrals by the footprint, at least 2e-3 wide.
        rounding = max(rounding, EPSILON["float64"] / 2e-3)
    spacing = {"uint8": 1.0, "float16": 2.0**-24}.get(result_dtype(case), 0.0)  # near zero
    tolerance = 16 * rounding * largest + spacing
    np.testing.assert_allclose(
        actual, expected, rtol=EPSILON[result_dtype(case)], atol=tolerance, equal_nan=True, err_msg=str(case)
    )


def _tensor(array: Array, dtype: str) -> torch.Tensor:
    tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor
