# SPDX-License-Identifier: BSD-3-Clause
"""The operators' overloads of eager calls, which take options as one code."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from samples import generator, make_images, windows_of
from torch import Tensor
from torch.library import opcheck
from torch.utils._python_dispatch import TorchDispatchMode

from racnn_ops import _kernels, _library, attention_crop
from racnn_ops._options import KernelOptions

if not _library.has_cpu:
    pytest.skip(f"no compiled library: {_library.cpu_error}", allow_module_level=True)

SIZES = (2, 3, 7, 8)


def _coded(
    options: KernelOptions, dtype: torch.dtype, channels_last: bool | None = None
) -> tuple[int, float]:
    coded = _kernels._coded(options, dtype, channels_last)
    assert coded is not None
    return coded


def assert_same(one: Tensor, other: Tensor) -> None:
    assert (one.dtype, one.stride()) == (other.dtype, other.stride())
    assert torch.equal(one, other)


def test_coded_overloads_do_what_the_named_ones_do(device: str) -> None:
    """Every code, whose options eager calls have: to the bit, in values and layout."""
    operators = torch.ops.racnn_ops
    for form, ((boundary, interpolation, antialias, dtype), mask) in enumerate(
        itertools.product(_kernels._CODES, (None, 0.7))
    ):
        if antialias and interpolation in ("nearest", "area"):
            continue
        images = make_images(SIZES, dtype, generator(form)).to(device)
        if form // 2 % 2:
            images = images.contiguous(memory_format=torch.channels_last)
        windows = windows_of(device, form % 4, torch.float64 if dtype == torch.float64 else torch.float32)
        options = KernelOptions(4, 5, boundary, mask, (), (), dtype, (), interpolation, antialias)
        for channels_last in (False, True, None):
            named = operators._crop_forward(images, windows, *options._replace(channels_last=channels_last))
            code, steepness = _coded(options, dtype, channels_last)
            coded = operators._crop_forward.coded(images, windows, 4, 5, code, steepness)
            assert_same(coded, named)
            assert coded.stride() == named.stride()
        if dtype == torch.uint8:
            continue
        grad = torch.randn(named.shape, generator=generator(form)).to(named)
        filter = interpolation, antialias
        named = operators._crop_window_grad(grad, images, windows, boundary, mask, [], [], *filter)
        assert_same(operators._crop_window_grad.coded(grad, images, windows, code, steepness), named)
        for channels_last in (False, True):
            layout = channels_last, dtype, *filter
            named = operators._crop_image_grad(grad, windows, 7, 8, boundary, mask, [], *layout)
            code, _ = _coded(options, dtype, channels_last)
            assert_same(operators._crop_image_grad.coded(grad, windows, 7, 8, code, steepness), named)


def test_opcheck_coded_overloads(device: str) -> None:
    """Below autograd, where alone they are called."""
    operators = torch.ops.racnn_ops
    for form, dtype in enumerate((torch.float32, torch.bfloat16, torch.float64, torch.float32)):
        images = make_images(SIZES, dtype, generator(form)).to(device)
        windows = windows_of(device, form, torch.float64 if dtype == torch.float64 else torch.float32)
        options = KernelOptions(4, 5, ("zeros", "border")[form % 2], (None, 0.7)[form // 2], (), (), dtype)
        code, steepness = _coded(options, dtype)
        opcheck(operators._crop_forward.coded, (images, windows, 4, 5, code, steepness))
        grad = torch.randn((*windows.shape[:-1], 3, 4, 5), generator=generator(form)).to(images)
        opcheck(operators._crop_window_grad.coded, (grad, images, windows, code, steepness))
        code, _ = _coded(options, dtype, bool(form % 2))
        opcheck(operators._crop_image_grad.coded, (grad, windows, 7, 8, code, steepness))


def test_a_wrong_code_is_refused(device: str) -> None:
    images, windows = make_images(SIZES, torch.float32, generator()).to(device), windows_of(device, 0)
    for code in (-1, 4 * 5, 4 * 7):
        with pytest.raises(ValueError, match="code must be one that"):
            torch.ops.racnn_ops._crop_forward.coded(images, windows, 4, 5, code, 0.0)


class Overloads(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_modes_see_options_by_their_names(device: str) -> None:
    images = make_images(SIZES, torch.float32, generator()).to(device).requires_grad_()
    windows = windows_of(device, 0).requires_grad_()
    with Overloads() as recorded:
        attention_crop(images, windows, 4).sum().backward()
    names = {name for name in recorded.names if name.startswith("racnn_ops")}
    operators = ("_crop_forward", "_crop_image_grad", "_crop_window_grad")
    assert names == {f"racnn_ops.{name}.default" for name in operators}


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning"
)
def test_traced_calls_differentiate(device: str) -> None:
    """The overloads do not: a trace must hold the named operator."""
    images, windows = make_images(SIZES, torch.float32, generator()).to(device), windows_of(device, 0)
    traced = torch.jit.trace(lambda *inputs: attention_crop(*inputs, 4), (images, windows))
    found = torch.autograd.grad(traced(images, windows.requires_grad_()).sum(), windows)[0]
    assert torch.equal(found, torch.autograd.grad(attention_crop(images, windows, 4).sum(), windows)[0])
