# SPDX-License-Identifier: BSD-3-Clause
"""Writes llms.txt (llmstxt.org): the site's pages in the order of its table of contents, a line each.

What a page is about is its own first sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

SENTENCE = re.compile(r"(.+?\.)(?:\s|$)")


def make(app: Sphinx) -> str:
    root = app.config.root_doc
    lines = [f"# {app.config.project}", f"> {first_sentence(app, root)}"]
    for toctree in app.env.get_doctree(root).findall(addnodes.toctree):
        lines.append(f"## {toctree['caption']}")
        listed = [below for docname in toctree["includefiles"] for below in with_subpages(app, docname)]
        lines.append("\n".join(line(app, docname) for docname in listed))
    return "\n\n".join(lines) + "\n"


def with_subpages(app: Sphinx, docname: str) -> Iterator[str]:
    yield docname
    for below in app.env.toctree_includes.get(docname, []):
        yield from with_subpages(app, below)


def line(app: Sphinx, docname: str) -> str:
    address = app.config.html_baseurl + app.builder.get_target_uri(docname)
    return f"- [{app.env.titles[docname].astext()}]({address}): {first_sentence(app, docname)}"


def first_sentence(app: Sphinx, docname: str) -> str:
    """Of the page's first paragraph, notes left out."""
    for paragraph in app.env.get_doctree(docname).findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        if text and isinstance(paragraph.parent, nodes.section):
            found = SENTENCE.match(text)
            return found[1] if found else text
    raise ValueError(f"{docname} has no paragraph that llms.txt could quote")


def write(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        Path(app.outdir, "llms.txt").write_text(make(app), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", write)
    return {"parallel_read_safe": True}
