# SPDX-License-Identifier: BSD-3-Clause
"""The crop under one transform: by kernels, and every derivative of what they give all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from samples import BOUNDARIES, MASKS, generator, make_images
from smooth import SHAPE, Crop, assert_close, inputs, loss_of
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, jacfwd, jacrev, jvp, vjp, vmap
from torch.profiler import profile

from racnn_ops import _first_order, attention_crop, reference
from racnn_ops._arguments import check_options

both_axes_alike = pytest.mark.parametrize("alike", [False, True], ids=["oblong", "square"])


def operators_of(call: Callable[[], Any]) -> list[str]:
    with profile() as recorded:
        call()
    names = [event.name for event in recorded.events()]
    return sorted(name.removeprefix("racnn_ops::") for name in names if name.startswith("racnn_ops::"))


def pull_of(crop: Crop, arguments: tuple[Tensor, Tensor]) -> Any:
    return vjp(lambda *inputs: crop(*inputs, SHAPE.out, mask_steepness=0.7), *arguments)[1]


def test_one_level_is_by_kernels(device: str) -> None:
    """And two are not."""
    images, windows = inputs(device)
    loss = loss_of(attention_crop)
    both = ["_crop_forward", "_crop_image_grad", "_crop_window_grad"]
    assert operators_of(lambda: grad(loss, (0, 1))(images, windows)) == both
    assert operators_of(lambda: pull_of(attention_crop, (images, windows))(torch.ones(2, 2, 2, 3).to(images)))
    assert operators_of(lambda: vmap(lambda w: attention_crop(images, w, 2))(windows[None])) == both[:1]
    along = jvp, (lambda w: attention_crop(images, w, 2)), (windows,), (windows,)
    assert operators_of(lambda: along[0](*along[1:])) == ["_crop_forward", "_tap_crop", "_tap_crop"]
    assert both[0] not in operators_of(lambda: jacrev(jacrev(loss, 1), 1)(images, windows))


# Of what is differentiated by kernels: with one level alone no other test gets there.


def first_order(name: str, device: str, **form: Any) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """One of the functions, and its arguments."""
    images, windows = inputs(device, **form)
    images, windows = images[:1], windows[:1]
    mask_steepness = 0.7 if form["boundary"] == "clip" else None
    checked = check_options(
        *(SHAPE.out, "bilinear", False, mask_steepness, form["boundary"], None, "exact"),
        *([0.3, 0.4], [0.5, 2.0], None, None, None),
    )
    sizes = tuple(images.shape[2:])
    constants = _first_order.Constants(checked.of(images), sizes, False, images.dtype)
    crops = attention_crop(images, windows, SHAPE.out)
    grad_output, d_windows = (
        torch.randn(t.shape, generator=generator(name), dtype=t.dtype).to(t) for t in (crops, windows)
    )
    arguments = {
        "_Crop": (images, windows),
        "_ImageGrad": (grad_output, windows),
        "_WindowGrad": (grad_output, images, windows),
        "_Tangent": (images, windows, d_windows),
    }[name]
    function = getattr(_first_order, name)
    return lambda *inputs: function.apply(*inputs, constants), [t.requires_grad_() for t in arguments]


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("name", ["_Crop", "_ImageGrad", "_WindowGrad", "_Tangent"])
def test_every_function_has_every_derivative(device: str, name: str, boundary: str) -> None:
    form = {"values": 4, "windows": 2} if boundary == "border" else {"values": 3}
    function, arguments = first_order(name, device, boundary=boundary, **form)
    assert gradcheck(function, arguments, check_forward_ad=True, check_batched_grad=True, fast_mode=True)
    assert gradgradcheck(function, arguments, check_fwd_over_rev=True, fast_mode=True)


Composition = Callable[[Crop, Tensor, Tensor], Any]


def graph_inside_of_grad(crop: Crop, images: Tensor, windows: Tensor) -> Any:
    """autograd's double backward, where torch.func has one level."""

    def penalty(images: Tensor, windows: Tensor) -> Tensor:
        first = torch.autograd.grad(loss_of(crop)(images, windows), (images, windows), create_graph=True)
        return first[0].square().sum() + first[1].square().sum()

    return grad(penalty, (0, 1))(images, windows)


def pulled_along(crop: Crop, images: Tensor, windows: Tensor) -> Any:
    """Forward mode through a vjp that exists already, along the incoming gradient."""
    pull = pull_of(crop, (images, windows))
    cotangent = crop(images, windows, SHAPE.out)
    return jvp(pull, (cotangent,), (cotangent.cos(),))[1]


def pulled_back(crop: Crop, images: Tensor, windows: Tensor) -> Any:
    pull = pull_of(crop, (images, windows))
    cotangent = crop(images, windows, SHAPE.out)
    return grad(lambda g: sum(t.sin().sum() for t in pull(g)))(cotangent)


def pulled_for_each(crop: Crop, images: Tensor, windows: Tensor) -> Any:
    pull = pull_of(crop, (images, windows))
    return vmap(pull)(torch.stack([crop(images, windows, SHAPE.out) + i for i in range(3)]))


def by_the_tangent(crop: Crop, images: Tensor, windows: Tensor) -> Any:
    """Reverse mode over forward mode, along the direction: torch.func's and autograd's."""

    def size(direction: Tensor) -> Tensor:
        return jvp(lambda w: crop(images, w, SHAPE.out), (windows,), (direction,))[1].sin().sum()

    direction = windows.cos().requires_grad_()
    with forward_ad.dual_level():
        crops = crop(images, forward_ad.make_dual(windows, direction), SHAPE.out)
        plain = torch.autograd.grad(forward_ad.unpack_dual(crops).tangent.sin().sum(), direction)[0]
        plain = forward_ad.unpack_dual(plain).primal
    return grad(size)(direction.detach()), torch.autograd.grad(size(direction), direction), plain


def graph_outside(crop: Crop, images: Tensor, windows: Tensor) -> Any:
    """autograd around vmap and around torch.func.grad, twice."""
    images, windows = images.clone().requires_grad_(), windows.clone().requires_grad_()
    mapped = vmap(lambda w: crop(images, w, SHAPE.out))(torch.stack((windows, windows * 0.99)))
    first = torch.autograd.grad(mapped.sin().sum(), (images, windows), create_graph=True)
    inner = grad(loss_of(crop), (0, 1))(images, windows)
    total = sum(t.square().sum() for t in (*first, *inner))
    return torch.autograd.grad(total, (images, windows))


def each_direction(crop: Crop, images: Tensor, windows: Tensor) -> Any:
    """vmap outside of jvp and inside, and inside of autograd's forward mode."""

    def along(w: Tensor, direction: Tensor) -> Any:
        return jvp(lambda i, w: crop(i, w, SHAPE.out), (images, w), (images.cos(), direction))

    many = torch.stack((windows, windows * 0.99))
    inside = jvp(vmap(lambda w: crop(images, w, SHAPE.out)), (many,), (many.cos(),))
    with forward_ad.dual_level():
        mapped = vmap(lambda w: crop(images, w, SHAPE.out))(forward_ad.make_dual(many, many.cos()))
        plain = tuple(forward_ad.unpack_dual(mapped))
    jacobian = jacfwd(lambda w: crop(images, w, SHAPE.out))(windows)
    return vmap(along)(many, many.sin()), inside, plain, jacobian


@pytest.mark.parametrize("windows", [None, 2])
@pytest.mark.parametrize(
    "composition",
    [
        *(graph_inside_of_grad, pulled_along, pulled_back, pulled_for_each),
        *(by_the_tangent, graph_outside, each_direction),
    ],
)
def test_compositions_beyond_torch_func(device: str, composition: Composition, windows: int | None) -> None:
    arguments = inputs(device, windows=windows)
    assert_close(composition(attention_crop, *arguments), composition(reference.attention_crop, *arguments))


# Forward mode by windows, whose formula is written out


@both_axes_alike
@pytest.mark.parametrize("mask_steepness", MASKS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_tangent_of_any_window(device: str, boundary: str, mask_steepness: float | None, alike: bool) -> None:
    """Inside, beyond the edges, without area, far away, not finite; in every dtype of the result."""
    g = generator(boundary, mask_steepness, alike)
    images = make_images((1, 2, 7, 7 if alike else 9), torch.float64, g).to(device)
    values = [[3.3, 3.6, 2.1], [0.4, 6.8, 3.7], [3.5, 3.5, 0.0], [4.2, 2.9, -1.3], [1e9, 3.1, 2.0]]
    values += [[3.1, -4e8, 7.0], [3.5, 3.5, 3.5], [torch.nan, 3.0, 2.0], [3.0, torch.inf, 2.0]]
    windows = torch.tensor([values], dtype=torch.float64, device=device)
    windows = torch.cat((windows, windows[..., 2:] * 0.7), -1)
    tangent = torch.randn(windows.shape, generator=g, dtype=torch.float64).to(device)
    options = {"boundary": boundary, "mask_steepness": mask_steepness, "mean": [0.3, 0.4], "std": [0.5, 2.0]}
    for part, size in ((windows, (4, 4) if alike else (4, 5)), (windows[..., :3], (3, 3))):
        results = []
        for crop in (attention_crop, reference.attention_crop):
            _, along = jvp(
                lambda w, crop=crop, size=size: crop(images, w, size, **options),
                (part,),
                (tangent[..., : part.shape[-1]],),
            )
            results.append(along)
        torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9, equal_nan=True)


def test_no_tangent_of_uint8(device: str) -> None:
    images = torch.zeros(1, 1, 4, 4, dtype=torch.uint8, device=device)
    windows = torch.tensor([[2.0, 2.0, 1.0]], device=device)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(windows, windows)
        assert forward_ad.unpack_dual(attention_crop(images, dual, 3)).tangent is None
        assert (
            forward_ad.unpack_dual(attention_crop(images, dual, 3, dtype=torch.float32)).tangent is not None
        )
    crops, along = jvp(lambda w: attention_crop(images, w, 3), (windows,), (windows,))
    assert crops.dtype == along.dtype == torch.uint8
