# SPDX-License-Identifier: BSD-3-Clause
"""Small data sets in the published formats, a small backbone, and runs that are over in a second."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.io import savemat
from torch import nn

from racnn import RACNN, Backbone
from racnn.config import Config, DataConfig, ModelConfig, TrainingConfig

CLASSES = ("red", "green", "blue")
SQUARE = 10


def tiny_backbone(weights: object = None) -> Backbone:
    """Without batch norm, stride 4, a module with state; quick."""
    layers = (nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU())
    return Backbone(nn.Sequential(*layers), (0.5,) * 3, (0.25,) * 3)


def draw(path: Path, label: int, seed: int, size: tuple[int, int] = (40, 30)) -> tuple[int, int, int, int]:
    """A noisy picture with a coloured square somewhere; returns the square: left, top, right, bottom."""
    generator = np.random.default_rng(seed)
    width, height = size
    pixels = generator.integers(90, 160, (height, width, 3), dtype=np.uint8)
    left, top = int(generator.integers(0, width - SQUARE)), int(generator.integers(0, height - SQUARE))
    pixels[top : top + SQUARE, left : left + SQUARE] = 20
    pixels[top : top + SQUARE, left : left + SQUARE, label] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)
    return left, top, left + SQUARE, top + SQUARE


def make_cub(root: Path, each: int = 6) -> Path:
    """The files of CUB-200-2011: ids from 5, classes from 11, every third image for testing."""
    lists: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": []}
    lists |= {"bounding_boxes": [], "classes": [f"{11 + n} {11 + n:03}.{c}" for n, c in enumerate(CLASSES)]}
    for number in range(each * len(CLASSES)):
        label, key = number % len(CLASSES), number + 5
        name = f"{11 + label:03}.{CLASSES[label]}/image_{number}.jpg"
        left, top, right, bottom = draw(root / "images" / name, label, number)
        lists["images"].append(f"{key} {name}")
        lists["image_class_labels"].append(f"{key} {11 + label}")
        lists["train_test_split"].append(f"{key} {int(number // len(CLASSES) % 3 != 2)}")
        lists["bounding_boxes"].append(f"{key} {left:.1f} {top:.1f} {right - left:.1f} {bottom - top:.1f}")
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def make_dogs(root: Path) -> Path:
    """The files of Stanford Dogs, two classes."""
    names = ("n01-Chihuahua", "n02-toy_terrier")
    for half, count in (("train", 3), ("test", 2)):
        files, annotations, labels = [], [], []
        for label, name in enumerate(names):
            for n in range(count):
                key = f"{name}/{half}_{n}"
                box = draw(root / "Images" / f"{key}.jpg", label, n)
                sides = "".join(
                    f"<{t}>{v}</{t}>" for t, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
                )
                annotation = root / "Annotation" / key
                annotation.parent.mkdir(parents=True, exist_ok=True)
                annotation.write_text(f"<annotation><object><bndbox>{sides}</bndbox></object></annotation>")
                files.append([f"{key}.jpg"])
                annotations.append([key])
                labels.append([label + 1])
        lists = {
            "file_list": np.array(files, dtype=object),
            "annotation_list": np.array(annotations, dtype=object),
            "labels": np.array(labels),
        }
        savemat(root / f"{half}_list.mat", lists)
    return root


def make_cars(root: Path) -> Path:
    """The files of Stanford Cars, three classes."""
    fields = [(f"bbox_{side}", object) for side in ("x1", "y1", "x2", "y2")]
    fields += [("class", object), ("fname", object)]
    for half, where in (("train", "devkit/cars_train_annos"), ("test", "cars_test_annos_withlabels")):
        rows = []
        for n in range(6):
            left, top, right, bottom = draw(root / f"cars_{half}" / f"{n:05}.jpg", n % 3, n)
            rows.append((left + 1, top + 1, right, bottom, n % 3 + 1, f"{n:05}.jpg"))
        (root / "devkit").mkdir(parents=True, exist_ok=True)
        savemat(root / f"{where}.mat", {"annotations": np.array([rows], dtype=fields).reshape(1, -1)})
    names = np.array([["AM General Hummer", "Acura RL", "Acura TL"]], dtype=object)
    savemat(root / "devkit/cars_meta.mat", {"class_names": names})
    return root


def make_folder(root: Path) -> Path:
    for half in ("train", "val"):
        for label, name in enumerate(CLASSES):
            for n in range(2):
                draw(root / half / name / f"{n}.png", label, n)
    return root


def random_images(batch: int = 2, side: int = 48) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 3, side, side), generator=generator, dtype=torch.uint8)


class TinyConfig(ModelConfig):
    """Builds with the tests' backbone."""

    def build(self, num_classes: int, pretrained: bool = True) -> RACNN:
        options = dict(vars(self)) | {"backbone": tiny_backbone, "weights": None}
        return RACNN(num_classes, **options)


def tiny_config(root: Path, **training: Any) -> Config:
    short = {f"{name}_epochs": 1 for name in ("classify", "imitate", "rank", "fuse")}
    options = {"batch_size": 6, "rounds": 1, "device": "cpu"} | short | training
    return Config(
        DataConfig(root=root, image_side=32, validation=0.2),
        TinyConfig(scales=3, sizes=[16], hidden=8),
        TrainingConfig(**options),
    )


RANDOM_RUNS: dict[str, dict[str, Any]] = {
    "paper": {"data.least_area": 0.5, "data.rand_augment": 9, "data.mix": "mixup"},
    "autocast": {
        "data.least_area": 0.5,
        "data.mix": "cutmix",
        "amp": "bf16",
        "diversity": 0.1,
        "optimizer": "adamw",
    },
    "random windows": {"window_source": "random"},
    "boxcar": {"rank_gradient": "boxcar"},
    "differences": {"rank_gradient": "difference", "data.workers": 1},
    "antithetic": {"rank_gradient": "antithetic"},
}
"""Options beside those of :func:`random_config`; together they have every phase and every random number."""


def random_config(root: Path, name: str) -> Config:
    """A run with everything random switched on that ``RANDOM_RUNS[name]`` allows."""
    options = dict(RANDOM_RUNS[name])
    data = {key[5:]: options.pop(key) for key in list(options) if key.startswith("data.")}
    config = tiny_config(root, **{"batch_size": 4, "jitter": 0.2, **options})
    config.model.dropout = 0.2
    config.data = replace(config.data, **data)
    return config


@contextlib.contextmanager
def locked(output: Path) -> Iterator[None]:
    """Another process has the run's folder, as a second run would."""
    program = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX)"
    program += "; print(flush=True); input()"
    line = [sys.executable, "-c", program, str(output / ".lock")]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()
