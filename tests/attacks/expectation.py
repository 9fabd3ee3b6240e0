# SPDX-License-Identifier: BSD-3-Clause
"""What a call of random_calls.py has to give: the oracle's numbers, how near, and where nothing is said."""

from __future__ import annotations

from typing import Any

import oracle
import torch
from torch import Tensor

SMALL = 10**7  # pixels of images that have a gradient
DENORMAL = 2.0**-140  # many roundings of a denormal float32
MOST = 1e37  # beyond, a float32 sum may overflow on the way


class Expectation:
    """Of one call; `prepare` makes the tables."""

    images: Tensor
    windows: Tensor
    size: tuple[int, int]
    options: dict[str, Any]

    def prepare(self) -> None:
        """The oracle's tables. A lost window, one that is not finite, is taken for zeros here."""
        self.epsilon = oracle.EPSILON[self.windows.dtype]
        self.batch, self.channels, self.height, self.width = self.images.shape
        windows = self.windows.double().reshape(-1, self.windows.shape[-1])
        self.each = max(1, windows.shape[0] // self.batch)
        self.lost = ~windows.isfinite().all(-1)
        windows = torch.where(self.lost[:, None], 0.0, windows)
        self.four = windows[:, [0, 1, 2, -1]]
        boundary, k = self.options["boundary"], self.options.get("mask_steepness")
        x, y = (self.four[:, [0, 2]].unbind(-1), self.four[:, [1, 3]].unbind(-1))
        self.columns = oracle.make_axis(*x, self.width, self.size[1], boundary, k, self.epsilon)
        self.rows = oracle.make_axis(*y, self.height, self.size[0], boundary, k, self.epsilon)
        unit = (
            255.0
            if self.images.dtype == torch.uint8 and ("mean" in self.options or "std" in self.options)
            else 1.0
        )
        mean, std = (self.options.get(name, default) for name, default in (("mean", 0.0), ("std", 1.0)))
        mean, std = (
            torch.tensor(v, dtype=torch.float64).expand(self.channels)[:, None, None, None, None]
            for v in (mean, std)
        )
        self.scale, self.shift = 1 / (unit * std), -mean / std
        pixels = oracle.gather(self.images, self.each, self.rows, self.columns)
        self.broken = ~pixels.isfinite()
        pixels = torch.where(self.broken, 0.0, pixels)
        inside = self.rows.inside[:, None, :, :, None, None] & self.columns.inside[:, None, None, None]
        self.pixels = torch.where(inside, pixels * self.scale + self.shift, 0.0)
        self.largest = (pixels.abs() * self.scale + self.shift.abs()).amax((2, 3, 4, 5), keepdim=True)[
            ..., 0, 0
        ]
        self.kinks = self.rows.at_kink[:, None, :, None] | self.columns.at_kink[:, None, None, :]
        self.weight_error = self.rows.error + self.columns.error

    def flat(self, crops: Tensor) -> Tensor:
        return crops.reshape(-1, *crops.shape[-3:])

    def check_crops(self, crops: Tensor) -> None:
        got = self.flat(crops)
        exact = oracle.contract(self.pixels, self.rows.weight, self.columns.weight)
        bound = self.largest * 4 * self.weight_error[..., None] + exact.abs() * 4 * self.epsilon
        check_lost("crops", got, self.lost)
        surely = (
            oracle.contract(
                self.broken.double(),
                *((axis.weight > 2 * axis.error).double() for axis in (self.rows, self.columns)),
            )
            > 0
        )
        image_broken = self.flat_images_broken()[:, :, None, None]
        maybe = self.broken.any(4).any(2) | (image_broken & self.kinks)
        check_within("crops", got, exact, bound, surely, maybe, self.lost)

    def flat_images_broken(self) -> Tensor:
        """[N, C]"""
        broken = torch.zeros(self.batch, self.channels, dtype=torch.bool)
        if self.images.numel() < SMALL and self.images.is_floating_point():
            broken = ~self.images.isfinite().flatten(2).all(-1)
        return broken.repeat_interleave(self.each, 0)

    def image_gradient(self, g: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The gradient, its bound, and which pixels surely and maybe read a g that is not finite."""
        g = torch.where(self.lost[:, None, None, None], 0.0, self.flat(g).double())
        broken = ~g.isfinite()
        g = torch.where(broken, 0.0, g) * self.scale[..., 0, 0]
        rows, columns = self.rows, self.columns

        def spread(values: Tensor, along_y: Tensor, along_x: Tensor) -> Tensor:
            spread = torch.einsum("ncij,niy,njx->ncyx", values, along_y, along_x)
            return spread.view(self.batch, self.each, *spread.shape[1:]).sum(1)

        maybe_y, maybe_x = (
            oracle.touched(a, n, False) for a, n in ((rows, self.height), (columns, self.width))
        )
        surely_y, surely_x = (
            oracle.touched(a, n, True) for a, n in ((rows, self.height), (columns, self.width))
        )
        exact = spread(
            g,
            oracle.tap_matrix(rows, rows.weight, self.height),
            oracle.tap_matrix(columns, columns.weight, self.width),
        )
        count = 8 + self.each * self.size[0] * self.size[1]
        terms = g.abs() * (2 * self.weight_error[..., None] + count * self.epsilon)
        return (
            exact,
            spread(terms, maybe_y, maybe_x),
            spread(broken.double(), surely_y, surely_x) > 0,
            spread(broken.double(), maybe_y, maybe_x) > 0,
        )

    def window_gradient(self, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[N, 4], its bound, and of which windows it can be known."""
        g = self.flat(g).double()
        sums, bounds = [], []
        rows, columns = self.rows, self.columns
        steep = 2 + self.options.get("mask_steepness", 0.0)
        each = (g.abs() * self.largest).sum((1, 2, 3))
        spread = (rows.slope_error + columns.slope_error)[:, 0, 0] * steep + 64 * self.epsilon * steep
        for row_weights, column_weights in (
            (rows.weight, columns.by_centre),
            (rows.by_centre, columns.weight),
            (rows.weight, columns.by_half),
            (rows.by_half, columns.weight),
        ):
            sums.append((g * oracle.contract(self.pixels, row_weights, column_weights)).sum((1, 2, 3)))
            bounds.append(each * spread)
        no_kink = ~(self.kinks.flatten(1).any(1) | rows.edge_at_kink | columns.edge_at_kink)
        finite = g.isfinite().flatten(1).all(1) & ~self.broken.flatten(1).any(1)
        return torch.stack(sums, -1), torch.stack(bounds, -1), no_kink & finite & (each * steep < MOST)

    def surrogate(self, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        g = self.flat(g).double()
        boxcar = self.options["boxcar"]
        ratio = 1.0 if boxcar.side is None else boxcar.side / max(self.height, self.width)
        steepness, shrink = boxcar.steepness * ratio, boxcar.shrink * ratio
        exact = oracle.boxcar(g, self.four, steepness, boxcar.energy, boxcar.scale, shrink)
        pixels = g[0].numel() if len(g) else 0
        finite = g.isfinite().flatten(1).all(1) & (
            (g.abs().amax((1, 2, 3)) if pixels else g.sum((1, 2, 3))) < MOST**0.5
        )
        small = ((g != 0) & (g.abs() < 1e-15)).flatten(1).any(1)  # its square is denormal
        sides = self.four[:, 2:].clamp(min=0).amax(-1)
        bound = boxcar.scale * pixels * (steepness + shrink) * self.epsilon * (64 + 8 * steepness * sides)
        return exact, bound[:, None].expand_as(exact), finite & ~small

    def check_window_gradient(self, got: Tensor, g: Tensor) -> None:
        find = self.surrogate if "boxcar" in self.options else self.window_gradient
        exact, bound, known = find(g)
        values = self.windows.shape[-1]
        if values == 3:
            exact, bound = (torch.cat((t[:, :2], t[:, 2:].sum(-1, keepdim=True)), -1) for t in (exact, bound))
        got = got.reshape(-1, values)
        assert got[self.lost].isnan().all(), "the gradient of a lost window is not NaN"
        unknown = (~known)[:, None].expand_as(got)
        none = torch.zeros_like(unknown)
        check_within("window gradient", got, exact, bound, none, unknown, self.lost)

    def tangent(self, along_images: Tensor, along_windows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The crops' derivative along a direction; as arguments of check_within."""
        moved = oracle.gather(along_images, self.each, self.rows, self.columns) * self.scale
        rows, columns = self.rows, self.columns
        exact = oracle.contract(moved, rows.weight, columns.weight)
        steps = along_windows.double().reshape(-1, along_windows.shape[-1])[
            :, [0, 1, 2, -1], None, None, None
        ]
        for step, row_weights, column_weights in (
            (0, rows.weight, columns.by_centre),
            (1, rows.by_centre, columns.weight),
            (2, rows.weight, columns.by_half),
            (3, rows.by_half, columns.weight),
        ):
            exact = exact + steps[:, step] * oracle.contract(self.pixels, row_weights, column_weights)
        steep = 2 + self.options.get("mask_steepness", 0.0)
        slopes = ((rows.slope_error + columns.slope_error) * steep + 64 * self.epsilon * steep)[..., None]
        bound = (
            self.largest * slopes * steps.abs().sum(1) + moved.abs().amax() * 4 * self.weight_error[..., None]
        )
        edges = (rows.edge_at_kink | columns.edge_at_kink)[:, None, None, None]
        maybe = self.kinks | edges | self.broken.any(4).any(2)
        return exact, bound, torch.zeros_like(maybe), maybe


def check_lost(name: str, got: Tensor, lost: Tensor) -> None:
    wrong = got[lost] != 0 if got.dtype == torch.uint8 else ~got[lost].isnan()
    assert not wrong.any(), f"{name}: of a window that is not finite, or on no image: {got[lost]}"


def check_within(
    name: str, got: Tensor, exact: Tensor, bound: Tensor, surely: Tensor, maybe: Tensor, lost: Tensor
) -> None:
    """`got` is `exact` to within `bound`, but not finite where `surely`, and anything where `maybe`."""
    ends = []
    bound = bound + DENORMAL
    for end in (exact - bound, exact + bound):
        if got.dtype == torch.uint8:
            end = end.round().clamp(0, 255)
        ends.append(end.to(torch.float32).to(got.dtype) if got.element_size() == 2 else end.to(got.dtype))
    here = ~lost.view(-1, *(1,) * (got.dim() - 1))
    right = (got >= ends[0]) & (got <= ends[1])
    wrong = here & ~right & ~maybe
    report(name, "is wrong", wrong, got, exact, bound)
    report(name, "does not show what is not finite", here & surely & got.isfinite(), got, exact, bound)


def report(name: str, what: str, wrong: Tensor, *values: Tensor) -> None:
    if wrong.any():
        at = tuple(wrong.nonzero()[0].tolist())
        numbers = ", ".join(repr(value.expand(wrong.shape)[at].item()) for value in values)
        raise AssertionError(
            f"{name} {what} in {int(wrong.sum())} places, first {at}: got, exact, bound = {numbers}"
        )
