# SPDX-License-Identifier: BSD-3-Clause
"""Which way a checked call goes: kernels or reference, eager or in a graph, under transforms or not."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import _library, reference
from ._autograd import differentiable_crop, has_tangent, is_differentiated
from ._crop_list import crop_list
from ._first_order import crop_under_transforms
from ._kernels import crop_kernel
from ._lists import are_channels_last, crop_any, joined
from ._options import SELECTED_DTYPES, CropOptions, Images, KernelOptions, Windows

# A CUDA launch carries scale and shift of so many channels among its parameters: csrc/cuda/affine.cuh.
MOST_NORMALISED_ON_CUDA = 128


def crop(
    images: Images,
    windows: Windows,
    crop_options: CropOptions,
    flip: Tensor | None = None,
    image_index: Tensor | None = None,
) -> Tensor:
    """The crops for checked arguments, by the compiled kernels or, without them, the reference."""
    if image_index is not None:
        image_index = image_index.to(torch.int64).contiguous()
    if not isinstance(images, Tensor):
        return _crop_list(images, windows, crop_options, flip, image_index)
    if not isinstance(windows, Tensor):
        windows, image_index = joined(windows)
    if flip is not None:
        if not _kernels_mirror(images, windows):
            return reference.mirrored(crop(images, windows, crop_options, None, image_index), flip)
        windows = _with_flip(windows, flip)
    options = crop_options.of(images)
    if not _has_kernels(images):
        return crop_any(images, windows, image_index, partial(reference.sample, options=options))
    if options.scale and images.is_cuda and images.shape[1] > MOST_NORMALISED_ON_CUDA:
        images, options = normalised_first(images, windows.dtype, options)
    dtype = options.dtype
    if images.dtype is dtype or (images.dtype, dtype) in _library.fused_pairs:
        return _crop(images, windows, options, image_index)
    return _crop(images, windows, options._replace(dtype=windows.dtype), image_index).to(dtype)


def _crop_list(
    images: Sequence[Tensor],
    windows: Windows,
    crop_options: CropOptions,
    flip: Tensor | None,
    image_index: Tensor | None,
) -> Tensor:
    if crop_options.memory_format is None:
        layout = torch.channels_last if are_channels_last(images) else torch.contiguous_format
        crop_options = crop_options._replace(memory_format=layout)

    def crop_batch(images: Tensor, windows: Tensor) -> Tensor:
        return crop(images, windows, crop_options)

    options = crop_options.of(images[0].unsqueeze(0))
    if not _is_one_call(images, windows, options):
        crops = crop_any(images, windows, image_index, crop_batch)
        return crops if flip is None else reference.mirrored(crops, flip)
    if flip is None or not _kernels_mirror(*images, *_tensors(windows)):
        crops = crop_list(images, windows, image_index, options, crop_batch)
        return crops if flip is None else reference.mirrored(crops, flip)
    if not isinstance(windows, Tensor):
        windows, image_index = joined(windows)
    return crop_list(images, _with_flip(windows, flip), image_index, options, crop_batch)


def _tensors(windows: Windows) -> Sequence[Tensor]:
    return [windows] if isinstance(windows, Tensor) else windows


def _is_one_call(images: Sequence[Tensor], windows: Windows, options: KernelOptions) -> bool:
    """Whether the kernels for lists can do: eagerly, without transforms, with nothing to prepare."""
    first = images[0]
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    if has_tangent(*images, *_tensors(windows)):
        return False
    if not _has_kernels(first) or (options.scale and first.is_cuda and len(first) > MOST_NORMALISED_ON_CUDA):
        return False
    return first.dtype is options.dtype or (first.dtype, options.dtype) in _library.fused_pairs


def _kernels_mirror(*images_and_windows: Tensor) -> bool:
    """Whether the forward kernels do so: on CPUs, where nothing is differentiated, nor exported."""
    if torch._C._are_functorch_transforms_active() or is_differentiated(*images_and_windows):
        return False
    images = images_and_windows[0]
    return _has_kernels(images) and images.is_cpu and not torch.compiler.is_exporting()


def _with_flip(windows: Tensor, flip: Tensor) -> Tensor:
    """Windows of five numbers, as those kernels take them: ``tx, ty, tw``, whether mirrored, ``th``."""
    return torch.cat((windows[..., :3], flip.unsqueeze(-1).to(windows.dtype), windows[..., -1:]), -1)


def normalised_first(
    images: Tensor, dtype: torch.dtype, options: KernelOptions
) -> tuple[Tensor, KernelOptions]:
    """Normalised images of the dtype that kernels compute in, and what is left to do with them."""
    return reference.normalise(images, dtype, options), options._replace(scale=(), shift=())


def _crop(images: Tensor, windows: Tensor, options: KernelOptions, image_index: Tensor | None) -> Tensor:
    if torch.compiler.is_compiling():
        return _crop_in_graph(images, windows, image_index, *options)  # type: ignore[no-any-return]
    return _crop_by_kernels(images, windows, options, image_index)


@torch.compiler.allow_in_graph  # type: ignore[untyped-decorator]
def _crop_in_graph(images: Tensor, windows: Tensor, image_index: Tensor | None, *options: Any) -> Tensor:
    """torch.compile and export do not look into it, and their graphs know no bundles."""
    return _crop_by_kernels(images, windows, KernelOptions(*options), image_index)


def _crop_by_kernels(
    images: Tensor, windows: Tensor, options: KernelOptions, image_index: Tensor | None
) -> Tensor:
    if torch._C._are_functorch_transforms_active() or has_tangent(images, windows):
        return crop_any(images, windows, image_index, partial(crop_under_transforms, options=options))
    differentiated = torch.is_grad_enabled() and (images.requires_grad or windows.requires_grad)
    if differentiated and not torch.compiler.is_compiling():
        return differentiable_crop(images, windows, options, image_index)
    return crop_kernel(images, windows, options, image_index)


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
