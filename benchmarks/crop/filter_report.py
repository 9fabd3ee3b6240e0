# SPDX-License-Identifier: BSD-3-Clause
"""Resampling by longer filters as Markdown: crops against antialiasing resizers, bins against roi_align."""

from __future__ import annotations

from record.section import table

from .filter_contestants import ALL, FilterContestant
from .results import Record

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
}
CONTROLS = """\
In brackets, how far results are from ours: ± the largest difference (images in float32 reach from 0 to 1, in
uint8 to 255), or PSNR where filters differ. Before it was timed, each was compared with its own filter in
float64."""


def tables(data: Record) -> str:
    """Of everything in ``data["filters"]``; "" where there is nothing."""
    records = data.get("filters", [])
    parts = []
    for name, head, rows in (
        ("forward", *_by_contestant(records, "antialias", _forward_columns())),
        ("backward", *_by_contestant(records, "antialias", _backward_columns("antialias"))),
        ("area", *_by_contestant(records, "area", _forward_columns("area") + _backward_columns("area"))),
        ("linear", *_linear(records)),
    ):
        if rows:
            parts.append(f"{CAPTIONS[name]}\n\n{table(head, rows)}")
    return "\n\n".join([*parts, CONTROLS]) if parts else ""


Column = tuple[str, FilterContestant, str]  # head, contestant, step
TO = {"images": "to images", "windows": "to windows", "both": "to both"}


def _takers(experiment: str) -> list[FilterContestant]:
    return [contestant for contestant in ALL if experiment in contestant.experiments]


def _forward_columns(experiment: str = "antialias") -> list[Column]:
    return [(contestant.name, contestant, "forward") for contestant in _takers(experiment)]


def _backward_columns(experiment: str) -> list[Column]:
    return [
        (f"{contestant.name} {to}", contestant, step)
        for contestant in _takers(experiment)
        for step, to in TO.items()
        if contestant.gradients and (contestant.measure is None or step == "images")
    ]


def _by_contestant(
    records: list[Record], experiment: str, columns: list[Column]
) -> tuple[list[str], list[list[str]]]:
    """A row for each case, a column for each contestant's step: those in which there is something."""
    cases = _cases(records, experiment)
    cells = {
        head: [_cell(records, case, contestant, step) for case in cases] for head, contestant, step in columns
    }
    shown = {head: column for head, column in cells.items() if any(column)}
    rows = [[case["label"], *row] for case, *row in zip(cases, *shown.values(), strict=True) if any(row)]
    return ["", *shown], rows


def _cases(records: list[Record], experiment: str) -> list[Record]:
    found = []
    for record in records:
        if record["case"]["experiment"] == experiment and record["case"] not in found:
            found.append(record["case"])
    return found


def _find(records: list[Record], case: Record, contestant: str | None, step: str) -> Record | None:
    wanted = case, contestant, step
    return next((r for r in records if (r["case"], r["contestant"], r["step"]) == wanted), None)


def _cell(records: list[Record], case: Record, contestant: FilterContestant, step: str) -> str:
    """Ours: the median. Others: how many times that of ours which they are measured by, and the distance."""
    record = _find(records, case, contestant.name, step)
    if record is None:
        return ""
    if record["measure"] is None:
        return f"{1e3 * record['median_s']:.3g} ms"
    ours = _find(records, case, record["measure"], step)
    ratio = f"{record['median_s'] / ours['median_s']:.1f}x" if ours else f"{1e3 * record['median_s']:.3g} ms"
    return f"{ratio}{_distance(record)}"


def _distance(record: Record) -> str:
    if "difference" in record:
        difference = record["difference"]
        return f" (±{difference:.0f})" if difference == int(difference) else f" (±{difference:.0e})"
    return f" ({record['psnr']:.0f} dB)" if "psnr" in record else ""


def _linear(records: list[Record]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for case in _cases(records, "linear"):
        record = _find(records, case, "racnn_ops", "forward")
        if record is not None:
            seconds = record["median_s"]
            each = 1e9 * seconds / case["source_pixels"]
            rows.append([case["label"], f"{1e3 * seconds:.3g} ms", f"{each:.3g} ns"])
    return ["", "racnn_ops", "a source pixel"], rows
