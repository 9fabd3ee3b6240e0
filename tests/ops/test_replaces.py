# SPDX-License-Identifier: BSD-3-Clause
"""Every pair of racnn_ops/REPLACES.md: what others write and what replaces it give the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = Path(__file__).resolve().parents[2] / "racnn_ops" / "REPLACES.md"

OURS = r"\b(attention_crop|paste|transforms\.RandomResizedCrop)\("


def blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


# The last is a table: see tests/benchmarks/test_published.py.
INTRODUCTION, *SECTIONS, _ = PAGE.read_text(encoding="utf-8").split("\n## ")


@pytest.mark.parametrize("section", SECTIONS, ids=[section.splitlines()[0] for section in SECTIONS])
def test_both_sides_give_the_same(section: str) -> None:
    pytest.importorskip("kornia")
    pytest.importorskip("torchvision")
    (inputs,) = blocks(INTRODUCTION)
    sides = blocks(section)
    assert len(sides) == 2
    theirs, ours = sides
    assert not re.search(OURS, theirs)
    assert re.search(OURS, ours)
    found = []
    masks = []
    for side in (theirs, ours):
        torch.manual_seed(0)
        names: dict[str, Any] = {}
        exec(inputs + side, names)
        found.append(names["crops"])
        masks.append(names.get("in_image"))
    assert len(found[0].unique()) > 100
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
    if masks[0] is not None:
        sure = (found[0] - 0.5).abs() > 1e-4
        assert torch.equal(masks[0][sure], masks[1][sure])
