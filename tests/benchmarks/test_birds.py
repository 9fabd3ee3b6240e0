# SPDX-License-Identifier: BSD-3-Clause
"""The study of birds: its images, its paired comparisons, and a run of it on a small data set."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trees import make_cub, tiny_backbone

import birds
import looks
from attention import birds_rows, row, study
from attention.paired import Claim, claims_table, compare, judge, packed, unpacked
from attention.photographs import Centre, Mirrored, Photographs, Scenes
from attention.row import Row
from racnn import Backbone
from racnn.training.phases import next_phase

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks/results"
BIRD = 255


def photographs(count: int = 6, side: int = 64) -> Photographs:
    """Dark noise with a bright rectangle, the bird."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(100, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    boxes = []
    for number, image in enumerate(images):
        left, top, right, bottom = 2 + 5 * number, 4, 22 + 5 * number, 40
        image[:, top:bottom, left:right] = BIRD
        boxes.append([left, top, right, bottom])
    return Photographs(images, torch.arange(count) % 2, torch.tensor(boxes, dtype=torch.float32))


def bright_boxes(images: Tensor) -> Tensor:
    found = []
    for image in images:
        rows, columns = (image.amin(0) > 180).nonzero().unbind(1)
        found.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return torch.tensor(found, dtype=torch.float32)


@pytest.mark.parametrize("view", [0, 1])
def test_boxes_are_where_the_birds_are(view: int) -> None:
    numbers = torch.tensor([5, 0, 3])
    read = photographs()
    for half in (Mirrored(read), Centre(Mirrored(read), 0.75), Scenes(read, 32, 4, seed=0)):
        boxes = half.boxes(view)[numbers].clamp(0, half.side)
        pixels = half.pixels(numbers, view)
        assert pixels.shape == (3, 3, half.side, half.side)
        assert pixels.dtype == torch.uint8
        torch.testing.assert_close(bright_boxes(pixels), boxes, rtol=0, atol=1)


def test_a_scene_has_one_bird_and_every_view_another_layout() -> None:
    scenes = Scenes(photographs(), 32, 4, seed=0)
    numbers = torch.arange(6)
    views = [scenes.pixels(numbers, view) for view in range(4)]
    assert scenes.side == 96
    for view, pixels in enumerate(views):
        for image, (left, top, right, bottom) in zip(
            pixels, scenes.boxes(view).round().int().tolist(), strict=True
        ):
            image[:, max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1] = 0
            assert image.max() < 140
    assert not torch.equal(views[0], views[2])
    assert torch.equal(scenes.pixels(numbers, 1), Scenes(photographs(), 32, 4, seed=0).pixels(numbers, 1))


def test_a_difference_is_judged_over_images_and_seeds() -> None:
    generator = torch.Generator().manual_seed(0)
    theirs = torch.rand((3, 400), generator=generator) < 0.5
    same = compare(theirs, theirs)
    assert (same.mean, same.error, same.verdict) == (0, 0, "not shown")
    ours = theirs | (torch.rand((3, 400), generator=generator) < 0.1)
    found = compare(ours, theirs)
    assert found.mean == pytest.approx(float(ours.double().mean() - theirs.double().mean()))
    assert found.low < found.mean < found.high
    assert found.verdict == "more"
    assert compare(theirs, ours).verdict == "less"
    chance = torch.rand((3, 400), generator=generator) < 0.5
    assert compare(chance, theirs).verdict == "not shown"


def test_images_that_all_seeds_share_count_once() -> None:
    """Three seeds with the same hits say no more than one of them."""
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.rand((1, 300), generator=generator) < p for p in (0.6, 0.5))
    one = compare(ours, theirs)
    three = compare(ours.expand(3, -1), theirs.expand(3, -1))
    difference = ours[0].double() - theirs[0].double()
    assert one.error == pytest.approx(float(difference.std() / 300**0.5), rel=0.1)
    assert three.error == pytest.approx(one.error, rel=0.1)


def test_a_row_of_one_seed_is_compared_with_that_seed() -> None:
    hits = {"three": [{"1": "11"}, {"1": "00"}, {"1": "00"}], "one": [{"1": "10"}]}
    (found,) = judge(hits, [Claim(("one", "1"), ("three", "1"))])
    assert (found["top1"], found["mean"], found["of_seeds"]) == ([0.5, 1.0], -0.5, 1)
    assert ", 1 seed |" in claims_table([found])


def test_hits_are_kept_image_by_image() -> None:
    hits = torch.tensor([True, False, True])
    assert packed(hits) == "101"
    assert torch.equal(unpacked(["101", "010"]), torch.stack((hits, ~hits)))


def test_controls_are_chosen_on_validation_images() -> None:
    def run(validation: float, test: str) -> list[dict[str, Any]]:
        return [{"validation": {"1": 0.9, "1+2": validation}, "test": {"1+2": test}}]

    found = {"window 0.50 0.50 0.30": run(0.7, "00"), "window 0.50 0.42 0.30": run(0.6, "11")}
    rows = birds_rows.chosen(found)
    assert rows[birds_rows.CONSTANT][0]["is"] == "window 0.50 0.50 0.30"
    assert rows[birds_rows.CENTRE][0]["is"] == "window 0.50 0.50 0.30"
    assert birds_rows.SINGLE not in rows


SMALL = {
    "difference": Row(32),
    "again": Row(32, gradient="exact", rank_on="fused", rounds=2),
    "features": Row(32, gradient="features"),
    "three": Row(32, scales=3, count=2, gradient="antithetic"),
    "box": Row(32, windows="box"),
    "same": Row(32, windows="as difference"),
    "constant": Row(32, windows=(0.3, 0.4, 0.2), jitter=0.0),
    "single": Row(32, 1, share=0.75),
}


def pretrained() -> Backbone:
    """The same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tiny_backbone()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The program's arguments; everything is small."""
    for kind in ("birds", "variants", "scenes"):
        monkeypatch.setitem(birds.ROWS, kind, SMALL)
    monkeypatch.setattr(study, "lite0", pretrained)
    monkeypatch.setattr(row, "EPOCHS", dict.fromkeys(row.EPOCHS, 1))
    monkeypatch.setattr(study, "BATCH", 3)
    monkeypatch.setattr(study, "INFERENCE_BATCH", 5)
    monkeypatch.setattr(birds, "SIDE", 48)
    monkeypatch.setattr(birds, "CELL", 24)
    root = make_cub(tmp_path / "data")
    return ["birds.py", "--root", str(root), "--runs", str(tmp_path / "runs"), "--output", str(tmp_path)]


@pytest.mark.parametrize("kind", ["birds", "variants", "scenes"])
def test_a_small_run(small: list[str], kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = ["--seeds", "0", "1", *[f"--{kind}"] * (kind != "birds")]
    monkeypatch.setattr(sys, "argv", [*small, *options])
    birds.main()
    name = "birds" if kind == "birds" else f"birds_{kind}"
    report = json.loads((tmp_path / f"{name}.json").read_text())
    for title, runs in report["rows"].items():
        assert len(runs) == 2, title
        for run in runs:
            assert {len(hits) for hits in run["test"].values()} == {report["test_images"]}
    boxes = [run["quality"]["iou"] for run in report["rows"]["box"]]
    assert min(boxes) > 0.95
    assert max(run["quality"]["iou"] for run in report["rows"]["constant"]) < 0.9
    assert report["rows"]["same"][0]["quality"] == report["rows"]["difference"][0]["quality"]
    assert report["rows"]["three"][0]["cost"] == 5 * (32 / 128) ** 2
    # What is there is not run again, and says the same; what is not is left out where one asks for that.
    monkeypatch.setattr(study.Study, "run", None)
    birds.main()
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text(json.dumps(report).replace(report["machine"]["device"], "another processor"))
    monkeypatch.setattr(
        sys, "argv", [*small, *options, "--runs", str(tmp_path / "none"), "--known", str(elsewhere)]
    )
    birds.main()
    assert json.loads((tmp_path / f"{name}.json").read_text())["claims"] == report["claims"]
    assert "run on another processor, " in (tmp_path / f"{name}.md").read_text().lower()
    monkeypatch.setitem(birds.ROWS, kind, SMALL | {"more": Row(32)})
    monkeypatch.setattr(sys, "argv", [*small, *options])
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--finished"])
    birds.main()
    again = json.loads((tmp_path / f"{name}.json").read_text())
    assert again["rows"] == report["rows"]


def test_a_row_is_the_same_from_the_start_of_another(
    small: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = Path(small[2])
    found = []
    for runs, names in (("one", ["difference", "features"]), ("two", ["features"])):
        program = birds.Program(root, tmp_path / runs, kind="birds")
        found.append([program.study(name, 0) for name in names][-1])
    assert found[0] == found[1]


def test_windows_learn(small: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each phase changes what it is to change, and no more."""
    program = birds.Program(Path(small[2]), tmp_path / "runs", kind="birds")
    trained = program._new(SMALL["difference"], 0)
    before = {name: value.clone() for name, value in trained.state().items()}
    trained.run()
    after = trained.state()
    changed = {
        name.split(".")[2] if "scales" in name else "fusion"
        for name in before
        if not torch.equal(before[name], after[name])
    }
    assert changed == {"classifier", "proposal", "fusion"}
    assert [result.phase.kind for result in trained.done] == [
        *("classify", "imitate", "classify", "rank", "classify", "fuse")
    ]


@pytest.mark.parametrize("name", ["birds", "birds_scenes"])
def test_committed_claims_are_those_of_the_committed_hits(name: str) -> None:
    report = json.loads((RESULTS / f"{name}.json").read_text())
    hits = {name: [run["test"] for run in runs] for name, runs in report["rows"].items()}
    found = judge(hits, birds_rows.CLAIMS[report["kind"]])
    assert json.loads(json.dumps(found)) == report["claims"]
    assert {row for claim in found for row in (claim["ours"][0], claim["theirs"][0])} <= report["rows"].keys()


@pytest.mark.parametrize("source", ["response", "centre", "random"])
def test_heads_learn_on_the_windows_that_they_are_judged_by(source: str) -> None:
    phases = next_phase(Row(windows=source).config(0), 2, [])
    assert phases is not None
    assert phases.window_source == source


def test_a_cost_is_that_of_all_looks() -> None:
    two = Row(side=128, scales=2)
    assert two.cost == 2
    assert replace(two, count=3).cost == 4
    assert replace(two, side=64).cost == 0.5
    assert Row(184, 1).cost == pytest.approx(2, rel=0.04)


def test_looks_follow_a_run(small: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(looks, "BATCH", 2)
    options = [*small, "--seeds", "0"]
    monkeypatch.setattr(sys, "argv", options)
    with pytest.raises(SystemExit, match=r"birds\.py must have run the row 'difference' with seed 0"):
        looks.main()
    monkeypatch.setattr(sys, "argv", [*options, "--rows", "difference"])
    birds.main()
    monkeypatch.setattr(sys, "argv", options)
    looks.main()
    report = json.loads((tmp_path / "looks.json").read_text())
    assert report["images"] == 3
    assert {len(values["gain"]) for values in report["gains"].values()} == {3}
    assert (tmp_path / "looks.png").stat().st_size > 1000
