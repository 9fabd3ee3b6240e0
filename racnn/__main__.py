# SPDX-License-Identifier: BSD-3-Clause
"""``python -m racnn train | evaluate | predict | visualize | export``"""

from __future__ import annotations

import sys

from .commands import main

if __name__ == "__main__":
    sys.exit(main())
