# SPDX-License-Identifier: BSD-3-Clause
"""The same bits from run to run, for any number of threads, and where determinism is demanded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from samples import FILTERS, FLOATS, Shape, filter_id, generator, make_images, make_windows, window_dtype
from torch import Tensor

from racnn_ops import attention_crop

THREADS = (1, 2, 3, 7, 2 * (os.cpu_count() or 1) + 1)
REPEATS = int(os.environ.get("RACNN_TEST_REPEATS", "3"))
# Many small crops, few large ones, one whose channels are cut into groups.
SHAPES = (Shape(9, 3, 20, 30, 16, 24), Shape(1, 3, 260, 300, 200, 224), Shape(2, 64, 14, 14, 11, 13))


# Several units of work an image, rows and planes that do not fill the last vectors of a unit.
FILTER_SHAPES = (Shape(2, 3, 90, 150, 70, 101), Shape(1, 20, 40, 50, 33, 45))


@pytest.fixture
def restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def everything(device: str, dtype: torch.dtype, channels_last: bool) -> Iterator[Tensor]:
    """Crops and gradients, exact and boxcar, on the same inputs in every call."""
    g = generator(dtype, channels_last)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    for shape in SHAPES:
        images = make_images(shape.images, dtype, g).to(device).contiguous(memory_format=memory_format)
        windows = make_windows((shape.batch, 2, 4), shape, g).to(device, window_dtype(dtype)).requires_grad_()
        grad_output = torch.randn((shape.batch, 2, shape.channels, *shape.out), generator=g).to(device, dtype)
        images.requires_grad_()
        for window_grad, mask in (("exact", None), ("exact", 0.7), ("boxcar", None)):
            crops = attention_crop(images, windows, shape.out, mask_steepness=mask, window_grad=window_grad)
            yield crops.detach()
            yield from torch.autograd.grad(crops, (images, windows), grad_output)


def everything_filtered(options: dict[str, Any]) -> Iterator[Tensor]:
    """Crops and gradients of a filter."""
    for shape in FILTER_SHAPES:
        for memory_format in (torch.contiguous_format, torch.channels_last):
            g = generator(shape)
            images = make_images(shape.images, torch.float32, g).contiguous(memory_format=memory_format)
            windows = make_windows((shape.batch, 2, 4), shape, g).float().requires_grad_()
            grad_output = torch.randn((shape.batch, 2, shape.channels, *shape.out), generator=g)
            crops = attention_crop(images.requires_grad_(), windows, shape.out, **options)
            yield crops.detach()
            yield from torch.autograd.grad(crops, (images, windows), grad_output)


def check_same(device: str, dtype: torch.dtype, channels_last: bool, first: list[Tensor]) -> None:
    for result, other in zip(first, everything(device, dtype, channels_last), strict=True):
        assert torch.equal(result, other)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_any_number_of_threads(dtype: torch.dtype, channels_last: bool, restored_threads: None) -> None:
    torch.set_num_threads(1)
    first = list(everything("cpu", dtype, channels_last))
    for threads in THREADS:
        torch.set_num_threads(threads)
        check_same("cpu", dtype, channels_last, first)


@pytest.mark.parametrize("boundary", ["zeros", "window"])
@pytest.mark.parametrize("options", FILTERS, ids=filter_id)
def test_any_number_of_threads_with_every_filter(
    options: dict[str, Any], boundary: str, restored_threads: None
) -> None:
    torch.set_num_threads(1)
    first = list(everything_filtered({**options, "boundary": boundary}))
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        for result, other in zip(first, everything_filtered({**options, "boundary": boundary}), strict=True):
            assert torch.equal(result, other)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_repeated_runs(device: str, dtype: torch.dtype, channels_last: bool) -> None:
    first = list(everything(device, dtype, channels_last))
    for _ in range(REPEATS):
        check_same(device, dtype, channels_last, first)


def test_deterministic_algorithms_are_all_there_are(device: str) -> None:
    first = list(everything(device, torch.float32, False))
    torch.use_deterministic_algorithms(True)
    try:
        check_same(device, torch.float32, False, first)
    finally:
        torch.use_deterministic_algorithms(False)
