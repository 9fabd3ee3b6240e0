# SPDX-License-Identifier: BSD-3-Clause
"""Published models' crop steps are the operator's, in values and gradients; and the rows that time both."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import bench_crop
from crop import published, published_times, report
from crop import published_attention as attention
from crop import published_detection as detection
from crop.published import STEPS, Step
from crop.published_times import LEVEL, OURS, THEIRS, cast, check, expected
from crop.results import Results
from crop.validation import WrongResult
from racnn_ops import _library

if not _library.has_cpu:
    pytest.skip(f"no compiled library: {_library.cpu_error}", allow_module_level=True)

PAGE = Path(__file__).resolve().parents[2] / "racnn_ops" / "REPLACES.md"
CPU = torch.device("cpu")
DTYPES = (torch.float64, torch.float32, torch.uint8)


def few(step: Step) -> Step:
    """Of the model's own sizes."""
    pytest.importorskip(step.needs)
    return replace(step, count=min(step.count, 2))


def named(model: str, what: str) -> Step:
    (step,) = (step for step in STEPS if model in step.model and what in step.what)
    return step


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_the_operator_is_the_models_step(step: Step) -> None:
    step = few(step)
    inputs = step.make()
    exact = expected(step, step.limit or step.theirs, inputs)
    has_uint8 = any(values.dtype == torch.uint8 for values in inputs.values())
    for dtype in DTYPES if has_uint8 else DTYPES[:2]:
        errors = check(step, step.ours, inputs, dtype, exact)
        assert errors.keys() == {"crops", *step.gradients}
    for name in exact:
        values = exact[name].double()
        assert bool((values != values.flatten()[0]).any()), f"{name} say nothing"


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_it_would_be_seen_if_ours_were_wrong(step: Step) -> None:
    """A tenth of a pixel beside; half of a gradient."""
    step = few(step)
    inputs = step.make()
    exact = expected(step, step.limit or step.theirs, inputs)
    for dtype in DTYPES[:2]:
        with pytest.raises(WrongResult, match="crops differ by"):
            check(step, moved(step), inputs, dtype, exact)
        for name in step.gradients:
            with pytest.raises(WrongResult, match=f"{name} differ by"):
                check(step, halved(step, name), inputs, dtype, exact)


def moved(step: Step) -> published.Way:
    """Ours, where all windows have moved."""

    def way(**inputs: Tensor) -> Tensor:
        with pytest.MonkeyPatch.context() as patch:
            for module in (attention, detection):
                for name in ("attention_crop", "paste"):
                    patch.setattr(module, name, beside(getattr(module, name)))
            return step.ours(**inputs)

    return way


def beside(function: published.Way) -> published.Way:
    def way(images: Tensor, windows: Tensor | list[Tensor], *rest: object, **options: object) -> Tensor:
        if isinstance(windows, list):
            return way(images, windows[0], *rest, **options, image_index=torch.zeros(len(windows[0])).long())
        shift = torch.zeros_like(windows)
        shift[..., :1] = 0.1
        return function(images, windows + shift, *rest, **options)

    return way


def halved(step: Step, name: str) -> published.Way:
    def way(**inputs: Tensor) -> Tensor:
        inputs[name] = (inputs[name] + inputs[name].detach()) / 2
        return step.ours(**inputs)

    return way


def test_torchvisions_steps_are_its_own() -> None:
    """What is stated anew, against what is installed."""
    heads = pytest.importorskip("torchvision.models.detection.roi_heads")
    inputs = detection.paste_inputs(3, torch.Generator())
    images = heads.paste_masks_in_image(inputs["masks"], inputs["found"], detection.PHOTOGRAPH)
    assert torch.equal(detection.torchvision_paste(**inputs), images)
    inputs = detection.targets_inputs(16, torch.Generator().manual_seed(0))
    masks = heads.project_masks_on_boxes(inputs["masks"], inputs["proposals"], inputs["matched"], 28)
    assert torch.equal(detection.targets(**inputs)[:, 0], masks)


def test_roi_aligns_samples_tend_to_our_mean() -> None:
    """Mask targets: the one step that is not the model's; more samples, the nearer."""
    pytest.importorskip("torchvision")
    inputs = cast(replace(named("Mask R-CNN", "targets"), count=32).make(), torch.float64)
    ours = detection.targets_ours(**inputs)
    before = 1.0
    for samples in (2, 4, 8, 16):
        error = float((detection.targets(**inputs, samples=samples) - ours).abs().mean())
        assert error < before / 2
        before = error
    assert error < 1e-4
    theirs = detection.targets(**inputs)
    assert ((theirs >= 0.5) != (ours >= 0.5)).double().mean() < 0.01


def test_an_enlarged_search_region_differs_around_its_edge_alone() -> None:
    pytest.importorskip("cv2")
    step = named("SiamFC", "scales")
    inputs = cast(step.make(), torch.float64) | {"sides": torch.tensor([120.0, 140.0], dtype=torch.float64)}
    difference = (step.theirs(**inputs) - step.ours(**inputs)).abs()
    assert difference[..., 1:-1, 1:-1].max() < 1e-9
    assert difference.max() > 10


def test_opencv_rounds_to_levels_and_ours_does_not() -> None:
    pytest.importorskip("cv2")
    for step in STEPS:
        if step.needs == "cv2":
            inputs = step.make()
            exact = expected(step, step.theirs, inputs)
            theirs = check(step, step.theirs, inputs, torch.uint8, exact)
            ours = check(step, step.ours, inputs, torch.uint8, exact)
            assert ours["crops"] < theirs["crops"] / 10 < LEVEL / 10


def test_everyone_is_timed_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``--models`` does."""
    steps = tuple(few(step) for step in STEPS if step.gradients and "SPACE" not in step.model)
    monkeypatch.setattr(published, "STEPS", steps)
    options = ["--models", "--rounds", "12", "--device", "cpu", "--synthetic", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bench_crop.py", *options])
    bench_crop.main()
    (path,) = tmp_path.glob("cpu-*-models.json")
    data = json.loads(path.read_text())
    assert not data["times"]
    rows = [
        (step.model, step.what, mode, who) for step in steps for mode in step.modes for who in (OURS, THEIRS)
    ]
    keys = ("model", "step", "mode", "contestant")
    assert [tuple(record[key] for key in keys) for record in data["models"]] == rows
    for record in data["models"]:
        assert record["samples"] == 3
        assert record["errors"].keys() > {"crops"}
        assert record["difference"] < published_times.FLOAT32
        record["median_s"] = 0.01 if record["contestant"] == OURS else 0.004
    text = path.with_suffix(".md").read_text()
    assert published_times.CAPTION in text
    assert "|  | forward |" not in text
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    text = report.tables(data)
    assert text == published_times.models_table(data)
    assert text.count("| 10 ms | 4 ms (**0.40x**) |") == len(rows) / 2
    assert "2x3x224x224 → 2x3x128x128" in text
    assert report.details(Results(data))
    assert published_times.models_table({}) == ""


def test_nobody_wrong_is_timed() -> None:
    step = few(named("AdaFocus", "patch"))
    for wrong in (replace(step, ours=moved(step)), replace(step, ours=halved(step, "actions"))):
        with pytest.raises(WrongResult, match="AdaFocus V2: a patch of every frame: "):
            published_times.times(wrong, CPU, 3, lambda: None)


def test_quick_runs_have_an_eighth_and_gpus_no_opencv() -> None:
    assert [step.name for step in published.steps(CPU, quick=True)] == [step.name for step in STEPS]
    assert {step.count for step in published.steps(CPU, quick=True)} == {
        max(step.count // 8, 1) for step in STEPS
    }
    on_gpu = published.steps(torch.device("cuda"), quick=False)
    assert on_gpu == [step for step in STEPS if step.needs != "cv2"]


def test_readers_find_every_model() -> None:
    """REPLACES.md ends with what the table of steps says."""
    section = PAGE.read_text(encoding="utf-8").split("\n## ")[-1]
    assert section.startswith("In published models\n")
    assert section.endswith("\n\n" + published.listing())
