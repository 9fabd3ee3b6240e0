# SPDX-License-Identifier: BSD-3-Clause
"""Trains a configuration over seeds, with learned windows and with what they must beat.

Every variant of every seed is a run of ``python -m racnn train`` in a folder of its own: one that was
interrupted is resumed, one that is finished is not repeated. The test half is looked at when all runs are
finished, once a run; means and standard deviations over seeds go into one JSON file, a table and a figure.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import machine
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table

from racnn.commands import half_of_data, load_model, own_windows
from racnn.config import Config, DataConfig, ModelConfig, TrainingConfig
from racnn.data import read_split
from racnn.evaluation import evaluate
from racnn.training import checkpoint, processes
from racnn.training.folder import BEST, LAST
from racnn.training.trainer import Trainer

DONE = "done"
LARGER = "larger"  # an input for which one scale costs about what two cost
LONG = "as long"  # classifiers learn as long as in all phases of the schedule together
MAIN = "difference"  # also judged through other windows than its own


def fixed(windows: str) -> dict[str, Any]:
    return {
        "training.schedule": "fixed",
        "training.fixed_windows": windows,
        "training.classify_epochs": LONG,
    }


# Variant -> what differs from the configuration: how the ranking loss reaches windows; windows that are not
# learned, with classifiers trained on them as long; crops out of scale 1's input instead of the image; one
# larger input, about as expensive as two scales; three scales.
VARIANTS: dict[str, dict[str, Any]] = {
    "difference": {"training.rank_gradient": "difference"},
    # In float32: bfloat16 would add noise to a derivative.
    "exact": {"training.rank_gradient": "derivative", "training.amp": "none"},
    "boxcar": {
        "training.rank_gradient": "derivative",
        "model.window_grad": "boxcar",
        "model.boxcar_scale": 1e-3,  # 1e-7, the release's, would drown in Adam's epsilon
    },
    "response": fixed("response"),
    "centre": fixed("centre"),
    "random": fixed("random"),
    "cut from scale 1": {"model.crop_from": "previous"},
    "larger input": {"model.scales": 1, "model.sizes": LARGER, "training.classify_epochs": LONG},
    "three scales": {"model.scales": 3, "model.chain_gradient": False},
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "configs/birds.yaml")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--runs", type=Path, required=True, help="folder for the runs, kept between calls")
    machine.add_output(parser)
    parser.add_argument("--name", default="birds", help="of the results")
    return parser.parse_args()


def read_config(path: Path, root: Path) -> Config:
    parser = ArgumentParser()
    parser.add_class_arguments(DataConfig, "data")
    parser.add_class_arguments(ModelConfig, "model")
    parser.add_class_arguments(TrainingConfig, "training")
    config = Config.from_dict(parser.parse_path(str(path)).as_dict())
    return replace(config, data=replace(config.data, root=root)).check()


def vary(config: Config, changes: dict[str, Any], seed: int) -> Config:
    sections = config.to_dict()
    sections["training"]["seed"] = seed
    for key, value in changes.items():
        section, name = key.split(".")
        if value == LARGER:
            # Cost goes with the square of the side; rounded to what strides of 8 divide.
            value = [round(2**0.5 * sections["model"]["sizes"][0] / 8) * 8]
        if value == LONG:
            t = config.training
            more = t.joint_epochs if t.schedule == "joint" else (1 + t.rounds) * t.classify_epochs
            value = t.classify_epochs + more
        sections[section][name] = value
    return Config.from_dict(sections).check()


def train(config: Config, folder: Path) -> None:
    if (folder / DONE).is_file():
        return
    split = read_split(config.data.name, config.data.root)
    here = processes.start(config.training.device)
    Trainer(config, split, folder, here, resume=(folder / LAST).is_file()).run()
    (folder / DONE).touch()


def judge(folder: Path, root: Path, baselines: bool) -> dict[str, Any]:
    """The test half, once; with the same weights through other windows too, if ``baselines``."""
    path = folder / "test.json"
    if not path.is_file():
        model, config, _ = load_model(folder / BEST)
        images, _ = half_of_data(config, "test", root)
        found = evaluate(
            model, images, windows=own_windows(config), baselines=baselines, amp=config.training.amp
        )
        checkpoint.save_json(found, path)
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


Cell = dict[str, float]


def spread(values: list[float]) -> Cell:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.mean(values), "std": deviation, "runs": len(values)}


def summarise(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Variant -> accuracy by scales, attention by scale, and both of other windows with its weights."""
    summary: dict[str, Any] = {}
    for variant, runs in results.items():
        others = {windows: [run["baselines"][windows] for run in runs] for windows in runs[0]["baselines"]}
        summary[variant] = over_seeds(runs)
        summary[variant]["same weights"] = {windows: over_seeds(found) for windows, found in others.items()}
    return summary


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
        (f"{windows}, weights of {variant}", found)
        for variant, values in summary.items()
        for windows, found in values["same weights"].items()
    ]
    return [*summary.items(), *others]


def names_of(summary: dict[str, Any]) -> list[str]:
    """Of scales and their fusions, as many as any variant has."""
    return max((list(values["top1"]) for values in summary.values()), key=len)


def percent(cell: Cell | None) -> str:
    if cell is None:
        return ""
    deviation = f" ± {100 * cell['std']:.1f}" if cell["runs"] > 1 else ""
    return f"{100 * cell['mean']:.1f}{deviation}"


def show(summary: dict[str, Any], console: Console) -> None:
    names = names_of(summary)
    table = Table("windows", *names, "IoU 2", title="test top-1 %, mean (± standard deviation) over seeds")
    for title, values in table_rows(summary):
        cells = [values["top1"].get(name) for name in names]
        cells.append(values["attention"].get("2", {}).get("iou"))
        table.add_row(title, *map(percent, cells))
    console.print(table)


def draw(summary: dict[str, Any], path: Path) -> None:
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


def main() -> None:
    arguments = parse_arguments()
    base = read_config(arguments.config, arguments.root)
    console = Console()
    # At the start: it takes a while, and files may change meanwhile.
    made_of = {"date": machine.now(), "git": machine.commit()}
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
    summary = summarise(results)
    config = base.to_dict()
    config["data"]["root"] = arguments.root.name
    report = {
        "command": machine.command(),
        **made_of,
        "cpu": machine.cpu_name(),
        "config": config,
        "variants": {name: VARIANTS[name] for name in arguments.variants},
        "seeds": arguments.seeds,
        "test_images": next(iter(results.values()))[0]["images"],
        "summary": summary,
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"{arguments.name}.json"
    checkpoint.save_json(report, path)
    draw(summary, path.with_suffix(".png"))
    show(summary, console)
    console.print(f"wrote {path} and {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()
