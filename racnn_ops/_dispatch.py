# SPDX-License-Identifier: BSD-3-Clause
"""Which way a checked call goes: kernels or reference, eager or in a graph, under transforms or not."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from . import _library, reference
from ._autograd import differentiable_crop, has_tangent, is_differentiated
from ._first_order import crop_under_transforms
from ._kernels import crop_kernel
from ._options import SELECTED_DTYPES, CropOptions, KernelOptions

# A CUDA launch carries scale and shift of so many channels among its parameters: csrc/cuda/affine.cuh.
MOST_NORMALISED_ON_CUDA = 128


def crop(images: Tensor, windows: Tensor, crop_options: CropOptions, flip: Tensor | None = None) -> Tensor:
    """The crops for checked arguments, by the compiled kernels or, without them, the reference."""
    if flip is not None:
        if not _kernels_mirror(images, windows):
            return reference.mirrored(crop(images, windows, crop_options), flip)
        windows = _with_flip(windows, flip)
    options = crop_options.of(images)
    if not _has_kernels(images):
        return reference.sample(images, windows, options)
    if options.scale and images.is_cuda and images.shape[1] > MOST_NORMALISED_ON_CUDA:
        images, options = normalised_first(images, windows.dtype, options)
    dtype = options.dtype
    if images.dtype is dtype or (images.dtype, dtype) in _library.fused_pairs:
        return _crop(images, windows, options)
    return _crop(images, windows, options._replace(dtype=windows.dtype)).to(dtype)


def _kernels_mirror(images: Tensor, windows: Tensor) -> bool:
    """Whether the forward kernels do so: on CPUs, where nothing is differentiated, nor exported."""
    if torch._C._are_functorch_transforms_active() or is_differentiated(images, windows):
        return False
    return _has_kernels(images) and images.is_cpu and not torch.compiler.is_exporting()


def _with_flip(windows: Tensor, flip: Tensor) -> Tensor:
    """Windows of five numbers, as those kernels take them: ``tx, ty, tw``, whether mirrored, ``th``."""
    return torch.cat((windows[..., :3], flip.unsqueeze(-1).to(windows.dtype), windows[..., -1:]), -1)


def normalised_first(
    images: Tensor, dtype: torch.dtype, options: KernelOptions
) -> tuple[Tensor, KernelOptions]:
    """Normalised images of the dtype that kernels compute in, and what is left to do with them."""
    return reference.normalise(images, dtype, options), options._replace(scale=(), shift=())


def _crop(images: Tensor, windows: Tensor, options: KernelOptions) -> Tensor:
    if torch.compiler.is_compiling():
        return _crop_in_graph(images, windows, *options)  # type: ignore[no-any-return]
    return _crop_by_kernels(images, windows, options)


@torch.compiler.allow_in_graph  # type: ignore[untyped-decorator]
def _crop_in_graph(images: Tensor, windows: Tensor, *options: Any) -> Tensor:
    """torch.compile and export do not look into it, and their graphs know no bundles."""
    return _crop_by_kernels(images, windows, KernelOptions(*options))


def _crop_by_kernels(images: Tensor, windows: Tensor, options: KernelOptions) -> Tensor:
    if torch._C._are_functorch_transforms_active() or has_tangent(images, windows):
        return crop_under_transforms(images, windows, options)
    differentiated = torch.is_grad_enabled() and (images.requires_grad or windows.requires_grad)
    if differentiated and not torch.compiler.is_compiling():
        return differentiable_crop(images, windows, options)
    return crop_kernel(images, windows, options)


def _has_kernels(images: Tensor) -> bool:
    if not _library.has_cpu or images.dtype in SELECTED_DTYPES:
        return False
    if not (images.is_cpu or images.is_meta or (images.is_cuda and _library.has_cuda)):
        device = images.device.type
        reason = _library.cuda_error if device == "cuda" else "this device has no kernels"
        _warn_once(f"no compiled kernels for {device} tensors ({reason})")
        return False
    return True


_warned: set[str] = set()


def _warn_once(what: str) -> None:
    if what in _warned or torch.compiler.is_compiling():
        return
    _warned.add(what)
    message = f"racnn_ops: {what}; the slower pure-PyTorch reference answers"
    warnings.warn(message, RuntimeWarning, stacklevel=5)
