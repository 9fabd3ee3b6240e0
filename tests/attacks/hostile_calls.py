# SPDX-License-Identifier: BSD-3-Clause
"""The calls of direct_calls.py: made up from a number, first right, then mostly spoiled."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
DTYPES = (*FLOATS, torch.uint8, torch.int32, torch.int64, torch.bool, torch.complex64, torch.float8_e5m2)
MOST_WORK, SURELY_TOO_MUCH = 2**21, 2**50  # in between a call would only take long
HUGE = (*(2**k + d for k in (20, 24, 30, 31, 32, 48, 60, 61, 62) for d in (-1, 0, 1)), 2**63 - 1)
ODD_NUMBERS = (0, -1, 1, 2, 7, *HUGE, -(2**31), -(2**63))
ODD_FLOATS = (0.0, -1.0, 1e-300, 1e38, 1e308, float("nan"), float("inf"), float("-inf"))
NAMES = ("", "zero", "border", "window", "abs", "square", "zeros\0", "area", "lanczos3", "bicubic\0")
FILTERS = (  # interpolation and antialias
    *(("nearest", False), ("bilinear", False), ("bilinear", False), ("bilinear", True)),
    *(("bicubic", False), ("bicubic", True), ("lanczos3", False), ("lanczos3", True), ("area", False)),
)
# tx, ty, tw, th in pixels of an image of about 20 x 20
WINDOWS = (
    (10.0, 10.0, 7.3, 6.1),
    (1.0, 19.0, 8.0, 8.0),
    (-50.0, 10.0, 8.0, 8.0),
    (10.0, 10.0, 300.0, 9.0),
    (10.0, 10.0, -1.0, 0.0),
    (10.0, 10.0, 1e30, 1e30),
    (3e38, -3e38, 3e38, 1.0),
    (1e-30, 1e-30, 1e-30, 1.0),
    (2147483648.0, 10.0, 5.0, 5.0),
    (20.0, 20.0, 20.0, 20.0),
    (19.5, 0.5, 0.4, 0.4),
    (float("nan"), 10.0, 5.0, 5.0),
    (10.0, float("inf"), 5.0, 5.0),
    (10.0, 10.0, 5.0, float("-inf")),
)
PIXELS = (-(2**31), 2**31 - 1, -2, -1, 0, 5)
NOWHERE = (-1, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63))
CONTENTS = ("numbers", "odd numbers", "windows", "pixels", "index", "odd index")


class T(NamedTuple):
    """A tensor to be: its numbers depend on `seed`."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    content: str  # one of CONTENTS
    seed: int
    form: str = "strided"
    below: int = 1  # numbers of an index, as long as they are not odd

    def make(self) -> Tensor:
        extent = 1 + sum((n - 1) * s for n, s in zip(self.sizes, self.strides, strict=True))
        values = self.values(0 if 0 in self.sizes else extent)
        tensor = values.as_strided(self.sizes, self.strides)
        if self.form == "negated":
            return torch._neg_view(tensor)
        if self.form == "sparse" and tensor.numel() < MOST_WORK:
            return tensor.to_sparse()
        return tensor.to("meta") if self.form == "meta" else tensor

    def values(self, count: int) -> Tensor:
        g = torch.Generator().manual_seed(self.seed)
        if self.content == "windows":
            table = torch.tensor(WINDOWS, dtype=torch.float64)
            rows = torch.randint(0, len(WINDOWS), (count // 4 + 1,), generator=g)
            if self.seed % 2:  # every other time none that is lost
                rows = rows % (len(WINDOWS) - 3)
            return table[rows].flatten()[:count].to(self.dtype).clone()
        if self.content == "pixels":
            numbers = torch.randint(-2, 41, (count,), generator=g)
            if self.seed % 2:
                numbers = numbers.sort().values
            else:
                numbers[::7] = PIXELS[self.seed // 2 % len(PIXELS)]
            return numbers.to(self.dtype)
        if self.content in ("index", "odd index"):
            numbers = torch.randint(0, self.below, (count,), generator=g)
            if self.seed % 2:  # runs
                numbers = numbers.sort().values
            if self.content == "odd index":
                odd = (self.below, *NOWHERE)
                numbers[:: 1 + self.seed % 3] = odd[self.seed % len(odd)]
            return numbers.to(self.dtype)
        numbers = torch.rand(count, generator=g, dtype=torch.float64) * 2 - 1
        if self.content == "odd numbers":
            numbers[:: 1 + self.seed % 5] = ODD_FLOATS[self.seed % len(ODD_FLOATS)]
        if not self.dtype.is_floating_point and not self.dtype.is_complex:
            numbers = (numbers.nan_to_num() * 40).clamp(-40, 40).abs()  # times any scale, overshot: below 255
        return numbers.to(self.dtype)


class Case:
    """A call, made up: first one that is right, then, mostly, with one to three things in it spoiled."""

    def __init__(self, number: int) -> None:
        self.random = random.Random(number)
        draw = self.random
        self.batch, self.windows = draw.choice((0, 1, 1, 2, 3)), draw.choice((0, 1, 2, 2, 5, 9))
        self.indexed = draw.choice((0, 1, 2, 5, 9, 20))  # windows that have an index
        self.channels = draw.choice((0, 1, 2, 3, 3, 5, 17, 33))
        self.height, self.width = self.side(), self.side()
        self.out_height, self.out_width = self.side(), self.side()
        self.image_dtype, self.crop_dtype = draw.choice(FLOATS), draw.choice(FLOATS)
        if draw.random() < 0.6:
            self.crop_dtype = self.image_dtype
        self.name = draw.choice(list(CALLS))
        self.arguments: dict[str, Any] = getattr(self, self.name)()
        self.spoiled = draw.choice((0, 1, 1, 2, 3))
        for _ in range(self.spoiled):
            self.spoil()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value}' for name, value in self.arguments.items())})"

    def side(self) -> int:
        return self.random.choice((1, 2, 7, 9, 16, 20, 20, 31, 40, self.random.randint(1, 40), 140, 300))

    # --- The calls, with arguments that fit ----------------------------------------------------------------

    def tensor(self, sizes: tuple[int, ...], dtype: torch.dtype, content: str = "numbers") -> T:
        """Of any dense layout, or with gaps, or with strides of 0."""
        draw, axes = self.random, list(range(len(sizes)))[::-1]
        kind = draw.random()
        if kind < 0.3 and len(sizes) > 2:
            axes.insert(0, axes.pop(2))  # channels innermost
        elif kind < 0.6:
            draw.shuffle(axes)
        strides, step = [0] * len(sizes), 1
        for axis in axes:
            strides[axis] = step
            step *= max(sizes[axis], 1)
            if kind < 0.1:
                step = step * draw.choice((1, 1, 2)) + draw.choice((0, 0, 3))
            if 0.5 < kind < 0.7 and draw.random() < 0.4:
                strides[axis] = 0
        return T(sizes, tuple(strides), dtype, content, draw.randrange(10**6))

    def images(self, dtype: torch.dtype) -> T:
        return self.tensor((self.batch, self.channels, self.height, self.width), dtype)

    def axes(self) -> tuple[tuple[int, ...], dict[str, T]]:
        """Those of windows and crops in front, and their image index if they have one."""
        form = self.random.choice(("(B,)", "(B, K)", "(N,)"))
        if form == "(N,)":
            return (self.indexed,), {"image_index": self.index(("index", "odd index"))}
        return (self.batch, self.windows) if form == "(B, K)" else (self.batch,), {}

    def index(self, contents: tuple[str, ...]) -> T:
        seed = self.random.randrange(10**6)
        content, below = self.random.choice(contents), max(self.batch, 1)
        return T((self.indexed,), (1,), torch.int64, content, seed, below=below)

    def crops(self, dtype: torch.dtype, axes: tuple[int, ...]) -> T:
        return self.tensor((*axes, self.channels, self.out_height, self.out_width), dtype)

    def make_windows(self, dtype: torch.dtype, axes: tuple[int, ...], most_values: int = 4) -> T:
        return self.tensor((*axes, self.random.randint(3, most_values)), accumulate(dtype), "windows")

    def options(self, shift: bool) -> dict[str, Any]:
        draw = self.random
        count = self.channels if draw.random() < 0.4 else 0
        options: dict[str, Any] = {
            "boundary": draw.choice(("zeros", "border", "clip", "window")),
            "mask_steepness": draw.choice((None, None, 0.7)),
            "scale": [0.5 + 0.1 * c for c in range(count)],
        }
        return options | ({"shift": [0.25] * count} if shift else {})

    def filter(self) -> dict[str, Any]:
        interpolation, antialias = self.random.choice(FILTERS)
        return {"interpolation": interpolation, "antialias": antialias}

    def _crop_forward(self) -> dict[str, Any]:
        return self.forward(*self.axes()) | {"channels_last": self.random.choice((None, False, True))}

    def forward(self, axes: tuple[int, ...], index: dict[str, T]) -> dict[str, Any]:
        if self.random.random() < 0.2:
            self.image_dtype = torch.uint8
        crop_dtype = self.random.choice((self.crop_dtype, self.image_dtype))
        options = self.options(shift=True)
        return {
            "images": self.images(self.image_dtype),
            "windows": self.make_windows(self.image_dtype, axes, most_values=5),
            **index,
            "out_height": self.out_height,
            "out_width": self.out_width,
            **options,
            "dtype": crop_dtype,
            "boxcar": [],
            **self.filter(),
            "offset": [0.75] * len(options["scale"]) if self.random.random() < 0.5 else [],
        }

    def _crop_window_grad(self) -> dict[str, Any]:
        return self.window_grad(*self.axes())

    def window_grad(self, axes: tuple[int, ...], index: dict[str, T]) -> dict[str, Any]:
        return {
            "grad_output": self.crops(self.crop_dtype, axes),
            "images": self.images(self.image_dtype),
            "windows": self.make_windows(self.image_dtype, axes),
            **index,
            **self.options(shift=True),
            **self.filter(),
        }

    def _crop_image_grad(self) -> dict[str, Any]:
        axes, index = self.axes()
        return {
            "grad_output": self.crops(self.crop_dtype, axes),
            "windows": self.make_windows(self.image_dtype, axes),
            "height": self.height,
            "width": self.width,
            **self.options(shift=False),
            "channels_last": self.random.random() < 0.5,
            "dtype": self.image_dtype,
            **self.filter(),
            **(index | {"images": self.batch} if index else {}),
        }

    def _crop_list(self) -> dict[str, Any]:
        arguments = self.forward((self.indexed,), {"image_index": self.index(("index",))})
        return arguments | {"images": self.image_list(), "channels_last": self.random.random() < 0.5}

    def _crop_list_window_grad(self) -> dict[str, Any]:
        arguments = self.window_grad((self.indexed,), {"image_index": self.index(("index",))})
        return arguments | {"images": self.image_list()}

    def image_list(self) -> list[T]:
        sizes = [(self.channels, self.side(), self.side()) for _ in range(max(self.batch, 1))]
        return [self.tensor(each, self.image_dtype) for each in sizes]

    def _crop_boxcar_grad(self) -> dict[str, Any]:
        axes = self.random.choice(((self.batch,), (self.batch, self.windows)))
        return {
            "grad_output": self.crops(self.crop_dtype, axes),
            "windows": self.make_windows(self.crop_dtype, axes),
            "steepness": 0.05,
            "energy": self.random.choice(("abs", "square")),
            "scale": 1.0,
            "shrink": 0.005,
        }

    def taps(self, dtype: torch.dtype) -> dict[str, Any]:
        crops = (self.batch, self.windows)
        return {
            "rows": self.tensor((*crops, self.out_height), torch.int32, "pixels"),
            "row_weights": self.tensor((*crops, self.out_height, 2), dtype),
            "columns": self.tensor((*crops, self.out_width), torch.int32, "pixels"),
            "column_weights": self.tensor((*crops, self.out_width, 2), dtype),
        }

    def _tap_crop(self) -> dict[str, Any]:
        dtype = accumulate(self.image_dtype)
        return {"images": self.images(dtype), **self.taps(dtype)}

    def _tap_image_grad(self) -> dict[str, Any]:
        dtype = accumulate(self.image_dtype)
        sizes = {"height": self.height, "width": self.width}
        layout = {"channels_last": self.random.random() < 0.5}
        crops = self.crops(dtype, (self.batch, self.windows))
        return {"grad_output": crops, **self.taps(dtype), **sizes, **layout}

    # --- What is spoiled ---------------------------------------------------------------------------------

    def spoil(self) -> None:
        draw = self.random
        name = draw.choice(list(self.arguments))
        value = self.arguments[name]
        if isinstance(value, list) and any(isinstance(item, T) for item in value):
            if draw.random() < 0.4:
                self.arguments[name] = self.spoiled_list(value)
                return
            value = draw.choice(value)
        if isinstance(value, T):
            self.spoil_tensor(value)
        elif isinstance(value, bool):
            self.arguments[name] = not value
        elif isinstance(value, int):
            self.arguments[name] = draw.choice(ODD_NUMBERS)
        elif isinstance(value, list):
            self.arguments[name] = [draw.choice(ODD_FLOATS)] * draw.choice((0, 1, len(value) + 1))
        elif isinstance(value, str):
            self.arguments[name] = draw.choice(NAMES)
        elif isinstance(value, torch.dtype):
            self.arguments[name] = draw.choice(DTYPES)
        else:
            self.arguments[name] = draw.choice(ODD_FLOATS)

    def spoiled_list(self, images: list[T | None]) -> Any:
        others = ([], images[:1], images * 20, images[:1] * 3, [*images, None], None, images[0])
        return self.random.choice(others)

    def spoil_tensor(self, value: T) -> None:
        draw = self.random
        what = draw.choice(
            ("size", "size", "huge", "huge", "dtype", "dimensions", "content", "form", "strides", "none")
        )
        new: T | None = value
        if what in ("size", "huge") and value.sizes:
            self.resize(value, draw.choice(HUGE) if what == "huge" else draw.choice((0, 1, 2, 4)))
            return
        if what == "dtype":
            new = value._replace(dtype=draw.choice(DTYPES))
        elif what == "dimensions":
            sizes = (*value.sizes, 1) if draw.random() < 0.5 else value.sizes[1:]
            new = value._replace(sizes=sizes, strides=(0,) * len(sizes))
        elif what == "content":
            new = value._replace(content=draw.choice(CONTENTS))
        elif what == "form":
            new = value._replace(form=draw.choice(("meta", "sparse", "negated")))
        elif what == "strides":  # numbers that lie in each other's place
            new = value._replace(strides=tuple(draw.choice((0, 1, 1, 2, 3)) for _ in value.sizes))
        elif what == "none":
            new = None
        self.exchange(lambda tensor: new if tensor is value else tensor)

    def exchange(self, change: Callable[[T], Any]) -> None:
        self.arguments = {name: exchanged(argument, change) for name, argument in self.arguments.items()}

    def resize(self, value: T, size: int) -> None:
        """Another size along one axis, mostly of each tensor that must agree in it; larger by stride 0."""
        axis = self.random.randrange(len(value.sizes))
        old, alone = value.sizes[axis], self.random.random() < 0.3

        def resized(tensor: T) -> T:
            if alone and tensor is not value:
                return tensor
            sizes, strides = list(tensor.sizes), list(tensor.strides)
            same = [axis] if tensor is value else [a for a in range(min(3, len(sizes))) if sizes[a] == old]
            for a in same:
                strides[a] = 0 if size > sizes[a] else strides[a]
                sizes[a] = size
            return tensor._replace(sizes=tuple(sizes), strides=tuple(strides))

        self.exchange(resized)

    # --- What is done with it ------------------------------------------------------------------------------

    def is_affordable(self) -> bool:
        """Small, or so large that it must be refused: in between a call would only take long."""
        listed = [
            (name, item)
            for name, argument in self.arguments.items()
            for item in (argument if isinstance(argument, list) else [argument])
            if isinstance(item, T)
        ]
        tensors = dict(reversed(listed))  # of a list its first
        extents = [sum((n - 1) * s for n, s in zip(t.sizes, t.strides, strict=True)) for _, t in listed]
        sides = math.prod(max(1, abs(value)) for value in self.arguments.values() if type(value) is int)
        windows = tensors.get("rows", tensors.get("windows"))
        if windows is None or not {"grad_output", "images"} & tensors.keys():
            return max(extents, default=0) < MOST_WORK  # a tensor is missing
        crops = windows.sizes[:-1]
        if "grad_output" in tensors:
            grad = tensors["grad_output"].sizes
            work = [math.prod(grad), math.prod((*grad[:1], *grad[-3:-2])) * sides]
        else:
            outs = [math.prod(tensors[n].sizes[-1:]) for n in ("rows", "columns") if n in tensors]
            work = [math.prod((*crops, *tensors["images"].sizes[-3:-2], *outs)) * sides]
        refused = max(work) > SURELY_TOO_MUCH and self.arguments.get("energy") != "square"  # of any C
        return max(extents) < MOST_WORK and (max(work) < MOST_WORK or refused)

    def make(self) -> None:
        operator = getattr(torch.ops.racnn_ops, self.name)
        try:
            make = cache(T.make)  # one tensor where a list has the same twice
            answer = operator(**{name: exchanged(value, make) for name, value in self.arguments.items()})
        except (RuntimeError, TypeError, NotImplementedError, ValueError, OverflowError):
            return
        for result in answer if isinstance(answer, tuple) else (answer,):
            if self.spoiled == 0 and self.is_tame():
                assert is_written(result), "an answer to finite arguments is not finite, or was not written"

    def is_tame(self) -> bool:
        """Whether every result is finite: no window is lost or on no image, no derivative overflows."""
        if self.name == "_crop_forward" and "image_index" in self.arguments:
            index = self.arguments["image_index"].make()
            if bool(((index < 0) | (index >= self.batch)).any()):
                return False
        windows = self.arguments.get("windows")
        if windows is None or 0 in windows.sizes:
            return True
        values = windows.make()
        limit = 1e6 if "grad" in self.name else float("inf")
        return bool(values.isfinite().all()) and bool((values.abs() <= limit).all())


CALLS = [name for name in vars(Case) if name.startswith(("_crop_", "_tap_"))]


def exchanged(argument: Any, change: Callable[[T], Any]) -> Any:
    if isinstance(argument, list):
        return [exchanged(item, change) for item in argument]
    return change(argument) if isinstance(argument, T) else argument


def accumulate(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def is_written(result: Tensor) -> bool:
    return bool((result != 255).all() if result.dtype == torch.uint8 else result.isfinite().all())
