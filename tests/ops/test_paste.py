# SPDX-License-Identifier: BSD-3-Clause
"""Crops pasted back: what grid_sample makes of Mask R-CNN's masks, and the inverse of a crop."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from samples import FILTERS, each_filter, generator
from torch import Tensor
from torch.autograd import gradcheck

from racnn_ops import attention_crop, paste
from racnn_ops.boxes import boxes_from_windows

SIZE = (21, 34)
OUT = (6, 9)
# Inside, over an edge, smaller than the crop, the whole image, a thin one; then outside, and without a side.
WINDOWS = torch.tensor(
    [
        [14.3, 10.2, 8.1, 5.7],
        [31.2, 2.4, 9.3, 7.7],
        [20.1, 7.3, 2.2, 1.9],
        [17.0, 10.5, 17.0, 10.5],
        [9.6, 11.2, 0.3, 6.4],
    ],
    dtype=torch.float64,
)
# No position on a pixel's centre or edge, where a crop has a kink or a jump.
GENERIC = WINDOWS * 1.0137 + 0.0071
EMPTY = torch.tensor(
    [[80.0, 10.0, 5.0, 5.0], [10.5, 10.5, 0.0, 4.0], [10.5, 10.5, 4.0, -1.0], [10.5, 10.5, 1e-30, 4.0]]
)
each_edges = pytest.mark.parametrize("edges", ["soft", "hard"])
PASTE = sys.modules["racnn_ops.paste"]


@pytest.fixture(params=["whole images", "rectangles"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a CPU computes where nobody differentiates, by size; here each, for all sizes."""
    monkeypatch.setattr(PASTE, "NUMBERS_OF_A_CALL", -1 if request.param == "rectangles" else 2**62)
    return str(request.param)


each_way = pytest.mark.usefixtures("way")


def crops(count: int = len(WINDOWS), channels: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    values = torch.rand(count, channels, *OUT, generator=generator("paste"), dtype=torch.float64)
    return (values * 255).round().to(dtype) if dtype == torch.uint8 else values.to(dtype)


def pasted_by_grid_sample(pixels: Tensor, windows: Tensor) -> Tensor:
    """As Mask R-CNN's implementations do: a grid over the whole image."""
    left, top, right, bottom = boxes_from_windows(windows)[:, :, None].unbind(1)
    x, y = (torch.arange(side, dtype=windows.dtype) + 0.5 for side in (SIZE[1], SIZE[0]))
    x, y = (x - left) / (right - left) * 2 - 1, (y - top) / (bottom - top) * 2 - 1
    shape = len(windows), *SIZE
    grid = torch.stack((x[:, None, :].expand(shape), y[:, :, None].expand(shape)), -1)
    return F.grid_sample(pixels, grid, align_corners=False)


def inside(windows: Tensor) -> Tensor:
    """(N, 1, H, W): whether a pixel's centre lies in the window."""
    left, top, right, bottom = boxes_from_windows(windows)[:, :, None, None].unbind(1)
    x, y = torch.arange(SIZE[1]) + 0.5, (torch.arange(SIZE[0]) + 0.5)[:, None]
    return ((x >= left) & (x < right) & (y >= top) & (y < bottom)).unsqueeze(1)


@each_way
def test_pastes_as_grid_sample_does() -> None:
    expected = pasted_by_grid_sample(crops(), WINDOWS)
    torch.testing.assert_close(paste(crops(), WINDOWS, SIZE), expected, rtol=1e-12, atol=1e-12)
    squares = WINDOWS[:3, :3]
    torch.testing.assert_close(
        paste(crops(3), squares, SIZE), pasted_by_grid_sample(crops(3), squares[:, [0, 1, 2, 2]])
    )
    windows = WINDOWS.float().expand(2, *WINDOWS.shape)
    several = crops(2 * len(WINDOWS), dtype=torch.float32).unflatten(0, (2, -1))
    images = paste(several, windows, SIZE)
    assert images.shape == (2, len(WINDOWS), 2, *SIZE)
    torch.testing.assert_close(
        images.flatten(0, 1).double(),
        pasted_by_grid_sample(several.flatten(0, 1).double(), windows.flatten(0, 1).double()),
        rtol=1e-4,
        atol=1e-4,
    )


@each_way
@pytest.mark.parametrize("windows", [WINDOWS, EMPTY.double()], ids=["windows", "empty"])
def test_fill_is_what_lies_around(windows: Tensor) -> None:
    fill = torch.tensor([0.5, -2.0], dtype=torch.float64)[:, None, None]
    count = len(windows)
    shown = paste(torch.ones(count, 2, *OUT, dtype=torch.float64), windows, SIZE)
    expected = paste(crops(count), windows, SIZE) + (1 - shown) * fill
    torch.testing.assert_close(paste(crops(count), windows, SIZE, fill=(0.5, -2.0)), expected)


@each_way
@pytest.mark.parametrize("fill", [0.25, (0.25, -1.0)], ids=str)
def test_hard_edges_are_those_of_the_window(fill: Any) -> None:
    """Where positions are clamped to the outermost pixels' centres, grid_sample's border."""
    left, top, right, bottom = boxes_from_windows(WINDOWS)[:, :, None].unbind(1)
    x, y = (torch.arange(side, dtype=torch.float64) + 0.5 for side in (SIZE[1], SIZE[0]))
    x, y = (x - left) / (right - left) * 2 - 1, (y - top) / (bottom - top) * 2 - 1
    shape = len(WINDOWS), *SIZE
    grid = torch.stack((x[:, None, :].expand(shape), y[:, :, None].expand(shape)), -1)
    continued = F.grid_sample(crops(), grid, align_corners=False, padding_mode="border")
    around = torch.tensor(fill, dtype=torch.float64).expand(2)[:, None, None]
    expected = torch.where(inside(WINDOWS), continued, around)
    torch.testing.assert_close(paste(crops(), WINDOWS, SIZE, edges="hard", fill=fill), expected)
    low, windows = crops(dtype=torch.float32), WINDOWS.float()
    found, plain = (paste(low, windows, SIZE, edges="hard", fill=value) for value in (fill, 0))
    where = inside(windows).expand_as(found)
    assert torch.equal(found[where], plain[where])


@each_way
def test_crops_come_back() -> None:
    """A crop's pixels are whole blocks of the image's; the mean of each is the pixel."""
    windows = torch.tensor([[13.5, 9.0, 13.5, 9.0], [16.5, 8.0, 4.5, 3.0]], dtype=torch.float64)
    found = attention_crop(paste(crops(2), windows, SIZE, interpolation="nearest"), windows, OUT)
    assert torch.equal(found, crops(2))
    linear = paste(crops(2), windows, SIZE, edges="hard")
    torch.testing.assert_close(attention_crop(linear, windows, OUT), crops(2))


@each_way
def test_windows_that_meet_tile_an_image() -> None:
    """Whole slices, and cuts through pixels, each of which belongs to one window."""
    image = torch.rand(1, 3, *SIZE, generator=generator("tiles"), dtype=torch.float64)
    cuts_x, cuts_y = (0.0, 11.0, 19.0, 34.0), (0.0, 8.0, 21.0)
    total = torch.zeros_like(image)
    for left, right in pairwise(cuts_x):
        for top, bottom in pairwise(cuts_y):
            slice = image[..., int(top) : int(bottom), int(left) : int(right)]
            box = (left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2
            total += paste(slice, image.new_tensor([box]), SIZE, edges="hard")
    torch.testing.assert_close(total, image)
    x = (0.0, 10.5, 19.3, 34.0)
    windows = torch.tensor([[(a + b) / 2, 10.5, (b - a) / 2, 10.5] for a, b in pairwise(x)])
    ones = torch.ones(1, 3, 1, *OUT)
    assert torch.equal(paste(ones, windows[None], SIZE, edges="hard", reduce="sum"), torch.ones(1, 1, *SIZE))


# Windows, and in the last row one with NaN, and one that reaches the image from far away.
MORE = torch.cat(
    (WINDOWS, EMPTY.double(), torch.tensor([[1e9, 5.0, 1e9, 5.0], [float("nan"), 5.0, 5.0, 5.0]]).double())
)


@each_way
@each_filter
@each_edges
def test_threshold_is_a_comparison(options: dict[str, Any], edges: str) -> None:
    """Rectangles are computed, the rest is known: it must be all that is not fill."""
    every = crops(len(MORE))
    for fill in (0.0, (0.75, 0.25)):
        found = paste(every, MORE, SIZE, edges=edges, fill=fill, threshold=0.5, **options)
        expected = paste(every, MORE, SIZE, edges=edges, fill=fill, **options)
        assert found.dtype == torch.bool
        different = (found != (expected >= 0.5)) & ((expected - 0.5).abs() > 1e-9)
        assert not different.any()
    # Whatever differs from fill counts.
    found = paste(every + 1, MORE, SIZE, edges=edges, threshold=1e-9, **options)
    expected = paste(every + 1, MORE, SIZE, edges=edges, **options)
    assert not ((found != (expected >= 1e-9)) & ((expected - 1e-9).abs() > 1e-12)).any()


@each_way
@each_edges
def test_a_few_images_at_a_time(edges: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last time fewer."""
    monkeypatch.setattr(PASTE, "SCRATCH_BYTES", 3 * 2 * 8 * SIZE[0] * SIZE[1])
    every, windows = crops(len(EMPTY) + len(WINDOWS) - 1), torch.cat((WINDOWS[1:], EMPTY.double()))
    images = paste(every, windows, SIZE, edges=edges)
    found = paste(every, windows, SIZE, edges=edges, threshold=0.5)
    assert not ((found != (images >= 0.5)) & ((images - 0.5).abs() > 1e-9)).any()
    total = paste(every.unflatten(0, (2, -1)), windows.unflatten(0, (2, -1)), SIZE, edges=edges, reduce="sum")
    torch.testing.assert_close(total, images.unflatten(0, (2, -1)).sum(1), rtol=1e-10, atol=1e-10)


@each_way
@each_edges
def test_sum_is_the_sum(edges: str) -> None:
    windows = MORE[:10].unflatten(0, (2, 5))
    several = crops(10).unflatten(0, (2, 5))
    for options in FILTERS:
        expected = paste(several, windows, SIZE, edges=edges, **options).sum(1)
        for pixels in (several, several.clone().requires_grad_()):
            found = paste(pixels, windows, SIZE, edges=edges, reduce="sum", **options)
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
            assert found.requires_grad == pixels.requires_grad
    low = several.bfloat16()
    found = paste(low, windows.float(), SIZE, edges=edges, reduce="sum")
    expected = paste(low.float(), windows.float(), SIZE, edges=edges, reduce="sum")
    assert torch.equal(found, expected.bfloat16())


@each_way
@each_edges
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.uint8])
def test_dtypes(dtype: torch.dtype, edges: str) -> None:
    pixels = crops(dtype=dtype)
    images = paste(pixels, WINDOWS.float(), SIZE, edges=edges, fill=3.6)
    assert images.dtype == dtype
    exact = paste(pixels.double(), WINDOWS.float().double(), SIZE, edges=edges, fill=3.6)
    tolerance = 0.501 if dtype == torch.uint8 else 0.02 if dtype != torch.float32 else 1e-4
    torch.testing.assert_close(images.double(), exact, rtol=0, atol=tolerance)
    found = paste(pixels, WINDOWS.float(), SIZE, edges=edges, fill=3.6, threshold=2.5)
    near = (images.float() - 2.5).abs() < (1 if dtype == torch.uint8 else 0.02)
    assert not ((found != (images >= 2.5)) & ~near).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_both_ways_have_one_layout(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        pixels, found = crops(channels=3, dtype=dtype).contiguous(memory_format=layout), []
        for limit in (-1, 2**62):
            monkeypatch.setattr(PASTE, "NUMBERS_OF_A_CALL", limit)
            found.append(paste(pixels, WINDOWS.float(), SIZE))
        assert found[0].stride() == found[1].stride()
        torch.testing.assert_close(found[0], found[1], rtol=0, atol=1 if dtype == torch.uint8 else 1e-5)


@each_way
@each_edges
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_labels_are_pasted_exactly(dtype: torch.dtype, edges: str) -> None:
    labels = (crops() * 2**40).long() if dtype == torch.int64 else crops() > 0.5
    fill = 2**53 + 1 if dtype == torch.int64 else True
    windows = GENERIC.float()
    images = paste(labels, windows, SIZE, interpolation="nearest", edges=edges, fill=fill)
    assert images.dtype == dtype
    where = inside(windows.double())
    assert (images[~where.expand_as(images)] == fill).all()
    for image, crop in zip(images, labels, strict=True):
        assert torch.isin(image.long(), torch.cat((crop.flatten().long(), torch.tensor([int(fill)])))).all()
    assert torch.equal(
        paste(labels, windows, SIZE, interpolation="nearest", edges=edges, threshold=1).long(),
        (paste(labels, windows, SIZE, interpolation="nearest", edges=edges) >= 1).long(),
    )


@each_edges
def test_gradients(edges: str) -> None:
    size, windows = (11, 17), GENERIC[:3] * 0.53
    pixels = crops(3, 1).requires_grad_()
    assert gradcheck(
        lambda p, w: paste(p, w, size, edges=edges, fill=0.3), (pixels, windows.clone().requires_grad_())
    )
    several, squares = pixels.detach()[None].requires_grad_(), windows[None, :, :3].clone().requires_grad_()
    assert gradcheck(lambda p, w: paste(p, w, size, edges=edges, reduce="sum"), (several, squares))


@each_edges
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_windows_without_pixels_paste_nothing(edges: str, dtype: torch.dtype) -> None:
    pixels, windows = crops(len(EMPTY), dtype=dtype).requires_grad_(), EMPTY.to(dtype, copy=True)
    windows.requires_grad_()
    images = paste(pixels, windows, SIZE, edges=edges, fill=7)
    assert (images == 7).all()
    images.square().sum().backward()
    assert (pixels.grad == 0).all()
    assert (windows.grad == 0).all()


def test_least_half_side_is_finite() -> None:
    pixels, windows = crops(1, dtype=torch.float32), torch.tensor([[10.5, 10.5, 2.0**-20, 2.0**-20]])
    windows.requires_grad_()
    images = paste(pixels, windows, (2000, 3000))
    images.sum().backward()
    assert images.isfinite().all()
    assert windows.grad.isfinite().all()


@each_way
@each_edges
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_windows_that_are_not_finite_give_nan_alone(edges: str, place: int, value: float) -> None:
    windows = WINDOWS[:3].clone()
    windows[1, place] = value
    images = paste(crops(3), windows, SIZE, edges=edges, fill=0.5)
    assert images[1].isnan().all()
    assert images[[0, 2]].isfinite().all()
    assert not paste(crops(3), windows, SIZE, edges=edges, fill=0.5, threshold=0.1)[1].any()
    total = paste(crops(3)[None], windows[None], SIZE, edges=edges, reduce="sum")
    assert total.isnan().all()


@each_way
@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)], ids=str)
def test_nothing_to_paste(shape: tuple[int, ...]) -> None:
    pixels, windows = torch.rand(*shape, 2, *OUT), torch.rand(*shape, 4)
    assert paste(pixels, windows, SIZE).shape == (*shape, 2, *SIZE)
    assert paste(pixels, windows, SIZE, threshold=0.5).shape == (*shape, 2, *SIZE)
    if len(shape) == 2:
        assert torch.equal(paste(pixels, windows, SIZE, reduce="sum"), torch.zeros(shape[0], 2, *SIZE))


@pytest.mark.parametrize(
    "options", [{}, {"edges": "hard", "fill": (0.5, 0.25)}, {"threshold": 0.5}, {"reduce": "sum"}], ids=str
)
def test_compiled_and_mapped(options: dict[str, Any]) -> None:
    windows = WINDOWS[:4].unflatten(0, (2, 2))
    several = crops(4).unflatten(0, (2, 2))

    def function(p: Tensor, w: Tensor) -> Tensor:
        return paste(p, w, SIZE, **options)

    torch._dynamo.reset()
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(several, windows), function(several, windows))
    mapped = torch.vmap(function)(several[:, None], windows[:, None])
    torch.testing.assert_close(mapped.squeeze(1), function(several, windows))


PIXELS = torch.zeros(2, 3, 1, 4, 5)
BOXES = torch.ones(2, 3, 4)
ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"crops": None}, TypeError, "crops must be a torch.Tensor, got NoneType"),
    ({"windows": [1.0]}, TypeError, "windows must be a torch.Tensor, got list"),
    (
        {"crops": PIXELS[0, 0]},
        ValueError,
        "crops must have shape (B, C, h, w) or (B, K, C, h, w), at least 1 pixel high and wide, "
        "got (1, 4, 5)",
    ),
    (
        {"crops": PIXELS[..., :0]},
        ValueError,
        "crops must have shape (B, C, h, w) or (B, K, C, h, w), at least 1 pixel high and wide, "
        "got (2, 3, 1, 4, 0)",
    ),
    (
        {"windows": BOXES[0]},
        ValueError,
        "windows must have shape (2, 3, 3) for tx, ty, tl or (2, 3, 4) for tx, ty, tw, th "
        "with crops (2, 3, 1, 4, 5), got (3, 4)",
    ),
    (
        {"windows": BOXES[..., :2]},
        ValueError,
        "windows must have shape (2, 3, 3) for tx, ty, tl or (2, 3, 4) for tx, ty, tw, th "
        "with crops (2, 3, 1, 4, 5), got (2, 3, 2)",
    ),
    (
        {"windows": BOXES.double()},
        TypeError,
        "windows must be float32 with float32 crops, got torch.float64; use windows.to(torch.float32)",
    ),
    (
        {"crops": PIXELS.int()},
        TypeError,
        "crops must be float16, bfloat16, float32, float64, uint8, got torch.int32; "
        "integer and bool crops need interpolation='nearest'",
    ),
    (
        {"windows": BOXES.to("meta")},
        ValueError,
        "windows must be on the device of crops: got meta for crops on cpu",
    ),
    ({"size": (4, 0)}, ValueError, "size must be at least 1 x 1, got (4, 0)"),
    ({"size": 4.5}, TypeError, "size must be an int or a pair of ints (h, w), got 4.5"),
    ({"edges": "round"}, ValueError, "edges must be one of 'soft', 'hard', got 'round'"),
    (
        {"fill": None},
        TypeError,
        "fill must be a number or a sequence of numbers, one per channel, got None",
    ),
    ({"fill": (1, 2)}, ValueError, "fill must be one number or one per channel (1), got 2 numbers"),
    (
        {"interpolation": "nearest", "antialias": True},
        ValueError,
        "antialias must be False with interpolation='nearest', got True",
    ),
    ({"threshold": "0.5"}, TypeError, "threshold must be a number, got '0.5'"),
    ({"threshold": float("nan")}, ValueError, "threshold must be finite, got nan"),
    ({"reduce": "mean"}, ValueError, "reduce must be None or 'sum', got 'mean'"),
    (
        {"reduce": "sum", "crops": PIXELS[0], "windows": BOXES[0]},
        ValueError,
        "reduce must be None without an axis to add up, for crops (3, 1, 4, 5), got 'sum'",
    ),
    (
        {"reduce": "sum", "crops": PIXELS.byte()},
        TypeError,
        "crops must be floating with reduce='sum', got torch.uint8",
    ),
    ({"reduce": "sum", "fill": 1}, ValueError, "fill must be 0 with reduce='sum', got 1"),
    (
        {"reduce": "sum", "threshold": 0.5},
        ValueError,
        "threshold must be None with reduce='sum', got 0.5",
    ),
]


@pytest.mark.parametrize(("wrong", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors_name_the_argument(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        paste(**{"crops": PIXELS, "windows": BOXES, "size": SIZE, **wrong})
    assert str(raised.value) == message
