# SPDX-License-Identifier: BSD-3-Clause
"""Image files of every kind: what they show, where their boxes lie, and which are left out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from trees import draw

from racnn.data import UNREADABLE, Images, Record, read_square
from racnn.data import decode as decoding

GREY = torch.tensor(decoding.GREY)


def mean(path: Path) -> torch.Tensor:
    """Of the three channels."""
    return read_square(path, 16)[0].float().mean((1, 2))


def ramp(top: int) -> np.ndarray[Any, Any]:
    return np.linspace(0, top, 32 * 32).reshape(32, 32)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm", "jp2"])
def test_16_bits_are_as_bright_as_8(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(ramp(65535).round().astype(np.uint16)).save(tmp_path / f"16.{suffix}")
    Image.fromarray(ramp(255).round().astype(np.uint8)).save(tmp_path / "8.png")
    difference = read_square(tmp_path / f"16.{suffix}", 32)[0].int()
    difference -= read_square(tmp_path / "8.png", 32)[0].int()
    assert difference.abs().max() <= 1


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_16_bits_in_either_byte_order(tmp_path: Path, mode: str) -> None:
    order = ">" if mode == "I;16B" else "<"
    numbers = ramp(65535).round().astype(f"{order}u2")
    picture = Image.frombytes(mode, (32, 32), numbers.tobytes())
    assert np.array_equal(np.array(decoding._rgb(picture))[..., 1], (numbers / 257).round().astype(np.uint8))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_numbers_without_a_known_white_are_left_out(tmp_path: Path, kind: type) -> None:
    Image.fromarray(ramp(1).astype(kind)).save(tmp_path / "deep.tif")
    with pytest.raises(OSError, match=r"deep.tif: has 32-bit numbers \(mode [IF]\)"):
        read_square(tmp_path / "deep.tif", 16)
    assert Images((Record(tmp_path / "deep.tif", 0),), 16)[0].label == UNREADABLE


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "L", "RGB"])
def test_transparent_pixels_are_grey(tmp_path: Path, mode: str) -> None:
    """The left half is opaque and white, the right half transparent: its colour is hidden."""
    pixels = np.full((32, 32, 4), 255, np.uint8)
    pixels[:, 16:] = (200, 200, 200, 0)
    picture = Image.fromarray(pixels)
    if mode in ("L", "RGB", "P"):
        hidden = {"L": 200, "RGB": (200, 200, 200), "P": 1}[mode]
        picture = picture.convert("L" if mode == "P" else mode)
        if mode == "P":
            picture = Image.fromarray((np.arange(32) >= 16).astype(np.uint8).repeat(32).reshape(32, 32).T)
            picture.putpalette([255, 255, 255, 200, 200, 200])
        picture.save(tmp_path / "half.png", transparency=hidden)
    elif mode == "PA":
        indices = Image.fromarray((np.arange(32) >= 16).astype(np.uint8).repeat(32).reshape(32, 32).T)
        indices.putpalette([255, 255, 255, 200, 200, 200])
        picture = indices.convert("PA")
        picture.putalpha(Image.fromarray(pixels[..., 3]))
        assert torch.equal(torch.from_numpy(np.array(decoding._rgb(picture)))[0, 20], GREY)
        return
    else:
        picture.convert(mode).save(tmp_path / "half.png")
    image, _ = read_square(tmp_path / "half.png", 32)
    assert torch.equal(image[:, 16, 24], GREY)
    assert (image[:, 16, 8] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_a_box_in_stored_pixels_lands_on_the_object_however_the_file_is_turned(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    stored = Image.new("RGB", (60, 40))
    stored.paste((255, 255, 255), (6, 4, 30, 12))
    stored.paste((255, 0, 0), (48, 28, 60, 40))  # at the corner that is stored last
    exif = Image.Exif()
    exif[0x0112] = orientation
    quality = {"lossless": True} if suffix == "webp" else {"quality": 95} if suffix == "jpg" else {}
    path = tmp_path / f"turned.{suffix}"
    stored.save(path, exif=exif, **quality)  # type: ignore[arg-type]
    sample = Images((Record(path, 0, (6.0, 4.0, 30.0, 12.0)),), 120)[0]
    white = (sample.image[1] > 180).nonzero()
    left, top, right, bottom = sample.box.tolist()
    assert white.min(0).values.tolist() == pytest.approx([top, left], abs=1.5)
    assert (white.max(0).values + 1).tolist() == pytest.approx([bottom, right], abs=1.5)
    _, placement = read_square(path, 120)
    box = placement.to_file((left, top, right, bottom))
    assert box == pytest.approx((6, 4, 30, 12))
    # It is upright: the corner stored last is where the tag says.
    red = (sample.image[0].int() - sample.image[2].int() > 150).nonzero().float().mean(0) > 60
    assert tuple(red.tolist()) == (orientation in (1, 2, 5, 6), orientation in (1, 4, 5, 8))


def test_a_large_photograph_is_read_at_a_fraction_and_its_boxes_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = Image.new("RGB", (800, 600))
    stored.paste((255, 255, 255), (160, 80, 400, 320))
    for suffix in ("jpg", "png"):
        stored.save(tmp_path / f"large.{suffix}")
    monkeypatch.setattr(decoding, "LARGEST", 100_000)
    assert decoding.decode(tmp_path / "large.jpg", 50).picture.size == (200, 150)
    sample = Images((Record(tmp_path / "large.jpg", 0, (160.0, 80.0, 400.0, 320.0)),), 50)[0]
    white = (sample.image[0] > 128).nonzero()
    left, top, right, bottom = sample.box.tolist()
    assert white.min(0).values.tolist() == pytest.approx([top, left], abs=1)
    assert (white.max(0).values + 1).tolist() == pytest.approx([bottom, right], abs=1)
    with pytest.raises(OSError, match=r"large.png: 800 x 600 are too many pixels"):
        read_square(tmp_path / "large.png", 50)


@pytest.mark.filterwarnings("error")
def test_a_bomb_is_left_out_without_being_decoded(tmp_path: Path) -> None:
    Image.new("1", (12_000, 8_000)).save(tmp_path / "bomb.png")
    with pytest.raises(OSError, match="12000 x 8000 are too many pixels"):
        read_square(tmp_path / "bomb.png", 16)


@pytest.mark.parametrize("error", [TypeError("x"), NotImplementedError(), AssertionError(), EOFError()])
def test_whatever_a_decoder_raises_leaves_one_image_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    draw(tmp_path / "a.png", 0, 0)

    def broken(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(Image.Image, "load", broken)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", broken)
    with pytest.raises(OSError, match=r"a.png: (x|\w+Error)$"):
        read_square(tmp_path / "a.png", 16)
    assert Images((Record(tmp_path / "a.png", 0),), 16)[0].label == UNREADABLE


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_postscript_program_is_not_run(tmp_path: Path) -> None:
    """Pillow would start Ghostscript, where there is one, whatever the file is called."""
    Image.new("RGB", (60, 40)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(OSError, match=r"a.jpg: is a program, not an image \(EPS\)"):
        decoding.decode(tmp_path / "a.jpg", 32)


def test_an_unreadable_exif_tag_does_not_matter(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg", 1, 0)
    exif = Image.Exif()
    exif[0x0112] = 1
    with Image.open(tmp_path / "a.jpg") as picture:
        picture.save(tmp_path / "b.jpg", exif=exif, quality=95)
    content = (tmp_path / "b.jpg").read_bytes()
    start = content.index(b"Exif") + 14
    (tmp_path / "b.jpg").write_bytes(content[:start] + b"\xff" * 14 + content[start + 14 :])
    assert mean(tmp_path / "b.jpg") == pytest.approx(mean(tmp_path / "a.jpg"), abs=2)


def test_a_pipe_is_no_image_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(OSError, match=r"pipe.png: is not a file"):
        read_square(tmp_path / "pipe.png", 16)
    assert Images((Record(tmp_path / "pipe.png", 0),), 16)[0].label == UNREADABLE
