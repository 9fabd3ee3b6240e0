# SPDX-License-Identifier: BSD-3-Clause
"""Images a second of the whole model, training and inference, with three ways of cropping.

The same RA-CNN with the same weights crops with ``racnn_ops``, with ``affine_grid + grid_sample``, and with
public code's loop over the batch (integer edges, ``interpolate``). They take turns in one run; times are
medians. The loop gives windows no gradient, so its training step does less work than the others'.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch
from torch import Tensor

from crop.contestants import GRID_SAMPLE, LOOP, OURS, Contestant
from crop.timing import interleaved, sampler
from racnn import RACNN, classification_loss, ranking_loss
from record import provenance
from record.section import Report, Section, table

CONTESTANTS = (OURS, GRID_SAMPLE, LOOP)
TOLERANCE = 2e-3  # of the largest logit
CLASSES = 200


class ContestantModel(RACNN):
    """Cuts with a contestant of the operator's benchmark."""

    contestant: Contestant

    def cut(self, images: Tensor, windows: Tensor, size: int, **normalisation: Any) -> Tensor:
        return self.contestant.crop(images, windows, (size, size))


def speed_table(report: Report) -> str:
    rows = []
    for contestant in CONTESTANTS:
        found = (times[contestant.name] for times in report["modes"].values())
        rows.append([contestant.name, *(f"{times['images_per_s']:.1f}" for times in found)])
    return table(["crop", *report["modes"]], rows)


def note(report: Report) -> str:
    told = report["arguments"]
    sides = ", ".join(map(str, told["sizes"]))
    return (
        f"Images a second, batches of {told['batch']}, {told['backbone']} at {sides} pixels; medians of one "
        "run with contestants by turns."
    )


SECTION = Section(speed_table, note)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if on_gpu else "cpu")
    parser.add_argument("--backbone", default="vgg19" if on_gpu else "mobilenetv3_small_100")
    parser.add_argument("--sizes", type=int, nargs="+", default=[448, 224, 224], help="side of each scale")
    parser.add_argument("--batch", type=int, default=32 if on_gpu else 4)
    parser.add_argument("--rounds", type=int, default=21 if on_gpu else 7)
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0: as torch chooses")
    SECTION.add_arguments(parser)
    arguments = parser.parse_args()
    for name in ("batch", "rounds"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(arguments, name)}")
    if arguments.device == "cuda" and not on_gpu:
        parser.error("--device cuda: torch finds no CUDA device")
    return arguments


def make_models(arguments: argparse.Namespace) -> dict[str, ContestantModel]:
    models = {}
    for contestant in CONTESTANTS:
        torch.manual_seed(0)
        model = ContestantModel(
            CLASSES, arguments.backbone, len(arguments.sizes), arguments.sizes, weights=None
        )
        model.contestant = contestant
        models[contestant.name] = model.to(arguments.device)
    return models


def check(models: dict[str, ContestantModel], images: Tensor) -> dict[str, float]:
    """Nobody is timed who computes something else: the largest difference of logits, relative.

    The loop is not compared: it truncates windows to whole pixels.
    """
    with torch.no_grad():
        logits = {name: torch.cat(model.eval()(images).logits) for name, model in models.items()}
    expected = logits[OURS.name]
    errors = {
        name: ((found - expected).abs().max() / expected.abs().max()).item() for name, found in logits.items()
    }
    if errors[GRID_SAMPLE.name] > TOLERANCE:
        raise SystemExit(f"logits differ by {errors[GRID_SAMPLE.name]:.2g}; {TOLERANCE:.2g} is allowed")
    return errors


def train(model: ContestantModel, images: Tensor, labels: Tensor) -> None:
    model.zero_grad(set_to_none=True)
    logits = model(images).logits
    (classification_loss(logits, labels) + ranking_loss(logits, labels)).backward()


@torch.no_grad()
def infer(model: ContestantModel, images: Tensor, labels: Tensor) -> None:
    model(images)


MODES = {"inference": infer, "training": train}


def measure(arguments: argparse.Namespace) -> Report:
    device = torch.device(arguments.device)
    generator = torch.Generator().manual_seed(0)
    side = arguments.sizes[0]
    images = torch.rand((arguments.batch, 3, side, side), generator=generator).to(device)
    labels = torch.randint(0, CLASSES, (arguments.batch,), generator=generator).to(device)
    models = make_models(arguments)
    results: Report = {
        **provenance.describe(device),
        "arguments": {name: value for name, value in vars(arguments).items() if name != "output"},
        "difference_of_logits": check(models, images),
        "modes": {},
    }
    for mode, step in MODES.items():
        calls = {
            name: [partial(step, model.train(mode == "training"), images, labels)]
            for name, model in models.items()
        }
        times = interleaved(calls, arguments.rounds, sampler(device))
        results["modes"][mode] = {
            name: time._asdict() | {"images_per_s": arguments.batch / time.median_s}
            for name, time in times.items()
        }
    return results


def main() -> None:
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    report = measure(arguments)
    SECTION.write(report, arguments.output, f"model-{provenance.slug(report)}")


if __name__ == "__main__":
    provenance.keep_memory()
    main()
