# SPDX-License-Identifier: BSD-3-Clause
"""The goals that the project set itself before it measured, and what a results file says about each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from cases import MODES
from contestants import GRID_SAMPLE, LOOP, OURS
from results import Record, Results

STATED_FOR = "448² → 224², B = 16 on a CPU, B = 64 on a GPU"

TABLE_BYTES = 64
"""Memory beyond the result that counts as O(B·K·(h + w)), for each of these B·K·(h + w) rows and columns."""


@dataclass(frozen=True)
class Goal:
    """``value`` is to be at least ``limit`` where ``at_least``, else at most; ``None``: not measured here."""

    name: str
    value: float | None
    limit: float
    at_least: bool = True
    unit: str = "x"

    @property
    def is_met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"met": self.is_met}


def goals(results: Results) -> list[Goal]:
    return list(_cuda_goals(results) if results.is_cuda else _cpu_goals(results))


def _cpu_goals(results: Results) -> Iterator[Goal]:
    for mode, limit in (("forward", 8), ("window", 15), ("both", 15)):
        ratio = results.ratio(results.main, mode, GRID_SAMPLE.name)
        yield Goal(f"faster than grid_sample, {MODES[mode]}", ratio, limit)
    yield Goal("faster than the loop, forward", results.ratio(results.main, "forward", LOOP.name), 2.5)
    for mode in MODES:
        yield Goal(f"two threads against one, {MODES[mode]}", _thread_gain(results, mode), 1.8)
    for experiment, size in (("batch", "batch"), ("channels", "channels"), ("windows", "windows")):
        exponents = [results.exponent(experiment, size, mode) for mode in MODES]
        measured = [exponent for exponent in exponents if exponent is not None]
        name = f"linear in {experiment}: slope of log(time) over log(size), steepest mode"
        yield Goal(name, max(measured, default=None), 1.1, at_least=False, unit="")
    yield from _memory_goals(results)
    yield from _overhead_goals(results)


def _cuda_goals(results: Results) -> Iterator[Goal]:
    for step, limit in (("forward", 85), ("backward window", 80), ("backward both", 75)):
        for record in results.find("device_times", step=step, contestant=OURS.name):
            share = 100 * results.share_of_copy_bandwidth(record) if "median_s" in record else None
            case = record["case"]
            types = " → ".join(dict.fromkeys((case["dtype"], case["out_dtype"])))
            yield Goal(f"share of the copy bandwidth, {step}, {types}", share, limit, unit=" %")
    for mode, limit in (("forward", 3), ("window", 5), ("both", 5)):
        ratio = results.ratio(results.main, mode, GRID_SAMPLE.name)
        yield Goal(f"faster than grid_sample, {MODES[mode]}", ratio, limit)
    single = next((case for case in results.cases("batch") if case["batch"] == 1), None)
    for mode in MODES:
        ratio = results.ratio(single, mode, GRID_SAMPLE.name, "batch") if single else None
        yield Goal(f"faster than grid_sample at B = 1, {MODES[mode]}", ratio, 3)
    for step, limit in (("forward", 1), ("backward window", 2), ("backward both", 3)):
        for record in results.find("launches", step=step, contestant=OURS.name):
            yield Goal(f"launches, {step}", record["launches"], limit, at_least=False, unit="")
            yield Goal(f"copies to the host, {step}", record["copies_to_host"], 0, at_least=False, unit="")
    captures = list(results.find("device_times", contestant=OURS.name))
    failed = sum("not_captured" in record for record in captures)
    yield Goal("steps that a CUDA graph could not capture", failed, 0, at_least=False, unit="")
    yield from _memory_goals(results)
    yield from _overhead_goals(results)


def _thread_gain(results: Results, mode: str) -> float | None:
    one, two = (
        next(results.find("threads", contestant=OURS.name, mode=mode, threads=threads), None)
        for threads in (1, 2)
    )
    return one["median_s"] / two["median_s"] if one and two else None


def _memory_goals(results: Results) -> Iterator[Goal]:
    for record in results.find("memory", contestant=OURS.name):
        case = record["case"]
        rows_and_columns = case["batch"] * case["windows"] * 2 * case["crop"]
        beyond = (record["torch_bytes"] - record["result_bytes"]) / rows_and_columns
        name = f"memory beyond the result, per B·K·(h + w), {MODES[record['mode']]}, {case['layout']}"
        yield Goal(name, beyond, TABLE_BYTES, at_least=False, unit=" B")


def _overhead_goals(results: Results) -> Iterator[Goal]:
    for mode, limit in (("forward", 12), ("window", 65), ("both", 65)):
        record: Record | None = next(results.find("overhead", contestant=OURS.name, mode=mode), None)
        microseconds = 1e6 * record["median_s"] if record else None
        name = f"host overhead, {MODES[mode]}"
        yield Goal(name, microseconds, limit, at_least=False, unit=" µs")
