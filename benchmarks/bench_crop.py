# SPDX-License-Identifier: BSD-3-Clause
"""Times racnn_ops.attention_crop and what people use instead, side by side, on real images.

    python benchmarks/bench_crop.py [--quick] [--device cuda] [--threads N] …
    python benchmarks/bench_crop.py --only main probes [dtype resize …]
    python benchmarks/bench_crop.py --filters-only
    python benchmarks/bench_crop.py --models

Every contestant's crops and gradients are compared with the reference before it is timed. Contestants take
turns; all numbers are medians, all ratios those of one run. On a CPU filters of more than two pixels follow
(antialiased crops and averages), uint8 pictures beside OpenCV, and random crops. ``--models`` times the crop
steps of published models alone. Prints tables and writes JSON, Markdown and a picture, named after the
device, to build/results/. ``--contribute`` adds a short JSON for the table of all machines (CONTRIBUTING.md).
Needs ``pip install '.[bench]'``.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from crop import (
    augmentation,
    contribution,
    cuda_probes,
    filter_contestants,
    filter_report,
    lists,
    paste,
    plot,
    probes,
    published,
    published_times,
    report,
)
from crop.augmentation import Augmentation, AugmentationCase, AugmentationComparison, augmentation_cases
from crop.cases import Case, make_inputs
from crop.comparison import Comparison, all_inputs
from crop.contestants import ALL, COMPILED, GRID_SAMPLE, OURS, Contestant
from crop.filter_cases import EXPERIMENTS, FilterCase, filter_cases
from crop.filter_comparison import FilterComparison
from crop.filter_contestants import FilterContestant
from crop.images import Source, photographs, synthetic
from crop.results import Record, Results
from crop.sweeps import PLAIN, TAKERS, sweeps
from crop.timing import copy_bandwidth
from racnn_ops import _library
from record import provenance
from record.section import Section, show

SECTION = Section(report.tables, report.main_note, "Time of a call against racnn_ops", plot.draw)
BATCH = {"cpu": 16, "cuda": 64}
ROUNDS, QUICK_ROUNDS = 25, 9
WHERE = ("output", "contribute")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", choices=("cpu", "cuda"), default=device, help="default here: %(default)s")
    add("--threads", type=_at_least(1), help="of torch on the CPU; default: as many as it takes")
    rounds = f"samples of each median; default {ROUNDS}, quick {QUICK_ROUNDS}"
    add("--rounds", type=_at_least(3), help=rounds)
    add("--quick", action="store_true", help="fewer rounds, the ends of each sweep only")
    names = ("main", "probes", *sweeps(Case(1), quick=True), *EXPERIMENTS)
    names = tuple(dict.fromkeys((*names, augmentation.NAME, published_times.NAME)))
    what = "of the main case, the probes (memory, host, kernels alone), sweeps, longer filters, random crops"
    what += " and published models only these"
    add("--only", nargs="+", choices=names, metavar="NAME", help=f"{what}: {', '.join(names)}")
    models = "only the crop steps of published models, beside ours; the files' names end in -models"
    add("--models", action="store_const", const=[published_times.NAME], dest="only", help=models)
    add("--no-compile", action="store_true", help="leave out torch.compile, which takes a while")
    add("--filters-only", action="store_true", help="show the tables of longer filters, and write nothing")
    add("--synthetic", action="store_true", help="random images instead of photographs")
    contribute = (
        "also write contributed/NAME.json, checked by a schema; of JSON, if that is named, not of a new run"
    )
    add("--contribute", nargs="?", const=True, type=Path, metavar="JSON", help=contribute)
    SECTION.add_arguments(parser)
    add("--batch", type=_at_least(1), help="B of the main case; default 16 on a CPU, 64 on a GPU")
    add("--image", type=_at_least(16), default=448, help="H = W of the main case, default %(default)s")
    add("--crop", type=_at_least(2), default=224, help="h = w of the main case, default %(default)s")
    arguments = parser.parse_args()
    if isinstance(arguments.contribute, Path):
        try:
            contribution.write(json.loads(arguments.contribute.read_text("utf-8")), arguments.output)
        except (OSError, ValueError) as error:
            parser.error(f"--contribute {arguments.contribute}: {error}")
        parser.exit()
    if arguments.contribute and (arguments.only or arguments.filters_only):
        parser.error("--contribute needs everything: no --only, --models or --filters-only")
    arguments.rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    arguments.batch = arguments.batch or BATCH[arguments.device]
    if not _library.has_cpu:
        parser.error(f"there are no compiled kernels to time: {_library.cpu_error}")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device")
    if arguments.device == "cuda" and not _library.has_cuda:
        parser.error(f"--device cuda: there are no compiled kernels to time: {_library.cuda_error}")
    return arguments


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
        return int(text)

    return number


def choose_source(arguments: argparse.Namespace, console: Console) -> tuple[Source, str]:
    if not arguments.synthetic:
        try:
            return photographs(), "photographs of scikit-image"
        except (ImportError, OSError) as error:
            console.print(f"[yellow]random images instead of photographs: {error}[/]")
    return synthetic, "random images"


Taker = TypeVar("Taker", Contestant, FilterContestant, Augmentation, published.Step)


def installed(contestants: Sequence[Taker], console: Console) -> list[Taker]:
    for contestant in contestants:
        if not contestant.is_installed:
            console.print(
                f"[yellow]{contestant.name} does not take part: {contestant.needs} is not installed[/]"
            )
    return [contestant for contestant in contestants if contestant.is_installed]


class Filters:
    """The plan for filters of more than two pixels, which have kernels on the CPU alone, and for pictures."""

    def __init__(self, arguments: argparse.Namespace, main_case: Case, console: Console) -> None:
        only = EXPERIMENTS if arguments.filters_only else arguments.only or EXPERIMENTS
        known = filter_cases(main_case, arguments.quick) if arguments.device == "cpu" else []
        self.cases = [case for case in known if case.experiment in only]
        self.contestants = installed(filter_contestants.ALL, console) if self.cases else []
        self.rounds = max(arguments.rounds // 2, 3)
        self.total = self.rounds * sum(len(case.steps) for case in self.cases)

    def run(self, comparison: FilterComparison, note: Callable[[FilterCase], None]) -> None:
        for case in self.cases:
            note(case)
            comparison.run(case, self.contestants, self.rounds)


def measure(arguments: argparse.Namespace, console: Console) -> Record:
    device = torch.device(arguments.device)
    main_case = Case(arguments.batch, image=arguments.image, crop=arguments.crop)
    variants = sweeps(main_case, arguments.quick)
    only = arguments.only or ["main", "probes", *variants, augmentation.NAME]
    variants = {name: cases for name, cases in variants.items() if name in only}
    source, images = choose_source(arguments, console)
    contestants = [
        contestant
        for contestant in installed(ALL, console)
        if not (contestant.compiled and arguments.no_compile)
    ]
    filters = Filters(arguments, main_case, console)
    random_crops: list[AugmentationCase] = []
    if augmentation.NAME in only and device.type == "cpu":
        random_crops = augmentation_cases(main_case, arguments.quick)
    croppers = installed(augmentation.ALL, console) if random_crops else []
    models = published.steps(device, arguments.quick) if published_times.NAME in only else []
    models = installed(models, console)
    results: Record = {
        **provenance.describe(device),
        "arguments": {name: value for name, value in vars(arguments).items() if name not in WHERE},
        "images": images,
        "main_case": main_case.to_json(),
        "sweeps": list(variants),
    }
    sweep_rounds = max(arguments.rounds // 2, 3)
    plan: list[tuple[str, Case, list[Contestant], int]] = []
    if "main" in only:
        plan.append(("main", main_case, contestants, arguments.rounds))
    for name, cases in variants.items():
        takers = [contestant for contestant in TAKERS.get(name, PLAIN) if contestant in contestants]
        plan += [(name, case, takers, sweep_rounds) for case in cases]
    bar = (BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    few = max(arguments.rounds // 4, 3)
    with Progress(*bar, console=console, transient=True) as progress:
        rounds = sum(len(case.modes) * rounds for _, case, _, rounds in plan)
        rounds += few * sum(len(step.modes) for step in models)
        rounds += filters.total + sweep_rounds * len(random_crops) + PROBES * ("probes" in only)
        task = progress.add_task("copy bandwidth", total=rounds)
        results["copy_bytes_per_s"] = copy_bandwidth(device)
        comparison = Comparison(source, device, lambda: progress.advance(task))
        for name, case, takers, rounds in plan:
            progress.update(task, description=f"{name}: {case.label}")
            comparison.run(name, case, takers, rounds)
        resampled = FilterComparison(source, device, lambda: progress.advance(task))
        filters.run(resampled, lambda case: progress.update(task, description=case.label))
        augmented = AugmentationComparison(source, device, lambda: progress.advance(task))
        for case in random_crops:
            progress.update(task, description=f"{augmentation.NAME}: {case.label}")
            augmented.run(case, croppers, sweep_rounds)
        results[published_times.NAME] = []
        for step in models:
            progress.update(task, description=step.name)
            results[published_times.NAME] += published_times.times(
                step, device, few, lambda: progress.advance(task)
            )
        results |= {"times": comparison.times, "filters": resampled.times, augmentation.NAME: augmented.times}
        results["refused"] = comparison.refused + resampled.refused + augmented.refused

        def note(what: str) -> None:
            progress.update(task, description=what)
            progress.advance(task)

        results |= {
            name: []
            for name in ("memory", "overhead", "paste", "lists", "threads", "launches", "device_times")
        }
        if "probes" in only:
            results |= probe(main_case, source, device, arguments, contestants, note)
    return results


def measure_filters(arguments: argparse.Namespace, console: Console) -> str:
    main_case = Case(arguments.batch, image=arguments.image, crop=arguments.crop)
    source, _ = choose_source(arguments, console)
    device = torch.device(arguments.device)
    comparison = FilterComparison(source, device, tick=lambda: None)
    filters = Filters(arguments, main_case, console)
    filters.run(comparison, lambda case: console.print(case.label))
    refused = [report.not_timed(record) for record in comparison.refused]
    data = {"filters": comparison.times, "copy_bytes_per_s": copy_bandwidth(device)}
    return "\n\n".join([filter_report.tables(data), filter_report.details(data), *refused])


PROBES = 6


def probe(
    main_case: Case,
    source: Source,
    device: torch.device,
    arguments: argparse.Namespace,
    contestants: list[Contestant],
    note: Callable[[str], None],
) -> Record:
    """Everything but times of large calls; ``note`` is called ``PROBES`` times."""
    rounds = arguments.rounds
    inputs = make_inputs(main_case, source, device)
    eager = [contestant for contestant in contestants if contestant is not COMPILED]
    note("memory")
    memory = probes.memory_table(main_case, inputs, eager)
    channels_last = replace(main_case, layout="channels_last")
    memory += probes.memory_table(channels_last, make_inputs(channels_last, source, device), [OURS])
    note("host overhead")
    overhead = probes.host_overhead(device, rounds)
    note("pasted masks")
    few = max(rounds // 4, 3)
    pasted = paste.times(device, few)
    note("lists")
    listed = lists.times(device, few, arguments.quick)
    note("threads" if device.type == "cpu" else "launches")
    threads = probes.thread_scaling(_for_threads(main_case), source, rounds) if device.type == "cpu" else []
    launches = cuda_probes.launches(main_case, inputs, [OURS, GRID_SAMPLE]) if device.type == "cuda" else []
    note("kernels alone")
    device_times: list[Record] = []
    for types in cuda_probes.DTYPES if device.type == "cuda" else ():
        case = replace(main_case, dtype=types[0], out_dtype=types[1])
        sets = all_inputs(case, source, device)
        device_times += cuda_probes.device_times(case, sets, [OURS, GRID_SAMPLE], rounds)
    return {
        "memory": memory,
        "overhead": overhead,
        "paste": pasted,
        "lists": listed,
        "threads": threads,
        "launches": launches,
        "device_times": device_times,
    }


def _for_threads(main_case: Case) -> list[Case]:
    """Images, feature maps, and several windows on feature maps."""
    variants = sweeps(main_case, quick=False)
    return [main_case, variants["feature maps"][0], variants["feature windows"][0]]


def main() -> None:
    arguments = parse_arguments()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own notes would fill the screen
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.filters_only:
        show(measure_filters(arguments, Console()))
        return
    results = measure(arguments, Console())
    show(report.details(Results(results)))
    name = provenance.slug(results) + ("-quick" if arguments.quick else "")
    name += "-models" if arguments.only == [published_times.NAME] else ""
    SECTION.write(results, arguments.output, name)
    if arguments.contribute:
        contribution.write(results, arguments.output)


if __name__ == "__main__":
    provenance.keep_memory()
    main()
