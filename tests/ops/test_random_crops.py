# SPDX-License-Identifier: BSD-3-Clause
"""racnn_ops.transforms: windows drawn as torchvision's are, each cut as by its resized_crop."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from conftest import needs_cuda
from samples import generator, make_images
from torch import Tensor

from racnn_ops import attention_crop
from racnn_ops.boxes import boxes_from_windows, boxes_to_crop
from racnn_ops.transforms import MultiCrop, RandomResizedCrop

OUT = (9, 12)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def images_of(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return make_images(shape, dtype, generator("random crops", shape))


def boxes_of(windows: Tensor) -> list[list[int]]:
    """left, top, right, bottom, which must be whole."""
    boxes = boxes_from_windows(windows)
    assert torch.equal(boxes, boxes.round())
    return boxes.flatten(0, -2).int().tolist()  # type: ignore[no-any-return]


def resized_crops(images: Tensor, windows: Tensor, size: tuple[int, int], flip: Tensor) -> Tensor:
    """torchvision's, of (B, K, 4) windows one by one."""
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    each = images.repeat_interleave(windows.shape[1], 0) if windows.dim() == 3 else images
    crops = []
    for image, box, mirror in zip(each, boxes_of(windows), flip.flatten(), strict=True):
        x, y, right, bottom = box
        cut = functional.resized_crop(image, y, x, bottom - y, right - x, list(size), antialias=True)
        crops.append(functional.horizontal_flip(cut) if mirror else cut)
    return torch.stack(crops).unflatten(0, windows.shape[:-1])


# What torchvision's v1 draws is a function of sizes alone; v2 draws the same.
Sizes = tuple[int, int]
Ranges = tuple[tuple[float, float], tuple[float, float]]
DEFAULT: Ranges = ((0.08, 1.0), (3 / 4, 4 / 3))
SETTINGS: list[tuple[Sizes, Ranges]] = [
    ((60, 80), DEFAULT),
    ((50, 50), ((0.2, 0.6), (0.5, 3.0))),
    ((12, 150), DEFAULT),  # of the tries some hundredths fit, so that many windows are the central ones
    ((130, 20), ((0.1, 1.0), (0.9, 1.1))),
    ((7, 5), ((0.01, 1.0), (0.2, 5.0))),  # tries of no pixel do not fit either
]
DRAWS, THEIR_DRAWS = 20000, 3000


@cache
def theirs(size: Sizes, ranges: Ranges, count: int = THEIR_DRAWS) -> Tensor:
    """left, top, right, bottom by torchvision."""
    transforms = pytest.importorskip("torchvision.transforms")
    image = torch.empty(1, *size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        drawn = [transforms.RandomResizedCrop.get_params(image, *map(list, ranges)) for _ in range(count)]
    top, left, height, width = torch.tensor(drawn).unbind(1)
    return torch.stack((left, top, left + width, top + height), 1)


def ours(size: Sizes, ranges: Ranges, count: int = DRAWS, **options: Any) -> Tensor:
    transform = RandomResizedCrop(OUT, *ranges, **options)
    windows, _ = transform.windows(count, *size, generator=generator(size, ranges, count))
    return torch.tensor(boxes_of(windows))


def quantities(boxes: Tensor, size: Sizes) -> dict[str, Tensor]:
    left, top, right, bottom = boxes.double().unbind(1)
    width, height = right - left, bottom - top
    return {
        "area": width * height,
        "log ratio": (width / height).log(),
        "left": left,
        "top": top,
        "right": size[1] - right,
        "bottom": size[0] - bottom,
        "width": width,
        "place": left / (size[1] - width + 1) + top / (size[0] - height + 1),
    }


def kolmogorov_smirnov(one: Tensor, other: Tensor) -> float:
    """The largest distance of two samples' distributions, in units of its standard deviation or so."""
    values = torch.cat((one, other)).unique()
    shares = [torch.searchsorted(s.sort()[0], values, right=True) / len(s) for s in (one, other)]
    effective = len(one) * len(other) / (len(one) + len(other))
    return float((shares[0] - shares[1]).abs().max()) * effective**0.5


@pytest.mark.parametrize(("size", "ranges"), SETTINGS, ids=str)
def test_windows_are_distributed_as_torchvisions(size: Sizes, ranges: Ranges) -> None:
    found = {name: quantities(draw(size, ranges), size) for name, draw in (("o", ours), ("t", theirs))}
    for name, values in found["o"].items():
        # 1.95 is exceeded by one pair of samples of the same distribution in a thousand.
        assert kolmogorov_smirnov(values, found["t"][name]) < 1.95, name


@pytest.mark.parametrize("size", [(60, 80), (12, 150), (150, 12), (7, 5), (1, 1), (1, 50), (9, 4)])
@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (0.2, 0.3), (3.0, 4.0)])
def test_where_no_window_fits_it_is_torchvisions_central_one(size: Sizes, ratio: tuple[float, float]) -> None:
    ranges = ((2.0, 3.0), ratio)
    expected = theirs(size, ranges, 1).clone()
    for axis, full in enumerate(reversed(size)):
        if expected[0, axis] == expected[0, axis + 2]:  # of no pixel, which torchvision cannot resize
            expected[0, axis] = (full - 1) // 2
            expected[0, axis + 2] = expected[0, axis] + 1
    assert torch.equal(ours(size, ranges, 3).unique(dim=0), expected)


def test_some_tries_fail_and_some_windows_are_central() -> None:
    """So that the test of the distribution is one of both."""
    size, ranges = SETTINGS[2]
    central = (ours(size, ranges) == theirs(size, ((2.0, 3.0), ranges[1]), 1)).all(1).double().mean()
    assert 0.1 < central < 0.9


@pytest.mark.parametrize("size", [(60, 80), (12, 150), (2, 3)])
def test_windows_are_whole_pixels_inside(size: Sizes) -> None:
    boxes = ours(size, ((0.001, 1.2), (0.1, 9.0)))
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes[:, 2:] <= torch.tensor([size[1], size[0]])).all()
    for column, edge in enumerate((0, 0, size[1], size[0])):
        assert (boxes[:, column] == edge).any()


@pytest.mark.parametrize("number", [0.0, 1 - 2**-24])
def test_the_least_and_the_largest_number_give_windows_at_the_edges(
    number: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tensor, "uniform_", lambda self, generator=None: self.fill_(number))
    transform = RandomResizedCrop(OUT, (0.1, 0.3), (0.8, 1.2), flip=0.5)
    for size in (*range(10, 600), 4097, 2**20 - 1):
        windows, _ = transform.windows(1, size, size)
        ((left, top, right, bottom),) = boxes_of(windows)
        assert (left, top) == (0, 0) if number == 0 else (right, bottom) == (size, size)


def test_the_whole_image_and_one_pixel() -> None:
    assert ours((40, 40), ((1.0, 1.0), (1.0, 1.0)), 50).unique(dim=0).tolist() == [[0, 0, 40, 40]]
    pixels = ours((3, 3), ((1 / 9, 1 / 9), (1.0, 1.0)), 2000)
    assert len(pixels.unique(dim=0)) == 9
    assert torch.equal(pixels[:, 2:], pixels[:, :2] + 1)


@pytest.mark.parametrize("crops", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_crops_are_resized_crops(dtype: torch.dtype, crops: int | None) -> None:
    images = images_of((6, 3, 40, 52), dtype)
    transform = RandomResizedCrop(OUT, crops=crops, flip=0.5)
    found = transform(images, generator(dtype))
    windows, flip = transform.windows(6, 40, 52, generator=generator(dtype))
    assert windows.shape == ((6, 4) if crops is None else (6, 3, 4))
    assert len(windows.flatten(0, -2).unique(dim=0)) == windows.numel() // 4
    assert flip.any()
    assert not flip.all()
    expected = resized_crops(images, windows, OUT, flip)
    assert found.dtype == dtype
    if dtype == torch.uint8:  # torchvision rounds between the axes, too
        assert (found.int() - expected.int()).abs().max() <= 1
    else:
        tolerance = 1e-12 if dtype == torch.float64 else 1e-5
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_labels_and_boxes_follow() -> None:
    """A pixel that is marked in the image is where its label and its box are."""
    places = torch.tensor([[20, 11], [30, 25], [24, 17], [27, 22]])
    labels = torch.zeros(4, 1, 40, 52, dtype=torch.int64)
    labels[torch.arange(4), 0, places[:, 1], places[:, 0]] = 7
    transform = RandomResizedCrop((160, 208), scale=(0.9, 1.0))
    windows, _ = transform.windows(4, 40, 52, generator=generator("labels"))
    flip = torch.tensor([True, False, True, False])
    of_labels = RandomResizedCrop((160, 208), interpolation="nearest", antialias=False)
    found = of_labels.crop(labels, windows, flip)
    plain = attention_crop(labels, windows, (160, 208), interpolation="nearest", boundary="window")
    assert torch.equal(found[flip], plain[flip].flip(-1))
    assert torch.equal(found[~flip], plain[~flip])
    boxes = boxes_to_crop(torch.cat((places, places + 1), 1), windows, (160, 208))
    boxes[:, ::2] = torch.where(flip[:, None], 208 - boxes[:, [2, 0]], boxes[:, ::2])
    for label, (left, top, right, bottom) in zip(found, boxes, strict=True):
        rows, columns = (label[0] == 7).nonzero().unbind(1)
        for edge, exact in ((columns.min(), left), (rows.min(), top)):
            assert abs(float(edge - exact)) <= 0.5
        for edge, exact in ((columns.max() + 1, right), (rows.max() + 1, bottom)):
            assert abs(float(edge - exact)) <= 0.5


@pytest.mark.parametrize(("flip", "least", "most"), [(0, 0, 0), (1, 2000, 2000), (0.25, 440, 560)])
def test_as_many_are_mirrored_as_asked_for(flip: float, least: int, most: int) -> None:
    transform = RandomResizedCrop(OUT, flip=flip)
    windows, flip = transform.windows(2000, 30, 30, generator=generator("flip"))
    assert flip.shape == (2000,)
    assert flip.dtype == torch.bool
    assert least <= int(flip.sum()) <= most
    plain, _ = RandomResizedCrop(OUT).windows(2000, 30, 30, generator=generator("flip"))
    assert torch.equal(windows, plain)


def test_random_numbers_come_from_the_generator_or_from_torchs() -> None:
    images, transform = images_of((4, 3, 30, 40)), RandomResizedCrop(OUT)
    state = torch.get_rng_state()
    one = transform(images, generator(0))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(transform(images, generator=generator(0)), one)
    assert not torch.equal(transform(images, generator(1)), one)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        first, second = transform(images), transform(images)
        torch.manual_seed(3)
        assert torch.equal(transform(images), first)
        assert not torch.equal(first, second)


def test_default_dtype_and_device_do_not_matter() -> None:
    images, transform = images_of((2, 3, 30, 40)), RandomResizedCrop(OUT)
    windows, _ = transform.windows(4, 30, 40, generator=generator(0))
    torch.set_default_dtype(torch.float64)
    try:
        same, _ = transform.windows(4, 30, 40, generator=generator(0))
    finally:
        torch.set_default_dtype(torch.float32)
    assert same.dtype == torch.float32
    assert torch.equal(same, windows)
    with torch.device("meta"):
        same, _ = transform.windows(4, 30, 40, generator=generator(0))
        assert transform(images).is_cpu
    assert torch.equal(same, windows)


def test_options_are_those_of_attention_crop() -> None:
    images = images_of((4, 3, 30, 40), torch.uint8)
    options: dict[str, Any] = {
        "mean": MEAN,
        "std": STD,
        "dtype": torch.float16,
        "memory_format": torch.channels_last,
    }
    for interpolation, antialias in (("bicubic", True), ("area", False), ("bilinear", False)):
        transform = RandomResizedCrop(OUT, DEFAULT[0], DEFAULT[1], interpolation, antialias, **options)
        crops = transform(images, generator(0))
        windows, _ = transform.windows(4, 30, 40, generator=generator(0))
        sampling: dict[str, Any] = {"interpolation": interpolation, "antialias": antialias}
        expected = attention_crop(images, windows, OUT, boundary="window", **sampling, **options)
        assert torch.equal(crops, expected)
        assert crops.dtype == torch.float16
        assert crops.is_contiguous(memory_format=torch.channels_last)


def test_gradients_reach_the_images() -> None:
    images = images_of((2, 3, 20, 20)).requires_grad_()
    RandomResizedCrop(OUT, flip=1.0)(images, generator(0)).sum().backward()
    assert images.grad is not None
    torch.testing.assert_close(images.grad.sum(), torch.tensor(2.0 * 3 * OUT[0] * OUT[1]))


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_whole(dynamic: bool) -> None:
    transform = RandomResizedCrop(OUT, crops=2, flip=0.5, mean=MEAN)
    options: dict[str, Any] = {"backend": "aot_eager", "fullgraph": True, "dynamic": dynamic}
    windows_of = torch.compile(transform.windows, **options)
    forward, crop = torch.compile(transform, **options), torch.compile(transform.crop, **options)
    for size in ((30, 40), (12, 90)) if dynamic else ((30, 40),):
        images = images_of((5, 3, *size))
        windows, flip = windows_of(5, *size)
        assert len(windows.flatten(0, 1).unique(dim=0)) > 1
        boxes = torch.tensor(boxes_of(windows))
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= torch.tensor([size[1], size[0]])).all()
        assert torch.equal(crop(images, windows, flip), transform.crop(images, windows, flip))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found = forward(images)
            torch.manual_seed(0)
            assert torch.equal(found, transform(images))


def test_nothing_waits_for_the_device() -> None:
    """On the meta device there are no numbers to look at."""
    transform = MultiCrop(8, 4, flip=0.5)
    large, small = transform(torch.empty(3, 2, 20, 30, device="meta"))
    assert large.shape == (3, 2, 2, 8, 8)
    assert small.shape == (3, 8, 2, 4, 4)


@needs_cuda
def test_a_cuda_graph_draws_anew_at_every_replay() -> None:
    images, transform = images_of((4, 3, 40, 52)).cuda(), RandomResizedCrop(OUT, flip=0.5)

    def step() -> tuple[Tensor, Tensor, Tensor]:
        windows, flip = transform.windows(4, 40, 52, device="cuda")
        return windows, flip, transform.crop(images, windows, flip)

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        windows, flip, crops = step()
    drawn = []
    for _ in range(3):
        graph.replay()
        assert torch.equal(crops, transform.crop(images, windows, flip))
        drawn.append(windows.clone())
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])


def test_multi_crop_is_two_random_resized_crops() -> None:
    images = images_of((3, 2, 48, 56))
    transform = MultiCrop(OUT, 6, 2, 5, (0.5, 1.0), (0.1, 0.3), flip=0.5)
    found = transform(images, generator("multi"))
    assert [tuple(crops.shape) for crops in found] == [(3, 2, 2, *OUT), (3, 5, 2, 6, 6)]
    g = generator("multi")
    for crops, part, (least, most) in zip(
        found, (transform.global_crop, transform.local_crop), ((0.5, 1.0), (0.1, 0.3)), strict=True
    ):
        windows, flip = part.windows(3, 48, 56, generator=g)
        areas = 4 * windows[..., 2] * windows[..., 3] / (48 * 56)
        assert least - 0.02 < float(areas.min())
        assert float(areas.max()) < most + 0.02
        expected = resized_crops(images, windows, part.size, flip)
        torch.testing.assert_close(crops, expected, rtol=1e-5, atol=1e-5)


def test_multi_crop_hands_on_its_options() -> None:
    options: dict[str, Any] = {
        "ratio": (0.5, 2.0),
        "interpolation": "bicubic",
        "antialias": False,
        "flip": 0.5,
        "mean": MEAN,
        "std": STD,
        "dtype": torch.float16,
        "memory_format": torch.channels_last,
    }
    transform = MultiCrop(**options)
    expected = RandomResizedCrop(224, (0.32, 1.0), crops=2, **options)
    assert repr(transform.global_crop) == repr(expected)
    assert repr(transform.local_crop) == repr(RandomResizedCrop(96, (0.05, 0.32), crops=8, **options))


def test_no_images() -> None:
    assert RandomResizedCrop(OUT, flip=0.5)(torch.empty(0, 3, 8, 8)).shape == (0, 3, *OUT)
    assert RandomResizedCrop(OUT, crops=2)(torch.empty(0, 3, 8, 8)).shape == (0, 2, 3, *OUT)
    windows, flip = RandomResizedCrop(OUT).windows(0, 8, 8)
    assert windows.shape == (0, 4)
    assert flip.shape == (0,)


def test_modules_are_copied_pickled_and_shown() -> None:
    images = images_of((2, 3, 20, 20))
    transform = RandomResizedCrop(OUT, mean=0.5, memory_format=torch.channels_last)
    assert not transform.state_dict()
    for other in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        assert torch.equal(other(images, generator(0)), transform(images, generator(0)))
        assert repr(other) == repr(transform)
    assert repr(RandomResizedCrop(7, (0.5, 1), crops=2, dtype=torch.float16)) == (
        "RandomResizedCrop(size=(7, 7), scale=(0.5, 1.0), ratio=(0.75, 1.3333333333333333), crops=2, "
        "flip=0.0, interpolation='bilinear', antialias=True, dtype=torch.float16)"
    )


IMAGES = torch.zeros(2, 3, 5, 6)
WINDOWS = torch.ones(2, 4)
PLAIN = RandomResizedCrop(4)
ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: RandomResizedCrop(0), ValueError, "size must be at least 1 x 1, got 0"),
    (lambda: RandomResizedCrop(4.0), TypeError, "size must be an int or a pair of ints (h, w), got 4.0"),  # type: ignore[arg-type]
    (
        lambda: RandomResizedCrop(4, 0.5),  # type: ignore[arg-type]
        TypeError,
        "scale must be a pair of numbers (least, most), got 0.5",
    ),
    (
        lambda: RandomResizedCrop(4, (0.1, 0.2, 0.3)),
        TypeError,
        "scale must be a pair of numbers (least, most), got (0.1, 0.2, 0.3)",
    ),
    (lambda: RandomResizedCrop(4, (0.1, "1")), TypeError, "scale must be a number, got '1'"),  # type: ignore[arg-type]
    (lambda: RandomResizedCrop(4, (0.0, 1.0)), ValueError, "scale must be positive, got 0.0"),
    (
        lambda: RandomResizedCrop(4, (1.0, 0.5)),
        ValueError,
        "scale must have the lesser number first, got (1.0, 0.5)",
    ),
    (
        lambda: RandomResizedCrop(4, ratio=[2, 1]),
        ValueError,
        "ratio must have the lesser number first, got [2, 1]",
    ),
    (
        lambda: RandomResizedCrop(4, ratio=(1, 1e7)),
        ValueError,
        "ratio must be within [1e-06, 1e+06], got 10000000.0",
    ),
    (
        lambda: RandomResizedCrop(4, interpolation="nearest"),
        ValueError,
        "antialias must be False with interpolation='nearest', got True",
    ),
    (lambda: RandomResizedCrop(4, crops=0), ValueError, "crops must be at least 1 or None, got 0"),
    (lambda: RandomResizedCrop(4, crops=2.0), TypeError, "crops must be an int or None, got 2.0"),  # type: ignore[arg-type]
    (
        lambda: RandomResizedCrop(4, flip=1.5),
        ValueError,
        "flip must be a probability within [0, 1], got 1.5",
    ),
    (lambda: RandomResizedCrop(4, flip=True), TypeError, "flip must be a number, got True"),
    (lambda: RandomResizedCrop(4, std=0), ValueError, "std must be positive, got 0"),
    (lambda: PLAIN([1]), TypeError, "images must be a torch.Tensor, got list"),
    (lambda: PLAIN(IMAGES[0]), ValueError, "images must have shape (B, C, H, W), got (3, 5, 6)"),
    (
        lambda: PLAIN(IMAGES.int()),
        TypeError,
        "images must be float16, bfloat16, float32, float64, uint8, got torch.int32; integer and bool images "
        "need interpolation='nearest'",
    ),
    (
        lambda: RandomResizedCrop(4, mean=(1, 2))(IMAGES),
        ValueError,
        "mean must be one number or one per channel (3), got 2 numbers",
    ),
    (lambda: PLAIN(IMAGES, 3), TypeError, "generator must be a torch.Generator or None, got int"),
    (
        lambda: PLAIN(IMAGES.to("meta"), torch.Generator()),
        ValueError,
        "generator must be of device meta, got one of cpu",
    ),
    (lambda: PLAIN.windows(-1, 5, 6), ValueError, "batch must be at least 0, got -1"),
    (lambda: PLAIN.windows(True, 5, 6), TypeError, "batch must be an int, got True"),
    (lambda: PLAIN.windows(2, 0, 6), ValueError, "height, width must be at least 1 x 1, got (0, 6)"),
    (
        lambda: PLAIN.crop(IMAGES.double(), WINDOWS),
        TypeError,
        "windows must be float64 with float64 images, got torch.float32; use windows.to(torch.float64)",
    ),
    (lambda: PLAIN.crop(IMAGES, WINDOWS, True), TypeError, "flip must be a torch.Tensor, got bool"),  # type: ignore[arg-type]
    (
        lambda: PLAIN.crop(IMAGES, WINDOWS, torch.ones(2)),
        TypeError,
        "flip must be bool, got torch.float32",
    ),
    (
        lambda: PLAIN.crop(IMAGES, WINDOWS, torch.ones(2, 1, dtype=torch.bool)),
        ValueError,
        "flip must have one value for each window, (2,), got (2, 1)",
    ),
    (
        lambda: PLAIN.crop(IMAGES, WINDOWS, torch.ones(2, dtype=torch.bool, device="meta")),
        ValueError,
        "flip must be on the device of windows: got meta for windows on cpu",
    ),
    (lambda: MultiCrop(0), ValueError, "global_size must be at least 1 x 1, got 0"),
    (lambda: MultiCrop(local_crops=0), ValueError, "local_crops must be at least 1, got 0"),
    (
        lambda: MultiCrop(local_scale=(0.3, 0.1)),
        ValueError,
        "local_scale must have the lesser number first, got (0.3, 0.1)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors_name_the_argument(call: Any, error: type[Exception], message: str) -> None:
    state = torch.get_rng_state()
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == message
    assert torch.equal(torch.get_rng_state(), state)  # before any work
