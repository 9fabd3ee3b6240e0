# SPDX-License-Identifier: BSD-3-Clause
"""Exported programs of ATen operators alone give the same numbers, in a process without this package."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from exported import (
    DTYPES,
    FILTERS,
    SIZES_BY_INDEX,
    ByIndex,
    Crops,
    EveryMode,
    export,
    sample,
    sample_by_index,
)
from programs import run_checked
from samples import MODES, SHAPES, TOLERANCE, expected, relative_error
from torch import Tensor, nn

from racnn_ops import AttentionCrop, attention_crop, decompositions, paste

pytestmark = pytest.mark.slow

# Runs NAME.pt2 on the inputs in NAME.inputs.
ELSEWHERE = """
import pathlib, sys
sys.modules["racnn_ops"] = None  # an import is an ImportError
import torch
for file in pathlib.Path(sys.argv[1]).glob("*.pt2"):
    program = torch.export.load(file).module()
    found = [program(*arguments) for arguments in torch.load(file.with_suffix(".inputs"))]
    torch.save(found, file.with_suffix(".outputs"))
assert not [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("racnn_ops")]
"""

Inputs = Sequence[tuple[Tensor, ...]]


def run_elsewhere(
    folder: Path, programs: dict[str, tuple[torch.export.ExportedProgram, Inputs]]
) -> dict[str, list[Any]]:
    """The outputs of each program for each of its inputs, made by another process."""
    for name, (program, inputs) in programs.items():
        torch.export.save(program, folder / f"{name}.pt2")
        torch.save(list(inputs), folder / f"{name}.inputs")
    run_checked(sys.executable, "-c", ELSEWHERE, folder)
    return {name: torch.load(folder / f"{name}.outputs") for name in programs}


class EveryForm(nn.Module):
    """What is made of single crops."""

    def forward(self, images: Tensor, windows: Tensor, flip: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        crops = attention_crop(images, windows, (7, 9), flip=flip)
        return (
            crops,
            attention_crop(images, windows[0], (7, 9), image_index=index),
            attention_crop(images, [windows[0, :1], windows[1]], (7, 9)),
            attention_crop([images[0], images[1, :, 1:]], list(windows), (7, 9), antialias=True),
            attention_crop(images, windows, (7, 9), window_grad="boxcar"),
            attention_crop((images * 100).long(), windows, (7, 9), interpolation="nearest", fill=7),
            paste(crops, windows, (20, 30), edges="hard", fill=0.5),
            paste(crops, windows, (20, 30), interpolation="bicubic", reduce="sum"),
            paste(crops, windows, (20, 30), threshold=0.25),
        )


def test_a_process_without_this_package_gives_the_same(tmp_path: Path) -> None:
    modes = [sample(1, index=index) for index in range(len(SHAPES))]
    filters = [sample(3, index=index) for index in range(len(SHAPES))]
    images, windows = sample(3)
    forms = (
        images,
        windows,
        torch.tensor([[False, True, True], [True, False, False]]),
        torch.tensor([1, 5, 0]),
    )
    found = run_elsewhere(
        tmp_path,
        {
            "modes": (export(EveryMode(), *modes[0]), modes),
            "filters": (export(Crops(FILTERS), *filters[0]), filters),
            "forms": (export(EveryForm(), *forms, sizes=(None,) * 4), [forms]),
        },
    )
    options = [{"boundary": boundary, "mask_steepness": mask} for boundary, mask in MODES]
    for name, inputs, table in (("modes", modes, options), ("filters", filters, FILTERS)):
        for arguments, every_crop in zip(inputs, found[name], strict=True):
            for each, crops in zip(table, every_crop, strict=True):
                exact = expected(*arguments, (7, 9), **each)
                assert relative_error(crops, exact) <= TOLERANCE[torch.float32], (each, arguments[0].shape)
    for here, elsewhere in zip(EveryForm()(*forms), *found["forms"], strict=True):
        torch.testing.assert_close(elsewhere, here, rtol=1e-4, atol=2e-5, equal_nan=True)


@pytest.mark.parametrize(("image_dtype", "options"), DTYPES, ids=str)
def test_every_dtype(image_dtype: torch.dtype, options: dict[str, Any]) -> None:
    images, windows = sample(dtype=image_dtype)
    module = AttentionCrop((7, 9), **options)
    crops, eager = export(module, images, windows).module()(images, windows), module(images, windows)
    assert crops.dtype == eager.dtype
    exact = expected(images, windows, (7, 9), **options)
    if crops.dtype == torch.uint8:
        # The nearest integer, or one that only the float32 position makes the nearest.
        assert (crops.double() - exact).abs().max() <= 0.5 + 255 * TOLERANCE[torch.float32]
    else:
        worst = TOLERANCE[crops.dtype] if image_dtype == torch.float64 else max(TOLERANCE[crops.dtype], 1e-4)
        assert relative_error(crops, exact) <= worst


@pytest.mark.parametrize("filter", [{}, {"interpolation": "lanczos3"}], ids=["two taps", "lanczos3"])
def test_float64_is_computed_in_float64(filter: dict[str, Any]) -> None:
    images, windows = sample(3, torch.float64)
    options = {"mean": 0.1, "std": 0.3, "mask_steepness": 0.7, **filter}
    crops = export(AttentionCrop((7, 9), **options), images, windows).module()(images, windows)
    assert relative_error(crops, expected(images, windows, (7, 9), **options)) <= TOLERANCE[torch.float64]


class Direct(nn.Module):
    """Calls of the operator that no public function makes in a graph."""

    def forward(self, images: Tensor, windows: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        operator = torch.ops.racnn_ops._crop_forward
        scaled = (5, 6, "zeros", None, [1.0] * 3, [0.5] * 3, torch.float32)
        mirrored = torch.cat((windows[:, :3], torch.ones_like(windows[:, :1]), windows[:, 3:]), -1)
        return (
            operator(images, windows, *scaled, offset=[1.0, -2.0, 3.5], image_index=index),
            operator(images, mirrored, *scaled),
        )


def test_direct_calls() -> None:
    arguments = (*sample(2), torch.tensor([1, -1]))
    with torch.no_grad():
        eager = Direct()(*arguments)
    found = export(Direct(), *arguments, sizes=(None,) * 3).module()(*arguments)
    assert eager[0][1].isnan().all()
    for here, decomposed in zip(eager, found, strict=True):
        torch.testing.assert_close(decomposed, here, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_any_number_of_windows_by_index() -> None:
    images, windows, index = sample_by_index()
    program = export(ByIndex(), images, windows, index, sizes=SIZES_BY_INDEX).module()
    for count in (5, 3):
        exact = ByIndex()(images, windows[:count], index[:count])
        found = program(images, windows[:count], index[:count])
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize(
    "options", [{}, {"antialias": True}, {"memory_format": torch.contiguous_format}], ids=str
)
def test_results_have_the_layout_of_the_operators(options: dict[str, Any]) -> None:
    images, windows = sample(3)
    images = images.contiguous(memory_format=torch.channels_last)
    module = AttentionCrop((7, 9), **options)
    crops, eager = export(module, images, windows).module()(images, windows), module(images, windows)
    assert crops.stride() == eager.stride()
    torch.testing.assert_close(crops, eager, rtol=1e-4, atol=1e-5)


def test_windows_and_pixels_that_are_not_finite() -> None:
    images, windows = sample(1)
    windows[0] = torch.tensor([[float("nan"), 5, 4], [5, 5, float("inf")], [3e38, -3e38, 3e38]])
    windows[1, 0] = torch.tensor([6.0, 5.0, 4.0])
    images[1, 0, 5, 6] = float("inf")
    module = Crops([{}, FILTERS[3], FILTERS[7]])
    crops, eager = export(module, images, windows).module()(images, windows), module(images, windows)
    assert eager[:, 0].isnan().flatten(2).all(2).tolist() == [[True, True, False]] * len(eager)
    finite = eager.isfinite()  # kernels give infinity where the reference gives NaN
    assert torch.equal(crops.isfinite(), finite)
    torch.testing.assert_close(crops[finite], eager[finite], rtol=1e-4, atol=1e-4)


class Differentiated(nn.Module):
    def forward(self, images: Tensor, windows: Tensor) -> Tensor:
        grad_output = images.new_ones(images.shape[0], images.shape[1], 5, 5)
        return torch.ops.racnn_ops._crop_window_grad(grad_output, images, windows, "zeros", None, [], [])


def test_derivatives_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="_crop_window_grad, of a derivative of attention_crop"):
        export(Differentiated(), *sample())


def test_without_the_library_the_reference_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("racnn_ops._library.has_cpu", False)
    assert decompositions() == {}
    images, windows = sample()
    crops = export(AttentionCrop((7, 9)), images, windows).module()(images, windows)
    assert relative_error(crops, expected(images, windows, (7, 9))) <= TOLERANCE[torch.float32]
