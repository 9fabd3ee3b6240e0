# SPDX-License-Identifier: BSD-3-Clause
"""NaN and infinity go where the taps say: from a pixel to the outputs that read it, and back the same way.

An output reads the pixels floor(p) and floor(p) + 1 along each axis that lie inside the image, whatever their
weights are; zero times infinity is NaN. All positions here are short binary fractions: nothing is rounded.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from .arrays import Array, Result, decode, encode, place

Bools = NDArray[np.bool_]

SIZE, OUT = (5, 6), (4, 8)
PLANTED = 1  # the channel
# tx, ty, tl: within the image, over its borders, on pixel centres, a point, and wholly outside.
WINDOWS = np.array(
    [
        (3.0, 2.5, 2.0),
        (2.25, 2.75, 1.0),
        (0.5, 0.5, 4.0),
        (5.75, 4.0, 2.5),
        (3.0, 2.5, 16.0),
        (3.5, 1.5, 0.0),
        (-0.5, 2.25, 0.0),
        (-3.0, 2.5, 4.0),
        (9.0, 8.0, 1.0),
        (3.0, -20.0, 4.0),
    ]
)
# Images, crops, layout, channels: one by one and in words.
KINDS = [
    ("float32", "float32", "contiguous", 3),
    ("float32", "float32", "channels_last", 8),
    ("bfloat16", "bfloat16", "contiguous", 2),
    ("float32", "float16", "channels_last", 3),
    ("float16", "float16", "channels_last", 8),
    ("float64", "float64", "contiguous", 3),
]
BOUNDARIES = ["zeros", "border", "clip"]


def lower_pixels(centre: float, half: float, size: int, out: int, boundary: str) -> NDArray[np.int64]:
    if boundary == "clip" and (centre - half < 0 or centre + half > size):
        low, high = np.clip([centre - half, centre + half], 0, size)
        centre, half = (low + high) / 2, (high - low) / 2
    p = centre + half * ((2 * np.arange(out) + 1) / out - 1) - 0.5
    return np.floor(p if boundary == "zeros" else p.clip(0, size - 1)).clip(-2, size).astype(np.int64)


def entries(lower: NDArray[np.int64], size: int) -> Bools:
    """(out, 2, size): whether the lower and the upper entry of each output is that pixel."""
    return np.asarray((lower[:, None] + np.arange(2))[..., None] == np.arange(size))


def read_by(boundary: str, windows: Array = WINDOWS, out: tuple[int, int] = OUT) -> tuple[Bools, Bools]:
    """(windows, out, size) for rows and for columns: which pixels each output reads."""
    rows, columns = [], []
    for tx, ty, tl in windows:
        rows.append(entries(lower_pixels(ty, tl, SIZE[0], out[0], boundary), SIZE[0]).any(1))
        columns.append(entries(lower_pixels(tx, tl, SIZE[1], out[1], boundary), SIZE[1]).any(1))
    return np.array(rows), np.array(columns)


def planted(shape: tuple[int, ...], value: float, dtype: str, layout: str) -> Array:
    """One array after another, each with ``value`` in another place of the planted channel."""
    values = np.random.default_rng(0).uniform(0.5, 1.0, (shape[-2] * shape[-1], *shape))
    flat = values[..., PLANTED, :, :].reshape(len(values), *shape[:-3], -1)
    flat[np.arange(len(values)), ..., np.arange(len(values))] = value
    values[..., PLANTED, :, :] = flat.reshape(values[..., PLANTED, :, :].shape)
    return place(encode(values, dtype), layout)


def plain(shape: tuple[int, ...], dtype: str, layout: str) -> Array:
    return place(encode(np.random.default_rng(1).uniform(0.5, 1.0, shape), dtype), layout)


def repeated(windows: Array, count: int, image: str) -> Array:
    dtype = np.float64 if image == "float64" else np.float32
    return np.ascontiguousarray(np.broadcast_to(windows, (count, *windows.shape)), dtype)


def not_finite(result: Result, dtype: str) -> Bools:
    return ~np.isfinite(decode(result.take(), dtype))


def check_planted_channel(found: Bools, expected: Bools) -> None:
    np.testing.assert_array_equal(found[..., PLANTED, :, :], expected)
    assert not np.delete(found, PLANTED, -3).any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("image", "crop", "layout", "channels"), KINDS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
class TestWindows:
    def test_a_pixel_reaches_only_outputs_that_read_it(
        self,
        boundary: str,
        image: str,
        crop: str,
        layout: str,
        channels: int,
        value: float,
        kernels: ModuleType,
    ) -> None:
        images = planted((channels, *SIZE), value, image, layout)
        windows = repeated(WINDOWS, len(images), image)
        rows, columns = read_by(boundary)
        expected = np.einsum("kiy,kjx->yxkij", rows, columns).reshape(len(images), len(WINDOWS), *OUT)
        for mask_steepness in (0.0, 0.5):
            options = kernels.Options(boundary=boundary, mask_steepness=mask_steepness)
            result = Result((*windows.shape[:2], channels, *OUT), crop, layout, 8)
            kernels.forward(images, windows, result.array, options)
            check_planted_channel(not_finite(result, crop), expected)

            grad_output = plain(result.array.shape, crop, layout)
            gradients = Result(windows.shape, windows.dtype.name, "contiguous", 8)
            kernels.window_grad(grad_output, images, windows, gradients.array, options)
            found = not_finite(gradients, windows.dtype.name).any(-1)
            np.testing.assert_array_equal(found, expected.any((-1, -2)))

    def test_an_incoming_gradient_reaches_only_pixels_that_its_output_reads(
        self,
        boundary: str,
        image: str,
        crop: str,
        layout: str,
        channels: int,
        value: float,
        kernels: ModuleType,
    ) -> None:
        rows, columns = read_by(boundary)
        grad_output = planted((len(WINDOWS), channels, *OUT), value, crop, layout)
        count = len(grad_output)
        for mask_steepness in (0.0, 0.5):
            options = kernels.Options(boundary=boundary, mask_steepness=mask_steepness)
            each = grad_output.swapaxes(0, 1).reshape(
                -1, 1, channels, *OUT
            )  # an image for each window and output
            windows = np.repeat(repeated(WINDOWS, 1, image)[0], count, 0)[:, None]
            result = Result((len(each), channels, *SIZE), image, layout, 8)
            kernels.image_grad(place(each, layout), windows, result.array, options)
            expected = np.einsum("kiy,kjx->kijyx", rows, columns).reshape(len(each), *SIZE)
            check_planted_channel(not_finite(result, image), expected)

            images, windows = plain((count, channels, *SIZE), image, layout), repeated(WINDOWS, count, image)
            gradients = Result(windows.shape, windows.dtype.name, "contiguous", 8)
            kernels.window_grad(grad_output, images, windows, gradients.array, options)
            reads_any = np.einsum("ki,kj->ijk", rows.any(-1), columns.any(-1)).reshape(count, -1)
            np.testing.assert_array_equal(not_finite(gradients, windows.dtype.name).any(-1), reads_any)


@pytest.mark.parametrize(("layout", "channels"), [("contiguous", 3), ("channels_last", 8)])
@pytest.mark.parametrize("boundary", ["zeros", "border"])
def test_gathers_that_a_warp_shares_keep_infinity_to_its_pixels(
    boundary: str, layout: str, channels: int, kernels: ModuleType
) -> None:
    out = (16, 16)  # all on a few pixels
    for window in ((3.25, 2.75, 0.0), (2.0, 3.0, 1.0), (-1.0, 4.5, 1.0), (8.0, -7.0, 4.0)):
        windows = repeated(np.array([window]), out[0] * out[1], "float32")
        grad_output = planted((1, channels, *out), np.inf, "float32", layout)
        result = Result((len(windows), channels, *SIZE), "float32", layout, 8)
        kernels.image_grad(grad_output, windows, result.array, kernels.Options(boundary=boundary))
        rows, columns = read_by(boundary, windows[0], out)
        expected = np.einsum("kiy,kjx->ijyx", rows, columns).reshape(-1, *SIZE)
        check_planted_channel(not_finite(result, "float32"), expected)


class TestTables:
    """Any weights, at the pixels of the windows."""

    def tables(self, count: int) -> tuple[list[Array], Bools, Bools]:
        lower = [
            np.array([lower_pixels(w[1 - axis], w[2], SIZE[axis], OUT[axis], "zeros") for w in WINDOWS])
            for axis in (0, 1)
        ]
        result: list[Array] = []
        for pixels in lower:
            weights = np.random.default_rng(2).uniform(0.5, 1.0, (*pixels.shape, 2))
            for array, dtype in ((pixels, np.int32), (weights, np.float32)):
                result.append(np.ascontiguousarray(np.broadcast_to(array, (count, *array.shape)), dtype))
        rows, columns = (np.array([entries(p, SIZE[a]) for p in lower[a]]) for a in (0, 1))
        return result, rows, columns

    @pytest.mark.parametrize(("layout", "channels"), [("contiguous", 3), ("channels_last", 8)])
    def test_a_pixel_reaches_only_outputs_that_read_it(
        self, layout: str, channels: int, kernels: ModuleType
    ) -> None:
        images = planted((channels, *SIZE), np.inf, "float32", layout)
        tables, rows, columns = self.tables(len(images))
        result = Result((len(images), len(WINDOWS), channels, *OUT), "float32", layout, 8)
        kernels.tap_crop(images, kernels.Tables(*tables), result.array, kernels.Options())
        expected = np.einsum("kisy,kjtx->yxkij", rows, columns).reshape(len(images), len(WINDOWS), *OUT)
        check_planted_channel(not_finite(result, "float32"), expected)

    @pytest.mark.parametrize(("layout", "channels"), [("contiguous", 3), ("channels_last", 8)])
    def test_an_incoming_gradient_reaches_only_what_its_output_reads(
        self, layout: str, channels: int, kernels: ModuleType
    ) -> None:
        grad_output = planted((len(WINDOWS), channels, *OUT), np.inf, "float32", layout)
        count = len(grad_output)
        tables, rows, columns = self.tables(count)
        each = grad_output.swapaxes(0, 1).reshape(-1, 1, channels, *OUT)
        flat = [np.repeat(table[0], count, 0)[:, None] for table in tables]
        result = Result((len(each), channels, *SIZE), "float32", layout, 8)
        kernels.tap_image_grad(place(each, layout), kernels.Tables(*flat), result.array, kernels.Options())
        expected = np.einsum("kisy,kjtx->kijyx", rows, columns).reshape(len(each), *SIZE)
        check_planted_channel(not_finite(result, "float32"), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("energy", ["abs", "square"])
@pytest.mark.parametrize("out", [(4, 8), (33, 31)])
def test_boxcar_keeps_an_incoming_gradient_to_its_window(
    out: tuple[int, int], energy: str, value: float, kernels: ModuleType
) -> None:
    shape = (2, 3, 3, *out)
    windows = repeated(WINDOWS[:3], 2, "float32")
    for n in range(6):
        grad_output = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
        grad_output[n // 3, n % 3] *= n % 2  # also where nothing else has a maximum
        grad_output[n // 3, n % 3, 1, out[0] // 2, out[1] - 1] = value
        gradients = Result(windows.shape, "float32", "contiguous", 8)
        kernels.boxcar_grad(grad_output, windows, gradients.array, energy, 0.3, 0.5, 0.02, kernels.Options())
        expected = np.broadcast_to((np.arange(6) == n).reshape(2, 3, 1), windows.shape)
        np.testing.assert_array_equal(not_finite(gradients, "float32"), expected)
