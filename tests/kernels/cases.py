# SPDX-License-Identifier: BSD-3-Clause
"""The words of many cases for run_kernels: every kernel and pair of dtypes, everything else by turns."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from emulation.cases import BOUNDARIES, FILTER_KERNELS, FILTERS, PAIRS_OF, TAP_KERNELS

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


def windows(first: int, values: int, size: tuple[int, int]) -> str:
    """Three of WINDOWS for an image of `size`, as run_kernels reads them."""
    height, width = size
    sides = (width, height, width, height)
    chosen = (WINDOWS[(first + n) % len(WINDOWS)][:values] for n in range(3))
    return "/".join(
        ",".join(f"{share * side:.7g}" for share, side in zip(shares, sides[:values], strict=True))
        for shares in chosen
    )


def cases(kernel: str) -> Iterator[list[str]]:
    """Cycles of different lengths, so that each choice meets each other one."""
    filters = itertools.cycle(FILTERS)
    sizes, outs, boundaries = (itertools.cycle(of) for of in (SIZES, OUTS, BOUNDARIES))
    channels, masks, parts = (
        itertools.cycle((1, 3, 8, 20)),
        itertools.cycle((0, 0, 0.7)),
        itertools.cycle((1, 3)),
    )
    for number, ((image, crop), layout) in enumerate(itertools.product(PAIRS_OF[kernel], LAYOUTS)):
        size, out = next(sizes), next(outs)
        values = 3 + number // 2 % 2
        words = [kernel, f"images={image}", f"crops={crop}", f"layout={layout}", "B=2", "K=2"]
        words += [f"C={next(channels)}", f"H={size[0]}", f"W={size[1]}", f"h={out[0]}", f"w={out[1]}"]
        words += [f"windows={windows(number, values, size)}", f"parts={next(parts)}"]
        words += [f"energy={('abs', 'square')[number % 2]}"]
        if kernel in TAP_KERNELS:
            yield words
            continue
        interpolation, antialias = next(filters) if kernel in FILTER_KERNELS else ("bilinear", False)
        words += [f"interpolation={interpolation}", f"antialias={int(antialias)}", f"mask={next(masks)}"]
        words += [f"boundary={next(boundaries)}", f"affine={number % 2}"]
        yield [*words, f"offset={int(kernel == 'forward' and number % 4 == 1)}"]
