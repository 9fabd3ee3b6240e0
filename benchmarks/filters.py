# SPDX-License-Identifier: BSD-3-Clause
"""What filters do at a reduction by 4: a picture, and how far each is from PIL's bicubic ``resize``.

    python benchmarks/filters.py [--output benchmarks/results]

The pictures are made here: a zone plate, whose rings grow finer than the crop's pixels can hold, and strokes
as of small print.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from racnn_ops import attention_crop
from record import provenance
from record.section import Report, Section, table

SIDE, REDUCTION = 384, 4
FILTERS: dict[str, dict[str, Any]] = {
    "nearest": {"interpolation": "nearest"},
    "bilinear": {"interpolation": "bilinear"},
    "area": {"interpolation": "area"},
    "bilinear, antialias": {"interpolation": "bilinear", "antialias": True},
    "lanczos3": {"interpolation": "lanczos3"},
}
PIL_RESIZE = "PIL resize"


def zone_plate() -> Tensor:
    """uint8 (1, 1, SIDE, SIDE), up to half a ring a pixel at the edges."""
    x = torch.linspace(-1, 1, SIDE, dtype=torch.float64)
    square = x.square() + x.square().unsqueeze(1)
    rings = 127.5 + 127.5 * torch.cos(torch.pi * SIDE / 4 * square)
    return rings.round().to(torch.uint8)[None, None]


def strokes() -> Tensor:
    """The same with dark strokes of one or two pixels on white, as of small print."""
    random = np.random.default_rng(0)
    picture = np.full((SIDE, SIDE), 255, dtype=np.uint8)
    for top in range(8, SIDE - 12, 16):
        left = 8
        while left < SIDE - 20:
            for _ in range(random.integers(2, 5)):
                x, y = left + random.integers(0, 7), top + random.integers(0, 8)
                if random.random() < 0.5:
                    picture[y : y + random.integers(1, 3), left : left + 8] = 20
                else:
                    picture[top : top + 10, x : x + random.integers(1, 3)] = 20
            left += random.integers(10, 16)
    return torch.from_numpy(picture)[None, None]


PICTURES = {"zone plate": zone_plate, "strokes": strokes}


def reduced(picture: Tensor) -> dict[str, Tensor]:
    """The picture by PIL and by each filter, uint8 (SIDE / REDUCTION, SIDE / REDUCTION)."""
    out = SIDE // REDUCTION
    by_pil = Image.fromarray(picture[0, 0].numpy()).resize((out, out), Image.Resampling.BICUBIC)
    results = {PIL_RESIZE: torch.from_numpy(np.array(by_pil))}
    windows = torch.full((1, 3), SIDE / 2)
    for name, options in FILTERS.items():
        results[name] = attention_crop(picture, windows, out, boundary="window", **options)[0, 0]
    return results


def psnr(result: Tensor, expected: Tensor) -> float:
    """In dB, of uint8 pictures."""
    error = (result.double() - expected.double()).square().mean()
    return float(10 * torch.log10(255**2 / error))


def measure() -> Report:
    report: Report = provenance.describe()
    report["psnr"] = {}
    for name, make in PICTURES.items():
        results = reduced(make())
        expected = results.pop(PIL_RESIZE)
        report["psnr"][name] = {each: psnr(result, expected) for each, result in results.items()}
    return report


def make_table(report: Report) -> str:
    values = report["psnr"]
    rows = [[name, *(f"{values[picture][name]:.0f} dB" for picture in PICTURES)] for name in FILTERS]
    return table(["", *PICTURES], rows)


def draw(_: Report, path: Path) -> None:
    """A row a picture, a column a filter, each pixel of a crop as four."""
    rows = []
    for make in PICTURES.values():
        panels = [
            result.repeat_interleave(2, 0).repeat_interleave(2, 1) for result in reduced(make()).values()
        ]
        gap = torch.full((panels[0].shape[0], 8), 255, dtype=torch.uint8)
        rows.append(torch.cat([part for panel in panels for part in (panel, gap)][:-1], 1))
    gap = torch.full((8, rows[0].shape[1]), 255, dtype=torch.uint8)
    picture = torch.cat([part for row in rows for part in (row, gap)][:-1])
    Image.fromarray(picture.numpy()).save(path, optimize=True)


SECTION = Section(
    table=make_table,
    note=lambda _: (
        f"A reduction by {REDUCTION}, from the left: PIL's bicubic `resize`, {', '.join(FILTERS)}. The "
        "table: how far each is from PIL's (PSNR)."
    ),
    picture="Filters at a reduction by 4",
    draw=draw,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    SECTION.add_arguments(parser)
    SECTION.write(measure(), parser.parse_args().output, "filters")


if __name__ == "__main__":
    main()
