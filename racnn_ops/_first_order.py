# SPDX-License-Identifier: BSD-3-Clause
"""The crop and its first derivatives by kernels under transforms.

One kernel a function is what most calls need; tap tables made by small tensor operations are far slower. A
derivative of these functions in turn is one of what ``_transforms`` makes of tap tables, found by torch.func
only where it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType, _unwrap_for_grad, _wrap_for_grad
from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter

from ._arguments import is_channels_last
from ._autograd import has_tangent
from ._kernels import crop_kernel, image_grad_kernel, window_grad_kernel
from ._options import Boxcar, KernelOptions
from ._signature import with_signature
from ._surrogate import surrogate_gradient
from ._transforms import crop_by_taps, crops_along
from ._vmap import vmap_of_windows


@dataclass(frozen=True, eq=False)
class Constants:
    """What is no tensor. Not a tuple, which torch.func would take to pieces at every level."""

    options: KernelOptions
    sizes: tuple[int, int]
    channels_last: bool
    dtype: torch.dtype
    """Of the images, as their sizes and layout."""

    def linear(self) -> Constants:
        """Of a change of the images."""
        options = self.options
        unshifted = options._replace(shift=(0.0,) * len(options.scale), offset=())
        return Constants(unshifted, self.sizes, self.channels_last, self.dtype)


def crop_under_transforms(images: Tensor, windows: Tensor, options: KernelOptions) -> Tensor:
    """The crops: by kernels where at most one level differentiates, otherwise by tap tables."""
    reverse, forward = _levels(images, windows)
    if reverse + forward > 1 or (forward and (options.boxcar or not options.two_taps)):
        return crop_by_taps(images, windows, options)
    height, width = images.shape[2:]
    constants = Constants(options, (height, width), is_channels_last(images), images.dtype)
    if forward and options.dtype != torch.uint8 and (crops := _dual(images, windows, constants)) is not None:
        return crops
    return _Crop.apply(images, windows, constants)  # type: ignore[no-any-return]


def _dual(images: Tensor, windows: Tensor, constants: Constants) -> Tensor | None:
    """The crops with their tangent where torch.func.jvp is the only transform, otherwise None.

    Without a custom function, for which torch does several times as much as all this.
    """
    levels = torch._C._functorch.get_interpreter_stack() or ()
    if [each.key() for each in levels] != [TransformType.Jvp] or torch.compiler.is_compiling():
        return None
    interpreter = retrieve_current_functorch_interpreter()
    level = interpreter.level()
    duals = (torch.autograd.forward_ad.unpack_dual(tensor) for tensor in (images, windows))
    parts: list[Any] = [
        part if part is None else _unwrap_for_grad(part, level) for dual in duals for part in dual
    ]
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in parts):
        return None
    images, d_images, windows, d_windows = parts
    with interpreter.lower():
        crops: Tensor = _Crop.forward(images, windows, constants)
        along = _along_both(_Crop.forward, _Tangent.forward, images, windows, d_images, d_windows, constants)
    if along is None:
        return None
    dual = torch.autograd.forward_ad.make_dual(_wrap_for_grad(crops, level), _wrap_for_grad(along, level))
    return dual  # type: ignore[no-any-return]


def _along_both(
    crop: Callable[..., Tensor],
    tangent: Callable[..., Tensor],
    images: Tensor,
    windows: Tensor,
    d_images: Tensor | None,
    d_windows: Tensor | None,
    constants: Constants,
) -> Tensor | None:
    """How the crops change along changes of images and windows."""
    along = None
    if d_images is not None:
        along = crop(d_images, windows, constants.linear())
    if d_windows is not None:
        by_windows = tangent(images, windows, d_windows, constants)
        along = by_windows if along is None else along + by_windows
    return along


def _levels(*tensors: Tensor) -> tuple[int, int]:
    """How many levels differentiate at this call, in reverse and in forward mode."""
    kinds = [level.key() for level in torch._C._functorch.get_interpreter_stack() or ()]
    reverse, forward = kinds.count(TransformType.Grad), kinds.count(TransformType.Jvp)
    inner = [_unwrapped(tensor) for tensor in tensors]
    reverse += torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inner)
    return reverse, forward + has_tangent(*inner)


def _unwrapped(tensor: Tensor) -> Tensor:
    """As it is outside of torch.func."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.constants = inputs
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)
    ctx.set_materialize_grads(False)


class _Crop(torch.autograd.Function):
    @staticmethod
    @with_signature
    def forward(images: Tensor, windows: Tensor, constants: Constants) -> Tensor:
        return crop_kernel(images, windows, constants.options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _setup(ctx, inputs, output)
        if output.dtype == torch.uint8:
            ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None) -> tuple[Tensor | None, ...]:
        images, windows = ctx.saved_tensors
        constants: Constants = ctx.constants
        grad_images = grad_windows = None
        if grad_output is not None and ctx.needs_input_grad[0]:
            grad_images = _ImageGrad.apply(grad_output, windows, constants)
        if grad_output is not None and ctx.needs_input_grad[1]:
            if constants.options.boxcar:
                boxcar = Boxcar.of(constants.options.boxcar).scaled_to(*constants.sizes)
                grad_windows = surrogate_gradient(grad_output, windows, boxcar)
            else:
                grad_windows = _WindowGrad.apply(grad_output, images, windows, constants)
        return grad_images, grad_windows, None

    @staticmethod
    def jvp(ctx: Any, d_images: Tensor | None, d_windows: Tensor | None, _: None) -> Tensor | None:
        images, windows = ctx.saved_tensors
        constants: Constants = ctx.constants
        if constants.options.dtype == torch.uint8:
            return None
        return _along_both(_Crop.apply, _Tangent.apply, images, windows, d_images, d_windows, constants)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        return vmap_of_windows(_Crop, 0, 1, info, in_dims, inputs)


def _image_grad_by_taps(grad_output: Tensor, windows: Tensor, constants: Constants) -> Tensor:
    options = constants.options._replace(dtype=grad_output.dtype)
    shape = grad_output.shape[0], grad_output.shape[-3], *constants.sizes
    images = grad_output.new_zeros(shape, dtype=constants.dtype)
    if constants.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    pull = torch.func.vjp(lambda images: crop_by_taps(images, windows, options), images)[1]
    return pull(grad_output)[0]  # type: ignore[no-any-return]


def _window_grad_by_taps(
    grad_output: Tensor, images: Tensor, windows: Tensor, constants: Constants
) -> Tensor:
    options = constants.options._replace(dtype=grad_output.dtype)
    pull = torch.func.vjp(lambda windows: crop_by_taps(images, windows, options), windows)[1]
    return pull(grad_output)[0]  # type: ignore[no-any-return]


def _tangent_by_taps(images: Tensor, windows: Tensor, d_windows: Tensor, constants: Constants) -> Tensor:
    def crop(windows: Tensor) -> Tensor:
        return crop_by_taps(images, windows, constants.options)

    return _along(crop, (windows,), (d_windows,))


def _of_some(
    function: Callable[..., Tensor], ctx: Any, wanted: list[bool]
) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """``function`` of those saved tensors that are wanted, and these."""
    tensors = ctx.saved_tensors

    def of_some(*some: Tensor) -> Tensor:
        given = iter(some)
        every = (next(given) if want else tensor for tensor, want in zip(tensors, wanted, strict=True))
        return function(*every, ctx.constants)

    return of_some, tuple(tensor for tensor, want in zip(tensors, wanted, strict=True) if want)


def _vjp(function: Callable[..., Tensor], ctx: Any, cotangent: Tensor | None) -> tuple[Tensor | None, ...]:
    *needed, _ = ctx.needs_input_grad
    if cotangent is None:
        return (None,) * (len(needed) + 1)
    of_needed, primals = _of_some(function, ctx, needed)
    pull = torch.func.vjp(of_needed, *primals)[1]
    found = iter(pull(cotangent))
    return *(next(found) if need else None for need in needed), None


def _jvp(function: Callable[..., Tensor], ctx: Any, *tangents: Tensor | None) -> Tensor:
    moved = [tangent is not None for tangent in tangents]
    of_moved, primals = _of_some(function, ctx, moved)
    return _along(of_moved, primals, tuple(tangent for tangent in tangents if tangent is not None))


def _along(
    function: Callable[..., Tensor], primals: tuple[Tensor, ...], tangents: tuple[Tensor, ...]
) -> Tensor:
    """As torch.func.jvp, by reverse mode twice: inside of forward mode there is no other."""
    output, pull = torch.func.vjp(function, *primals)[:2]
    return torch.func.vjp(pull, torch.zeros_like(output))[1](tangents)[0]  # type: ignore[no-any-return]


class _ImageGrad(torch.autograd.Function):
    """The gradient of the images (B, C, H, W)."""

    @staticmethod
    @with_signature
    def forward(grad_output: Tensor, windows: Tensor, constants: Constants) -> Tensor:
        return image_grad_kernel(
            *(grad_output, windows, *constants.sizes),
            *(constants.channels_last, constants.dtype, constants.options),
        )

    setup_context = staticmethod(_setup)

    @staticmethod
    def backward(ctx: Any, d_images: Tensor | None) -> tuple[Tensor | None, ...]:
        return _vjp(_image_grad_by_taps, ctx, d_images)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        return _jvp(_image_grad_by_taps, ctx, *tangents[:-1])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        return vmap_of_windows(_ImageGrad, None, 1, info, in_dims, inputs)


class _WindowGrad(torch.autograd.Function):
    """The gradient of the windows, of their shape."""

    @staticmethod
    @with_signature
    def forward(grad_output: Tensor, images: Tensor, windows: Tensor, constants: Constants) -> Tensor:
        return window_grad_kernel(grad_output, images, windows, constants.options)

    setup_context = staticmethod(_setup)

    @staticmethod
    def backward(ctx: Any, d_windows: Tensor | None) -> tuple[Tensor | None, ...]:
        return _vjp(_window_grad_by_taps, ctx, d_windows)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        return _jvp(_window_grad_by_taps, ctx, *tangents[:-1])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        return vmap_of_windows(_WindowGrad, 1, 2, info, in_dims, inputs)


class _Tangent(torch.autograd.Function):
    """The crops' change along a change of the windows, where an output reads two pixels an axis."""

    @staticmethod
    @with_signature
    def forward(images: Tensor, windows: Tensor, d_windows: Tensor, constants: Constants) -> Tensor:
        return crops_along(images, windows, d_windows, constants.options)

    setup_context = staticmethod(_setup)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None) -> tuple[Tensor | None, ...]:
        return _vjp(_tangent_by_taps, ctx, grad_output)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        return _jvp(_tangent_by_taps, ctx, *tangents[:-1])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        return vmap_of_windows(_Tangent, 0, 1, info, in_dims, inputs)
