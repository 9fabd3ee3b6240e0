# SPDX-License-Identifier: BSD-3-Clause
"""The commands of ``python -m racnn``. Options come from YAML files (``--config``) and the command line."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from . import pictures
from .config import Config, DataConfig, ModelConfig, TrainingConfig
from .data import Images, read_split, read_square
from .evaluation import evaluate, tables
from .export import export, writer_of
from .model import RACNN
from .output import fusion_name, printable
from .pretrained import CONFIG, Usage
from .targets import check_new, check_result, figure_files
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
    train.add_argument("--output", type=_path, required=True, help="folder of the run")
    train.add_argument("--resume", type=bool, default=False, help="go on from the folder's last.pt")

    judge = ArgumentParser(description="Accuracy, attention and baselines of a checkpoint; JSON and a table.")
    _add_checkpoint(judge)
    judge.add_argument("--half", choices=["validation", "test"], default="test", help="of the data set")
    judge.add_argument("--baselines", type=bool, default=True, help="other windows with the same weights")
    judge.add_argument("--batch_size", type=PositiveInt, default=32)
    judge.add_argument(
        "--output", type=_path, default=None, help="JSON file: a new one, or an earlier result"
    )

    predict = ArgumentParser(description="Labels and windows of image files.")
    _add_checkpoint(predict)
    predict.add_argument("images", type=_path, nargs="+", help="image files")
    predict.add_argument("--top", type=PositiveInt, default=3, help="labels an image")

    show = ArgumentParser(description="Pictures: what the model looked at.")
    _add_checkpoint(show)
    show.add_argument("--images", type=_path, nargs="*", default=[], help="a figure for each of these files")
    show.add_argument("--class_name", type=str, default=None, help="a contact sheet of this class")
    show.add_argument(
        "--count", type=PositiveInt, default=8, help="images on the contact sheet, and of the history"
    )
    show.add_argument("--history", type=bool, default=False, help="how windows moved while training")
    show.add_argument("--output", type=_path, required=True, help="folder")

    keep = ArgumentParser(description="The whole model as one file for other programs, or as a folder.")
    keep.add_argument("checkpoint", type=_path, help="best.pt or last.pt of a run, or a model's folder")
    keep.add_argument(
        "--to",
        type=_path,
        required=True,
        help="NAME.pt2: torch.export; NAME.aoti.pt2: compiled by AOTInductor, takes minutes; NAME.onnx; "
        "NAME: a folder for RACNN.from_pretrained",
    )
    keep.add_argument("--device", type=str, default="cpu", help="where a .pt2 will run")

    main_parser = ArgumentParser(
        prog="python -m racnn", description="RA-CNN: train, evaluate, predict, show, export."
    )
    commands = main_parser.add_subcommands()
    for name, sub in (
        ("train", train),
        ("evaluate", judge),
        ("predict", predict),
        ("visualize", show),
        ("export", keep),
    ):
        commands.add_subcommand(name, sub)
    return main_parser


def _add_checkpoint(sub: ArgumentParser) -> None:
    sub.add_argument(
        "--checkpoint", type=_path, required=True, help="best.pt or last.pt of a run, or a model's folder"
    )
    sub.add_argument("--root", type=_path, default=None, help="folder of the data set, if it has moved")
    sub.add_argument("--device", type=str, default="auto")


def _path(text: str) -> Path:
    """An option of type Path is read as YAML first, which names that are not UTF-8 cannot be."""
    return Path(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit status; errors of the user are one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal cannot show ends nothing
    main_parser = parser()
    parsed = main_parser.parse_args(arguments)
    run = {
        "train": _train,
        "evaluate": _evaluate,
        "predict": _predict,
        "visualize": _visualize,
        "export": _export,
    }
    chosen = parsed[parsed.subcommand]
    try:
        return run[parsed.subcommand](chosen, main_parser)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        _complain(error)
        return 1


def _complain(error: Exception) -> None:
    line = printable(" ".join(str(error).split()) or type(error).__name__)
    Console(stderr=True, soft_wrap=True).print(Text(f"error: {line}", style="red"))


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
    """The model of a checkpoint or of a folder, its configuration and its classes.

    A folder knows no data set, and of the configuration only what its images are and where windows come from.

    Raises:
        FileNotFoundError, ValueError: there is no such checkpoint.
    """
    place = processes.choose_device(device)
    if (path / CONFIG).exists():
        return _load_folder(path, place)
    state = checkpoint.load(path)
    config: Config = state["config"]
    classes: list[str] = state["classes"]
    with checkpoint.naming(path):
        model = config.model.build(len(classes), pretrained=False)
        checkpoint.load_weights(model, state["model"])
        model.usage = Usage(config.data.image_side, classes, own_windows(config)).check(len(classes))
    if config.training.channels_last:
        model.to(memory_format=torch.channels_last)
    return model.to(place).eval(), config, classes


def _load_folder(path: Path, place: torch.device) -> tuple[RACNN, Config, list[str]]:
    model = RACNN.from_pretrained(path).to(place)
    side, classes, windows = model.usage.image_side, model.usage.classes, model.usage.windows
    config = Config(DataConfig(image_side=side))
    if windows != "proposed":
        config.training.schedule, config.training.fixed_windows = "fixed", windows  # type: ignore[assignment]
    return model, config, list(classes) or [f"class {n}" for n in range(model.num_classes)]


def _needs_data(path: Path) -> None:
    if path.is_dir():
        raise ValueError(f"--checkpoint must be one of a run: {printable(path)!r} knows no data set")


def own_windows(config: Config) -> str:
    """Where a model's windows come from: its APNs, unless it was trained without them."""
    return config.training.fixed_windows if config.training.schedule == "fixed" else "proposed"


def half_of_data(config: Config, half: str, root: Path | None) -> tuple[Images, tuple[str, ...]]:
    from .data import hold_out

    split = read_split(config.data.name, root or config.data.root)
    records = split.test
    if half == "validation":
        records = hold_out(split.train, config.data.validation, config.training.seed)[1]
    return Images(records, config.data.image_side), split.classes


def _evaluate(options: Namespace, main_parser: ArgumentParser) -> int:
    _needs_data(options.checkpoint)
    if options.output is not None:
        check_result(options.output)
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
    try:
        if options.output is not None:
            checkpoint.save_json(result, options.output)
    finally:  # neither a full disk nor a closed terminal loses it
        for table in tables(result):
            console.print(table)
    print(f"{result['images_per_second']:.1f} images/s, {len(result['unreadable'])} unreadable images")
    if options.output is not None:
        print(f"wrote {printable(options.output)}")
    return 0


@torch.no_grad()
def _predict(options: Namespace, main_parser: ArgumentParser) -> int:
    model, config, classes = load_model(options.checkpoint, options.device)
    best = fusion_name(len(model.sizes))
    table = Table(
        "image", f"labels (scales {best})", "windows: left, top, right, bottom in the file's pixels"
    )
    for path in track(options.images, "looking", transient=True):
        try:
            pixels, placement = read_square(path, config.data.image_side)
        except OSError as error:
            _complain(error)
            continue
        output = model(pixels.unsqueeze(0).to(model.mean.device), own_windows(config))
        labels = pictures.top_labels(output.by_name()[best][0], classes, options.top)
        windows = [
            ", ".join(f"{v:.0f}" for v in placement.to_file(pictures.corners_of(w)))
            for scale in output.windows
            for w in scale[0]
        ]
        table.add_row(Text(printable(path)), Text("\n".join(labels)), "\n".join(windows))
    if table.row_count:
        Console().print(table)
    return 0 if table.row_count == len(options.images) else 1


def _export(options: Namespace, main_parser: ArgumentParser) -> int:
    target: Path = options.to
    if target.suffix:
        writer_of(target)
    check_new(target)
    model, _, _ = load_model(options.checkpoint, options.device)
    if target.suffix:
        export(model, target)
    else:
        model.save_pretrained(target)
    print(f"wrote {printable(target)}")
    return 0


class Figure(NamedTuple):
    """A file to be written, and what is read for it."""

    name: str
    inputs: Sequence[Path]
    draw: Callable[[Path], None]


def _visualize(options: Namespace, main_parser: ArgumentParser) -> int:
    if not (options.images or options.class_name is not None or options.history):
        raise ValueError("visualize needs --images, --class_name or --history true")
    if options.class_name is not None or options.history:
        _needs_data(options.checkpoint)
    model, config, classes = load_model(options.checkpoint, options.device)
    figures = [_image_figure(path, model, config, classes) for path in options.images]
    if options.class_name is not None:
        figures.append(_class_figure(options, model, config, classes))
    if options.history:
        figures += _history_figures(options, config)
    inputs = [options.checkpoint, *(path for figure in figures for path in figure.inputs)]
    files = figure_files(options.output, [figure.name for figure in figures], inputs)
    failed = 0
    for figure, file in zip(figures, files, strict=True):
        try:
            figure.draw(file)
        except (OSError, ValueError) as error:
            failed += 1
            _complain(error)
        else:
            print(f"wrote {printable(file)}")
    return 1 if failed else 0


def _image_figure(path: Path, model: RACNN, config: Config, classes: list[str]) -> Figure:
    def draw(file: Path) -> None:
        pixels, _ = read_square(path, config.data.image_side)
        pictures.draw_image(model, pixels, own_windows(config), classes, file)

    return Figure(f"{path.stem}.windows.png", [path], draw)


def _class_figure(options: Namespace, model: RACNN, config: Config, classes: list[str]) -> Figure:
    name = options.class_name
    if name not in classes:
        raise ValueError(f"--class_name must be one of {', '.join(classes)}; got {name!r}")
    images, names = half_of_data(config, "test", options.root)
    label = classes.index(name)
    chosen = [record for record in images.records if names[record.label] == name][: options.count]

    def draw(file: Path) -> None:
        readable = []
        for record in chosen:
            try:
                readable.append(read_square(record.path, images.side)[0])
            except OSError as error:
                print(f"left out: {printable(str(error))}")
        pictures.draw_contact_sheet(model, readable, own_windows(config), classes, label, file)

    return Figure(f"{name}.png", [record.path for record in images.records], draw)


def _history_figures(options: Namespace, config: Config) -> list[Figure]:
    images, _ = half_of_data(config, "validation", options.root)
    path = options.checkpoint.parent / HISTORY
    count = min(options.count, config.training.track, len(images))
    history = pictures.read_history(path, count)

    def draw(file: Path) -> None:
        pictures.draw_history(history, [images[n].image for n in range(count)], file)

    inputs = [path, *(record.path for record in images.records)]
    return [Figure(f"windows.{suffix}", inputs, draw) for suffix in ("png", "gif")]
