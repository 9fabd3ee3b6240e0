# SPDX-License-Identifier: BSD-3-Clause
"""Trains a configuration over seeds, with learned windows and with one larger input.

Every variant of every seed is a run of ``python -m racnn train`` in a folder of its own: one that was
interrupted is resumed, one that is finished is not repeated. The test half is looked at when all runs are
finished, once a run; means and standard deviations over seeds go into one JSON file, a table and a figure.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from attention import accuracy, paired
from attention.runs import CLAIMS, MAIN, VARIANTS, judge, read_config, train, vary
from record import provenance
from record.section import Section

SECTION = Section(accuracy.accuracy_table, accuracy.note, "Accuracy of scales and windows", accuracy.draw)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "configs/digits.yaml")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--runs", type=Path, required=True, help="folder for the runs, kept between calls")
    SECTION.add_arguments(parser)
    parser.add_argument("--name", default="digits", help="of the results")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    base = read_config(arguments.config, arguments.root)
    console = Console()
    report = provenance.describe()
    folders: dict[str, list[Path]] = {}
    for seed in arguments.seeds:
        for variant in arguments.variants:
            folder = arguments.runs / f"{variant.replace(' ', '-')}-{seed}"
            console.rule(f"{variant}, seed {seed}")
            train(vary(base, VARIANTS[variant], seed), folder)
            folders.setdefault(variant, []).append(folder)
    results = {
        variant: [judge(folder, arguments.root, baselines=variant == MAIN) for folder in runs]
        for variant, runs in folders.items()
    }
    hits = accuracy.hits_of(results)
    config = base.to_dict()
    config["data"]["root"] = arguments.root.name
    report |= {
        "config": config,
        "variants": {name: VARIANTS[name] for name in arguments.variants},
        "seeds": arguments.seeds,
        "test_images": next(iter(results.values()))[0]["images"],
        "summary": accuracy.summarise(results),
        "hits": hits,
        "claims": paired.judge(hits, CLAIMS),
    }
    SECTION.write(report, arguments.output, arguments.name)


if __name__ == "__main__":
    main()
