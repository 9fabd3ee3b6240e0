# SPDX-License-Identifier: BSD-3-Clause
"""The commands of ``python -m racnn``: arguments of a function are its options, its docstring is the help.

Options come from YAML files (``--config``) and the command line.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ArgumentParser, auto_cli
from jsonargparse.typing import NonNegativeInt, PositiveInt
from rich.console import Console
from rich.progress import track
from rich.text import Text

from . import evaluation, pictures, prediction
from .config import Config, DataConfig, ModelConfig, TrainingConfig
from .data import read_split, read_square
from .export import export as export_file
from .export import writer_of
from .loading import half_of_data, load_model, load_run
from .model import RACNN
from .output import printable
from .targets import check_new, check_result, figure_files
from .training import processes
from .training.checkpoint import save_json
from .training.folder import HISTORY, LAST, TRACKED
from .training.trainer import Stopped, Trainer

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again, with --resume


class Parser(ArgumentParser):
    """Takes files as they are, and lists of them word by word. jsonargparse would read each as YAML, which a
    name that is not UTF-8 cannot be, and a list as one word."""

    def add_function_arguments(self, function: Callable[..., Any], **options: Any) -> list[str]:  # type: ignore[override]
        texts = {p.arg_name: p.description for p in docstring_parser.parse(function.__doc__ or "").params}
        files: set[str | int] = set()
        types = get_type_hints(function)
        for name, parameter in inspect.signature(function).parameters.items():
            if Path not in (types[name], *get_args(types[name])):
                continue
            files.add(name)
            how: dict[str, Any] = {"nargs": "*"} if get_origin(types[name]) is list else {}
            if parameter.kind is parameter.KEYWORD_ONLY:
                required = parameter.default is parameter.empty
                how |= {"required": True} if required else {"default": parameter.default}
                name = f"--{name}"
            self.add_argument(name, type=_as_it_is, help=texts[name.lstrip("-")], **how)
        return super().add_function_arguments(function, skip=files, **options)


def _as_it_is(text: str) -> Path:
    return Path(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit status; errors of the user are one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal cannot show ends nothing
    try:
        status: int | None = auto_cli(
            [train, evaluate, predict, visualize, export],
            args=None if arguments is None else list(arguments),
            parser_class=Parser,
            prog="python -m racnn",
            description="RA-CNN: train, evaluate, predict, show, export.",
        )
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        _complain(error)
        return 1
    except KeyboardInterrupt:  # kept, it would keep the processes that read images
        return 128 + signal.SIGINT
    return status or 0


def _complain(error: Exception) -> None:
    line = printable(" ".join(str(error).split()) or type(error).__name__)
    Console(stderr=True, soft_wrap=True).print(Text(f"error: {line}", style="red"))


def train(
    *, data: DataConfig, model: ModelConfig, training: TrainingConfig, output: Path, resume: bool = False
) -> int:
    """Train a model; the test half of the data is not touched.

    Args:
        data: what to learn from.
        model: what learns.
        training: how to learn.
        output: folder of the run.
        resume: go on from the folder's last.pt.
    """
    config = Config(data, model, training).check()
    here = processes.start(config.training.device)
    errors = Console(stderr=True, soft_wrap=True)
    try:
        split = read_split(config.data.name, config.data.root)
        trainer = Trainer(config, split, output, here, resume=resume)

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
            errors.print(f"stopped; go on with --resume true --output {output}", highlight=False)
        return STOPPED
    except RuntimeError as error:
        if here.world == 1:
            raise
        message = f"error: process {here.rank} lost another one or failed itself: {error}".splitlines()[0]
        errors.print(message, style="red", highlight=False, markup=False)
        if (output / LAST).is_file():
            errors.print(f"go on with --resume true --output {output}", highlight=False)
        return 1
    finally:
        processes.finish()
    return 0


def evaluate(
    *,
    checkpoint: Path,
    root: Path | None = None,
    device: str = "auto",
    half: Literal["validation", "test"] = "test",
    baselines: bool = True,
    batch_size: PositiveInt = 32,
    output: Path | None = None,
) -> None:
    """Accuracy, attention and baselines of a checkpoint; JSON and a table.

    Args:
        checkpoint: best.pt or last.pt of a run.
        root: folder of the data set, if it has moved.
        device: such as cpu or cuda.
        half: of the data set.
        baselines: other windows with the same weights.
        batch_size: images at a time.
        output: JSON file: a new one, or an earlier result.
    """
    if output is not None:
        check_result(output)
    model, config = load_run(checkpoint, device)
    images, names = half_of_data(config, half, root)
    if list(names) != list(model.usage.classes):
        raise ValueError(
            f"--checkpoint was trained on other classes ({model.num_classes}) than {config.data.name} has "
            f"here ({len(names)})"
        )
    console = Console()
    with console.status(f"looking at {len(images)} images"):
        result = evaluation.evaluate(
            model,
            images,
            window_source=model.usage.window_source,
            baselines=baselines,
            batch_size=batch_size,
            workers=config.data.workers,
            amp=config.training.amp,
        )
    result |= {"half": half, "config": config.to_dict(), "checkpoint": str(checkpoint)}
    try:
        if output is not None:
            save_json(result, output)
    finally:  # neither a full disk nor a closed terminal loses it
        for table in evaluation.tables(result):
            console.print(table)
    print(f"{result['images_per_second']:.1f} images/s, {len(result['unreadable'])} unreadable images")
    if output is not None:
        print(f"wrote {printable(output)}")


def predict(
    images: list[Path],
    *,
    checkpoint: Path,
    list: Path | None = None,
    output: Path | None = None,
    top: PositiveInt = 3,
    batch_size: PositiveInt = 32,
    workers: NonNegativeInt = 0,
    device: str = "auto",
) -> int:
    """Labels and windows of images.

    Args:
        images: image files, and folders with such files in them, at any depth.
        checkpoint: best.pt or last.pt of a run, or a model's folder.
        list: text file that names more of both, one a line.
        output: NAME.json or NAME.csv in place of the table: a new file, or an earlier result.
        top: labels an image.
        batch_size: images at a time.
        workers: processes that read images.
        device: such as cpu or cuda.
    """
    if output is not None:
        save = prediction.writer_of(output)
        check_result(output)
    files = prediction.find_images(images, list)
    model = load_model(checkpoint, device)
    found = prediction.predict(
        model, files, top=top, batch_size=batch_size, workers=workers, unreadable=_complain
    )
    results = [*track(found, "looking", total=len(files), transient=True)]
    if output is not None:
        save(output, results, model, checkpoint)
        print(f"wrote {printable(output)}")
    elif results:
        Console().print(prediction.table(results, len(model.sizes)))
    return 0 if len(results) == len(files) else 1


def visualize(
    *,
    checkpoint: Path,
    root: Path | None = None,
    device: str = "auto",
    images: list[Path] = [],  # noqa: B006 it is only read
    heat: bool = False,
    class_name: str | None = None,
    count: PositiveInt = 8,
    history: bool = False,
    output: Path,
) -> int:
    """Pictures: what the model looked at.

    Args:
        checkpoint: best.pt or last.pt of a run, or a model's folder.
        root: folder of the data set, if it has moved.
        device: such as cpu or cuda.
        images: a figure for each of these files.
        heat: in these figures, where each scale sees its class.
        class_name: a contact sheet of this class.
        count: images on the contact sheet, and of the history.
        history: how windows moved while training.
        output: folder.
    """
    if not (images or class_name is not None or history):
        raise ValueError("visualize needs --images, --class_name or --history true")
    if class_name is not None or history:
        model, config = load_run(checkpoint, device)
    else:
        model = load_model(checkpoint, device)
    figures = [_image_figure(path, model, heat) for path in images]
    if class_name is not None:
        figures.append(_class_figure(class_name, count, model, config, root))
    if history:
        figures += _history_figures(checkpoint.parent / HISTORY, count, config, root)
    inputs = [checkpoint, *(path for figure in figures for path in figure.inputs)]
    files = figure_files(output, [figure.name for figure in figures], inputs)
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


def export(checkpoint: Path, *, to: Path, device: str = "cpu") -> None:
    """The whole model as one file for other programs, or as a folder.

    Args:
        checkpoint: best.pt or last.pt of a run, or a model's folder.
        to: NAME.pt2: torch.export; NAME.aten.pt2: the same without racnn_ops; NAME.aoti.pt2: compiled by
            AOTInductor, takes minutes; NAME.onnx; NAME: a folder for RACNN.from_pretrained.
        device: where a .pt2 will run.
    """
    if to.suffix:
        writer_of(to)
    check_new(to)
    model = load_model(checkpoint, device)
    if to.suffix:
        export_file(model, to)
    else:
        model.save_pretrained(to)
    print(f"wrote {printable(to)}")


class Figure(NamedTuple):
    """A file to be written, and what is read for it."""

    name: str
    inputs: Sequence[Path]
    draw: Callable[[Path], None]


def _image_figure(path: Path, model: RACNN, heat: bool) -> Figure:
    def draw(file: Path) -> None:
        pixels, _ = read_square(path, model.usage.image_side)
        pictures.draw_image(model, pixels, file, heat=heat)

    return Figure(f"{path.stem}.windows.png", [path], draw)


def _class_figure(name: str, count: int, model: RACNN, config: Config, root: Path | None) -> Figure:
    classes = model.usage.classes
    if name not in classes:
        raise ValueError(f"--class_name must be one of {', '.join(classes)}; got {name!r}")
    images, names = half_of_data(config, "test", root)
    chosen = [record for record in images.records if names[record.label] == name][:count]

    def draw(file: Path) -> None:
        readable = []
        for record in chosen:
            try:
                readable.append(read_square(record.path, images.side)[0])
            except OSError as error:
                print(f"left out: {printable(str(error))}")
        pictures.draw_contact_sheet(model, readable, classes.index(name), file)

    return Figure(f"{name}.png", [record.path for record in images.records], draw)


def _history_figures(path: Path, most: int, config: Config, root: Path | None) -> list[Figure]:
    images, _ = half_of_data(config, "validation", root)
    count = min(most, TRACKED, len(images))
    history = pictures.read_history(path, count)

    def draw(file: Path) -> None:
        pictures.draw_history(history, [images[n].image for n in range(count)], file)

    inputs = [path, *(record.path for record in images.records)]
    return [Figure(f"windows.{suffix}", inputs, draw) for suffix in ("png", "gif")]
