# SPDX-License-Identifier: BSD-3-Clause
"""The rows of ``birds.py``, and what is claimed of them."""

from __future__ import annotations

from typing import Any

from .paired import against
from .row import Row

CONSTANT, CENTRE = "best constant window", "best centred window"
SINGLE = "one input of 184, best centre"


def constant(tx: float, ty: float, tl: float) -> Row:
    """Without moves: what is chosen is only which window."""
    return Row(windows=(tx, ty, tl), jitter=0.0)


CENTRED = {f"window {0.5:.2f} {0.5:.2f} {tl:.2f}": constant(0.5, 0.5, tl) for tl in (0.25, 0.3, 0.35, 0.4)}
SHIFTED = {
    f"window {0.5:.2f} {ty:.2f} {tl:.2f}": constant(0.5, ty, tl) for ty in (0.42, 0.46) for tl in (0.3, 0.35)
}
CUT = {f"one input of 184, centre {100 * s:.0f} %": Row(184, 1, share=s) for s in (0.65, 0.75, 0.85)}

MASK = 10 / (448 / 2)
"""The paper's k = 10, of coordinates from -1 to 1, per pixel of these images."""

BIRDS: dict[str, Row] = {
    "difference": Row(),
    "one input of 128": Row(128, 1),
    "one input of 184": Row(184, 1),
    **CUT,
    "response": Row(windows="response"),
    "random": Row(windows="random"),
    "box": Row(windows="box"),
    **CENTRED,
    **SHIFTED,
    "fused p": Row(rank_on="fused"),
    "one input of 96": Row(96, 1),
    "one input of 224": Row(224, 1),
    "one input of 96, centre 75 %": Row(96, 1, share=0.75),
    "one input of 128, centre 75 %": Row(128, 1, share=0.75),
    "one input of 224, centre 75 %": Row(224, 1, share=0.75),
    "attention at 96": Row(96, windows="as difference"),
    "attention at 184": Row(184, windows="as difference"),
}

VARIANTS: dict[str, Row] = {
    "difference": BIRDS["difference"],
    "antithetic": Row(gradient="antithetic", once=True),
    "exact": Row(gradient="exact", once=True),
    "boxcar": Row(gradient="boxcar", once=True),
    "features": Row(gradient="features", once=True),
    "fusion on moved windows": Row(windows="as difference", jitter_fusion=0.8),
    "three scales": Row(scales=3),
    "three windows": Row(count=3, once=True),
    "soft mask": Row(mask=MASK, once=True),
    "to convergence": Row(rounds=4, once=True),
    **{f"one input of 224{part}": BIRDS[f"one input of 224{part}"] for part in ("", ", centre 75 %")},
}

SCENE: dict[str, Any] = {"side": 224, "fine": 128, "lower": 0.2}
SCENES: dict[str, Row] = {
    "difference": Row(**SCENE),
    "one input of 256": Row(256, 1),
    "one input of 256, centre 75 %": Row(256, 1, share=0.75),
    "one input of 256, centre 50 %": Row(256, 1, share=0.5),
    "response": Row(windows="response", **SCENE),
    "centre": Row(windows="centre", **SCENE),
    "random": Row(windows="random", **SCENE),
    "box": Row(windows="box", **SCENE),
    "three rounds": Row(rounds=3, **SCENE),
}
ROWS = {"birds": BIRDS, "variants": VARIANTS, "scenes": SCENES}
GROUPS = {CENTRE: tuple(CENTRED), CONSTANT: (*CENTRED, *SHIFTED), SINGLE: tuple(CUT)}
"""Controls that are chosen: by their accuracy on the validation images of all seeds."""


ALONE, MAIN = ("difference", "2"), ("difference", "1+2")
CLAIMS = {
    "birds": [
        *against(ALONE, ("difference", "1"), ("response", "2"), ("random", "2")),
        *against(MAIN, ALONE, ("response", "1+2"), ("random", "1+2"), (CENTRE, "1+2")),
        *against(MAIN, (CONSTANT, "1+2"), ("box", "1+2"), ("one input of 184", "1"), (SINGLE, "1")),
        *against(("fused p", "1+2"), ("fused p", "2"), MAIN),
        *against(
            ("attention at 96", "1+2"), ("one input of 128", "1"), ("one input of 128, centre 75 %", "1")
        ),
    ],
    "variants": [
        *against(MAIN, ("exact", "1+2"), ("boxcar", "1+2"), ("features", "1+2"), ("antithetic", "1+2")),
        *against(MAIN, ("fusion on moved windows", "1+2")),
        *against(("three scales", "1+2+3"), ("three scales", "1+2"), ("three scales", "2"), MAIN),
        *against(
            ("three scales", "1+2+3"), ("one input of 224", "1"), ("one input of 224, centre 75 %", "1")
        ),
        *against(("three windows", "1+2"), MAIN),
        *against(("soft mask", "1+2"), MAIN),
        *against(("to convergence", "1+2"), MAIN),
    ],
    "scenes": [
        *against(MAIN, ("difference", "1"), ALONE, ("one input of 256", "1")),
        *against(MAIN, ("one input of 256, centre 75 %", "1"), ("one input of 256, centre 50 %", "1")),
        *against(MAIN, ("response", "1+2"), ("centre", "1+2"), ("random", "1+2"), ("box", "1+2")),
        *against(("three rounds", "1+2"), MAIN, ("one input of 256, centre 75 %", "1")),
    ],
}


def chosen(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """With the best of each group under the group's name, and of which row it is."""
    rows = dict(found)
    for title, members in GROUPS.items():
        have = {name: found[name] for name in members if name in found}
        if have:
            best = max(have, key=lambda name: sum(_finest(run["validation"]) for run in have[name]))
            rows[title] = [run | {"is": best} for run in have[best]]
    return rows


def _finest(accuracy: dict[str, float]) -> float:
    return list(accuracy.values())[-1]
