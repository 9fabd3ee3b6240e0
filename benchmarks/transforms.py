# SPDX-License-Identifier: BSD-3-Clause
"""Which transforms of PyTorch work on a crop, with the right value: ours, grid_sample's and roi_align's.

Every cell is a run: a transform of a loss of crops, by images and by windows, compared with the same
transform of racnn_ops.reference, which is plain PyTorch operations. The test suite compares the committed
results with a run of its own.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from crop.contestants import grid_sample, roi_align
from crop.transforms import EAGER, TRANSFORMS, Arguments, Loss, Transform
from racnn_ops import Boxcar, attention_crop, reference
from record import provenance
from record.section import Report, Section, table

SIZE = (2, 3)  # of a crop

Crop = Callable[[Tensor, Tensor], Tensor]


def with_options(crop: Any, **options: Any) -> Crop:
    return lambda images, windows: crop(images, windows, SIZE, **options)


MODES: dict[str, dict[str, Any]] = {
    "zeros": {},
    "border": {"boundary": "border"},
    "clip": {"boundary": "clip"},
    "mask": {"mask_steepness": 0.7},
    "K windows": {},
    "boxcar": {"window_grad": "boxcar", "boxcar": Boxcar(scale=1.0)},
}
COLUMNS = (*MODES, "grid_sample", "roi_align")


def crops_of(column: str) -> tuple[Crop, Crop]:
    """A column's crop, and the truth."""
    options = MODES.get(column, {})
    crop = {"grid_sample": grid_sample, "roi_align": roi_align}.get(column, attention_crop)
    return with_options(crop, **options), with_options(reference.attention_crop, **options)


def inputs(column: str) -> tuple[Tensor, Tensor]:
    """Windows inside the image and away from the sampler's kinks: all columns compute the same crop."""
    images = torch.rand(2, 2, 7, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    windows = torch.tensor([[4.13, 3.37, 2.11], [3.72, 3.57, 2.31]], dtype=torch.float64)
    if column == "K windows":
        windows = torch.stack((windows, windows * 0.97 + 0.01), 1)
    return images, windows


def loss_of(crop: Crop) -> Loss:
    return lambda images, windows: crop(images, windows).sin().sum()


def outcome(transform: Transform, column: str, where: Arguments) -> str:
    crop, truth = crops_of(column)
    arguments = inputs(column)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = transform(loss_of(crop), where, arguments)
        except Exception:
            return "no"
        try:
            with torch.compiler.set_stance("force_eager"):
                expected = EAGER.get(transform, transform)(loss_of(truth), where, arguments)
        except NotImplementedError:  # there is no right value
            return "wrong"
    try:
        torch.testing.assert_close(result, expected, rtol=1e-8, atol=1e-8)
    except Exception:  # a mismatch, or no numbers to compare
        return "wrong"
    return "yes"


def cell(transform: Transform, column: str) -> str:
    """``yes``, ``no`` (an error), ``wrong`` (a value, no error), or which of the two inputs has which."""
    both = outcome(transform, column, (0, 1))
    if both == "yes":
        return both
    images, windows = (outcome(transform, column, (i,)) for i in (0, 1))
    if images == windows:
        return both
    return f"images {images}, windows {windows}"


def run(columns: Sequence[str] = COLUMNS) -> dict[str, dict[str, str]]:
    return {
        name: {column: cell(transform, column) for column in columns}
        for name, transform in track(TRANSFORMS.items(), "transforms")
    }


def cells_table(report: Report) -> str:
    rows = [[name, *(cells[column] for column in COLUMNS)] for name, cells in report["table"].items()]
    return table(["", *COLUMNS], rows)


def note(report: Report) -> str:
    return """\
The first six columns are `attention_crop` in its modes (`boundary`, `mask_steepness`, K windows,
`window_grad`).

- **yes**: by images and by windows, with the value that plain PyTorch operations give.
- **no**: an error. **wrong**: a wrong value without an error.
- The surrogate gradient (`boxcar`) is not a derivative: what needs one by the windows is refused.
- torch has no double backward of a compiled function and no export of `func.grad`, whatever is in it.

The test suite makes it again."""


SECTION = Section(cells_table, note)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    SECTION.add_arguments(parser)
    output = parser.parse_args().output
    SECTION.write({**provenance.describe(), "table": run()}, output, "transforms")


if __name__ == "__main__":
    main()
