# SPDX-License-Identifier: BSD-3-Clause
"""Forward mode, higher derivatives and torch.func: every derivative has its value."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from samples import BOUNDARIES, EVERY_BOUNDARY, LAYOUTS, MASKS, each_filter, generator, make_images
from smooth import BOXCAR, SHAPE, Crop, assert_close, inputs, loss_of, random_inputs
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.profiler import profile

from racnn_ops import attention_crop, reference


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("mask_steepness", MASKS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_gradcheck_in_every_mode(
    device: str, boundary: str, mask_steepness: float | None, layout: str
) -> None:
    """First and second derivatives, forward and reverse, batched, against finite differences."""
    form = {"values": 3} if layout == "contiguous" else {"values": 4, "windows": 2}
    images, windows = inputs(device, boundary=boundary, **form)
    images, windows = images[:1], windows[:1]

    def crop(images: Tensor, windows: Tensor) -> Tensor:
        images = LAYOUTS[layout](images)
        return attention_crop(images, windows, SHAPE.out, boundary=boundary, mask_steepness=mask_steepness)

    arguments = images.requires_grad_(), windows.requires_grad_()
    assert gradcheck(
        crop, arguments, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )
    assert gradgradcheck(crop, arguments, check_fwd_over_rev=True, check_batched_grad=True)


COMPOSITIONS: dict[str, Callable[[Crop], Crop]] = {
    "grad": lambda f: grad(f, (0, 1)),
    "jacrev": lambda f: jacrev(f, (0, 1)),
    "jacfwd": lambda f: jacfwd(f, (0, 1)),
    "hessian": lambda f: hessian(f, (0, 1)),
    "jacrev of jacrev": lambda f: jacrev(jacrev(f, (0, 1)), (0, 1)),
    "jacrev of jacfwd": lambda f: jacrev(jacfwd(f, 1), (0, 1)),
    "jacfwd of jacfwd": lambda f: jacfwd(jacfwd(f, 1), 1),
    "third": lambda f: jacrev(jacfwd(jacrev(f, 1), 1), 1),
    "third, forward twice": lambda f: jacfwd(jacrev(jacfwd(f, 1), 1), 1),
}


@pytest.mark.parametrize("windows", [None, 2])
@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_compositions_of_torch_func(device: str, composition: str, windows: int | None) -> None:
    for boundary, mask_steepness in (("zeros", 0.7), ("border", None), ("clip", 0.7)):
        options = {"boundary": boundary, "mask_steepness": mask_steepness}
        arguments = inputs(device, windows=windows, boundary=boundary)
        transform = COMPOSITIONS[composition]
        expected = transform(loss_of(reference.attention_crop, **options))(*arguments)
        assert_close(transform(loss_of(attention_crop, **options))(*arguments), expected)


@pytest.mark.parametrize("boundary", EVERY_BOUNDARY)
@each_filter
def test_every_filter_has_every_derivative(device: str, options: dict[str, Any], boundary: str) -> None:
    """By value, and those of the first order as the kernels have them."""
    options = {**options, "boundary": boundary, "mask_steepness": 0.7 if boundary == "clip" else None}
    options |= {"mean": [0.3, 0.4], "std": [0.5, 2.0], "fill": 2.0 if boundary == "zeros" else None}
    arguments = random_inputs(device, values=3 if boundary == "border" else 4)
    tangents = tuple(torch.randn(t.shape, generator=generator(boundary), dtype=t.dtype) for t in arguments)
    tangents = tuple(t.to(device) for t in tangents)
    loss, exact = loss_of(attention_crop, **options), loss_of(reference.attention_crop, **options)
    gradients = grad(exact, (0, 1))(*arguments)
    leaves = tuple(t.clone().requires_grad_() for t in arguments)
    assert_close(torch.autograd.grad(loss(*leaves), leaves, materialize_grads=True), gradients)
    assert_close(grad(loss, (0, 1))(*arguments), gradients)
    assert_close(jvp(loss, arguments, tangents), jvp(exact, arguments, tangents))

    def hessian_product(function: Crop) -> Any:
        return jvp(grad(function, (0, 1)), arguments, tangents)[1]

    product = hessian_product(exact)
    assert_close(hessian_product(loss), product)
    again = torch.autograd.grad(loss(*leaves), leaves, create_graph=True, materialize_grads=True)
    along = sum((g * t).sum() for g, t in zip(again, tangents, strict=True))
    assert_close(torch.autograd.grad(along, leaves, materialize_grads=True), product)


@each_filter
def test_gradcheck_of_every_filter_in_every_mode(device: str, options: dict[str, Any]) -> None:
    """First and second derivatives against finite differences, at random places."""
    images, windows = random_inputs(device, windows=1, values=4)
    arguments = images[:1].requires_grad_(), windows[:1].requires_grad_()

    def crop(images: Tensor, windows: Tensor) -> Tensor:
        return attention_crop(images, windows, SHAPE.out, boundary="border", **options)

    assert gradcheck(crop, arguments, check_forward_ad=True, check_batched_grad=True, fast_mode=True)
    if options["interpolation"] != "nearest":
        assert gradgradcheck(crop, arguments, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_compositions_with_a_filter(device: str, composition: str) -> None:
    arguments = tuple(t[:1] for t in random_inputs(device, windows=None))
    options = {"interpolation": "bicubic", "antialias": True}
    transform = COMPOSITIONS[composition]
    expected = transform(loss_of(reference.attention_crop, **options))(*arguments)
    assert_close(transform(loss_of(attention_crop, **options))(*arguments), expected)


def test_normalisation_has_every_derivative(device: str) -> None:
    arguments = inputs(device)
    options = {"mean": [0.3, 0.4], "std": [0.5, 2.0]}
    expected = hessian(loss_of(reference.attention_crop, **options), (0, 1))(*arguments)
    assert_close(hessian(loss_of(attention_crop, **options), (0, 1))(*arguments), expected)


@pytest.mark.parametrize("image_dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
def test_tangents_of_every_dtype(device: str, image_dtype: torch.dtype) -> None:
    images, windows = inputs(device)
    images, windows = (images * 50).to(image_dtype), windows.float()
    tangent = torch.ones_like(windows)
    results = []
    for crop in (attention_crop, reference.attention_crop):
        _, result = jvp(
            lambda w, crop=crop: crop(images, w, SHAPE.out, dtype=torch.float32), (windows,), (tangent,)
        )
        results.append(result)
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-2)


def test_forward_mode_of_autograd(device: str) -> None:
    images, windows = inputs(device)
    tangents = torch.rand_like(images), torch.rand_like(windows)
    loss = loss_of(attention_crop)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(p, t) for p, t in zip((images, windows), tangents, strict=True)]
        tangent = forward_ad.unpack_dual(loss(*duals)).tangent
    gradients = grad(loss_of(reference.attention_crop), (0, 1))(images, windows)
    assert_close(tangent, sum((g * t).sum() for g, t in zip(gradients, tangents, strict=True)))


def test_forward_mode_through_the_incoming_gradient_alone(device: str) -> None:
    """Forward over reverse where only the loss has a tangent: images and windows have none."""
    images, windows = inputs(device)
    windows.requires_grad_()
    crops = attention_crop(images, windows, SHAPE.out)
    weights, tangent = torch.rand_like(crops), torch.rand_like(crops)
    with forward_ad.dual_level():
        (dual,) = torch.autograd.grad(
            (crops * forward_ad.make_dual(weights, tangent)).sum(), windows, retain_graph=True
        )
        of_windows = forward_ad.unpack_dual(dual).tangent
    (expected,) = torch.autograd.grad(crops, windows, tangent)
    assert of_windows is not None
    assert_close(of_windows, expected)


def test_forward_mode_elsewhere_changes_nothing(device: str) -> None:
    """All threads share the level: what another one differentiates must not change the kernels here."""
    images, windows = (t.float() for t in inputs(device))
    images.requires_grad_(), windows.requires_grad_()

    def found() -> list[Tensor]:
        crops = attention_crop(images, windows, SHAPE.out, mask_steepness=0.7)
        return [crops, *torch.autograd.grad(crops.square().sum(), (images, windows))]

    before = found()
    inside, finished = threading.Event(), threading.Event()

    def differentiate() -> None:
        with forward_ad.dual_level():
            inside.set()
            finished.wait()

    other = threading.Thread(target=differentiate)
    other.start()
    try:
        inside.wait()
        with profile() as recorded:
            now = found()
    finally:
        finished.set()
        other.join()
    assert all(map(torch.equal, before, now))
    assert "racnn_ops::_tap_crop" not in {event.name for event in recorded.events()}


# The surrogate gradient


@pytest.mark.parametrize("crop", [attention_crop, reference.attention_crop], ids=["kernels", "reference"])
def test_surrogate_refuses_what_only_derivatives_have(device: str, crop: Crop) -> None:
    images, windows = inputs(device)
    loss = loss_of(crop, **BOXCAR)
    with pytest.raises(NotImplementedError, match="window_grad='boxcar' is a surrogate"):
        jvp(loss, (images, windows), (images, windows))
    with pytest.raises(NotImplementedError, match="window_grad='boxcar' is a surrogate"):
        jacrev(jacrev(loss, 1), 1)(images, windows)
    windows.requires_grad_()
    (first,) = torch.autograd.grad(loss(images, windows), windows, create_graph=True)
    with pytest.raises(NotImplementedError, match="window_grad='boxcar' is a surrogate"):
        first.sum().backward()
    # The images' part is a derivative, and has all.
    _, tangent = jvp(lambda i: loss(i, windows.detach()), (images,), (images,))
    _, expected = jvp(lambda i: loss_of(crop)(i, windows.detach()), (images,), (images,))
    assert_close(tangent, expected)


# Edge cases


def test_windows_that_are_not_finite(device: str) -> None:
    """NaN for themselves alone, in each derivative."""
    images, windows = inputs(device, windows=2)
    bad = windows.clone()
    bad[0, 1, 0] = torch.nan
    tangents = torch.ones_like(images), torch.ones_like(windows)
    for name, transform in COMPOSITIONS.items():
        if name.startswith("third"):
            continue
        expected = transform(loss_of(reference.attention_crop))(images, bad)
        torch.testing.assert_close(
            transform(loss_of(attention_crop))(images, bad), expected, equal_nan=True, rtol=1e-9, atol=1e-9
        )
    crops, d_crops = jvp(lambda i, w: attention_crop(i, w, SHAPE.out), (images, bad), tangents)
    for result in (crops, d_crops):
        assert result[0, 1].isnan().all()
        assert result[0, 0].isfinite().all()
        assert result[1].isfinite().all()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)])
def test_thin_images_and_far_windows(device: str, size: tuple[int, int]) -> None:
    images = make_images((2, 1, *size), torch.float64, generator(size)).to(device)
    windows = torch.tensor([[1e6, 0.4, 2.3], [0.31, -0.27, -1.0]], device=device, dtype=torch.float64)
    for boundary in BOUNDARIES:
        expected = hessian(loss_of(reference.attention_crop, boundary=boundary), (0, 1))(images, windows)
        assert_close(hessian(loss_of(attention_crop, boundary=boundary), (0, 1))(images, windows), expected)


def test_first_order_values_do_not_depend_on_the_way(device: str) -> None:
    """backward, torch.func and create_graph agree to rounding, in float32 too."""
    images, windows = (t.float() for t in inputs(device))
    loss = loss_of(attention_crop)
    through_func = grad(loss, (0, 1))(images, windows)
    leaves = images.clone().requires_grad_(), windows.clone().requires_grad_()
    plain = torch.autograd.grad(loss(*leaves), leaves)
    again = torch.autograd.grad(loss(*leaves), leaves, create_graph=True)
    torch.testing.assert_close(through_func, plain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(again, plain, rtol=1e-4, atol=1e-4)


def test_second_derivatives_are_the_same_for_any_number_of_threads() -> None:
    g = generator("threads")
    images = make_images((2, 3, 150, 160), torch.float32, g)
    windows = torch.tensor([[70.3, 80.1, 50.7], [90.2, 60.4, 66.6]])

    def second() -> Any:
        return jacrev(grad(lambda i, w: attention_crop(i, w, 120).square().sum(), 1), (0, 1))(images, windows)

    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(second())
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        for one, other in zip(result, results[0], strict=True):
            assert torch.equal(one, other)


def test_threads_of_python_do_not_share_levels(device: str) -> None:
    """A transform at work in one thread does not change how another's calls run."""
    images, windows = inputs(device)
    found: list[Tensor] = []

    def crop(w: Tensor) -> Tensor:
        thread = threading.Thread(target=lambda: found.append(attention_crop(images, windows, SHAPE.out)))
        thread.start()
        thread.join()
        return attention_crop(images, w, SHAPE.out)

    jvp(crop, (windows,), (windows,))
    assert_close(found[0], attention_crop(images, windows, SHAPE.out))


def raw(images: Tensor, windows: Tensor) -> Tensor:
    result: Tensor = torch.ops.racnn_ops._crop_forward(
        images, windows, *SHAPE.out, "zeros", None, [], [], images.dtype
    )
    return result


def test_private_operators_never_give_a_wrong_tangent(device: str) -> None:
    """torch.library.register_autograd alone gives a tangent of zero, and no error."""
    images, windows = inputs(device)
    for argument, tensor in enumerate((images, windows)):

        def function(t: Tensor, argument: int = argument) -> Tensor:
            return raw(*((t, windows) if argument == 0 else (images, t)))

        with pytest.raises(NotImplementedError, match="_crop_forward is private and has no forward mode"):
            jvp(function, (tensor,), (tensor,))
        with forward_ad.dual_level():
            with pytest.raises(NotImplementedError, match="_crop_forward is private and has no forward mode"):
                function(forward_ad.make_dual(tensor, tensor))
            assert function(tensor).shape == (2, 2, *SHAPE.out)


def test_private_operator_has_a_second_derivative(device: str) -> None:
    arguments = [t.requires_grad_() for t in inputs(device)]
    results = []
    for function in (raw, lambda i, w: reference.attention_crop(i, w, SHAPE.out)):
        first = torch.autograd.grad(function(*arguments).square().sum(), arguments, create_graph=True)
        results.append(torch.autograd.grad(sum(t.square().sum() for t in first), arguments))
    assert_close(*results)


# Compiled

COMPILED: dict[str, Callable[[Crop], Crop]] = {
    "grad": lambda f: grad(f, (0, 1)),
    "jvp of windows": lambda f: lambda i, w: jvp(lambda t: f(i, t), (w,), (torch.ones_like(w),))[1],
    "jvp of both": lambda f: lambda i, w: jvp(f, (i, w), (torch.ones_like(i), torch.ones_like(w)))[1],
    "vjp": lambda f: lambda i, w: vjp(f, i, w)[1](torch.ones((), dtype=i.dtype, device=i.device)),
    "jacrev": lambda f: jacrev(f, 1),
    "jacfwd": lambda f: jacfwd(f, 1),
    "hessian": lambda f: hessian(f, 1),
    "vmap": lambda f: vmap(lambda i, w: f(i[None], w[None])),
    "vmap of grad": lambda f: vmap(grad(lambda i, w: f(i[None], w[None]), (0, 1))),
}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("transform", COMPILED)
def test_compiled_transforms(device: str, transform: str, backend: str) -> None:
    torch._dynamo.reset()
    arguments = inputs(device)
    function = COMPILED[transform](loss_of(attention_crop, mask_steepness=0.7))
    expected = COMPILED[transform](loss_of(reference.attention_crop, mask_steepness=0.7))(*arguments)
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    assert_close(compiled(*arguments), expected)


def test_compiled_double_backward_is_torchs_to_refuse(device: str) -> None:
    """torch.compile has no double backward for any operator; torch.func inside the compiled function has."""
    torch._dynamo.reset()
    images, windows = inputs(device)
    leaf = windows.requires_grad_()
    compiled = torch.compile(loss_of(attention_crop), backend="aot_eager")
    (first,) = torch.autograd.grad(compiled(images, leaf), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        first.sum().backward()
