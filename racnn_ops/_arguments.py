# SPDX-License-Identifier: BSD-3-Clause
"""The checks of the arguments of :func:`racnn_ops.attention_crop`.

Every error names the argument, what it was and what is allowed, and is raised before anything is computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from ._options import ENERGIES, IMAGE_DTYPES, SELECTED_DTYPES, Boxcar, CropOptions

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos3", "area")
BOUNDARIES = ("zeros", "border", "clip", "window")
WINDOW_GRADS = ("exact", "boxcar")
MAX_SIDE = 2**30
# Of options: far beyond use, and far enough inside float32 that the kernels' products of them are finite.
MAX_STEEPNESS = MAX_BOXCAR = 1e9
MAX_STATISTIC = 1e15
DEFAULT_BOXCAR = Boxcar()


def check_options(
    output_size: int | Sequence[int],
    interpolation: str,
    antialias: bool,
    mask_steepness: float | None,
    boundary: str,
    fill: float | Sequence[float] | None,
    window_grad: str,
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
    dtype: torch.dtype | None,
    memory_format: torch.memory_format | None,
    boxcar: Boxcar | None,
) -> CropOptions:
    """What can be checked without tensors."""
    size = check_size("output_size", output_size)
    if interpolation != "bilinear" or antialias is not False:
        antialias = _check_filter(interpolation, antialias)
    if mask_steepness is not None:
        # The kernels' 0 is "no mask".
        mask_steepness = check_positive(
            "mask_steepness", mask_steepness, 2.0**-126, MAX_STEEPNESS, " or None"
        )
    check_choice("boundary", boundary, BOUNDARIES)
    if fill is not None:
        fill = _check_fill(fill, boundary, mask_steepness, interpolation)
    check_choice("window_grad", window_grad, WINDOW_GRADS)
    if mean is not None:
        mean = tuple(check_number("mean", m, MAX_STATISTIC) for m in _numbers("mean", mean))
    if std is not None:
        std = tuple(check_positive("std", s, 1 / MAX_STATISTIC, MAX_STATISTIC) for s in _numbers("std", std))
    boxcar = DEFAULT_BOXCAR if boxcar is None else _check_boxcar(boxcar)
    if dtype is not None:
        _check_dtype(dtype, interpolation)
    if memory_format is not None:
        _check_memory_format(memory_format)
    return CropOptions(
        *(size, interpolation, antialias, mask_steepness, boundary, fill),
        *(window_grad, mean, std, dtype, memory_format, boxcar),
    )


def check_images(
    images: Tensor, options: CropOptions, name: str = "images", form: str = "(B, C, H, W)"
) -> None:
    """What depends on images, a batch or one (C, H, W); ``name`` is what they are to the caller."""
    check_tensor(name, images)
    if images.dtype not in IMAGE_DTYPES:
        _check_selected(images.dtype, options, name)
    shape = images.shape
    if len(shape) != form.count(",") + 1:
        raise ValueError(f"{name} must have shape {form}, got {_shape(images)}")
    if shape[-2] < 1 or shape[-1] < 1:
        raise ValueError(f"{name} must be at least 1 pixel high and wide, got {_shape(images)}")
    # Not under torch.compile or export, where it would only become a guard on a symbolic size.
    if not torch.compiler.is_compiling() and (shape[-2] > MAX_SIDE or shape[-1] > MAX_SIDE):
        raise ValueError(f"{name} must not exceed {MAX_SIDE} pixels a side, got {_shape(images)}")
    if not (options.mean is None and options.std is None and options.dtype is None and options.fill is None):
        _check_conversion(images, options)


def check_arguments(
    images: Any,
    windows: Any,
    options: CropOptions,
    flip: Tensor | None = None,
    image_index: Tensor | None = None,
    name: str = "images",
) -> None:
    """What depends on the tensors, or lists of them; ``name`` is what the images are to the caller."""
    if isinstance(images, (list, tuple)):
        _check_list(images, windows, options, image_index, name)
        first, count = images[0], len(images)
    else:
        check_images(images, options, name)
        first, count = images, images.shape[0]
    shape: tuple[int, ...]
    if isinstance(windows, (list, tuple)):
        _check_window_list(windows, first, count, image_index, name)
        shape = (sum(own.shape[0] for own in windows),)
    elif image_index is not None:
        _check_windows("windows", windows, first, name, "(N, 3)", "(N, 4)")
        shape = windows.shape[:1]
        _check_of_windows("image_index", image_index, (torch.int32, torch.int64), shape, first.device)
    else:
        _check_windows("windows", windows, first, name, "(B, 3) or (B, K, 3)", "(B, 4) or (B, K, 4)", (2, 3))
        shape = windows.shape[:-1]
        if shape[0] != count:
            raise ValueError(
                f"windows must have the batch size of {name}: got {_shape(windows)} "
                f"for {name} {_shape(first)}"
            )
    if flip is not None:
        _check_of_windows("flip", flip, (torch.bool,), shape, first.device)


def _check_list(
    images: Sequence[Tensor], windows: Any, options: CropOptions, image_index: Tensor | None, name: str
) -> None:
    if not images:
        raise ValueError(f"{name} must be a list of at least one tensor, got {images!r}")
    for at, image in enumerate(images):
        check_images(image, options, f"{name}[{at}]", "(C, H, W)")
        for what in ("dtype", "device"):
            if getattr(image, what) != getattr(images[0], what):
                raise ValueError(
                    f"{name} must share one {what}: got {getattr(image, what)} in {name}[{at}] behind "
                    f"{getattr(images[0], what)}"
                )
        if image.shape[0] != images[0].shape[0]:
            raise ValueError(
                f"{name} must have the same number of channels: got {_shape(image)} in {name}[{at}] behind "
                f"{_shape(images[0])}"
            )
    if isinstance(windows, Tensor) and image_index is None:
        raise ValueError(
            f"windows must be a list with a list of {name}, or have an image_index, got a tensor "
            f"{_shape(windows)}"
        )
    if image_index is not None and torch.compiler.is_compiling():
        raise ValueError(f"image_index must be None with a list of {name} in graphs: give windows as a list")


def _check_window_list(
    windows: Sequence[Tensor], images: Tensor, count: int, image_index: Tensor | None, name: str
) -> None:
    if image_index is not None:
        raise ValueError("image_index must be None with a list of windows, one tensor for each image")
    for at, own in enumerate(windows):
        check_tensor(f"windows[{at}]", own)
    if not windows or len(windows) != count:
        raise ValueError(
            f"windows must be a list of one tensor for each of the {name}, {count}, got {len(windows)}"
        )
    for at, own in enumerate(windows):
        _check_windows(f"windows[{at}]", own, images, name, "(K, 3)", "(K, 4)")
        if own.shape[1] != windows[0].shape[1]:
            raise ValueError(
                f"windows must all hold 3 or all hold 4 numbers: got {_shape(own)} in windows[{at}] behind "
                f"{_shape(windows[0])}"
            )


def _check_windows(
    what: str,
    windows: Any,
    images: Tensor,
    name: str,
    three: str,
    four: str,
    dims: tuple[int, ...] = (2,),
) -> None:
    check_tensor(what, windows)
    expected = torch.float64 if images.dtype == torch.float64 else torch.float32
    if windows.dtype != expected:
        raise TypeError(
            f"{what} must be {_name(expected)} with {_name(images.dtype)} {name}, got {windows.dtype}; "
            f"use {what}.to(torch.{_name(expected)})"
        )
    if windows.dim() not in dims or windows.shape[-1] not in (3, 4):
        raise ValueError(
            f"{what} must have shape {three} for tx, ty, tl, {four} for tx, ty, tw, th, got {_shape(windows)}"
        )
    if images.device != windows.device:
        raise ValueError(
            f"{what} must be on the device of {name}: got {windows.device} for {name} on {images.device}"
        )


def _check_of_windows(
    name: str, values: Any, dtypes: tuple[torch.dtype, ...], shape: Sequence[int], device: torch.device
) -> None:
    """One value for each window, of one of these dtypes."""
    check_tensor(name, values)
    if values.dtype not in dtypes:
        raise TypeError(f"{name} must be {' or '.join(map(_name, dtypes))}, got {values.dtype}")
    if tuple(values.shape) != tuple(shape):
        raise ValueError(f"{name} must have one value for each window, {tuple(shape)}, got {_shape(values)}")
    if values.device != device:
        raise ValueError(
            f"{name} must be on the device of windows: got {values.device} for windows on {device}"
        )


def _check_conversion(images: Tensor, options: CropOptions) -> None:
    normalised = options.mean is not None or options.std is not None
    if options.dtype == torch.uint8 and (images.dtype != torch.uint8 or normalised):
        what = "normalised by mean and std" if normalised else _name(images.dtype)
        raise ValueError(f"dtype may be uint8 only for uint8 images without mean and std, got images {what}")
    if options.dtype in SELECTED_DTYPES and options.dtype != images.dtype:
        name = _name(options.dtype)
        raise ValueError(f"dtype may be {name} only for {name} images, got images {_name(images.dtype)}")
    for name, values in (("mean", options.mean), ("std", options.std), ("fill", options.fill)):
        channels = images.shape[-3]
        if values is not None and len(values) not in (1, channels):
            raise ValueError(
                f"{name} must be one number or one per channel ({channels}), got {len(values)} numbers"
            )
    if options.fill is not None and options.interpolation == "nearest":
        result = options.dtype or (torch.float32 if normalised else images.dtype)
        for value in options.fill:
            _check_selected_fill(value, images.dtype, result)


def _check_selected(dtype: torch.dtype, options: CropOptions, images: str) -> None:
    """Images whose pixels are selected, not computed with: only what leaves them as they are."""
    nearest, name = options.interpolation == "nearest", _name(dtype)
    if not nearest or dtype not in SELECTED_DTYPES:
        allowed = (*IMAGE_DTYPES, *SELECTED_DTYPES) if nearest else IMAGE_DTYPES
        hint = f"; integer and bool {images} need interpolation='nearest'" if dtype in SELECTED_DTYPES else ""
        raise TypeError(f"{images} must be {_names(allowed)}, got {dtype}{hint}")
    for option in ("mask_steepness", "mean", "std"):
        if getattr(options, option) is not None:
            raise ValueError(f"{option} must be None for {name} images, got {getattr(options, option)!r}")
    if options.dtype not in (None, dtype):
        raise ValueError(f"dtype must be {name} or None for {name} images, got {options.dtype}")


def _check_selected_fill(value: float, images: torch.dtype, result: torch.dtype) -> None:
    """A fill among selected pixels: of integers and bools one of their values."""
    if result.is_floating_point or images.is_floating_point:
        check_number("fill", value, MAX_STATISTIC)
    elif result == torch.bool:
        if value not in (0, 1):
            raise ValueError(f"fill must be 0 or 1, False or True, for bool images, got {_shown(value)}")
    else:
        check_number("fill", value)
        limits = torch.iinfo(result)
        if value != int(value) or not limits.min <= value <= limits.max:
            raise ValueError(
                f"fill must be a whole number within [{limits.min}, {limits.max}] for {_name(result)} crops "
                f"with interpolation='nearest', got {_shown(value)}"
            )


def is_channels_last(images: Tensor) -> bool:
    """The memory format that a result takes over; the same rule as in ``csrc/torch/tensors.h``."""
    if images.stride(1) != 1:
        return False
    channels = images.shape[1]
    return bool(channels > 1 and images.stride(3) == channels)


def are_pixels_far_apart(tensor: Tensor) -> bool:
    """Each in a cache line of its own, where CPU kernels copy what they read: the rule of near_pixels.h."""
    step = tensor.stride(-1)
    if step == 1 or step * tensor.element_size() < 64 or not tensor.is_cpu or tensor.shape[-1] == 1:
        return False
    return not (step == tensor.shape[-3] and tensor.stride(-3) == 1)


def check_tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.layout is not torch.strided:
        raise TypeError(f"{name} must be a strided (dense) tensor, got layout {value.layout}")
    if value.is_nested:
        raise TypeError(f"{name} must be a strided (dense) tensor, got a nested tensor")


def check_size(name: str, size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width, from both or from one for both."""
    if not isinstance(size, tuple) and _is_int(size):
        height = width = size
    elif isinstance(size, Sequence) and len(size) == 2 and _is_int(size[0]) and _is_int(size[1]):
        height, width = size
    else:
        raise TypeError(f"{name} must be an int or a pair of ints (h, w), got {size!r}")
    if height < 1 or width < 1:  # type: ignore[operator]
        raise ValueError(f"{name} must be at least 1 x 1, got {_shown(size)}")
    if not torch.compiler.is_compiling() and (height > MAX_SIDE or width > MAX_SIDE):  # type: ignore[operator]
        raise ValueError(f"{name} must not exceed {MAX_SIDE} pixels a side, got {_shown(size)}")
    return height, width  # type: ignore[return-value]


def check_count(name: str, value: Any, least: int, otherwise: str = "") -> int:
    """A whole number of at least that much."""
    if not _is_int(value):
        raise TypeError(f"{name} must be an int{otherwise}, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}{otherwise}, got {_shown(value)}")
    return value  # type: ignore[no-any-return]


def _is_int(value: Any) -> bool:
    return type(value) is int or (isinstance(value, (Integral, torch.SymInt)) and not isinstance(value, bool))


def _check_filter(interpolation: str, antialias: bool) -> bool:
    """Whether the filter is antialiased."""
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    if not isinstance(antialias, bool):
        raise TypeError(f"antialias must be True or False, got {antialias!r}")
    if antialias and interpolation in ("nearest", "area"):
        raise ValueError(f"antialias must be False with interpolation={interpolation!r}, got True")
    return antialias or interpolation == "lanczos3"  # which has no plain form


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_number(name: str, value: Any, most: float = math.inf) -> float:
    """A number of at most that magnitude, as float."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {_shown(value)}")
    if abs(number) > most:
        raise ValueError(f"{name} must be within [{-most:g}, {most:g}], got {_shown(value)}")
    return number


def check_positive(name: str, value: Any, least: float, most: float, otherwise: str = "") -> float:
    number = check_number(name, value)
    if number <= 0:
        raise ValueError(f"{name} must be positive{otherwise}, got {_shown(value)}")
    if not least <= number <= most:
        raise ValueError(f"{name} must be within [{least:.3g}, {most:g}]{otherwise}, got {_shown(value)}")
    return number


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # Python writes no integer of more than some thousand digits
        return "one with thousands of digits"


def _check_boxcar(boxcar: Any) -> Boxcar:
    if not isinstance(boxcar, Boxcar):
        raise TypeError(f"boxcar must be a racnn_ops.Boxcar or None, got {boxcar!r}")
    check_choice("boxcar.energy", boxcar.energy, ENERGIES)
    side = boxcar.side
    return Boxcar(
        check_positive("boxcar.steepness", boxcar.steepness, 0.0, MAX_BOXCAR),
        boxcar.energy,
        check_number("boxcar.scale", boxcar.scale, MAX_BOXCAR),
        check_number("boxcar.shrink", boxcar.shrink, MAX_BOXCAR),
        None if side is None else check_positive("boxcar.side", side, 0.0, MAX_BOXCAR, " or None"),
    )


def _numbers(name: str, values: Any) -> tuple[Any, ...]:
    """``mean``, ``std`` or ``fill``, one number or several."""
    if isinstance(values, (Tensor, str, bytes, bytearray)) or not isinstance(values, (Real, Sequence)):
        raise TypeError(f"{name} must be a number or a sequence of numbers, one per channel, got {values!r}")
    return tuple(values) if isinstance(values, Sequence) else (values,)


def _check_fill(
    fill: Any, boundary: str, mask_steepness: float | None, interpolation: str
) -> tuple[float, ...]:
    if boundary != "zeros":
        raise ValueError(
            f"fill must be None with boundary={boundary!r}, where nothing outside is read, got {fill!r}"
        )
    if mask_steepness is not None:
        raise ValueError(
            "fill must be None with mask_steepness: the mask would multiply what lies outside as well, "
            f"which is not constant then, got {fill!r}"
        )
    check = _check_exact if interpolation == "nearest" else check_number
    return tuple(check("fill", value, MAX_STATISTIC) for value in _numbers("fill", fill))


def _check_exact(name: str, value: Any, most: float) -> float:
    """A number of pixels that are selected: integers as they are, which images' dtype limits later."""
    if isinstance(value, Integral):
        return value if isinstance(value, bool) else int(value)
    return check_number(name, value, most)


def _check_memory_format(memory_format: Any) -> None:
    if memory_format is not torch.contiguous_format and memory_format is not torch.channels_last:
        raise ValueError(
            "memory_format must be torch.contiguous_format, torch.channels_last or None, "
            f"got {memory_format!r}"
        )


def _check_dtype(dtype: torch.dtype, interpolation: str) -> None:
    allowed = (*IMAGE_DTYPES, *SELECTED_DTYPES) if interpolation == "nearest" else IMAGE_DTYPES
    if dtype not in allowed:
        raise TypeError(f"dtype must be {_names(allowed)} or None, got {dtype!r}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _names(dtypes: Sequence[torch.dtype]) -> str:
    return ", ".join(map(_name, dtypes))


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
