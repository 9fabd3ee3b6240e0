# SPDX-License-Identifier: BSD-3-Clause
"""The site builds without a warning, its examples run, and every link in it leads somewhere."""

from __future__ import annotations

import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from programs import run_checked

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.stem for path in (ROOT / "docs/examples").glob("*.py"))
PACKAGES = ("sphinx", "furo", "myst_parser", "sphinx_copybutton", "sphinx_gallery")
PACKAGES += (
    "cv2",
    "kornia",
    "onnxruntime",
    "onnxscript",
    "skimage",
    "torchvision",
)  # of benchmarks and examples

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make docs` makes it, of a copy, since the gallery is written beside the pages."""
    for package in PACKAGES:
        pytest.importorskip(package, reason=f"no {package}: pip install '.[bench,docs,racnn,test]'")
    tree = tmp_path_factory.mktemp("site") / "tree"
    left_out = {str(ROOT): {"build", "dist"}, str(ROOT / "docs"): {"gallery"}}
    ignored = shutil.ignore_patterns(".*", "*.so", "__pycache__")
    shutil.copytree(ROOT, tree, ignore=lambda path, names: ignored(path, names) | left_out.get(path, set()))
    command = (sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", tree / "docs", tree / "html")
    run_checked(*command, cwd=ROOT, PYTHONPATH=str(ROOT), MPLBACKEND="Agg")
    return tree / "html"


class Links(HTMLParser):
    """What a page links to, what can be linked to in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value and not re.match(r"[a-z]+:", value):
                self.targets.add(unquote(value))


def test_every_link_leads_somewhere(site: Path) -> None:
    pages = {path.resolve(): Links(path) for path in site.rglob("*.html")}
    assert len(pages) > 30
    missing = []
    for page, links in pages.items():
        for target in links.targets:
            file, _, fragment = target.partition("#")
            path = (page.parent / file.split("?")[0]).resolve() if file else page
            if not path.exists() or (fragment and path in pages and fragment not in pages[path].anchors):
                missing.append((page.name, target))
    assert missing == []


def test_nothing_comes_from_elsewhere(site: Path) -> None:
    """Neither scripts nor styles, pictures or fonts: the site is read without a network."""
    loaded = re.compile(r"<(?:script|img|iframe)[^>]*\ssrc=\"https?:|<link[^>]*\shref=\"https?:")
    assert [path.name for path in site.rglob("*.html") if loaded.search(path.read_text("utf-8"))] == []
    assert [path.name for path in site.rglob("*.css") if "url(http" in path.read_text("utf-8")] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_shows_what_it_makes(site: Path, name: str) -> None:
    text = (site / "gallery" / f"{name}.html").read_text(encoding="utf-8")
    pictures = re.findall(r"sphx_glr_\w+_001\.png", text)
    assert pictures
    assert (site / "_images" / pictures[0]).is_file()


def test_llms_txt_lists_every_page(site: Path) -> None:
    text = (site / "llms.txt").read_text(encoding="utf-8")
    assert re.match(r"# racnn-ops\n\n> Cut a window out of an image", text)
    listed = re.findall(r"^- \[.+?\]\((\S+?)\): \S.+$", text, re.MULTILINE)
    assert len(listed) == len(set(listed)) == len(re.findall("^- ", text, re.MULTILINE))
    made = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    without = {"genindex.html", "index.html", "py-modindex.html", "search.html"}
    assert set(listed) == {path for path in made - without if not path.startswith("_modules")}


def test_pages_hold_what_the_repository_holds(site: Path) -> None:
    """The texts included, the pictures of conventions, and tables that are only in a results file."""
    conventions = (site / "conventions.html").read_text(encoding="utf-8")
    for picture in (ROOT / "benchmarks/results").glob("conventions-*.png"):
        assert f'"_images/{picture.name}"' in conventions
    performance = (site / "performance.html").read_text(encoding="utf-8")
    assert "Host overhead" in performance
    assert "INTER_AREA" in performance
    api = (site / "api/racnn_ops.html").read_text(encoding="utf-8")
    assert 'id="racnn_ops.attention_crop"' in api
    assert 'id="racnn_ops.paste"' in api


def test_links_between_files_become_links_between_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(ROOT / "docs/extensions")
    from repository_links import for_site

    page = ROOT / "docs/operator.md"
    known = {str(ROOT / "racnn/README.md"): str(ROOT / "docs/racnn.md")}

    def link(text: str) -> str:
        return for_site(text, ROOT / "racnn_ops", page, known)

    assert link("[a](../racnn/README.md#b)") == "[a](racnn.md#b)"
    assert link("[a\nb](../racnn)") == "[a\nb](racnn.md)"
    assert link("![a](../benchmarks/results/demo.png)") == "![a](../benchmarks/results/demo.png)"
    assert link("[`boxes`](boxes.py)") == "[`boxes`](../racnn_ops/boxes.py)"
    assert link("see [`csrc`](../csrc), c") == "see `csrc`, c"
    for kept in ("[a](https://b.org/c)", "[a](#b)", "```python\nx[0](boxes.py)\n```"):
        assert link(kept) == kept
