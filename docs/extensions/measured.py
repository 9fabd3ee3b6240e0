# SPDX-License-Identifier: BSD-3-Clause
"""``{measured} NAME``: all of benchmarks/results/NAME.json in tables, as the benchmark prints them.

``{contributed}``: one table of all machines in benchmarks/results/contributed.
"""

from __future__ import annotations

import json

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import readme
from crop import contribution, report
from crop.results import Results


class Measured(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = readme.RESULTS / f"{self.arguments[0]}.json"
        self.env.note_dependency(str(path))
        text = report.details(Results(json.loads(path.read_text(encoding="utf-8"))))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class Contributed(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        paths = sorted((readme.RESULTS / contribution.FOLDER).glob("*.json"))
        for path in paths:
            self.env.note_dependency(str(path))
        return self.parse_text_to_nodes(contribution.tables([contribution.load(path) for path in paths]))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("contributed", Contributed)
    app.add_directive("measured", Measured)
    return {"parallel_read_safe": True}
