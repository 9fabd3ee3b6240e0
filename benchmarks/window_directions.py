# SPDX-License-Identifier: BSD-3-Clause
"""Where the gradient of a window points, on real images: towards the object or not.

A trained model's classifiers look at training images through windows around the highest response. Minus the
gradient of scale 2's window is compared with the way to the tight window around the object's box, which no
training sees. Rows: the exact gradient, its mean over moved windows, of blurred images, the surrogate of the
authors' release, and differences over a part of the half side.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from attention.methods import Method, negative_probability, probability_slope, use
from racnn import RACNN, windows
from racnn.data import Images, Sample, read_split
from racnn.loading import load_run
from racnn.training.batches import draw_moves, in_order, load
from record import provenance
from record.section import Report, Section, table

BATCH = 32
JITTER = 0.25


METHODS = {
    "exact": Method(),
    "exact, mean of 8 moved windows": Method(looks=8),
    "exact, images blurred by 2 pixels": Method(blur=2.0),
    "exact, images blurred by 4 pixels": Method(blur=4.0),
    "boxcar surrogate": Method(window_grad="boxcar"),
    "difference over 0.03 half sides": Method(step=0.03),
    "difference over 0.1 half sides": Method(step=0.1),
    "difference over 0.3 half sides": Method(step=0.3),
    "difference over 0.6 half sides": Method(step=0.6),
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="best.pt of a run with 2 scales or more"
    )
    parser.add_argument("--root", type=Path, default=None, help="folder of the data set, if it has moved")
    parser.add_argument("--images", type=int, default=600, help="of the training half, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    SECTION.add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.images < 1:
        parser.error(f"--images must be at least 1, got {arguments.images}")
    return arguments


def uphill(model: RACNN, pixels: Tensor, labels: Tensor, looks: list[Tensor]) -> Tensor:
    """(B, 3): where the mean gradient makes scale 2 surer of the true class, per pixel of the images."""
    leaves = [window.detach().requires_grad_() for window in looks]
    ways = [
        -torch.autograd.grad(negative_probability(model, pixels, labels, window), window)[0]
        for window in leaves
    ]
    return torch.stack(ways).mean(0)


def start_windows(model: RACNN, pixels: Tensor, moves: Tensor) -> list[Tensor]:
    """Around the highest response, then moved: looks x (B, 3), pixels of the images."""
    with torch.no_grad():
        features = model(pixels, scales=1).features[0]
    relative = windows.highest_response(features)[:, 0]
    return [
        windows.moved(relative, moves[:, k], model.bounds) * pixels.shape[-1] for k in range(moves.shape[1])
    ]


def point(model: RACNN, batch: Sample, moves: Tensor, method: Method) -> tuple[Tensor, Tensor]:
    """(B, 3) where the gradient points, (B, 3) where the object is, both from the same window."""
    use(model, method)
    device, side = model.mean.device, float(batch.image.shape[-1])
    pixels = batch.image.to(device).float() / 255
    looks = start_windows(model, pixels, moves[:, : method.looks].to(device))
    if method.blur:
        pixels = gaussian_blur(pixels, 2 * round(3 * method.blur) + 1, method.blur)
    tight = windows.around(batch.box.to(device), side).float()
    labels = batch.label.to(device)
    if method.step:
        way = probability_slope(model, pixels, labels, looks[0], method.step)
    else:
        way = uphill(model, pixels, labels, looks)
    return way.cpu(), (tight - looks[0]).cpu()


def summarise(found: Tensor, wanted: Tensor) -> dict[str, float]:
    """Agreement over images: signs of tx, ty, tl, cosine of (tx, ty)."""
    same = ((found * wanted) > 0).float().mean(0).tolist()
    cosine = F.cosine_similarity(found[:, :2], wanted[:, :2]).mean().item()
    return dict(zip(("tx", "ty", "tl"), same, strict=True)) | {"cosine": cosine}


def agreement_table(report: Report) -> str:
    rows = []
    for name, values in report["results"].items():
        shares = (f"{100 * values[key]:.0f}" for key in ("tx", "ty", "tl"))
        rows.append([name, *shares, f"{values['cosine']:.3f}"])
    return table(["gradient", "tx %", "ty %", "tl %", "cosine"], rows)


def note(report: Report) -> str:
    return (
        f"Share of {report['images']} training images where it has the sign of the way to the bird; mean "
        "cosine of its (tx, ty) with that way."
    )


SECTION = Section(agreement_table, note)


def main() -> None:
    arguments = parse_arguments()
    report = provenance.describe()
    model, config = load_run(arguments.checkpoint)
    if len(model.sizes) < 2:
        raise SystemExit("--checkpoint must be a model of 2 scales or more, got 1 scale")
    split = read_split(config.data.name, arguments.root or config.data.root)
    order = torch.randperm(len(split.train), generator=torch.Generator().manual_seed(arguments.seed))
    records = tuple(split.train[i] for i in order[: arguments.images].tolist())
    images = Images(records, config.data.image_side)
    looks = max(method.looks for method in METHODS.values())
    drawn = draw_moves((len(records), looks, 1), JITTER, arguments.seed, 0)
    assert drawn is not None
    moves = drawn[:, :, 0]
    moves[:, 0] = 0
    model.requires_grad_(False)
    found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in METHODS}
    batches = in_order(len(images), BATCH)
    for numbers, batch in track(zip(batches, load(images, batches, 0), strict=True), total=len(batches)):
        has_box = (batch.label >= 0) & ~batch.box.isnan().any(1)
        kept = Sample(*(part[has_box] for part in batch))
        for name, method in METHODS.items():
            found[name].append(point(model, kept, moves[torch.tensor(numbers)[has_box]], method))
    results = {name: summarise(*map(torch.cat, zip(*pairs, strict=True))) for name, pairs in found.items()}
    report |= {"images": sum(len(pair[0]) for pair in found["exact"]), "results": results}
    SECTION.write(report, arguments.output, "window_directions")


if __name__ == "__main__":
    main()
