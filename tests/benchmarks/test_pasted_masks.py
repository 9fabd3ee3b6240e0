# SPDX-License-Identifier: BSD-3-Clause
"""The benchmark's pasted masks: everyone is right, nobody wrong is timed, and all are shown."""

from __future__ import annotations

import pytest
import torch

from crop import paste, report
from crop.results import Results
from crop.validation import WrongResult

CPU = torch.device("cpu")


def test_everyone_is_right_and_shown() -> None:
    records = paste.times(CPU, rounds=3, count=4, size=(60, 90))
    assert [record["contestant"] for record in records] == list(paste.CONTESTANTS)
    for record, seconds in zip(records, (0.01, 0.13, 0.02), strict=True):
        record["median_s"] = seconds
    text = report.pasted(Results({"paste": records}))
    assert text.startswith("### 4 masks of 28² into 60x90: ms, times ours\n")
    for name, cell in zip(paste.CONTESTANTS, ("10 | 1.0x", "130 | 13.0x", "20 | 2.0x"), strict=True):
        assert f"| {name} | {cell} |" in text


def test_wrong_pixels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*inputs: object) -> torch.Tensor:
        found = paste.ours(*inputs)  # type: ignore[arg-type]
        found[1, 0, 5] = ~found[1, 0, 5]
        return found

    monkeypatch.setitem(paste.CONTESTANTS, "wrong", wrong)
    with pytest.raises(WrongResult, match=r"mask 1 differs where it is not near 0\.5"):
        paste.times(CPU, rounds=3, count=4, size=(60, 90))
