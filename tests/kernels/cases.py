# SPDX-License-Identifier: BSD-3-Clause
"""The words of many cases for run_kernels: every kernel and pair of dtypes, everything else by chance."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from random import Random

from emulation.cases import BOUNDARIES, FILTER_KERNELS, FILTERS, PAIRS_OF

LAYOUTS = ("contiguous", "channels_last", "transposed", "sliced", "every_second")
SIZES = ((13, 17), (40, 64), (1, 33), (90, 200), (32, 1))
OUTS = ((9, 11), (33, 4), (1, 1), (8, 40), (16, 16), (5, 130), (24, 37))

# Centre and half sides, of the sides: inside, over the edge, outside, huge, a point, not finite.
WINDOWS = (
    (0.471, 0.523, 0.231, 0.317),
    (0.913, 0.117, 0.441, 0.283),
    (-1.371, 2.129, 0.331, 0.217),
    (0.407, 0.613, 7.177, 9.331),
    (0.391, 0.691, 0.0, -0.237),
    (0.507, float("nan"), 0.3, 0.3),
)

# Of five images: runs, any order, some images without windows, windows on none.
INDICES = ("1,1,1,1", "3,0,4,0,2,1,0", "2,0,-1,0", "-1,5,2,2,5,1,4611686018427387904", "-1")


def windows(random: Random, values: int, size: tuple[int, int]) -> str:
    """Three of WINDOWS for an image of `size`, as run_kernels reads them; the second is mirrored."""
    height, width = size
    rows = []
    for n, (x, y, half_x, half_y) in enumerate(random.sample(WINDOWS, 3)):
        numbers = [x * width, y * height, half_x * width, half_y * height][:values]
        if values == 5:
            numbers.insert(3, n % 2)
        rows.append(",".join(f"{number:.7g}" for number in numbers))
    return "/".join(rows)


def cases(kernel: str) -> Iterator[list[str]]:
    """The same in every run. Half of them have taps of two entries."""
    random = Random(kernel)
    for (image, crop), layout, plain in itertools.product(PAIRS_OF[kernel], LAYOUTS, (True, False)):
        words = [kernel, f"images={image}", f"crops={crop}", f"layout={layout}", "B=2", "K=2"]
        size, out = random.choice(SIZES), random.choice(OUTS)
        yield [*words, *others(random, kernel, random.choice((1, 3, 8, 20)), size, out, plain)]
    if kernel not in FILTER_KERNELS:
        return
    for number, ((image, crop), index) in enumerate(itertools.product(PAIRS_OF[kernel], INDICES)):
        words = [kernel, f"images={image}", f"crops={crop}", f"layout={random.choice(LAYOUTS)}", "B=5"]
        channels, size, out = 3, random.choice(SIZES), random.choice(OUTS)
        if number % 2:  # small maps of many channels
            channels, size, out = 64, (20, 20), (7, 7)
        plain = random.random() < 0.5
        yield [*words, f"index={index}", *others(random, kernel, channels, size, out, plain)]


def others(
    random: Random, kernel: str, channels: int, size: tuple[int, int], out: tuple[int, int], plain: bool
) -> Iterator[str]:
    """All that is left to chance."""
    values = (3, 4, 5) if kernel == "forward" else (3, 4)
    yield f"result={random.choice(('contiguous', 'channels_last'))}"
    yield from (f"C={channels}", f"H={size[0]}", f"W={size[1]}", f"h={out[0]}", f"w={out[1]}")
    yield f"windows={windows(random, random.choice(values), size)}"
    yield from (f"parts={random.choice((1, 3))}", f"energy={random.choice(('abs', 'square'))}")
    if kernel in FILTER_KERNELS:
        interpolation, antialias = ("bilinear", False) if plain else random.choice(FILTERS)
        yield from (f"interpolation={interpolation}", f"antialias={int(antialias)}")
        yield f"boundary={random.choice(BOUNDARIES[:3] if plain else BOUNDARIES)}"
        yield f"mask={random.choice((0, 0, 0.7))}"
        affine = random.random() < 0.5
        offset = affine and not plain and kernel == "forward"
        yield from (f"affine={int(affine)}", f"offset={int(offset)}")
