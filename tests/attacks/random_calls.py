# SPDX-License-Identifier: BSD-3-Clause
"""Random calls of attention_crop and its gradients, compared with the formulas in float64 (oracle.py).

All dtypes, memory layouts, boundaries and options; windows of every kind, of a batch, by an index, of a list
of images; numbers that are huge, denormal, NaN or infinite. What is not finite must stay where the formula
has it. Of some calls the gradients are computed once more in the form that can be differentiated again,
forward mode and a second derivative too, and everything with other numbers of threads, bitwise the same. Now
and then an argument is wrong, and the error must name it.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import attack
import torch
from expectation import SMALL, Expectation, check_lost, check_within
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
WRONG_OF_LISTS: tuple[tuple[str, Any], ...] = (  # and with an index
    ("images", []),
    ("images", [None]),
    ("images", [torch.ones(4, 4)]),
    ("images", [torch.ones(1, 0, 4)]),
    ("windows", []),
    ("windows", None),
    ("windows", [torch.ones(1, 5)]),
    ("image_index", 0),
    ("image_index", [0]),
    ("image_index", torch.zeros(7)),
    ("image_index", torch.zeros(7, dtype=torch.int64)),
    ("image_index", torch.zeros(1, 1, dtype=torch.int32)),
    ("flip", torch.ones(7, dtype=torch.bool)),
)
NOT_FINITE = (float("nan"), float("inf"), float("-inf"))


class Part(Expectation):
    """What is compared at once: a batch as a whole, otherwise one image with its own windows."""

    def __init__(self, call: Call, images: Tensor, own: Tensor) -> None:
        self.images, self.size, self.options = images, call.size, call.options
        self.own = own  # [N], which of the call's windows
        self.windows = call.flat(call.windows)[own].view(len(images), -1, call.windows.shape[-1])
        if own.any():
            self.prepare()

    def check_gradients(self, of_images: Tensor | None, of_windows: Tensor, g: Tensor) -> None:
        if not self.own.any():
            assert of_images is None or not of_images.any(), "an image without windows has a gradient"
            return
        if of_images is not None:
            none = torch.zeros(self.batch, dtype=torch.bool)
            check_within("image gradient", of_images, *self.image_gradient(g[self.own]), none)
        self.check_window_gradient(of_windows[self.own], g[self.own])


class Call:
    def __init__(self, number: int) -> None:
        self.random = draw = random.Random(number)
        self.numbers = torch.Generator().manual_seed(number)
        self.dtype = draw.choice((*FLOATS, torch.float32, torch.uint8))
        self.windows_dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        self.form = draw.choice(("batch", "batch", "batch", "index", "list"))
        self.channels = draw.choice((0, 1, 2, 3, 3, 7, 16, 33))
        self.size = (draw.choice((1, 2, 7, self.side())), draw.choice((1, 2, 7, self.side())))
        count = draw.choice((1, 1, 2, 3))
        if self.form == "list":
            self.images = [self.make_images(1)[0] for _ in range(count + 1)]
        else:
            self.images = [self.make_images(count)]
        self.counts: list[int] | None = None  # of windows that are a list
        self.image_of = self.make_index()
        self.windows = self.make_windows(draw.choice((3, 4)))
        self.options = self.make_options()

    def __str__(self) -> str:
        images = [f"{tuple(i.shape)} of strides {i.stride()}, {i.dtype}" for i in self.images]
        of = "" if self.form == "batch" else f", {self.form} {self.image_of.tolist()}, counts {self.counts}"
        return f"images {images}, windows {self.windows.tolist()}{of}, {self.size}, {self.options}"

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

    def make_images(self, batch: int) -> Tensor:
        height, width = self.side(), self.side()
        if self.random.random() < 0.05 and 0 < self.channels <= 3:
            height, width = self.random.choice(((2**30, 3), (3, 2**30), (2**30, 2**30)))
            small = (1 if size == 2**30 else size for size in (height, width))
            numbers = self.make_numbers((1, self.channels, *small), self.dtype, odd=0)
            return numbers.expand(1, self.channels, height, width)
        return self.layout(self.make_numbers((batch, self.channels, height, width), self.dtype, odd=0.15))

    def make_index(self) -> Tensor:
        """Of which image each window is. Decides on `counts`."""
        draw, count = self.random, len(self.images if self.form == "list" else self.images[0])
        if self.form == "batch":
            each, every = draw.choice((None, 0, 1, 2, 5)), torch.arange(count)
            return every if each is None else every[:, None].expand(count, each)
        index = torch.randint(0, count, (draw.choice((0, 1, 2, 5, 9)),), generator=self.numbers)
        order = draw.choice(("list", "sorted", "any", "any", "none"))
        if order in ("list", "sorted"):
            index = index.sort().values
        if order == "list":
            self.counts = index.bincount(minlength=count).tolist()
        if order == "none" and len(index) > 0:
            index[draw.randrange(len(index)) :] = draw.choice((-1, count, -(2**31), 2**31 - 1))
        return index

    def make_windows(self, values: int) -> Tensor:
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

        def window(image: int) -> list[float]:
            image = min(max(image, 0), len(self.images) - 1)
            height, width = (min(side, 2**24) for side in self.images[image].shape[-2:])
            halves = (width, height)[: values - 2]
            return [number(width, False), number(height, False), *(number(n, True) for n in halves)]

        table = [window(image) for image in self.image_of.flatten().tolist()]
        windows = torch.tensor(table, dtype=torch.float64).to(self.windows_dtype)
        windows = windows.view(*self.image_of.shape, values)
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

    def arguments(self, *inputs: Tensor) -> dict[str, Any]:
        *images, windows = inputs
        arguments = {"images": images if self.form == "list" else images[0], "windows": windows}
        if self.counts is not None:
            arguments["windows"] = list(windows.split(self.counts))
        elif self.form != "batch":
            dtype = self.random.choice((torch.int32, torch.int64))
            arguments["image_index"] = self.image_of.to(dtype).repeat_interleave(2)[::2]
        return {**arguments, "output_size": self.size, **self.options}

    def crop(self, *inputs: Tensor, **options: Any) -> Tensor:
        return attention_crop(**self.arguments(*inputs), **options)

    def gradients(self, g: Tensor, again: bool) -> list[Tensor | None]:
        inputs = [tensor.detach() for tensor in (*self.images, self.windows)]
        wanted = [t.requires_grad_() for t in inputs if t.is_floating_point() and t.numel() < SMALL]
        crops = self.crop(*inputs)
        found = iter(torch.autograd.grad(crops, wanted, g, create_graph=again))
        return [next(found) if t.requires_grad else None for t in inputs]

    # --- What is compared --------------------------------------------------------------------------------

    def flat(self, values: Tensor) -> Tensor:
        """[N, ...] of what there is of each window."""
        return values.flatten(0, self.image_of.dim() - 1)

    def by_part(self, values: list[Tensor | None]) -> list[Tensor | None]:
        """[B, ...] for each part of what there is of each of `images`."""
        if self.form == "index":
            (of_batch,) = values
            return [None] * len(self.images[0]) if of_batch is None else list(of_batch.split(1))
        return [of if of is None or self.form == "batch" else of[None] for of in values]

    def make_parts(self) -> list[Part]:
        images, of = self.by_part(list(self.images)), self.image_of.flatten()
        owns = [of >= 0] if self.form == "batch" else [of == n for n in range(len(images))]
        return [Part(self, image, own) for image, own in zip(images, owns, strict=True)]

    def check(self) -> None:
        inputs = (*self.images, self.windows)
        crops = self.crop(*inputs)
        assert crops.shape == (*self.image_of.shape, self.channels, *self.size)
        if crops.numel() == 0:
            return
        self.parts = self.make_parts()
        self.nowhere = ~torch.stack([part.own for part in self.parts]).any(0)
        self.check_crops(crops)
        if self.random.random() < 0.2:
            flip = torch.rand(self.image_of.shape, generator=self.numbers) < 0.5
            found = self.crop(*inputs, flip=flip)
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
        small = all(images.numel() < SMALL for images in self.images)
        if self.random.random() < 0.3 and "boxcar" not in self.options and small:
            self.check_gradients(self.gradients(g, again=True), g)
            largest = max((float(part.largest.max()) for part in self.parts if part.own.any()), default=0.0)
            if self.dtype == crops.dtype and crops.element_size() >= 4 and largest < 1e30:
                self.check_derivatives()

    def check_wrong_argument(self) -> None:
        name, value = self.random.choice(WRONG if self.form == "batch" else WRONG_OF_LISTS)
        try:
            attention_crop(**{**self.arguments(*self.images, self.windows), name: value})
        except (TypeError, ValueError) as error:
            message = str(error)
        else:
            message = "no error"
        assert name in message, f"{name}={value}: {message}"

    def check_crops(self, crops: Tensor) -> None:
        crops = self.flat(crops)
        check_lost("crops", crops, self.nowhere)
        for part in self.parts:
            if part.own.any():
                part.check_crops(crops[part.own])

    def check_gradients(self, found: list[Tensor | None], g: Tensor) -> None:
        *of_images, of_windows = found
        assert of_windows is not None
        of_windows = self.flat(of_windows)
        assert not of_windows[self.nowhere].any(), "a window on no image has a gradient"
        for part, of_part in zip(self.parts, self.by_part(of_images), strict=True):
            part.check_gradients(of_part, of_windows, self.flat(g))

    def check_derivatives(self) -> None:
        """Along a direction, in forward mode; and that of <direction, gradients> by g, which is the same."""
        inputs = (*self.images, self.windows)
        along = [torch.randn(tensor.shape, generator=self.numbers).to(tensor.dtype) for tensor in inputs]
        with forward_ad.dual_level():
            duals = (
                forward_ad.make_dual(value.detach().contiguous(), tangent)
                for value, tangent in zip(inputs, along, strict=True)
            )
            tangent = forward_ad.unpack_dual(self.crop(*duals)).tangent
        g = torch.ones_like(tangent).requires_grad_()
        found = self.gradients(g, again=True)
        finite = [torch.ones_like(images, dtype=torch.bool) for images in self.images]
        finite.append(self.windows.isfinite().all(-1, keepdim=True).expand_as(self.windows))
        product = sum((f * a)[here].sum() for f, a, here in zip(found, along, finite, strict=True))
        (second,) = torch.autograd.grad(product, g)

        *along_images, along_windows = along
        for part, along_part in zip(self.parts, self.by_part(along_images), strict=True):
            if part.own.any():
                expected = part.tangent(along_part, self.flat(along_windows)[part.own])
                for name, got in (("forward mode", tangent), ("second derivative", second)):
                    check_within(name, self.flat(got)[part.own], *expected, part.lost)

    def check_threads(self, crops: Tensor, found: list[Tensor | None], g: Tensor) -> None:
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            others = [self.crop(*self.images, self.windows), *self.gradients(g, again=False)]
            for one, other in zip((crops, *found), others, strict=True):
                assert same_bits(one, other), f"{threads} threads give other bits"
        torch.set_num_threads(1)


def same_bits(one: Tensor | None, other: Tensor | None) -> bool:
    """But for those of NaN: torch's conversion to bfloat16 gives other ones in its last few numbers."""
    if one is None or other is None:
        return one is other
    one, other = (t.masked_fill(t.isnan(), torch.nan) if t.is_floating_point() else t for t in (one, other))
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
