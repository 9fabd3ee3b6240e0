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
from typing import NamedTuple

import machine
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from racnn import RACNN, windows
from racnn.commands import load_model
from racnn.data import Images, Sample, read_split
from racnn.training import checkpoint
from racnn.training.batches import draw_moves, in_order, load
from racnn.training.differences import slopes

BATCH = 32
JITTER = 0.25


class Method(NamedTuple):
    """``looks``: windows over which the gradient is averaged, the first one unmoved; ``blur``: standard
    deviation in pixels of the images; ``step``: of a difference instead of a gradient, in half sides."""

    window_grad: str = "exact"
    looks: int = 1
    blur: float = 0.0
    step: float = 0.0


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
    machine.add_output(parser)
    arguments = parser.parse_args()
    if arguments.images < 1:
        parser.error(f"--images must be at least 1, got {arguments.images}")
    return arguments


def surer(model: RACNN, pixels: Tensor, labels: Tensor, looks: list[Tensor]) -> Tensor:
    """Minus the gradient of ``-p`` of the true class at scale 2: (B, 3), per pixel of the images."""
    way = torch.zeros_like(looks[0])
    for window in looks:
        window.requires_grad_()
        rest = [window.detach()] * (len(model.sizes) - 2)
        output = model(pixels, [window.unsqueeze(1), *(w.unsqueeze(1) for w in rest)], scales=2)
        # The loss, and not p, whose gradient is the opposite: the surrogate does not see the sign.
        loss = -output.probabilities[1].gather(1, labels[:, None]).sum()
        way -= torch.autograd.grad(loss, window)[0]
    return way / len(looks)


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
    model.crop_options["window_grad"] = method.window_grad
    device, side = model.mean.device, float(batch.image.shape[-1])
    pixels = batch.image.to(device).float() / 255
    looks = start_windows(model, pixels, moves[:, : method.looks].to(device))
    if method.blur:
        pixels = gaussian_blur(pixels, 2 * round(3 * method.blur) + 1, method.blur)
    tight = windows.around(batch.box.to(device), side).float()
    labels = batch.label.to(device)
    if method.step:
        relative = (looks[0] / side).unsqueeze(1)
        with torch.no_grad():
            seen = model(pixels, scales=1)
        way = slopes(model, pixels, seen, 2, relative, labels, method.step)[:, 0]
    else:
        way = surer(model, pixels, labels, looks)
    return way.cpu(), (tight - looks[0].detach()).cpu()


def summarise(found: Tensor, wanted: Tensor) -> dict[str, float]:
    """Agreement over images: signs of tx, ty, tl, cosine of (tx, ty)."""
    same = ((found * wanted) > 0).float().mean(0).tolist()
    cosine = F.cosine_similarity(found[:, :2], wanted[:, :2]).mean().item()
    return dict(zip(("tx", "ty", "tl"), same, strict=True)) | {"cosine": cosine}


def main() -> None:
    arguments = parse_arguments()
    model, config, _ = load_model(arguments.checkpoint)
    if len(model.sizes) < 2:
        raise SystemExit("--checkpoint must be a model of 2 scales or more, got 1 scale")
    split = read_split(config.data.name, arguments.root or config.data.root)
    order = torch.randperm(len(split.train), generator=torch.Generator().manual_seed(arguments.seed))
    records = tuple(split.train[i] for i in order[: arguments.images].tolist())
    images = Images(records, config.data.image_side, config.data.fit)
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
    report = {
        "command": machine.command(),
        "date": machine.now(),
        "git": machine.commit(),
        "images": sum(len(pair[0]) for pair in found["exact"]),
        "results": results,
    }
    path = arguments.output / "window_directions.json"
    arguments.output.mkdir(parents=True, exist_ok=True)
    checkpoint.save_json(report, path)
    table = Table(
        "gradient",
        "tx %",
        "ty %",
        "tl %",
        "cosine",
        title="images where it has the sign of the way to the object",
    )
    for name, values in results.items():
        shares = (f"{100 * values[key]:.0f}" for key in ("tx", "ty", "tl"))
        table.add_row(name, *shares, f"{values['cosine']:.3f}")
    console = Console()
    console.print(table)
    console.print(f"wrote {path}")


if __name__ == "__main__":
    main()
