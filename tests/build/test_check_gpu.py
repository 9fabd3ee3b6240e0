# SPDX-License-Identifier: BSD-3-Clause
"""tools/check_gpu.py, rehearsed without a GPU: its order, what it repeats, what it stops, what it writes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import check_gpu
import gpu_library
import gpu_report
import gpu_steps
import pytest
from gpu_steps import Part, Step

from racnn_ops import _library

ROOT = Path(__file__).resolve().parents[2]
HERE = {"device": "cuda", "name": "NVIDIA Stand-in", "driver": "580.1", "torch": "2.11.0"}
PROVENANCE = {"commit": "c0ffee", "date": "2030-01-02"}
TIMINGS = ["headline", "counters", "benchmark 1", "benchmark 2", "benchmark 3"]

NVIDIA_SMI = "echo 'NVIDIA Stand-in, 580.1'"
SANITIZER = """echo "$@"; echo '3 passed in 0.01s'"""
FORWARD = "void racnn::forward_kernel<float, float, false>(racnn::ForwardParams<T>)"
LAUNCHES = [  # of the same kernel twice
    ("0", "dram__bytes.sum", "1"),
    ("1", "dram__bytes.sum", "77,000,000"),
    ("1", "gpu__time_duration.sum", "35000"),
    ("1", "launch__waves_per_multiprocessor", "n/a"),
]
COUNTED = ['"ID","Process ID","Kernel Name","Grid Size","Metric Name","Metric Unit","Metric Value"']
COUNTED += [f'"{n}","7","{FORWARD}","(9, 1, 1)","{metric}","","{value}"' for n, metric, value in LAUNCHES]
# Writes into what its option --log-file names.
NCU = f"""
while [ "$1" != --log-file ]; do shift; done
cat > "$2" <<END
==PROF== Profiling "forward_kernel" - 0: 0%....100% - 1 pass
{chr(10).join(COUNTED)}
END
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of stand-ins for NVIDIA's programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in (("nvidia-smi", NVIDIA_SMI), ("ncu", NCU), ("compute-sanitizer", SANITIZER)):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def planted(output: Path, **commands: str) -> list[Step]:
    """All steps with their names and needs, whose parts note their own name; ``commands`` do other things."""
    noted = output / "noted"

    def part(step: str, part: Part) -> Part:
        script = commands.get(step, "true")
        return Part(part.name, ["sh", "-c", f'echo "{part.name}" >> "{noted}"; {script}'])

    return [
        replace(step, parts=[part(step.name, one) for one in step.parts], always=False)
        for step in gpu_steps.all_steps("cuda", output)
    ]


def run(output: Path, steps: list[Step], *chosen: str, **options: Any) -> tuple[int, list[str]]:
    """The exit status, and the parts that were run."""
    noted = output / "noted"
    noted.unlink(missing_ok=True)
    checked = check_gpu.Check(output, HERE, PROVENANCE, options.pop("limit", 60))
    status = checked.run(steps, chosen, **options)
    return status, noted.read_text().splitlines() if noted.exists() else []


def results(output: Path) -> dict[str, Any]:
    return json.loads((output / "check_gpu.json").read_text())["parts"]  # type: ignore[no-any-return]


@pytest.fixture
def no_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted parts leave no results."""
    monkeypatch.setattr(gpu_report, "measured", lambda *_: {})


pytestmark = pytest.mark.usefixtures("tools")


@pytest.mark.usefixtures("no_tables")
def test_the_cheapest_and_most_telling_come_first(tmp_path: Path) -> None:
    status, done = run(tmp_path, planted(tmp_path))
    suite = [f"suite {n}" for n in range(1, 7)]
    sanitized = [
        f"{tool} {name}"
        for tool in ("memcheck", "racecheck", "initcheck", "synccheck")
        for name in ("test_edge_cases", "test_boxcar", "test_layout")
    ]
    assert done == ["library", "smoke", "determinism", *TIMINGS[:2], *suite, *sanitized, *TIMINGS[2:]]
    assert status == 0
    assert list(results(tmp_path)) == done


@pytest.mark.usefixtures("no_tables")
def test_a_chosen_step_brings_what_it_needs(tmp_path: Path) -> None:
    steps = planted(tmp_path)
    assert run(tmp_path, steps, "suite")[1][:2] == ["library", "suite 1"]
    assert run(tmp_path, steps, "headline")[1] == ["smoke", "determinism", "headline"]
    assert run(tmp_path, steps, "headline")[1] == []
    assert run(tmp_path, steps, "headline", again=True)[1] == ["headline"]


@pytest.mark.usefixtures("no_tables")
@pytest.mark.parametrize("wrong", ["smoke", "determinism"])
def test_nothing_is_timed_after_a_wrong_result(tmp_path: Path, wrong: str) -> None:
    assert run(tmp_path, planted(tmp_path))[0] == 0  # also what was timed before counts no more
    status, _ = run(tmp_path, planted(tmp_path, **{wrong: "exit 3"}))
    found = results(tmp_path)
    assert status == 1
    assert found[wrong]["reason"] == "exit status 3"
    assert {name for name, part in found.items() if part["result"] == "not run"} == set(TIMINGS)
    assert all(found[name]["reason"] == f"{wrong}: failed" for name in TIMINGS)
    assert found["suite 6"]["result"] == found["memcheck test_layout"]["result"] == "ok"


@pytest.mark.usefixtures("no_tables")
def test_without_a_library_nothing_is_done(tmp_path: Path) -> None:
    assert run(tmp_path, planted(tmp_path, library="false")) == (1, ["library"])


@pytest.mark.usefixtures("no_tables")
def test_a_failed_step_is_done_again_and_alone(tmp_path: Path) -> None:
    steps = planted(tmp_path, racecheck=f'test -e "{tmp_path}/repaired"')
    assert run(tmp_path, steps)[0] == 1
    (tmp_path / "repaired").touch()
    status, done = run(tmp_path, steps)
    assert status == 0
    assert done == [f"racecheck test_{name}" for name in ("edge_cases", "boxcar", "layout")]


@pytest.mark.usefixtures("no_tables")
def test_changed_inputs_and_another_gpu_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "test_it.py"
    source.write_text("1")
    part = Part("one", ["sh", "-c", f'echo one >> "{tmp_path}/noted"'], inputs=[source])
    steps = [Step("step", "", [part], needs=())]
    assert run(tmp_path, steps)[1] == ["one"]
    assert run(tmp_path, steps)[1] == []
    source.write_text("2")
    assert run(tmp_path, steps)[1] == ["one"]
    monkeypatch.setitem(HERE, "driver", "590.0")
    assert run(tmp_path, steps)[1] == ["one"]
    changed = [replace(steps[0], parts=[replace(part, env={"RACNN_TEST_REPEATS": "5"})])]
    assert run(tmp_path, changed)[1] == ["one"]


@pytest.mark.usefixtures("no_tables")
def test_a_library_that_was_built_is_what_the_rest_was_done_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_gpu, "ROOT", tmp_path)
    (tmp_path / "racnn_ops").mkdir()
    library = tmp_path / "racnn_ops" / "libracnn_ops.so"
    steps = planted(tmp_path, library=f'test -e "{library}" || touch "{library}"')
    steps[0] = replace(steps[0], always=True)
    assert run(tmp_path, steps, "smoke")[1] == ["library", "smoke"]
    assert list(results(tmp_path)) == ["library", "smoke"]
    assert run(tmp_path, steps, "smoke")[1] == ["library"]
    library.write_text("another")
    assert run(tmp_path, steps, "smoke")[1] == ["library", "smoke"]


@pytest.mark.usefixtures("no_tables")
def test_time_limits_end_all_that_a_part_started(tmp_path: Path) -> None:
    survived = tmp_path / "survived"
    script = f'(sleep 1; touch "{survived}") & wait'
    status, _ = run(tmp_path, planted(tmp_path, suite=script), "suite", limit=0.1)
    assert status == 1
    assert {part["reason"] for name, part in results(tmp_path).items() if "suite" in name} == {
        "stopped after 0.1 s"
    }
    time.sleep(1)  # the last of six parts began before
    assert not survived.exists()


def test_every_part_has_a_limit_below_ten_minutes(tmp_path: Path) -> None:
    assert all(step.limit < 600 for step in gpu_steps.all_steps("cuda", tmp_path))
    assert next(step for step in gpu_steps.all_steps("cuda", tmp_path) if step.name == "smoke").limit <= 180


RUN_UNTIL_KILLED = """
import sys
from pathlib import Path
sys.path[:0] = ["tools", "benchmarks", "tests/build"]
import test_check_gpu as t
t.gpu_report.measured = lambda *_: {}
output = Path(sys.argv[1])
t.run(output, t.planted(output, determinism=f'echo $$ > "{output}/pid"; sleep 60'))
"""


@pytest.mark.usefixtures("no_tables")
def test_goes_on_after_it_was_killed(tmp_path: Path) -> None:
    """And leaves nothing behind that would disturb the next call's times."""
    process = subprocess.Popen([sys.executable, "-c", RUN_UNTIL_KILLED, tmp_path], cwd=ROOT)
    for _ in range(600):
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"):
            break
        time.sleep(0.1)
    process.kill()
    process.wait()
    child = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    time.sleep(0.1)
    assert not child.exists() or child.read_text().split(") ")[1][0] in "ZX"
    status, done = run(tmp_path, planted(tmp_path), "headline")
    assert status == 0
    assert done == ["determinism", "headline"]


def test_tests_must_pass_something(tmp_path: Path) -> None:
    for text, result in (("3 skipped in 1s", "failed"), ("1 passed, 3 skipped in 1s", "ok")):
        part = Part("tests", ["echo", text], is_test=True)
        run(tmp_path, [Step("tests", "", [part], needs=())])
        assert results(tmp_path)["tests"]["result"] == result


def test_missing_and_forbidden_tools_are_no_failures(tmp_path: Path, tools: Path) -> None:
    (tools / "ncu").write_text("#!/bin/sh\necho '==ERROR== ERR_NVGPUCTRPERM: no permission'; exit 1\n")
    (tools / "compute-sanitizer").unlink()
    steps = [
        replace(step, needs=())
        for step in gpu_steps.all_steps("cuda", tmp_path)
        if step.name in ("counters", "memcheck")
    ]
    assert run(tmp_path, steps)[0] == 0
    found = results(tmp_path)
    assert {part["result"] for part in found.values()} == {"skipped"}
    assert "ERR_NVGPUCTRPERM" in found["counters"]["reason"]
    assert found["memcheck test_layout"]["reason"] == "compute-sanitizer was not found"


def test_the_suite_has_every_file_with_tests_of_a_gpu(tmp_path: Path) -> None:
    """Those that the fixture `device` gives one, and `needs_cuda`, whose names -k must find."""
    suite = next(step for step in gpu_steps.all_steps("cuda", tmp_path) if step.name == "suite")
    files = [word for part in suite.parts for word in part.command if word.endswith(".py")]
    assert len(files) == len(set(files))
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text()
        for decorators, name in re.findall(r"^((?:@.*\n)*)def (test_\w+)\(", text, flags=re.MULTILINE):
            if "@needs_cuda\n" in decorators:
                assert "cuda" in name, f"{path}: {name}"
                assert str(path.relative_to(ROOT)) in files
    assert {"tests/ops/test_forward.py", "tests/benchmarks/test_costs.py"} <= set(files)


def test_ncu_counts_every_kernel_and_no_other() -> None:
    assert {"forward_kernel", "image_grad_kernel", "finish_window_grad_kernel"} <= set(gpu_steps.kernels())
    marks = sum(path.read_text().count("__global__") for path in (ROOT / "csrc" / "cuda").glob("*.cuh"))
    assert len(set(gpu_steps.kernels())) == marks


def test_a_wheels_libraries_are_taken_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_library, "ROOT", tmp_path)
    (tmp_path / "racnn_ops").mkdir()
    (tmp_path / "racnn_ops" / "old.so").write_text("old")
    with zipfile.ZipFile(tmp_path / "it.whl", "w") as wheel:
        for name in ("racnn_ops/old.so", "racnn_ops/__init__.py", "racnn_ops-1.dist-info/RECORD"):
            wheel.writestr(name, "new")
    gpu_library.unpack(tmp_path / "it.whl")
    assert {path.name: path.read_text() for path in (tmp_path / "racnn_ops").iterdir()} == {"old.so": "new"}


def test_wrong_steps_are_named_and_help_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        check_gpu.main(["smok"])
    assert "there is no step 'smok'; there are library, smoke, determinism" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        check_gpu.main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"\n  {step.name} " in shown for step in gpu_steps.all_steps("cuda", Path()))


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
def finished(tmp_path: Path) -> Path:
    """The folder after timings and counters, whose results are in files as the programs write them."""
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
        "kernel": "forward_kernel<float, float, false>",
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
    assert "| `forward_kernel<float, float, false>` | (9, 1, 1) | 35 |  |  |  | 77 |" in text


def test_predictions_stand_beside_what_was_measured(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.json"
    launches = {"forward": 28, "window_grad": 60, "image_grad": 170}
    names = {f"{kernel}, headline, float32, planar": {"time_us": us} for kernel, us in launches.items()}
    names["window_grad, headline, float32, planar: finish_window_grad_kernel"] = {"time_us": 2}
    model.write_text(json.dumps({"launches": names}))
    predict = gpu_report.predictions
    monkeypatch.setattr(gpu_report, "predictions", lambda: predict(model))
    text = gpu_report.markdown(json.loads((finished / "check_gpu.json").read_text()))
    assert "| 64x3x448² → 224², forward | 36.0 | 28.0 | 25.0 | 180.0 |" in text
    assert "| 64x3x448² → 224², backward both | 300.0 | 232.0 | 25.0 |  |" in text
    model.write_text("[]")
    assert predict(model) == predict(tmp_path / "none.json") == {}


@pytest.mark.slow
@pytest.mark.skipif(not _library.has_cpu, reason="no compiled library")
def test_rehearsal_on_the_cpu(tmp_path: Path) -> None:
    """The commands themselves: libraries, tests and a small benchmark."""
    output = tmp_path / "results"
    command = [sys.executable, "tools/check_gpu.py", "--device", "cpu", "--output", output]
    command += ["headline", "counters", "memcheck"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    data = json.loads((output / "check_gpu.json").read_text())
    assert {part["result"] for part in data["parts"].values()} == {"ok"}
    assert {part["step"] for part in data["parts"].values()} == {
        *("library", "smoke", "determinism", "headline", "counters", "memcheck")
    }
    assert (data["name"], data["driver"], data["device"]) == ("NVIDIA Stand-in", "580.1", "cpu")
    assert any("CUDA" in line or "GPU" in line for line in data["parts"]["smoke"]["left_out"])
    told = (gpu_steps.folder_of("memcheck test_layout", output) / "log.txt").read_text()
    assert told.startswith("--tool memcheck --error-exitcode 9 --kernel-name kns=racnn ")
    assert "tests/ops/test_layout.py -k cpu -m not slow" in told
    assert "| racnn_ops | " in (output / "check_gpu.md").read_text()
    assert {record["experiment"] for record in data["benchmark"]["times"]} == {"main"}
