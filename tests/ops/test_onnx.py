# SPDX-License-Identifier: BSD-3-Clause
"""onnxruntime gives the numbers of the specification for exported crops, in every mode and dtype."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from exported import DTYPES, SIZES_BY_INDEX, ByIndex, Converting, EveryMode, sample, sample_by_index
from samples import (
    MODES,
    SHAPES,
    TOLERANCE,
    expected,
    generator,
    make_images,
    relative_error,
)
from torch import Tensor, nn

from racnn_ops import AttentionCrop, attention_crop

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
runs = importlib.import_module("onnx_runs")
crop_with_onnx, export, runner = runs.crop_with_onnx, runs.export, runs.runner

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:# The axis name")]


@pytest.mark.parametrize("form", range(4), ids=["B3", "BK3", "B4", "BK4"])
def test_every_mode(form: int) -> None:
    run = runner(export(EveryMode(), *sample(form)))
    for index in range(len(SHAPES)):
        images, windows = sample(form, index=index)
        (every_crop,) = run(images, windows)
        for (boundary, mask), crops in zip(MODES, every_crop, strict=True):
            exact = expected(images, windows, (7, 9), boundary=boundary, mask_steepness=mask)
            assert relative_error(crops, exact) <= TOLERANCE[torch.float32], (boundary, mask, SHAPES[index])


@pytest.mark.parametrize(("image_dtype", "options"), DTYPES, ids=str)
def test_every_dtype(image_dtype: torch.dtype, options: dict[str, Any]) -> None:
    images, windows = sample(dtype=image_dtype)
    module = Converting(image_dtype, **options)
    entry = images.float() if image_dtype == torch.bfloat16 else images
    crops = crop_with_onnx(module, entry, windows)
    assert crops.dtype == module(images, windows).dtype
    exact = expected(images, windows, (7, 9), **options)
    dtype = module.crop.options.of(images).dtype
    if dtype == torch.uint8:
        # The nearest integer, or one that only the float32 position makes the nearest.
        assert (crops.double() - exact).abs().max() <= 0.5 + 255 * TOLERANCE[torch.float32]
    else:
        worse = TOLERANCE[dtype] if image_dtype == torch.float64 else max(TOLERANCE[dtype], 1e-4)
        assert relative_error(crops, exact) <= worse


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8], ids=str)
def test_windows_that_are_not_finite_or_far_away(dtype: torch.dtype) -> None:
    inf, nan, far = float("inf"), float("nan"), 3e38
    windows = torch.tensor(
        [
            *[[nan, 5, 4], [5, inf, 4], [5, 5, -inf], [5, 5, nan], [6, 5, 4]],
            *[[far, 5, 4], [5, -far, far], [5, 5, far], [5, 5, -far], [far, far, far]],
        ]
    )
    images = make_images((1, 2, 9, 11), dtype, generator(dtype)).expand(len(windows), -1, -1, -1).contiguous()
    module = EveryMode()
    program, eager = export(module, images, windows), module(images, windows)
    graph = program.model.graph
    graph.outputs.extend(node.inputs[1] for node in graph if node.op_type == "GridSample")
    crops, *grids = runner(program)(images, windows)
    assert len(grids) == len(MODES)
    assert all(grid.isfinite().all() for grid in grids)  # what is no position would be read anywhere
    assert torch.equal(crops.isnan(), eager.isnan())
    lost = [dtype.is_floating_point] * 4 + [False] * 6
    assert all(each.isnan().flatten(1).all(1).tolist() == lost for each in eager)
    if dtype.is_floating_point:
        assert relative_error(crops.nan_to_num(), eager.nan_to_num()) <= TOLERANCE[dtype]
    else:
        assert (crops.int() - eager.int()).abs().max() <= 1


def test_empty_batches() -> None:
    images, windows = sample(form=1)
    run = runner(export(EveryMode(), images, windows))
    for sizes in ((0, 3, 3), (2, 0, 3)):
        (crops,) = run(images[: sizes[0]], torch.ones(sizes))
        assert crops.shape == (len(MODES), *sizes[:2], 3, 7, 9)


class Zoom(nn.Module):
    """Where a network looks, at half of the resolution it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.attention = nn.Conv2d(3, 4, 3), nn.Linear(4, 6)

    def forward(self, images: Tensor, offset: Tensor) -> Tensor:
        height, width = images.shape[2:]
        windows = self.attention(self.features(images).mean((2, 3))).sigmoid().unflatten(1, (2, 3)) * width
        windows = windows + offset.unsqueeze(1)
        return attention_crop(images, windows, (height // 2, width // 2), mask_steepness=1.0)


def test_model_with_computed_windows_and_crop_size() -> None:
    torch.manual_seed(0)
    model = Zoom()
    run = runner(export(model, torch.randn(2, 3, 16, 20), torch.zeros(2, 3)))
    for sizes in ((1, 3, 16, 20), (5, 3, 31, 12)):
        images, offset = torch.randn(sizes), torch.full((sizes[0], 3), 0.5)
        (crops,) = run(images, offset)
        assert relative_error(crops, model(images, offset)) <= 1e-4


@pytest.mark.parametrize("opset", [16, 18, 21, 23])
def test_every_opset_that_has_grid_sample(opset: int) -> None:
    """The other tests use torch's default."""
    images, windows = sample(form=3)
    options = {"mask_steepness": 0.7, "boundary": "clip"}
    crops = crop_with_onnx(AttentionCrop((7, 9), **options), images, windows, opset_version=opset)
    assert relative_error(crops, expected(images, windows, (7, 9), **options)) <= TOLERANCE[torch.float32]


class WithOffset(nn.Module):
    def forward(self, images: Tensor, windows: Tensor) -> Tensor:
        options = (5, 6, "zeros", None, [1.0] * 3, [0.5] * 3, torch.float32)
        return torch.ops.racnn_ops._crop_forward(images, windows, *options, offset=[1.0, -2.0, 3.5])


def test_offset_of_each_channel() -> None:
    images, windows = sample(form=1)
    windows[0, 0, 0] = float("nan")
    crops, exact = crop_with_onnx(WithOffset(), images, windows), WithOffset()(images, windows)
    assert torch.equal(crops.isnan(), exact.isnan())
    assert relative_error(crops.nan_to_num(), exact.nan_to_num()) <= 1e-5


def test_by_index() -> None:
    images, windows, index = sample_by_index()
    run = runner(export(ByIndex(), images, windows, index, sizes=SIZES_BY_INDEX))
    for count in (5, 3):
        (found,) = run(images, windows[:count], index[:count])
        expected = attention_crop(images, windows[:count], (7, 9), image_index=index[:count])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, equal_nan=True)
