# SPDX-License-Identifier: BSD-3-Clause
"""What attention is worth on birds: learned windows against everything that costs as much.

A frozen EfficientNet-Lite0 with ImageNet weights; classifiers, attention and fusion learn, on 40 classes of
CUB-200-2011 or any others. Every row of every seed is a file in the folder of runs: what is there is not
run again, and an interrupted program goes on. Hits are kept image by image, so that each claim is a paired
comparison over test images and seeds (``attention/paired.py``). With ``--scenes`` the photographs stand in
large scenes, see :class:`attention.photographs.Scenes`; ``--variants`` are of the recipe. With ``--known``
an earlier results file stands for the runs that it holds; each run says on what processor it was made.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attention import photographs
from attention.birds_rows import CLAIMS, ROWS, chosen
from attention.birds_table import SECTION, made_on
from attention.paired import judge, packed
from attention.photographs import Half, Mirrored, Scenes
from attention.row import Row
from attention.study import Study, feature_maps
from racnn.data import hold_out, read_split
from record import provenance

SIDE = 448
CELL = 192
LAYOUTS = 4
VALIDATION = 0.1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder of CUB-200-2011 or a subset")
    parser.add_argument("--runs", type=Path, required=True, help="folder for what is computed, kept")
    kinds = parser.add_mutually_exclusive_group()
    for kind, text in (("scenes", "birds in large scenes"), ("variants", "of the recipe")):
        kinds.add_argument(f"--{kind}", action="store_const", const=kind, dest="kind", help=text)
    parser.set_defaults(kind="birds")
    parser.add_argument("--rows", nargs="+", default=None, help="some rows alone")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--finished", action="store_true", help="run nothing: rows alone that are there")
    parser.add_argument("--known", type=Path, help="a results file: what it holds is not run again")
    SECTION.add_arguments(parser)
    arguments = parser.parse_args()
    known = ROWS[arguments.kind]
    if unknown := set(arguments.rows or ()) - known.keys():
        parser.error(f"--rows must be some of {', '.join(map(repr, known))}, got {', '.join(unknown)}")
    return arguments


Run = dict[str, Any]
Found = dict[str, list[Run]]


def read_known(file: Path, kind: str) -> dict[tuple[str, int], Run]:
    """The runs of a results file by row and seed."""
    report = json.loads(file.read_text(encoding="utf-8"))
    if report.get("kind") != kind:
        raise SystemExit(f"--known must be results of {kind}, got those of {report.get('kind')}")
    made = {"made": made_on(report)}
    rows = report["rows"].items()
    return {
        (row, seed): made | run
        for row, runs in rows
        for seed, run in zip(report["seeds"], runs, strict=False)
    }


class Program:
    """Rows and seeds of one kind of images, with what they share.

    Args:
        known: runs of elsewhere, for rows that are not in the folder of runs.
        made: on what new runs are made.
    """

    def __init__(
        self,
        root: Path,
        runs: Path,
        kind: str,
        known: dict[tuple[str, int], Run] | None = None,
        made: str = "",
    ) -> None:
        self.known, self.made = known or {}, made
        self.split = read_split("cub", root)
        self.kind, self.has_scenes = kind, kind == "scenes"
        self.runs = runs / ("scenes" if self.has_scenes else "birds")
        self.runs.mkdir(parents=True, exist_ok=True)
        self.read = photographs.read(self.split, SIDE, runs / "photographs.pt")
        self._halves: dict[float, dict[str, Half]] = {}
        self._tables: dict[tuple[float, int], dict[str, list[Tensor]]] = {}

    def halves(self, share: float) -> dict[str, Half]:
        if share not in self._halves:
            made: dict[str, Half] = {}
            for seed, (half, read) in enumerate(self.read.items()):
                views = LAYOUTS if half == "train" else 1
                whole: Half = Scenes(read, CELL, views, seed) if self.has_scenes else Mirrored(read)
                made[half] = whole if share == 1 else photographs.Centre(whole, share)
            self._halves[share] = made
        return self._halves[share]

    def tables(self, row: Row) -> dict[str, list[Tensor]]:
        file = self.runs / f"features-{row.side}-{row.share}.pt"
        key = row.share, row.side
        if key not in self._tables:
            if not file.is_file():
                maps = {half: feature_maps(data, row.side) for half, data in self.halves(row.share).items()}
                torch.save(maps, file)
            self._tables = {key: torch.load(file, mmap=True, weights_only=True)}
        return self._tables[key]

    def numbers(self, seed: int) -> tuple[Tensor, Tensor]:
        place = {record: number for number, record in enumerate(self.split.train)}
        train, held_out = hold_out(self.split.train, VALIDATION, seed)
        return torch.tensor([place[r] for r in train]), torch.tensor([place[r] for r in held_out])

    def result(self, name: str, seed: int) -> Path:
        return self.runs / f"{name.replace(' ', '-')}-{seed}.json"

    def is_known(self, name: str, seed: int) -> bool:
        return self.result(name, seed).is_file() or (name, seed) in self.known

    def started(self, name: str, seed: int) -> Study:
        """The row's model before its windows learn, from an earlier run."""
        row = ROWS[self.kind][name]
        study = self._new(row, seed)
        start = self._start(row, seed)
        if start is None or not start.is_file():
            raise SystemExit(f"birds.py must have run the row {name!r} with seed {seed} before")
        study.go_on(start)
        study.model.eval().requires_grad_(False)
        return study

    def _new(self, row: Row, seed: int) -> Study:
        learned = None
        if isinstance(row.windows, str) and row.windows.startswith("as "):
            windows = self._windows(row.windows[3:], seed)
            if not windows.is_file():
                raise SystemExit(
                    f"birds.py must have run the row {row.windows[3:]!r}, seed {seed}, in --runs"
                )
            learned = torch.load(windows, weights_only=True)
        halves, tables = self.halves(row.share), self.tables(row)
        return Study(row, seed, len(self.split.classes), halves, tables, self.numbers(seed), learned)

    def study(self, name: str, seed: int) -> Run:
        """The row's results, computed where they are not there."""
        file = self.result(name, seed)
        if not self.is_known(name, seed):
            row = ROWS[self.kind][name]
            print(f"{name}, seed {seed}", flush=True)
            study = self._new(row, seed)
            study.run(self._start(row, seed))
            if row.windows == "proposed" and row.scales == 2:
                torch.save(study.windows(), self._windows(name, seed))
            file.write_text(json.dumps(self._results(study)) + "\n", encoding="utf-8")
        if not file.is_file():
            return self.known[name, seed]
        found: Run = json.loads(file.read_text(encoding="utf-8"))
        return found

    def _start(self, row: Row, seed: int) -> Path | None:
        """Rows that differ in how windows learn from the ranking loss have the same start."""
        if row.windows != "proposed":
            return None
        same = (*row.sizes, row.scales, row.count, row.jitter, row.mask, row.lower, row.half, seed)
        return self.runs / f"start-{'-'.join(map(str, same))}.pt"

    def _windows(self, name: str, seed: int) -> Path:
        return self.runs / f"{name.replace(' ', '-')}-{seed}.windows.pt"

    def _results(self, study: Study) -> Run:
        held_out = {name: hits[study.held_out] for name, hits in study.hits("train").items()}
        return {
            "made": self.made,
            "cost": study.row.cost,
            "test": {name: packed(hits) for name, hits in study.hits("test").items()},
            "validation": {name: float(hits.double().mean()) for name, hits in held_out.items()},
            "quality": {name: float(values.mean()) for name, values in study.quality("test").items()},
            "phases": [[r.phase.name, r.best] for r in study.done],
        }


def main() -> None:
    arguments = parse_arguments()
    report = provenance.describe()
    kind = arguments.kind
    known = read_known(arguments.known, kind) if arguments.known else {}
    program = Program(arguments.root, arguments.runs, kind, known, made_on(report))
    names = arguments.rows or list(ROWS[program.kind])
    found: Found = {}
    for name in names:
        seeds = arguments.seeds[:1] if ROWS[program.kind][name].once else arguments.seeds
        if arguments.finished and not all(program.is_known(name, seed) for seed in seeds):
            continue
        found[name] = [program.study(name, seed) for seed in seeds]
    rows = chosen(found)
    hits = {name: [run["test"] for run in runs] for name, runs in rows.items()}
    report |= {
        "kind": program.kind,
        "classes": len(program.split.classes),
        "test_images": len(program.split.test),
        "seeds": arguments.seeds,
        "rows": rows,
        "claims": judge(hits, CLAIMS[program.kind]),
    }
    SECTION.write(report, arguments.output, "birds" if kind == "birds" else f"birds_{kind}")


if __name__ == "__main__":
    main()
