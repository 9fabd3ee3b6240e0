# SPDX-License-Identifier: BSD-3-Clause
"""What a model says about image files: labels, and windows in the files' own pixels."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from . import windows as geometry
from .data import Placement, images_in, read_square
from .model import RACNN
from .output import fusion_name, printable
from .training.batches import each, leave_signals_to_the_run
from .training.checkpoint import save_json, save_text


def find_images(named: Sequence[Path], listed: Path | None = None) -> list[Path]:
    """Files as they are named, and in place of a folder the images in it.

    Args:
        listed: text file with one more name a line, of any bytes.

    Raises:
        OSError: the list cannot be read.
        ValueError: there is not one image.
    """
    names = [*named]
    if listed is not None:
        names += [Path(os.fsdecode(line)) for line in listed.read_bytes().splitlines() if line.strip()]
    found = [path for name in names for path in (images_in(name) if name.is_dir() else [name])]
    if not found:
        raise ValueError(f"there are no images to look at in {', '.join(map(printable, names)) or 'nothing'}")
    return found


class _Read(NamedTuple):
    """Of a batch: pixels (n, 3, S, S) of the images that could be read; of each its placement, or the reason
    why it could not."""

    pixels: Tensor
    notes: list[Placement | str]


class _Files(Dataset[tuple[Tensor | None, Placement | str]]):
    def __init__(self, paths: Sequence[Path], side: int) -> None:
        self.paths, self.side = paths, side

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor | None, Placement | str]:
        try:
            return read_square(self.paths[index], self.side)
        except OSError as error:
            return None, str(error)


def _collate(items: list[tuple[Tensor | None, Placement | str]]) -> _Read:
    readable = [pixels for pixels, _ in items if pixels is not None]
    return _Read(torch.stack(readable) if readable else torch.empty(0), [note for _, note in items])


@torch.no_grad()
def predict(
    model: RACNN,
    paths: Sequence[Path],
    *,
    top: int = 3,
    batch_size: int = 32,
    workers: int = 0,
    unreadable: Callable[[OSError], None] = lambda error: None,
) -> Iterator[dict[str, Any]]:
    """Look at image files, each as ``model.usage`` says.

    Args:
        model: in evaluation mode.
        top: labels an image, the likeliest first.
        workers: processes that read images.
        unreadable: called for an image that cannot be read; it has no result.

    Yields:
        ``image``, its path; ``labels``, each a ``name`` and a ``probability``, of all scales fused;
        ``windows``, of each scale from 2 on, each left, top, right, bottom in pixels of the file.
    """
    device, usage = model.mean.device, model.usage
    names, best = usage.names(model.num_classes), fusion_name(len(model.sizes))
    loader: DataLoader[Any] = DataLoader(
        _Files(paths, usage.image_side),
        batch_size,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
        worker_init_fn=leave_signals_to_the_run,
    )
    left = iter(paths)
    for pixels, notes in each(loader):
        rows: Iterator[tuple[Any, ...]] = iter(())
        if len(pixels):
            output = model(pixels.to(device, non_blocking=True), window_source=usage.window_source)
            likeliest = output.by_name()[best].float().softmax(1).topk(min(top, len(names)))
            corners = [geometry.corners(scale).tolist() for scale in output.windows]
            rows = zip(likeliest.values.tolist(), likeliest.indices.tolist(), *corners, strict=True)
        for note, path in zip(notes, left, strict=False):
            if isinstance(note, str):
                unreadable(OSError(note))
                continue
            shares, classes, *scales = next(rows)
            pairs = zip(shares, classes, strict=True)
            yield {
                "image": str(path),
                "labels": [{"name": names[label], "probability": share} for share, label in pairs],
                "windows": [[note.to_file(tuple(window)) for window in scale] for scale in scales],
            }


def table(results: Sequence[dict[str, Any]], scales: int) -> Table:
    """Of results of :func:`predict`, for a terminal."""
    shown = Table(
        "image",
        f"labels (scales {fusion_name(scales)})",
        "windows: left, top, right, bottom in the file's pixels",
    )
    for result in results:
        labels = [
            f"{100 * found['probability']:.1f} % {printable(found['name'])}" for found in result["labels"]
        ]
        windows = [", ".join(f"{v:.0f}" for v in window) for scale in result["windows"] for window in scale]
        shown.add_row(Text(printable(result["image"])), Text("\n".join(labels)), "\n".join(windows))
    return shown


Writer = Callable[[Path, Sequence[dict[str, Any]], RACNN, Path], None]


def writer_of(file: Path) -> Writer:
    """Raises ValueError for endings of which there is no format."""
    if file.suffix not in _WRITERS:
        raise ValueError(f"--output must end with one of {', '.join(_WRITERS)}, got {printable(file)!r}")
    return _WRITERS[file.suffix]


def _json(file: Path, results: Sequence[dict[str, Any]], model: RACNN, source: Path) -> None:
    classes = list(model.usage.names(model.num_classes))
    save_json({"model": str(source), "classes": classes, "predictions": results}, file)


def _csv(file: Path, results: Sequence[dict[str, Any]], model: RACNN, source: Path) -> None:
    rows = [
        {"image": result["image"]}
        | {f"{key}_{n}": found[key] for n, found in enumerate(result["labels"], 1) for key in found}
        | {
            f"scale_{n}_window_{k}_{side}": value
            for n, scale in enumerate(result["windows"], 2)
            for k, window in enumerate(scale, 1)
            for side, value in zip(("left", "top", "right", "bottom"), window, strict=True)
        }
        for result in results
    ]
    text = io.StringIO()
    writer = csv.DictWriter(
        text, rows[0] if rows else ["image", "name_1", "probability_1"], lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    save_text(text.getvalue(), file)


_WRITERS: dict[str, Writer] = {".json": _json, ".csv": _csv}
