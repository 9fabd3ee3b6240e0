# SPDX-License-Identifier: BSD-3-Clause
"""The pictures of coordinate conventions say what is so: each convention is pinned here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import conventions
from conventions import CONVENTIONS, GROUPS, H, W, run, samples

COMMITTED = Path(conventions.__file__).parent / "results" / "conventions.json"

# The window, and where the crop's first and last output sample, worked out by hand.
BY_HAND = {
    "window": ((3.5, 2.75, 1.75), (3.5 - 3.5 / 3, 2.75 - 3.5 / 3), (3.5 + 3.5 / 3, 2.75 + 3.5 / 3)),
    "window-sides": ((3.5, 2.75, 2.5, 1.75), (1.625, 1 + 3.5 / 6), (5.375, 4.5 - 3.5 / 6)),
    "flip": ((3.5, 2.75, 2.5, 1.75), (5.375, 1 + 3.5 / 6), (1.625, 4.5 - 3.5 / 6)),
    "xyxy": ((3.5, 2.75, 2.5, 1.75), (1.625, 1 + 3.5 / 6), (5.375, 4.5 - 3.5 / 6)),
    "xywh": ((3.5, 3, 2.5, 2), (1.625, 1 + 4 / 6), (5.375, 5 - 4 / 6)),
    "cxcywh": ((3.5, 2.75, 2.5, 1.75), (1.625, 1 + 3.5 / 6), (5.375, 4.5 - 3.5 / 6)),
    "pil": ((3, 2.125, 1.5, 1.125), (1.875, 1.375), (4.125, 2.875)),
    "inclusive": ((3.5, 3, 2.5, 2), (1.625, 1 + 4 / 6), (5.375, 5 - 4 / 6)),
    "relative": ((3.5, 2.75, 2.5, 1.75), (1.625, 1 + 3.5 / 6), (5.375, 4.5 - 3.5 / 6)),
    "yolo": ((3.5, 2.75, 2.5, 1.75), (1.625, 1 + 3.5 / 6), (5.375, 4.5 - 3.5 / 6)),
    "tensorflow": ((4.35, 2.5, 4.9 / 2 * 4 / 3, 3 / 2 * 3 / 2), (0.2 * 7 + 0.5, 1), (0.9 * 7 + 0.5, 4)),
    "grid-sample": ((5, 2.4, 2, 1.8), (3.5, 1.2), (6.5, 3.6)),
    "grid-sample-corners": ((4.875, 2.5, 7 / 3, 2.25), (4.875 - 1.75, 1), (4.875 + 1.75, 4)),
    "kornia": ((4, 3, 10 / 3, 2.25), (1.5, 1.5), (6.5, 4.5)),
    "warp-affine": ((3.375, 2.5, 2.5, 2.25), (1.5, 1), (5.25, 4)),
    "roi-align": ((4, 3.25, 2.5, 1.75), (2.125, 1.5 + 3.5 / 6), (5.875, 5 - 3.5 / 6)),
    "roi-align-scale": ((3.5, 2.75, 2.5, 1.75), (1.625, 1 + 3.5 / 6), (5.375, 4.5 - 3.5 / 6)),
    "letterbox": ((4, 3, 4, 4), (0.8, -0.2), (7.2, 6.2)),
    "boxes-to-image": ((3.5, 2.75, 2.5, 1.75), (1.625, 1 + 3.5 / 6), (5.375, 4.5 - 3.5 / 6)),
    "relative-window": ((3.4, 3, 1.5), (2.4, 2), (4.4, 4)),
}
each_convention = pytest.mark.parametrize("name", CONVENTIONS)


@each_convention
def test_windows_and_samples_are_those_worked_out_by_hand(name: str) -> None:
    convention = CONVENTIONS[name]
    window, first, last = BY_HAND[name]
    windows = run(convention)["windows"]
    torch.testing.assert_close(windows, torch.tensor([window], dtype=torch.float32))
    found = samples(windows, convention.size, convention.flip)
    torch.testing.assert_close(found[0, 0], torch.tensor(first))
    torch.testing.assert_close(found[-1, -1], torch.tensor(last))


@each_convention
def test_samples_are_the_centres_of_the_windows_parts(name: str) -> None:
    convention = CONVENTIONS[name]
    (window,) = run(convention)["windows"]
    found = samples(window[None], convention.size)
    for axis, (centre, half, count) in enumerate(
        zip(window[:2], (window[2], window[-1]), reversed(convention.size), strict=True)
    ):
        expected = centre - half + (torch.arange(count) + 0.5) * 2 * half / count
        torch.testing.assert_close(found[..., axis].movedim(axis, 0)[0], expected)


@pytest.mark.parametrize("name", [name for name, convention in CONVENTIONS.items() if convention.theirs])
def test_others_sample_there(name: str) -> None:
    convention = CONVENTIONS[name]
    made = run(convention)
    ours = samples(made["windows"], convention.size, convention.flip)
    theirs = made["crops"][0].movedim(0, -1)
    inside = (ours > 0) & (ours < torch.tensor([W, H]))
    inside = inside.all(-1)
    assert torch.equal(theirs.isfinite().all(-1), inside)
    assert inside.sum() >= 9
    torch.testing.assert_close(theirs[inside], ours[inside])


def test_a_box_in_a_crop_covers_its_outputs() -> None:
    """Of columns 1 and 2 in row 1 the samples lie in the box, no other does."""
    made = run(CONVENTIONS["boxes-to-image"])
    left, top, right, bottom = made["box"].tolist()
    x, y = samples(made["windows"], (3, 4)).unbind(-1)
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    assert inside.nonzero().tolist() == [[1, 1], [1, 2]]


def test_a_letterbox_holds_the_image() -> None:
    x, y, half_x, half_y = run(CONVENTIONS["letterbox"])["windows"][0].tolist()
    assert (x - half_x, x + half_x) == (0, W)
    assert y == H / 2
    assert half_y == half_x > H / 2


def test_what_is_committed_is_so() -> None:
    found = json.loads(COMMITTED.read_text())["conventions"]
    assert list(found) == list(CONVENTIONS)
    for name, measured in conventions.measure()["conventions"].items():
        for what, values in measured.items():
            if values is None:
                assert found[name][what] is None
            else:
                torch.testing.assert_close(torch.tensor(found[name][what]), torch.tensor(values))
        assert COMMITTED.with_name(conventions.picture_name(name)).is_file()


def test_the_command_writes_code_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["conventions.py", "--output", str(tmp_path)])
    conventions.main()
    text = (tmp_path / "conventions.md").read_text()
    for title, group in GROUPS.items():
        assert f"\n## {title}\n" in f"\n{text}"
        for convention in group:
            assert f"### {convention.title}\n" in text
            assert convention.given in text.replace(f"  # {_numbers(convention.name)}", "")
            assert convention.windows in text
            assert convention.theirs in text
            picture = conventions.picture_name(convention.name)
            assert f"]({picture})" in text
            with Image.open(tmp_path / picture) as pixels:
                assert np.asarray(pixels.convert("L")).std() > 10


def _numbers(name: str) -> str:
    return ", ".join(f"{value:.4g}" for value in BY_HAND[name][0])
