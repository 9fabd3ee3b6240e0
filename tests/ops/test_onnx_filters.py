# SPDX-License-Identifier: BSD-3-Clause
"""onnxruntime gives the reference's numbers for every exported filter, too: by tables and matrix products."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from exported import FILTERS, Crops, sample
from samples import SHAPES, TOLERANCE, expected, generator, relative_error
from torch import Tensor, nn

from racnn_ops import AttentionCrop, attention_crop, reference

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
runs = importlib.import_module("onnx_runs")
crop_with_onnx, export, runner = runs.crop_with_onnx, runs.export, runs.runner

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:# The axis name")]


@pytest.mark.parametrize(("form", "filters"), [(0, FILTERS[-2:]), (3, FILTERS)], ids=["B3", "BK4"])
def test_every_filter(form: int, filters: list[dict[str, Any]]) -> None:
    """Of any batch, number of windows and size of image, empty ones too."""
    program = export(Crops(filters), *sample(form))
    assert not any(node.op_type in ("GridSample", "Einsum") for node in program.model.graph)
    run = runner(program)
    for index in range(len(SHAPES)):
        images, windows = sample(form, index=index)
        (every_crop,) = run(images, windows)
        for options, crops in zip(filters, every_crop, strict=True):
            exact = reference.attention_crop(images, windows, (7, 9), **options)
            assert relative_error(crops, exact) <= 1e-5, (options, SHAPES[index])
    for emptied in ((images[:0], windows[:0]), (images[:, :0], windows), (images, windows[:, :0])):
        if form == 3 or emptied[1].shape[1] == 3:  # only these have a K
            (crops,) = run(*emptied)
            assert crops.shape == (len(filters), *emptied[1].shape[:-1], emptied[0].shape[1], 7, 9)


def test_what_is_not_finite() -> None:
    images, windows = sample(form=3)
    windows[0, 0, 1], windows[0, 1, 0], windows[0, 2, 3] = float("nan"), 3e38, 3e38
    images[1, 0, 5, 6] = float("inf")
    windows[1, 0] = torch.tensor([6.0, 5.0, 4.0, 5.0])
    options = FILTERS[3]
    crops = crop_with_onnx(AttentionCrop((7, 9), **options), images, windows)
    exact = reference.attention_crop(images, windows, (7, 9), **options)
    assert exact[0].isnan().flatten(1).all(1).tolist() == [True, False, False]
    assert exact[1, 0, 0].isnan().any()
    assert not exact[1, 0, 1:].isnan().any()
    assert torch.equal(crops.isnan(), exact.isnan())
    assert relative_error(crops.nan_to_num(), exact.nan_to_num()) <= 1e-5


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.float64, {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}),
        (torch.float16, {}),
        (torch.uint8, {}),
        (torch.uint8, {"std": 0.25, "dtype": torch.float16}),
    ],
    ids=str,
)
def test_every_dtype(dtype: torch.dtype, options: dict[str, Any]) -> None:
    images, windows = sample(form=1, dtype=dtype)
    module = AttentionCrop((7, 9), interpolation="lanczos3", boundary="border", **options)
    crops, eager = crop_with_onnx(module, images, windows), module(images, windows)
    assert crops.dtype == eager.dtype
    exact = expected(images, windows, (7, 9), interpolation="lanczos3", boundary="border", **options)
    if crops.dtype == torch.uint8:
        assert (crops.double() - exact.clamp(0, 255)).abs().max() <= 0.5 + 255 * TOLERANCE[torch.float32]
    else:
        assert relative_error(crops, exact) <= TOLERANCE[crops.dtype]


class Labels(nn.Module):
    """The crops of one map as several dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.crop = AttentionCrop((7, 9), interpolation="nearest")
        self.filled = AttentionCrop((7, 9), interpolation="nearest", fill=65535)

    def forward(self, images: Tensor, windows: Tensor) -> tuple[Tensor, ...]:
        dtypes = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint32, torch.bool)
        crops = (self.crop(images.to(dtype), windows) for dtype in dtypes)
        large = self.crop(images.to(torch.uint64), windows).to(torch.int64)  # numpy's uint64 is two types
        return *crops, large, self.filled(images.to(torch.uint16), windows)


def test_integers_and_bool_are_selected_exactly() -> None:
    _, windows = sample(form=3)
    windows[0, 0, 0] = float("nan")
    images = torch.randint(-(2**62), 2**62, (2, 3, 20, 30), generator=generator("labels"))
    every_crop = runner(export(Labels(), images, windows))(images, windows)
    for crops, exact in zip(every_crop, Labels()(images, windows), strict=True):
        assert crops.dtype == exact.dtype
        assert (crops.numpy() == exact.numpy()).all()


@pytest.mark.parametrize("options", [{}, {"interpolation": "bicubic"}], ids=["two taps", "bicubic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8], ids=str)
def test_fill(options: dict[str, Any], dtype: torch.dtype) -> None:
    images, windows = sample(form=1, dtype=dtype)
    fill = [10, 200, 90] if dtype == torch.uint8 else [0.1, 0.7, 0.3]
    module = AttentionCrop((7, 9), fill=fill, **options)
    crops, exact = crop_with_onnx(module, images, windows), module(images, windows)
    tolerance = 1 if dtype == torch.uint8 else 1e-5
    assert (crops.double() - exact.double()).abs().max() <= tolerance


class Half(nn.Module):
    """At half of the resolution it was given."""

    def forward(self, images: Tensor, windows: Tensor) -> Tensor:
        size = (images.shape[2] // 2, images.shape[3] // 2)
        return attention_crop(images, windows, size, antialias=True, boundary="window")


@pytest.mark.parametrize("opset", [18, 23])
def test_computed_crop_size_in_every_opset(opset: int) -> None:
    """The other tests use torch's default."""
    run = runner(export(Half(), *sample(form=3), opset_version=opset))
    for index in (0, 3):
        images, windows = sample(form=3, index=index)
        (crops,) = run(images, windows)
        assert relative_error(crops, Half()(images, windows)) <= TOLERANCE[torch.float32]
