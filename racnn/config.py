# SPDX-License-Identifier: BSD-3-Clause
"""Everything that can be configured, with defaults as in the paper where it gives them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from .data import READERS
from .losses import MARGIN
from .model import RACNN
from .windows import INITIAL_HALF_SIDE, WindowSource


@dataclass
class DataConfig:
    """What to learn from.

    Attributes:
        name: "cub", "dogs", "cars" or "folder".
        root: the data set's folder.
        image_side: images are stretched to squares of this side; crops may be cut out of them at full
            resolution.
        validation: share of every training class held out for stopping and choosing; the test half is never
            used for that.
        workers: processes that decode images.
        keep: hold decoded images in memory (3 * image_side**2 bytes each).
        flip: mirror every other training image, drawn anew each epoch.
        least_area: of a random window cut out of a training image, as a share of its area; 1: no windows. As
            :class:`racnn_ops.transforms.RandomResizedCrop` draws them.
        rand_augment: magnitude of torchvision's RandAugment (Cubuk et al., 2020), two operations an image,
            from 0 to 30; 0: none.
        mix: "mixup" (Zhang et al., 2018) or "cutmix" (Yun et al., 2019) of the images that classifiers learn
            from, as in torchvision.
    """

    name: Literal["cub", "dogs", "cars", "folder"] = "cub"
    root: Path = Path("CUB_200_2011")
    image_side: int = 448
    validation: float = 0.1
    workers: int = 0
    keep: bool = False
    flip: bool = True
    least_area: float = 1.0
    rand_augment: int = 0
    mix: Literal["none", "mixup", "cutmix"] = "none"


@dataclass
class ModelConfig:
    """Arguments of :class:`racnn.RACNN`, which documents them."""

    backbone: str = "vgg19"
    weights: str | None = "DEFAULT"
    descriptor: Literal["mean", "fc"] = "mean"
    scales: int = 3
    sizes: list[int] = field(default_factory=lambda: [448, 224, 224])
    num_windows: int = 1
    crop_from: Literal["previous", "image"] = "previous"
    mask_steepness: float | None = None
    chain_gradient: bool = True
    half_side_bounds: list[float] = field(default_factory=lambda: [1 / 3, 1.0])
    initial_half_side: float = INITIAL_HALF_SIDE
    hidden: int = 1024
    dropout: float = 0.0

    def build(self, num_classes: int, pretrained: bool = True) -> RACNN:
        """``pretrained=False`` where a checkpoint is about to be loaded."""
        options: dict[str, Any] = vars(self) | ({} if pretrained else {"weights": None})
        return RACNN(num_classes, **options)


@dataclass
class TrainingConfig:
    """How to learn.

    Attributes:
        window_source: "proposed": the paper's schedule: classifiers, APN pre-training, alternation, fusion;
            another: classifiers and fusion alone, on windows that are not learned.
        classify_epochs, imitate_epochs, rank_epochs, fuse_epochs: at most, for each phase.
        rounds: of the alternation, at most.
        patience: a phase ends after so many epochs without a validation loss better by 1 %. With a falling
            learning rate the best epochs are the last: then no less than a phase has epochs.
        batch_size: images a step, over all processes.
        jitter: while classifiers learn, windows are moved at random by up to this share of their
            half side, and scaled by up to ``exp(jitter)``. Otherwise a classifier memorises its training
            images as seen through the windows of the day, and the ranking loss finds no better ones.
        optimizer: "sgd", with momentum 0.9, or "adamw".
        weight_decay: of weights, not of biases.
        lr_backbone, lr_classifier, lr_apn, lr_fusion: learning rates, which fall to 0 in each phase as a
            cosine does. The fusion heads read descriptors of length 1, far shorter than the classifiers', and
            want a larger one.
        margin: of the ranking loss.
        rank_gradient: how the ranking loss reaches windows: "exact", by its derivative; "boxcar", by the
            surrogate of the authors' release, see :class:`racnn_ops.Boxcar`; "difference", over
            ``difference_step`` half sides (:mod:`racnn.training.differences`): 6 K looks more at every scale,
            and far less noise on photographs; "antithetic", an estimate of that by 2 looks, there and back
            along one axis of every window, drawn at random.
        rank_on: whose probabilities the ranking loss compares: "scales", p_s < p_{s+1}, as in the paper;
            "fused", p_{1..s} < p_{1..s+1}: a look must add to what is known. Fusion then learns before
            windows.
        diversity: weight of the overlap of an image's windows.
        freeze_blocks: so many leading blocks of every backbone keep their weights, see
            :func:`racnn.backbones.blocks`; -1: all of it.
        amp: "bf16" autocast.
        checkpoint_every: steps between checkpoints within an epoch; 0: after each epoch only.
        device: such as "cpu" or "cuda"; "auto".
        seed: of weights, order, augmentation and the validation split.
    """

    window_source: WindowSource = "proposed"
    classify_epochs: int = 30
    imitate_epochs: int = 10
    rank_epochs: int = 10
    fuse_epochs: int = 30
    rounds: int = 4
    patience: int = 4
    batch_size: int = 16
    jitter: float = 0.0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    weight_decay: float = 5e-4
    lr_backbone: float = 1e-3
    lr_classifier: float = 1e-2
    lr_apn: float = 1e-3
    lr_fusion: float = 0.1
    margin: float = MARGIN
    rank_gradient: Literal["exact", "boxcar", "difference", "antithetic"] = "exact"
    difference_step: float = 0.3
    rank_on: Literal["scales", "fused"] = "scales"
    diversity: float = 0.0
    freeze_blocks: int = 0
    amp: Literal["none", "bf16"] = "none"
    checkpoint_every: int = 0
    device: str = "auto"
    seed: int = 0


SECTIONS: dict[str, Any] = {"data": DataConfig, "model": ModelConfig, "training": TrainingConfig}


@dataclass
class Config:
    """One run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Of plain values, as YAML and checkpoints can hold them."""
        sections = asdict(self)
        sections["data"]["root"] = str(self.data.root)
        return sections

    @classmethod
    def from_dict(cls, sections: dict[str, dict[str, Any]]) -> Config:
        """As :meth:`to_dict` gave it to a checkpoint, so every option must be there.

        Raises:
            ValueError: an option is unknown or missing, or its value is not one that it can have.
        """
        from jsonargparse import ArgumentError, ArgumentParser

        if not isinstance(sections, dict) or sections.keys() != SECTIONS.keys():
            raise ValueError(f"'config' must hold {', '.join(map(repr, SECTIONS))}")
        parser = ArgumentParser(exit_on_error=False)
        for section, kind in SECTIONS.items():
            parser.add_class_arguments(kind, section)
            if not isinstance(sections[section], dict):
                raise ValueError(f"'config' must map {section!r} to options")
            for name in sorted({option.name for option in fields(kind)} ^ sections[section].keys()):
                state = "unknown" if name in sections[section] else "missing"
                raise ValueError(f"the option {section}.{name} is {state}: another version has written it")
        try:
            parsed = parser.parse_object(sections)
        except ArgumentError as error:
            raise ValueError(str(error)) from error
        return cls(**{name: kind(**parsed[name].as_dict()) for name, kind in SECTIONS.items()}).check()

    def check(self) -> Config:
        """Raises ValueError for values that cannot work together or at all."""
        t, d = self.training, self.data
        if d.name not in READERS:
            raise ValueError(f"data.name must be one of {', '.join(map(repr, READERS))}, got {d.name!r}")
        for name in ("batch_size", "rounds", "patience"):
            _at_least(f"training.{name}", getattr(t, name), 1)
        for name in ("classify", "imitate", "rank", "fuse"):
            _at_least(f"training.{name}_epochs", getattr(t, f"{name}_epochs"), 0)
        _at_least("training.freeze_blocks", t.freeze_blocks, -1)
        _at_least("training.checkpoint_every", t.checkpoint_every, 0)
        _at_least("data.workers", d.workers, 0)
        if not 0 < d.least_area <= 1:
            raise ValueError(f"data.least_area must be in (0, 1], got {d.least_area}")
        if not 0 <= d.rand_augment <= 30:
            raise ValueError(f"data.rand_augment must be from 0 to 30, got {d.rand_augment}")
        if not 0 <= t.jitter <= 1:
            raise ValueError(f"training.jitter must be in [0, 1], got {t.jitter}")
        if not 0 < t.difference_step <= 1:
            raise ValueError(f"training.difference_step must be in (0, 1], got {t.difference_step}")
        return self


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
