# SPDX-License-Identifier: BSD-3-Clause
"""The cost model finds defects that the kernels once had, planted into a copy of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import cost_model as tool
import kernel_resources
import pytest

from .cost_cases import cases

_ROOT = Path(__file__).resolve().parents[2]

# File, and what stands there today -> with the defect. Defects in one kernel would hide each other.
DEFECTS = {
    "passes over rows that no output reads": (
        "contraction.cuh",
        [
            (
                "!meet(tables.rows_read, tile.row + i, pass.rows)",
                "false",
            ),
        ],
    ),
    "loads wait for each other": (
        "boxcar_grad.cuh",
        [
            ("return vector == 1 ? 8 : 4;", "return vector > 0;"),
        ],
    ),
    "parts without a tile": (
        "window_grad.cuh",
        [
            (
                "Divisor(std::min<int64_t>(window_grad_parts(p.shape), p.tiling.tiles()))",
                "Divisor(window_grad_parts(p.shape))",
            )
        ],
    ),
    "a nearly empty wave": (
        "contraction.cuh",
        [
            (
                "  using Shared = ",
                "  if constexpr (P::kTwoEntries) {\n    p.tiling.rows = 44;\n"
                "    p.tiling.row_tiles = divide_up(p.height(), 44);\n"
                "    p.divisors = TilingDivisors(p.tiling, p.shape.windows);\n  }\n  using Shared = ",
            ),
        ],
    ),
}


def plant(root: Path) -> None:
    """A copy of the kernels with all defects, which are in different kernels."""
    shutil.copytree(_ROOT / "csrc", root / "csrc")
    shutil.copytree(_ROOT / "tests" / "emulation", root / "tests" / "emulation")
    for file, replacements in DEFECTS.values():
        path = root / "csrc" / "cuda" / file
        source = path.read_text()
        for right, wrong in replacements:
            assert source.count(right) == 1, f"{file} has changed: plant the defect in another way"
            source = source.replace(right, wrong)
        path.write_text(source)


def found(key: str, now: tool.Table, before: tool.Table) -> set[str]:
    """Which numbers of the launch have grown."""
    problems = tool.problems({key: now[key]}, before, True)
    return {problem.removeprefix(f"{key}: ").split()[0] for problem in problems}


@pytest.mark.slow
def test_planted_defects_are_found(tmp_path: Path) -> None:
    nvcc = kernel_resources.find_nvcc()
    if nvcc is None:
        pytest.skip("nvcc was not found: set CUDA_HOME")
    plant(tmp_path)
    named = {case.key: case for case in cases()}
    # Of the image gradient one with many rows that nothing reads, of the windows' one that latency bounds.
    forward, window_grad, image_grad, boxcar_grad = keys = [
        f"{name}, float32, planar"
        for name in (
            "forward, headline",
            "window_grad, tl=60",
            "image_grad, tl=60",
            "boxcar_grad, headline",
        )
    ]
    chosen = [named[key] for key in keys]
    today = tool.measure(chosen, tool.compile_code(nvcc, chosen))
    code = tool.compile_code(nvcc, chosen, tmp_path)
    planted = tool.measure(chosen, code, tmp_path, "-DRACNN_ONLY_FLOAT32=ON")
    assert found(image_grad, planted, today) >= {"instructions", "shared_wavefronts"}
    assert found(boxcar_grad, planted, today) >= {"latency_us", "time_us"}
    assert planted[boxcar_grad]["loads_in_flight"] < 0.5 * today[boxcar_grad]["loads_in_flight"]
    assert found(window_grad, planted, today) >= {"empty_blocks", "latency_us", "time_us"}
    assert found(forward, planted, today) >= {"time_us"}
    assert planted[forward]["last_wave_us"] > 2 * today[forward]["last_wave_us"]
