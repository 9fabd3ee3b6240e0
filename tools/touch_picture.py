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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "results" / "touch.png")
    output = parser.parse_args().output
    server = touch.Server(touch.load(None))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with Chromium((800, 560)) as page:
        page.open(server.address)
        page.wait_for("state.answers > 0 && !asking")
        page.drag([(160, 150), (190, 160), (225, 175)])
        page.wait_for("state.answers > 1 && !asking && $('crop').complete")
        picture = Image.open(io.BytesIO(page.picture())).convert("RGB")
    output.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(128, dither=Image.Dither.NONE).save(output, optimize=True)
    print(f"wrote {output}, {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
