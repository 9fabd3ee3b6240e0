# SPDX-License-Identifier: BSD-3-Clause
"""Resampling by longer filters as Markdown: crops against antialiasing resizers, bins against roi_align."""

from __future__ import annotations

from record.section import table

from .filter_cases import DETAILS
from .filter_comparison import THEIR_LEVELS, THEIR_NORMALISED
from .filter_contestants import ALL, FilterContestant
from .results import Record, Results, times_ours

CAPTIONS = {
    "forward": """\
Antialiased crops, forward. `racnn_ops`, `resized_crop` (torchvision v2), `slice + interpolate`, `PIL resize`
have one filter, bilinear with `antialias=True`; PIL reads on at a window's edge, by one thread. `area`
averages the bilinear interpolant, `OpenCV INTER_AREA` squares of one value: its ratio is to area.
`kornia resize` blurs by a Gaussian, then takes two samples an axis.""",
    "backward": "Antialiased crops, backward alone. The others have no gradient for windows.",
    "area": """\
`interpolation="area"` against `roi_align` with its default number of samples, which tends to it. Windows are
inside the image, so that no boundary plays a part; backward alone.""",
    "linear": "Strong reductions of one large image: what a source pixel under the window costs.",
    "reductions": "Antialiased, strong reductions, forward; then the backward alone.",
    "resize": f"""\
uint8 to uint8, windows of whole pixels. OpenCV resizes slices of pictures (H, W, C), by as many threads; it
may differ by {THEIR_LEVELS:g} of 255 from its own filter. `INTER_AREA` averages squares of one value: its
ratio is to area, and it zooms by other weights.""",
    "frames": f"""\
uint8 frames (B, H, W, C) to normalised planar crops. OpenCV resizes slices and rounds to uint8, numpy
normalises, transposes and stacks: it may differ by {THEIR_NORMALISED:.2g}.""",
}
CONTROLS = """\
In brackets, how far results are from ours: ± the largest difference (images in float32 reach from 0 to 1, in
uint8 to 255), or PSNR where filters differ. Before it was timed, each was compared with its own filter in
float64."""
SHARES = "Beside our times: the share of the copy bandwidth at which the fewest bytes were moved."


Shown = tuple[str, list[str], list[list[str]]]  # caption's name, head, rows


def tables(data: Record) -> str:
    """What the README shows of ``data["filters"]``; "" where there is nothing."""
    results = Results({"filters": []} | data)
    forward, backward = _forward_columns("antialias"), _backward_columns("antialias")
    return _captioned(
        results,
        ("forward", *_by_contestant(results, "antialias", forward)),
        ("backward", *_by_contestant(results, "antialias", backward)),
        ("area", *_by_contestant(results, "area", _forward_columns("area") + _backward_columns("area"))),
        ("linear", *_linear(results)),
    )


def details(data: Record) -> str:
    """Everything else in it."""
    results = Results({"filters": []} | data)
    return _captioned(
        results,
        *(
            (name, *_by_contestant(results, name, _forward_columns(name) + _backward_columns(name)))
            for name in DETAILS
        ),
    )


def _captioned(results: Results, *shown: Shown) -> str:
    parts = [f"{CAPTIONS[name]}\n\n{table(head, rows)}" for name, head, rows in shown if rows]
    shares = [SHARES] if any(_has_share(results, record) for record in results.find("filters")) else []
    return "\n\n".join([*parts, " ".join([CONTROLS, *shares])]) if parts else ""


Column = tuple[str, FilterContestant, str]  # head, contestant, step
TO = {"images": "to images", "windows": "to windows", "both": "to both"}


def _takers(experiment: str) -> list[FilterContestant]:
    return [contestant for contestant in ALL if experiment in contestant.experiments]


def _forward_columns(experiment: str) -> list[Column]:
    return [(contestant.name, contestant, "forward") for contestant in _takers(experiment)]


def _backward_columns(experiment: str) -> list[Column]:
    return [
        (f"{contestant.name} {to}", contestant, step)
        for contestant in _takers(experiment)
        for step, to in TO.items()
        if contestant.gradients and (contestant.measure is None or step == "images")
    ]


def _by_contestant(
    results: Results, experiment: str, columns: list[Column]
) -> tuple[list[str], list[list[str]]]:
    """A row for each case, a column for each contestant's step: those in which there is something."""
    cases = _cases(results, experiment)
    cells = {
        head: [_cell(results, case, contestant, step) for case in cases] for head, contestant, step in columns
    }
    shown = {head: column for head, column in cells.items() if any(column)}
    rows = [[case["label"], *row] for case, *row in zip(cases, *shown.values(), strict=True) if any(row)]
    return ["", *shown], rows


def _cases(results: Results, experiment: str) -> list[Record]:
    found = []
    for record in results.data["filters"]:
        if record["case"]["experiment"] == experiment and record["case"] not in found:
            found.append(record["case"])
    return found


def _find(results: Results, case: Record, contestant: str | None, step: str) -> Record | None:
    return next(results.find("filters", case=case, contestant=contestant, step=step), None)


def _cell(results: Results, case: Record, contestant: FilterContestant, step: str) -> str:
    """Ours: the median, and the share of the copy bandwidth.

    Others: how many times that of ours which they are measured by, and the distance.
    """
    record = _find(results, case, contestant.name, step)
    if record is None:
        return ""
    if record["measure"] is None:
        return _ours(results, record)
    ours = _find(results, case, record["measure"], step)
    ratio = (
        times_ours(record["median_s"] / ours["median_s"]) if ours else f"{1e3 * record['median_s']:.3g} ms"
    )
    return f"{ratio}{_distance(record)}"


def _ours(results: Results, record: Record) -> str:
    time = f"{1e3 * record['median_s']:.3g} ms"
    return f"{time} {results.share_of_copy_bandwidth(record):.0%}" if _has_share(results, record) else time


def _has_share(results: Results, record: Record) -> bool:
    """Reports of before have none."""
    return "floor_bytes" in record and "copy_bytes_per_s" in results.data


def _distance(record: Record) -> str:
    if "difference" in record:
        difference = record["difference"]
        return f" (±{difference:.0f})" if difference == int(difference) else f" (±{difference:.0e})"
    return f" ({record['psnr']:.0f} dB)" if "psnr" in record else ""


def _linear(results: Results) -> tuple[list[str], list[list[str]]]:
    rows = []
    for case in _cases(results, "linear"):
        record = _find(results, case, "racnn_ops", "forward")
        if record is not None:
            each = 1e9 * record["median_s"] / case["source_pixels"]
            rows.append([case["label"], _ours(results, record), f"{each:.3g} ns"])
    return ["", "racnn_ops", "a source pixel"], rows
