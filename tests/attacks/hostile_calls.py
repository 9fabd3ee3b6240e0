# SPDX-License-Identifier: BSD-3-Clause
"""The calls of direct_calls.py: made up from a number, first right, then mostly spoiled."""

from __future__ import annotations

import math
import random
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


class T(NamedTuple):
    """A tensor to be: its numbers depend on `seed`."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    content: str  # "numbers", "odd numbers", "windows", "pixels"
    seed: int
    form: str = "strided"

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
        numbers = torch.rand(count, generator=g, dtype=torch.float64) * 2 - 1
        if self.content == "odd numbers":
            numbers[:: 1 + self.seed % 5] = ODD_FLOATS[self.seed % len(ODD_FLOATS)]
        if not self.dtype.is_floating_point and not self.dtype.is_complex:
            numbers = (numbers.nan_to_num() * 60).clamp(-60, 60).abs()  # times any scale below 255
        return numbers.to(self.dtype)


class Case:
    """A call, made up: first one that is right, then, mostly, with one to three things in it spoiled."""

    def __init__(self, number: int) -> None:
        self.random = random.Random(number)
        draw = self.random
        self.batch, self.windows = draw.choice((0, 1, 1, 2, 3)), draw.choice((0, 1, 2, 2, 5, 9))
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
        if kind < 0.3 and len(sizes) > 3:
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

    def crops(self, dtype: torch.dtype, axis: bool) -> T:
        window_axis = (self.windows,) if axis else ()
        return self.tensor((self.batch, *window_axis, self.channels, self.out_height, self.out_width), dtype)

    def make_windows(self, dtype: torch.dtype, axis: bool, most_values: int = 4) -> T:
        sizes = (self.batch, *((self.windows,) if axis else ()), self.random.randint(3, most_values))
        return self.tensor(sizes, accumulate(dtype), "windows")

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
        if self.random.random() < 0.2:
            self.image_dtype = torch.uint8
        axis, crop_dtype = self.random.random() < 0.5, self.random.choice((self.crop_dtype, self.image_dtype))
        options = self.options(shift=True)
        return {
            "images": self.images(self.image_dtype),
            "windows": self.make_windows(self.image_dtype, axis),
            "out_height": self.out_height,
            "out_width": self.out_width,
            **options,
            "dtype": crop_dtype,
            "boxcar": [],
            **self.filter(),
            "offset": [0.75] * len(options["scale"]) if self.random.random() < 0.5 else [],
            "channels_last": self.random.choice((None, False, True)),
        }

    def _crop_window_grad(self) -> dict[str, Any]:
        axis = self.random.random() < 0.5
        return {
            "grad_output": self.crops(self.crop_dtype, axis),
            "images": self.images(self.image_dtype),
            "windows": self.make_windows(self.image_dtype, axis),
            **self.options(shift=True),
            **self.filter(),
        }

    def _crop_image_grad(self) -> dict[str, Any]:
        axis = self.random.random() < 0.5
        return {
            "grad_output": self.crops(self.crop_dtype, axis),
            "windows": self.make_windows(self.image_dtype, axis),
            "height": self.height,
            "width": self.width,
            **self.options(shift=False),
            "channels_last": self.random.random() < 0.5,
            "dtype": self.image_dtype,
            **self.filter(),
        }

    def _crop_boxcar_grad(self) -> dict[str, Any]:
        axis = self.random.random() < 0.5
        return {
            "grad_output": self.crops(self.crop_dtype, axis),
            "windows": self.make_windows(self.crop_dtype, axis),
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
        return {"grad_output": self.crops(dtype, True), **self.taps(dtype), **sizes, **layout}

    # --- What is spoiled ---------------------------------------------------------------------------------

    def spoil(self) -> None:
        draw = self.random
        name = draw.choice(list(self.arguments))
        value = self.arguments[name]
        if isinstance(value, T):
            self.arguments |= self.spoiled_tensor(name, value)
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

    def spoiled_tensor(self, name: str, value: T) -> dict[str, T]:
        draw = self.random
        what = draw.choice(("size", "size", "huge", "huge", "dtype", "dimensions", "content", "form"))
        if what in ("size", "huge") and value.sizes:
            return self.resized(
                name, value, draw.choice(HUGE) if what == "huge" else draw.choice((0, 1, 2, 4))
            )
        if what == "dtype":
            value = value._replace(dtype=draw.choice(DTYPES))
        elif what == "dimensions":
            sizes = (*value.sizes, 1) if draw.random() < 0.5 else value.sizes[1:]
            value = value._replace(sizes=sizes, strides=(0,) * len(sizes))
        elif what == "content":
            value = value._replace(content=draw.choice(("numbers", "odd numbers", "windows", "pixels")))
        elif what == "form":
            value = value._replace(form=draw.choice(("meta", "sparse", "negated")))
        return {name: value}

    def resized(self, name: str, value: T, size: int) -> dict[str, T]:
        """Another size along one axis, mostly of each tensor that must agree in it; larger by stride 0."""
        axis = self.random.randrange(len(value.sizes))
        old, alone = value.sizes[axis], self.random.random() < 0.3
        changed = {}
        for other, tensor in self.arguments.items():
            if not isinstance(tensor, T) or (alone and other != name):
                continue
            sizes, strides = list(tensor.sizes), list(tensor.strides)
            same = [axis] if other == name else [a for a in range(min(3, len(sizes))) if sizes[a] == old]
            for a in same:
                strides[a] = 0 if size > sizes[a] else strides[a]
                sizes[a] = size
            changed[other] = tensor._replace(sizes=tuple(sizes), strides=tuple(strides))
        return changed

    # --- What is done with it ------------------------------------------------------------------------------

    def is_affordable(self) -> bool:
        """Small, or so large that it must be refused: in between a call would only take long."""
        tensors = {name: value for name, value in self.arguments.items() if isinstance(value, T)}
        extents = [
            sum((n - 1) * s for n, s in zip(t.sizes, t.strides, strict=True)) for t in tensors.values()
        ]
        sides = max(1, math.prod(abs(value) for value in self.arguments.values() if type(value) is int))
        crops = tensors["rows" if "rows" in tensors else "windows"].sizes[:-1]
        if "grad_output" in tensors:
            grad = tensors["grad_output"].sizes
            work = [math.prod(grad), math.prod((*grad[:1], *grad[-3:-2])) * sides]
        else:
            outs = [math.prod(tensors[n].sizes[-1:]) for n in ("rows", "columns") if n in tensors]
            work = [math.prod((*crops, *tensors["images"].sizes[1:2], *outs)) * sides]
        refused = max(work) > SURELY_TOO_MUCH and self.arguments.get("energy") != "square"  # of any C
        return max(extents) < MOST_WORK and (max(work) < MOST_WORK or refused)

    def make(self) -> None:
        operator = getattr(torch.ops.racnn_ops, self.name)
        try:
            arguments = {n: v.make() if isinstance(v, T) else v for n, v in self.arguments.items()}
            answer = operator(**arguments)
        except (RuntimeError, TypeError, NotImplementedError, ValueError, OverflowError):
            return
        for result in answer if isinstance(answer, tuple) else (answer,):
            if self.spoiled == 0 and self.is_tame():
                assert is_written(result), "an answer to finite arguments is not finite, or was not written"

    def is_tame(self) -> bool:
        """Whether every result is finite: no window is lost, or makes derivatives that overflow."""
        windows = self.arguments.get("windows")
        if windows is None or 0 in windows.sizes:
            return True
        values = windows.make()
        limit = 1e6 if "grad" in self.name else float("inf")
        return bool(values.isfinite().all()) and bool((values.abs() <= limit).all())


CALLS = [name for name in vars(Case) if name.startswith(("_crop_", "_tap_"))]


def accumulate(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def is_written(result: Tensor) -> bool:
    return bool((result != 255).all() if result.dtype == torch.uint8 else result.isfinite().all())
