# SPDX-License-Identifier: BSD-3-Clause
"""Files for other tools say what the project says elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import racnn_ops

ROOT = Path(__file__).resolve().parents[2]


def read(name: str) -> Any:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_citation_is_of_this_version() -> None:
    citation = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "version", "license", "type"} <= citation.keys()
    assert citation["version"] == racnn_ops.__version__
    assert f'license = "{citation["license"]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Fu", "Zheng", "Mei"]


def test_pre_commit_has_the_versions_of_make_lint() -> None:
    (local,) = read(".pre-commit-config.yaml")["repos"]
    found = {pin for hook in local["hooks"] for pin in hook.get("additional_dependencies", [])}
    pinned = re.findall(r'"((?:ruff|clang-format)==[\d.]+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert found == set(pinned)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for hook in local["hooks"]:
        tool = hook["entry"].removeprefix("python -m ").split(" -")[0]
        assert re.search(rf"^\t{tool}", makefile, re.MULTILINE), tool
