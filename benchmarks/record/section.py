# SPDX-License-Identifier: BSD-3-Clause
"""A report as files: NAME.json with everything, NAME.md for readers, and often NAME.png.

The Markdown is made of the JSON alone, so it can be made again when its layout changes. Its links are
relative to its own folder; ``readme.py`` puts it between the marks of its name in a README.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from record import provenance

Report = dict[str, Any]
RESULTS = provenance.ROOT / "build" / "results"
"""Where programs write, so that a run leaves the tree as it was; what is committed was written with
``--output benchmarks/results``."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Of Markdown; all columns but the first are aligned to the right."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" + "|---:" * (len(head) - 1) + "|", *lines[1:]])


def show(text: str) -> None:
    """Markdown on the terminal; as it is, where it goes into a file."""
    console = Console()
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        print(text)


class _Render(argparse.Action):
    """``--render PATH`` needs none of the program's other arguments: like ``--help``, it ends the program."""

    def __init__(self, *args: Any, section: Section, **options: Any) -> None:
        super().__init__(*args, default=argparse.SUPPRESS, **options)
        self.section = section

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, path: Any, option: Any = None
    ) -> None:
        try:
            self.section.render(path)
        except (OSError, ValueError) as error:
            parser.error(f"{option} {path}: {error}")
        parser.exit()


@dataclass(frozen=True)
class Section:
    """What a program shows of its report: a picture, a table, and a note that ends with the provenance.

    Attributes:
        table: a report -> the Markdown between picture and note.
        note: a report -> what readers must know about the numbers.
        picture: what NAME.png shows; "": there is none.
        draw: makes the picture of a report, if a report is enough for it.
    """

    table: Callable[[Report], str]
    note: Callable[[Report], str]
    picture: str = ""
    draw: Callable[[Report, Path], None] | None = None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--output", type=Path, default=RESULTS, help="folder, default: build/results")
        parser.add_argument(
            "--render",
            action=_Render,
            section=self,
            type=Path,
            metavar="JSON",
            help="only make Markdown and picture of this results file again",
        )

    def markdown(self, report: Report, name: str) -> str:
        picture = [f"![{self.picture}]({name}.png)"] if self.picture else []
        note = f"{self.note(report)} {provenance.sentence(report, name)}"
        return "\n\n".join([*picture, self.table(report), note]) + "\n"

    def write(self, report: Report, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.json"
        text = json.dumps(report, indent=1, ensure_ascii=False, default=str)
        path.write_text(text + "\n", encoding="utf-8")
        print(f"wrote {path}")
        self.render(path)

    def render(self, path: Path) -> None:
        report = json.loads(path.read_text(encoding="utf-8"))
        text = self.markdown(report, path.stem)
        path.with_suffix(".md").write_text(text, encoding="utf-8")
        show(text)
        if self.draw:
            self.draw(report, path.with_suffix(".png"))
        made = (".md", ".png") if self.draw else (".md",)
        print("wrote " + " and ".join(str(path.with_suffix(suffix)) for suffix in made))
