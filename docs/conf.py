# SPDX-License-Identifier: BSD-3-Clause
"""The site: ``make docs``. No page needs a network, neither while it is built nor while it is read."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE / "extensions"), str(ROOT / "benchmarks")]

from sphinx.application import Sphinx  # noqa: E402

import racnn_ops  # noqa: E402

for name in ("onnx_ir", "onnxscript"):  # an example's export; Sphinx shows what is logged
    logging.getLogger(name).setLevel(logging.WARNING)

project = "racnn-ops"
author = "The racnn-ops authors"
copyright = "The racnn-ops authors"
version = release = racnn_ops.__version__

extensions = [
    "llms_txt",
    "measured",
    "myst_parser",
    "repository_links",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["examples", "extensions"]
# References to what is public must lead somewhere; torch's would need a network, parts of racnn are not.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!racnn).*"), ("py:.*", r"racnn\.[a-z]\w*\.\w+")]

html_theme = "furo"
html_title = "racnn-ops"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

myst_heading_anchors = 4
copybutton_exclude = ".linenos, .gp, .go"  # prompts and output of doctests

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_rtype = False

sphinx_gallery_conf = {
    "abort_on_example_error": True,
    "capture_repr": (),
    "download_all_examples": False,
    "examples_dirs": "examples",
    "filename_pattern": r"\.py$",
    "gallery_dirs": "gallery",
    "notebook_extensions": set(),
    "show_signature": False,
    "within_subsection_order": "FileNameSortKey",
    "write_computation_times": False,
}


def keep_bars(app: Sphinx, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
    """Bars in docstrings are magnitudes, not substitutions of reStructuredText."""
    lines[:] = [re.sub(r"\|(\w+)\|", r"\|\1\|", line) for line in lines]


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", keep_bars)
