# SPDX-License-Identifier: BSD-3-Clause
"""The two tasks of ``known_windows.py``: windows that move by themselves, and an APN that proposes them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from racnn import classification_loss
from racnn import windows as geometry
from racnn.config import TrainingConfig
from racnn.training.phases import Phase
from racnn.training.step import Batch, TrainingStep

from .digits import SIDE, Canvases
from .methods import Method, Reader, negative_probability, probability_slope, use

BATCH = 64
SIZES = (64, 32)
LEAST = 0.12
"""The least half side, as a share of half the canvas: well below that of the smallest digit."""
JITTER = (0.5, 0.5, 0.45)
"""Standard deviations of the windows through which scale 2 learns to read: of the centre in half sides, of
the logarithm of the half side."""
DISTANCES, FACTORS = (0.25, 0.5, 1.0), (0.6, 1.0, 2.0)
"""Starts: every distance from the true centre, in true half sides, with every factor of the half side."""
FOUND = 0.5
"""IoU from which on a window counts as one that has found its digit."""
EPSILON = 1e-16
"""Of Adam: the surrogates' scales are arbitrary, the release's is 1e-7."""


class Scene(NamedTuple):
    """Canvases (N) with the tight windows (N, 3) around their digits, and what scale 1 sees (N, C, h, w)."""

    canvases: Canvases
    tight: Tensor
    features: Tensor

    @staticmethod
    def of(canvases: Canvases, reader: Reader | None = None) -> Scene:
        tight = geometry.around(canvases.boxes, float(SIDE))
        features = torch.zeros(len(tight), 0)
        if reader is not None:
            with torch.no_grad():
                features = reader(canvases.images, scales=1).features[0]
        return Scene(canvases, tight, features)

    def pick(self, numbers: Tensor) -> Scene:
        return Scene(
            Canvases(*(part[numbers] for part in self.canvases)), self.tight[numbers], self.features[numbers]
        )


def iou(windows: Tensor, tight: Tensor) -> Tensor:
    return geometry.overlap(geometry.corners(windows), geometry.corners(tight))


def train_reader(canvases: Canvases, steps: int, seed: int) -> Reader:
    """Both scales learn to read; scale 2 through windows moved around the digit. Then they are frozen."""
    torch.manual_seed(seed)
    reader, scene = Reader(SIZES, LEAST), Scene.of(canvases)
    learned = [p for name, p in reader.named_parameters() if ".proposal." not in name]
    optimizer = torch.optim.AdamW(learned, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, steps)
    for _ in range(steps):
        part = scene.pick(torch.randint(len(scene.tight), (BATCH,)))
        moves = torch.randn(BATCH, 3) * torch.tensor(JITTER)
        windows = geometry.moved(part.tight / SIDE, moves, reader.bounds) * SIDE
        output = reader(part.canvases.images, [windows.unsqueeze(1)])
        loss = classification_loss(output.logits, part.canvases.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return reader.eval().requires_grad_(False)


@torch.no_grad()
def read(reader: Reader, scene: Scene, windows: Tensor) -> tuple[float, float]:
    """Accuracy of scales 1 and 2, the latter through windows (N, 3)."""
    logits = reader(scene.canvases.images, [windows.unsqueeze(1)]).logits
    right = [(scale.argmax(1) == scene.canvases.labels).float().mean().item() for scale in logits]
    return right[0], right[1]


def starts(scene: Scene, seed: int) -> tuple[Scene, Tensor]:
    """Every canvas with a window (…, 3) from each distance and factor, in a random direction."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for distance in DISTANCES:
        for factor in FACTORS:
            angle = 2 * math.pi * torch.rand(len(scene.tight), generator=generator)
            way = distance * torch.stack((angle.cos(), angle.sin()), 1)
            centre, half = scene.tight[:, :2], scene.tight[:, 2:]
            found.append(geometry.inside(torch.cat((centre + half * way, factor * half), 1), float(SIDE)))
    return scene.pick(torch.arange(len(scene.tight)).repeat(len(found))), torch.cat(found)


def descend(
    reader: Reader, scene: Scene, start: Tensor, method: Method, rate: float, steps: int
) -> tuple[Tensor, Tensor]:
    """Windows descend ``-p`` of the true class, the active side of the ranking loss, by Adam.

    The rate, in pixels, falls to 0. After every step windows are brought back into the canvas and to the
    least half side.

    Returns:
        Tensor[steps + 1, N]: IoU with the tight window, before the first step and after each.
        Tensor[N, 3]: the windows at the end.
    """
    use(reader, method)
    generator = torch.Generator().manual_seed(0)
    windows = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([windows], rate, eps=EPSILON)
    trace = [iou(start, scene.tight)]
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        windows.grad = _uphill(reader, scene, windows, method, generator)
        optimizer.step()
        with torch.no_grad():
            windows[:, 2].clamp_(min=LEAST * SIDE / 2)
            windows.copy_(geometry.inside(windows, float(SIDE)))
        trace.append(iou(windows.detach(), scene.tight))
    return torch.stack(trace), windows.detach()


def _uphill(
    reader: Reader, scene: Scene, windows: Tensor, method: Method, generator: torch.Generator
) -> Tensor:
    """(N, 3): what the method takes for the gradient of ``-p``."""
    images, labels = scene.canvases.images, scene.canvases.labels
    if method.step:
        return -probability_slope(reader, images, labels, windows, method.step)
    moves = method.moved * torch.randn(windows.shape, generator=generator)
    centre, half = windows[:, :2], windows[:, 2:]
    moved = torch.cat((centre + moves[:, :2] * half, half * moves[:, 2:].exp()), 1)
    return torch.autograd.grad(negative_probability(reader, images, labels, moved), windows)[0]


@torch.no_grad()
def judge(reader: Reader, scene: Scene) -> dict[str, float]:
    """What the APN proposes for canvases that it has not seen."""
    windows = reader.proposal(1)(scene.features)[:, 0] * SIDE
    overlaps, boxes = iou(windows, scene.tight), scene.canvases.boxes
    covered = geometry.intersection(geometry.corners(windows), boxes) / geometry.area(boxes)
    return {
        "iou": overlaps.mean().item(),
        "found": (overlaps >= FOUND).float().mean().item(),
        "inside": (covered >= 0.9).float().mean().item(),
        "half_side": (windows[:, 2] / scene.tight[:, 2]).mean().item(),
        "accuracy": read(reader, scene, windows)[1],
    }


def imitate(reader: Reader, scene: Scene, steps: int) -> None:
    """The paper's pre-training: the APN learns to find scale 1's highest response."""
    step = TrainingStep(reader, Phase("imitate", "imitate", "response", 1), TrainingConfig())
    _train(reader, scene, step, 1e-3, steps)


def rank(
    reader: Reader, scene: Scene, unseen: Scene, method: Method, rate: float, steps: int, every: int
) -> list[dict[str, float]]:
    """The APN learns from the ranking loss; what :func:`judge` says at first and after ``every`` steps."""
    use(reader, method)
    config = TrainingConfig(
        rank_gradient="difference" if method.step else "exact", difference_step=method.step or 0.3
    )
    step = TrainingStep(reader, Phase("rank 1", "rank", "proposed", 1), config)
    return _train(reader, scene, step, rate, steps, method.moved, unseen, every)


def _train(
    reader: Reader,
    scene: Scene,
    step: TrainingStep,
    rate: float,
    steps: int,
    moved: float = 0.0,
    unseen: Scene | None = None,
    every: int = 1,
) -> list[dict[str, float]]:
    generator = torch.Generator().manual_seed(0)
    parameters = list(reader.proposal(1).requires_grad_(True).parameters())
    optimizer = torch.optim.Adam(parameters, rate, eps=EPSILON)
    found = [] if unseen is None else [judge(reader, unseen) | {"step": 0}]
    for number in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - number / steps)
        part = scene.pick(torch.randint(len(scene.tight), (BATCH,), generator=generator))
        moves = (moved * torch.randn(BATCH, 1, 3, generator=generator),) if moved else None
        batch = Batch(part.canvases.images, part.canvases.labels, moves)
        loss = step(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if unseen is not None and (number + 1) % every == 0:
            found.append(judge(reader, unseen) | {"step": number + 1})
    return found
