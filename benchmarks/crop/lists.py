# SPDX-License-Identifier: BSD-3-Clause
"""Images and boxes as people have them: others' ways beside ours, each compared first.

Proposals on feature maps, rectangles out of one photograph, and photographs of as many sizes as there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from racnn_ops import attention_crop, boxes, reference

from .timing import calls_of_a_sample, interleaved, sampler
from .validation import WrongResult, relative_error

TOLERANCE = 1e-4

Images = Tensor | list[Tensor]
Way = Callable[[Images, list[Tensor]], Tensor]
"""Crops of boxes (K, 4), left, top, right, bottom, for each image, one behind the other."""


@dataclass(frozen=True)
class Task:
    """What is cut out of what.

    Attributes:
        sizes: H, W of each image; all the same: they are a batch.
        boxes: of each image, of whole pixels.
        ways: ours first.
        has_gradient: whether the gradient of the images is timed as well.
    """

    label: str
    channels: int
    sizes: Sequence[tuple[int, int]]
    boxes: int
    out: int
    ways: dict[str, Way]
    options: dict[str, Any]
    has_gradient: bool = False

    def inputs(self, device: torch.device) -> tuple[Images, list[Tensor]]:
        """Boxes of at most half an image."""
        generator = torch.Generator().manual_seed(0)
        images, rectangles = [], []
        for height, width in self.sizes:
            sides = torch.tensor([width, height])
            images.append(torch.rand(self.channels, height, width, generator=generator).to(device))
            extent = (torch.rand(self.boxes, 2, generator=generator) * sides / 2).floor().clamp(min=2)
            begin = (torch.rand(self.boxes, 2, generator=generator) * (sides - extent)).floor()
            rectangles.append(torch.cat((begin, begin + extent), 1).to(device))
        return (torch.stack(images) if len(set(self.sizes)) == 1 else images), rectangles

    def expected(self, images: Images, rectangles: list[Tensor]) -> Tensor:
        """In float64."""
        windows = [boxes.windows_from_boxes(each.double()) for each in rectangles]
        crops = [
            reference.attention_crop(image[None].double(), own[None], self.out, **self.options)[0]
            for image, own in zip(images, windows, strict=True)
        ]
        return torch.cat(crops)


def ours(images: Images, rectangles: list[Tensor], out: int, **options: Any) -> Tensor:
    windows, index = boxes.windows_from_rois(rectangles)
    return attention_crop(images, windows, out, image_index=index, **options)


def roi_align(images: Images, rectangles: list[Tensor], out: int) -> Tensor:
    from torchvision.ops import roi_align

    assert isinstance(images, Tensor)
    crops: Tensor = roi_align(images, rectangles, out, sampling_ratio=1, aligned=True)
    return crops


def slices(images: Images, rectangles: list[Tensor], out: int) -> Tensor:
    """Slice and interpolate, box by box."""
    crops = []
    for image, own in zip(images, rectangles, strict=True):
        for x, y, right, bottom in own.int().tolist():
            part = image[None, :, y:bottom, x:right]
            crops.append(F.interpolate(part, (out, out), mode="bilinear", antialias=True))
    return torch.cat(crops)


def resized_crops(images: Images, rectangles: list[Tensor], out: int) -> Tensor:
    """torchvision, box by box."""
    from torchvision.transforms.v2.functional import resized_crop

    return torch.stack(
        [
            resized_crop(image, y, x, bottom - y, right - x, [out, out], antialias=True)
            for image, own in zip(images, rectangles, strict=True)
            for x, y, right, bottom in own.int().tolist()
        ]
    )


OURS = "racnn_ops"
NEEDS = {"roi_align": "torchvision", "torchvision resized_crop": "torchvision"}


def tasks(quick: bool = False) -> list[Task]:
    """The three; quick: the same, small."""
    side = 4 if quick else 1
    generator = torch.Generator().manual_seed(1)
    sizes = torch.randint(200 // side, 600 // side, (100 // side, 2), generator=generator).tolist()
    border = {"boundary": "border"}
    whole = {"antialias": True, "boundary": "window"}
    count = 512 // side**2
    return [
        Task(
            f"{count} boxes on each of two 256x{100 // side}x{136 // side} maps → 7²",
            *(256, [(100 // side, 136 // side)] * 2, count, 7),
            {OURS: partial(ours, out=7, **border), "roi_align": partial(roi_align, out=7)},
            border,
            has_gradient=True,
        ),
        Task(
            f"100 boxes out of one 3x{1080 // side}x{1920 // side} image → 64², antialiased",
            *(3, [(1080 // side, 1920 // side)], 100, 64),
            {
                OURS: partial(ours, out=64, **whole),
                "slice and interpolate": partial(slices, out=64),
                "torchvision resized_crop": partial(resized_crops, out=64),
            },
            whole,
        ),
        Task(
            f"{len(sizes)} images of {len(sizes)} sizes, {200 // side} to {600 // side} pixels → 224², "
            "antialiased",
            *(3, [tuple(size) for size in sizes], 1, 224),
            {
                OURS: partial(ours, out=224, **whole),
                "slice and interpolate": partial(slices, out=224),
                "torchvision resized_crop": partial(resized_crops, out=224),
            },
            whole,
        ),
    ]


def with_gradient(way: Way, images: Tensor, rectangles: list[Tensor]) -> Tensor:
    leaf = images.detach().requires_grad_()
    crops = way(leaf, rectangles)
    crops.backward(torch.ones_like(crops))
    assert leaf.grad is not None
    return leaf.grad


def times(device: torch.device, rounds: int, quick: bool = False) -> list[dict[str, Any]]:
    """A record for each contestant and step of each task."""
    records = []
    for task in tasks(quick):
        images, rectangles = task.inputs(device)
        expected = task.expected(images, rectangles)
        ways = {name: way for name, way in task.ways.items() if find_spec(NEEDS.get(name, "torch"))}
        errors = {}
        for name, way in ways.items():
            errors[name] = relative_error(name, way(images, rectangles), expected)
            if not errors[name] <= TOLERANCE:
                raise WrongResult(f"{name} is wrong: {task.label}: relative error {errors[name]:.1e}")
        steps: dict[str, Callable[..., Tensor]] = {"forward": lambda way, *inputs: way(*inputs)}
        if task.has_gradient:
            steps["with the images' gradient"] = with_gradient
        for step, run in steps.items():
            calls = {
                name: calls_of_a_sample([partial(run, way, images, rectangles)], device)
                for name, way in ways.items()
            }
            measured = interleaved(calls, rounds, sampler(device))
            records += [
                {
                    "label": task.label,
                    "step": step,
                    "contestant": name,
                    "relative_error": errors[name],
                    **each._asdict(),
                }
                for name, each in measured.items()
            ]
    return records
