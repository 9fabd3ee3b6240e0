# SPDX-License-Identifier: BSD-3-Clause
"""The picture of coordinate conventions says what is so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import conventions
from conventions import PANELS, H, W, samples, window_of


@pytest.mark.parametrize(("code", "size"), PANELS.values(), ids=PANELS)
def test_samples_are_the_centres_of_the_windows_parts(code: str, size: tuple[int, int]) -> None:
    window = window_of(code)
    for axis, (centre, half, count) in enumerate(zip(window[:2], window[2:], reversed(size), strict=True)):
        expected = centre - half + (torch.arange(count) + 0.5) * 2 * half / count
        found = samples(window, size)[..., axis].movedim(axis, 0)[0]
        torch.testing.assert_close(found, expected)


def test_one_box_has_one_window() -> None:
    first, second, third = [window_of(code) for code, _ in PANELS.values()][:3]
    torch.testing.assert_close(second, first)
    torch.testing.assert_close(third, first)


def test_aligned_corners_are_samples() -> None:
    code, size = PANELS["align_corners=True: edges are samples' centres"]
    points = samples(window_of(code), size)
    torch.testing.assert_close(points[0, 0], torch.tensor([1.5, 1.5]))  # the centre of pixel 1, 1
    torch.testing.assert_close(points[-1, -1], torch.tensor([6.5, 4.5]))


def test_grid_sample_samples_there() -> None:
    code, size = PANELS["affine_grid's matrix, scale and shift"]
    theta = torch.tensor([[[0.5, 0.0, 0.25], [0.0, 0.6, -0.2]]])
    grid = F.affine_grid(theta, [1, 1, *size], align_corners=False)
    torch.testing.assert_close(samples(window_of(code), size), (grid[0] + 1) / 2 * torch.tensor([W, H]))


def test_a_letterbox_holds_the_image() -> None:
    x, y, half_x, half_y = window_of(PANELS["a letterbox: the image in the middle"][0]).tolist()
    assert (x - half_x, x + half_x) == (0, W)
    assert y == H / 2
    assert half_y == half_x > H / 2


def test_the_command_writes_table_and_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["conventions.py", "--output", str(tmp_path)])
    conventions.main()
    with Image.open(tmp_path / "conventions.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10
    text = (tmp_path / "conventions.md").read_text()
    assert all(f"| {title} | `{code}` |" in text for title, (code, _) in PANELS.items())
