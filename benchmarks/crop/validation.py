# SPDX-License-Identifier: BSD-3-Clause
"""Nobody is timed whose results are wrong."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from .cases import Case, Inputs
from .contestants import OURS, Contestant, Crop, Step, make_step

TOLERANCE = {"float32": 3e-4, "float16": 2e-3, "bfloat16": 1e-2}
"""Largest difference allowed, as a fraction of the largest expected value, by the result's dtype."""
WINDOW_GRAD_TOLERANCE = 2e-3
"""The same for a window's gradient, which is accumulated in float32 whatever the images are."""
COORDINATE_ERROR = 2 * torch.finfo(torch.float32).eps
"""In pixels for each of an image's side: others take coordinates as fractions of it, in float32. Only where
images are wider than a thousand pixels is it more than the tolerance; ours need none of it."""


class WrongResult(Exception):
    """A contestant's result is not what it must be."""


class Validator:
    """Compares with the reference in float64, which is computed once for a case."""

    def __init__(self, case: Case, inputs: Inputs) -> None:
        self.case = case
        self.inputs = inputs
        self._expected: dict[Crop, dict[str, Tensor]] = {}

    def check(self, contestant: Contestant, step: Step) -> dict[str, float]:
        """The errors of the step's results, each by name; raises WrongResult."""
        expected = self._expected_of(contestant)
        errors = {}
        for name, got in step().items():
            errors[name] = relative_error(name, got, expected[name])
            allowed = self._tolerance(contestant, name)
            if not errors[name] <= allowed:
                raise WrongResult(
                    f"{name} differ by {errors[name]:.2g} of the largest value; {allowed:.2g} is allowed"
                )
        return errors

    def _tolerance(self, contestant: Contestant, name: str) -> float:
        if name == "windows":
            return WINDOW_GRAD_TOLERANCE
        tolerance = TOLERANCE[self.case.out_dtype if name == "crops" else self.case.dtype]
        return (
            tolerance if contestant is OURS else max(tolerance, COORDINATE_ERROR * max(self.case.image_size))
        )

    def _expected_of(self, contestant: Contestant) -> dict[str, Tensor]:
        if contestant.expected not in self._expected:
            images, windows, grad_output = self.inputs
            exact = Inputs(images.double(), windows, grad_output.double())
            crop = partial(contestant.expected, size=(self.case.crop, self.case.crop))
            most = next(mode for mode in reversed(self.case.modes) if contestant.takes_part(mode))
            self._expected[contestant.expected] = make_step(crop, contestant.gradients, exact, most)()
        return self._expected[contestant.expected]


def relative_error(name: str, got: Tensor, expected: Tensor) -> float:
    if got.shape != expected.shape:
        raise WrongResult(f"{name} have shape {tuple(got.shape)}, not {tuple(expected.shape)}")
    difference = (got.detach().double() - expected.detach()).abs().max()
    return float(difference / expected.detach().abs().max())
