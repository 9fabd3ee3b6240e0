# SPDX-License-Identifier: BSD-3-Clause
"""Random crops of a batch, a window of its own for every image: drawing and cutting, timed together.

Windows are drawn anew in every call. Before it is timed, each contestant is compared with the reference at
the windows that it draws itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from racnn_ops import reference
from racnn_ops.boxes import windows_from_boxes
from racnn_ops.transforms import RandomResizedCrop
from record.section import table

from .cases import Case
from .comparison import Collector
from .filter_comparison import LEVELS, THEIR_LEVELS, greatest
from .results import Record, Results, times_ours
from .timing import Call, calls_of_a_sample, interleaved, sampler
from .validation import TOLERANCE, WrongResult, relative_error

Transform = Any
NAME = "augmentation"
DTYPES = ("uint8", "float32")


@dataclass(frozen=True)
class AugmentationCase:
    """Square images and crops."""

    batch: int
    image: int
    crop: int
    dtype: str

    @property
    def label(self) -> str:
        return f"{self.batch}x3x{self.image}² → {self.crop}², {self.dtype}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"label": self.label}


def augmentation_cases(main: Case, quick: bool) -> list[AugmentationCase]:
    """A batch as for training; quick: of float32, in which all take part."""
    dtypes = DTYPES[-1:] if quick else DTYPES
    return [AugmentationCase(4 * main.batch, main.image, main.crop, dtype) for dtype in dtypes]


@dataclass(frozen=True)
class Augmentation:
    """Who crops at random, in his usual form.

    Attributes:
        make: the transform, of the side of crops.
        call: crops of a batch by the transform.
        windows: what ``call`` draws after the same seed, (B, 4).
        antialias: whether its crops are antialiased; then they are those of ``resized_crop``.
        measure: which of ours it is measured by, the one of the same filter. None: it is ours.
    """

    name: str
    make: Callable[[int], Transform]
    call: Callable[[Transform, Tensor], Tensor]
    windows: Callable[[Transform, Tensor], Tensor]
    antialias: bool
    measure: str | None
    dtypes: tuple[str, ...] = DTYPES
    needs: str = "torch"

    @property
    def is_installed(self) -> bool:
        return find_spec(self.needs) is not None


def _torchvision(side: int) -> Transform:
    from torchvision.transforms import v2

    return v2.RandomResizedCrop(side, antialias=True)


def _image_by_image(transform: Transform, images: Tensor) -> Tensor:
    return torch.stack([transform(image) for image in images])


def _torchvision_windows(transform: Transform, images: Tensor) -> Tensor:
    drawn = [transform.make_params([image]) for image in images]
    cuts = [[cut[name] for name in ("left", "top", "width", "height")] for cut in drawn]
    return windows_from_boxes(torch.tensor(cuts), "xywh")


def _kornia(side: int) -> Transform:
    """By slices, which are its quicker way; the edges of windows are those of crops, as everyone else's."""
    from kornia.augmentation import RandomResizedCrop

    return RandomResizedCrop((side, side), align_corners=False)


def _kornia_windows(transform: Transform, images: Tensor) -> Tensor:
    corners = transform.forward_parameters(images.shape)["src"]  # the first and the last pixel
    return windows_from_boxes(torch.cat((corners[:, 0], corners[:, 2] + 1), 1))


def _batch(transform: Transform, images: Tensor) -> Tensor:
    crops: Tensor = transform(images)
    return crops


def _our_windows(transform: Transform, images: Tensor) -> Tensor:
    windows: Tensor = transform.windows(len(images), *images.shape[2:], device=images.device)[0]
    return windows


OURS = Augmentation("racnn_ops", RandomResizedCrop, _batch, _our_windows, antialias=True, measure=None)
OURS_SAMPLED = Augmentation(
    "racnn_ops, not antialiased",
    partial(RandomResizedCrop, antialias=False),
    _batch,
    _our_windows,
    antialias=False,
    measure=None,
)
TORCHVISION = Augmentation(
    "torchvision v2, image by image",
    _torchvision,
    _image_by_image,
    _torchvision_windows,
    antialias=True,
    measure=OURS.name,
    needs="torchvision",
)
KORNIA = Augmentation(
    "kornia, not antialiased",
    _kornia,
    _batch,
    _kornia_windows,
    antialias=False,
    measure=OURS_SAMPLED.name,
    dtypes=("float32",),
    needs="kornia",
)
ALL = (OURS, OURS_SAMPLED, TORCHVISION, KORNIA)


class AugmentationComparison(Collector):
    """Collects the records of ``augmentation`` and ``refused``."""

    def run(self, case: AugmentationCase, contestants: Sequence[Augmentation], rounds: int) -> None:
        size = (case.image, case.image)
        images = self.source(case.batch, 3, size, torch.Generator().manual_seed(0)).to(self.device)
        if case.dtype == "uint8":
            images = (images * 255).round().to(torch.uint8)
        calls: dict[Augmentation, Sequence[Call]] = {}
        errors: dict[Augmentation, float] = {}
        for contestant in contestants:
            if case.dtype not in contestant.dtypes:
                continue
            transform = contestant.make(case.crop)
            try:
                errors[contestant] = check(contestant, transform, images, case)
            except Exception as error:  # whatever it is, another's failure must not end the run
                if contestant.measure is None:
                    raise
                self.refuse(contestant.name, case.to_json(), "forward", error)
            else:
                call = partial(contestant.call, transform, images)
                calls[contestant] = calls_of_a_sample([call], self.device)
        measured = interleaved(calls, rounds, sampler(self.device), after_round=self.tick)
        for contestant, times in measured.items():
            self.times.append(
                {
                    "case": case.to_json(),
                    "contestant": contestant.name,
                    "measure": contestant.measure,
                    "errors": {"crops": errors[contestant]},
                    **times._asdict(),
                }
            )


def check(contestant: Augmentation, transform: Transform, images: Tensor, case: AugmentationCase) -> float:
    """The error of its crops; raises WrongResult."""
    torch.manual_seed(0)
    crops = contestant.call(transform, images)
    torch.manual_seed(0)
    windows = contestant.windows(transform, images).to(images.device, torch.float64)
    if len(windows.unique(dim=0)) < min(case.batch, 2):
        raise WrongResult("one window for all images")
    options = {"boundary": "window", "antialias": contestant.antialias}
    expected = reference.attention_crop(images.double(), windows, case.crop, **options)
    if case.dtype == "uint8":
        error, allowed = greatest(crops, expected), LEVELS if contestant.measure is None else THEIR_LEVELS
    else:
        error, allowed = relative_error("crops", crops, expected), TOLERANCE[case.dtype]
    if not error <= allowed:
        raise WrongResult(f"crops differ by {error:.2g}; {allowed:.2g} is allowed")
    return error


CAPTION = """\
Random crops: `RandomResizedCrop`, a window of its own for every image, drawn anew in every call; in brackets:
times ours of the same filter. kornia's has no antialiasing and no uint8."""


def augmentation_table(data: Record) -> str:
    """Of ``data["augmentation"]``; "" where there is nothing."""
    results = Results({NAME: []} | data)
    records = {(r["case"]["label"], r["contestant"]): r for r in results.find(NAME)}
    labels = list(dict.fromkeys(label for label, _ in records))
    if not labels:
        return ""
    names = list(dict.fromkeys(name for _, name in records))
    rows = [[label, *(_cell(records, label, name) for name in names)] for label in labels]
    return f"{CAPTION}\n\n{table(['', *names], rows)}"


def _cell(records: dict[tuple[str, str], Record], label: str, name: str) -> str:
    record = records.get((label, name))
    if record is None:
        return ""
    time = f"{1e3 * record['median_s']:.3g} ms"
    ours = records.get((label, record["measure"]))
    return f"{time} ({times_ours(record['median_s'] / ours['median_s'])})" if ours else time
