# SPDX-License-Identifier: BSD-3-Clause
"""The cases of hostile_files.py: files, and who reads them.

Readers may raise OSError or ValueError of one line; commands end with status 0, or 1 and lines "error: ...".
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from hostile_damage import damage, garble, hostile, spoil
from PIL import Image
from scipy.io import loadmat, savemat
from trees import CLASSES, draw, make_cars, make_cub, make_dogs, make_folder

from racnn.commands import main
from racnn.config import Config, DataConfig, ModelConfig
from racnn.data import UNREADABLE, Images, Split, read_split, read_square
from racnn.pretrained import CONFIG, WEIGHTS
from racnn.training import checkpoint

warnings.simplefilter("ignore")
torch.set_num_threads(1)
SIDE = 32
# EPS would start Ghostscript, the others write to be shown elsewhere.
NOT_WRITTEN = ("EPS", "PDF", "BUFR", "GRIB", "HDF5", "WMF")
MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "I", "F", "CMYK", "YCbCr", "LAB")


def refused(read: Callable[[], Any], kinds: tuple[type[Exception], ...] = (OSError, ValueError)) -> Any:
    """The result, or None where it was refused as it must be."""
    try:
        return read()
    except kinds as error:
        if len(str(error).splitlines()) != 1:
            raise AssertionError(f"the message must be one line, got {str(error)!r}") from error
        return None


def command(*words: object) -> tuple[int, str]:
    """Status and output of a command."""
    out, errors = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        status = main([str(word) for word in words])
    shown, said = ("" if s.seek(0) else s.read() for s in (out, errors))
    lines = said.splitlines()
    if status not in (0, 1) or any(not line.startswith("error: ") for line in lines) or status != bool(lines):
        raise AssertionError(f"{words}: status {status}, {said!r}")
    return status, shown


@cache
def pictures() -> list[bytes]:
    """Of all formats that Pillow writes, in all modes, some with EXIF."""
    pixels = np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x8769] = 6, "bird", {0x9003: "2011:01:01 00:00:00", 0xA420: "x"}
    found = []
    Image.init()
    for name in sorted(set(Image.SAVE) - set(NOT_WRITTEN)):
        for mode in MODES[:1] if name == "ICNS" else MODES:  # it is slow
            for options in ({}, {"exif": exif.tobytes()}):
                buffer = io.BytesIO()
                with contextlib.suppress(Exception):  # not every format takes every mode
                    grey = "L" if mode == "I;16" else mode
                    Image.fromarray(pixels).convert(grey).convert(mode).save(buffer, name, **options)
                    found.append(buffer.getvalue())
    return found


def image(random: Random, folder: Path) -> None:
    content = damage(random.choice(pictures()), random)
    path = folder / f"image.{random.choice(('png', 'jpg', 'dat'))}"
    path.write_bytes(content)
    read = refused(lambda: read_square(path, SIDE), (OSError,))
    if read is None:
        return
    pixels, placement = read
    assert pixels.shape == (3, SIDE, SIDE)
    assert pixels.dtype == torch.uint8
    assert np.isfinite(placement.to_file(placement.to_square((1.0, 2.0, 3.0, 4.0)))).all()


MAKERS = {"cub": make_cub, "dogs": make_dogs, "cars": make_cars, "folder": make_folder}


@cache
def tree(name: str, folder: Path) -> Path:
    return MAKERS[name](folder / name)


@contextlib.contextmanager
def instead(path: Path, content: bytes) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def check(split: Split) -> None:
    for records in (split.train, split.test):
        sample = Images(records, SIDE)[0]
        assert 0 <= records[0].label < len(split.classes)
        assert sample.label in (UNREADABLE, records[0].label)
        assert sample.box.isfinite().all() or sample.box.isnan().all()


def spoiled_matlab(path: Path, random: Random) -> bytes:
    """Another value in place of a variable, a field or an entry; or bytes of the file exchanged."""
    variables = {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
    name = random.choice(sorted(variables))
    value = variables[name].copy()
    other = hostile(None, random)
    if random.random() < 0.5 and value.dtype.names:
        value[0, random.randrange(value.size)][random.choice(value.dtype.names)] = other
    elif random.random() < 0.5 and value.dtype == object:
        value.flat[random.randrange(value.size)] = other
    else:
        value = random.choice((other, value[:, :1], value[:1], value.T, {"x": value}))
    buffer = io.BytesIO()
    with contextlib.suppress(Exception):  # not every value can be written
        savemat(buffer, variables | {name: value}, do_compression=random.random() < 0.5)
        if random.random() < 0.5:
            return buffer.getvalue()
    return damage(path.read_bytes(), random)


def lists(name: str, pattern: str) -> Callable[[Random, Path], None]:
    def case(random: Random, folder: Path) -> None:
        root = tree(name, folder)
        path = random.choice(sorted(p for p in root.glob(pattern) if p.is_file()))
        content = spoiled_matlab(path, random) if path.suffix == ".mat" else garble(path.read_bytes(), random)
        with instead(path, content):
            split = refused(lambda: read_split(name, root))
            if split is not None:
                check(split)

    return case


def entries(random: Random, folder: Path) -> None:
    """Things in a class folder that are no images."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        root = make_folder(Path(name))
        for number in range(random.choice((1, 3))):
            names = (
                b"x.png",
                b".x.png",
                b"caf\xe9.png",
                b"a\nb.png",
                b"[b].jpg",
                b"x" * 240 + b".png",
                b".x",
                b"caf\xe9",
            )
            where = random.choice(("train", "val", "train/red", "val/red", "train/green"))
            path = root / where / f"{number}{os.fsdecode(random.choice(names))}"
            random.choice(ENTRIES)(path)
        split = refused(lambda: read_split("folder", root))
        if split is not None:
            for half in (split.train, split.test):
                for sample in Images(half, SIDE):  # type: ignore[attr-defined]
                    assert sample.image.shape == (3, SIDE, SIDE)


ENTRIES: tuple[Callable[[Path], object], ...] = (
    os.mkfifo,
    Path.mkdir,
    Path.touch,
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: path.symlink_to("nowhere"),
    lambda path: path.symlink_to(path.parent.parent),
    lambda path: path.symlink_to(path),
    lambda path: draw(path / "deep/1.png", 0, 0),
)


@cache
def model(folder: Path) -> Path:
    """A checkpoint that has not learned anything, with a history."""
    data = DataConfig(root=tree("cub", folder), image_side=SIDE, validation=0.2)
    parts = ModelConfig(backbone="test_resnet", weights=None, scales=2, sizes=[SIDE], hidden=8)
    classes = sorted(f"{11 + n:03}.{name}" for n, name in enumerate(CLASSES))
    config = Config(data=data, model=parts)
    state = {"model": parts.build(len(classes)).state_dict(), "classes": classes, "config": config.to_dict()}
    path = folder / "run/best.pt"
    checkpoint.save(state, path)
    windows = [[[[20.0, 20.0, 10.0]]] * 3]
    checkpoint.save_json(
        [{"phase": "fuse", "epoch": n, "windows": windows} for n in (1, 2)], path.with_name("history.json")
    )
    draw(folder / "good.png", 0, 0)
    return path


def saved(random: Random, folder: Path) -> None:
    """A checkpoint, damaged, or written with other contents."""
    path = model(folder)
    if random.random() < 0.5:
        content = damage(path.read_bytes(), random)
    else:
        other = folder / "other.pt"
        torch.save(spoil(torch.load(path, weights_only=True), random), other)
        content = other.read_bytes()
    with instead(path, content):
        command("predict", "--checkpoint", path, folder / "good.png")


@cache
def kept(folder: Path) -> Path:
    command("export", model(folder), "--to", folder / "kept")
    return folder / "kept"


def folders(random: Random, folder: Path) -> None:
    """A model's folder: either file damaged, or another value in its configuration."""
    path = kept(folder) / random.choice((CONFIG, CONFIG, WEIGHTS))
    content = path.read_bytes()
    if path.name == CONFIG and random.random() < 0.6:
        content = json.dumps(spoil(json.loads(content), random), default=str).encode()
    else:
        content = (garble if path.name == CONFIG else damage)(content, random)
    with instead(path, content):
        command("predict", "--checkpoint", kept(folder), folder / "good.png")


def history(random: Random, folder: Path) -> None:
    path = model(folder).with_name("history.json")
    content = path.read_bytes()
    if random.random() < 0.5:
        content = garble(content, random)
    else:
        content = json.dumps(spoil(json.loads(content), random), default=str).encode()
    with instead(path, content):
        command("visualize", "--checkpoint", model(folder), "--history", "true", "--output", folder / "drawn")


def picture(random: Random, folder: Path) -> None:
    """A damaged picture between good ones: their answers are there in any case."""
    path = folder / "bad.png"
    path.write_bytes(damage(random.choice(pictures()), random))
    good = folder / "good.png"
    _, shown = command("predict", "--checkpoint", model(folder), good, path, good)
    assert shown.count("│") >= 8, shown
    command("visualize", "--checkpoint", model(folder), "--images", path, "--output", folder / "drawn")


def judged(random: Random, folder: Path) -> None:
    """A damaged list, or picture, of the data that a checkpoint is judged on."""
    root = tree("cub", folder)
    path = random.choice([*root.glob("*.txt"), *root.glob("images/*/*.jpg")])
    content = (garble if path.suffix == ".txt" else damage)(path.read_bytes(), random)
    with instead(path, content):
        command("evaluate", "--checkpoint", model(folder), "--baselines", "false")


ROUND: Sequence[str] = [*["image"] * 8, *["cub", "dogs", "dogs", "cars", "cars", "entries"] * 2]
ROUND = [*ROUND, "saved", "saved", "folders", "history", "picture", "judged"]
KINDS: dict[str, Callable[[Random, Path], None]] = {
    "image": image,
    "cub": lists("cub", "*.txt"),
    "dogs": lists("dogs", "**/*[!g]"),
    "cars": lists("cars", "**/*.mat"),
    "entries": entries,
    "saved": saved,
    "folders": folders,
    "history": history,
    "picture": picture,
    "judged": judged,
}


def kind_of(number: int, wanted: Sequence[str]) -> str | None:
    """None where it is not wanted."""
    kind = ROUND[number % len(ROUND)]
    return kind if not wanted or kind in wanted else None
