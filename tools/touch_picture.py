# SPDX-License-Identifier: BSD-3-Clause
"""The picture of the page of ``benchmarks/touch.py``, as headless Chromium shows it.

Renewed by ``python tools/touch_picture.py --output benchmarks/results/touch.png``.
"""

from __future__ import annotations

import argparse
import io
import sys
import threading
from pathlib import Path

from chromium import Chromium
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import touch  # noqa: E402

SIZE = (900, 540)


def picture() -> Image.Image:
    """The page as it is opened, of ``SIZE``."""
    with touch.Server(touch.load(None)) as server, Chromium(SIZE) as page:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page.open(server.address)
        page.wait_for("state.answers > 0 && !asking && $('crop').complete")
        picture = Image.open(io.BytesIO(page.picture())).convert("RGB")
        server.shutdown()
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "results" / "touch.png")
    output = parser.parse_args().output
    output.parent.mkdir(parents=True, exist_ok=True)
    few = picture().quantize(256, Image.Quantize.FASTOCTREE)  # a quarter of the bytes
    few.save(output, optimize=True)
    print(f"wrote {output}, {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
