# SPDX-License-Identifier: BSD-3-Clause
"""What a look tells that a derivative does not: how p of the true class changes as a window moves.

Classifiers as the ranking loss finds them (a row of ``birds.py``, before its windows learn) look at images
that they have not learned from. Every window makes one step along each estimate of the gradient of p, all
steps of one length; what is printed is by how much p rises. The structure function is the root mean square of
p's slope over a distance: where it grows towards small distances p is rough, and its derivative says little
of where p is higher.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from attention.spread import spread
from attention.study import BATCH, Study, probability_on_features
from birds import Program
from racnn import windows as geometry
from racnn.training.differences import TrueClassProbability, antithetic_slopes, slopes
from racnn.training.trainer import BOXCAR
from racnn_ops import attention_crop
from record import provenance
from record.section import Report, Section, table

STEP = 0.4
DISTANCES = tuple(2.0**-k for k in range(6, 0, -1))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder of CUB-200-2011 or a subset")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs of birds.py")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    SECTION.add_arguments(parser)
    return parser.parse_args()


class Signal:
    """p of the true class for the images of one batch, as a function of relative windows (B, 3)."""

    def __init__(self, study: Study, numbers: Tensor) -> None:
        self.study, self.numbers, self.model = study, numbers, study.model
        self.pixels = study.pixels("train", 0, numbers)
        self.blurred = gaussian_blur(self.pixels.float() / 255, 49, 8.0)
        self.labels = study.halves["train"].labels[numbers]
        with torch.no_grad(), study.recall("train", 0, numbers):
            self.output = self.model(self.pixels)
        self.start = self.output.relative_windows[0][:, 0]

    def probability(self, pixels: Tensor | None = None) -> TrueClassProbability:
        pixels = self.pixels if pixels is None else pixels
        return TrueClassProbability(self.model, pixels, self.labels, self.output, 2)

    def __call__(self, windows: Tensor, pixels: Tensor | None = None) -> Tensor:
        return self.probability(pixels)(windows[:, None, None])[:, 0]

    def on_features(self, windows: Tensor) -> Tensor:
        """The same by scale 1's classifier, of windows cut out of its feature map."""
        maps = self.output.features[0]
        return probability_on_features(self.model, maps, self.labels, windows.unsqueeze(1))

    def registered(self, windows: Tensor) -> Tensor:
        """No network: minus the squared difference from what is seen at the true box, of blurred images."""
        side = self.pixels.shape[-1]
        box = geometry.around(self.study.halves["train"].boxes(0)[self.numbers], float(side)).float()
        wanted, found = (
            attention_crop(self.blurred, w, 64, antialias=True, boundary="border")
            for w in (box, windows * side)
        )
        return -(wanted - found).square().mean((1, 2, 3))


def derivative(signal: Callable[[Tensor], Tensor], windows: Tensor) -> Tensor:
    """In units of the half side, and of its logarithm."""
    leaf = windows.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(signal(leaf).sum(), leaf)
    return gradient * windows[:, 2:]


def estimates(signal: Signal) -> dict[str, tuple[Tensor, str]]:
    """Estimate -> (B, 3) in units of the half side and of its logarithm, and what it costs."""
    here, units = signal.start, signal.start[:, 2:]
    bounds, model = signal.model.bounds, signal.model
    probability, one = signal.probability(), here.unsqueeze(1)
    moved = [geometry.moved(here, 0.3 * torch.randn_like(here), bounds) for _ in range(6)]
    blurred = gaussian_blur(signal.pixels.float() / 255, 21, 3.5)
    found = {"exact": (derivative(signal, here), "1 + b")}
    model.crop_options["antialias"] = False
    found["exact, not antialiased"] = derivative(signal, here), "1 + b"
    # The surrogate does not see the sign: it must be asked for the loss, and sends it to a lower one.
    model.crop_options |= {"window_grad": "boxcar", "boxcar": BOXCAR}
    found["boxcar"] = -derivative(lambda w: -signal(w), here), "1 + b"
    model.crop_options |= {"window_grad": "exact", "antialias": True}
    found["exact, mean of 6 moved windows"] = (
        torch.stack([derivative(signal, w) for w in moved]).mean(0),
        "6 + 6 b",
    )
    found["exact, blurred images"] = derivative(lambda w: signal(w, blurred), here), "1 + b"
    found["on scale 1's features"] = derivative(signal.on_features, here), "0"
    found["antithetic"] = antithetic_slopes(probability, one, 0.6)[:, 0] * units, "2"
    three = [antithetic_slopes(probability, one, 0.6)[:, 0] for _ in range(3)]
    found["antithetic, mean of 3"] = torch.stack(three).mean(0) * units, "6"
    for step in (0.3, 0.6):
        found[f"difference over {step} half sides"] = slopes(probability, one, step)[:, 0] * units, "6"
    found["way to the box"] = way_to_box(signal), ""
    found["random"] = torch.randn_like(here), ""
    return found


def way_to_box(signal: Signal) -> Tensor:
    half = signal.study.halves["train"]
    box = geometry.around(half.boxes(0)[signal.numbers], float(half.side)).float() / half.side
    here = signal.start
    return torch.cat(((box - here)[:, :2] / here[:, 2:], (box[:, 2:] / here[:, 2:]).log()), 1)


@torch.no_grad()
def gains(signal: Signal) -> dict[str, dict[str, Any]]:
    """Of one step along each estimate, image by image."""
    before, way = signal(signal.start), way_to_box(signal)
    found = {}
    with torch.enable_grad():
        along = estimates(signal)
    for name, (gradient, cost) in along.items():
        move = STEP * F.normalize(gradient.detach(), dim=1)
        after = signal(geometry.moved(signal.start, move, signal.model.bounds))
        found[name] = {
            "cost": cost,
            "gain": (after - before).tolist(),
            "cosine": F.cosine_similarity(gradient.detach(), way).tolist(),
            "norm": gradient.detach().norm(dim=1).tolist(),
        }
    return found


@torch.no_grad()
def slopes_by_distance(signal: Signal) -> dict[str, dict[str, list[float]]]:
    """Signal -> distance in half sides, "0" for the derivative -> squared slopes along x, image by image."""
    model = signal.model

    def bilinear(windows: Tensor) -> Tensor:
        model.crop_options["antialias"] = False
        value = signal(windows)
        model.crop_options["antialias"] = True
        return value

    signals = {
        "p, antialiased crop": signal,
        "p, bilinear crop": bilinear,
        "p on scale 1's features": signal.on_features,
        "registration, no network": signal.registered,
    }
    found: dict[str, dict[str, list[float]]] = {}
    for name, value in signals.items():
        with torch.enable_grad():
            found[name] = {"0": derivative(value, signal.start)[:, 0].square().tolist()}
        for distance in DISTANCES:
            way = torch.tensor([distance, 0.0, 0.0])
            ends = [value(signal.start + sign * way * signal.start[:, 2:]) for sign in (1, -1)]
            found[name][str(distance)] = ((ends[0] - ends[1]) / (2 * distance)).square().tolist()
    return found


def joined(parts: list[Any]) -> Any:
    """Lists one after another, at any depth of dictionaries; other values are the same in all."""
    first = parts[0]
    if isinstance(first, dict):
        return {key: joined([part[key] for part in parts]) for key in first}
    return list(itertools.chain(*parts)) if isinstance(first, list) else first


def gain_table(report: Report) -> str:
    rows = []
    for name, values in report["gains"].items():
        gain = torch.tensor(values["gain"], dtype=torch.float64)
        error = float(gain.std() / len(gain) ** 0.5)
        cosine, norm = (spread(values[key])["mean"] for key in ("cosine", "norm"))
        change = f"{100 * float(gain.mean()):+.1f} ± {100 * error:.1f}"
        up = f"{100 * float((gain > 0).double().mean()):.0f}"
        rows.append([name, values["cost"], change, up, f"{cosine:+.2f}", f"{norm:.2f}"])
    return table(["one step along", "looks", "gain of p", "goes up %", "cosine", "norm"], rows)


def roughness(report: Report) -> dict[str, dict[float, float]]:
    """Signal -> distance -> root mean square slope, in units of that over half a half side."""
    found = {}
    for name, values in report["slopes"].items():
        rms = {float(d): float(torch.tensor(squares).mean().sqrt()) for d, squares in values.items()}
        found[name] = {distance: value / rms[0.5] for distance, value in rms.items()}
    return found


def draw(report: Report, path: Path) -> None:
    figure, axis = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    for name, values in roughness(report).items():
        distances = [d or DISTANCES[0] / 2 for d in values]
        axis.plot(distances, list(values.values()), "o-", markersize=4, label=name)
    ticks = [DISTANCES[0] / 2, *DISTANCES]
    axis.set(xscale="log", yscale="log", xlabel="over so many half sides of the window")
    axis.set_ylabel("slope, rms, over that of 1/2")
    axis.set_xticks(ticks, ["derivative", *(f"1/{round(1 / d)}" for d in DISTANCES)])
    axis.minorticks_off()
    axis.set_yticks([1, 3, 10, 30], ["1", "3", "10", "30"])
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def note(report: Report) -> str:
    return (
        f"{report['images']} images held out from training, of {len(report['seeds'])} seeds; windows as the "
        f"pre-trained APN proposes them; each step is {STEP} half sides long (tx, ty, and the logarithm of "
        "tl); gain: of the true class' probability, in points, mean ± standard error; looks: crops that the "
        "network sees, b: a backward pass; cosine with the way to the true box; norm: per half side."
    )


SECTION = Section(gain_table, note, "How much steeper p is over small distances", draw)


def main() -> None:
    arguments = parse_arguments()
    report = provenance.describe()
    program = Program(arguments.root, arguments.runs, "birds")
    found_gains, found_slopes = [], []
    for seed in arguments.seeds:
        study = program.started("difference", seed)
        for numbers in study.held_out.split(BATCH):
            with study.recall("train", 0, numbers):
                signal = Signal(study, numbers)
                found_gains.append(gains(signal))
                found_slopes.append(slopes_by_distance(signal))
    gained = joined(found_gains)
    report |= {"seeds": arguments.seeds, "images": len(gained["exact"]["gain"])}
    report |= {"gains": gained, "slopes": joined(found_slopes)}
    SECTION.write(report, arguments.output, "looks")


if __name__ == "__main__":
    main()
