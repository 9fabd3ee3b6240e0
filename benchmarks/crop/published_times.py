# SPDX-License-Identifier: BSD-3-Clause
"""Times the crop steps of published models against the operator's call.

Both are compared with the model's own step in float64 before they are timed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from record.section import table

from .published import Step, Way
from .published_attention import Inputs
from .results import Record, times_ours
from .timing import calls_of_a_sample, interleaved, sampler
from .validation import TOLERANCE, WrongResult, relative_error

NAME = "models"
THEIRS, OURS = "theirs", "racnn_ops"
FLOAT32 = TOLERANCE["float32"]
BITS = 1e-6
"""Of all pixels: those so near to a threshold that rounding decides."""
LEVEL = 1e-2
"""Of OpenCV on uint8: a level and a quarter of 255, after normalisation."""


def cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """Floats and, unless ``dtype`` is uint8, pixels of uint8 in this dtype."""

    def one(values: Tensor) -> Tensor:
        if values.is_floating_point():
            return values.float() if dtype == torch.uint8 else values.to(dtype)
        return values.to(dtype) if values.dtype == torch.uint8 else values

    return {name: one(values) for name, values in inputs.items()}


def run(way: Way, inputs: Inputs, gradients: Sequence[str], weights: Tensor | None = None) -> Inputs:
    """The result, and the gradients of its sum with weights, by default random ones, by name."""
    if not gradients:
        with torch.no_grad():
            return {"crops": way(**inputs)}
    leaves = {name: inputs[name].detach().requires_grad_() for name in gradients}
    crops = way(**inputs | leaves)
    if weights is None:
        weights = torch.randn(crops.shape, generator=torch.Generator().manual_seed(1)).to(crops)
    found = torch.autograd.grad(crops, list(leaves.values()), weights)
    return {"crops": crops.detach(), **dict(zip(leaves, found, strict=True))}


def expected(step: Step, way: Way, inputs: Inputs) -> Inputs:
    """Of ``way``, theirs or the limit, in float64."""
    return run(way, cast(inputs, torch.float64), step.gradients)


def check(step: Step, way: Way, inputs: Inputs, dtype: torch.dtype, exact: Inputs) -> dict[str, float]:
    """Errors of results in ``dtype``, each by name; raises WrongResult."""
    found = run(way, cast(inputs, dtype), step.gradients)
    errors = {}
    for name, values in found.items():
        if values.dtype == torch.bool:
            errors[name], allowed = float((values != exact[name]).double().mean()), BITS
        else:
            errors[name] = relative_error(name, values, exact[name])
            allowed = step.exact if dtype == torch.float64 else max(FLOAT32, step.exact)
            if dtype == torch.uint8 and way is step.theirs and step.needs == "cv2":
                allowed = LEVEL
        if not errors[name] <= allowed:
            what = f"{step.name}: {name} differ by {errors[name]:.2g} of the largest value"
            raise WrongResult(f"{what}; {allowed:.2g} is allowed")
    return errors


def times(step: Step, device: torch.device, rounds: int, tick: Callable[[], None]) -> list[Record]:
    """A record for each contestant and mode."""
    inputs = {name: values.to(device) for name, values in step.make().items()}
    is_uint8 = any(values.dtype == torch.uint8 for values in inputs.values())
    dtype = torch.uint8 if is_uint8 else torch.float32
    ways = {OURS: step.ours, THEIRS: step.theirs}
    published = expected(step, step.theirs, inputs)
    limit = published if step.limit is None else expected(step, step.limit, inputs)
    errors = {
        name: check(step, way, inputs, dtype, published if name == THEIRS else limit)
        for name, way in ways.items()
    }
    ready, weights = cast(inputs, dtype), torch.ones_like(published["crops"], dtype=torch.float32)
    shapes = next(iter(inputs.values())).shape, published["crops"].shape
    record: Record = {
        "model": step.model,
        "step": step.what,
        "label": " → ".join("x".join(map(str, shape)) for shape in shapes),
        "difference": difference(step.ours(**ready), published["crops"]),
    }
    records = []
    for mode, gradients in step.modes.items():
        calls = {
            name: calls_of_a_sample([partial(run, way, ready, gradients, weights)], device)
            for name, way in ways.items()
        }
        measured = interleaved(calls, rounds, sampler(device), after_round=tick)
        records += [
            record | {"mode": mode, "contestant": name, "errors": errors[name], **each._asdict()}
            for name, each in measured.items()
        ]
    return records


def difference(ours: Tensor, published: Tensor) -> float:
    """Of ours from what the model computes: the largest, of the largest value; of bools, how many."""
    if ours.dtype == torch.bool:
        return float((ours != published).double().mean())
    return relative_error("crops", ours, published)


CAPTION = """\
The crop step of published models: theirs as their public code does it, ours by one call. In brackets: times
ours; bold: ours takes longer. ±: the largest difference of ours from theirs in float64, of the largest
value; of comparisons, the share of pixels."""


def is_alone(data: Record) -> bool:
    """Of a report: nothing else was measured."""
    return bool(data.get(NAME)) and not data["times"]


def models_table(data: Record) -> str:
    """Of ``data["models"]``; "" where there is nothing."""
    rows = []
    for ours, theirs in pairs(data):
        seconds = ours["median_s"], theirs["median_s"]
        ratio = times_ours(seconds[1] / seconds[0])
        cells = f"{1e3 * seconds[0]:.3g} ms", f"{1e3 * seconds[1]:.3g} ms ({ratio})"
        what = f"{ours['model']}: {ours['step']}, {ours['label']}"
        rows.append([what, ours["mode"], *cells, f"±{ours['difference']:.0e}"])
    return f"{CAPTION}\n\n{table(['', '', OURS, THEIRS, 'differs'], rows)}" if rows else ""


def pairs(data: Record) -> list[tuple[Record, Record]]:
    """Ours and theirs of each step and mode."""
    found: dict[tuple[str, ...], dict[str, Record]] = {}
    for record in data.get(NAME, []):
        row = record["model"], record["step"], record["mode"]
        found.setdefault(row, {})[record["contestant"]] = record
    return [(pair[OURS], pair[THEIRS]) for pair in found.values()]
