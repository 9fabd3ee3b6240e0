# SPDX-License-Identifier: BSD-3-Clause
"""Calls of the operators, as Python makes them: eagerly below autograd, in a graph as they are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any

import torch
from torch import Tensor

from ._arguments import BOUNDARIES, INTERPOLATIONS
from ._library import NAMESPACE
from ._options import IMAGE_DTYPES, Boxcar, KernelOptions

# The operators' registered autograd is Python: where nobody differentiates, going below it saves its time.
below_autograd = torch._C._AutoDispatchBelowAutograd

# torch's number of each dtype (c10::ScalarType).
_NUMBERS = {torch.uint8: 0, torch.float16: 5, torch.float32: 6, torch.float64: 7, torch.bfloat16: 15}
_DTYPES = {number: dtype for dtype, number in _NUMBERS.items()}
# What the overloads `coded` take in the place of these options: OptionCode in csrc/tap_options.h.
_CODES = {
    (boundary, interpolation, antialias, dtype): BOUNDARIES.index(boundary)
    + 4 * (INTERPOLATIONS.index(interpolation) + 8 * (antialias + 8 * _NUMBERS[dtype]))
    for boundary, interpolation, antialias, dtype in product(
        BOUNDARIES, INTERPOLATIONS, (False, True), IMAGE_DTYPES
    )
}
# Added to a code: the layout of the result.
_LAYOUTS = {None: 0, False: 64, True: 128}
_LAYOUT_OF = {code: channels_last for channels_last, code in _LAYOUTS.items()}

_operators = getattr(torch.ops, NAMESPACE)


def _call(operator: Any, *arguments: Any) -> Tensor:
    if torch.compiler.is_compiling():
        return operator(*arguments)  # type: ignore[no-any-return]
    with below_autograd():
        return operator(*arguments)  # type: ignore[no-any-return]


def _coded(
    options: KernelOptions, dtype: torch.dtype, channels_last: bool | None = None
) -> tuple[int, float] | None:
    """What the overloads take, or None where they do not do: graphs and modes see options by their names."""
    _, _, boundary, mask_steepness, scale, _, _, _, interpolation, antialias, offset, _ = options
    # Whatever makes a graph of calls is a mode, but for torch.jit.trace.
    if scale or offset or torch._C._len_torch_dispatch_stack() or torch._C._is_tracing():
        return None
    return _CODES[boundary, interpolation, antialias, dtype] + _LAYOUTS[channels_last], mask_steepness or 0.0


@cache
def _overload(name: str) -> Any:
    # Without OpOverload.__call__, a frame for every call.
    return getattr(_operators, name).coded._op


def decoded(code: int) -> tuple[bool | None, torch.dtype]:
    """Whether the layout of a code is channels_last, if it says, and its dtype."""
    return _LAYOUT_OF[code & 192], _DTYPES[code // 256]


def crop_kernel(
    images: Tensor, windows: Tensor, options: KernelOptions, image_index: Tensor | None = None
) -> Tensor:
    """The crops."""
    if image_index is not None:
        return _call(_operators._crop_forward.default, images, windows, *options, image_index)
    if (coded := _coded(options, options.dtype, options.channels_last)) is None:
        return _call(_operators._crop_forward.default, images, windows, *options)
    return _overload("_crop_forward")(images, windows, *options[:2], *coded)  # type: ignore[no-any-return]


def image_grad_kernel(
    grad_output: Tensor,
    windows: Tensor,
    height: int,
    width: int,
    channels_last: bool,
    dtype: torch.dtype,
    options: KernelOptions,
    image_index: Tensor | None = None,
    images: int = 0,
) -> Tensor:
    """The gradient of images of that size, layout and dtype; with an index of so many of them."""
    if image_index is not None or (coded := _coded(options, dtype, channels_last)) is None:
        return _call(
            _operators._crop_image_grad.default,
            *(grad_output, windows, height, width, options.boundary, options.mask_steepness, options.scale),
            *(channels_last, dtype, options.interpolation, options.antialias),
            *(() if image_index is None else (image_index, images)),
        )
    return _overload("_crop_image_grad")(  # type: ignore[no-any-return]
        grad_output, windows, height, width, *coded
    )


def window_grad_kernel(
    grad_output: Tensor,
    images: Tensor,
    windows: Tensor,
    options: KernelOptions,
    image_index: Tensor | None = None,
) -> Tensor:
    """The gradient of the windows."""
    if image_index is not None or (coded := _coded(options, images.dtype)) is None:
        return _call(
            _operators._crop_window_grad.default,
            *(grad_output, images, windows, *_of_window_grad(options)),
            *(() if image_index is None else (image_index,)),
        )
    return _overload("_crop_window_grad")(grad_output, images, windows, *coded)  # type: ignore[no-any-return]


def _of_window_grad(options: KernelOptions) -> tuple[Any, ...]:
    return (
        *(options.boundary, options.mask_steepness, options.scale, options.shift),
        *(options.interpolation, options.antialias),
    )


def list_crop_kernel(
    images: Sequence[Tensor], windows: Tensor, image_index: Tensor, options: KernelOptions
) -> Tensor:
    """The crops of a list of images; the index is on the host, of images that there are."""
    return _call(_operators._crop_list.default, list(images), windows, image_index, *options)


def list_window_grad_kernel(
    grad_output: Tensor,
    images: Sequence[Tensor],
    windows: Tensor,
    image_index: Tensor,
    options: KernelOptions,
) -> Tensor:
    """The gradient of the windows of a list of images."""
    return _call(
        _operators._crop_list_window_grad.default,
        *(grad_output, list(images), windows, image_index, *_of_window_grad(options)),
    )


def boxcar_grad_kernel(grad_output: Tensor, windows: Tensor, boxcar: Boxcar) -> Tensor:
    """The surrogate gradient of the windows, from options scaled to the image."""
    return _call(_operators._crop_boxcar_grad.default, grad_output, windows, *boxcar[:4])


def tap_crop_kernel(images: Tensor, *tables: Tensor) -> Tensor:
    """Crops by tap tables."""
    return _call(_operators._tap_crop.default, images, *tables)


def tap_image_grad_kernel(grad_output: Tensor, *tables_and_format: Any) -> Tensor:
    """The gradient of their images."""
    return _call(_operators._tap_image_grad.default, grad_output, *tables_and_format)
