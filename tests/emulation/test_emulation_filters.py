# SPDX-License-Identifier: BSD-3-Clause
"""Every filter in every CUDA kernel that takes one, against the reference and against the CPU kernels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

import racnn_ops

from .arrays import LAYOUTS, decode
from .cases import BOUNDARIES, FILTER_KERNELS, FILTERS, PAIRS_OF, WHERE, Case, sizes
from .expected import assert_close, by_cpu, by_reference, check, check_bits, check_work, result_dtype

KERNEL_PAIRS = [(kernel, *pair) for kernel in FILTER_KERNELS for pair in PAIRS_OF[kernel]]
LONG_FILTERS = [(name, antialias) for name, antialias in FILTERS if antialias or name == "area"]


def filtered(case: Case) -> Iterator[Case]:
    """The case with each filter, and with one boundary after another."""
    boundaries = itertools.cycle(BOUNDARIES)
    for interpolation, antialias in FILTERS:
        yield case.but(interpolation=interpolation, antialias=antialias, boundary=next(boundaries))


def long_runs(case: Case, boundaries: tuple[str, ...] = ("zeros", "window")) -> Iterator[Case]:
    """With the filters whose runs grow with the window, and for a value of each size."""
    for (interpolation, antialias), boundary in itertools.product(LONG_FILTERS, boundaries):
        each = case.but(interpolation=interpolation, antialias=antialias, boundary=boundary)
        yield each.but(image="float64", crop="float64")  # here one entry more or less is seen
    yield case.but(layout="channels_last", channels=8, interpolation="bicubic", antialias=True)
    yield case.but(image="bfloat16", crop="bfloat16", interpolation="bilinear", antialias=True)


def exactly(kernel: str, *where: str) -> tuple[str, ...]:
    """Windows at these places, and of the whole image: there slopes jump, and rounding chooses a side."""
    return where if kernel == "window_grad" else ("whole", *where)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("interpolation", "antialias"), FILTERS)
@pytest.mark.parametrize("kernel", FILTER_KERNELS)
def test_windows_anywhere(
    kernel: str, interpolation: str, antialias: bool, boundary: str, kernels: ModuleType
) -> None:
    for where in WHERE:
        case = Case(kernel, batch=1, windows=6, channels=1, where=where, boundary=boundary)
        case = case.but(interpolation=interpolation, antialias=antialias)
        check(case, kernels)
        check(case.but(image="float64", crop="float64", mask_steepness=0.7, values=4), kernels)


@pytest.mark.parametrize(("interpolation", "antialias"), FILTERS)
@pytest.mark.parametrize("kernel", FILTER_KERNELS)
def test_masks_and_normalisation(
    kernel: str, interpolation: str, antialias: bool, kernels: ModuleType
) -> None:
    case = Case(kernel, where="crossing", interpolation=interpolation, antialias=antialias, affine=True)
    for boundary, mask_steepness in itertools.product(BOUNDARIES, (0.0, 0.7)):
        check(case.but(boundary=boundary, mask_steepness=mask_steepness), kernels)
    for layout in ("contiguous", "channels_last"):
        check(case.but(layout=layout, offset=True), kernels)
        check(case.but(layout=layout, offset=True, mask_steepness=0.7, channels=128, out=(3, 5)), kernels)
    check(case.but(layout=layout, interpolation="bilinear", antialias=False, offset=True), kernels)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("kernel", "image", "crop"), KERNEL_PAIRS)
def test_every_dtype_and_layout(kernel: str, image: str, crop: str, layout: str, kernels: ModuleType) -> None:
    channels = 8 if layout.endswith("channels_last") else 3
    case = Case(kernel, image, crop, layout=layout, channels=channels, size=(37, 29), out=(9, 7))
    for each, affine, index in zip(
        filtered(case.but(where="crossing")),
        itertools.cycle((False, True)),
        itertools.cycle(("", "", "", "any")),
        strict=False,
    ):
        check(each.but(affine=affine, index=index, windows=4 if index else 2), kernels)


@pytest.mark.skipif(not racnn_ops._library.has_cpu, reason=f"no CPU kernels: {racnn_ops._library.cpu_error}")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("kernel", "image", "crop"), KERNEL_PAIRS)
def test_equals_cpu_kernels(kernel: str, image: str, crop: str, layout: str, kernels: ModuleType) -> None:
    case = Case(kernel, image, crop, layout=layout, size=(41, 34), out=(8, 14), channels=5)
    for where, each in zip(itertools.cycle(WHERE), filtered(case), strict=False):
        affine = where != "crossing"
        each = each.but(where=where, affine=affine, offset=affine and kernel == "forward")
        if where == "crossing":
            each = each.but(index="outside", windows=6)
        actual, expected = each.run(kernels), by_cpu(each)
        assert actual.dtype == expected.dtype
        assert_close(each, decode(actual, result_dtype(each)), decode(expected, result_dtype(each)))


@pytest.mark.parametrize("reduction", [2, 4, 9])
@pytest.mark.parametrize("kernel", FILTER_KERNELS)
def test_reductions(kernel: str, reduction: int, kernels: ModuleType) -> None:
    """By a whole number, where positions lie on the edges and centres of pixels, and by others."""
    out = (5, 11)
    case = Case(kernel, batch=1, size=(reduction * out[0], reduction * out[1]), out=out)
    for where in exactly(kernel, "crossing", "huge"):
        for each in filtered(case.but(where=where)):
            check(each, kernels)
            check(each.but(layout="channels_last", channels=12, windows=1, boundary="window"), kernels)


@pytest.mark.parametrize("out", [(1500, 3), (2, 1501), (40, 600)])
@pytest.mark.parametrize("kernel", FILTER_KERNELS)
def test_more_outputs_read_a_pixel_than_a_block_has_threads(
    kernel: str, out: tuple[int, int], kernels: ModuleType
) -> None:
    case = Case(kernel, batch=1, windows=1, channels=2, size=(5, 6), out=out)
    for where in ("inside", "tiny"):
        for each in filtered(case.but(where=where)):
            check(each.but(image="float64", crop="float64"), kernels)
    check(each.but(layout="channels_last", channels=4), kernels)


@pytest.mark.parametrize(("size", "out"), [((1, 6000), (1, 2)), ((6000, 1), (2, 1)), ((2500, 3), (3, 2))])
@pytest.mark.parametrize("kernel", FILTER_KERNELS)
def test_runs_longer_than_a_table(
    kernel: str, size: tuple[int, int], out: tuple[int, int], kernels: ModuleType
) -> None:
    case = Case(kernel, batch=1, windows=1, channels=1, size=size, out=out)
    for where in exactly(kernel, "crossing"):
        for each in long_runs(case.but(where=where)):
            check(each, kernels)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("channels", [1, 3, 8, 12, 40, 100])
@pytest.mark.parametrize("kernel", FILTER_KERNELS)
def test_numbers_of_channels(kernel: str, channels: int, layout: str, kernels: ModuleType) -> None:
    case = Case(kernel, channels=channels, layout=layout, size=(43, 37), out=(9, 11), where="crossing")
    for each, (image, crop) in zip(filtered(case), itertools.cycle(PAIRS_OF[kernel]), strict=False):
        check(each.but(image=image, crop=crop), kernels)
    check(case.but(antialias=True), kernels)


@pytest.mark.parametrize(
    ("size", "out"), list(zip(sizes(1, 31, 2, 65, 8, 7), sizes(33, 1, 5, 16, 32, 67), strict=True))
)
@pytest.mark.parametrize("kernel", FILTER_KERNELS)
def test_sizes_around_warps_blocks_and_vectors(
    kernel: str, size: tuple[int, int], out: tuple[int, int], kernels: ModuleType
) -> None:
    channels = itertools.cycle((1, 8, 4, 9, 36, 2))
    pairs = itertools.cycle(pair for pair in PAIRS_OF[kernel] if pair[0] == pair[1])
    case = Case(kernel, batch=1, windows=1, size=size, out=out)
    for each, (image, crop), count in zip(filtered(case), pairs, channels, strict=False):
        each = each.but(image=image, crop=crop, channels=count)
        check(each, kernels)
        check(each.but(layout="misaligned_channels_last", where="crossing"), kernels)


@pytest.mark.parametrize(
    ("size", "out"),
    [
        ((1, 700), (6, 7)),
        ((700, 1), (6, 7)),
        ((130, 290), (6, 7)),
        ((19, 300), (97, 301)),
        ((90, 80), (70, 1)),
    ],
)
@pytest.mark.parametrize("kernel", FILTER_KERNELS)
def test_larger_than_a_tile(
    kernel: str, size: tuple[int, int], out: tuple[int, int], kernels: ModuleType
) -> None:
    for each in filtered(Case(kernel, size=size, out=out, batch=1, channels=2)):
        check(each, kernels)
        check(each.but(layout="channels_last", where="crossing"), kernels)


@pytest.mark.parametrize("windows", [1, 2, 300])
@pytest.mark.parametrize("kernel", FILTER_KERNELS)
def test_numbers_of_windows(kernel: str, windows: int, kernels: ModuleType) -> None:
    """Of 300 not all threads of a block find one that reaches its tile."""
    case = Case(kernel, batch=1, windows=windows, channels=1, size=(8, 70), out=(2, 3))
    for where, each in zip(
        itertools.cycle(("crossing", "not_finite", "inside")), filtered(case), strict=False
    ):
        check(each.but(where=where), kernels)
    check(case.but(batch=2, antialias=True, max_blocks=1, channels=8, layout="channels_last"), kernels)
    case = case.but(batch=2, image="float64", crop="float64")  # of so many windows one lies where slopes jump
    check(case.but(antialias=True, index="any"), kernels)
    check(case.but(interpolation="bicubic", index="last", where="not_finite"), kernels)


@pytest.mark.parametrize(("interpolation", "antialias"), FILTERS)
@pytest.mark.parametrize("kernel", FILTER_KERNELS)
def test_grid_and_order_of_threads_change_no_bit(
    kernel: str, interpolation: str, antialias: bool, kernels: ModuleType
) -> None:
    case = Case(kernel, batch=2, windows=3, out=(20, 17), size=(90, 75), boundary="window")
    case = case.but(interpolation=interpolation, antialias=antialias, mask_steepness=0.7)
    for each in (case, case.but(image="bfloat16", crop="bfloat16", layout="channels_last", channels=8)):
        check_bits(each, kernels)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("kernel", ["forward", "window_grad"])
def test_pixels_that_no_output_reads_do_not_matter(kernel: str, layout: str, kernels: ModuleType) -> None:
    case = Case(kernel, batch=1, layout=layout, channels=8, where="middle", size=(80, 82), out=(20, 17))
    for dtype in ("float32", "float16", "float64"):
        for each in filtered(case.but(image=dtype, crop=dtype)):
            np.testing.assert_array_equal(each.but(nan_frame=True).run(kernels), each.run(kernels))


@pytest.mark.parametrize(("interpolation", "antialias"), FILTERS)
@pytest.mark.parametrize("kernel", FILTER_KERNELS)
def test_infinity_reaches_only_what_reads_it(
    kernel: str, interpolation: str, antialias: bool, kernels: ModuleType
) -> None:
    found = set()
    for boundary, dtype in itertools.product(BOUNDARIES, ("float32", "float64")):
        case = Case(kernel, dtype, dtype, channels=2, size=(20, 18), out=(12, 11), boundary=boundary)
        case = case.but(interpolation=interpolation, antialias=antialias, infinite=True)
        for each in (case, case.but(where="crossing", mask_steepness=0.7)):
            finite = np.isfinite(decode(each.run(kernels), dtype))
            np.testing.assert_array_equal(finite, np.isfinite(by_reference(each)), err_msg=str(each))
            found |= set(finite.ravel())
    assert found == {False, True}


@pytest.mark.parametrize("kernel", ["forward", "window_grad"])
def test_every_block_has_work(kernel: str, kernels: ModuleType) -> None:
    one = Case(kernel, batch=1, windows=1, size=(90, 90), out=(24, 40), interpolation="bicubic")
    for case in (one, one.but(batch=3, windows=2), one.but(layout="channels_last", channels=8)):
        check_work(case, kernels)


@pytest.mark.parametrize("empty", ["batch", "windows", "channels"])
@pytest.mark.parametrize("kernel", FILTER_KERNELS)
def test_empty_problems(kernel: str, empty: str, kernels: ModuleType) -> None:
    case = Case(kernel, where="not_finite", antialias=True).but(**{empty: 0})
    check(case, kernels)
    check(case.but(index="any"), kernels)
