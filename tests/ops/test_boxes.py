# SPDX-License-Identifier: BSD-3-Clause
"""Windows from others' boxes: crops are what those who have such boxes compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from samples import generator
from torch import Tensor
from torch.autograd import gradcheck

from racnn_ops import attention_crop
from racnn_ops.boxes import (
    boxes_from_windows,
    boxes_to_crop,
    boxes_to_image,
    letterbox,
    theta_from_windows,
    windows_from_boxes,
    windows_from_rois,
    windows_from_theta,
)

SIZE = (24, 31)
OUT = (6, 9)
# left, top, right, bottom
XYXY = torch.tensor([[3.25, 4.5, 20.0, 17.75], [10.0, 2.0, 30.0, 22.0], [0.5, 0.25, 9.0, 23.0]])
WINDOWS = torch.tensor(
    [[11.625, 11.125, 8.375, 6.625], [20.0, 12.0, 10.0, 10.0], [4.75, 11.625, 4.25, 11.375]]
)


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 2, *SIZE, generator=generator("boxes"), dtype=torch.float64)


def converted(format: str) -> Tensor:
    first, second = XYXY[:, :2], XYXY[:, 2:]
    if format == "xyxy":
        return XYXY
    return torch.cat((first if format == "xywh" else (first + second) / 2, second - first), -1)


@pytest.mark.parametrize("format", ["xyxy", "xywh", "cxcywh"])
def test_every_format_there_and_back(format: str) -> None:
    boxes = converted(format)
    assert torch.equal(windows_from_boxes(boxes, format), WINDOWS)
    assert torch.equal(boxes_from_windows(WINDOWS, format), boxes)
    sides = torch.tensor([SIZE[1], SIZE[0]] * 2)
    torch.testing.assert_close(windows_from_boxes(boxes / sides, format, SIZE), WINDOWS)
    torch.testing.assert_close(boxes_from_windows(WINDOWS, format, SIZE), boxes / sides)
    nested = windows_from_boxes(boxes.double().expand(5, 3, 4), format)
    assert torch.equal(nested, WINDOWS.double().expand(5, 3, 4))
    assert windows_from_boxes(boxes.long(), format).dtype == torch.float32
    assert windows_from_boxes(boxes.half(), format).dtype == torch.float32


def test_squares_have_three_numbers() -> None:
    squares = torch.tensor([[10.0, 8.0, 4.0]])
    assert boxes_from_windows(squares).tolist() == [[6.0, 4.0, 14.0, 12.0]]
    assert theta_from_windows(squares, (16, 32)).tolist() == [[[0.25, 0.0, -0.375], [0.0, 0.5, 0.0]]]


def test_crops_are_roi_aligns() -> None:
    ops = pytest.importorskip("torchvision.ops")
    boxes = XYXY.double()
    theirs = ops.roi_align(images(), list(boxes.split(1)), OUT, sampling_ratio=1, aligned=True)
    torch.testing.assert_close(
        attention_crop(images(), windows_from_boxes(boxes), OUT, boundary="border"), theirs
    )


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_lists_and_numbered_boxes_are_roi_aligns(aligned: bool, scale: float) -> None:
    torchvision = pytest.importorskip("torchvision")
    options = {"spatial_scale": scale, "aligned": aligned}
    small = torch.tensor([[5.0, 6.0, 5.2, 6.3], [7.0, 7.0, 7.0, 9.0]])
    lists = [XYXY[:2].double(), small.double(), XYXY[2:].double()]
    numbered = torch.cat((torch.tensor([[2.0], [0.0], [2.0], [1.0], [1.0]]), torch.cat((XYXY, small))), 1)
    for rois in (lists, numbered.double()):
        expected = torchvision.ops.roi_align(images(), rois, OUT, sampling_ratio=1, **options)
        windows, index = windows_from_rois(rois, **options)
        found = attention_crop(images(), windows, OUT, image_index=index, boundary="border")
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("align_corners", [False, True])
def test_crops_are_grid_samples(align_corners: bool) -> None:
    theta = torch.zeros(3, 2, 3, dtype=torch.float64)
    theta[:, 0, 0], theta[:, 1, 1] = torch.tensor([0.4, 0.7, 1.2]), torch.tensor([0.6, 0.3, 0.9])
    theta[:, 0, 2], theta[:, 1, 2] = torch.tensor([0.1, -0.2, 0.3]), torch.tensor([0.0, 0.5, -0.4])
    grid = F.affine_grid(theta, (3, 2, *OUT), align_corners=align_corners)
    theirs = F.grid_sample(images(), grid, align_corners=align_corners)
    windows = windows_from_theta(theta, SIZE, align_corners=align_corners, output_size=OUT)
    torch.testing.assert_close(attention_crop(images(), windows, OUT), theirs)
    if not align_corners:
        torch.testing.assert_close(theta_from_windows(windows, SIZE), theta)


@pytest.mark.parametrize("normalised", [False, True])
def test_crops_are_kornias(normalised: bool) -> None:
    transform = pytest.importorskip("kornia.geometry.transform")
    boxes = (XYXY * 0.9).double()
    corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
    theirs = transform.crop_and_resize(images(), corners, OUT)
    if normalised:
        boxes = boxes / torch.tensor([SIZE[1] - 1, SIZE[0] - 1] * 2)
    size = SIZE if normalised else None
    windows = windows_from_boxes(boxes, size=size, align_corners=True, output_size=OUT)
    torch.testing.assert_close(attention_crop(images(), windows, OUT), theirs, rtol=1e-6, atol=1e-6)


def test_bounding_boxes_bring_their_format() -> None:
    tv_tensors = pytest.importorskip("torchvision.tv_tensors")
    for format in ("XYXY", "XYWH", "CXCYWH"):
        boxes = tv_tensors.BoundingBoxes(converted(format.lower()), format=format, canvas_size=SIZE)
        windows = windows_from_boxes(boxes)
        assert type(windows) is Tensor
        assert torch.equal(windows, WINDOWS)
    with pytest.raises(
        ValueError, match="format must be that of the BoundingBoxes, 'cxcywh', or None, got 'xyxy'"
    ):
        windows_from_boxes(boxes, "xyxy")
    rotated = tv_tensors.BoundingBoxes(torch.ones(1, 5), format="CXCYWHR", canvas_size=SIZE)
    with pytest.raises(ValueError, match=r"boxes must have shape \(..., 4\), got \(1, 5\)"):
        windows_from_boxes(rotated)


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (30, 30)])
def test_letterbox_shows_the_whole_image(size: tuple[int, int]) -> None:
    height, width = size
    out = (16, 16)
    picture = torch.rand(1, 3, height, width, generator=generator(size), dtype=torch.float64)
    window = letterbox(size, out, dtype=torch.float64)
    crops = attention_crop(picture, window.expand(1, 4), out, fill=0.25, antialias=True, boundary="zeros")
    scale = max(size) / 16
    inner = (round(height / scale), round(width / scale))
    top, left = (16 - inner[0]) // 2, (16 - inner[1]) // 2
    inside = crops[..., top : top + inner[0], left : left + inner[1]]
    expected = F.interpolate(picture, inner, mode="bilinear", antialias=True)
    torch.testing.assert_close(inside[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2])
    assert (crops[..., : max(top - 2, 0), :] == 0.25).all()
    assert (crops[..., : max(left - 2, 0)] == 0.25).all()
    box = torch.tensor([[0.0, 0.0, width, height]], dtype=torch.float64)
    in_crop = boxes_to_crop(box, window, out)
    edges = torch.tensor([[left, top, left + inner[1], top + inner[0]]], dtype=torch.float64)
    torch.testing.assert_close(in_crop, edges)
    torch.testing.assert_close(boxes_to_image(in_crop, window, out), box)


def test_differentiable_and_compiled() -> None:
    boxes = XYXY.double().requires_grad_()
    for function in (
        lambda b: windows_from_boxes(b, "xywh", SIZE),
        lambda b: windows_from_boxes(b, align_corners=True, output_size=OUT),
        lambda b: boxes_from_windows(b, "xywh", SIZE),
        lambda b: windows_from_theta(theta_from_windows(b, SIZE), SIZE),
        lambda b: boxes_to_image(b, b, OUT),
    ):
        assert gradcheck(function, boxes)
        compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(boxes), function(boxes))


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: windows_from_boxes([1, 2, 3, 4]), TypeError, "boxes must be a torch.Tensor, got list"),  # type: ignore[arg-type]
    (lambda: windows_from_boxes(XYXY[:, :3]), ValueError, "boxes must have shape (..., 4), got (3, 3)"),
    (lambda: windows_from_boxes(XYXY.bool()), TypeError, "boxes must be floating or integer, got torch.bool"),
    (
        lambda: windows_from_boxes(XYXY, "yxyx"),
        ValueError,
        "format must be one of 'xyxy', 'xywh', 'cxcywh', got 'yxyx'",
    ),
    (lambda: windows_from_boxes(XYXY, size=0), ValueError, "size must be at least 1 x 1, got 0"),
    (
        lambda: windows_from_boxes(XYXY, size=(4, 5.0)),  # type: ignore[arg-type]
        TypeError,
        "size must be an int or a pair of ints (h, w), got (4, 5.0)",
    ),
    (
        lambda: windows_from_boxes(XYXY, align_corners=True),
        ValueError,
        "output_size must be given with align_corners=True, got None",
    ),
    (
        lambda: windows_from_boxes(XYXY, align_corners=True, output_size=(1, 4)),
        ValueError,
        "output_size must be at least 2 x 2 with align_corners=True, got (1, 4)",
    ),
    (
        lambda: windows_from_boxes(XYXY, align_corners=1),  # type: ignore[arg-type]
        TypeError,
        "align_corners must be True or False, got 1",
    ),
    (
        lambda: boxes_from_windows(torch.ones(2, 5)),
        ValueError,
        "windows must have shape (..., 3) for tx, ty, tl or (..., 4) for tx, ty, tw, th, got (2, 5)",
    ),
    (
        lambda: windows_from_rois(XYXY[0]),
        ValueError,
        "rois must have shape (N, 5) or be a list of (K, 4), got (4,)",
    ),
    (
        lambda: windows_from_rois([XYXY, XYXY[:, :3]]),
        ValueError,
        "rois[1] must have shape (K, 4), got (3, 3)",
    ),
    (
        lambda: windows_from_rois([]),
        ValueError,
        "rois must be a list of one tensor for each image, got an empty one",
    ),
    (
        lambda: windows_from_rois([XYXY], spatial_scale=0),
        ValueError,
        "spatial_scale must be positive, got 0",
    ),
    (
        lambda: windows_from_rois([XYXY], aligned=None),  # type: ignore[arg-type]
        TypeError,
        "aligned must be True or False, got None",
    ),
    (
        lambda: windows_from_theta(torch.ones(2, 2), 4),
        ValueError,
        "theta must have shape (..., 2, 3), got (2, 2)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors_name_the_argument(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == message
