# SPDX-License-Identifier: BSD-3-Clause
"""The picture of filters at a reduction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import filters


def test_every_filter_is_compared_with_pil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["filters.py", "--output", str(tmp_path)])
    filters.main()
    found = filters.measure()["psnr"]
    assert list(found) == list(filters.PICTURES)
    for values in found.values():
        assert list(values) == list(filters.FILTERS)
        assert values["nearest"] < values["bilinear"] < values["area"] < values["lanczos3"]
    with Image.open(tmp_path / "filters.png") as picture:
        assert np.asarray(picture).std() > 30
    text = (tmp_path / "filters.md").read_text()
    assert all(f"| {name} | {found['zone plate'][name]:.0f} dB" in text for name in filters.FILTERS)


def test_psnr() -> None:
    zeros = torch.zeros(4, 4, dtype=torch.uint8)
    assert filters.psnr(zeros, zeros + 255) == 0
    assert filters.psnr(zeros, zeros + 1) == pytest.approx(48.13, abs=0.01)
