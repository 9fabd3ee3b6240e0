# SPDX-License-Identifier: BSD-3-Clause
"""The cost model: its counts are right, no kernel costs more than the table says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cost_model as tool
import kernel_resources
import pytest

from .cost_cases import COUNTED_TYPES, CostCase, cases
from .costs import Launch, Traffic, Work
from .gpu import H100
from .predicted_time import predict

NO_TRAFFIC = Traffic(
    loads=0,
    load_sectors=0,
    load_wavefronts=0,
    stores=0,
    store_sectors=0,
    store_wavefronts=0,
    l2_bytes=0,
    dram_bytes=0,
)
NO_WORK = Work(
    instructions=0, shared_wavefronts=0, loads=0, load_rounds=0, cycles=1755, start_cycles=0, executed=[]
)


@pytest.fixture(scope="module")
def kernels() -> kernel_resources.Kernels:
    """The machine code of all that is counted; none without nvcc."""
    nvcc = kernel_resources.find_nvcc()
    return tool.compile_code(nvcc, list(cases())) if nvcc else {}


def launch(blocks: int, traffic: Traffic = NO_TRAFFIC, work: Work = NO_WORK) -> Launch:
    return Launch("kernel", blocks, 256, 0, 0.0, traffic, work)


def test_resident_blocks_follow_from_registers_threads_and_shared_memory() -> None:
    assert H100.resident_blocks(threads=224, registers=80, shared_bytes=0) == 3
    assert H100.resident_blocks(threads=224, registers=122, shared_bytes=0) == 2
    assert H100.resident_blocks(threads=256, registers=32, shared_bytes=0) == 8
    assert H100.resident_blocks(threads=32, registers=16, shared_bytes=0) == 32
    assert H100.resident_blocks(threads=32, registers=16, shared_bytes=48 << 10) == 4


def test_time_is_that_of_the_scarcest_resource() -> None:
    def predicted(**changes: Any) -> tuple[str, float]:
        of_traffic = {k: v for k, v in changes.items() if hasattr(NO_TRAFFIC, k)}
        of_work = {k: v for k, v in changes.items() if hasattr(NO_WORK, k) and k not in of_traffic}
        one_wave = launch(132 * 8, replace(NO_TRAFFIC, **of_traffic), replace(NO_WORK, **of_work))
        found = predict(H100, one_wave, registers=32, static_shared=0)
        return found.bound, pytest.approx(found.time)

    assert predicted() == ("latency", 1.0)
    assert predicted(dram_bytes=30e6) == ("dram", 10.0)
    assert predicted(l2_bytes=55e6) == ("l2", 10.0)
    assert predicted(instructions=132 * 4 * 17550) == ("issue", 10.0)
    assert predicted(store_wavefronts=132 * 8775, shared_wavefronts=132 * 8775) == ("wavefronts", 10.0)
    assert predicted(dram_bytes=30e6, instructions=132 * 4 * 17549) == ("dram", 10.0)
    # All blocks of the first wave begin together, with the memory idle.
    assert predicted(dram_bytes=30e6, start_cycles=1755) == ("dram", 11.0)


def test_a_nearly_empty_wave_takes_as_long_as_a_block() -> None:
    whole = predict(H100, launch(3 * 132 * 8), registers=32, static_shared=0)
    more = predict(H100, launch(3 * 132 * 8 + 1), registers=32, static_shared=0)
    assert (whole.time, whole.last_wave) == (pytest.approx(3.0), 0.0)
    assert (more.time, more.last_wave) == (pytest.approx(4.0), pytest.approx(1.0, rel=1e-2))
    # The last wave alone is decided by latency: 1.1 us of memory in each of the others.
    busy = replace(NO_TRAFFIC, dram_bytes=3.3e6 * (3 + 1 / 1056))
    assert predict(H100, launch(3 * 132 * 8 + 1, busy), registers=32, static_shared=0).bound == "dram"


def test_what_has_grown_by_more_than_the_tolerance_is_found() -> None:
    before = {"a": {"empty_blocks": 0.0, "wavefronts": 10.0, "time_us": 50.0, "loads": 5.0}}
    now = {"a": {"empty_blocks": 1.0, "wavefronts": 10.19, "time_us": 51.1, "loads": 9.0}}
    assert tool.problems(now, before, True) == [
        "a: empty_blocks 1, 0 in the table",
        "a: time_us 51.1, 50 in the table",
    ]
    assert tool.problems(now, before, False) == ["a: empty_blocks 1, 0 in the table"]
    assert tool.problems(now, {}, True) == ["a: not in the table"]
    assert tool.problems(before, now, True) == []


@pytest.mark.slow
def test_counts_are_those_that_can_be_worked_out() -> None:
    """An aligned row of 224 float32 is 28 sectors in 7 lines, for 7 warps."""
    boxcar = CostCase("headline", "boxcar_grad")
    forward = replace(boxcar, kernel="forward")
    measured = tool.measure([boxcar, forward, replace(forward, layout="channels_last")], {})
    energy, planar, interleaved = measured[boxcar.key], *(measured[k] for k in list(measured)[-2:])
    # In words of four elements; windows are read too, and a part's last row more than once.
    assert energy["load_sectors"] == pytest.approx(4, rel=0.1)
    assert energy["loads"] < 1 / 3
    assert energy["dram_mb"] == pytest.approx(energy["fewest_mb"], rel=0.02)
    for row in (planar, interleaved):
        assert row["dram_mb"] == pytest.approx(row["fewest_mb"], rel=0.03)
        assert row["empty_blocks"] == 0
    assert (planar["stores"], planar["store_sectors"]) == (1, 4)
    assert interleaved["store_sectors"] > 4  # rows of 38 pixels of 12 bytes begin within sectors
    assert "time_us" not in planar


@pytest.mark.slow
def test_machine_code_computes_what_the_kernels_compute(kernels: kernel_resources.Kernels) -> None:
    """Bit by bit, but for divisions of float64, exponentials (the boxcar's taps) and contracted filters."""
    if not kernels:
        pytest.skip("nvcc was not found: set CUDA_HOME")
    chosen = []
    for kernel, types in COUNTED_TYPES.items():
        case = CostCase("crossing", kernel, batch=1, windows=2, size=32, out=16, half_side=10.3)
        chosen += [replace(case, image=i, crop=c) for i, c in types if "float16" != c != "uint8"]
        chosen.append(replace(case, layout="channels_last", channels=8, windows=1))
        chosen.append(replace(case, name="strong zoom", size=10, out=40, half_side=1.3))
        if kernel != "boxcar_grad":
            reduced = replace(case, name="antialiased", out=12, half_side=19.0)
            chosen.append(replace(reduced, windows=1, interpolation="bicubic", antialias=True))
        if kernel == "image_grad":
            chosen.append(replace(case, name="windows of two warps", windows=40, channels=1, out=4))
    differences = tool.run_cases("run_machine_code", chosen, kernels)
    for case, difference in differences.items():
        exact = case.kernel != "boxcar_grad" and case.image != "float64" and not case.has_filter
        assert difference <= (0 if exact else 1e-6 if case.image != "float64" else 1e-14), case.key


@pytest.mark.slow
def test_no_launch_costs_more_than_the_table_says(kernels: kernel_resources.Kernels) -> None:
    release, table = tool.read_table()
    same_nvcc = bool(kernels) and release == kernel_resources.nvcc_release(kernel_resources.find_nvcc())
    measured = tool.measure(list(cases()), kernels if same_nvcc else {})
    assert tool.problems(measured, table, same_nvcc) == []
    assert measured.keys() == table.keys()
