# SPDX-License-Identifier: BSD-3-Clause
"""What is to be done on a machine with a GPU, in which order: the steps of check_gpu.py as data."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
LIMIT = 540
"""Seconds that a part may take, unless its step says less."""
REPEATS = 100

SMOKE_TESTS = (
    "tests/ops/test_devices.py",
    "tests/ops/test_forward.py::test_agrees_with_reference",
    "tests/ops/test_gradients.py::test_agree_with_reference",
    "tests/ops/test_boxcar.py::test_agrees_with_the_formulas",
    "tests/ops/test_boxcar.py::test_every_layout_of_the_incoming_gradient",
    "tests/ops/test_transforms.py::test_tangents_of_every_dtype",
)
SANITIZER_TESTS = ("tests/ops/test_edge_cases.py", "tests/ops/test_boxcar.py", "tests/ops/test_layout.py")
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
SUITE_PARTS = 6
SWEEPS = (("batch", "channels"), ("windows", "size"), ("feature maps", "dtype", "layout"))
"""Of bench_crop.py, in parts that take some minutes each."""
METRICS = {
    "gpu__time_duration.sum": "µs",
    "launch__waves_per_multiprocessor": "waves",
    "smsp__inst_executed.sum": "instructions",
    "l1tex__data_pipe_lsu_wavefronts.sum": "wavefronts",
    "dram__bytes.sum": "DRAM MB",
}
"""ncu's names -> the table's."""


@dataclass(frozen=True)
class Part:
    """A command that fits into the time limit. Done once, unless ``inputs`` (files and folders) change."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    inputs: Sequence[Path] = ()
    makes: str = ""  # a pattern: the file that it leaves in its folder besides the log
    is_test: bool = False  # pytest, which must have passed something: it is content with nothing but skips
    # What a tool says that is installed, and cannot or may not look into this GPU.
    refusals: Sequence[str] = ()


@dataclass(frozen=True)
class Step:
    """Parts that belong together.

    Attributes:
        needs: steps that must have succeeded before.
        missing: why it cannot be done here; "": it can.
        always: quick, and what it finds can change between calls: it is never taken as done.
    """

    name: str
    does: str
    parts: Sequence[Part]
    needs: Sequence[str] = ("library",)
    missing: str = ""
    limit: float = LIMIT
    always: bool = False


def all_steps(device: str, output: Path, wheel: Path | None = None, jobs: int = 0) -> list[Step]:
    """In the order in which they are done: the cheapest and most telling first.

    ``output`` is the folder of logs and results. With ``device="cpu"`` the same commands run on the CPU and
    on small images: a rehearsal. ``jobs`` are the suite's processes; 0: one.
    """
    every = device if device == "cuda" else "test_devices or cpu and torch.float64-torch.float64"
    right = ("library", "smoke", "determinism")  # a time of wrong results says nothing
    every_run = {"RACNN_TEST_REPEATS": str(REPEATS if device == "cuda" else 3)}
    return [
        _library(device, wheel),
        Step(
            "smoke",
            "every kernel in every dtype and layout; a first call in a graph; a device that is not current",
            [_pytest("smoke", every, SMOKE_TESTS, "-rs")],
            limit=180,
        ),
        Step(
            "determinism",
            f"the same bits in {REPEATS} runs",
            [_pytest("determinism", device, ("tests/ops/test_determinism.py",), env=every_run)],
        ),
        Step(
            "headline",
            "the main case against grid_sample, roi_align and compiled grid_sample; kernels alone",
            [_benchmark("headline", device, output, ["main", "probes"] if device == "cuda" else ["main"])],
            right,
        ),
        _counters(device, output, right),
        Step("suite", f"all tests of the GPU, in {SUITE_PARTS} parts", _suite(device, jobs)),
        *(_sanitizer(tool, device) for tool in SANITIZERS),
        Step(
            "benchmark",
            "the sweeps of the full benchmark; its main case is that of headline",
            [_benchmark(f"benchmark {n}", device, output, names) for n, names in enumerate(SWEEPS, 1)],
            (*right, "headline"),
        ),
    ]


def find_tool(name: str) -> str | None:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    return shutil.which(name) or shutil.which(name, path=f"{home}/bin")


def folder_of(part: str, output: Path) -> Path:
    """Where a part writes its log and everything else."""
    return output / "parts" / part.replace(" ", "-")


def kernels() -> list[str]:
    """The names of all kernels, as ncu knows them."""
    sources = "".join(path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("csrc/cuda/*.cuh")))
    return re.findall(r"__global__.*?(\w+_kernel)\(", sources, flags=re.DOTALL)


def _library(device: str, wheel: Path | None) -> Step:
    command = [sys.executable, "tools/gpu_library.py", "--device", device]
    command += ["--wheel", str(wheel)] if wheel else []
    return Step("library", "load the libraries, or build them", [Part("library", command)], (), always=True)


def _pytest(
    name: str, which: str, tests: Sequence[str], *options: str, env: Mapping[str, str] | None = None
) -> Part:
    command = [sys.executable, "-m", "pytest", "-q", *tests, "-k", which, *options]
    files = {ROOT / test.partition("::")[0] for test in tests}
    return Part(name, command, env or {}, [*sorted(TESTS.glob("*.py")), *sorted(files)], is_test=True)


def _suite(device: str, jobs: int) -> list[Part]:
    """The files whose tests ask for a device; the largest first, each to the part that has least so far."""
    files = [path for path in TESTS.rglob("test_*.py") if _asks_for_a_device(path)]
    shares: list[list[Path]] = [[] for _ in range(SUITE_PARTS)]
    for path in sorted(files, key=lambda path: (-path.stat().st_size, path)):
        min(shares, key=lambda share: sum(other.stat().st_size for other in share)).append(path)
    workers = ("-n", str(jobs)) if jobs and find_spec("xdist") else ()
    return [
        _pytest(f"suite {n}", device, [str(path.relative_to(ROOT)) for path in share], *workers)
        for n, share in enumerate(shares, 1)
    ]


def _asks_for_a_device(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    return "device: str" in text or "import needs_cuda" in text


def _sanitizer(tool: str, device: str) -> Step:
    program = find_tool("compute-sanitizer")
    prefix = [program or "", "--tool", tool, "--error-exitcode", "9"]
    if tool != "initcheck":  # which has to see what torch's kernels write
        prefix += ["--kernel-name", "kns=racnn"]  # torch's own are not ours to judge
    # Without the caching allocator every tensor has bounds of its own.
    env = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    parts = []
    for path in SANITIZER_TESTS:
        part = _pytest(f"{tool} {Path(path).stem}", device, [path], "-m", "not slow", env=env)
        command = [*prefix, *part.command]
        parts.append(replace(part, command=command, refusals=("Device not supported",)))
    missing = "" if program else "compute-sanitizer was not found"
    return Step(tool, f"compute-sanitizer's {tool} on a part of the suite", parts, missing=missing)


def _benchmark(name: str, device: str, output: Path, experiments: Sequence[str]) -> Part:
    command = [sys.executable, "benchmarks/bench_crop.py", "--device", device]
    command += ["--only", *experiments, "--output", str(folder_of(name, output))]
    if device == "cpu":
        command += ["--synthetic", "--no-compile", "--batch", "2", "--image", "32", "--crop", "16"]
        command += ["--rounds", "3"]
    return Part(name, command, inputs=[ROOT / "benchmarks"], makes="*.json")


def _counters(device: str, output: Path, needs: Sequence[str]) -> Step:
    ncu = find_tool("ncu")
    command = [ncu or "", "--csv", "--log-file", str(folder_of("counters", output) / "ncu.csv")]
    command += ["--print-units", "base", "--clock-control", "none", "--metrics", ",".join(METRICS)]
    command += ["--kernel-name", f"regex:^({'|'.join(kernels())})$"]
    command += [sys.executable, "benchmarks/kernel_launches.py", "--device", device]
    refusals = ("ERR_NVGPUCTRPERM", "LibraryNotLoaded")
    part = Part("counters", command, inputs=[ROOT / "benchmarks"], makes="ncu.csv", refusals=refusals)
    does = "ncu: waves, instructions, wavefronts and DRAM bytes of each kernel"
    return Step("counters", does, [part], needs, "" if ncu else "ncu was not found")
