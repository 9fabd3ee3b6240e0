# SPDX-License-Identifier: BSD-3-Clause
"""How good a trained model is: accuracies, where it looks, how fast it is, and what its windows are worth."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from . import windows as geometry
from .data import UNREADABLE, Images, Unreadable
from .model import RACNN
from .output import RACNNOutput, printable
from .training.batches import in_order, load
from .training.engine import autocast

TOP = (1, 5)
BASELINES = ("response", "centre", "random", "box")
"""Windows that the same weights are given instead of their own; "box": around the object, the upper bound."""


class Attention:
    """Adds up how windows lie on ground-truth boxes, over images that have one."""

    NAMES = ("inside", "covered", "iou")

    def __init__(self) -> None:
        self.sums: dict[int, Tensor] = defaultdict(lambda: torch.zeros(3, dtype=torch.float64))
        self.images = 0

    def add(self, windows: tuple[Tensor, ...], boxes: Tensor, side: float) -> None:
        """windows N - 1 x (B, K, 3) and boxes (B, 4) in pixels of the side x side images."""
        known = ~boxes.isnan().any(1)
        boxes = boxes[known].unsqueeze(1)
        self.images += len(boxes)
        for n, scale in enumerate(windows, 2):
            self.sums[n] += window_quality(scale[known], boxes, side).double().mean(1).sum(0).cpu()

    def result(self) -> dict[str, dict[str, float]]:
        if self.images == 0:
            return {}
        return {
            str(n): dict(zip(self.NAMES, (sums / self.images).tolist(), strict=True))
            for n, sums in self.sums.items()
        }


def window_quality(windows: Tensor, boxes: Tensor, side: float) -> Tensor:
    """(..., 3): the share of the window inside the box, the share of the box inside the window, and the
    intersection over union with the tight window, the smallest square around the box.

    Shapes: windows (..., 3), boxes (..., 4) left, top, right, bottom.
    """
    squares = geometry.corners(windows)
    shared = geometry.intersection(squares, boxes)
    tight = geometry.corners(geometry.around(boxes, side))
    inside = shared / geometry.area(squares).clamp(min=1e-12)
    covered = shared / geometry.area(boxes).clamp(min=1e-12)
    return torch.stack((inside, covered, geometry.overlap(squares, tight)), -1)


class Accuracy:
    """Keeps the rank of the true class by the names of :meth:`RACNNOutput.by_name`, image by image."""

    def __init__(self) -> None:
        self.ranks: dict[str, list[Tensor]] = {}

    def add(self, output: RACNNOutput, labels: Tensor) -> None:
        """Labels below 0 are of images that do not count."""
        for name, logits in output.by_name().items():
            best = logits.topk(min(max(TOP), logits.shape[1])).indices == labels[:, None]
            rank = torch.where(best.any(1), best.int().argmax(1), max(TOP))
            self.ranks.setdefault(name, []).append(torch.where(labels >= 0, rank, UNREADABLE).cpu())

    @property
    def images(self) -> int:
        return int((torch.cat(next(iter(self.ranks.values()))) >= 0).sum()) if self.ranks else 0

    def result(self) -> dict[str, dict[str, float]]:
        """Name -> shares of the images that count."""
        found = {}
        for name, parts in self.ranks.items():
            ranks = torch.cat(parts)
            ranks = ranks[ranks >= 0]
            found[name] = {f"top{k}": int((ranks < k).sum()) / max(len(ranks), 1) for k in TOP}
        return found

    def hits(self) -> dict[str, str]:
        """Name -> a digit an image, in their order: 1 where the first label is right, else 0."""
        ranks = {name: torch.cat(parts).tolist() for name, parts in self.ranks.items()}
        return {name: "".join(str(int(rank == 0)) for rank in values) for name, values in ranks.items()}


@torch.no_grad()
def evaluate(
    model: RACNN,
    images: Images,
    *,
    window_source: str = "proposed",
    baselines: bool = True,
    batch_size: int = 32,
    workers: int = 0,
    seed: int = 0,
    amp: str = "none",
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Look at every image once, and once more for each baseline.

    Args:
        window_source: the model's own, ``"proposed"``, or what it was trained with instead.
        amp: autocast as while training, see :class:`racnn.config.TrainingConfig`.
        progress: called with the number of images after each batch, for a progress bar.

    Returns:
        ``accuracy`` (name -> top1, top5, shares), ``hits`` (name -> a digit an image, see
        :meth:`Accuracy.hits`), ``attention`` (scale -> inside, covered, iou), ``window_source``,
        ``baselines`` (another source -> the same three), ``images``, ``unreadable`` (paths) and
        ``images_per_second`` of the model with its own windows, without reading images.

    Raises:
        ValueError: there are no images, or none that can be read.
    """
    model.eval()
    device = model.mean.device
    sources = [window_source]
    if baselines:
        sources += [source for source in BASELINES if source != window_source]
    if len(model.sizes) == 1:
        sources = sources[:1]
    accuracy = {source: Accuracy() for source in sources}
    attention = {source: Attention() for source in sources}
    unreadable, generator, seconds = Unreadable(images.records), torch.Generator().manual_seed(seed), 0.0
    for batch in load(images, in_order(len(images), batch_size), workers):
        unreadable.note(batch)
        pixels, labels = batch.image.to(device), batch.label.to(device)
        for source in sources:
            origin: dict[str, Any] = {"window_source": source}
            if source == "box":
                origin = {"windows": _box_windows(model, batch.box.to(device), float(images.side))}
            start = _now(device)
            with autocast(amp, device):
                output: RACNNOutput = model(pixels, **origin, generator=generator)
            if source == window_source:
                seconds += _now(device) - start
            readable = labels >= 0
            if source == "box":
                readable &= ~batch.box.to(device).isnan().any(1)
            accuracy[source].add(output, torch.where(readable, labels, -1))
            boxes = torch.where((labels >= 0)[:, None], batch.box.to(device), torch.nan)
            attention[source].add(output.windows, boxes, float(images.side))
        progress(len(labels))
    if accuracy[window_source].images == 0:
        first = f", the first is {printable(unreadable.paths[0])}" if unreadable.paths else ""
        raise ValueError(f"there are no images to look at: {len(unreadable.paths)} cannot be read{first}")
    results = {
        source: {
            "accuracy": accuracy[source].result(),
            "hits": accuracy[source].hits(),
            "attention": attention[source].result(),
        }
        for source in sources
        if accuracy[source].images
    }
    return results.pop(window_source) | {
        "window_source": window_source,
        "baselines": results,
        "images": accuracy[window_source].images,
        "unreadable": [str(path) for path in unreadable.paths],
        "images_per_second": len(images) / max(seconds, 1e-9),
    }


def _box_windows(model: RACNN, boxes: Tensor, side: float) -> list[Tensor]:
    """Every scale gets the tight window; an image without a box the whole image."""
    everything = boxes.new_tensor((0.0, 0.0, side, side))
    boxes = torch.where(boxes.isnan(), everything, boxes)
    tight = geometry.around(boxes, side).float()
    tight[:, 2].clamp_(min=1.0)
    return [tight.unsqueeze(1).expand(-1, model.num_windows, 3)] * (len(model.sizes) - 1)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def tables(result: dict[str, Any]) -> list[Table]:
    """The paper's tables: accuracy by scales and windows, attention by scale."""
    rows = {result["window_source"]: result, **result["baselines"]}
    names = list(result["accuracy"])
    accuracy = Table("windows", *names, title=f"top-1 (top-5) %, {result['images']} images")
    for source, values in rows.items():
        cells = [values["accuracy"][name] for name in names]
        accuracy.add_row(source, *(f"{100 * c['top1']:.1f} ({100 * c['top5']:.1f})" for c in cells))
    shown = [accuracy]
    if result["attention"]:
        quality = Table(
            "windows",
            "scale",
            "inside the box",
            "of the box covered",
            "IoU, tight window",
            title="attention %",
        )
        for source, values in rows.items():
            for scale, numbers in values["attention"].items():
                quality.add_row(source, scale, *(f"{100 * numbers[name]:.1f}" for name in Attention.NAMES))
        shown.append(quality)
    return shown
