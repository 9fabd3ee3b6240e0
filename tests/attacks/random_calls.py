# SPDX-License-Identifier: BSD-3-Clause
"""Random calls of attention_crop and its gradients, compared with the formulas in float64 (oracle.py).

All dtypes, memory layouts, boundaries and options; windows of every kind; numbers that are huge, denormal,
NaN or infinite. What is not finite must stay where the formula has it. Of some calls the gradients are
computed once more in the form that can be differentiated again, forward mode and a second derivative too,
and everything with other numbers of threads, bitwise the same. Now and then an argument is wrong, and the
error must name it.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import attack
import torch
from expectation import SMALL, Expectation, check_within
from torch import Tensor
from torch.autograd import forward_ad

sys.path.append(str(Path(__file__).resolve().parents[1]))
from samples import LAYOUTS

from racnn_ops import Boxcar, attention_crop

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
WRONG: tuple[tuple[str, Any], ...] = (
    ("images", None),
    ("images", torch.ones(2, 3, 4)),
    ("images", torch.ones(1, 1, 0, 4)),
    ("images", torch.ones(1, 1, 4, 4, dtype=torch.int16)),
    ("images", torch.ones(1, 1, 1, 1).expand(1, 1, 1, 2**30 + 1)),
    ("windows", torch.ones(7, 3)),
    ("windows", torch.ones(1, 5)),
    ("windows", torch.ones(1, 3, dtype=torch.int64)),
    ("windows", "all"),
    ("output_size", 0),
    ("output_size", (3, -1)),
    ("output_size", 2.5),
    ("output_size", 2**31),
    ("output_size", (2**63, 1)),
    ("mask_steepness", 0.0),
    ("mask_steepness", float("nan")),
    ("mask_steepness", -2.0),
    ("mask_steepness", "1"),
    ("boundary", "reflect"),
    ("boundary", None),
    ("window_grad", "box"),
    ("mean", float("inf")),
    ("mean", [0.5] * 2000),
    ("std", 0.0),
    ("std", [-1.0]),
    ("std", "1"),
    ("dtype", torch.int32),
    ("memory_format", torch.channels_last_3d),
    ("dtype", "float32"),
    ("boxcar", (1, 2)),
    ("boxcar", Boxcar(steepness=0.0)),
    ("boxcar", Boxcar(energy="cube")),
    ("flip", torch.ones(7, dtype=torch.bool)),
)
NOT_FINITE = (float("nan"), float("inf"), float("-inf"))


class Call(Expectation):
    def __init__(self, number: int) -> None:
        self.random = draw = random.Random(number)
        self.numbers = torch.Generator().manual_seed(number)
        self.dtype = draw.choice((*FLOATS, torch.float32, torch.uint8))
        self.windows_dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        self.batch, self.channels = draw.choice((1, 1, 2, 3)), draw.choice((0, 1, 2, 3, 3, 7, 16, 33))
        self.height, self.width = self.side(), self.side()
        self.size = (draw.choice((1, 2, 7, self.side())), draw.choice((1, 2, 7, self.side())))
        self.images = self.make_images()
        self.windows = self.make_windows(draw.choice((None, 0, 1, 2, 5)), draw.choice((3, 4)))
        self.options = self.make_options()

    def __str__(self) -> str:
        images = f"images {tuple(self.images.shape)} of strides {self.images.stride()}, {self.images.dtype}"
        return f"{images}, windows {self.windows.tolist()}, {self.size}, {self.options}"

    def side(self) -> int:
        return self.random.choice((1, 2, 5, 8, 13, 20, 31, 33, self.random.randint(1, 70)))

    def make_numbers(
        self, shape: tuple[int, ...], dtype: torch.dtype, odd: float, large: float = 1e36
    ) -> Tensor:
        """Of one magnitude; with NaN and infinity here and there with the probability `odd`."""
        if dtype == torch.uint8:
            return torch.randint(0, 256, shape, generator=self.numbers, dtype=dtype)
        values = torch.randn(shape, generator=self.numbers, dtype=torch.float64).clamp(-1, 1)
        values = (
            values * self.random.choice((1, 1, 1, 100, 6e4 if dtype == torch.float16 else large, 1e-40, 3e-7))
        ).to(dtype)
        if self.random.random() < odd and values.numel():
            where = torch.rand(shape, generator=self.numbers) < self.random.choice((0.002, 0.05))
            values[where] = self.random.choice(NOT_FINITE)
        return values

    def layout(self, values: Tensor) -> Tensor:
        draw = self.random.random()
        if draw < 0.1 and values.numel():  # in memory at an odd address
            memory = torch.zeros(values.numel() * values.element_size() + 1, dtype=torch.uint8)
            odd = torch.frombuffer(memory.numpy().data, dtype=values.dtype, offset=1)
            return odd.view(values.shape).copy_(values)
        return LAYOUTS[self.random.choice(list(LAYOUTS))](values) if draw < 0.8 else values

    def make_images(self) -> Tensor:
        shape = (self.batch, self.channels, self.height, self.width)
        if self.random.random() < 0.03 and self.channels:
            self.batch, self.channels = 1, min(self.channels, 3)
            self.height, self.width = self.random.choice(((2**30, 3), (3, 2**30), (2**30, 2**30)))
            small = (1 if size == 2**30 else size for size in (self.height, self.width))
            numbers = self.make_numbers((1, self.channels, *small), self.dtype, odd=0)
            return numbers.expand(1, self.channels, self.height, self.width)
        return self.layout(self.make_numbers(shape, self.dtype, odd=0.15))

    def make_windows(self, each: int | None, values: int) -> Tensor:
        draw = self.random

        def number(size: int, half: bool) -> float:
            kind = draw.random()
            if kind < 0.6:
                return draw.uniform(-0.05, 0.9) * size if half else draw.uniform(-0.3, 1.3) * size
            if kind < 0.8:
                return draw.choice((size / 2, size, size / 4, float(draw.randint(0, 40)), 0.5, 0.0, -1.0))
            if kind < 0.97:
                return draw.choice((1.0, -1.0)) * 10 ** draw.uniform(-8, 5) * size
            return draw.choice((*NOT_FINITE, 1e30, -3e38, 1e-45, 2.0**31))

        height, width = min(self.height, 2**24), min(self.width, 2**24)
        halves = (width, height)[: values - 2]
        count = self.batch * (1 if each is None else each)
        table = [
            [number(width, False), number(height, False), *(number(n, True) for n in halves)]
            for _ in range(count)
        ]
        windows = torch.tensor(table, dtype=torch.float64).to(self.windows_dtype)
        windows = windows.view(self.batch, *(() if each is None else (each,)), values)
        return windows[:1].expand_as(windows) if draw.random() < 0.1 else windows

    def make_options(self) -> dict[str, Any]:
        draw = self.random
        options: dict[str, Any] = {"boundary": draw.choice(("zeros", "border", "clip"))}
        if draw.random() < 0.3:
            options["mask_steepness"] = draw.choice((0.05, 0.7, 3.0))
        for name, least in (("mean", -1.0), ("std", 0.1)):
            if draw.random() < 0.25:
                count = draw.choice((1, self.channels))
                values = [draw.uniform(least, 2.0) for _ in range(count)]
                options[name] = values if values else 0.5
        normalised = "mean" in options or "std" in options
        if draw.random() < 0.5:
            integer = self.dtype == torch.uint8 and not normalised
            options["dtype"] = draw.choice((*FLOATS, torch.uint8) if integer else FLOATS)
        if draw.random() < 0.3:
            options["memory_format"] = draw.choice((torch.contiguous_format, torch.channels_last))
        if draw.random() < 0.2:
            options["window_grad"] = "boxcar"
            options["boxcar"] = Boxcar(
                0.2, draw.choice(("abs", "square")), 2.0, 0.01, draw.choice((None, 100))
            )
        return options

    # --- The calls ---------------------------------------------------------------------------------------

    def crop(self, images: Tensor, windows: Tensor) -> Tensor:
        return attention_crop(images, windows, self.size, **self.options)

    def gradients(self, g: Tensor, again: bool) -> list[Tensor | None]:
        inputs = [self.images.detach(), self.windows.detach()]
        wanted = [t.requires_grad_() for t in inputs if t.is_floating_point() and t.numel() < SMALL]
        crops = self.crop(*inputs)
        found = iter(torch.autograd.grad(crops, wanted, g, create_graph=again))
        return [next(found) if t.requires_grad else None for t in inputs]

    def check(self) -> None:
        crops = self.crop(self.images, self.windows)
        assert crops.shape == (*self.windows.shape[:-1], self.channels, *self.size)
        if crops.numel() == 0:
            return
        self.prepare()
        self.check_crops(crops)
        if self.random.random() < 0.2:
            flip = torch.rand(self.windows.shape[:-1], generator=self.numbers) < 0.5
            found = attention_crop(self.images, self.windows, self.size, flip=flip, **self.options)
            mirrored = torch.where(flip[..., None, None, None], crops.flip(-1), crops)
            assert same_bits(found, mirrored), f"flip {flip.tolist()}: other bits than mirrored crops"
        if self.random.random() < 0.1:
            self.check_wrong_argument()
        if crops.dtype == torch.uint8:
            return
        g = self.layout(self.make_numbers(tuple(crops.shape), crops.dtype, odd=0.15, large=1e34))
        found = self.gradients(g, again=False)
        self.check_gradients(found, g)
        if self.random.random() < 0.2:
            self.check_threads(crops, found, g)
        if self.random.random() < 0.3 and "boxcar" not in self.options and self.images.numel() < SMALL:
            self.check_gradients(self.gradients(g, again=True), g)
            if self.images.dtype == crops.dtype and crops.element_size() >= 4 and self.largest.max() < 1e30:
                self.check_derivatives()

    def check_wrong_argument(self) -> None:
        name, value = self.random.choice(WRONG)
        arguments = {"images": self.images, "windows": self.windows, "output_size": self.size}
        try:
            attention_crop(**{**arguments, **self.options, name: value})
        except (TypeError, ValueError) as error:
            message = str(error)
        else:
            message = "no error"
        assert name in message, f"{name}={value}: {message}"

    def check_derivatives(self) -> None:
        """Along a direction, in forward mode; and that of <direction, gradients> by g, which is the same."""
        along_images = torch.randn(self.images.shape, generator=self.numbers).to(self.dtype)
        along_windows = torch.randn(self.windows.shape, generator=self.numbers).to(self.windows_dtype)
        with forward_ad.dual_level():
            duals = (
                forward_ad.make_dual(value.detach().contiguous(), tangent)
                for value, tangent in ((self.images, along_images), (self.windows, along_windows))
            )
            tangent = forward_ad.unpack_dual(self.crop(*duals)).tangent
        g = torch.ones_like(tangent).requires_grad_()
        of_images, of_windows = self.gradients(g, again=True)
        lost = (self.lost.view(self.windows.shape[:-1])[..., None]).expand_as(along_windows)
        product = (of_images * along_images).sum() + (of_windows * along_windows)[~lost].sum()
        (second,) = torch.autograd.grad(product, g)

        expected = self.tangent(along_images, along_windows)
        for name, got in (("forward mode", tangent), ("second derivative", second)):
            check_within(name, self.flat(got), *expected, self.lost)

    def check_gradients(self, found: list[Tensor | None], g: Tensor) -> None:
        of_images, of_windows = found
        if of_images is not None:
            check_within(
                "image gradient",
                of_images,
                *self.image_gradient(g),
                torch.zeros(self.batch, dtype=torch.bool),
            )
        assert of_windows is not None
        self.check_window_gradient(of_windows, g)

    def check_threads(self, crops: Tensor, found: list[Tensor | None], g: Tensor) -> None:
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            others = [self.crop(self.images, self.windows), *self.gradients(g, again=False)]
            for one, other in zip((crops, *found), others, strict=True):
                assert same_bits(one, other), f"{threads} threads give other bits"
        torch.set_num_threads(1)


def same_bits(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    one, other = (t.contiguous().view(-1).view(torch.uint8) for t in (one, other))
    return torch.equal(one, other)


def case(number: int) -> None:
    call = Call(number)
    try:
        call.check()
    except Exception as error:
        error.add_note(str(call)) if hasattr(error, "add_note") else None
        raise


def main() -> int:
    torch.set_num_threads(1)
    return attack.run(attack.parser(__doc__).parse_args(), case)


if __name__ == "__main__":
    sys.exit(main())
