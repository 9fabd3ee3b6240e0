# SPDX-License-Identifier: BSD-3-Clause
"""vmap's dimension, folded into one that the kernels have anyway: the images' (0) or the windows' (1)."""

from __future__ import annotations

from torch import Tensor


def fold(tensor: Tensor, in_dim: int | None, size: int, axis: int) -> Tensor:
    """``tensor`` with vmap's dimension, of ``size``, merged into ``axis``, in front; repeated if absent."""
    if in_dim is None:
        batched = tensor.unsqueeze(axis)
        batched = batched.expand(*batched.shape[:axis], size, *batched.shape[axis + 1 :])
    else:
        batched = tensor.movedim(in_dim, axis)
    return batched.flatten(axis, axis + 1)


def unfold(folded: Tensor, size: int, axis: int, like: Tensor, in_dim: int | None) -> Tensor:
    """Undo :func:`fold`: vmap's dimension is at ``axis``. ``like`` is an input, as it was before."""
    shape = list(like.shape)
    if in_dim is not None:
        del shape[in_dim]
    result: Tensor = folded.unflatten(axis, (size, shape[axis]))
    return result
