# SPDX-License-Identifier: BSD-3-Clause
"""The registered operators by themselves: opcheck, gradients when used directly, sizes beyond all bounds."""

from __future__ import annotations

import itertools
import re
import sys
import textwrap
from typing import Any

import pytest
import torch
from programs import run_checked
from samples import EVERY_BOUNDARY, LAYOUTS, each_filter, generator, make_images, windows_of
from torch import Tensor
from torch.library import opcheck

from racnn_ops import attention_crop

SIZES = (2, 3, 7, 8)
LAYOUT_NAMES = ["contiguous", "channels_last", "sliced", "one_for_all", "one_number"]


def asking(tensor: Tensor, needed: bool) -> Tensor:
    return tensor.detach().requires_grad_(needed)


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_opcheck_forward(device: str, layout: str) -> None:
    cases = itertools.product((torch.float32, torch.float64, torch.bfloat16), (False, True), (False, True))
    for form, (dtype, needs_images, needs_windows) in enumerate(cases):
        images = LAYOUTS[layout](make_images(SIZES, dtype, generator(form)).to(device))
        windows = windows_of(device, form % 4, torch.float64 if dtype == torch.float64 else torch.float32)
        options = (4, 5, ("zeros", "border", "clip")[form % 3], (None, 0.7)[form % 2])
        scale, shift = (((0.5, 1.0, 2.0), (0.1, 0.2, 0.3)), ((), ()))[form // 2 % 2]
        arguments = (
            asking(images, needs_images),
            asking(windows, needs_windows),
            *options,
            scale,
            shift,
            dtype,
        )
        opcheck(torch.ops.racnn_ops._crop_forward.default, arguments)


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_opcheck_gradients(device: str, layout: str) -> None:
    operators = torch.ops.racnn_ops
    for form, channels_last in enumerate((False, True, False, True)):
        images = LAYOUTS[layout](make_images(SIZES, torch.float32, generator(form)).to(device))
        windows = windows_of(device, form)
        sizes = (*windows.shape[:-1], 3, 4, 5)
        grad = LAYOUTS[layout](torch.randn(sizes, generator=generator(form)).to(device))
        mode = (("zeros", "border", "clip")[form % 3], (None, 0.7)[form % 2])
        opcheck(operators._crop_window_grad.default, (grad, images, windows, *mode, [], []))
        opcheck(
            operators._crop_image_grad.default,
            (grad, windows, 7, 8, *mode, [0.5, 1.0, 2.0], channels_last, torch.float32),
        )
        opcheck(
            operators._crop_boxcar_grad.default, (grad, windows, 0.05, ("abs", "square")[form % 2], 1.0, 0.1)
        )


@each_filter
def test_opcheck_of_every_filter(options: dict[str, Any]) -> None:
    operators = torch.ops.racnn_ops
    filter = options["interpolation"], options.get("antialias", False)
    for form, layout in enumerate(("contiguous", "channels_last", "sliced", "one_number")):
        dtype = (torch.float32, torch.float64)[form // 2]
        images = LAYOUTS[layout](make_images(SIZES, dtype, generator(form))).requires_grad_()
        windows = windows_of("cpu", form, dtype)
        mode = EVERY_BOUNDARY[form], (None, 0.7)[form % 2]
        affine = [0.5, 1.0, 2.0], [0.1, 0.2, 0.3]
        arguments = (images, asking(windows, True), 4, 5, *mode, *affine, dtype, [], *filter, [3.0, 4.0, 5.0])
        opcheck(operators._crop_forward.default, arguments)
        grad = torch.randn((*windows.shape[:-1], 3, 4, 5), generator=generator(form), dtype=dtype)
        grad, images = LAYOUTS[layout](grad), images.detach()
        opcheck(operators._crop_window_grad.default, (grad, images, windows, *mode, *affine, *filter))
        sizes = 7, 8, *mode, affine[0], form % 2 == 1, dtype
        opcheck(operators._crop_image_grad.default, (grad, windows, *sizes, *filter))


def test_opcheck_by_index_and_of_lists() -> None:
    operators = torch.ops.racnn_ops
    images = make_images((2, 3, 7, 8), torch.float32, generator("index")).requires_grad_()
    windows = windows_of("cpu", 2)[[0, 1, 0]].requires_grad_()
    mode, index = ("zeros", None), torch.tensor([1, 0, 1])
    filters = "bilinear", False
    arguments = images, windows, 4, 5, *mode, [], [], torch.float32, [], *filters, [], False, index
    opcheck(operators._crop_forward.default, arguments)
    images, windows = images.detach(), windows.detach()
    grad = torch.randn((3, 3, 4, 5), generator=generator("grad"))
    opcheck(operators._crop_window_grad.default, (grad, images, windows, *mode, [], [], *filters, index))
    opcheck(
        operators._crop_image_grad.default,
        (grad, windows, 7, 8, *mode, [], True, torch.float32, *filters, index, 2),
    )
    several = [images[0], images[1, :, :5]]
    opcheck(
        operators._crop_list.default,
        (several, windows, index, 4, 5, *mode, [], [], torch.float32, [], *filters, [], True),
    )
    opcheck(
        operators._crop_list_window_grad.default,
        (grad, several, windows, index, *mode, [], [], *filters),
    )


@each_filter
def test_filters_used_directly_differentiate(options: dict[str, Any]) -> None:
    inputs: tuple[Any, ...] = (
        make_images(SIZES, torch.float64, generator()).requires_grad_(),
        windows_of("cpu", 1, torch.float64).requires_grad_(),
    )
    filter = options["interpolation"], options.get("antialias", False)
    plain = [1.0] * 3, [-2.0] * 3, torch.float64, []
    direct = torch.ops.racnn_ops._crop_forward(*inputs, 4, 5, "zeros", None, *plain, *filter, [2.0] * 3)
    public = attention_crop(*inputs, (4, 5), fill=2.0, **options)
    torch.testing.assert_close(direct, public, rtol=1e-12, atol=1e-12)
    grad_output = torch.randn(direct.shape, generator=generator("direct"), dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad(direct, inputs, grad_output),
        torch.autograd.grad(public, inputs, grad_output),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_opcheck_gradients_that_require_a_gradient(device: str) -> None:
    """They refuse a second derivative, and must say so in every mode; their other checks hold."""
    windows = windows_of(device, 0).requires_grad_()
    images = make_images(SIZES, torch.float32, generator()).to(device).requires_grad_()
    grad = torch.randn(2, 3, 4, 5, device=device, requires_grad=True)
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor")
    operators = torch.ops.racnn_ops
    for operator, arguments in (
        (operators._crop_window_grad, (grad, images, windows, "zeros", None, [], [])),
        (operators._crop_image_grad, (grad, windows, 7, 8, "zeros", None, [], False, torch.float32)),
        (operators._crop_boxcar_grad, (grad, windows, 0.05, "abs", 1.0, 0.1)),
    ):
        opcheck(operator.default, arguments, test_utils=utilities)
        with pytest.raises(NotImplementedError, match="is private and has no derivative"):
            operator(*arguments).sum().backward()


@pytest.mark.parametrize("channels_last", [False, True])
def test_opcheck_contractions_with_tap_tables(device: str, channels_last: bool) -> None:
    """With tables that no window gives, and entries outside."""
    g = generator("tables")
    images = make_images((2, 3, 7, 8), torch.float32, g).to(device)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    rows = torch.tensor([-2, 0, 0, 6]).expand(2, 3, 4).to(device, torch.int32)
    columns = torch.tensor([-1, 3, 7, 8, 9]).expand(2, 3, 5).to(device, torch.int32)
    row_weights = torch.randn(2, 3, 4, 2, generator=g).to(device)
    column_weights = torch.randn(2, 3, 5, 2, generator=g).to(device)
    tables = rows, row_weights, columns, column_weights
    grad = torch.randn(2, 3, 3, 4, 5, generator=g).to(device)
    operators = torch.ops.racnn_ops
    opcheck(operators._tap_crop.default, (images, *tables))
    opcheck(operators._tap_image_grad.default, (grad, *tables, 7, 8, channels_last))


def test_operators_used_directly_differentiate(device: str) -> None:
    images = make_images(SIZES, torch.float32, generator()).to(device).requires_grad_()
    windows = windows_of(device, 0).requires_grad_()
    inputs: tuple[Any, ...] = (images, windows)
    direct = torch.ops.racnn_ops._crop_forward(*inputs, 4, 5, "border", 0.7, [], [], torch.float32)
    public = attention_crop(*inputs, (4, 5), boundary="border", mask_steepness=0.7)
    assert torch.equal(direct, public)
    grad_output = torch.randn_like(direct)
    for one, other in zip(
        torch.autograd.grad(direct, inputs, grad_output),
        torch.autograd.grad(public, inputs, grad_output),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_meta_tensors() -> None:
    images = torch.empty(2, 3, 7, 8, device="meta").contiguous(memory_format=torch.channels_last)
    crops = attention_crop(images, torch.empty(2, 5, 4, device="meta"), (4, 5), dtype=torch.float16)
    assert crops.is_meta
    assert crops.shape == (2, 5, 3, 4, 5)
    assert crops.dtype == torch.float16
    assert crops.stride(-3) == 1


TOO_LARGE = {
    # 5 * C, the first workspace's size, is about 1000 modulo 2^64.
    "a result": """
        ops._crop_forward(one.expand(1, 2**40, 1, 1), ones(1, 3), n, n, "zeros", None, [], [], torch.float32)
    """,
    "the workspace of the boxcar gradient": """
        ops._crop_boxcar_grad(one.expand(1, (2**64 + 999) // 5, 1, 1), ones(1, 3), 0.05, "abs", 1.0, 0.0)
    """,
}


def errors_of(setting: str, *calls: str) -> str:
    """What the errors say, in a process that goes on afterwards and prints nothing else."""
    code = f"""
import resource, torch, racnn_ops
from torch import ones
ops, one, n = torch.ops.racnn_ops, torch.ones(1), 2**20
{textwrap.dedent(setting)}
for call in {[textwrap.dedent(call) for call in calls]}:
    try:
        exec(call)
    except RuntimeError as error:
        print(error)
    assert racnn_ops.attention_crop(ones(1, 1, 4, 4), 2 * ones(1, 3), 2).sum() == 4
"""
    return run_checked(sys.executable, "-c", code)


def test_sizes_beyond_int64_are_refused() -> None:
    errors = errors_of("", *TOO_LARGE.values()).splitlines()
    for what, error in zip(TOO_LARGE, errors, strict=True):
        assert re.fullmatch(rf"{re.escape(what)} is too large: \d+( x \d+)+ numbers", error), error


def test_kernel_without_memory_says_so() -> None:
    """Tables of an output 2^27 wide, for which there is no room: one error, nothing printed by torch."""
    setting = """
    grad_output, windows = one.expand(2, 1, 1, 2**27), ones(2, 3)
    used = 4096 * int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.RLIM_INFINITY))
    """
    call = 'ops._crop_image_grad(grad_output, windows, 9, 9, "zeros", None, [], False, torch.float32)'
    errors = errors_of(setting, f"torch.set_num_threads(1)\n{call}", f"torch.set_num_threads(2)\n{call}")
    for error in errors.splitlines():
        assert re.fullmatch(r"not enough memory: a kernel asked for \d+ bytes to work in", error), error
    assert len(errors.splitlines()) == 2
