# SPDX-License-Identifier: BSD-3-Clause
"""Writes digits on cluttered canvases as a data set, in the files of CUB-200-2011, boxes included."""

from __future__ import annotations

import argparse
from pathlib import Path

from attention.digits import make_canvases, write_cub


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--train", type=int, default=4000, help="canvases of the training half")
    parser.add_argument("--test", type=int, default=1000, help="canvases of the test half")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name in ("train", "test"):
        if getattr(arguments, name) < 10:
            parser.error(f"--{name} must be at least 10, got {getattr(arguments, name)}")
    if (arguments.output / "images.txt").exists():
        parser.error(f"--output {arguments.output} holds a data set already")
    train = make_canvases("train", arguments.train, 2 * arguments.seed)
    test = make_canvases("test", arguments.test, 2 * arguments.seed + 1)
    write_cub(arguments.output, train, test)
    print(f"wrote {arguments.train} + {arguments.test} canvases to {arguments.output}")


if __name__ == "__main__":
    main()
