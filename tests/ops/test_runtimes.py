# SPDX-License-Identifier: BSD-3-Clause
"""OpenVINO and ExecuTorch give the numbers of the specification for exported crops."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from exported import FILTERS, NORMALISED, Crops, export, sample
from samples import TOLERANCE, expected, relative_error
from torch import Tensor

pytestmark = pytest.mark.slow

Runner = Callable[[Tensor, Tensor], Tensor]

TWO_TAPS: list[dict[str, Any]] = [
    {},
    {"boundary": "border", "mask_steepness": 0.7},
    {"boundary": "clip", **NORMALISED},
    {"fill": [0.1, 0.7, 0.3]},
]


def openvino(program: torch.export.ExportedProgram) -> Runner:
    runtime = importlib.import_module("openvino")
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # by default bfloat16, where the processor has it
    model = runtime.compile_model(runtime.convert_model(program), "CPU", exact)

    def run(*arguments: Tensor) -> Tensor:
        return torch.from_numpy(model([argument.numpy() for argument in arguments])[0])

    return run


def executorch(program: torch.export.ExportedProgram) -> Runner:
    """With the portable kernels."""
    lower = importlib.import_module("executorch.exir").to_edge_transform_and_lower
    runtime = importlib.import_module("executorch.runtime").Runtime.get()
    loaded = runtime.load_program(lower(program).to_executorch().buffer)
    method = loaded.load_method("forward")

    def run(*arguments: Tensor) -> Tensor:
        return method.execute(list(arguments))[0].clone()  # type: ignore[no-any-return]

    return run


each_runtime = pytest.mark.parametrize(
    "runtime",
    [
        pytest.param(run, marks=pytest.mark.skipif(find_spec(run.__name__) is None, reason="not installed"))
        for run in (openvino, executorch)
    ],
)


@each_runtime
@pytest.mark.parametrize("options", [TWO_TAPS, FILTERS], ids=["two taps", "filters"])
def test_any_batch(runtime: Callable[..., Runner], options: list[dict[str, Any]]) -> None:
    images, windows = sample(3)
    windows[0, 1, 0] = float("nan")
    batch = torch.export.Dim("batch", min=1, max=4)  # ExecuTorch plans its memory
    run = runtime(export(Crops(options), images, windows, sizes=({0: batch}, {0: batch})))
    for count in (2, 1):
        some = images[:count], windows[:count]
        for each, crops in zip(options, run(*some), strict=True):
            exact = expected(*some, (7, 9), **each)
            assert torch.equal(crops.isnan(), exact.isnan())
            assert relative_error(crops.nan_to_num(), exact.nan_to_num()) <= TOLERANCE[torch.float32], each


@each_runtime
@pytest.mark.parametrize("options", [{}, {"antialias": True}], ids=["two taps", "antialias"])
def test_uint8(runtime: Callable[..., Runner], options: dict[str, Any]) -> None:
    images, windows = sample(2, torch.uint8)
    crops = runtime(export(Crops([options]), images, windows, sizes=(None, None)))(images, windows)[0]
    assert crops.dtype == torch.uint8
    exact = expected(images, windows, (7, 9), **options)
    assert (crops.double() - exact).abs().max() <= 0.5 + 255 * TOLERANCE[torch.float32]
