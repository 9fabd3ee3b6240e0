# SPDX-License-Identifier: BSD-3-Clause
"""Runs contestants on cases: checks each, then times by turns those whose results are right."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from .cases import Case, Inputs, floor_of_mode, make_inputs
from .contestants import OURS, Contestant, crop_function, make_step
from .images import Source
from .results import Record
from .timing import Call, calls_of_a_sample, input_sets, interleaved, sampler
from .validation import Validator, WrongResult


def all_inputs(case: Case, source: Source, device: torch.device) -> list[Inputs]:
    return [make_inputs(case, source, device, seed) for seed in range(input_sets(case, device))]


class Collector:
    """Collects records of times and of contestants that were refused.

    Args:
        tick: called after each round, for a progress bar.
    """

    def __init__(self, source: Source, device: torch.device, tick: Callable[[], None]) -> None:
        self.source = source
        self.device = device
        self.tick = tick
        self.times: list[Record] = []
        self.refused: list[Record] = []

    def refuse(self, contestant: str, case: Record, mode: str, error: Exception) -> None:
        reason = str(error) if isinstance(error, WrongResult) else f"{type(error).__name__}: {error}"
        self.refused.append({"contestant": contestant, "case": case, "mode": mode, "reason": reason})


class Comparison(Collector):
    """Collects the records of ``times`` and ``refused``."""

    def run(self, experiment: str, case: Case, contestants: Sequence[Contestant], rounds: int) -> None:
        inputs = all_inputs(case, self.source, self.device)
        validator = Validator(case, inputs[0])
        crops = {contestant: crop_function(contestant, case) for contestant in contestants}
        for mode in case.modes:
            admitted: dict[str, Sequence[Call]] = {}
            errors: dict[str, dict[str, float]] = {}
            for contestant in contestants:
                if not contestant.takes_part(mode):
                    continue
                steps = [make_step(crops[contestant], contestant.gradients, one, mode) for one in inputs]
                try:
                    errors[contestant.name] = validator.check(contestant, steps[0])
                except Exception as error:  # whatever it is, another's failure must not end the run
                    if contestant is OURS:
                        raise
                    self.refuse(contestant.name, case.to_json(), mode, error)
                else:
                    admitted[contestant.name] = calls_of_a_sample(steps, self.device)
            measured = interleaved(admitted, rounds, sampler(self.device), after_round=self.tick)
            for name, times in measured.items():
                self.times.append(
                    {
                        "experiment": experiment,
                        "case": case.to_json(),
                        "mode": mode,
                        "contestant": name,
                        "complete": mode != "both" or {"images", "windows"} <= errors[name].keys(),
                        "floor_bytes": floor_of_mode(case, mode),
                        "input_sets": len(inputs),
                        "errors": errors[name],
                        **times._asdict(),
                    }
                )
