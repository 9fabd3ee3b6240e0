# SPDX-License-Identifier: BSD-3-Clause
"""The comparison of gradients on images with known windows: its surrogate, its descent, its program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from attention import digits, methods
from attention import known_tasks as tasks
from known_windows import METHODS

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        # Columns: 9 - 1; rows: 9 - 1; outside the centre 1 + 9, inside 4.
        ([[1, 0, 0], [0, 2, 0], [0, 0, -3]], (-8, -8, -6)),
        # On the right and above: x further, y back.
        ([[0, 0, 3], [0, 0, 0], [0, 0, 0]], (-9, 9, -9)),
        ([[0, 0, 0], [0, 2, 0], [0, 0, 0]], (0, 0, 4)),
        # Of 4 pixels the first two begin before 4/3, and one at or after 8/3; 4 rows of them, 1 pixel inside.
        ([[1, 1, 1, 1]] * 4, (4, 4, -14)),
    ],
)
def test_thirds_are_those_of_the_public_code(pixels: list[list[float]], expected: tuple[float, ...]) -> None:
    grad = torch.tensor(pixels, dtype=torch.float32).view(1, 1, 1, len(pixels), -1)
    torch.testing.assert_close(methods.thirds_window_grad(grad), torch.tensor(expected).view(1, 1, 3) + 0.0)


def test_thirds_add_the_energies_of_channels() -> None:
    grad = torch.zeros(1, 2, 3, 6, 9)
    grad[0, 1, 0, 0, 8], grad[0, 1, 2, 0, 8] = 1.0, -2.0
    found = methods.thirds_window_grad(grad)
    torch.testing.assert_close(found, torch.tensor([[[0.0, 0.0, 0.0], [-5.0, 5.0, -5.0]]]))


@pytest.mark.parametrize("name", ["thirds", "boxcar", "exact"])
def test_surrogates_go_where_the_loss_is_sensitive_and_do_not_see_its_sign(name: str) -> None:
    reader = methods.Reader((64, 32), 0.12)
    methods.use(reader, METHODS[name])
    images = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)  # brighter to the right

    def way(sign: float) -> Tensor:
        window = torch.tensor([[[32.0, 32.0, 12.0]]], requires_grad=True)
        loss = sign * reader.cut(images, window, 24)[..., 16:].sum()  # the right third of the crop
        return -torch.autograd.grad(loss, window)[0][0, 0]

    brighter, darker = way(-1.0), way(1.0)
    assert brighter[0] > 0
    torch.testing.assert_close(brighter, -darker if name == "exact" else darker)


class Matcher(methods.Reader):
    """Surer of the true class the more a crop is like that of the tight window."""

    def __init__(self, scene: Any) -> None:
        super().__init__((64, 32), 0.12)
        self.labels = scene.canvases.labels
        blurred = gaussian_blur(scene.canvases.images.float() / 255, 31, 8.0)
        self.pixels = (blurred - blurred.mean((2, 3), keepdim=True)) / blurred.std((2, 3), keepdim=True)
        self.target = self.cut(self.pixels, scene.tight.unsqueeze(1), 32)

    def forward(self, images: Tensor, windows: list[Tensor], **options: Any) -> SimpleNamespace:
        difference = (self.cut(self.pixels, windows[0], 32) - self.target).square().mean((1, 2, 3, 4))
        p = torch.exp(-difference)[:, None] * torch.nn.functional.one_hot(self.labels, 10)
        return SimpleNamespace(probabilities=[None, p])


def reached(name: str) -> tuple[float, float]:
    """Mean IoU at the start and at the end, of windows that start up to one half side away."""
    scene, start = tasks.starts(tasks.Scene.of(tasks_canvases()), seed=0)
    reader = Matcher(scene)
    trace, _ = tasks.descend(reader, scene, start, METHODS[name], 1.0, 60)
    return trace[0].mean().item(), trace[-1].mean().item()


def tasks_canvases() -> digits.Canvases:
    return digits.make_canvases("test", 8, seed=0, pieces=0)


@pytest.mark.parametrize(("name", "least"), [("exact", 0.9), ("exact, moved windows", 0.7)])
def test_windows_find_the_digit_by_the_exact_gradient(name: str, least: float) -> None:
    before, after = reached(name)
    assert before < 0.4
    assert after > least, (before, after)


@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_windows_do_not_find_it_by_a_broken_gradient(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    right = tasks._uphill
    monkeypatch.setattr(tasks, "_uphill", lambda *arguments: factor * right(*arguments))
    _, after = reached("exact")
    assert after < 0.5


def test_the_command_writes_table_picture_and_section(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "known_windows.py"), "--quick", "--threads", "1"]
    command += ["--seeds", "0", "1", "--output", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    path = tmp_path / "known_windows-quick.json"
    report = json.loads(path.read_text())
    assert report.keys() >= {"command", "date", "git", "machine", "versions", "seeds", "effort"}
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    for task, by_method in report["results"].items():
        assert set(by_method) == set(report["methods"])
        for found in by_method.values():
            # The best of the grid on validation canvases, and the test half for every seed with it.
            tried = found["validation_iou"]
            assert tried[str(found["rate"])] == max(tried.values())
            assert len(found["runs"]) == 2
            assert all(0 <= run["iou"] <= 1 for run in found["runs"])
            # All methods start from the same windows.
            first = [
                run["iou_by_step"][0] if task == "alone" else run["curve"][0]["iou"] for run in found["runs"]
            ]
            assert first == pytest.approx([run["iou"] for run in report["given"][task]])
    section = path.with_suffix(".md").read_text()
    values = [100 * run["iou"] for run in report["results"]["response"]["thirds"]["runs"]]
    row = next(line for line in section.splitlines() if line.startswith("| thirds"))
    assert f"| {sum(values) / 2:.1f} ± {abs(values[0] - values[1]) / 2**0.5:.1f} |" in row
    assert report["command"] in section
