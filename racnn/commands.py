# SPDX-License-Identifier: BSD-3-Clause
"""The commands of ``python -m racnn``. Options come from YAML files (``--config``) and the command line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.progress import track
from rich.table import Table

from . import pictures
from .config import Config, DataConfig, ModelConfig, TrainingConfig
from .data import Images, read_split, read_square
from .evaluation import evaluate, tables
from .model import RACNN
from .output import fusion_name
from .training import checkpoint, processes
from .training.folder import HISTORY, LAST
from .training.trainer import Stopped, Trainer

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again, with --resume


def parser() -> ArgumentParser:
    train = ArgumentParser(description="Train a model; the test half of the data is not touched.")
    train.add_argument("--config", action="config", help="YAML file of the options below")
    train.add_class_arguments(DataConfig, "data")
    train.add_class_arguments(ModelConfig, "model")
    train.add_class_arguments(TrainingConfig, "training")
    train.add_argument("--output", type=Path, required=True, help="folder of the run")
    train.add_argument("--resume", type=bool, default=False, help="go on from the folder's last.pt")

    judge = ArgumentParser(description="Accuracy, attention and baselines of a checkpoint; JSON and a table.")
    _add_checkpoint(judge)
    judge.add_argument("--half", choices=["validation", "test"], default="test", help="of the data set")
    judge.add_argument("--baselines", type=bool, default=True, help="other windows with the same weights")
    judge.add_argument("--batch_size", type=int, default=32)
    judge.add_argument("--output", type=Path | None, default=None, help="JSON file")

    predict = ArgumentParser(description="Labels and windows of image files.")
    _add_checkpoint(predict)
    predict.add_argument("images", type=Path, nargs="+", help="image files")
    predict.add_argument("--top", type=int, default=3, help="labels an image")

    show = ArgumentParser(description="Pictures: what the model looked at.")
    _add_checkpoint(show)
    show.add_argument("--images", type=Path, nargs="*", default=[], help="a figure for each of these files")
    show.add_argument("--class_name", type=str | None, default=None, help="a contact sheet of this class")
    show.add_argument("--count", type=int, default=8, help="images on the contact sheet, and of the history")
    show.add_argument("--history", type=bool, default=False, help="how windows moved while training")
    show.add_argument("--output", type=Path, required=True, help="folder")

    main_parser = ArgumentParser(
        prog="python -m racnn", description="RA-CNN: train, evaluate, predict, show."
    )
    commands = main_parser.add_subcommands()
    for name, sub in (("train", train), ("evaluate", judge), ("predict", predict), ("visualize", show)):
        commands.add_subcommand(name, sub)
    return main_parser


def _add_checkpoint(sub: ArgumentParser) -> None:
    sub.add_argument("--checkpoint", type=Path, required=True, help="best.pt or last.pt of a run")
    sub.add_argument("--root", type=Path | None, default=None, help="folder of the data set, if it has moved")
    sub.add_argument("--device", type=str, default="auto")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit status; errors of the user are one line on stderr."""
    main_parser = parser()
    parsed = main_parser.parse_args(arguments)
    run = {"train": _train, "evaluate": _evaluate, "predict": _predict, "visualize": _visualize}
    chosen = parsed[parsed.subcommand]
    try:
        return run[parsed.subcommand](chosen, main_parser)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        errors = Console(stderr=True, soft_wrap=True)
        errors.print(f"error: {error}", style="red", highlight=False, markup=False)
        return 1


def _train(options: Namespace, main_parser: ArgumentParser) -> int:
    config = Config(
        DataConfig(**options.data.as_dict()),
        ModelConfig(**options.model.as_dict()),
        TrainingConfig(**options.training.as_dict()),
    ).check()
    here = processes.start(config.training.device)
    errors = Console(stderr=True, soft_wrap=True)
    try:
        split = read_split(config.data.name, config.data.root)
        trainer = Trainer(config, split, options.output, here, resume=options.resume)

        def stop(number: int, frame: Any) -> None:
            trainer.stop_requested = True
            signal.signal(number, signal.SIG_DFL)
            if here.is_first:
                with contextlib.suppress(OSError):  # print() cannot be called from a handler
                    os.write(2, b"stopping after this step; asked once more, it ends at once\n")

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        trainer.run()
    except Stopped:
        if here.is_first:
            errors.print(f"stopped; go on with --resume true --output {options.output}", highlight=False)
        return STOPPED
    except RuntimeError as error:
        if here.world == 1:
            raise
        message = f"error: process {here.rank} lost another one or failed itself: {error}".splitlines()[0]
        errors.print(message, style="red", highlight=False, markup=False)
        if (options.output / LAST).is_file():
            errors.print(f"go on with --resume true --output {options.output}", highlight=False)
        return 1
    finally:
        processes.finish()
    return 0


def load_model(path: Path, device: str = "auto") -> tuple[RACNN, Config, list[str]]:
    """The model of a checkpoint, its configuration and its classes.

    Raises:
        FileNotFoundError, ValueError: there is no such checkpoint.
    """
    place = processes.choose_device(device)
    state = checkpoint.load(path)
    config: Config = state["config"]
    classes: list[str] = state["classes"]
    with checkpoint.naming(path):
        model = config.model.build(len(classes), pretrained=False)
        checkpoint.load_weights(model, state["model"])
    if config.training.channels_last:
        model.to(memory_format=torch.channels_last)
    return model.to(place).eval(), config, classes


def own_windows(config: Config) -> str:
    """Where a model's windows come from: its APNs, unless it was trained without them."""
    return config.training.fixed_windows if config.training.schedule == "fixed" else "proposed"


def half_of_data(config: Config, half: str, root: Path | None) -> tuple[Images, tuple[str, ...]]:
    from .data import hold_out

    split = read_split(config.data.name, root or config.data.root)
    records = split.test
    if half == "validation":
        records = hold_out(split.train, config.data.validation, config.training.seed)[1]
    return Images(records, config.data.image_side, config.data.fit), split.classes


def _evaluate(options: Namespace, main_parser: ArgumentParser) -> int:
    model, config, classes = load_model(options.checkpoint, options.device)
    images, names = half_of_data(config, options.half, options.root)
    if list(names) != classes:
        raise ValueError(
            f"--checkpoint was trained on other classes ({len(classes)}) than {config.data.name} has here "
            f"({len(names)})"
        )
    console = Console()
    source = own_windows(config)
    with console.status(f"looking at {len(images)} images"):
        result = evaluate(
            model,
            images,
            windows=source,
            baselines=options.baselines,
            batch_size=options.batch_size,
            workers=config.data.workers,
            amp=config.training.amp,
        )
    result |= {"half": options.half, "config": config.to_dict(), "checkpoint": str(options.checkpoint)}
    for table in tables(result):
        console.print(table)
    unreadable = len(result["unreadable"])
    console.print(f"{result['images_per_second']:.1f} images/s, {unreadable} unreadable images")
    if options.output is not None:
        checkpoint.save_json(result, options.output)
        console.print(f"wrote {options.output}")
    return 0


@torch.no_grad()
def _predict(options: Namespace, main_parser: ArgumentParser) -> int:
    model, config, classes = load_model(options.checkpoint, options.device)
    best = fusion_name(len(model.sizes))
    table = Table("image", f"labels (scales {best})", "windows: left, top, right, bottom in pixels")
    for path in track(options.images, "looking", transient=True):
        pixels, placement = read_square(path, config.data.image_side, config.data.fit)
        output = model(pixels.unsqueeze(0).to(model.mean.device), own_windows(config))
        labels = pictures.top_labels(output.by_name()[best][0], classes, options.top)
        windows = [
            ", ".join(f"{v:.0f}" for v in placement.to_file(pictures.corners_of(w)))
            for scale in output.windows
            for w in scale[0]
        ]
        table.add_row(str(path), "\n".join(labels), "\n".join(windows))
    Console().print(table)
    return 0


def _visualize(options: Namespace, main_parser: ArgumentParser) -> int:
    if not (options.images or options.class_name or options.history):
        raise ValueError("visualize needs --images, --class_name or --history true")
    model, config, classes = load_model(options.checkpoint, options.device)
    source, written = own_windows(config), []
    for path in options.images:
        pixels, _ = read_square(path, config.data.image_side, config.data.fit)
        written.append(options.output / f"{path.stem}.png")
        pictures.draw_image(model, pixels, source, classes, written[-1])
    if options.class_name is not None:
        if options.class_name not in classes:
            raise ValueError(f"--class_name must be one of {', '.join(classes)}; got {options.class_name!r}")
        images, _ = half_of_data(config, "test", options.root)
        label = classes.index(options.class_name)
        chosen = [n for n, record in enumerate(images.records) if record.label == label][: options.count]
        written.append(options.output / f"{options.class_name}.png")
        pictures.draw_contact_sheet(
            model, [images[n].image for n in chosen], source, classes, label, written[-1]
        )
    if options.history:
        history = json.loads((options.checkpoint.parent / HISTORY).read_text(encoding="utf-8"))
        images, _ = half_of_data(config, "validation", options.root)
        count = min(options.count, config.training.track, len(images))
        for suffix in ("png", "gif"):
            written.append(options.output / f"windows.{suffix}")
            pictures.draw_history(history, [images[n].image for n in range(count)], written[-1])
    for path in written:
        Console(soft_wrap=True).print(f"wrote {path}", highlight=False)
    return 0
