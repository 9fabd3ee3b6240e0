# SPDX-License-Identifier: BSD-3-Clause
"""What runs over seeds found: summary, table and picture of ``ablation.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from record.section import Report, table

from .paired import NOTE, claims_table
from .spread import shown, spread


def summarise(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Variant -> accuracy by scales, attention by scale, and both of other windows with its weights."""
    summary: dict[str, Any] = {}
    for variant, runs in results.items():
        others = {source: [run["baselines"][source] for run in runs] for source in runs[0]["baselines"]}
        summary[variant] = over_seeds(runs)
        summary[variant]["same weights"] = {source: over_seeds(found) for source, found in others.items()}
    return summary


def hits_of(results: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, str]]]:
    """Row -> seed -> scales -> packed hits, for :func:`attention.paired.judge`."""
    hits = {}
    for variant, runs in results.items():
        hits[variant] = [run["hits"] for run in runs]
        for source in runs[0]["baselines"]:
            hits[with_weights_of(source, variant)] = [run["baselines"][source]["hits"] for run in runs]
    return hits


def with_weights_of(source: str, variant: str) -> str:
    return f"{source}, weights of {variant}"


def over_seeds(runs: list[dict[str, Any]]) -> dict[str, Any]:
    first = runs[0]
    return {
        "top1": {n: spread([run["accuracy"][n]["top1"] for run in runs]) for n in first["accuracy"]},
        "attention": {
            scale: {name: spread([run["attention"][scale][name] for run in runs]) for name in values}
            for scale, values in first["attention"].items()
        },
    }


def table_rows(summary: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Variants, then other windows with the weights of the one that was judged through them."""
    others = [
        (with_weights_of(source, variant), found)
        for variant, values in summary.items()
        for source, found in values["same weights"].items()
    ]
    return [*summary.items(), *others]


def names_of(summary: dict[str, Any]) -> list[str]:
    """Of scales and their fusions, as many as any variant has."""
    return max((list(values["top1"]) for values in summary.values()), key=len)


def accuracy_table(report: Report) -> str:
    names = names_of(report["summary"])
    rows = []
    for title, values in table_rows(report["summary"]):
        cells = [values["top1"].get(name) for name in names]
        cells += [values["attention"].get("2", {}).get(name) for name in ("inside", "iou")]
        rows.append([title, *map(shown, cells)])
    accuracies = table(["windows", *names, "inside", "IoU"], rows)
    return accuracies + "\n\n" + claims_table(report["claims"])


def note(report: Report) -> str:
    count = len(report["seeds"])
    seeds = f"mean ± standard deviation over {count} seeds" if count > 1 else "one seed"
    return (
        f"Top-1 % on the {report['test_images']} test images by scales, {seeds}; scale 2's windows: % inside "
        "the object's box, IoU % with the tight window. " + NOTE
    )


def draw(report: Report, path: Path) -> None:
    summary = report["summary"]
    rows = table_rows(summary)
    figure, axis = plt.subplots(figsize=(7.5, 0.32 * len(rows) + 1.1), layout="constrained")
    for position, name in enumerate(names_of(summary)):
        have = [(y, v["top1"][name]) for y, (_, v) in enumerate(rows) if name in v["top1"]]
        means, errors = ([100 * cell[key] for _, cell in have] for key in ("mean", "std"))
        heights = [y + 0.12 * (position - 1) for y, _ in have]
        axis.errorbar(means, heights, xerr=errors, fmt="o", markersize=6, capsize=2, label=name)
    axis.set(xlabel="test top-1 %, mean and standard deviation", ylim=(len(rows) - 0.5, -0.5))
    axis.set_yticks(range(len(rows)), [title for title, _ in rows])
    axis.grid(alpha=0.3)
    axis.legend(title="scales", loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
