# SPDX-License-Identifier: BSD-3-Clause
"""The kernels under AddressSanitizer and UBSan, and under ThreadSanitizer with real threads."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from .arrays import LAYOUTS, decode
from .build import python
from .cases import BOUNDARIES, FILTER_KERNELS, FILTERS, KERNELS, PAIRS_OF, Case
from .expected import assert_close, by_reference, result_dtype

pytestmark = pytest.mark.slow

# The sanitizers' builds have a kernel for each size of an element, not for each dtype (bindings.h).
PAIRS = {
    ("float32", "float32"),
    ("float32", "float16"),
    ("float16", "float16"),
    ("uint8", "uint8"),
    ("uint8", "bfloat16"),
    ("float64", "float64"),
}
# Of those the ones with filters.
FILTER_PAIRS = [("float32", "float32"), ("float16", "float16"), ("float64", "float64"), ("uint8", "bfloat16")]


def cases_for_addresses(kernel: str) -> Iterator[Case]:
    """Every layout, windows everywhere, sizes around warps and vectors."""
    boundaries = itertools.cycle(("zeros", "border", "clip"))
    where = itertools.cycle(("crossing", "far", "inside", "huge", "not_finite", "point", "outside"))
    sides = itertools.cycle([(13, 17), (1, 33), (32, 1), (9, 64), (70, 5)])
    outs = itertools.cycle([(9, 11), (33, 4), (1, 1), (8, 40), (3, 65), (16, 16)])
    channels = itertools.cycle((1, 3, 8, 12))
    for (image, crop), layout in itertools.product(PAIRS_OF[kernel], LAYOUTS * 2):
        if (image, crop) in PAIRS:
            case = Case(
                kernel, image, crop, batch=1, channels=next(channels), layout=layout, where=next(where)
            )
            case = case.but(size=next(sides), out=next(outs), boundary=next(boundaries))
            if case.channels == 3:
                case = case.but(mask_steepness=0.7, values=4)
            yield case.but(affine=case.channels == 8 and kernel != "boxcar_grad")
    yield Case(kernel, batch=1, channels=128, out=(2, 3), affine=kernel != "boxcar_grad", values=4)
    yield Case(kernel, batch=1, windows=1, channels=2, size=(40, 45), out=(50, 301), max_blocks=3)
    yield Case(kernel, batch=1, windows=1, channels=2, out=(520, 1))
    if kernel in FILTER_KERNELS:
        yield Case(kernel, batch=3, windows=6, index="outside", where="crossing")
    if kernel == "image_grad":
        yield Case(kernel, windows=270, index="last", channels=1, size=(8, 70), out=(2, 3))


def cases_for_threads(kernel: str) -> Iterator[Case]:
    """Blocks of several warps, several blocks, tiles and crops; few of each, since threads are slow."""
    case = Case(kernel, batch=1, windows=1, channels=2, size=(12, 14), out=(6, 10), where="crossing")
    yield case.but(windows=2)
    yield case.but(layout="channels_last", channels=8, boundary="border")
    # One block for several crops and tiles: what it reuses has to be left by all threads first.
    yield case.but(max_blocks=1, windows=3, mask_steepness=0.7, energy="square")
    yield case.but(max_blocks=1, windows=2, layout="channels_last", channels=8)
    half = "float16" if ("float16", "float16") in PAIRS_OF[kernel] else "float32"
    yield case.but(image=half, crop=half, out=(3, 33))
    yield case.but(image="float64", crop="float64", layout="channels_last", boundary="clip")
    yield case.but(size=(30, 20), out=(2, 300), max_blocks=2)
    yield case.but(size=(3, 150), out=(20, 3), layout="strided")
    if kernel in FILTER_KERNELS:
        yield case.but(max_blocks=1, batch=2, windows=6, index="outside")
    if kernel == "boxcar_grad":  # tables are made anew, sums of places combined several times
        yield case.but(out=(300, 3))
        yield case.but(out=(2, 400), channels=3, layout="channels_last")
        yield case.but(out=(3, 2), channels=300)
        yield case.but(out=(6, 7), channels=40, energy="square", layout="channels_last")


def filters_for_addresses(kernel: str) -> Iterator[Case]:
    """Every filter at windows everywhere; long runs, many outputs of a pixel, many windows on an image."""
    case = Case(kernel, batch=1, size=(33, 50), out=(7, 9))
    pairs = itertools.cycle([pair for pair in FILTER_PAIRS if pair in PAIRS_OF[kernel]])
    where = itertools.cycle(("crossing", "huge", "not_finite", "inside", "outside", "tiny", "far", "point"))
    layouts, channels = itertools.cycle(LAYOUTS), itertools.cycle((1, 8, 3, 12))
    boundaries = itertools.cycle(BOUNDARIES)
    for (interpolation, antialias), (image, crop) in zip(FILTERS * 2, pairs, strict=False):
        each = case.but(interpolation=interpolation, antialias=antialias, boundary=next(boundaries))
        each = each.but(image=image, crop=crop, where=next(where), layout=next(layouts))
        yield each.but(channels=next(channels), affine=True, offset=kernel == "forward")
    one = case.but(windows=1, channels=1, antialias=True, mask_steepness=0.7, values=4)
    yield one.but(size=(1, 6000), out=(1, 2), where="crossing", interpolation="bicubic")
    yield one.but(size=(2500, 2), out=(2, 3), where="crossing", image="float64", crop="float64")
    yield one.but(size=(5, 6), out=(3, 1500), antialias=False, boundary="window")
    yield one.but(size=(90, 80), out=(6, 70), layout="channels_last", channels=40, max_blocks=3)
    yield one.but(windows=300, size=(16, 70), out=(2, 3), where="crossing")
    yield one.but(batch=3, windows=8, index="outside", where="not_finite")


def filters_for_threads(kernel: str) -> Iterator[Case]:
    """One block for several crops, tiles, passes, segments of a line and windows, and several blocks."""
    case = Case(kernel, batch=1, windows=2, channels=2, size=(24, 28), out=(5, 6), where="crossing")
    case = case.but(antialias=True, boundary="window")
    yield case
    yield case.but(max_blocks=1, windows=3, interpolation="bicubic", mask_steepness=0.7)
    yield case.but(max_blocks=2, layout="channels_last", channels=8, interpolation="area", antialias=False)
    yield case.but(image="float64", crop="float64", size=(70, 9), interpolation="lanczos3", boundary="zeros")
    yield case.but(size=(2, 5000), out=(1, 3), channels=1, windows=1)
    yield case.but(size=(6, 5), out=(2, 400), channels=1, antialias=False, interpolation="bicubic")
    yield case.but(max_blocks=1, batch=2, index="last")


def run_and_compare(cases: list[Case], sanitizer: str, folder: Path) -> None:
    (folder / "cases").write_bytes(pickle.dumps(cases))
    run = python(sanitizer, "-m", "emulation.run_cases", str(folder / "cases"), str(folder / "results.npz"))
    assert run.returncode == 0, run.stderr[-10000:]
    with np.load(folder / "results.npz") as results:
        for i, case in enumerate(cases):
            assert_close(case, decode(results[str(i)], result_dtype(case)), by_reference(case))


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_out_of_bounds_misaligned_or_undefined(kernel: str, tmp_path: Path) -> None:
    run_and_compare(list(cases_for_addresses(kernel)), "address", tmp_path)


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_race_between_threads_or_blocks(kernel: str, tmp_path: Path) -> None:
    run_and_compare(list(cases_for_threads(kernel)), "thread", tmp_path)


@pytest.mark.parametrize("kernel", FILTER_KERNELS)
def test_nothing_out_of_bounds_misaligned_or_undefined_with_filters(kernel: str, tmp_path: Path) -> None:
    run_and_compare(list(filters_for_addresses(kernel)), "address", tmp_path)


@pytest.mark.parametrize("kernel", FILTER_KERNELS)
def test_no_race_between_threads_or_blocks_with_filters(kernel: str, tmp_path: Path) -> None:
    run_and_compare(list(filters_for_threads(kernel)), "thread", tmp_path)
