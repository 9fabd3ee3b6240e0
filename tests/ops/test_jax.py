# SPDX-License-Identifier: BSD-3-Clause
"""Antialiased filters against ``jax.image.scale_and_translate``, where jax is installed.

It normalises weights over the image's own pixels, as ``boundary="border"`` does, and gives 0 for outputs
whose position lies outside the image, which read the edge under "border". ``boundary="zeros"`` normalises
over all whole positions: the same where outputs read nothing outside.
"""

from __future__ import annotations

import importlib.util
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from programs import run_checked
from samples import generator
from torch import Tensor

from racnn_ops import attention_crop

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed"),
]

SIZE = (61, 73)
METHODS = {"bilinear": "linear", "bicubic": "cubic", "lanczos3": "lanczos3"}
OUTS = [(7, 9), (24, 20), (80, 90)]
INSIDE = [36.3, 30.6, 12.2, 10.9]
OVER = [[36.5, 30.5, 36.5, 30.5], [10.2, 9.1, 10.1, 9.05], [60.0, 45.0, 25.3, 30.7]]

# In a process of its own: jax's threads do not get along with tests that fork.
PROGRAM = """
import sys
import jax, numpy as np
given = dict(np.load(sys.argv[1]))
images, found = jax.numpy.asarray(given.pop("images")), {}
for name, (x, y, half_x, half_y) in given.items():
    method, height, width, _ = name.split()
    out = int(height), int(width)
    scale = np.array([out[0] / (2 * half_y), out[1] / (2 * half_x)])
    translation = -np.array([y - half_y, x - half_x]) * scale
    scale, translation = (jax.numpy.asarray(values, np.float32) for values in (scale, translation))
    shape, precision = (images.shape[0], *out), jax.lax.Precision.HIGHEST
    arguments = images, shape, (1, 2), scale, translation, method, True, precision
    found[name] = jax.image.scale_and_translate(*arguments)
np.savez(sys.argv[2], **found)
"""


def images() -> Tensor:
    return torch.rand(3, *SIZE, generator=generator("jax"))


def name(interpolation: str, out: tuple[int, int], number: int) -> str:
    return f"{METHODS[interpolation]} {out[0]} {out[1]} {number}"


@pytest.fixture(scope="module")
def by_jax(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    folder: Path = tmp_path_factory.mktemp("jax")
    windows = {
        name(interpolation, out, number): np.array(window)
        for interpolation, out, (number, window) in product(METHODS, OUTS, enumerate([INSIDE, *OVER]))
    }
    np.savez(folder / "given.npz", images=images().numpy(), **windows)
    run_checked(
        sys.executable, "-c", PROGRAM, folder / "given.npz", folder / "found.npz", JAX_PLATFORMS="cpu"
    )
    return {key: torch.from_numpy(value) for key, value in np.load(folder / "found.npz").items()}


def crop(window: list[float], out: tuple[int, int], interpolation: str, boundary: str) -> Tensor:
    windows = torch.tensor([window])
    options = {"interpolation": interpolation, "boundary": boundary}
    return attention_crop(images()[None], windows, out, antialias=True, **options)[0]


@pytest.mark.parametrize("boundary", ["zeros", "border"])
@pytest.mark.parametrize("out", OUTS, ids=str)
@pytest.mark.parametrize("interpolation", METHODS)
def test_inside(interpolation: str, out: tuple[int, int], boundary: str, by_jax: dict[str, Tensor]) -> None:
    actual = crop(INSIDE, out, interpolation, boundary)
    torch.testing.assert_close(actual, by_jax[name(interpolation, out, 0)], rtol=0, atol=1e-5)


@pytest.mark.parametrize("out", OUTS, ids=str)
@pytest.mark.parametrize("interpolation", METHODS)
def test_at_and_over_edges(interpolation: str, out: tuple[int, int], by_jax: dict[str, Tensor]) -> None:
    for number, window in enumerate(OVER, 1):
        rows, columns = (
            middle + half * ((2 * torch.arange(count) + 1) / count - 1)
            for middle, half, count in ((window[1], window[3], out[0]), (window[0], window[2], out[1]))
        )
        inside = ((rows > 0) & (rows < SIZE[0]))[:, None] & ((columns > 0) & (columns < SIZE[1]))
        assert number == 3 or inside.all()
        actual = torch.where(inside, crop(window, out, interpolation, "border"), 0.0)
        # jax's positions are scale * x + translation in float32.
        torch.testing.assert_close(actual, by_jax[name(interpolation, out, number)], rtol=0, atol=3e-5)
