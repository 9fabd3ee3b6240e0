# SPDX-License-Identifier: BSD-3-Clause
"""Image files as upright 8-bit RGB, whatever they hold."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from ..output import printable

GREY = (124, 116, 104)
"""Shown where an image is transparent."""
LARGEST = 90_000_000
"""Pixels decoded at most, 4 bytes each; larger JPEG files can be decoded at a fraction of their size."""
Turn = Image.Transpose
TURNS = {
    2: Turn.FLIP_LEFT_RIGHT,
    3: Turn.ROTATE_180,
    4: Turn.FLIP_TOP_BOTTOM,
    5: Turn.TRANSPOSE,
    6: Turn.ROTATE_270,
    7: Turn.TRANSVERSE,
    8: Turn.ROTATE_90,
}
"""What makes a picture upright, by its EXIF orientation."""


class Decoded(NamedTuple):
    """``picture`` is upright; ``width`` and ``height`` are its own, however small it was decoded."""

    picture: Image.Image
    width: int
    height: int
    orientation: int


def decode(path: Path, side: int) -> Decoded:
    """A picture that is about to become ``side`` pixels wide and high.

    Raises:
        OSError: the file cannot be decoded, or holds numbers of which nobody knows what is white.
    """
    if not path.is_file():  # a pipe may never end
        raise FileNotFoundError(f"{printable(path)}: is not a file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                return _decode(opened, side)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything on broken files
        raise OSError(f"{printable(path)}: {str(error) or type(error).__name__}") from error


def _decode(opened: Image.Image, side: int) -> Decoded:
    if opened.format == "EPS":
        raise ValueError("is a program, not an image (EPS)")
    width, height = opened.size
    if width * height > LARGEST:
        opened.draft(None, (2 * side, 2 * side))
        if opened.width * opened.height > LARGEST:
            raise ValueError(f"{width} x {height} are too many pixels")
    orientation = _orientation(opened)
    opened.load()
    picture = _rgb(opened)
    if _orientation(opened) != orientation:  # Pillow turns TIFF files itself
        return Decoded(picture, width, height, orientation)
    if orientation in TURNS:
        picture = picture.transpose(TURNS[orientation])
    if orientation >= 5:
        width, height = height, width
    return Decoded(picture, width, height, orientation)


def _orientation(opened: Image.Image) -> int:
    found = opened.getexif().get(ExifTags.Base.Orientation)
    return found if found in TURNS else 1


def _rgb(opened: Image.Image) -> Image.Image:
    # PNG and PGM files of 16 bits have mode "I" in some versions of Pillow.
    if opened.mode.startswith("I;16") or (opened.mode == "I" and opened.format in ("PNG", "PPM")):
        numbers = np.asarray(opened).astype(np.uint32)
        return Image.fromarray(((numbers + 128) // 257).astype(np.uint8)).convert("RGB")
    if opened.mode in ("I", "F"):
        raise ValueError(
            f"has 32-bit numbers (mode {opened.mode}): their white is unknown, make it 8 or 16 bits"
        )
    if opened.has_transparency_data:
        layer = opened.convert("RGBA")
        ground = Image.new("RGB", layer.size, GREY)
        ground.paste(layer, mask=layer)
        return ground
    return opened if opened.mode == "RGB" else opened.convert("RGB")
