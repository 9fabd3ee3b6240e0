# SPDX-License-Identifier: BSD-3-Clause
"""Examples in public docstrings give what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = ("attention_crop", "boxes", "paste", "reference", "transforms")


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name: str) -> None:
    module = importlib.import_module(f"racnn_ops.{name}")
    assert doctest.testmod(module).failed == 0


def test_examples_are_found() -> None:
    """Else the test above would pass for want of any."""
    finder = doctest.DocTestFinder()
    found = {
        test.name.removeprefix("racnn_ops.")
        for name in MODULES
        for test in finder.find(importlib.import_module(f"racnn_ops.{name}"))
        if test.examples
    }
    assert found >= {"attention_crop.attention_crop", "boxes.windows_from_boxes", "paste.paste"}
