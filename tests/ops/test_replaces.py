# SPDX-License-Identifier: BSD-3-Clause
"""Every pair of racnn_ops/REPLACES.md: what others write and what replaces it give the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = Path(__file__).resolve().parents[2] / "racnn_ops" / "REPLACES.md"


def blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


INTRODUCTION, *SECTIONS = PAGE.read_text(encoding="utf-8").split("\n## ")


@pytest.mark.parametrize("section", SECTIONS, ids=[section.splitlines()[0] for section in SECTIONS])
def test_both_sides_give_the_same(section: str) -> None:
    pytest.importorskip("kornia")
    pytest.importorskip("torchvision")
    (inputs,) = blocks(INTRODUCTION)
    sides = blocks(section)
    assert len(sides) == 2
    theirs, ours = sides
    calls = re.compile(r"\b(attention_crop|transforms\.RandomResizedCrop)\(")
    assert not calls.search(theirs)
    assert calls.search(ours)
    found = []
    for side in (theirs, ours):
        torch.manual_seed(0)
        names: dict[str, Any] = {}
        exec(inputs + side, names)
        found.append(names["crops"])
    assert len(found[0].unique()) > 100
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
