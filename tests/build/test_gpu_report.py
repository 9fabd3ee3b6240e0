# SPDX-License-Identifier: BSD-3-Clause
"""What tools/check_gpu.py writes: one JSON, and its tables, also beside the cost model's predictions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gpu_report
import gpu_steps
import pytest
from gpu_rehearsal import TIMINGS, planted, run, stand_ins


def benchmark_report(**changes: Any) -> dict[str, Any]:
    """As bench_crop.py writes it on a GPU, with one case and one dtype."""
    case = {"dtype": "float32", "out_dtype": "float32", "layout": "contiguous", "label": "64x3x448² → 224²"}
    times = [
        {"case": case, "experiment": "main", "mode": "forward", "contestant": name, "complete": True}
        | {"median_s": seconds}
        for name, seconds in (("racnn_ops", 4e-5), ("grid_sample", 2e-4))
    ]
    alone = [
        {"case": case, "step": step, "contestant": name, "floor_bytes": 75_000_000, "median_s": seconds}
        for step, name, seconds in (
            ("forward", "racnn_ops", 36e-6),
            ("forward", "grid_sample", 180e-6),
            ("backward both", "racnn_ops", 300e-6),
        )
    ]
    report = {"main_case": case, "images": "photographs", "copy_bytes_per_s": 3e12, "git": {"commit": None}}
    report |= {"sweeps": [], "refused": [], "filters": [], "times": times, "device_times": alone}
    return report | changes


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder after timings and counters, whose results are in files as the programs write them."""
    stand_ins(tmp_path, monkeypatch)
    monkeypatch.setattr(gpu_report, "COST_MODEL", tmp_path / "model.json")  # there is none
    more = benchmark_report(sweeps=["dtype"], times=[{"experiment": "dtype"}])
    for name, report in (("headline", benchmark_report()), (TIMINGS[2], more)):
        folder = gpu_steps.folder_of(name, tmp_path)
        folder.mkdir(parents=True)
        (folder / "cuda-nvidia-stand-in.json").write_text(json.dumps(report))
    steps = planted(tmp_path, counters="exec ncu --log-file " + str(tmp_path / "parts/counters/ncu.csv"))
    assert run(tmp_path, steps)[0] == 0
    return tmp_path


def test_one_report_of_all_parts_of_the_benchmark(finished: Path) -> None:
    """It is also written as bench_crop.py would have, for its own table and picture."""
    report = json.loads((finished / "check_gpu.json").read_text())["benchmark"]
    assert report["sweeps"] == ["dtype"]
    assert [record["experiment"] for record in report["times"]] == ["main", "main", "dtype"]
    assert report["git"]["commit"] == "c0ffee"
    assert json.loads((finished / "cuda-nvidia-stand-in.json").read_text()) == report


def test_counters_are_those_of_a_kernels_last_launch(finished: Path) -> None:
    (record,) = json.loads((finished / "check_gpu.json").read_text())["counters"]
    assert record == {
        "kernel": "contraction_kernel<true, P>",
        "grid": "(9, 1, 1)",
        "dram__bytes.sum": 77e6,
        "gpu__time_duration.sum": 35e3,
        "launch__waves_per_multiprocessor": None,
    }


def test_tables(finished: Path) -> None:
    text = (finished / "check_gpu.md").read_text()
    assert text.startswith("NVIDIA Stand-in, driver 580.1, torch 2.11.0, 2030-01-02, commit `c0ffee`.")
    assert re.search(r"^\| smoke \| ok \| 0 s \|  \|$", text, flags=re.MULTILINE)
    assert "| grid_sample | 0.2 ms (5.0x) |" in text
    assert "| 64x3x448² → 224², forward | 36.0 | 25.0 | 180.0 |" in text
    assert "predicted" not in text
    assert "| `contraction_kernel<true, P>` | (9, 1, 1) | 35 |  |  |  | 77 |" in text


def test_predictions_stand_beside_what_was_measured(finished: Path) -> None:
    model = gpu_report.COST_MODEL
    launches = {"forward": 28, "window_grad": 60, "image_grad": 170}
    names = {f"{kernel}, headline, float32, planar": {"time_us": us} for kernel, us in launches.items()}
    names["window_grad, headline, float32, planar: finish_window_grad_kernel"] = {"time_us": 2}
    model.write_text(json.dumps({"launches": names}))
    text = gpu_report.markdown(json.loads((finished / "check_gpu.json").read_text()))
    assert "| 64x3x448² → 224², forward | 36.0 | 28.0 | 25.0 | 180.0 |" in text
    assert "| 64x3x448² → 224², backward both | 300.0 | 232.0 | 25.0 |  |" in text
    for damaged in ("[]", '{"launches": {"forward": {}}}', "{"):
        model.write_text(damaged)
        assert gpu_report.predictions(model) == {}
