# SPDX-License-Identifier: BSD-3-Clause
"""The table that benchmarks/transforms.py makes, made again: ours are right, the committed one true."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from programs import load_script

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "transforms.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def script() -> ModuleType:
    pytest.importorskip("rich")
    return load_script(SCRIPT)


@pytest.fixture(scope="module")
def table(script: ModuleType) -> dict[str, dict[str, str]]:
    result: dict[str, dict[str, str]] = script.run()
    return result


def test_ours_are_all_right(script: ModuleType, table: dict[str, dict[str, str]]) -> None:
    of_torch = {"`compile`, `backward` twice", "`torch.export` of `func.grad`"}  # whatever is in it
    for name, cells in table.items():
        for column in script.MODES:
            if name in of_torch:
                assert cells[column] == "no", (name, column)
            elif column == "boxcar":  # a surrogate: what is not defined for it is refused, never wrong
                assert cells[column] in ("yes", "images yes, windows no"), (name, column)
            else:
                assert cells[column] == "yes", (name, column)


def test_committed_table_is_true(script: ModuleType, table: dict[str, dict[str, str]]) -> None:
    text = script.TABLE.read_text()
    header = script.HEADER.format(version=torch.__version__.split("+")[0])
    if header not in text:
        pytest.skip("the committed table is of another version of torch")
    assert script.as_markdown(table) in text


def test_wrong_values_are_seen(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    crop, truth = script.crops_of("zeros")
    monkeypatch.setattr(script, "crops_of", lambda column: (lambda i, w: crop(i, w.detach()), truth))
    assert script.cell(script.TRANSFORMS["`jvp`"], "zeros") == "images yes, windows wrong"
