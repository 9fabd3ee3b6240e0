# SPDX-License-Identifier: BSD-3-Clause
"""Crops in exported programs of ATen operators alone, for the tests of what runs such programs."""

from __future__ import annotations

from typing import Any

import torch
from samples import MODES, SHAPES, generator, make_images, make_windows, window_dtype, window_sizes
from torch import Tensor, nn

from racnn_ops import AttentionCrop, attention_crop, decompositions

ANY = torch.export.Dim.DYNAMIC
CHANNELS = torch.export.Dim.AUTO  # fixed by mean and std, and by other layers


def export(
    module: nn.Module, *arguments: Tensor, sizes: tuple[Any, ...] | None = None
) -> torch.export.ExportedProgram:
    """Of a module of images and windows, whose last size stays; the others may change. Or with own sizes."""
    if sizes is None:
        windows = dict.fromkeys(range(arguments[1].dim() - 1), ANY)
        sizes = ({0: ANY, 1: CHANNELS, 2: ANY, 3: ANY}, windows)
    program = torch.export.export(module.eval(), arguments, dynamic_shapes=sizes)
    decomposed = program.run_decompositions(decompositions())
    before, after = program.range_constraints, decomposed.range_constraints
    assert after.items() <= before.items()
    fixed = before.keys() - after.keys()  # of images: channels, as many as there are offsets
    shapes = [
        v.meta["val"].shape for v in program.graph.nodes if v.name in program.graph_signature.user_inputs
    ]
    assert not [
        size for shape in shapes for at, size in enumerate(shape) if at != 1 and str(size) in map(str, fixed)
    ]
    return decomposed


def sample(form: int = 0, dtype: torch.dtype = torch.float32, index: int = 0) -> tuple[Tensor, Tensor]:
    """Images and windows of a shape in `SHAPES`; windows inside, over the edge, outside, some degenerate."""
    shape, g = SHAPES[index], generator(form, dtype, index)
    windows = make_windows(window_sizes(form, shape.batch), shape, g)
    return make_images(shape.images, dtype, g), windows.to(window_dtype(dtype))


class EveryMode(nn.Module):
    """The crops of all boundaries with and without mask; one export is quicker than six."""

    def __init__(self) -> None:
        super().__init__()
        self.crops = nn.ModuleList(
            AttentionCrop((7, 9), boundary=boundary, mask_steepness=mask) for boundary, mask in MODES
        )

    def forward(self, images: Tensor, windows: Tensor) -> Tensor:
        return torch.stack([crop(images, windows) for crop in self.crops])


FILTERS: list[dict[str, Any]] = [
    {"interpolation": "nearest"},
    {"interpolation": "bilinear", "boundary": "window"},
    {"interpolation": "bilinear", "antialias": True, "boundary": "window"},
    {"interpolation": "bicubic", "antialias": True, "boundary": "border"},
    {"interpolation": "lanczos3"},
    {"interpolation": "area", "boundary": "clip"},
    {"interpolation": "bicubic"},
    {"interpolation": "area", "mask_steepness": 0.7},
]


class Crops(nn.Module):
    """Those of several filters; one export is quicker than many."""

    def __init__(self, filters: list[dict[str, Any]]) -> None:
        super().__init__()
        self.crops = nn.ModuleList(AttentionCrop((7, 9), **options) for options in filters)

    def forward(self, images: Tensor, windows: Tensor) -> Tensor:
        return torch.stack([crop(images, windows) for crop in self.crops])


NORMALISED = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
# Of images, and options of their crops.
DTYPES: list[tuple[torch.dtype, dict[str, Any]]] = [
    (torch.float64, {"mask_steepness": 0.7, "boundary": "clip", **NORMALISED}),
    (torch.float64, {"dtype": torch.float32, "std": 0.25}),
    (torch.float32, {"dtype": torch.float64, "mean": 0.5, "boundary": "border"}),
    (torch.float32, {"dtype": torch.bfloat16}),
    (torch.float16, {**NORMALISED}),
    (torch.bfloat16, {"mask_steepness": 0.7}),
    (torch.bfloat16, {"dtype": torch.float32, "boundary": "clip"}),
    (torch.uint8, {"dtype": torch.float16, **NORMALISED}),
    (torch.uint8, {"std": 0.25}),
    (torch.uint8, {}),
    (torch.uint8, {"mask_steepness": 0.7, "boundary": "border"}),
]


class Converting(nn.Module):
    """numpy has no bfloat16, so images come and crops go in other types."""

    def __init__(self, image_dtype: torch.dtype, **options: Any) -> None:
        super().__init__()
        self.image_dtype, self.crop = image_dtype, AttentionCrop((7, 9), **options)

    def forward(self, images: Tensor, windows: Tensor) -> Tensor:
        crops = self.crop(images.to(self.image_dtype), windows)
        return crops.float() if crops.dtype == torch.bfloat16 else crops


class ByIndex(nn.Module):
    def forward(self, images: Tensor, windows: Tensor, index: Tensor) -> Tensor:
        return attention_crop(images, windows, (7, 9), image_index=index)


NUMBER = torch.export.Dim("number")
SIZES_BY_INDEX = ({0: torch.export.Dim("batch")}, {0: NUMBER}, {0: NUMBER})


def sample_by_index() -> tuple[Tensor, Tensor, Tensor]:
    """What ``ByIndex`` takes: two images, and five windows, two of which have an index of no image."""
    images = make_images((2, 3, 20, 30), torch.float32, generator("index"))
    windows = torch.rand(5, 4, generator=generator("windows")) * 10 + 5
    return images, windows, torch.tensor([1, 0, -1, 1, 2])
