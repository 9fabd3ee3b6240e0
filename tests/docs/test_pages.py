# SPDX-License-Identifier: BSD-3-Clause
"""Code on pages runs, one block after the other; what a page takes for given is given here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def of_operator() -> dict[str, Any]:
    """What racnn_ops/README.md crops."""
    from racnn_ops import attention_crop, boxes

    box = torch.tensor([[4.0, 6.0, 40.0, 30.0]])
    window = torch.tensor([[22.0, 18.0, 18.0, 12.0]])
    return {
        "B": 2,
        "H": 48,
        "W": 64,
        "args": (torch.rand(2, 3, 8, 8),),
        "attention_crop": attention_crop,
        "boxes": boxes,
        "detections": box,
        "found": box,
        "frames": torch.randint(0, 256, (2, 48, 64, 3), dtype=torch.uint8),
        "images": torch.rand(2, 3, 48, 64),
        "index": torch.tensor([0, 1]),
        "labels": torch.randint(0, 9, (2, 1, 48, 64)),
        "mean": 0.5,
        "model": torch.nn.Identity().eval(),
        "of_first": window,
        "of_second": window.repeat(2, 1),
        "other": torch.rand(3, 30, 80),
        "photograph": torch.rand(3, 48, 64),
        "places": window.repeat(2, 3, 1),
        "probabilities": torch.rand(2, 1, 28, 28),
        "relative": torch.tensor([[0.5, 0.5, 0.2, 0.3]]),
        "rois": [box, box],
        "sizes": ({0: torch.export.Dim("batch")},),
        "std": 0.25,
        "tiles": torch.rand(2, 3, 3, 8, 8),
        "theta": torch.tensor([[[0.5, 0.0, 0.1], [0.0, 0.4, -0.2]]] * 2),
        "torch": torch,
        "windows": window.repeat(2, 1),
    }


GIVEN: dict[str, dict[str, Any]] = {"racnn_ops/README.md": of_operator()}
NEEDS = {"docs/getting_started.md": ("jsonargparse",), "racnn_ops/README.md": ("onnx", "onnxscript")}


@pytest.mark.parametrize("page", ["README.md", "docs/getting_started.md", "racnn_ops/README.md"])
def test_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in NEEDS.get(page, ()):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)  # one of them writes a file
    torch.manual_seed(0)
    given = GIVEN.get(page, {})
    names: dict[str, Any] = {}
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    assert blocks
    for block in blocks:
        names |= given
        above = text.count("\n", 0, block.start(1))
        exec(compile("\n" * above + block[1], ROOT / page, "exec"), names)


def test_the_readme_is_a_screen_and_a_half() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 90
    assert "make bench" in "\n".join(lines)
    assert "make test" in "\n".join(lines)
