# SPDX-License-Identifier: BSD-3-Clause
"""Which gradient finds the object, where it is known: digits on cluttered canvases.

A slim RA-CNN of two scales learns to read, scale 2 through windows moved around the digit, and is frozen.
Then

- windows alone: windows that start beside the digit descend minus the probability of its class;
- APN: the attention proposal network learns from the ranking loss on training canvases and is judged on
  canvases of digits that nobody has seen, once after the paper's pre-training on the highest response, once
  from the middle of the canvas.

Only the gradient of the window differs: all start from the same weights and windows and look through the same
crop. Every method has its own learning rate, the best of one grid on validation canvases of the first seed,
since the surrogates have no scale of their own.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

from attention import known_picture, known_table
from attention.known_experiment import QUICK, TASKS, Effort, Experiment
from attention.known_tasks import DISTANCES, FACTORS
from attention.methods import Method
from racnn_ops import Boxcar
from record import provenance
from record.section import Section

METHODS = {
    "exact": Method(),
    # Descends the mean over windows nearby, which is smoother, at the price of one look a step all the same.
    "exact, moved windows": Method(moved=0.2),
    "difference": Method(step=1 / 3),
    # The release's constants as shares of the side: 0.05 and 0.005 per pixel of 448.
    "boxcar": Method("boxcar", Boxcar()),
    # The same constants per pixel of whatever image there is, as the release has them.
    "boxcar, per pixel": Method("boxcar", Boxcar(side=None)),
    "thirds": Method("thirds"),
}
RATES = {"alone": (0.5, 1.0, 2.0), "apn": (3e-4, 1e-3, 3e-3)}
SECTION = Section(
    known_table.methods_table,
    known_table.note,
    "How windows find digits by different gradients",
    known_picture.draw,
)


def compare(effort: Effort, seeds: list[int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Task -> method -> rate, what validation said, a list of runs; and what the methods start from."""
    results: dict[str, Any] = {task: {name: {"runs": []} for name in METHODS} for task in TASKS}
    given: dict[str, Any] = {}
    for seed in seeds:
        print(f"seed {seed}: scales learn to read")
        experiment = Experiment(effort, seed)
        for name, value in experiment.given().items():
            given.setdefault(name, []).append(value)
        for task in TASKS:
            for name, method in METHODS.items():
                found = results[task][name]
                if seed == seeds[0]:
                    rates = RATES["alone" if task == "alone" else "apn"]
                    tried = {r: experiment.run(task, experiment.validation, method, r)["iou"] for r in rates}
                    found |= {"validation_iou": tried, "rate": max(tried, key=tried.__getitem__)}
                found["runs"].append(experiment.run(task, experiment.test, method, found["rate"]))
                print(f"  {task}, {name}: IoU {found['runs'][-1]['iou']:.3f}")
    return results, given


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="a few steps, to see whether it runs")
    SECTION.add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.threads < 1:
        parser.error(f"--threads must be at least 1, got {arguments.threads}")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    effort = QUICK if arguments.quick else Effort()
    report = provenance.describe()
    results, given = compare(effort, arguments.seeds)
    report |= {
        "seeds": arguments.seeds,
        "effort": effort._asdict(),
        "starts": {"distances": DISTANCES, "factors": FACTORS},
        "methods": {name: method._asdict() for name, method in METHODS.items()},
        "given": given,
        "results": results,
    }
    SECTION.write(report, arguments.output, f"known_windows{'-quick' if arguments.quick else ''}")


if __name__ == "__main__":
    main()
