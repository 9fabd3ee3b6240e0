# SPDX-License-Identifier: BSD-3-Clause
"""What check_gpu.py found, as data and as Markdown, beside what the cost model predicts."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_steps import METRICS, ROOT, folder_of

Record = dict[str, Any]
COST_MODEL = ROOT / "tests" / "emulation" / "cost_model.json"
KERNELS_OF_STEP = {
    "forward": ("forward",),
    "backward window": ("window_grad",),
    "backward both": ("window_grad", "image_grad"),
}


def measured(parts: Record, output: Path, commit: str | None) -> Record:
    """Of parts that succeeded: "benchmark", a report as bench_crop.py writes it; "counters" of kernels."""
    good = [name for name, part in parts.items() if part["result"] == "ok"]
    found: Record = {}
    names = [name for name in good if parts[name]["step"] in ("headline", "benchmark")]
    paths = [path for name in names for path in folder_of(name, output).glob("*.json")]
    if "headline" in good and paths:
        reports = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        found["benchmark"] = {**joined(reports), "name": paths[0].stem}
        if not found["benchmark"]["git"]["commit"]:
            found["benchmark"]["git"] = {"commit": commit, "changed": None}
    counted = folder_of("counters", output) / "ncu.csv"
    if "counters" in good and counted.exists():
        found["counters"] = counters(counted.read_text(encoding="utf-8").splitlines())
    return found


def to_json(data: Record) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def joined(reports: Sequence[Record]) -> Record:
    """One report of several with different experiments: the first's, with the lists of all."""
    lists = {
        name: [one for report in reports for one in report[name]] for name in ("sweeps", "times", "refused")
    }
    return {**reports[0], **lists, "command": "python tools/check_gpu.py"}


def counters(lines: Sequence[str]) -> list[Record]:
    """A record for each kernel and grid, of its last launch: ncu writes a line for each launch and metric."""
    start = next((n for n, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    launches: dict[str, Record] = {}
    for row in csv.DictReader(line for line in lines[start:] if line.startswith('"')):
        name = re.sub(r"^void |\(.*|\b(?:\w+::)+", "", row["Kernel Name"])
        launch = launches.setdefault(row["ID"], {"kernel": name, "grid": row["Grid Size"]})
        try:
            launch[row["Metric Name"]] = float(row["Metric Value"].replace(",", ""))
        except ValueError:
            launch[row["Metric Name"]] = None  # "n/a"
    last = {(launch["kernel"], launch["grid"]): launch for launch in launches.values()}
    return sorted(last.values(), key=lambda launch: (launch["kernel"], launch["grid"]))


def predictions(path: Path) -> dict[str, float]:
    """Seconds of a case, all its launches, by its name: "forward, headline, float32, planar"; {}: no file."""
    seconds: dict[str, float] = {}
    try:
        for name, launch in json.loads(path.read_text(encoding="utf-8"))["launches"].items():
            case = name.partition(": ")[0]
            seconds[case] = seconds.get(case, 0.0) + launch["time_us"] / 1e6
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return seconds


def predicted(record: Record, model: dict[str, float]) -> float | None:
    """Of a step on the main case, the sum of its kernels; None where the model lacks one."""
    case = record["case"]
    types = " to ".join(dict.fromkeys((case["dtype"], case["out_dtype"])))
    layout = "planar" if case["layout"] == "contiguous" else case["layout"]
    times = [
        model.get(f"{kernel}, headline, {types}, {layout}") for kernel in KERNELS_OF_STEP[record["step"]]
    ]
    return sum(time for time in times if time is not None) if None not in times else None


def markdown(data: Record) -> str:
    """All tables, with what they were measured on."""
    where = "Rehearsal on a CPU" if data["device"] == "cpu" else data["name"]
    facts = [where, data["driver"] and f"driver {data['driver']}"]
    facts += [f"torch {data['torch']}", data["date"], f"commit `{data['commit'] or 'unknown'}`"]
    made = f"{', '.join(filter(None, facts))}. Made by `python tools/check_gpu.py`."
    sections = [made, _steps(data["parts"])]
    if "benchmark" in data:
        from crop import report  # loads the libraries, which are there by now

        sections += [report.main_table(data["benchmark"]), report.main_note(data["benchmark"])]
        sections += _kernels_alone(data["benchmark"], predictions(COST_MODEL))
    if data.get("counters"):
        sections.append(_counters(data["counters"]))
    return "\n\n".join(sections) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from record import section

    return str(section.table(head, rows))


def _steps(parts: Record) -> str:
    rows = []
    for name, part in parts.items():
        notes = "; ".join(filter(None, (part["reason"], *part.get("left_out", ())))).replace("|", "\\|")
        rows.append([name, part["result"], f"{part['seconds']:.0f} s" if "seconds" in part else "", notes])
    return _table(["", "result", "time", "why"], rows)


def _kernels_alone(benchmark: Record, model: dict[str, float]) -> list[str]:
    """A row for each step and pair of dtypes; a column that nobody has anything for is left out."""
    rows = []
    for record in benchmark["device_times"]:
        if record["contestant"] != "racnn_ops":
            continue
        same = {"case": record["case"], "step": record["step"], "contestant": "grid_sample"}
        theirs: Record = next(
            (other for other in benchmark["device_times"] if same.items() <= other.items()), {}
        )
        row = {"Kernels alone (CUDA graph), µs": f"{record['case']['label']}, {record['step']}"}
        row["racnn_ops"] = _microseconds(record.get("median_s"))
        row["predicted for an H100"] = _microseconds(predicted(record, model))
        row["a copy of the fewest bytes"] = _microseconds(
            record["floor_bytes"] / benchmark["copy_bytes_per_s"]
        )
        row["grid_sample"] = _microseconds(theirs.get("median_s"))
        rows.append(row)
    if not rows:
        return []
    head = [name for name in rows[0] if any(row[name] for row in rows)]
    return [_table(head, [[row[name] for name in head] for row in rows])]


def _microseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e6 * seconds:.1f}"


def _counters(launches: Sequence[Record]) -> str:
    scales = {"gpu__time_duration.sum": 1e-3, "dram__bytes.sum": 1e-6}
    rows = []
    for launch in launches:
        values = [(launch.get(metric), scales.get(metric, 1)) for metric in METRICS]
        shown = ["" if value is None else f"{value * scale:.7g}" for value, scale in values]
        rows.append([f"`{launch['kernel']}`", launch["grid"], *shown])
    return _table(["Counters (ncu, cold caches)", "grid", *METRICS.values()], rows)
