# SPDX-License-Identifier: BSD-3-Clause
"""The transforms of PyTorch: of a loss, by some of its arguments (images 0, windows 1).

A result is a tensor or a tuple of tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

Loss = Callable[[Tensor, Tensor], Tensor]
Arguments = tuple[int, ...]
Transform = Callable[[Loss, Arguments, tuple[Tensor, Tensor]], Any]


def _leaves(where: Arguments, inputs: tuple[Tensor, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Fresh inputs, and those of them to differentiate by."""
    fresh = [tensor.detach().clone().requires_grad_(i in where) for i, tensor in enumerate(inputs)]
    return fresh, [fresh[i] for i in where]


def backward(loss: Loss, where: Arguments, inputs: tuple[Tensor, Tensor]) -> Any:
    fresh, leaves = _leaves(where, inputs)
    return torch.autograd.grad(loss(*fresh), leaves)


def double_backward(loss: Loss, where: Arguments, inputs: tuple[Tensor, Tensor]) -> Any:
    fresh, leaves = _leaves(where, inputs)
    first = torch.autograd.grad(loss(*fresh), leaves, create_graph=True)
    return torch.autograd.grad(sum(t.square().sum() for t in first), leaves)


def batched_backward(loss: Loss, where: Arguments, inputs: tuple[Tensor, Tensor]) -> Any:
    fresh, leaves = _leaves(where, inputs)
    many = torch.tensor([1.0, 2.0], dtype=torch.float64)
    return torch.autograd.grad(loss(*fresh), leaves, many, is_grads_batched=True)


def _dual(where: Arguments, inputs: Sequence[Tensor]) -> list[Tensor]:
    return [forward_ad.make_dual(t, t.cos()) if i in where else t for i, t in enumerate(inputs)]


def forward_mode(loss: Loss, where: Arguments, inputs: tuple[Tensor, Tensor]) -> Any:
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(loss(*_dual(where, inputs))).tangent
    assert tangent is not None, "no tangent, and no error"
    return tangent


def forward_over_backward(loss: Loss, where: Arguments, inputs: tuple[Tensor, Tensor]) -> Any:
    fresh, _ = _leaves(where, inputs)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t, t.detach().cos()) if i in where else t for i, t in enumerate(fresh)]
        first = torch.autograd.grad(loss(*duals), [duals[i] for i in where])
        return tuple(forward_ad.unpack_dual(t).tangent for t in first)


def func(transform: Callable[[Loss, Arguments], Any]) -> Transform:
    return lambda loss, where, inputs: transform(loss, where)(*inputs)


def along(loss: Loss, where: Arguments) -> Any:
    """The derivative along one direction, by jvp."""

    def derivative(*inputs: Tensor) -> Any:
        def of_some(*some: Tensor) -> Tensor:
            every = list(inputs)
            for i, tensor in zip(where, some, strict=True):
                every[i] = tensor
            return loss(*every)

        some = tuple(inputs[i] for i in where)
        return jvp(of_some, some, tuple(torch.ones_like(t) for t in some))[1]

    return derivative


def for_each_sample(loss: Loss) -> Any:
    return lambda image, window: loss(image[None], window[None])


def each_gradient(loss: Loss, where: Arguments) -> Any:
    return vmap(grad(for_each_sample(loss), where))


def each_window(loss: Loss, where: Arguments) -> Any:
    """Several sets of windows on the same images."""
    gradient = grad(loss, where)
    return lambda images, windows: vmap(gradient, (None, 0))(images, torch.stack((windows, windows * 0.99)))


def compiled(transform: Callable[[Loss, Arguments], Any]) -> Transform:
    def run(loss: Loss, where: Arguments, inputs: tuple[Tensor, Tensor]) -> Any:
        torch._dynamo.reset()
        return torch.compile(transform(loss, where), fullgraph=True, backend="aot_eager")(*inputs)

    return run


def compiled_loss(transform: Transform) -> Transform:
    def run(loss: Loss, where: Arguments, inputs: tuple[Tensor, Tensor]) -> Any:
        torch._dynamo.reset()
        return transform(torch.compile(loss, fullgraph=True, backend="aot_eager"), where, inputs)

    return run


class _Program(torch.nn.Module):
    def __init__(self, function: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.forward = function


def exported(loss: Loss, where: Arguments, inputs: tuple[Tensor, Tensor]) -> Any:
    return backward(torch.export.export(_Program(loss), inputs).module(), where, inputs)


def exported_gradient(loss: Loss, where: Arguments, inputs: tuple[Tensor, Tensor]) -> Any:
    return torch.export.export(_Program(grad(loss, where)), inputs).module()(*inputs)


TRANSFORMS: dict[str, Transform] = {
    "`backward`": backward,
    "`backward`, twice (`create_graph`)": double_backward,
    "`backward`, batched (`is_grads_batched`)": batched_backward,
    "forward mode (`forward_ad`)": forward_mode,
    "forward mode over `backward`": forward_over_backward,
    "`func.grad`": func(grad),
    "`jvp`": func(along),
    "`jvp` of `jvp`": func(lambda loss, where: along(along(loss, where), where)),
    "`jacrev`": func(jacrev),
    "`jacfwd`": func(jacfwd),
    "`hessian` (`jacfwd` of `jacrev`)": func(hessian),
    "`jacrev` of `jacrev`": func(lambda loss, where: jacrev(jacrev(loss, where), where)),
    "third derivative (`jvp` of `hessian`)": func(lambda loss, where: along(hessian(loss, where), where)),
    "`vmap`": lambda loss, where, inputs: vmap(for_each_sample(loss))(*inputs),
    "`vmap` of `grad`, each sample": func(each_gradient),
    "`vmap` of `grad`, the same images": func(each_window),
    "`compile`, `backward`": compiled_loss(backward),
    "`compile`, `backward` twice": compiled_loss(double_backward),
    "`compile` of `func.grad`": compiled(grad),
    "`compile` of `jvp`": compiled(along),
    "`compile` of `hessian`": compiled(hessian),
    "`compile` of `vmap` of `grad`": compiled(each_gradient),
    "`torch.export`, `backward`": exported,
    "`torch.export` of `func.grad`": exported_gradient,
}

# What an exported program must give.
EAGER: dict[Transform, Transform] = {exported: backward, exported_gradient: func(grad)}
