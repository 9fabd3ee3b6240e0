# SPDX-License-Identifier: BSD-3-Clause
"""Links between the repository's Markdown files, which lead to files there, lead to pages of the site.

A page may be a file of ``docs``, or include one of elsewhere (``{include} ../racnn_ops/README.md``), whose
links are relative to its own folder. A link to such a file becomes one to the page, a link to any other file
a download; a folder that has no page is named without a link. A file that does not exist is a warning.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
FENCED = re.compile(r"^(```+).*?^\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?![a-z]+:|[/#])([^)\s]+)\)")
INCLUDED = re.compile(r"^```\{include\} (\S+)$", re.MULTILINE)


def pages(app: Sphinx) -> dict[str, str]:
    """The path of every file that a page shows -> the path of that page's own file."""
    found = {}
    for docname in app.project.docnames:
        path = app.env.doc2path(docname)
        found[str(path)] = str(path)
        if path.suffix == ".md":
            for target in INCLUDED.findall(path.read_text(encoding="utf-8")):
                found.setdefault(os.path.normpath(path.parent / target), str(path))
    conf = app.config.sphinx_gallery_conf
    examples, gallery = (str(app.srcdir / conf[name]) for name in ("examples_dirs", "gallery_dirs"))
    return found | {examples: os.path.join(gallery, "index.rst")}


def for_site(text: str, folder: Path, page: Path, known: dict[str, str], docname: str = "") -> str:
    """Markdown of a file in ``folder`` as part of ``page``; ``known``: see :func:`pages`."""

    def link(match: re.Match[str]) -> str:
        image, words, target = match.groups()
        file, hash_sign, fragment = target.partition("#")
        path = os.path.normpath(folder / file)
        if not os.path.exists(path):
            LOGGER.warning("a link to %s, which does not exist", path, location=docname)
        shown = known.get(path) or known.get(os.path.join(path, "README.md"))
        if shown is None and os.path.isdir(path):
            return words
        return f"{image}[{words}]({os.path.relpath(shown or path, page.parent)}{hash_sign}{fragment})"

    parts, end = [], 0
    for fence in FENCED.finditer(text):
        parts += [LINK.sub(link, text[end : fence.start()]), fence.group()]
        end = fence.end()
    return "".join([*parts, LINK.sub(link, text[end:])])


def change_page(app: Sphinx, docname: str, content: list[str]) -> None:
    page = app.env.doc2path(docname)
    if page.suffix == ".md":
        content[0] = for_site(content[0], page.parent, page, pages(app), docname)


def change_included(app: Sphinx, relative_path: Path, parent: str, content: list[str]) -> None:
    docname = app.env.current_document.docname
    folder = (app.srcdir / relative_path).parent
    content[0] = for_site(content[0], folder, app.env.doc2path(docname), pages(app), docname)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", change_page)
    app.connect("include-read", change_included)
    return {"parallel_read_safe": True}
