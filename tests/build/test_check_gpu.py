# SPDX-License-Identifier: BSD-3-Clause
"""tools/check_gpu.py, rehearsed without a GPU: its order, what it repeats, what it stops, what it writes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import check_gpu
import gpu_library
import gpu_steps
import pytest
from gpu_rehearsal import HERE, TIMINGS, planted, results, run, stand_ins
from gpu_steps import Part, Step

from racnn_ops import _library

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return stand_ins(tmp_path, monkeypatch)


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


def test_a_chosen_step_brings_what_it_needs(tmp_path: Path) -> None:
    steps = planted(tmp_path)
    assert run(tmp_path, steps, "suite")[1][:2] == ["library", "suite 1"]
    assert run(tmp_path, steps, "headline")[1] == ["smoke", "determinism", "headline"]
    assert run(tmp_path, steps, "headline")[1] == []
    assert run(tmp_path, steps, "headline", again=True)[1] == ["headline"]


@pytest.mark.parametrize("wrong", ["smoke", "determinism"])
def test_nothing_is_timed_after_a_wrong_result(tmp_path: Path, wrong: str) -> None:
    timed = run(tmp_path, planted(tmp_path), "benchmark", "counters")[1]
    assert set(timed) >= set(TIMINGS)  # which counts no more
    status, _ = run(tmp_path, planted(tmp_path, **{wrong: "exit 3"}))
    found = results(tmp_path)
    assert status == 1
    assert found[wrong]["reason"] == "exit status 3"
    assert {name for name, part in found.items() if part["result"] == "not run"} == set(TIMINGS)
    assert all(found[name]["reason"] == f"{wrong}: failed" for name in TIMINGS)
    assert found["suite 6"]["result"] == found["memcheck test_layout"]["result"] == "ok"


def test_without_a_library_nothing_is_done(tmp_path: Path) -> None:
    assert run(tmp_path, planted(tmp_path, library="false")) == (1, ["library"])


def test_a_failed_step_is_done_again_and_alone(tmp_path: Path) -> None:
    steps = planted(tmp_path, racecheck=f'test -e "{tmp_path}/repaired"')
    assert run(tmp_path, steps, "racecheck", "synccheck")[0] == 1
    (tmp_path / "repaired").touch()
    status, done = run(tmp_path, steps, "racecheck", "synccheck")
    assert status == 0
    assert done == [f"racecheck test_{name}" for name in ("edge_cases", "boxcar", "layout")]


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
import gpu_rehearsal as t
output = Path(sys.argv[1])
t.run(output, t.planted(output, determinism=f'echo $$ > "{output}/pid"; sleep 60'))
"""


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


def test_results_that_are_gone_are_made_again(tmp_path: Path) -> None:
    """The folder's JSON may have come alone from another machine."""
    made = gpu_steps.folder_of("one", tmp_path) / "it.json"
    script = f'echo one >> "{tmp_path}/noted"; test -e "{tmp_path}/broken" || touch "{made}"'
    steps = [Step("step", "", [Part("one", ["sh", "-c", script], makes="*.json")], needs=())]
    assert run(tmp_path, steps) == (0, ["one"])
    assert run(tmp_path, steps) == (0, [])
    made.unlink()
    assert run(tmp_path, steps) == (0, ["one"])
    made.unlink()
    (tmp_path / "broken").touch()
    assert run(tmp_path, steps) == (1, ["one"])
    assert results(tmp_path)["one"]["reason"] == "made no *.json"


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
    some = {"contraction_kernel", "window_grad_kernel", "finish_window_grad_kernel"}
    assert some <= set(gpu_steps.kernels())
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
