# SPDX-License-Identifier: BSD-3-Clause
"""What a call costs besides time: memory beyond its results, and on a GPU launches and waits for the host."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import needs_cuda

import kernel_launches
from crop import cuda_probes, probes
from crop.cases import MODES, Case, make_inputs
from crop.contestants import OURS
from crop.images import synthetic
from racnn_ops import _library

OPERATORS = {"_crop_forward", "_crop_window_grad", "_crop_image_grad", "_crop_boxcar_grad"}
OPERATORS |= {"_tap_crop", "_tap_image_grad"}

if not _library.has_cpu:
    pytest.skip(f"no compiled library: {_library.cpu_error}", allow_module_level=True)

LAUNCHES = {"forward": 1, "backward window": 2, "backward both": 3}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("windows", [1, 3])
def test_memory_beyond_the_results_is_that_of_tables(
    device: str, windows: int, layout: str, mode: str
) -> None:
    """O(B·K·(h + w)): no sampling grid, no copy of the images or of the gradient."""
    case = Case(batch=4, image=128, crop=64, windows=windows, layout=layout)
    inputs = make_inputs(case, synthetic, torch.device(device))
    records = probes.memory_table(case, inputs, [OURS])
    (record,) = (record for record in records if record["mode"] == mode)
    rows_and_columns = case.batch * windows * 2 * case.crop
    assert record["torch_bytes"] - record["result_bytes"] <= 64 * rows_and_columns


def test_a_profiler_sees_every_operator() -> None:
    with torch.profiler.profile() as profiler:
        for call in kernel_launches.calls(Case(1, image=32, crop=16), torch.device("cpu")):
            call()
    names = {event.name.removeprefix("racnn_ops::") for event in profiler.events()}
    assert names & OPERATORS == OPERATORS


@needs_cuda
@pytest.mark.parametrize("channels", [3, 64])
def test_a_step_on_cuda_is_few_launches_and_never_waits(channels: int) -> None:
    case = Case(batch=2, channels=channels, image=64, crop=32)
    inputs = make_inputs(case, synthetic, torch.device("cuda"))
    for record in cuda_probes.launches(case, inputs, [OURS]):
        assert record["launches"] <= LAUNCHES[record["step"]], record["names"]
        assert record["copies_to_host"] == 0, record["names"]


@needs_cuda
@pytest.mark.parametrize("types", cuda_probes.DTYPES, ids=" to ".join)
def test_every_step_is_captured_in_a_cuda_graph(types: tuple[str, str]) -> None:
    case = Case(batch=2, image=64, crop=32, dtype=types[0], out_dtype=types[1])
    inputs = [make_inputs(case, synthetic, torch.device("cuda"), seed) for seed in range(2)]
    records = cuda_probes.device_times(case, inputs, [OURS], rounds=3)
    assert len(records) == (3 if case.image_type.is_floating_point else 2)
    assert all(math.isfinite(record["median_s"]) for record in records), records
