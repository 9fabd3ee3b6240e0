# SPDX-License-Identifier: BSD-3-Clause
"""The CPU kernels need no more instructions than the table says."""

from __future__ import annotations

import instruction_counts as tool
import pytest
from emulation.build import CannotBuild

from .counted_cases import counted_cases


def test_what_has_grown_by_more_than_the_tolerance_is_found() -> None:
    before = {"a": {tool.COUNT: 10.0}, "b": {tool.COUNT: 10.0}}
    now = {"a": {tool.COUNT: 10.21}, "b": {tool.COUNT: 10.19}, "c": {tool.COUNT: 1.0}}
    assert tool.problems(now, before) == [f"a: {tool.COUNT} 10.21, 10 in the table", "c: not in the table"]
    assert tool.problems(before, before) == []
    assert "10.21  a (10, +2.1%)" in tool.show(now, before)


@pytest.mark.slow
def test_no_kernel_needs_more_instructions_than_the_table_says() -> None:
    made_before, table = tool.read_table()
    try:
        if (made := tool.made_by(tool.build.native())) != made_before:
            pytest.skip(f"the table was made by {made_before}, this build by {made}")
        _, measured = tool.measure(counted_cases())
    except (CannotBuild, tool.CannotCount) as missing:
        pytest.skip(str(missing))
    found = tool.problems(measured, table)
    assert not found, "\n".join([*found, tool.HOW_TO_UPDATE])
    assert measured.keys() == table.keys()
