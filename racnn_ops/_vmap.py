# SPDX-License-Identifier: BSD-3-Clause
"""vmap's dimension, folded into one that the kernels have anyway: the images' (0) or the windows' (1)."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def fold(tensor: Tensor, in_dim: int | None, size: int, axis: int) -> Tensor:
    """``tensor`` with vmap's dimension, of ``size``, merged into ``axis``, in front; repeated if absent."""
    return spread(tensor, in_dim, size, axis).flatten(axis, axis + 1)


def spread(tensor: Tensor, in_dim: int | None, size: int, axis: int) -> Tensor:
    """``tensor`` with vmap's dimension, of ``size``, at ``axis``; repeated if absent."""
    if in_dim is not None:
        return tensor.movedim(in_dim, axis)
    batched = tensor.unsqueeze(axis)
    return batched.expand(*batched.shape[:axis], size, *batched.shape[axis + 1 :])


def unfold(folded: Tensor, size: int, axis: int, like: Tensor, in_dim: int | None) -> Tensor:
    """Undo :func:`fold`: vmap's dimension is at ``axis``. ``like`` is an input, as it was before."""
    shape = list(like.shape)
    if in_dim is not None:
        del shape[in_dim]
    result: Tensor = folded.unflatten(axis, (size, shape[axis]))
    return result


def vmap_of_windows(
    function: Any,
    images: int | None,
    windows: int,
    info: Any,
    in_dims: tuple[Any, ...],
    inputs: tuple[Any, ...],
) -> tuple[Tensor, int]:
    """vmap of an autograd function of windows (B, [K,] 3 or 4), at that place of its arguments.

    Images (at the place ``images``) that are the same for all stay as they are: vmap's dimension goes into
    the windows' axis, or is it where there is none; otherwise into that of the images.
    """
    size = info.batch_size
    axis = 1 if images is not None and in_dims[images] is None else 0
    has_window_axis = inputs[windows].dim() == (3 if in_dims[windows] is None else 4)
    folded = [
        value
        if not isinstance(value, Tensor) or (axis == 1 and place == images)
        else fold(value, in_dim, size, axis)
        if axis == 0 or has_window_axis
        else spread(value, in_dim, size, axis)
        for place, (value, in_dim) in enumerate(zip(inputs, in_dims, strict=True))
    ]
    output: Tensor = function.apply(*folded)
    if axis == 0 or has_window_axis:
        output = unfold(output, size, axis, inputs[windows], in_dims[windows])
    return output, axis
