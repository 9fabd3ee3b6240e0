# SPDX-License-Identifier: BSD-3-Clause
"""The results as tables on the terminal."""

from __future__ import annotations

from cases import MODES
from contestants import ALL, GRID_SAMPLE, LOOP, OURS, ROI_ALIGN
from goals import STATED_FOR, goals
from results import Record, Results
from rich.console import Console
from rich.markup import escape
from rich.table import Table


def show(results: Results, console: Console) -> None:
    machine = results.data["machine"]
    console.print(
        f"\n[bold]{machine['device']}[/], {machine['threads']} of {machine['cores']} cores' threads, torch "
        f"{results.data['versions']['torch']}, {results.data['images']}; "
        f"copy: {results.data['copy_bytes_per_s'] / 1e9:.1f} GB/s read and written\n"
    )
    for experiment in ("main", "feature maps"):
        for case in results.cases(experiment):
            console.print(_case_table(results, experiment, case))
    for experiment in results.data["sweeps"]:
        console.print(_sweep_table(results, experiment))
    if results.data["device_times"]:
        console.print(_device_table(results))
    console.print(_memory_table(results))
    console.print(_host_table(results))
    for refused in results.data["refused"]:
        what = f"{refused['contestant']}, {refused['case']['label']}, {refused['mode']}"
        console.print(f"[red]not timed[/]: {what}: {escape(refused['reason'])}")
    console.print(_goals_table(results))


def milliseconds(record: Record) -> str:
    return _significant(1e3 * record["median_s"])


def _significant(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _new_table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _case_table(results: Results, experiment: str, case: Record) -> Table:
    """Every contestant in every mode: median and quartiles, times ours, share of the copy bandwidth."""
    table = _new_table(f"{case['label']}: ms [quartiles]", "", *MODES.values())
    for contestant in ALL:
        cells = [_cell(results, experiment, case, mode, contestant.name) for mode in MODES]
        if any(cells):
            table.add_row(contestant.name, *cells)
    floors = []
    for mode in MODES:
        record = results.time(case, mode, OURS.name, experiment)
        floors.append(_floor(results, record) if record else "")
    table.add_row("[dim]fewest bytes at copy speed", *floors)
    return table


def _cell(results: Results, experiment: str, case: Record, mode: str, contestant: str) -> str:
    record = results.time(case, mode, contestant, experiment)
    if record is None:
        return ""
    quartiles = ", ".join(_significant(1e3 * record[f"{which}_quartile_s"]) for which in ("lower", "upper"))
    ratio = results.ratio(case, mode, contestant, experiment)
    images_only = "" if record["complete"] else " images only"
    share = f"{results.share_of_copy_bandwidth(record):.0%} of copy"
    return f"{milliseconds(record)} \\[{quartiles}]  [bold]{ratio:.1f}x[/]{images_only}\n[dim]{share}[/]"


def _floor(results: Results, record: Record) -> str:
    at_copy_speed = record["floor_bytes"] / results.data["copy_bytes_per_s"]
    return f"[dim]{_significant(1e3 * at_copy_speed)}  ({record['floor_bytes'] / 1e6:.0f} MB)[/]"


def _sweep_table(results: Results, experiment: str) -> Table:
    """Ours, in ms and as a share of the copy bandwidth, and how many times longer the others take."""
    others = [(mode, GRID_SAMPLE) for mode in MODES] + [("forward", ROI_ALIGN), ("forward", LOOP)]
    short = {"forward": "fwd", "window": "+bwd win", "both": "+bwd both"}
    table = _new_table(
        f"by {experiment}",
        "",
        "MB fwd",
        *(f"ours {short[mode]}" for mode in MODES),
        *(f"{contestant.name} {short[mode]}" for mode, contestant in others),
    )
    for case in results.cases(experiment):
        cells = []
        for mode in MODES:
            record = results.time(case, mode, OURS.name, experiment)
            share = f" [dim]{results.share_of_copy_bandwidth(record):.0%}[/]" if record else ""
            cells.append(f"{milliseconds(record)} ms{share}" if record else "")
        for mode, contestant in others:
            ratio = results.ratio(case, mode, contestant.name, experiment)
            cells.append(f"{ratio:.1f}x" if ratio else "")
        forward = results.time(case, "forward", OURS.name, experiment)
        megabytes = f"{forward['floor_bytes'] / 1e6:.1f}" if forward else ""
        table.add_row(case["label"], megabytes, *cells)
    return table


def _device_table(results: Results) -> Table:
    table = _new_table("Kernels alone (CUDA graph)", "", "step", "contestant", "µs", "MB", "of copy")
    for record in results.data["device_times"]:
        row = [record["case"]["label"], record["step"], record["contestant"]]
        if "median_s" in record:
            share = f"{results.share_of_copy_bandwidth(record):.0%}"
            row += [_significant(1e6 * record["median_s"]), f"{record['floor_bytes'] / 1e6:.0f}", share]
        else:
            row += ["not captured", "", ""]
        table.add_row(*row)
    return table


def _memory_table(results: Results) -> Table:
    allocator = "torch's allocator" if not results.is_cuda else "max_memory_allocated"
    table = _new_table(
        "Peak memory of a call, MB",
        "",
        "mode",
        "contestant",
        "results",
        allocator,
        "beyond results",
        "resident",
    )
    for record in results.data["memory"]:
        result, peak, resident = (record[f"{what}_bytes"] for what in ("result", "torch", "resident"))
        sizes = [f"{value / 1e6:.2f}" for value in (result, peak, peak - result)]
        shown = "" if resident is None else f"{resident / 1e6:.1f}"
        table.add_row(record["case"]["label"], record["mode"], record["contestant"], *sizes, shown)
    return table


def _host_table(results: Results) -> Table:
    table = _new_table(
        "Host overhead (tiny tensors, one thread), threads, launches", "", "mode", OURS.name, GRID_SAMPLE.name
    )
    for record in results.find("overhead", contestant=OURS.name):
        other = next(results.find("overhead", mode=record["mode"], contestant=GRID_SAMPLE.name), None)
        times = (f"{1e6 * r['median_s']:.1f} µs" if r else "" for r in (record, other))
        table.add_row("overhead", record["mode"], *times)
    for record in results.find("threads", contestant=OURS.name):
        same = {"mode": record["mode"], "threads": record["threads"]}
        other = next(results.find("threads", contestant=GRID_SAMPLE.name, **same))
        times = [f"{milliseconds(r)} ms" for r in (record, other)]
        table.add_row(f"{record['threads']} threads", record["mode"], *times)
    for record in results.find("launches", contestant=OURS.name):
        other = next(results.find("launches", contestant=GRID_SAMPLE.name, step=record["step"]))
        table.add_row("launches", record["step"], str(record["launches"]), str(other["launches"]))
    return table


def _goals_table(results: Results) -> Table:
    table = _new_table(f"Goals, stated for {STATED_FOR}", "", "goal", "measured", "")
    for goal in goals(results):
        limit = f"{'≥' if goal.at_least else '≤'} {goal.limit:g}{goal.unit}"
        measured = "" if goal.value is None else f"{goal.value:.3g}{goal.unit}"
        verdict = {True: "[green]met", False: "[red]missed", None: "not measured"}[goal.is_met]
        table.add_row(goal.name, limit, measured, verdict)
    return table
