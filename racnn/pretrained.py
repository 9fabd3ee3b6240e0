# SPDX-License-Identifier: BSD-3-Clause
"""A model as a folder: ``config.json``, from which it can be built and used, and ``model.safetensors``."""

from __future__ import annotations

import hashlib
import inspect
import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .output import printable
from .targets import check_new, written_whole
from .windows import check_source

if TYPE_CHECKING:
    from .model import RACNN

LARGEST_SIDE = 8192
"""Of images, in pixels: beyond it a number is a mistake, or damage that would take all memory."""
VERSION = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
KEYS = {"version", "arguments", "classes", "window_source", "preprocessing", "sha256"}


@dataclass(frozen=True)
class Usage:
    """How a trained model is used: what its weights do not say.

    Attributes:
        image_side: of the square images that it was trained on, in pixels.
        classes: a list or tuple of their names, in the order of the logits; empty: unknown.
        window_source: where its windows come from, see :meth:`racnn.RACNN.forward`.
    """

    image_side: int
    classes: Sequence[str] = ()
    window_source: str = "proposed"

    def names(self, num_classes: int) -> Sequence[str]:
        """Of the classes, made up where they are unknown."""
        return self.classes or [f"class {n}" for n in range(num_classes)]

    def check(self, num_classes: int) -> Usage:
        side = self.image_side
        if type(side) is not int or not 8 <= side <= LARGEST_SIDE:
            raise ValueError(f"image_side must be a whole number from 8 to {LARGEST_SIDE}, got {side!r}")
        if not isinstance(self.classes, (list, tuple)) or not all(
            isinstance(name, str) for name in self.classes
        ):
            raise ValueError(f"classes must be names, got {self.classes!r}")
        if len(self.classes) not in (0, num_classes):
            raise ValueError(f"classes must be {num_classes} names or none, got {len(self.classes)}")
        check_source(self.window_source)
        return self


def save(model: RACNN, folder: Path) -> None:
    """Writes the whole folder, or nothing. :meth:`racnn.RACNN.save_pretrained` documents it."""
    safetensors = _safetensors()
    check_new(folder)
    usage = model.usage.check(model.num_classes)
    backbone = model.arguments["backbone"]
    if not isinstance(backbone, str):
        raise ValueError(f"backbone must be a name for the model to be saved, got {backbone!r}")
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    if broken := _not_finite(state):
        raise ValueError(f"the weights must be finite for the model to be saved, {broken} is not")
    weights = safetensors.save(state)
    config: dict[str, Any] = {
        "version": VERSION,
        "arguments": dict(model.arguments),
        "classes": list(usage.classes),
        "window_source": usage.window_source,
        "preprocessing": {"image_side": usage.image_side} | _normalisation(model),
        "sha256": hashlib.sha256(weights).hexdigest(),  # safetensors has no checksum of its own
    }
    del config["arguments"]["weights"]
    with written_whole(folder) as temporary:
        temporary.mkdir()
        (temporary / WEIGHTS).write_bytes(weights)
        (temporary / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def load(kind: type[RACNN], folder: Path) -> RACNN:
    """:meth:`racnn.RACNN.from_pretrained` documents it."""
    safetensors = _safetensors()
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{printable(folder)!r} is no folder of a model: it lacks {name}")
    try:
        return _load(kind, folder, safetensors)
    except OSError:
        raise
    except Exception as error:  # whatever a foreign value leads to
        why = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        why = textwrap.shorten(why, 250, placeholder=" ...")
        raise ValueError(f"the model {printable(folder)!r} cannot be used: {printable(why)}") from error


def _load(kind: type[RACNN], folder: Path, safetensors: Any) -> RACNN:
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if not isinstance(config, dict) or config.keys() != KEYS or config["version"] != VERSION:
        raise ValueError(f"{CONFIG} must hold {', '.join(sorted(KEYS))} of version {VERSION}")
    arguments, preprocessing = config["arguments"], config["preprocessing"]
    _check_keys("arguments", arguments, inspect.signature(kind).parameters.keys() - {"weights"})
    _check_keys("preprocessing", preprocessing, {"image_side", "mean", "std"})
    weights = (folder / WEIGHTS).read_bytes()
    if config["sha256"] != hashlib.sha256(weights).hexdigest():
        raise ValueError(f"{WEIGHTS} is damaged, or was not saved together with {CONFIG}")
    if not isinstance(arguments["backbone"], str):
        raise ValueError(f"backbone must be a name, got {arguments['backbone']!r}")
    state = safetensors.load(weights)
    if broken := _not_finite(state):
        raise ValueError(f"{broken} is not finite")
    if f"scales.{arguments['scales'] - 1}.classifier.bias" not in state:  # before any number of them is built
        raise ValueError(f"{WEIGHTS} does not hold {arguments['scales']!r} scales")
    model = kind(**arguments, weights=None)
    model.usage = Usage(preprocessing["image_side"], config["classes"], config["window_source"])
    model.usage.check(model.num_classes)
    if preprocessing != preprocessing | _normalisation(model):
        raise ValueError(f"the backbone's mean and std are {_normalisation(model)} in this version")
    model.load_state_dict(state)
    return model.eval()


def _normalisation(model: RACNN) -> dict[str, list[float]]:
    """Of pixels in [0, 1], as JSON holds it."""
    return {name: list(model.statistics[name]) for name in ("mean", "std")}


def _check_keys(what: str, values: Any, expected: set[str]) -> None:
    if not isinstance(values, dict):
        raise ValueError(f"{what} must map names to values, got {values!r}")
    for name in sorted(expected ^ values.keys()):
        state = "unknown" if name in values else "missing"
        raise ValueError(f"{what}.{name} is {state}: another version has written it")


def _not_finite(weights: dict[str, Tensor]) -> str | None:
    return next((name for name, value in weights.items() if not value.isfinite().all()), None)


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError("models in folders need: pip install 'racnn-ops[racnn]' (safetensors)") from error
    return safetensors.torch
