# SPDX-License-Identifier: BSD-3-Clause
"""Which cases are compared beside the main one, by the quantity that varies, and with whom."""

from __future__ import annotations

from dataclasses import replace

from .cases import Case
from .contestants import GRID_SAMPLE, LOOP, OURS, ROI_ALIGN, Contestant

PLAIN = (OURS, GRID_SAMPLE, ROI_ALIGN, LOOP)
TAKERS: dict[str, tuple[Contestant, ...]] = {
    "half sides": (OURS, GRID_SAMPLE, LOOP),
    "reductions": (OURS, GRID_SAMPLE, LOOP),
    "feature windows": (OURS, GRID_SAMPLE, ROI_ALIGN),
}
"""Of the sweeps that not all of ``PLAIN`` take part in."""

QUICK = {"batch": (0, -1), "channels": (0, -1), "windows": (0, -1), "reductions": (0,)}
"""Which cases of a sweep a quick run has; of the others the last."""

DTYPES = (("float32", "float32"), ("bfloat16", "bfloat16"), ("uint8", "float32"))
"""Of images and crops, for each half side."""


def sweeps(main: Case, quick: bool) -> dict[str, list[Case]]:
    """Name of the varied quantity -> cases, each different from ``main`` in that quantity only, if it can be.

    Where the quantity multiplies the work, batch and images are smaller: time and memory stay moderate.
    """
    batch = main.batch
    small = replace(main, batch=max(batch // 4, 1), image=main.image // 2, crop=main.crop // 2)
    feature_maps = replace(main, channels=512, image=max(main.image // 16, 4), crop=max(main.crop // 16, 2))
    batches = [replace(main, batch=n) for n in sorted({1, max(batch // 4, 1), batch, 2 * batch})]
    all_sweeps = {
        "batch": [batches[0], replace(batches[0], dtype="bfloat16", out_dtype="bfloat16"), *batches[1:]],
        "half sides": [
            replace(main, tl=_scaled(main, half_side), dtype=dtype, out_dtype=out_dtype)
            for dtype, out_dtype in DTYPES
            for half_side in (60, 112, 200)
        ],
        "channels": [replace(small, channels=n) for n in (1, 3, 16, 64)],
        "windows": [replace(small, windows=n) for n in (1, 4, 16)],
        "size": [
            replace(main, image=main.image // 2, crop=main.crop // 2),
            replace(main, batch=max(batch // 2, 1), crop=main.image),
            replace(main, batch=max(batch // 4, 1), image=main.image * 16 // 7),
        ],
        "reductions": _reductions(main),
        "feature maps": [feature_maps, replace(feature_maps, layout="channels_last")],
        "feature windows": _feature_windows(main),
        "dtype": [
            replace(main, dtype="bfloat16", out_dtype="bfloat16"),
            replace(main, dtype="float16", out_dtype="float16"),
            replace(main, dtype="uint8", out_dtype="bfloat16"),
            replace(main, dtype="uint8"),
        ],
        "layout": [replace(main, layout="channels_last")],
    }
    if not quick:
        return all_sweeps
    return {name: [cases[n] for n in QUICK.get(name, (-1,))] for name, cases in all_sweeps.items()}


def _scaled(main: Case, half_side: float) -> float:
    """Of images of 448 pixels, on quarters of a pixel in the main case's."""
    return round(4 * half_side * main.image / 448) / 4


def _reductions(main: Case) -> list[Case]:
    """Photographs: 1024 pixels wide, and 3840x2160."""
    square = replace(main, batch=max(main.batch // 4, 1), image=main.image * 16 // 7)
    wide = replace(square, image=main.image * 135 // 28, image_width=main.image * 60 // 7)
    return [
        replace(square, tl=_scaled(main, 256)),
        replace(square, tl=_scaled(main, 448)),
        replace(wide, tl=_scaled(main, 900)),
        replace(wide, tl=_scaled(main, 900), dtype="uint8"),
    ]


def _feature_windows(main: Case) -> list[Case]:
    """A detector's: many windows on feature maps, 56x56 and late ones of 14x14."""
    half = max(main.batch // 2, 1)
    maps = replace(main, batch=half, channels=256, image=max(main.image // 8, 8))
    late = replace(main, batch=max(half // 2, 1), channels=1024, image=max(main.image // 32, 8), windows=8)
    bins = {"large": max(main.crop // 16, 2), "small": max(main.crop // 32, 2)}
    return [
        *(
            replace(maps, windows=windows, crop=bins[size], tl=_scaled(main, half_side))
            for size, half_side in (("large", 14), ("small", 10))
            for windows in (4, 32)
        ),
        replace(late, crop=bins["small"]),
    ]
