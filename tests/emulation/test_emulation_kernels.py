# SPDX-License-Identifier: BSD-3-Clause
"""Every CUDA kernel, run on the CPU, against the reference and against the CPU kernels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

import racnn_ops

from .arrays import LAYOUTS, decode
from .cases import FILTER_KERNELS, INDICES, KERNELS, PAIRS_OF, TAP_KERNELS, WHERE, Case, sizes
from .expected import assert_close, by_cpu, check, check_bits, check_work, result_dtype

KERNEL_PAIRS = [(kernel, *pair) for kernel in KERNELS for pair in PAIRS_OF[kernel]]


def modes(case: Case) -> Iterator[Case]:
    """The case with each option that its kernel has."""
    if case.kernel == "boxcar_grad":
        for energy, values in itertools.product(("abs", "square"), (3, 4)):
            yield case.but(energy=energy, values=values)
        return
    if case.kernel in TAP_KERNELS:
        for values in (3, 4):
            yield case.but(values=values)
        return
    for boundary, mask_steepness in itertools.product(("zeros", "border", "clip"), (0.0, 0.7)):
        values = 4 if mask_steepness else 3
        yield case.but(boundary=boundary, mask_steepness=mask_steepness, values=values)
    yield case.but(affine=True)
    yield case.but(affine=True, mask_steepness=0.7, boundary="border")
    yield case.but(index="outside", windows=6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("kernel", "image", "crop"), KERNEL_PAIRS)
def test_equals_reference(kernel: str, image: str, crop: str, layout: str, kernels: ModuleType) -> None:
    channels = 8 if layout.endswith("channels_last") else 3
    for case in modes(Case(kernel, image, crop, layout=layout, channels=channels, where="crossing")):
        check(case, kernels)


@pytest.mark.parametrize("kernel", ["forward", "image_grad", *TAP_KERNELS])
@pytest.mark.parametrize(
    ("layout", "result"),
    [
        ("contiguous", "channels_last"),
        ("channels_last", "contiguous"),
        ("strided", "misaligned_channels_last"),
    ],
)
def test_results_in_another_layout(kernel: str, layout: str, result: str, kernels: ModuleType) -> None:
    for channels, dtype in ((3, "float32"), (8, "float16"), (40, "float32"), (1, "float64")):
        if dtype not in dict(PAIRS_OF[kernel]):
            continue
        case = Case(kernel, dtype, dtype, layout=layout, result=result, channels=channels, where="crossing")
        check(case, kernels)
        if kernel not in TAP_KERNELS:
            check(case.but(affine=True, interpolation="bicubic", antialias=True), kernels)


@pytest.mark.skipif(not racnn_ops._library.has_cpu, reason=f"no CPU kernels: {racnn_ops._library.cpu_error}")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("kernel", "image", "crop"), KERNEL_PAIRS)
def test_equals_cpu_kernels(kernel: str, image: str, crop: str, layout: str, kernels: ModuleType) -> None:
    case = Case(kernel, image, crop, layout=layout, size=(21, 34), out=(16, 14), channels=5)
    for where, mode in zip(itertools.cycle(WHERE), modes(case), strict=False):
        case = mode.but(where=where)
        actual, expected = case.run(kernels), by_cpu(case)
        assert actual.dtype == expected.dtype
        assert_close(case, decode(actual, result_dtype(case)), decode(expected, result_dtype(case)))


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("kernel", KERNELS)
def test_windows_anywhere(kernel: str, where: str, kernels: ModuleType) -> None:
    for dtype in ("float32", "float64"):
        for case in modes(Case(kernel, dtype, dtype, where=where, windows=6, batch=1)):
            check(case, kernels)


@pytest.mark.parametrize(
    ("size", "out"), list(zip(sizes(1, 31, 2, 65, 8, 7), sizes(33, 1, 5, 16, 32, 67), strict=True))
)
@pytest.mark.parametrize("kernel", KERNELS)
def test_sizes_around_warps_blocks_and_vectors(
    kernel: str, size: tuple[int, int], out: tuple[int, int], kernels: ModuleType
) -> None:
    pairs = [pair for pair in PAIRS_OF[kernel] if pair[0] == pair[1] or pair == ("uint8", "float32")]
    for (image, crop), channels in zip(pairs * 2, itertools.cycle((1, 8, 4, 9, 36, 12, 2)), strict=False):
        case = Case(kernel, image, crop, 1, 1 + channels % 3, channels, size=size, out=out)
        check(case, kernels)
        check(case.but(layout="channels_last", where="crossing"), kernels)


@pytest.mark.parametrize("out", [(1, 600), (600, 1), (97, 101)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_crops_larger_than_a_block(kernel: str, out: tuple[int, int], kernels: ModuleType) -> None:
    case = Case(kernel, size=(19, 300), out=out, batch=1, channels=2)
    check(case, kernels)
    check(case.but(layout="channels_last", boundary="border"), kernels)


# Rows for more than one table, columns for more than one step of a block, in words or not; channels for more
# than one step, in groups, in words over the columns' borders; few pixels.
CUTS = [
    (300, (320, 3)),
    (1, (2, 2060)),
    (3, (2, 500)),
    (5, (3, 300)),
    (1030, (2, 3)),
    (11, (90, 7)),
    (260, (4, 8)),
    (520, (1, 1)),
]


@pytest.mark.parametrize(("channels", "out"), CUTS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_ways_to_cut_a_boxcar(layout: str, channels: int, out: tuple[int, int], kernels: ModuleType) -> None:
    for dtype, energy in itertools.product(("float32", "float64"), ("abs", "square")):
        case = Case("boxcar_grad", dtype, dtype, 1, 1, channels, out=out, layout=layout, energy=energy)
        check(case, kernels)


@pytest.mark.parametrize("size", [(1, 700), (700, 1), (130, 90)])
@pytest.mark.parametrize("kernel", [kernel for kernel in KERNELS if kernel != "boxcar_grad"])
def test_images_larger_than_a_block(kernel: str, size: tuple[int, int], kernels: ModuleType) -> None:
    case = Case(kernel, size=size, out=(6, 7), batch=1, channels=2)
    check(case, kernels)
    check(case.but(layout="channels_last", where="crossing"), kernels)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_many_channels(kernel: str, layout: str, kernels: ModuleType) -> None:
    """As many as a launch normalises, and more without normalisation."""
    for channels, affine in ((128, kernel != "boxcar_grad"), (129, False), (300, False)):
        check(Case(kernel, channels=channels, out=(3, 5), layout=layout, affine=affine), kernels)


@pytest.mark.parametrize("kernel", [kernel for kernel in KERNELS if kernel.endswith("grad")])
def test_gradient_without_strides(kernel: str, kernels: ModuleType) -> None:
    for image, crop in PAIRS_OF[kernel]:
        check(Case(kernel, image, crop, constant_grad=True), kernels)


# Lists of windows are made of a block's threads at a time: with and without such as reach the tile.
@pytest.mark.parametrize(("windows", "index"), [*((1, i) for i in INDICES), (270, "last"), (270, "outside")])
@pytest.mark.parametrize("kernel", FILTER_KERNELS)
def test_numbers_of_windows_of_any_image(kernel: str, windows: int, index: str, kernels: ModuleType) -> None:
    case = Case(kernel, batch=3, windows=windows, index=index, channels=1, size=(8, 70), out=(2, 3))
    check(case.but(where="not_finite", affine=True), kernels)
    check(case.but(mask_steepness=0.7, values=4, boundary="border"), kernels)
    check(case.but(image="float64", crop="float64", layout="channels_last", where="crossing"), kernels)


@pytest.mark.parametrize(("kernel", "image", "crop"), KERNEL_PAIRS)
def test_grid_and_order_of_threads_change_no_bit(
    kernel: str, image: str, crop: str, kernels: ModuleType
) -> None:
    case = Case(kernel, image, crop, batch=3, windows=3, out=(40, 37), size=(50, 41))
    check_bits(case, kernels)
    if kernel in FILTER_KERNELS and image == crop == "float32":
        check_bits(case.but(windows=6, index="outside", out=(20, 17)), kernels)


@pytest.mark.parametrize("kernel", ["forward", "window_grad", "boxcar_grad"])
def test_every_block_has_work(kernel: str, kernels: ModuleType) -> None:
    one = Case(kernel, batch=1, windows=1, size=(40, 40), out=(24, 40))
    for case in (
        one,
        one.but(batch=3, windows=2),
        one.but(layout="channels_last", channels=8),
        one.but(channels=128, out=(2, 3), affine=kernel != "boxcar_grad"),
        one.but(batch=3, windows=2, index="any" if kernel in FILTER_KERNELS else ""),
    ):
        check_work(case, kernels)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("empty", ["batch", "windows", "channels"])
def test_empty_problems(kernel: str, empty: str, kernels: ModuleType) -> None:
    case = Case(kernel, where="not_finite").but(**{empty: 0})
    if kernel == "boxcar_grad" and empty != "batch":
        finite = np.isfinite(case.window_array()).all(-1, keepdims=True)
        expected = np.where(finite, 0.0, np.nan) * np.ones_like(case.window_array())
        np.testing.assert_array_equal(case.run(kernels), expected)
    else:
        check(case, kernels)
    if kernel in FILTER_KERNELS:
        check(case.but(index="any"), kernels)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("kernel", ["forward", "window_grad", "tap_crop"])
def test_pixels_that_no_sample_touches_do_not_matter(kernel: str, layout: str, kernels: ModuleType) -> None:
    for image, crop in PAIRS_OF[kernel]:
        if image != "uint8":
            case = Case(kernel, image, crop, layout=layout, channels=8, where="middle", size=(40, 41))
            np.testing.assert_array_equal(case.but(nan_frame=True).run(kernels), case.run(kernels))
