# SPDX-License-Identifier: BSD-3-Clause
"""Windows from boxes as others write them, and back.

A window is ``tx, ty, tw, th``, centre and half sides in pixels, pixel ``i`` covering ``[i, i + 1)``: see
:func:`racnn_ops.attention_crop`. All functions are differentiable and compile; boxes may have any leading
shape, (B, 4) or (B, K, 4) for ``attention_crop``. Windows are float64 of float64 boxes, otherwise float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ._arguments import check_positive, check_size, check_tensor
from ._lists import joined

__all__ = [
    "boxes_from_windows",
    "boxes_to_crop",
    "boxes_to_image",
    "letterbox",
    "theta_from_windows",
    "windows_from_boxes",
    "windows_from_rois",
    "windows_from_theta",
]

FORMATS = ("xyxy", "xywh", "cxcywh")


def windows_from_boxes(
    boxes: Tensor,
    format: str | None = None,
    size: int | Sequence[int] | None = None,
    *,
    align_corners: bool = False,
    output_size: int | Sequence[int] | None = None,
) -> Tensor:
    """The windows of boxes.

    Args:
        boxes (Tensor[..., 4]): floating or integer; a ``torchvision.tv_tensors.BoundingBoxes`` brings its
            format along.
        format (str, optional): ``"xyxy"``, left, top, right, bottom (the default); ``"xywh"``, left, top,
            width, height; or ``"cxcywh"``, centre, width, height.
        size (int or (int, int), optional): ``H, W`` of the images, where boxes are relative to them: 1 is the
            right or lower edge. By default boxes are in pixels.
        align_corners (bool): whether a box's edges are the centres of its outermost samples, and coordinates
            count pixels' centres: 0 is the centre of the first pixel, and with ``size`` 1 that of the last
            (``kornia.geometry.transform.crop_by_boxes``, ``tf.image.crop_and_resize``). By default edges are
            edges (``roi_align(aligned=True)``, slices).
        output_size (int or (int, int), optional): ``h, w`` of the crops, needed with ``align_corners``: how
            far a window reaches beyond its samples; at least 2 x 2.

    Returns:
        Tensor[..., 4]: ``tx, ty, tw, th``.

    Example:
        >>> windows_from_boxes(torch.tensor([10.0, 20.0, 30.0, 60.0]))
        tensor([20., 40., 10., 20.])
        >>> windows_from_boxes(torch.tensor([0.5, 0.5, 1.0, 0.5]), "cxcywh", size=(48, 64))
        tensor([32., 24., 32., 12.])
    """
    _check_boxes(boxes)
    x, y, width, height = _centred(_as_floats(boxes), _format_of(boxes, format)).unbind(-1)
    if size is not None:
        full_height, full_width = (side - align_corners for side in check_size("size", size))
        x, y, width, height = x * full_width, y * full_height, width * full_width, height * full_height
    return _window(x, y, width, height, align_corners, output_size)


def windows_from_rois(
    rois: Tensor | Sequence[Tensor], *, spatial_scale: float = 1.0, aligned: bool = True
) -> tuple[Tensor, Tensor]:
    """The windows of boxes as ``torchvision.ops.roi_align`` takes them, and of which image each is.

    Args:
        rois (Tensor[N, 5] or list of Tensor[K, 4]): the number of an image, left, top, right, bottom; or
            left, top, right, bottom, a tensor for each image.
        spatial_scale (float): of the boxes, to pixels of the images: 1/16 for boxes in pixels of what a
            feature map of stride 16 was made from.
        aligned (bool): as given to ``roi_align``: whether edges are edges. Otherwise windows lie half a pixel
            further right and down, and are a pixel wide and high at least. ``roi_align``'s default is False.

    Returns:
        Tensor[N, 4], Tensor[N]: ``tx, ty, tw, th``, and int64, the ``windows`` and ``image_index`` of
        :func:`racnn_ops.attention_crop`.

    Example:
        >>> of_first = torch.tensor([[0.0, 0.0, 4.0, 2.0]])
        >>> of_second = torch.tensor([[2.0, 2.0, 4.0, 8.0], [1.0, 1.0, 2.0, 2.0]])
        >>> windows, index = windows_from_rois([of_first, of_second])
        >>> windows[1], index
        (tensor([3., 5., 1., 3.]), tensor([0, 1, 1]))
    """
    scale = check_positive("spatial_scale", spatial_scale, 0.0, math.inf)
    if not isinstance(aligned, bool):
        raise TypeError(f"aligned must be True or False, got {aligned!r}")
    if not isinstance(rois, (list, tuple)):
        check_tensor("rois", rois)
        assert isinstance(rois, Tensor)
        if rois.dim() != 2 or rois.shape[1] != 5:
            raise ValueError(f"rois must have shape (N, 5) or be a list of (K, 4), got {tuple(rois.shape)}")
        boxes, index = rois[:, 1:], rois[:, 0].detach().long()
    else:
        if not rois:
            raise ValueError("rois must be a list of one tensor for each image, got an empty one")
        for at, own in enumerate(rois):
            check_tensor(f"rois[{at}]", own)
            if own.dim() != 2 or own.shape[1] != 4:
                raise ValueError(f"rois[{at}] must have shape (K, 4), got {tuple(own.shape)}")
        boxes, index = joined(rois)
    windows = windows_from_boxes(boxes * scale)
    if not aligned:
        x, y, half_width, half_height = windows.unbind(-1)
        # Its windows begin at the same corner, however small.
        grown_x, grown_y = half_width.clamp(min=0.5), half_height.clamp(min=0.5)
        x, y = x + 0.5 + (grown_x - half_width), y + 0.5 + (grown_y - half_height)
        windows = torch.stack((x, y, grown_x, grown_y), -1)
    return windows, index


def boxes_from_windows(
    windows: Tensor, format: str = "xyxy", size: int | Sequence[int] | None = None
) -> Tensor:
    """The boxes of windows, in pixels or, with ``size`` (``H, W``), relative to the images.

    Args:
        windows (Tensor[..., 3] or Tensor[..., 4]): ``tx, ty, tl`` or ``tx, ty, tw, th``.
        format (str): as in :func:`windows_from_boxes`.
        size (int or (int, int), optional): as there.

    Returns:
        Tensor[..., 4]: of the windows' dtype.

    Example:
        >>> boxes_from_windows(torch.tensor([20.0, 40.0, 10.0, 20.0]))
        tensor([10., 20., 30., 60.])
    """
    check_tensor("windows", windows)
    x, y, half_x, half_y = _parts(windows)
    if size is not None:
        height, width = check_size("size", size)
        x, y, half_x, half_y = x / width, y / height, half_x / width, half_y / height
    format = _check_format(format)
    if format == "xyxy":
        return torch.stack((x - half_x, y - half_y, x + half_x, y + half_y), -1)
    if format == "xywh":
        return torch.stack((x - half_x, y - half_y, 2 * half_x, 2 * half_y), -1)
    return torch.stack((x, y, 2 * half_x, 2 * half_y), -1)


def windows_from_theta(
    theta: Tensor,
    size: int | Sequence[int],
    *,
    align_corners: bool = False,
    output_size: int | Sequence[int] | None = None,
) -> Tensor:
    """The windows of axis-aligned affine matrices, as ``torch.nn.functional.affine_grid`` takes them.

    Args:
        theta (Tensor[..., 2, 3]): ``[[sx, 0, cx], [0, sy, cy]]``; the two numbers in the place of zeros are
            not looked at, and ``sx`` and ``sy`` must be positive: a window does not mirror or rotate.
        size (int or (int, int)): ``H, W`` of the images.
        align_corners (bool): as given to ``affine_grid`` and ``grid_sample``.
        output_size (int or (int, int), optional): ``h, w`` of the crops, needed with ``align_corners``.

    Returns:
        Tensor[..., 4]: ``tx, ty, tw, th``, which ``attention_crop`` samples where ``grid_sample`` does.
    """
    check_tensor("theta", theta)
    if theta.dim() < 2 or theta.shape[-2:] != (2, 3):
        raise ValueError(f"theta must have shape (..., 2, 3), got {tuple(theta.shape)}")
    theta = _as_floats(theta)
    height, width = (side - align_corners for side in check_size("size", size))
    x, y = (theta[..., 0, 2] + 1) / 2 * width, (theta[..., 1, 2] + 1) / 2 * height
    return _window(x, y, theta[..., 0, 0] * width, theta[..., 1, 1] * height, align_corners, output_size)


def theta_from_windows(windows: Tensor, size: int | Sequence[int]) -> Tensor:
    """The matrices with which ``affine_grid`` and ``grid_sample(align_corners=False)`` sample the windows.

    Args:
        windows (Tensor[..., 3] or Tensor[..., 4]): ``tx, ty, tl`` or ``tx, ty, tw, th``.
        size (int or (int, int)): ``H, W`` of the images.

    Returns:
        Tensor[..., 2, 3]: of the windows' dtype.
    """
    check_tensor("windows", windows)
    height, width = check_size("size", size)
    x, y, half_x, half_y = _parts(windows)
    zero = torch.zeros_like(x)
    rows = (half_x * 2 / width, zero, x * 2 / width - 1), (zero, half_y * 2 / height, y * 2 / height - 1)
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def letterbox(
    size: int | Sequence[int],
    output_size: int | Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """The window that holds a whole image in the middle, in the proportions of the crop.

    ``attention_crop(images, letterbox(...).expand(B, 4), output_size, fill=114, antialias=True)`` is the
    letterbox of object detectors; :func:`boxes_to_image` brings what is found in the crop back.

    Args:
        size (int or (int, int)): ``H, W`` of the image.
        output_size (int or (int, int)): ``h, w`` of the crop.
        dtype (torch.dtype): of the window.
        device (torch.device, optional): of the window.

    Returns:
        Tensor[4]: ``tx, ty, tw, th``.

    Example:
        >>> letterbox((480, 640), 320)
        tensor([320., 240., 320., 320.])
    """
    height, width = check_size("size", size)
    out_height, out_width = check_size("output_size", output_size)
    pixels = max(height / out_height, width / out_width)  # of the image, for one of the crop
    numbers = width / 2, height / 2, out_width * pixels / 2, out_height * pixels / 2
    return torch.tensor(numbers, dtype=dtype, device=device)


def boxes_to_image(boxes: Tensor, windows: Tensor, output_size: int | Sequence[int]) -> Tensor:
    """Boxes found in crops, in the pixels of the images.

    Args:
        boxes (Tensor[..., 4]): left, top, right, bottom, in pixels of the crops.
        windows (Tensor[..., 3] or Tensor[..., 4]): of the crops, of a shape that broadcasts.
        output_size (int or (int, int)): ``h, w`` of the crops.

    Returns:
        Tensor[..., 4]: left, top, right, bottom.

    Example:
        >>> boxes_to_image(torch.tensor([0.0, 40.0, 320.0, 280.0]), letterbox((480, 640), 320), 320)
        tensor([  0.,   0., 640., 480.])
    """
    corner, scale = _map_of(boxes, windows, output_size)
    return corner + _as_floats(boxes) * scale


def boxes_to_crop(boxes: Tensor, windows: Tensor, output_size: int | Sequence[int]) -> Tensor:
    """Boxes in images, in the pixels of the crops: the inverse of :func:`boxes_to_image`."""
    corner, scale = _map_of(boxes, windows, output_size)
    return (_as_floats(boxes) - corner) / scale


def _map_of(boxes: Tensor, windows: Tensor, output_size: int | Sequence[int]) -> tuple[Tensor, Tensor]:
    """Where the crop's corner lies, and how many of the image's pixels one of the crop's is; (..., 4)."""
    _check_boxes(boxes)
    check_tensor("windows", windows)
    height, width = check_size("output_size", output_size)
    x, y, half_x, half_y = _parts(windows)
    corner = torch.stack((x - half_x, y - half_y), -1)
    scale = torch.stack((half_x * 2 / width, half_y * 2 / height), -1)
    return torch.cat((corner, corner), -1), torch.cat((scale, scale), -1)


def _window(
    x: Tensor,
    y: Tensor,
    width: Tensor,
    height: Tensor,
    align_corners: bool,
    output_size: int | Sequence[int] | None,
) -> Tensor:
    if not isinstance(align_corners, bool):
        raise TypeError(f"align_corners must be True or False, got {align_corners!r}")
    if not align_corners:
        return torch.stack((x, y, width / 2, height / 2), -1)
    if output_size is None:
        raise ValueError("output_size must be given with align_corners=True, got None")
    rows, columns = check_size("output_size", output_size)
    if rows < 2 or columns < 2:
        raise ValueError(f"output_size must be at least 2 x 2 with align_corners=True, got {output_size!r}")
    # The outermost samples lie half an output inside of the window.
    half_x, half_y = width / 2 * (columns / (columns - 1)), height / 2 * (rows / (rows - 1))
    return torch.stack((x + 0.5, y + 0.5, half_x, half_y), -1)


def _centred(boxes: Tensor, format: str) -> Tensor:
    """As ``"cxcywh"``."""
    if format == "cxcywh":
        return boxes
    first, second = boxes[..., :2], boxes[..., 2:]
    if format == "xywh":
        return torch.cat((first + second / 2, second), -1)
    return torch.cat(((first + second) / 2, second - first), -1)


def _as_floats(tensor: Tensor) -> Tensor:
    # Exported, tensors are of a subclass that has to stay: it makes the graph.
    is_plain = type(tensor) is Tensor or torch.compiler.is_exporting()
    plain = tensor if is_plain else tensor.as_subclass(Tensor)
    return plain if plain.dtype == torch.float64 else plain.float()


def _parts(windows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if windows.dim() < 1 or windows.shape[-1] not in (3, 4):
        raise ValueError(
            f"windows must have shape (..., 3) for tx, ty, tl or (..., 4) for tx, ty, tw, th, "
            f"got {tuple(windows.shape)}"
        )
    return windows[..., 0], windows[..., 1], windows[..., 2], windows[..., -1]


def _check_boxes(boxes: Tensor) -> None:
    check_tensor("boxes", boxes)
    if boxes.dim() < 1 or boxes.shape[-1] != 4:
        raise ValueError(f"boxes must have shape (..., 4), got {tuple(boxes.shape)}")
    if boxes.dtype == torch.bool or boxes.is_complex():
        raise TypeError(f"boxes must be floating or integer, got {boxes.dtype}")


def _format_of(boxes: Tensor, format: str | None) -> str:
    own = getattr(boxes, "format", None)
    if own is None:
        return "xyxy" if format is None else _check_format(format)
    name = str(getattr(own, "value", own)).lower()
    if name not in FORMATS:
        raise ValueError(f"boxes must be of format {', '.join(FORMATS)}, got BoundingBoxes of {name!r}")
    if format is not None and _check_format(format) != name:
        raise ValueError(f"format must be that of the BoundingBoxes, {name!r}, or None, got {format!r}")
    return name


def _check_format(format: str) -> str:
    if not isinstance(format, str) or format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(map(repr, FORMATS))}, got {format!r}")
    return format
