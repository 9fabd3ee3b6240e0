# SPDX-License-Identifier: BSD-3-Clause
"""What every CUDA kernel costs, counted without a GPU, and the time that follows from it by a model.

``python tools/cost_model.py`` prints the costs of the launches in tests/emulation/cost_cases.py beside those
of the committed table, and fails if one has grown by more than 2 %; ``--update`` rewrites the table, ``--only
TEXT`` looks at the launches with that text in their name. All times are predictions: no GPU is asked
(tests/emulation/README.md). Times, and whatever comes from machine code, need nvcc and cuobjdump, and are
compared only with the nvcc release that the table was made with.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cost_table
import kernel_resources
import machine_code
from cost_table import Row, Table, rounded
from kernel_resources import Kernels

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "tests"))

from emulation.build import build, python  # noqa: E402
from emulation.cost_cases import CostCase, cases  # noqa: E402
from emulation.costs import Job, Launch  # noqa: E402
from emulation.gpu import H100  # noqa: E402
from emulation.predicted_time import predict  # noqa: E402

TABLE = _ROOT / "tests" / "emulation" / "cost_model.json"
_ABOUT = "times are predictions of a model, never measured: tests/emulation/README.md says what stands where"

# What must not grow: counted of the kernels on the CPU, and with the machine code.
TRACED = ("empty_blocks", "load_sectors", "store_sectors", "wavefronts", "l2_mb", "dram_mb")
FROM_CODE = ("instructions", "shared_wavefronts", "latency_us", "time_us")

_CPP = {
    "float32": "float",
    "float16": "__half",
    "bfloat16": "__nv_bfloat16",
    "float64": "double",
    "uint8": "uint8_t",
}
_PROBLEMS = {
    "forward": "ForwardProblem<{image}, {crop}, {taps}>",
    "window_grad": "WindowGradProblem<{image}, {crop}, {taps}>",
    "image_grad": "ImageGradProblem<{crop}, {image}, {taps}>",
    "boxcar_grad": "BoxcarProblem<{crop}>",
}


def compile_code(nvcc: str, chosen: Sequence[CostCase], root: Path = _ROOT) -> Kernels:
    """The kernels that `chosen` launch, for H100, by mangled name."""
    problems = {
        _PROBLEMS[c.kernel].format(
            image=_CPP[c.image],
            crop=_CPP[c.crop],
            taps=f"{'FilterSpec' if c.has_filter else 'WindowSpec'}<Accumulate<{_CPP[c.image]}>>",
        )
        for c in chosen
    }
    lines = [f'#include "{root}/csrc/cuda/{kernel}.cuh"' for kernel in _PROBLEMS]
    lines += ["namespace racnn {"]
    lines += [f"template cudaError_t compute(const {p}&, cudaStream_t, int64_t);" for p in sorted(problems)]
    if machine_code.find_cuobjdump(nvcc) is None:
        raise RuntimeError("no cuobjdump was found: it is beside nvcc or comes with triton")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernels.cu"
        source.write_text("\n".join([*lines, "}\n"]))
        return kernel_resources.compile_source(nvcc, source, "sm_90")


def run_cases(
    script: str, chosen: Sequence[CostCase], kernels: Kernels, root: Path = _ROOT, *options: str
) -> dict[CostCase, Any]:
    """What a script of tests/emulation finds out about each case. `options` are CMake's."""
    job = Job(list(chosen), {name: kernel.code for name, kernel in kernels.items()})
    with tempfile.TemporaryDirectory() as folder:
        job_file, results_file = Path(folder) / "job", Path(folder) / "results"
        job_file.write_bytes(pickle.dumps(job))
        arguments = ("-m", f"emulation.{script}", str(job_file), str(results_file))
        run = python("trace", *arguments, folder=build("trace", root, *options))
        if run.returncode != 0:
            raise RuntimeError(f"{script} failed:\n{run.stderr}")
        results: dict[CostCase, Any] = pickle.loads(results_file.read_bytes())
    return results


def measure(chosen: Sequence[CostCase], kernels: Kernels, root: Path = _ROOT, *options: str) -> Table:
    """A row for each launch. `kernels` are those of `root`; if there are none, the tracer alone counts."""
    launches: dict[CostCase, list[Launch]] = run_cases("count_costs", chosen, kernels, root, *options)
    table: Table = {}
    for case, of_case in launches.items():
        rows = [_row(case, launch, kernels) for launch in of_case]
        _add_share(rows, case)
        table[case.key] = rows[0]
        for launch, row in zip(of_case[1:], rows[1:], strict=True):
            name = kernel_resources.demangle([launch.kernel])[launch.kernel].split("<")[0]
            table[f"{case.key}: {name}"] = row
    return table


def _row(case: CostCase, launch: Launch, kernels: Kernels) -> Row:
    """Instructions and accesses are a warp's, for 32 elements of the case's outputs."""
    traffic, of_32 = launch.traffic, 32 / case.outputs
    row: Row = {
        "blocks": launch.blocks,
        "threads": launch.threads,
        "empty_blocks": launch.empty_blocks,
        "loads": traffic.loads * of_32,
        "load_sectors": traffic.load_sectors * of_32,
        "stores": traffic.stores * of_32,
        "store_sectors": traffic.store_sectors * of_32,
        "wavefronts": (traffic.load_wavefronts + traffic.store_wavefronts) * of_32,
        "l2_mb": traffic.l2_bytes / 1e6,
        "dram_mb": traffic.dram_bytes / 1e6,
        "fewest_mb": case.fewest_bytes / 1e6,
    }
    if launch.work is not None:
        kernel, work = kernels[launch.kernel], launch.work
        predicted = predict(H100, launch, kernel.registers, kernel.shared)
        loop = machine_code.busiest_loop(kernel.code, work.executed)
        row |= {
            "waves": predicted.waves,
            "last_wave_share": predicted.last_wave_share,
            "instructions": work.instructions * of_32,
            "shared_wavefronts": work.shared_wavefronts * of_32,
            "loads_in_flight": work.loads / max(work.load_rounds, 1.0),
            "loop_instructions": len(loop),
            "loop_loads_in_flight": machine_code.loads_in_flight(loop),
            "block_cycles": work.cycles,
            "start_cycles": work.start_cycles,
            "dram_us": predicted.dram,
            "l2_us": predicted.l2,
            "wavefronts_us": predicted.wavefronts,
            "issue_us": predicted.issue,
            "latency_us": predicted.latency,
            "start_us": predicted.start,
            "last_wave_us": predicted.last_wave,
            "time_us": predicted.time,
            "bound": predicted.bound,
        }
    return {name: rounded(value) for name, value in row.items()}


def _add_share(rows: list[Row], case: CostCase) -> None:
    """Of the fewest bytes at the memory's speed in the time of all launches of the case."""
    if "time_us" in rows[0]:
        floor = case.fewest_bytes / H100.dram_bytes_per_second * 1e6
        rows[0]["share_of_floor"] = rounded(floor / sum(row["time_us"] for row in rows))


def problems(measured: Table, table: Table, same_nvcc: bool) -> list[str]:
    """What has grown, and rows that are not in the table; `measured` may be a part of the launches."""
    return cost_table.problems(measured, table, TRACED + (FROM_CODE if same_nvcc else ()))


def read_table() -> tuple[str, Table]:
    """The nvcc release, and the rows."""
    content = json.loads(TABLE.read_text())
    return content["nvcc"], content["launches"]


def write_table(release: str, table: Table) -> None:
    cost_table.write(TABLE, {"about": _ABOUT, "nvcc": release}, "launches", table)


# Title, name, width. Between brackets stands what the table says.
_COLUMNS = (
    ("predicted us", "time_us", 13),
    ("of floor", "share_of_floor", 15),
    ("bound", "bound", 10),
    ("dram", "dram_us", 6),
    ("issue", "issue_us", 6),
    ("wavefronts", "wavefronts_us", 10),
    ("latency", "latency_us", 7),
    ("last wave", "last_wave_us", 9),
    ("waves", "waves", 6),
    ("instructions", "instructions", 13),
    ("in flight", "loads_in_flight", 9),
    ("dram MB", "dram_mb", 7),
    ("fewest MB", "fewest_mb", 9),
)


def show(measured: Table, table: Table) -> str:
    """A line for each launch. Where there is room, what the table says follows in brackets, if it differs."""
    width_of_key = max(map(len, measured), default=0)
    title = f"{'predicted, never measured':<{width_of_key}}"
    lines = [" | ".join([title, *(f"{name:>{width}}" for name, _, width in _COLUMNS)])]
    for key, row in measured.items():
        cells = [f"{key:<{width_of_key}}"]
        for _, name, width in _COLUMNS:
            now, before = row.get(name, ""), table.get(key, {}).get(name, "")
            text = f"{now:.3g}" if isinstance(now, (int, float)) else str(now)
            if before not in ("", now) and width > 10:
                text += f" ({before:.3g})"
            cells.append(f"{text:>{width}}")
        lines.append(" | ".join(cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="rewrite the table")
    parser.add_argument("--only", default="", metavar="TEXT", help="launches with this in their name")
    arguments = parser.parse_args()
    nvcc = kernel_resources.find_nvcc()
    release = kernel_resources.nvcc_release(nvcc) if nvcc else ""
    chosen = [case for case in cases() if arguments.only in case.key]
    measured = measure(chosen, compile_code(nvcc, chosen) if nvcc else {})
    table_release, table = read_table() if TABLE.exists() else ("", {})
    print(show(measured, table))
    if arguments.update:
        if nvcc is None:
            sys.exit("no nvcc was found: set CUDA_HOME")
        if arguments.only and release != table_release:
            sys.exit(f"the table was made with nvcc {table_release}: update all of it")
        write_table(release, table | measured if arguments.only else measured)
    elif found := problems(measured, table, release == table_release):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
