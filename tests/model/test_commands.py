# SPDX-License-Identifier: BSD-3-Clause
"""``python -m racnn`` as a program: every command, a killed run, several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from trees import locked, make_cub

from racnn.commands import STOPPED, main

ROOT = Path(__file__).resolve().parents[2]
# A registered network without batch norm, small enough for images of 32 pixels.
CONFIG = """
data: {name: cub, root: ROOT, image_side: 40, validation: 0.2}
model: {backbone: test_convnext, weights: null, scales: 2, sizes: [32], hidden: 8}
training: {batch_size: 6, classify_epochs: 1, imitate_epochs: 1, rank_epochs: 1, fuse_epochs: 1, rounds: 1,
           device: cpu, checkpoint_every: 1}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("birds")
    make_cub(folder / "data", each=9)
    (folder / "config.yaml").write_text(CONFIG.replace("ROOT", str(folder / "data")))
    return folder / "config.yaml"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "racnn", *map(str, arguments)]


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def run(*arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    line = command(*arguments)
    if launcher:
        line = [sys.executable, "-m", "torch.distributed.run", *launcher, *line[1:]]
    return subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=240, check=False)


def history(output: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((output / "history.json").read_text())
    return found


@pytest.fixture(scope="module")
def whole(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run; in its own process, as the others."""
    output = tmp_path_factory.mktemp("whole")
    result = run("train", "--config", config, "--output", output)
    assert result.returncode == 0, result.stderr
    assert "rank 1, epoch 1" in result.stdout
    return output


def equal_weights(one: Path, other: Path) -> bool:
    states = [torch.load(path / "last.pt", weights_only=True)["model"] for path in (one, other)]
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def start_and_wait(config: Path, output: Path, *options: object) -> subprocess.Popen[str]:
    """A run in a process group of its own that has written a checkpoint."""
    process = subprocess.Popen(
        command("train", "--config", config, "--output", output, *options),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (output / "last.pt").is_file():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


@pytest.mark.parametrize(
    ("number", "signalled", "workers"),
    [(signal.SIGKILL, os.kill, 0), (signal.SIGTERM, os.kill, 0), (signal.SIGTERM, os.killpg, 1)],
    ids=["killed", "asked to stop", "asked to stop with its workers"],
)
def test_an_interrupted_run_resumes_to_the_same_bits(
    config: Path, whole: Path, tmp_path: Path, number: int, signalled: Any, workers: int
) -> None:
    process = start_and_wait(config, tmp_path, "--data.workers", workers)
    signalled(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (STOPPED if number == signal.SIGTERM else -number), errors
    if number == signal.SIGTERM:
        assert "asked once more, it ends at once" in errors
        assert "go on with --resume true" in errors
    interrupted = torch.load(tmp_path / "last.pt", weights_only=True)
    assert not interrupted["done"] or interrupted["done"][-1]["phase"]["name"] != "fuse"
    result = run("train", "--config", config, "--output", tmp_path, "--resume", "true")
    assert result.returncode == 0, result.stderr
    assert equal_weights(whole, tmp_path)
    assert history(whole) == history(tmp_path)


def test_no_process_of_a_run_starts_in_a_folder_that_is_in_use(config: Path, tmp_path: Path) -> None:
    with locked(tmp_path):
        two = ("--standalone", "--nproc-per-node", "2")
        result = run("train", "--config", config, "--output", tmp_path, launcher=two)
    assert result.returncode == 1
    errors = {row for row in result.stderr.splitlines() if row.startswith("error: ")}
    assert errors == {f"error: output {str(tmp_path)!r} is in use by another process"}
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_two_processes_have_the_losses_of_one(config: Path, whole: Path, tmp_path: Path) -> None:
    two = ("--standalone", "--nproc-per-node", "2")
    result = run("train", "--config", config, "--output", tmp_path, launcher=two)
    assert result.returncode == 0, result.stderr
    for one, both in zip(history(whole), history(tmp_path), strict=True):
        for part in ("train", "validation"):
            assert both[part]["loss"] == pytest.approx(one[part]["loss"], rel=1e-4)
            assert both[part]["images"] == one[part]["images"]


def test_a_killed_worker_ends_the_run_with_a_message(config: Path, whole: Path, tmp_path: Path) -> None:
    line = command("train", "--config", config, "--output", tmp_path, "--training.classify_epochs", 15)
    line += ["--training.patience", "15"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.Popen(
        [*launcher, *line[1:]], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "last.pt").is_file():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(workers[-1]), signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode != 0
    assert "go on with --resume true" in errors
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert state["position"]["step"] >= 1
    result = run(*line[3:], "--resume", "true", "--training.checkpoint_every", 0)
    assert result.returncode == 0, result.stderr
    assert history(tmp_path)[-1]["phase"] == "fuse"


def test_evaluate_predict_and_visualize(
    config: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = whole / "best.pt"
    assert main(["evaluate", "--checkpoint", str(best), "--output", str(tmp_path / "result.json")]) == 0
    assert "top-1 (top-5) %, 9 images" in capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["config"]["model"]["backbone"] == "test_convnext"
    assert set(result["baselines"]) == {"response", "centre", "random", "box"}
    pictures = sorted(config.parent.glob("data/images/*/*.jpg"))[:2]
    assert main(["predict", "--checkpoint", str(best), *map(str, pictures)]) == 0
    assert "011.red" in capsys.readouterr().out
    drawn = ["--class_name", "012.green", "--history", "true", "--images", str(pictures[0])]
    assert main(["visualize", "--checkpoint", str(best), "--output", str(tmp_path), *drawn]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {f"{pictures[0].stem}.windows.png", "012.green.png", "windows.png", "windows.gif"} <= names


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--checkpoint", str(tmp_path / "none.pt")]) == 1
    assert "error: checkpoint" in capsys.readouterr().err
    assert main(["train", "--data.root", str(tmp_path), "--output", str(tmp_path / "run")]) == 1
    errors = capsys.readouterr().err
    assert "lacks images.txt" in errors
    assert len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_unknown_options_and_values_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--training.learning_rate=1", "--training.window_source=box", "--model.scales=two"):
        with pytest.raises(SystemExit):
            main(["train", "--output", "x", option])
        assert "error" in capsys.readouterr().err
