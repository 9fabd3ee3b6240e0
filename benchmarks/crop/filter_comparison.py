# SPDX-License-Identifier: BSD-3-Clause
"""Resampling by longer filters: each contestant is checked, measured against ours, and timed by turns.

A gradient is timed alone, its forward being kept: unlike ``comparison``'s, a time is that of one step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .cases import Inputs
from .comparison import Collector
from .filter_cases import STEPS, FilterCase, floor_bytes, make_filter_inputs
from .filter_contestants import Crop, FilterContestant
from .pictures import STD
from .results import Record
from .timing import Call, calls_of_a_sample, interleaved, sampler
from .validation import TOLERANCE, WINDOW_GRAD_TOLERANCE, WrongResult, relative_error

LEVELS = 0.51
"""The largest difference allowed to our crops in uint8: they are rounded once."""
THEIR_LEVELS = 1.25
"""To others': they round between the axes too, and some weigh by integers."""
THEIR_NORMALISED = THEIR_LEVELS / (255 * min(STD))
"""The same after normalisation: they round to uint8 before it."""

Found = dict[str, Tensor]


class FilterComparison(Collector):
    """Collects the records of ``filters`` and ``refused``."""

    def run(self, case: FilterCase, contestants: Sequence[FilterContestant], rounds: int) -> None:
        most = torch.get_num_threads()
        torch.set_num_threads(case.threads or most)
        try:
            self._run(case, contestants, rounds)
        finally:
            torch.set_num_threads(most)

    def _run(self, case: FilterCase, contestants: Sequence[FilterContestant], rounds: int) -> None:
        inputs = make_filter_inputs(case, self.source, self.device)
        exact = Inputs(*(tensor.double() for tensor in inputs))
        for step in case.steps:
            calls: dict[FilterContestant, Call] = {}
            errors: dict[FilterContestant, Record] = {}
            found: dict[str, tuple[FilterContestant, Found]] = {}
            expected: dict[Crop, Found] = {}
            for contestant in contestants:  # ours come first
                if not contestant.takes_part(case, step):
                    continue
                call = make_call(contestant, inputs, case, step)
                try:
                    results = finished(contestant, call())
                    if contestant.expected not in expected:
                        expected[contestant.expected] = make_call(_truth(contestant), exact, case, step)()
                    theirs = check(contestant, case, results, expected[contestant.expected])
                    errors[contestant] = {"errors": theirs}
                    if contestant.measure in found:
                        errors[contestant] |= distance(contestant, case, results, *found[contestant.measure])
                except Exception as error:  # whatever it is, another's failure must not end the run
                    if contestant.measure is None:
                        raise
                    self.refuse(contestant.name, case.to_json(), step, error)
                else:
                    found.setdefault(contestant.name, (contestant, results))
                    calls[contestant] = call
            by_turns = {name: calls_of_a_sample([call], self.device) for name, call in calls.items()}
            measured = interleaved(by_turns, rounds, sampler(self.device), after_round=self.tick)
            for contestant, times in measured.items():
                self.times.append(
                    {
                        "case": case.to_json(),
                        "step": step,
                        "contestant": contestant.name,
                        "measure": contestant.measure,
                        "floor_bytes": floor_bytes(case, inputs.windows, step),
                        **errors[contestant],
                        **times._asdict(),
                    }
                )


def _truth(contestant: FilterContestant) -> FilterContestant:
    return replace(contestant, crop=contestant.expected, prepare=lambda images: images)


def make_call(
    contestant: FilterContestant, inputs: Inputs, case: FilterCase, step: str
) -> Callable[[], dict[str, Any]]:
    """What is timed; it returns crops, or the step's gradients."""
    images, windows, grad_output = inputs
    prepared = contestant.prepare(images)
    crop = partial(contestant.crop, dtype=case.out_type) if case.out_dtype else contestant.crop
    if not STEPS[step]:

        def forward() -> dict[str, Any]:
            with torch.no_grad():
                return {"crops": crop(prepared, windows, case.crop)}

        return forward
    leaves = {
        name: tensor.detach().requires_grad_()
        for name, tensor in (("images", images), ("windows", windows))
        if name in STEPS[step]
    }
    crops = crop(leaves.get("images", images), leaves.get("windows", windows), case.crop)

    def backward() -> dict[str, Any]:
        gradients = torch.autograd.grad(crops, tuple(leaves.values()), grad_output, retain_graph=True)
        return dict(zip(leaves, gradients, strict=True))

    return backward


def finished(contestant: FilterContestant, results: dict[str, Any]) -> Found:
    return {name: contestant.finish(got) if name == "crops" else got for name, got in results.items()}


def check(
    contestant: FilterContestant, case: FilterCase, results: Found, expected: Found
) -> dict[str, float]:
    """The results' errors, each by name; raises WrongResult."""
    errors = {}
    for name, got in results.items():
        if case.out_dtype and contestant.measure is not None:
            errors[name] = greatest(got, expected[name])
            allowed = THEIR_NORMALISED
        elif case.dtype == "uint8" and not case.out_dtype:
            errors[name] = greatest(got, expected[name])
            allowed = LEVELS if contestant.measure is None else THEIR_LEVELS
        else:
            errors[name] = relative_error(name, got, expected[name])
            allowed = WINDOW_GRAD_TOLERANCE if name == "windows" else TOLERANCE[case.out_dtype or case.dtype]
        _require(errors[name] <= allowed, f"{name} differ by {errors[name]:.2g}; {allowed:.2g} is allowed")
    return errors


def distance(
    contestant: FilterContestant, case: FilterCase, results: Found, ours: FilterContestant, our_results: Found
) -> dict[str, float]:
    """From ours: the largest difference where both have one filter, PSNR where they have not."""
    if contestant.has_filter_of(ours):
        return {"difference": max(greatest(got, our_results[name]) for name, got in results.items())}
    if "crops" not in results:
        return {}
    return {"psnr": psnr(results["crops"], our_results["crops"], case)}


def greatest(got: Tensor, expected: Tensor) -> float:
    _require(got.shape == expected.shape, f"shape {tuple(got.shape)}, not {tuple(expected.shape)}")
    return float((got.double() - expected.double()).abs().max())


def psnr(got: Tensor, expected: Tensor, case: FilterCase) -> float:
    """In dB."""
    _require(got.shape == expected.shape, f"shape {tuple(got.shape)}, not {tuple(expected.shape)}")
    whole = 255 if case.dtype == "uint8" else 1
    error = float((got.double() - expected.double()).square().mean()) / whole**2
    return -10 * math.log10(max(error, 1e-30))


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise WrongResult(reason)
