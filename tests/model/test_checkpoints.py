# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoint files: written whole or not at all; what is damaged or foreign is refused in one line."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from racnn.config import Config, ModelConfig
from racnn.loading import load_model, load_run
from racnn.training import checkpoint


@pytest.fixture(scope="module")
def good() -> dict[str, Any]:
    config = Config(model=ModelConfig(backbone="test_resnet", weights=None, scales=1, sizes=[32]))
    weights = config.model.build(2).state_dict()
    return {"model": weights, "classes": ["red", "blue"], "config": config.to_dict()}


def changed(state: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with ``value`` at a path such as "config/data/name"; None removes what is there."""
    first, _, rest = path.partition("/")
    copy = dict(state)
    if rest:
        copy[first] = changed(copy[first], rest, value)
    elif value is None:
        del copy[first]
    else:
        copy[first] = value
    return copy


def test_an_interrupted_write_leaves_the_old_checkpoint(
    good: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(good | {"n": 1}, path)

    def half(state: Any, file: Path) -> None:
        Path(file).write_bytes(b"half a checkpoint")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(good | {"n": 2}, path)
    assert checkpoint.load(path)["n"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_full_disk_is_an_os_error_and_leaves_the_old_checkpoint(
    good: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(good | {"n": 1}, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(OSError, match=r"last.pt.*cannot be written, is the disk full") as caught:
            checkpoint.save(good | {"n": 2}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(str(caught.value).splitlines()) == 1
    assert checkpoint.load(path)["n"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_weights_that_are_not_finite_are_not_written(good: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(good, path)
    before = path.read_bytes()
    with pytest.raises(FloatingPointError, match=r"bias is not finite"):
        checkpoint.save(changed(good, "model/scales.0.classifier.bias", torch.tensor([1, torch.inf])), path)
    assert path.read_bytes() == before


def test_every_flipped_bit_is_found_or_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Config, "from_dict", lambda sections: sections)
    path, weights = tmp_path / "best.pt", torch.arange(40.0)
    state = {"model": {"w": weights}, "classes": ["a", "b"], "config": {"data": {"name": "cub"}}}
    checkpoint.save(state, path)
    whole = path.read_bytes()
    directory = whole.find(b"PK\1\2")
    entry = whole.find(b"best.pt/data/0", directory) - 47
    # Of the weights' entry every bit: torch.load believes the directory, which no checksum covers.
    flips = [(n, 1 << bit) for n in range(entry, entry + 62) for bit in range(8)]
    flips += [(n, 1 << n % 8) for n in range(0, len(whole), 2)]
    refused = 0
    for position, bit in flips:
        flipped = bytearray(whole)
        flipped[position] ^= bit
        path.write_bytes(flipped)
        try:
            found = checkpoint.load(path)
        except ValueError:
            refused += 1
            continue
        assert torch.equal(found["model"].pop("w"), weights), (position, bit)
        assert found == {**state, "model": {}}, (position, bit)
    assert refused > weights.nbytes


FOREIGN: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no dict": (lambda good: [1, 2], "must hold 'model', 'classes', 'config'"),
    "no config": (lambda good: changed(good, "config", None), "must hold 'config'"),
    "a number as model": (lambda good: changed(good, "model", 3), "'model' must map names to tensors"),
    "a number as weight": (
        lambda good: changed(good, "model/mean", 3),
        "'model' must map names to tensors",
    ),
    "a number as classes": (lambda good: changed(good, "classes", 3), "'classes' must be a list of names"),
    "a number as config": (lambda good: changed(good, "config", 3), "'config'"),
    "a number as section": (lambda good: changed(good, "config/model", 3), "'config'"),
    "a missing section": (lambda good: changed(good, "config/model", None), "'config'"),
    "a missing option": (
        lambda good: changed(good, "config/model/hidden", None),
        "the option model.hidden is missing: another version has written it",
    ),
    "an unknown option": (
        lambda good: changed(good, "config/training/lr_moon", 1.0),
        "the option training.lr_moon is unknown: another version has written it",
    ),
    "a wrong type": (lambda good: changed(good, "config/data/image_side", "x"), "data.image_side"),
    "a wrong choice": (lambda good: changed(good, "config/data/name", "cats"), "data.name"),
    "a wrong value": (
        lambda good: changed(good, "config/data/least_area", 2.0),
        "data.least_area must be in",
    ),
    "an unknown backbone": (lambda good: changed(good, "config/model/backbone", "x"), "backbone"),
    "other classes": (lambda good: changed(good, "classes", ["a", "b", "c"]), "size mismatch"),
    "another layer": (lambda good: changed(good, "model/extra", torch.zeros(1)), "extra"),
    "NaN": (
        lambda good: changed(good, "model/scales.0.classifier.bias", torch.tensor([1, torch.nan])),
        "scales.0.classifier.bias is not finite",
    ),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_no_checkpoint_of_this_version_is_refused_in_one_line(
    good: dict[str, Any], tmp_path: Path, what: str
) -> None:
    change, message = FOREIGN[what]
    path = tmp_path / "best.pt"
    torch.save(change(good), path)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(path, "cpu")
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_checkpoint_is_read_as_it_was_written(good: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    checkpoint.save(good, path)
    model, config = load_run(path, "cpu")
    assert config.to_dict() == good["config"]
    assert model.usage.classes == good["classes"]
    assert all(torch.equal(value, good["model"][name]) for name, value in model.state_dict().items())
    plain = torch.load(path, weights_only=True)
    assert plain["config"] == good["config"]


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\3\4" + bytes(100)])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"best.pt' cannot be read: ") as caught:
        load_model(path, "cpu")
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(FileNotFoundError, match="does not exist or is no file"):
        load_model(tmp_path, "cpu")
