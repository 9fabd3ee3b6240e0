# SPDX-License-Identifier: BSD-3-Clause
"""``paste``: crops back into images, differentiably; the inverse of ``attention_crop``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ._arguments import (
    check_arguments,
    check_choice,
    check_number,
    check_options,
    check_size,
    check_tensor,
    is_channels_last,
)
from ._autograd import is_differentiated
from ._dense import is_eager
from ._dispatch import crop
from ._options import CropOptions
from .boxes import boxes_from_windows, boxes_to_crop, windows_from_boxes

__all__ = ["paste"]

EDGES = ("soft", "hard")
# A pixel of the crop takes part this far from its centre, in its own widths or, antialiased, the image's.
SUPPORT = {"nearest": 0.5, "bilinear": 1.0, "bicubic": 2.0, "lanczos3": 3.0, "area": 1.0}
# Half sides, in pixels, that count as 0; the inverse of larger ones, and its derivative, are finite.
LEAST_HALF_SIDE = 2.0**-20
SCRATCH_BYTES = 2**25
"""Of whole images that are made at a time, to be added up or compared with a threshold."""
NUMBERS_OF_A_CALL = 2**16
"""A CPU computes about so many in the time that one more call takes."""

Part = tuple[slice, slice, slice, Tensor]
"""Some of the crops, rows and columns of their images, and the pixels there, (N, C, ., .)."""


def paste(
    crops: Tensor,
    windows: Tensor,
    size: int | Sequence[int],
    *,
    interpolation: str = "bilinear",
    antialias: bool = False,
    edges: str = "soft",
    fill: float | Sequence[float] = 0,
    reduce: str | None = None,
    threshold: float | None = None,
) -> Tensor:
    """Paste crops into images, each where its window is: the inverse of :func:`racnn_ops.attention_crop`.

    Differentiable in the crops and in the windows, with everything that ``attention_crop`` has, since it is a
    crop: of the image, in the crop's pixels.

    Args:
        crops (Tensor[B, C, h, w] or Tensor[B, K, C, h, w]): of any dtype that ``attention_crop`` takes.
        windows (Tensor[B, 3 | 4] or Tensor[B, K, 3 | 4]): ``tx, ty, tl`` or ``tx, ty, tw, th``, in pixels of
            the image, as in ``attention_crop``; float32 (float64 with float64 crops). Where a half side is
            less than 2**-20 nothing is pasted, and the window's gradient is 0. A window with NaN or infinity
            gives an image of NaN (0 for integers).
        size (int or (int, int)): ``H, W`` of an image.
        interpolation, antialias: as in ``attention_crop``. Labels want ``"nearest"``, crops that are larger
            than their windows ``antialias``.
        edges (str): ``"soft"``, where the crop continues as ``fill``, so that its outermost pixels fade to it
            (with ``"bilinear"``) from half a pixel of the crop within the window to half a pixel beyond: the
            mask paste of Mask R-CNN, ``grid_sample(padding_mode="zeros")``. Or ``"hard"``: pixels whose
            centre lies in the window, its left and upper edge included, have the crop's values, whose
            outermost pixels reach to the edge; all others ``fill``. Windows that meet then tile an image.
        fill (float or sequence): what lies around, one number or one per channel, in the units of ``crops``.
        reduce (str, optional): ``"sum"`` adds an image's K crops up; floating crops and ``fill=0`` alone.
            On a CPU, where nobody differentiates, without memory for K images.
        threshold (float, optional): the result is whether a pixel is at least that, with no gradient. Beside
            the result there are images of some 32 MB at a time. Not with ``reduce``.

    On a CPU, where nobody differentiates, only what windows reach of large images is computed, from the same
    positions but for rounding: a value that close to ``threshold`` may fall on its other side.

    Returns:
        Tensor[B, C, H, W] or Tensor[B, K, C, H, W], with ``reduce`` Tensor[B, C, H, W]; of the crops' dtype,
        with ``threshold`` bool.

    Raises:
        TypeError, ValueError: before any work, naming the argument, what it was and what is allowed.

    Example:
        >>> crop = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
        >>> paste(crop, torch.tensor([[2.0, 2.0, 1.0]]), (4, 4), edges="hard").squeeze()
        tensor([[0., 0., 0., 0.],
                [0., 1., 2., 0.],
                [0., 3., 4., 0.],
                [0., 0., 0., 0.]])
    """
    options = _check(crops, windows, size, interpolation, antialias, edges, fill, reduce, threshold)
    leading = crops.shape[:-3]
    pixels, windows = crops.flatten(0, -4), _with_nothing_to_paste_outside(windows.flatten(0, -2))
    if reduce is not None:
        return _sum(pixels, windows, options, leading)
    if threshold is not None:
        result = _compare(pixels, windows, options, threshold)
    else:
        result = _paste(pixels, windows, options)
    return result.view(*leading, *result.shape[1:])


def _check(
    crops: Tensor,
    windows: Tensor,
    size: int | Sequence[int],
    interpolation: str,
    antialias: bool,
    edges: str,
    fill: float | Sequence[float],
    reduce: str | None,
    threshold: float | None,
) -> CropOptions:
    """``output_size`` of the options is the image's, hard edges are ``boundary="border"``."""
    check_tensor("crops", crops)
    check_tensor("windows", windows)
    size = check_size("size", size)
    check_choice("edges", edges, EDGES)
    if fill is None:
        raise TypeError("fill must be a number or a sequence of numbers, one per channel, got None")
    rest = None, None, None, None, None
    options = check_options(size, interpolation, antialias, None, "zeros", fill, "exact", *rest)
    if crops.dim() not in (4, 5) or crops.shape[-1] < 1 or crops.shape[-2] < 1:
        raise ValueError(
            "crops must have shape (B, C, h, w) or (B, K, C, h, w), at least 1 pixel high and wide, "
            f"got {tuple(crops.shape)}"
        )
    if windows.dim() < 1 or windows.shape[:-1] != crops.shape[:-3] or windows.shape[-1] not in (3, 4):
        leading = ", ".join(map(str, crops.shape[:-3]))
        raise ValueError(
            f"windows must have shape ({leading}, 3) for tx, ty, tl or ({leading}, 4) for tx, ty, tw, th "
            f"with crops {tuple(crops.shape)}, got {tuple(windows.shape)}"
        )
    check_arguments(crops.flatten(0, -4), windows.flatten(0, -2), options, name="crops")
    if threshold is not None:
        check_number("threshold", threshold)
    if reduce is not None:
        _check_reduce(reduce, crops, fill, options, threshold)
    return options._replace(boundary="border") if edges == "hard" else options


def _check_reduce(
    reduce: str, crops: Tensor, fill: object, options: CropOptions, threshold: float | None
) -> None:
    if reduce != "sum":
        raise ValueError(f"reduce must be None or 'sum', got {reduce!r}")
    if crops.dim() == 4:
        raise ValueError(
            f"reduce must be None without an axis to add up, for crops {tuple(crops.shape)}, got 'sum'"
        )
    if not crops.is_floating_point():
        raise TypeError(f"crops must be floating with reduce='sum', got {crops.dtype}")
    if options.fill is not None and any(options.fill):
        raise ValueError(f"fill must be 0 with reduce='sum', got {fill!r}")
    if threshold is not None:
        raise ValueError(f"threshold must be None with reduce='sum', got {threshold!r}")


def _with_nothing_to_paste_outside(windows: Tensor) -> Tensor:
    """Windows without a side are moved to where no image reads them, with a gradient of 0."""
    nothing = (windows[:, 2:] < LEAST_HALF_SIDE).any(-1, keepdim=True)
    return torch.cat(
        (windows[:, :2].masked_fill(nothing, -16.0), windows[:, 2:].masked_fill(nothing, 1.0)), -1
    )


def _paste(pixels: Tensor, windows: Tensor, options: CropOptions) -> Tensor:
    """(N, C, h, w), (N, 3 | 4): (N, C, H, W)."""
    if not (_is_in_place(pixels, windows) and _is_by_rectangles(pixels, options)):
        return _paste_whole(pixels, windows, options)
    layout = torch.channels_last if is_channels_last(pixels) else torch.contiguous_format
    shape = (*pixels.shape[:2], *options.output_size)
    result = torch.empty(shape, dtype=pixels.dtype, device=pixels.device, memory_format=layout)
    result[:] = _outside(options, pixels)
    for some, rows, columns, part in _rectangles_with_pixels(pixels, windows, options):
        result[some, :, rows, columns] = part
    return result


def _is_in_place(pixels: Tensor, windows: Tensor) -> bool:
    """Whether a result may be put together in place: numbers are there, and nobody differentiates."""
    return is_eager(pixels) and is_eager(windows) and not is_differentiated(pixels, windows)


def _is_by_rectangles(pixels: Tensor, options: CropOptions) -> bool:
    """Whether each crop gets a call of its own, for what its window reaches, or all of them one, for all.

    The former where a crop's image costs more than a call, on a CPU. Elsewhere, reading windows would wait
    for the device.
    """
    height, width = options.output_size
    return pixels.is_cpu and pixels.shape[1] * height * width > NUMBERS_OF_A_CALL


def _paste_whole(pixels: Tensor, windows: Tensor, options: CropOptions) -> Tensor:
    """All pixels of the images at once, differentiably."""
    seen = _seen_from_crop(_whole(windows, options.output_size), windows, pixels)
    images = crop(pixels, seen, _read(options))
    if options.boundary != "border":
        return images
    height, width = options.output_size
    left, top, right, bottom = _first_pixels(windows)[..., None].unbind(1)
    x, y = (torch.arange(n, device=windows.device, dtype=windows.dtype) for n in (width, height))
    outside_x, outside_y = (x < left) | (x >= right), (y < top) | (y >= bottom)
    outside = outside_y[:, :, None] | outside_x[:, None, :]
    outside = (outside & seen.isfinite().all(-1)[:, None, None]).unsqueeze(1)
    values = _fill_values(options, pixels.dtype)
    if len(values) == 1:
        return images.masked_fill(outside, values[0])
    return torch.where(outside, images.new_tensor(values)[:, None, None], images)


def _compare(pixels: Tensor, windows: Tensor, options: CropOptions, threshold: float) -> Tensor:
    """Whether pasted pixels are at least the threshold."""
    if not (is_eager(pixels) and is_eager(windows)):
        return _paste(pixels, windows, options) >= threshold
    shape = (*pixels.shape[:2], *options.output_size)
    result = torch.empty(shape, dtype=torch.bool, device=pixels.device)
    with torch.no_grad():
        if _is_by_rectangles(pixels, options):
            result[:] = _outside(options, pixels) >= threshold
        for some, rows, columns, part in _parts(pixels, windows, options):
            torch.ge(part, threshold, out=result[some, :, rows, columns])
    return result


def _sum(pixels: Tensor, windows: Tensor, options: CropOptions, leading: Sequence[int]) -> Tensor:
    """Pasted pixels added up over the last of the leading axes."""
    batch, crops = leading
    if not (_is_in_place(pixels, windows) and pixels.is_cpu):
        images = _paste_whole(pixels, windows, options)
        return images.view(*leading, *images.shape[1:]).sum(1)
    shape = (batch, pixels.shape[1], *options.output_size)
    result = torch.zeros(shape, dtype=windows.dtype, device=windows.device)
    image = torch.arange(batch, device=windows.device).repeat_interleave(crops)
    for some, rows, columns, part in _parts(pixels, windows, options._replace(dtype=windows.dtype)):
        result[:, :, rows, columns].index_add_(0, image[some], part)
    return result.to(pixels.dtype)


def _parts(pixels: Tensor, windows: Tensor, options: CropOptions) -> Iterator[Part]:
    """Whole images, some at a time, or of each crop the rectangle outside of which there is fill."""
    if _is_by_rectangles(pixels, options):
        yield from _rectangles_with_pixels(pixels, windows, options)
        return
    height, width = options.output_size
    bytes_each = pixels.shape[1] * height * width * (options.dtype or pixels.dtype).itemsize
    at_once = max(SCRATCH_BYTES // max(bytes_each, 1), 1)
    for begin in range(0, len(pixels), at_once):
        some = slice(begin, begin + at_once)
        yield some, slice(height), slice(width), _paste_whole(pixels[some], windows[some], options)


def _rectangles_with_pixels(pixels: Tensor, windows: Tensor, options: CropOptions) -> Iterator[Part]:
    """Of each crop on a CPU."""
    rectangles = _rectangles(pixels, windows, options)
    seen = _seen_from_crop(rectangles, windows, pixels)
    for n, (left, top, right, bottom) in enumerate(rectangles.long().tolist()):
        if left < right and top < bottom:
            size, some = (bottom - top, right - left), slice(n, n + 1)
            part = crop(pixels[some], seen[some], _read(options._replace(output_size=size)))
            yield some, slice(top, bottom), slice(left, right), part


def _rectangles(pixels: Tensor, windows: Tensor, options: CropOptions) -> Tensor:
    """Boxes (N, 4) of whole pixels of the image that hold all that is not fill."""
    if options.boundary == "border":
        boxes = _first_pixels(windows)
    else:
        support = SUPPORT[options.interpolation]
        edges = boxes_from_windows(windows)
        first, last = edges[:, :2], edges[:, 2:]
        pixel = (last - first) / windows.new_tensor(pixels.shape[:-3:-1])
        reach = pixel * (support - 0.5) + support
        boxes = torch.cat(((first - reach).floor(), (last + reach).ceil()), -1)
    whole = _whole(windows, options.output_size)
    finite = _seen_from_crop(whole, windows, pixels).isfinite().all(-1, keepdim=True)
    return torch.where(finite, boxes.clamp(min=0).minimum(whole[:, 2:].repeat(1, 2)), whole)


def _first_pixels(windows: Tensor) -> Tensor:
    """Of each edge the first pixel whose centre is at or behind it; (N, 4)."""
    return (boxes_from_windows(windows) - 0.5).ceil()


def _whole(windows: Tensor, size: Sequence[int]) -> Tensor:
    """The image as a box, for each of the windows, without a copy from the host."""
    height, width = size
    zero = torch.zeros_like(windows[:, 0])
    return torch.stack((zero, zero, zero + width, zero + height), -1)


def _seen_from_crop(boxes: Tensor, windows: Tensor, pixels: Tensor) -> Tensor:
    """Boxes of images as windows of crops: a crop of these is what is pasted there."""
    height, width = pixels.shape[-2:]
    return windows_from_boxes(boxes_to_crop(boxes, windows, (height, width)))


def _read(options: CropOptions) -> CropOptions:
    """The options of the crop: what continues at its edges is not filled."""
    return options._replace(fill=None) if options.boundary == "border" else options


def _outside(options: CropOptions, pixels: Tensor) -> Tensor:
    """The fill, (1 | C, 1, 1)."""
    return pixels.new_tensor(_fill_values(options, pixels.dtype))[:, None, None]


def _fill_values(options: CropOptions, dtype: torch.dtype) -> tuple[float, ...]:
    """The fill, as crops of this dtype have it."""
    fill = options.fill or (0.0,)
    return tuple(min(max(round(value), 0), 255) for value in fill) if dtype == torch.uint8 else fill
