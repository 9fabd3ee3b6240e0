# SPDX-License-Identifier: BSD-3-Clause
"""The results as Markdown: what the README quotes, and the tables that only the terminal shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from record.section import table

from . import filter_report, published_times
from .augmentation import augmentation_table
from .cases import MODES
from .compared import compared, faster
from .contestants import ALL, GRID_SAMPLE, LOOP, OURS, ROI_ALIGN
from .probes import COPY, WINDOW_COPY
from .results import Record, Results, times_ours


def tables(data: Record) -> str:
    """The main case, and where they were measured, longer filters and published models; or these alone."""
    main = "" if published_times.is_alone(data) else main_table(data)
    return "\n\n".join(filter(None, (main, filter_report.tables(data), published_times.models_table(data))))


def main_table(data: Record) -> str:
    """Every contestant on the main case: the median, and in brackets how many times ours."""
    results = Results(data)
    rows = _contestants(lambda mode, contestant: _main_cell(results, mode, contestant))
    return table(["", *MODES.values()], rows)


def _contestants(cell: Callable[[str, str], str]) -> list[list[str]]:
    """A row for each that has something to show; ``cell`` is called with a mode and its name."""
    rows = ([contestant.name, *(cell(mode, contestant.name) for mode in MODES)] for contestant in ALL)
    return [row for row in rows if any(row[1:])]


def _main_cell(results: Results, mode: str, contestant: str) -> str:
    record = results.time(results.main, mode, contestant)
    if record is None:
        return ""
    images_only = "" if record["complete"] else ", images only"
    ratio = results.ratio(results.main, mode, contestant)
    return f"{1e3 * record['median_s']:.3g} ms ({times_ours(ratio)}{images_only})"


def main_note(data: Record) -> str:
    if published_times.is_alone(data):
        return f"Random pixels, medians of one run with contestants by turns. {faster(compared(data))}"
    which = "First table: " if data.get("filters") else ""
    what = f"{which}{data['main_case']['label']}, {data['images']}"
    medians = (
        "medians of one run with contestants by turns; in brackets: times ours, bold where ours is slower"
    )
    return f"{what}, {medians}. {faster(compared(data))}"


def details(results: Results) -> str:
    """Tables of everything measured."""
    parts = [f"A copy reads and writes {results.data['copy_bytes_per_s'] / 1e9:.1f} GB/s."]
    for experiment in ("main", "feature maps"):
        parts += [_case(results, experiment, case) for case in results.cases(experiment)]
    parts += [_sweep(results, experiment) for experiment in results.data["sweeps"]]
    if results.data["device_times"]:
        parts.append(_kernels_alone(results))
    parts += [filter_report.details(results.data), augmentation_table(results.data)]
    if results.data.get("paste"):
        parts.append(pasted(results))
    if results.data.get("lists"):
        parts.append(listed(results))
    if results.data["threads"]:
        parts.append(_threads(results))
    if results.data["memory"]:
        parts += [_memory(results), _host(results)]
    parts += [not_timed(record) for record in results.data["refused"]]
    return "\n\n".join(filter(None, parts)) + "\n"


def not_timed(refused: Record) -> str:
    what = f"{refused['contestant']}, {refused['case']['label']}, {refused['mode']}"
    return f"**Not timed**: {what}: {refused['reason']}"


def _titled(title: str, head: list[str], rows: list[list[str]]) -> str:
    return f"### {title}\n\n{table(head, rows)}"


def milliseconds(record: Record) -> str:
    return _significant(1e3 * record["median_s"])


def _significant(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _case(results: Results, experiment: str, case: Record) -> str:
    """Every contestant in every mode: median and quartiles, times ours, share of the copy bandwidth."""
    rows = _contestants(lambda mode, contestant: _cell(results, experiment, case, mode, contestant))
    records = (results.time(case, mode, OURS.name, experiment) for mode in MODES)
    floors = [_floor(results, record) if record else "" for record in records]
    rows.append(["fewest bytes at copy speed", *floors])
    title = f"{case['label']}: ms [quartiles], times ours, share of the copy bandwidth"
    return _titled(title, ["", *MODES.values()], rows)


def _cell(results: Results, experiment: str, case: Record, mode: str, contestant: str) -> str:
    record = results.time(case, mode, contestant, experiment)
    if record is None:
        return ""
    quartiles = ", ".join(_significant(1e3 * record[f"{which}_quartile_s"]) for which in ("lower", "upper"))
    ratio = results.ratio(case, mode, contestant, experiment)
    images_only = "" if record["complete"] else " images only"
    share = f"{results.share_of_copy_bandwidth(record):.0%}"
    return f"{milliseconds(record)} [{quartiles}] {times_ours(ratio)}{images_only} {share}"


def _floor(results: Results, record: Record) -> str:
    at_copy_speed = record["floor_bytes"] / results.data["copy_bytes_per_s"]
    return f"{_significant(1e3 * at_copy_speed)} ({record['floor_bytes'] / 1e6:.0f} MB)"


def _sweep(results: Results, experiment: str) -> str:
    """Ours, in ms and as a share of the copy bandwidth, and how many times longer the others take."""
    cases = results.cases(experiment)
    short = {"forward": "fwd", "window": "+bwd win", "both": "+bwd both"}
    columns = {"MB fwd": [_megabytes(results, experiment, case) for case in cases]}
    for mode, name in short.items():
        columns[f"ours {name}"] = [_ours(results, experiment, case, mode) for case in cases]
    others = [(GRID_SAMPLE, mode, short[mode]) for mode in MODES]
    for contestant in (ROI_ALIGN, LOOP):  # their "both" is the images' gradient alone
        others += [(contestant, "forward", "fwd"), (contestant, "both", "+bwd images")]
    for contestant, mode, name in others:
        ratios = (results.ratio(case, mode, contestant.name, experiment) for case in cases)
        columns[f"{contestant.name} {name}"] = [times_ours(ratio) if ratio else "" for ratio in ratios]
    columns = {head: cells for head, cells in columns.items() if any(cells)}
    rows = [[case["label"], *cells] for case, *cells in zip(cases, *columns.values(), strict=True)]
    return _titled(f"By {experiment}", ["", *columns], rows)


def _megabytes(results: Results, experiment: str, case: Record) -> str:
    forward = results.time(case, "forward", OURS.name, experiment)
    return f"{forward['floor_bytes'] / 1e6:.1f}" if forward else ""


def _ours(results: Results, experiment: str, case: Record, mode: str) -> str:
    record = results.time(case, mode, OURS.name, experiment)
    return f"{milliseconds(record)} ms {results.share_of_copy_bandwidth(record):.0%}" if record else ""


def _threads(results: Results) -> str:
    """Each number of threads beside a plain copy by as many."""
    rates = {
        record["threads"]: record["floor_bytes"] / record["median_s"]
        for record in results.find("threads", contestant=COPY)
    }
    head = ["", "mode"]
    for threads in rates:
        thread = f"{threads} thread{'s' * (threads > 1)}"
        head += [f"{OURS.name}, {thread}", f"{GRID_SAMPLE.name}, {thread}"]
    copies = (cell for rate in rates.values() for cell in (f"{rate / 1e9:.1f} GB/s", ""))
    rows = [[f"a plain copy, `{COPY}`", "", *copies]]
    for first in results.find("threads", contestant=WINDOW_COPY, threads=next(iter(rates))):
        row = [f"{first['case']['label']}: its windows, `clone`", ""]
        for threads, rate in rates.items():
            copy = next(results.find("threads", contestant=WINDOW_COPY, case=first["case"], threads=threads))
            row += [f"{milliseconds(copy)} ms {copy['floor_bytes'] / copy['median_s'] / rate:.0%}", ""]
        rows.append(row)
    for record in results.find("threads", contestant=OURS.name, threads=next(iter(rates))):
        same = {"case": record["case"], "mode": record["mode"]}
        row = [record["case"]["label"], record["mode"]]
        for threads, rate in rates.items():
            ours, other = (
                next(results.find("threads", contestant=contestant.name, threads=threads, **same))
                for contestant in (OURS, GRID_SAMPLE)
            )
            share = ours["floor_bytes"] / ours["median_s"] / rate
            ratio = times_ours(other["median_s"] / ours["median_s"])
            row += [f"{milliseconds(ours)} ms {share:.0%}", ratio]
        rows.append(row)
    return _titled("By threads: share of a copy by as many, times ours", head, rows)


def pasted(results: Results) -> str:
    """Masks pasted into an image."""
    records = results.data["paste"]
    rows = [
        [record["contestant"], milliseconds(record), times_ours(record["median_s"] / records[0]["median_s"])]
        for record in records
    ]
    return _titled(f"{records[0]['label']}: ms, times ours", ["", "ms", "times ours"], rows)


def listed(results: Results) -> str:
    """Different numbers of boxes, images of different sizes."""
    rows, ours = [], {}
    for record in results.data["lists"]:
        what = record["label"], record["step"]
        ours.setdefault(what, record["median_s"])  # the first of each
        ratio = times_ours(record["median_s"] / ours[what])
        rows.append([*what, record["contestant"], milliseconds(record), ratio])
    head = ["", "step", "contestant", "ms", "times ours"]
    return _titled("Lists of boxes and images: ms, times ours", head, rows)


def _kernels_alone(results: Results) -> str:
    rows = []
    for record in results.data["device_times"]:
        row = [record["case"]["label"], record["step"], record["contestant"]]
        if "median_s" in record:
            share = f"{results.share_of_copy_bandwidth(record):.0%}"
            row += [_significant(1e6 * record["median_s"]), f"{record['floor_bytes'] / 1e6:.0f}", share]
        else:
            row += ["not captured", "", ""]
        rows.append(row)
    return _titled("Kernels alone (CUDA graph)", ["", "step", "contestant", "µs", "MB", "of copy"], rows)


def _memory(results: Results) -> str:
    allocator = "torch's allocator" if not results.is_cuda else "max_memory_allocated"
    head = ["", "mode", "contestant", "results", allocator, "beyond results", "resident"]
    rows = []
    for record in results.data["memory"]:
        result, peak, resident = (record[f"{what}_bytes"] for what in ("result", "torch", "resident"))
        sizes = [f"{value / 1e6:.2f}" for value in (result, peak, peak - result)]
        shown = "" if resident is None else f"{resident / 1e6:.1f}"
        rows.append([record["case"]["label"], record["mode"], record["contestant"], *sizes, shown])
    return _titled("Peak memory of a call, MB", head, rows)


def _host(results: Results) -> str:
    title = "Host overhead (tiny tensors, one thread), launches"
    return _titled(title, ["", "mode", OURS.name, GRID_SAMPLE.name], list(_host_rows(results)))


def _host_rows(results: Results) -> Iterator[list[str]]:
    for record in results.find("overhead", contestant=OURS.name):
        other = next(results.find("overhead", mode=record["mode"], contestant=GRID_SAMPLE.name), None)
        times = [f"{1e6 * r['median_s']:.1f} µs" if r else "" for r in (record, other)]
        yield ["overhead", record["mode"], *times]
    for record in results.find("launches", contestant=OURS.name):
        other = next(results.find("launches", contestant=GRID_SAMPLE.name, step=record["step"]))
        yield ["launches", record["step"], str(record["launches"]), str(other["launches"])]
