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
import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attention import known_picture, known_table
from attention.digits import SIDE, make_canvases
from attention.known_tasks import (
    DISTANCES,
    FACTORS,
    FOUND,
    Scene,
    descend,
    imitate,
    judge,
    rank,
    read,
    starts,
    train_reader,
)
from attention.methods import Method, Reader
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
BEGINNINGS = ("response", "middle")
EXAMPLES = 6
SECTION = Section(
    known_table.methods_table,
    known_table.note,
    "How windows find digits by different gradients",
    known_picture.draw,
)


class Effort(NamedTuple):
    train: int = 3000  # canvases
    test: int = 500
    read_steps: int = 700
    alone_canvases: int = 24  # each with every start
    alone_steps: int = 60
    imitate_steps: int = 200
    rank_steps: int = 150
    judge_every: int = 15


QUICK = Effort(96, 32, 4, 2, 3, 2, 2, 1)


class World(NamedTuple):
    """What all methods of one seed share; ``beginnings``: weights of the APN."""

    reader: Reader
    train: Scene
    validation: Scene
    test: Scene
    beginnings: dict[str, dict[str, Tensor]]


def make_world(effort: Effort, seed: int) -> World:
    made = [
        make_canvases(half, count, 3 * seed + part)
        for part, (half, count) in enumerate(
            (("train", effort.train), ("train", effort.test), ("test", effort.test))
        )
    ]
    reader = train_reader(made[0], effort.read_steps, seed)
    train, validation, test = (Scene.of(canvases, reader) for canvases in made)
    apn = reader.proposal(1)
    beginnings = {"middle": copy.deepcopy(apn.state_dict())}
    imitate(reader, train, effort.imitate_steps)
    beginnings["response"] = copy.deepcopy(apn.state_dict())
    return World(reader, train, validation, test, beginnings)


def run_alone(world: World, scene: Scene, name: str, rate: float, effort: Effort) -> dict[str, Any]:
    part = scene.pick(torch.arange(effort.alone_canvases))
    many, start = starts(part, seed=0)
    trace, looked = descend(world.reader, many, start, METHODS[name], rate, effort.alone_steps)
    found = (trace >= FOUND).float().mean(1)
    return {
        "iou": trace[-1].mean().item(),
        "found": found[-1].item(),
        "half_side": (looked[:, 2] / many.tight[:, 2]).mean().item(),
        "iou_by_start": trace[-1].view(len(DISTANCES), len(FACTORS), -1).mean(2).tolist(),
        "iou_by_step": trace.mean(1).tolist(),
        "found_by_step": found.tolist(),
    }


def run_apn(
    world: World, scene: Scene, beginning: str, name: str, rate: float, effort: Effort
) -> dict[str, Any]:
    apn = world.reader.proposal(1)
    apn.load_state_dict(world.beginnings[beginning])
    every = effort.judge_every
    curve = rank(world.reader, world.train, scene, METHODS[name], rate, effort.rank_steps, every)
    with torch.no_grad():
        examples = apn(scene.features[:EXAMPLES])[:, 0] * SIDE
    return {**curve[-1], "curve": curve, "examples": examples.tolist()}


def run_task(world: World, scene: Scene, task: str, name: str, rate: float, effort: Effort) -> dict[str, Any]:
    if task == "alone":
        return run_alone(world, scene, name, rate, effort)
    return run_apn(world, scene, task, name, rate, effort)


def compare(effort: Effort, seeds: list[int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Task -> method -> rate, what validation said, a list of runs; and what the methods start from."""
    tasks = ("alone", *BEGINNINGS)
    results: dict[str, Any] = {task: {name: {"runs": []} for name in METHODS} for task in tasks}
    given: dict[str, Any] = {"reader": [], "alone": [], **{b: [] for b in BEGINNINGS}}
    for seed in seeds:
        print(f"seed {seed}: scales learn to read")
        world = make_world(effort, seed)
        accuracy = read(world.reader, world.test, world.test.tight)
        given["reader"].append({"scale 1": accuracy[0], "scale 2, tight windows": accuracy[1]})
        given["alone"].append(run_alone(world, world.test, "exact", 0.0, effort._replace(alone_steps=0)))
        for beginning in BEGINNINGS:
            world.reader.proposal(1).load_state_dict(world.beginnings[beginning])
            given[beginning].append(judge(world.reader, world.test))
        for task in tasks:
            for name in METHODS:
                found = results[task][name]
                if seed == seeds[0]:
                    rates = RATES["alone" if task == "alone" else "apn"]
                    tried = {
                        r: run_task(world, world.validation, task, name, r, effort)["iou"] for r in rates
                    }
                    found |= {"validation_iou": tried, "rate": max(tried, key=tried.__getitem__)}
                found["runs"].append(run_task(world, world.test, task, name, found["rate"], effort))
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
