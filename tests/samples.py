# SPDX-License-Identifier: BSD-3-Clause
"""Images, windows and memory layouts for the tests; random, but the same in every run."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from racnn_ops import reference

BOUNDARIES = ("zeros", "border", "clip")
MASKS = (None, 0.7)
MODES = [(boundary, mask) for boundary in BOUNDARIES for mask in MASKS]
EVERY_BOUNDARY = (*BOUNDARIES, "window")
FILTERS: list[dict[str, Any]] = [
    {"interpolation": "nearest"},
    {"interpolation": "bilinear"},
    {"interpolation": "bilinear", "antialias": True},
    {"interpolation": "bicubic"},
    {"interpolation": "bicubic", "antialias": True},
    {"interpolation": "lanczos3"},
    {"interpolation": "area"},
]
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
FLOAT_PAIRS = [(image, out) for image in FLOATS for out in FLOATS]
UINT8_PAIRS = [(torch.uint8, out) for out in (*FLOATS, torch.uint8)]

# Largest error, relative to the largest value. float64 and float32: some roundings of a position of up to
# 200 pixels, times the slope of the image there; the 16-bit types: half a unit in the last place besides.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 1e-4,
    torch.float16: 1e-4 + 2**-11,
    torch.bfloat16: 1e-4 + 2**-8,
}


class Shape(NamedTuple):
    """B, C, H, W of the images and h, w of the crops."""

    batch: int
    channels: int
    height: int
    width: int
    out_height: int
    out_width: int

    @property
    def images(self) -> tuple[int, int, int, int]:
        return self[:4]

    @property
    def out(self) -> tuple[int, int]:
        return self[4:]


SHAPES = (
    Shape(2, 3, 20, 30, 16, 24),
    Shape(3, 1, 9, 11, 20, 37),  # zooming in, one channel
    Shape(2, 20, 14, 13, 7, 5),  # many channels: wide pixels where they are innermost
    Shape(1, 3, 90, 200, 6, 9),  # most pixels are skipped
    Shape(2, 2, 1, 40, 3, 12),  # one row
    Shape(2, 2, 25, 1, 8, 3),  # one column
    Shape(1, 2, 40, 50, 130, 140),  # more than one unit of work a plane
    Shape(1, 17, 33, 31, 64, 8),
)


def filter_id(options: dict[str, Any]) -> str:
    """Of a test's parameter."""
    return "-".join("antialias" if value is True else str(value) for value in options.values())


each_filter = pytest.mark.parametrize("options", FILTERS, ids=filter_id)


def generator(*seed: object) -> torch.Generator:
    """A generator for what `seed` names."""
    return torch.Generator().manual_seed(zlib.crc32(repr(seed).encode()))


def windows_of(device: str, form: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Of two images of about 7 x 8 pixels, in one of four forms: one or two an image, of 3 or 4 numbers."""
    values = torch.tensor([4.3, 3.6, 2.3, 1.7], device=device, dtype=dtype)[: 3 + form // 2]
    return values.repeat(2, 2, 1) if form % 2 else values.repeat(2, 1)


def make_images(shape: tuple[int, ...], dtype: torch.dtype, g: torch.Generator) -> Tensor:
    if dtype == torch.uint8:
        return torch.randint(0, 256, shape, generator=g, dtype=torch.uint8)
    return torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)


def window_dtype(image_dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if image_dtype == torch.float64 else torch.float32


def window_sizes(form: int, batch: int) -> tuple[int, ...]:
    """The four forms of `windows`: (B, 3), (B, K, 3), (B, 4), (B, K, 4)."""
    values = 3 if form % 4 < 2 else 4
    return (batch, values) if form % 2 == 0 else (batch, 3, values)


def make_windows(sizes: tuple[int, ...], shape: Shape, g: torch.Generator) -> Tensor:
    """Inside, over the edge and outside; some with a half side below zero. float64."""
    windows = torch.rand(sizes, generator=g, dtype=torch.float64)
    windows[..., 0] = (windows[..., 0] * 1.6 - 0.3) * shape.width
    windows[..., 1] = (windows[..., 1] * 1.6 - 0.3) * shape.height
    windows[..., 2:] = (windows[..., 2:] * 0.9 - 0.05) * max(shape.height, shape.width)
    return windows


def make_smooth_windows(
    sizes: tuple[int, ...], shape: Shape, boundary: str, g: torch.Generator, margin: float = 1e-3
) -> Tensor:
    """Windows around which the crop is differentiable: no sample within `margin` of a pixel's centre, no
    edge within `margin` of the image's, no half side near zero. float32 numbers, as float64."""
    found: list[Tensor] = []
    count = torch.Size(sizes[:-1]).numel()
    while len(found) < count:
        window = make_windows((1, sizes[-1]), shape, g).float().double()[0]
        centres, halves = window[:2], torch.stack((window[2], window[-1]))
        smooth = bool((halves > margin).all())
        for centre, half, size, out in zip(centres, halves, shape[3:1:-1], shape[:3:-1], strict=True):
            edges = torch.stack((centre - half, centre + half))
            if boundary == "clip":
                smooth &= bool((edges.abs() > margin).all() and ((edges - size).abs() > margin).all())
                low, high = edges.clamp(0, size)
                centre, half = (low + high) / 2, (high - low) / 2
                # A window clipped to nothing at the edge reads the edge pixel, wherever it is.
                position = centre + half * _offsets(out) - 0.5
                position = position[(position > -0.25) & (position < size - 0.75)]
            else:
                position = centre + half * _offsets(out) - 0.5
            smooth &= bool(((position - position.round()).abs() > margin).all())
        if smooth:
            found.append(window)
    return torch.stack(found).view(sizes)


def _offsets(out: int) -> Tensor:
    return (2 * torch.arange(out, dtype=torch.float64) + 1 - out) / out


def _poisoned(tensor: Tensor, sizes: tuple[int, ...]) -> Tensor:
    return tensor.new_full(sizes, 255 if tensor.dtype == torch.uint8 else float("nan"))


def _sliced(tensor: Tensor) -> Tensor:
    """Inside a larger buffer, at an offset; what lies around it is NaN."""
    *outer, channels, height, width = tensor.shape
    view = _poisoned(tensor, (*outer, channels + 2, height + 3, width + 5))[..., 1:-1, 2:-1, 3:-2]
    return view.copy_(tensor)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.movedim(-3, -1).contiguous().movedim(-1, -3)


def _channels_last_sliced(tensor: Tensor) -> Tensor:
    """Channels innermost and whole, rows and columns inside a larger buffer."""
    *outer, channels, height, width = tensor.shape
    view = _poisoned(tensor, (*outer, height + 3, width + 5, channels)).movedim(-1, -3)[..., 2:-1, 3:-2]
    return view.copy_(tensor)


def _some_channels_last(tensor: Tensor) -> Tensor:
    """Channels innermost, a slice of more."""
    *outer, channels, height, width = tensor.shape
    view = _poisoned(tensor, (*outer, height, width, channels + 3)).movedim(-1, -3)[..., 2:-1, :, :]
    return view.copy_(tensor)


def _every_second(tensor: Tensor) -> Tensor:
    *outer, height, width = tensor.shape
    return _poisoned(tensor, (*outer, 2 * height, 2 * width))[..., ::2, 1::2].copy_(tensor)


def _transposed(tensor: Tensor) -> Tensor:
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)


def _batch_innermost(tensor: Tensor) -> Tensor:
    return tensor.movedim(0, -1).contiguous().movedim(-1, 0)


def _one_for_all(tensor: Tensor) -> Tensor:
    """The first of the batch for all of it, with stride 0."""
    return tensor[:1].expand_as(tensor)


def _one_channel_for_all(tensor: Tensor) -> Tensor:
    return tensor[..., :1, :, :].expand_as(tensor)


def _one_number(tensor: Tensor) -> Tensor:
    """Stride 0 everywhere, as the gradient of sum() has it."""
    number = tensor.flatten()[0] if tensor.numel() else tensor.new_zeros(())
    return number.expand_as(tensor)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": Tensor.contiguous,
    "channels_last": _channels_last,
    "transposed": _transposed,
    "sliced": _sliced,
    "channels_last_sliced": _channels_last_sliced,
    "some_channels_last": _some_channels_last,
    "every_second": _every_second,
    "batch_innermost": _batch_innermost,
    "one_for_all": _one_for_all,
    "one_channel_for_all": _one_channel_for_all,
    "one_number": _one_number,
}


def expected(images: Tensor, windows: Tensor, size: tuple[int, int], **options: Any) -> Tensor:
    """What the specification says, computed in float64 and not rounded. `fill` is a list."""
    normalised = options.get("mean") is not None or options.get("std") is not None
    pixels = images.double()
    if images.dtype == torch.uint8 and normalised:
        pixels = pixels / 255
        if options.get("fill") is not None:
            options = {**options, "fill": [value / 255 for value in options["fill"]]}
    return reference.attention_crop(pixels, windows.double(), size, **{**options, "dtype": None})


def relative_error(actual: Tensor, exact: Tensor) -> float:
    """The largest error, relative to the largest value (at least 1)."""
    assert actual.shape == exact.shape
    if exact.numel() == 0:
        return 0.0
    error = (actual.detach().double() - exact.detach()).abs().max()
    return float(error / exact.detach().abs().max().clamp(min=1.0))


def check_vmap_and_compile(crop: Callable[[Tensor], Tensor], windows: Tensor) -> None:
    """Mapped over the windows of an image, and compiled, it gives the same."""
    exact = crop(windows)
    torch.testing.assert_close(torch.func.vmap(crop, in_dims=1, out_dims=1)(windows), exact)
    torch._dynamo.reset()
    compiled = torch.compile(crop, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(windows), exact)
