# SPDX-License-Identifier: BSD-3-Clause
"""The table that benchmarks/transforms.py makes, made again: ours are right, the committed one true."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import transforms

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks/results"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def table() -> dict[str, dict[str, str]]:
    return transforms.run()


def test_ours_are_all_right(table: dict[str, dict[str, str]]) -> None:
    of_torch = {"`compile`, `backward` twice", "`torch.export` of `func.grad`"}  # whatever is in it
    for name, cells in table.items():
        for column in transforms.MODES:
            if name in of_torch:
                assert cells[column] == "no", (name, column)
            elif column == "boxcar":  # a surrogate: what is not defined for it is refused, never wrong
                assert cells[column] in ("yes", "images yes, windows no"), (name, column)
            else:
                assert cells[column] == "yes", (name, column)


def test_committed_table_is_true(table: dict[str, dict[str, str]]) -> None:
    report = json.loads((RESULTS / "transforms.json").read_text())
    if report["versions"]["torch"].split("+")[0] != torch.__version__.split("+")[0]:
        pytest.skip("the committed table is of another version of torch")
    assert report["table"] == table


def test_wrong_values_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    crop, truth = transforms.crops_of("zeros")
    monkeypatch.setattr(transforms, "crops_of", lambda column: (lambda i, w: crop(i, w.detach()), truth))
    assert transforms.cell(transforms.TRANSFORMS["`jvp`"], "zeros") == "images yes, windows wrong"
