# SPDX-License-Identifier: BSD-3-Clause
"""vmap of the crop and of its derivatives is a loop over them."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from samples import EVERY_BOUNDARY, each_filter
from smooth import BOXCAR, SHAPE, assert_close, inputs, loss_of, random_inputs
from torch import Tensor
from torch.func import functional_call, grad, jacfwd, jvp, vmap

from racnn_ops import AttentionCrop, attention_crop, reference

IN_DIMS = [(0, None), (None, 0), (0, 0), (2, None), (-1, 1), (1, -1), (None, 2)]


def at(index: int, tensor: Tensor, dim: int | None) -> Tensor:
    return tensor if dim is None else tensor.select(dim, index)


@pytest.mark.parametrize("windows", [None, 2])
@pytest.mark.parametrize("in_dims", IN_DIMS)
def test_vmap_is_a_loop(device: str, in_dims: tuple[int | None, int | None], windows: int | None) -> None:
    """Of the crop and of its gradients."""
    base = inputs(device, windows=windows)
    arguments = [
        tensor if dim is None else torch.stack([tensor + 0.01 * i for i in range(3)], dim)
        for tensor, dim in zip(base, in_dims, strict=True)
    ]

    def crop(images: Tensor, windows: Tensor) -> Tensor:
        return attention_crop(images, windows, SHAPE.out, mask_steepness=0.7)

    for function in (crop, grad(loss_of(attention_crop), (0, 1)), jacfwd(crop, 1)):
        looped = [
            function(
                *(a if dim is None else a.select(dim, i) for a, dim in zip(arguments, in_dims, strict=True))
            )
            for i in range(3)
        ]
        mapped = vmap(function, in_dims)(*arguments)
        if isinstance(mapped, Tensor):
            assert_close(mapped, torch.stack(looped))
        else:
            assert_close(mapped, tuple(torch.stack(parts) for parts in zip(*looped, strict=True)))


@each_filter
def test_vmap_of_every_filter_is_a_loop(device: str, options: dict[str, Any]) -> None:
    """Over images, over windows and over both; of the crop, its gradients and its tangent."""
    images, windows = random_inputs(device)
    images = torch.stack([images + 0.1 * i for i in range(3)])
    windows = torch.stack([windows + 0.01 * i for i in range(3)])
    for n, in_dims in enumerate(((0, None), (None, 0), (0, 0))):
        case = {**options, "boundary": EVERY_BOUNDARY[n + 1]}
        arguments = images if in_dims[0] == 0 else images[0], windows if in_dims[1] == 0 else windows[0]
        crop = functools.partial(attention_crop, output_size=SHAPE.out, **case)
        for function in (
            lambda i, w, crop=crop: (crop(i, w),),
            grad(loss_of(attention_crop, **case), (0, 1)),
            lambda i, w, crop=crop: jvp(crop, (i, w), (torch.ones_like(i), torch.ones_like(w))),
        ):
            looped = [
                function(*(at(k, a, d) for a, d in zip(arguments, in_dims, strict=True))) for k in range(3)
            ]
            mapped = vmap(function, in_dims)(*arguments)
            assert_close(mapped, tuple(torch.stack(parts) for parts in zip(*looped, strict=True)))


def test_vmap_in_vmap_keeps_out_dims(device: str) -> None:
    images, windows = inputs(device)
    crop = vmap(lambda i, w: attention_crop(i[None], w[None], SHAPE.out)[0], out_dims=1)
    assert_close(crop(images, windows).movedim(1, 0), attention_crop(images, windows, SHAPE.out))
    scaled = torch.stack([windows, windows * 0.9])
    nested = vmap(vmap(lambda i, w: attention_crop(i[None], w[None], SHAPE.out)[0]), (None, 0))
    expected = torch.stack([attention_crop(images, w, SHAPE.out) for w in scaled])
    assert_close(nested(images, scaled), expected)


def test_empty_vmap(device: str) -> None:
    images, windows = inputs(device)
    empty = vmap(lambda w: attention_crop(images, w, SHAPE.out))(windows.new_empty(0, 2, 3))
    assert empty.shape == (0, 2, 2, *SHAPE.out)


def test_gradient_of_each_sample(device: str) -> None:
    """functional_call of a model with the crop inside, vmap(grad) over samples."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.locate = torch.nn.Linear(2 * 6 * 5, 3, dtype=torch.float64)
            self.crop = AttentionCrop(SHAPE.out, mask_steepness=0.7)

        def forward(self, images: Tensor) -> Tensor:
            windows = self.locate(images.flatten(1)).sigmoid() * 4 + 0.5
            crops: Tensor = self.crop(images, windows)
            return crops.square().mean((1, 2, 3))

    torch.manual_seed(0)
    model = Model().to(device)
    images, _ = inputs(device)
    parameters = dict(model.named_parameters())

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        result: Tensor = functional_call(model, parameters, (image[None],))[0]
        return result

    each = vmap(grad(loss), (None, 0))(parameters, images)
    for i in range(len(images)):
        model.zero_grad()
        model(images[i : i + 1]).sum().backward()
        for name, parameter in parameters.items():
            assert_close(each[name][i], parameter.grad)


def test_surrogate_under_vmap(device: str) -> None:
    arguments = inputs(device)
    each = vmap(grad(lambda i, w: loss_of(attention_crop, **BOXCAR)(i[None], w[None]), (0, 1)))(*arguments)
    assert_close(each, grad(loss_of(reference.attention_crop, **BOXCAR), (0, 1))(*arguments))
