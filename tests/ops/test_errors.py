# SPDX-License-Identifier: BSD-3-Clause
"""Wrong arguments: the type of the error, and its words: the argument, what it was, what is allowed."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from racnn_ops import AttentionCrop, Boxcar, attention_crop, reference


def by_module(images: Any, windows: Any, output_size: Any, **options: Any) -> Any:
    return AttentionCrop(output_size, **options)(images, windows)


each_form = pytest.mark.parametrize(
    "crop", [attention_crop, by_module, reference.attention_crop], ids=["function", "module", "reference"]
)

IMAGES = torch.zeros(2, 3, 5, 6)
WINDOWS = torch.ones(2, 3)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # "prototype stage"
    NESTED = torch.nested.nested_tensor([torch.zeros(3, 5, 6), torch.zeros(3, 7, 6)], layout=torch.strided)
DTYPES = "float16, bfloat16, float32, float64, uint8"
NEEDS_NEAREST = "; integer and bool images need interpolation='nearest'"

CASES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"images": None}, TypeError, "images must be a torch.Tensor, got NoneType"),
    ({"images": np.zeros((1, 1, 2, 2))}, TypeError, "images must be a torch.Tensor, got ndarray"),
    ({"windows": [[1.0, 1.0, 1.0]]}, TypeError, "windows[0] must be a torch.Tensor, got list"),
    ({"windows": 3.0}, TypeError, "windows must be a torch.Tensor, got float"),
    (
        {"images": IMAGES.to_sparse()},
        TypeError,
        "images must be a strided (dense) tensor, got layout torch.sparse_coo",
    ),
    (
        {"windows": WINDOWS.to_sparse()},
        TypeError,
        "windows must be a strided (dense) tensor, got layout torch.sparse_coo",
    ),
    ({"images": NESTED}, TypeError, "images must be a strided (dense) tensor, got a nested tensor"),
    ({"images": IMAGES.int()}, TypeError, f"images must be {DTYPES}, got torch.int32{NEEDS_NEAREST}"),
    ({"images": IMAGES.bool()}, TypeError, f"images must be {DTYPES}, got torch.bool{NEEDS_NEAREST}"),
    ({"images": IMAGES.to(torch.complex64)}, TypeError, f"images must be {DTYPES}, got torch.complex64"),
    (
        {"windows": WINDOWS.half()},
        TypeError,
        "windows must be float32 with float32 images, got torch.float16; use windows.to(torch.float32)",
    ),
    (
        {"windows": WINDOWS.long()},
        TypeError,
        "windows must be float32 with float32 images, got torch.int64; use windows.to(torch.float32)",
    ),
    (
        {"images": IMAGES.half(), "windows": WINDOWS.half()},
        TypeError,
        "windows must be float32 with float16 images, got torch.float16; use windows.to(torch.float32)",
    ),
    (
        {"images": IMAGES.double()},
        TypeError,
        "windows must be float64 with float64 images, got torch.float32; use windows.to(torch.float64)",
    ),
    ({"images": IMAGES[0]}, ValueError, "images must have shape (B, C, H, W), got (3, 5, 6)"),
    ({"images": IMAGES[None]}, ValueError, "images must have shape (B, C, H, W), got (1, 2, 3, 5, 6)"),
    *(
        (
            {"windows": torch.ones(shape)},
            ValueError,
            "windows must have shape (B, 3) or (B, K, 3) for tx, ty, tl, "
            f"(B, 4) or (B, K, 4) for tx, ty, tw, th, got {shape}",
        )
        for shape in ((), (3,), (2, 2), (2, 5), (2, 1, 1, 3), (2, 0))
    ),
    (
        {"windows": torch.ones(3, 3)},
        ValueError,
        "windows must have the batch size of images: got (3, 3) for images (2, 3, 5, 6)",
    ),
    (
        {"windows": torch.ones(1, 2, 4)},
        ValueError,
        "windows must have the batch size of images: got (1, 2, 4) for images (2, 3, 5, 6)",
    ),
    (
        {"images": torch.zeros(2, 3, 0, 6)},
        ValueError,
        "images must be at least 1 pixel high and wide, got (2, 3, 0, 6)",
    ),
    (
        {"images": torch.zeros(2, 3, 5, 0)},
        ValueError,
        "images must be at least 1 pixel high and wide, got (2, 3, 5, 0)",
    ),
    (
        {"output_size": (4, 2**30 + 1)},
        ValueError,
        "output_size must not exceed 1073741824 pixels a side, got (4, 1073741825)",
    ),
    (
        {"images": torch.zeros(1, 1, 1, 1).expand(2, 1, 2**30 + 1, 1)},
        ValueError,
        "images must not exceed 1073741824 pixels a side, got (2, 1, 1073741825, 1)",
    ),
    (
        {"windows": WINDOWS.to("meta")},
        ValueError,
        "windows must be on the device of images: got meta for images on cpu",
    ),
    *(
        (
            {"output_size": size},
            TypeError,
            f"output_size must be an int or a pair of ints (h, w), got {size!r}",
        )
        for size in (4.0, None, "4", True, (4,), (4, 5, 6), (4, 5.0), (4, True), {4, 5})
    ),
    *(
        ({"output_size": size}, ValueError, f"output_size must be at least 1 x 1, got {size!r}")
        for size in (0, -3, (4, 0), [0, 4])
    ),
    (
        {"output_size": 10**5000},
        ValueError,
        "output_size must not exceed 1073741824 pixels a side, got one with thousands of digits",
    ),
    ({"mask_steepness": "10"}, TypeError, "mask_steepness must be a number, got '10'"),
    ({"mask_steepness": True}, TypeError, "mask_steepness must be a number, got True"),
    ({"mask_steepness": 0}, ValueError, "mask_steepness must be positive or None, got 0"),
    ({"mask_steepness": -0.5}, ValueError, "mask_steepness must be positive or None, got -0.5"),
    *(
        (
            {"mask_steepness": k},
            ValueError,
            f"mask_steepness must be within [1.18e-38, 1e+09] or None, got {k!r}",
        )
        for k in (1e-50, 1.1e9, 2.0**128 - 2.0**102, 1e40)
    ),
    (
        {"mask_steepness": 10**5000},
        ValueError,
        "mask_steepness must be finite, got one with thousands of digits",
    ),
    ({"mask_steepness": float("nan")}, ValueError, "mask_steepness must be finite, got nan"),
    ({"mask_steepness": float("inf")}, ValueError, "mask_steepness must be finite, got inf"),
    (
        {"boundary": "reflect"},
        ValueError,
        "boundary must be one of 'zeros', 'border', 'clip', 'window', got 'reflect'",
    ),
    ({"boundary": None}, ValueError, "boundary must be one of 'zeros', 'border', 'clip', 'window', got None"),
    ({"window_grad": "none"}, ValueError, "window_grad must be one of 'exact', 'boxcar', got 'none'"),
    ({"mean": [0.5, 0.5]}, ValueError, "mean must be one number or one per channel (3), got 2 numbers"),
    ({"std": []}, ValueError, "std must be one number or one per channel (3), got 0 numbers"),
    (
        {"mean": "0.5"},
        TypeError,
        "mean must be a number or a sequence of numbers, one per channel, got '0.5'",
    ),
    (
        {"std": torch.ones(3)},
        TypeError,
        "std must be a number or a sequence of numbers, one per channel, got tensor([1., 1., 1.])",
    ),
    ({"mean": [0.1, None, 0.2]}, TypeError, "mean must be a number, got None"),
    ({"mean": float("nan")}, ValueError, "mean must be finite, got nan"),
    ({"mean": True}, TypeError, "mean must be a number, got True"),
    (
        {"mean": b"abc"},
        TypeError,
        "mean must be a number or a sequence of numbers, one per channel, got b'abc'",
    ),
    ({"mean": 1e308}, ValueError, "mean must be within [-1e+15, 1e+15], got 1e+308"),
    ({"std": [0.5, 0.0, 0.5]}, ValueError, "std must be positive, got 0.0"),
    ({"std": -1}, ValueError, "std must be positive, got -1"),
    ({"std": 1e-38}, ValueError, "std must be within [1e-15, 1e+15], got 1e-38"),
    ({"std": 10**400}, ValueError, f"std must be finite, got 1{'0' * 400}"),
    (
        {"memory_format": torch.preserve_format},
        ValueError,
        "memory_format must be torch.contiguous_format, torch.channels_last or None, "
        "got torch.preserve_format",
    ),
    (
        {"memory_format": "channels_last"},
        ValueError,
        "memory_format must be torch.contiguous_format, torch.channels_last or None, got 'channels_last'",
    ),
    ({"dtype": torch.int8}, TypeError, f"dtype must be {DTYPES} or None, got torch.int8"),
    ({"dtype": "float32"}, TypeError, f"dtype must be {DTYPES} or None, got 'float32'"),
    (
        {"dtype": torch.uint8},
        ValueError,
        "dtype may be uint8 only for uint8 images without mean and std, got images float32",
    ),
    (
        {"images": IMAGES.byte(), "dtype": torch.uint8, "mean": 0.5},
        ValueError,
        "dtype may be uint8 only for uint8 images without mean and std, "
        "got images normalised by mean and std",
    ),
    ({"boxcar": 0.05}, TypeError, "boxcar must be a racnn_ops.Boxcar or None, got 0.05"),
    ({"boxcar": Boxcar(steepness=0)}, ValueError, "boxcar.steepness must be positive, got 0"),
    ({"boxcar": Boxcar(energy="l2")}, ValueError, "boxcar.energy must be one of 'abs', 'square', got 'l2'"),
    ({"boxcar": Boxcar(scale=float("inf"))}, ValueError, "boxcar.scale must be finite, got inf"),
    ({"boxcar": Boxcar(shrink="1")}, TypeError, "boxcar.shrink must be a number, got '1'"),
    *(
        (
            {"boxcar": Boxcar(**{name: 1e300})},
            ValueError,
            f"boxcar.{name} must be within {allowed}, got 1e+300",
        )
        for name, allowed in (
            ("steepness", "[0, 1e+09]"),
            ("scale", "[-1e+09, 1e+09]"),
            ("shrink", "[-1e+09, 1e+09]"),
            ("side", "[0, 1e+09] or None"),
        )
    ),
    ({"boxcar": Boxcar(side=-448)}, ValueError, "boxcar.side must be positive or None, got -448"),
]


class Forbidden(TorchDispatchMode):
    """Fails at the first tensor operation: errors come before any work."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name() not in ("aten::detach", "aten::is_same_size"):
            raise AssertionError(f"{func} was called before the arguments were checked")
        return func(*args, **(kwargs or {}))


@each_form
@pytest.mark.parametrize(
    ("wrong", "error", "message"), CASES, ids=[f"{i}-{c[2][:40]}" for i, c in enumerate(CASES)]
)
def test_wrong_argument(wrong: dict[str, Any], error: type[Exception], message: str, crop: Any) -> None:
    arguments = {"images": IMAGES, "windows": WINDOWS, "output_size": (4, 5), **wrong}
    printed = isinstance(wrong.get("std"), torch.Tensor)  # needs operations to put into words
    with nullcontext() if printed else Forbidden(), pytest.raises(error) as caught:
        crop(**arguments)
    assert type(caught.value) is error
    assert str(caught.value) == message


def test_wrong_device(device: str) -> None:
    if device == "cpu":
        pytest.skip("needs two devices with kernels; on one, test_wrong_argument has the meta device")
    for crop in (attention_crop, reference.attention_crop):
        with pytest.raises(
            ValueError, match=r"^windows must be on the device of images: got cpu for images on cuda"
        ):
            crop(IMAGES.to(device), WINDOWS, 4)


def test_module_checks_options_at_construction() -> None:
    with pytest.raises(
        ValueError, match=r"^boundary must be one of 'zeros', 'border', 'clip', 'window', got 'wrap'$"
    ):
        AttentionCrop(4, boundary="wrap")
    with pytest.raises(TypeError, match=r"^output_size must be an int or a pair of ints"):
        AttentionCrop(4.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("crop", [attention_crop, reference.attention_crop], ids=["kernels", "reference"])
@pytest.mark.parametrize(
    "options",
    [
        {"mask_steepness": 1e9},
        {"mask_steepness": 2.0**-126},
        {"mean": 1e15, "std": 1e-15},
        {"std": 1e15},
        {"boxcar": Boxcar(1e9, "abs", 1e9, 1e9, 1e9)},
        {"boxcar": Boxcar(1e9, "square", -1e9, -1e9, 1e9)},
    ],
    ids=str,
)
def test_the_largest_and_smallest_options_give_finite_results(options: dict[str, Any], crop: Any) -> None:
    images, windows = torch.rand(2, 3, 40, 50), torch.tensor([[25.0, 20.0, 10.0], [3.5, 6.0, 8.25]])
    images.requires_grad_(), windows.requires_grad_()
    window_grad = "boxcar" if "boxcar" in options else "exact"
    crops = crop(images, windows, (32, 24), window_grad=window_grad, **options)
    crops.sum().backward()
    assert crops.isfinite().all()
    assert images.grad.isfinite().all()
    assert windows.grad.isfinite().all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("crop", [attention_crop, reference.attention_crop], ids=["kernels", "reference"])
def test_numbers_of_any_kind_are_right(crop: Any) -> None:
    """What must not be refused: numpy's integers and floats, fractions, lists, torch.Size."""
    images = torch.rand(2, 3, 5, 6)
    exact = crop(images, WINDOWS, (4, 4), mask_steepness=0.5, mean=[0.5] * 3, std=[0.25] * 3)
    assert torch.equal(
        crop(images, WINDOWS, np.int64(4), mask_steepness=np.float32(0.5), mean=0.5, std=0.25), exact
    )
    assert torch.equal(
        crop(images, WINDOWS, [4, 4], mask_steepness=Fraction(1, 2), mean=(0.5,), std=(0.25, 0.25, 0.25)),
        exact,
    )
    assert torch.equal(
        crop(
            images, WINDOWS, torch.Size((4, 4)), mask_steepness=0.5, mean=Fraction(1, 2), std=np.float64(0.25)
        ),
        exact,
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda o: o._crop_forward(IMAGES[0], WINDOWS, 4, 4, "zeros", None, [], [], torch.float32),
            "images must have",
        ),
        (
            lambda o: o._crop_forward(IMAGES, WINDOWS[:1], 4, 4, "zeros", None, [], [], torch.float32),
            "batch size",
        ),
        (
            lambda o: o._crop_forward(IMAGES, WINDOWS, 0, 4, "zeros", None, [], [], torch.float32),
            "between 1 and",
        ),
        (
            lambda o: o._crop_forward(IMAGES, WINDOWS, 4, 4, "edge", None, [], [], torch.float32),
            "boundary must be",
        ),
        (
            lambda o: o._crop_forward(IMAGES, WINDOWS, 4, 4, "zeros", None, [1.0], [0.0], torch.float32),
            "one number",
        ),
        (
            lambda o: o._crop_forward(IMAGES, WINDOWS.double(), 4, 4, "zeros", None, [], [], torch.float32),
            "float32",
        ),
        (lambda o: o._crop_forward(IMAGES, WINDOWS, 4, 4, "zeros", None, [], [], torch.int32), "dtype"),
        (lambda o: o._crop_forward(IMAGES, WINDOWS, 4, 4, "zeros", None, [], [], torch.float64), "no kernel"),
        (lambda o: o._crop_window_grad(IMAGES[:, :2], IMAGES, WINDOWS, "zeros", None, [], []), "agree in"),
        (
            lambda o: o._crop_window_grad(IMAGES[0], IMAGES, WINDOWS, "zeros", None, [], []),
            "shape of the crops",
        ),
        (
            lambda o: o._crop_image_grad(IMAGES, WINDOWS, 0, 4, "zeros", None, [], False, torch.float32),
            "between 1 and",
        ),
        (lambda o: o._crop_boxcar_grad(IMAGES, WINDOWS, 0.05, "l2", 1.0, 0.0), "energy must be"),
        *(
            (lambda o, call=call, filter=filter: call(o, *filter), message)
            for call in (
                lambda o, *filter: o._crop_forward(
                    IMAGES, WINDOWS, 4, 4, "zeros", None, [], [], torch.float32, [], *filter
                ),
                lambda o, *filter: o._crop_window_grad(
                    IMAGES, IMAGES, WINDOWS, "zeros", None, [], [], *filter
                ),
                lambda o, *filter: o._crop_image_grad(
                    IMAGES, WINDOWS, 4, 4, "zeros", None, [], False, torch.float32, *filter
                ),
            )
            for filter, message in (
                (("cubic", False), "interpolation must be one of 'nearest' 'bilinear' 'bicubic' 'lanczos3'"),
                (("nearest", True), "antialias must be False with 'nearest' and 'area'"),
                (("area", True), "antialias must be False with 'nearest' and 'area'"),
            )
        ),
        *(
            (
                lambda o, affine=affine, offset=offset: o._crop_forward(
                    IMAGES, WINDOWS, 4, 4, "zeros", None, *affine, torch.float32, [], "area", False, offset
                ),
                message,
            )
            for affine, offset, message in (
                (([], []), [1.0] * 3, "offset needs scale and shift"),
                (([1.0] * 3, [0.0] * 3), [1.0] * 2, "must hold one number a channel"),
                (([1.0] * 2, [0.0] * 2), [1.0] * 2, "scale and shift must hold one number a channel"),
            )
        ),
    ],
)
def test_operators_used_directly_have_a_second_line(call: Any, message: str) -> None:
    with pytest.raises((RuntimeError, ValueError), match=message):
        call(torch.ops.racnn_ops)
