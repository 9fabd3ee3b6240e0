# SPDX-License-Identifier: BSD-3-Clause
"""Runs the phases: trains, validates, keeps the best, writes checkpoints, resumes exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from racnn_ops import Boxcar

from ..config import Config
from ..data import Images, Sample, Split, Unreadable, hold_out
from ..model import RACNN
from ..output import printable
from . import checkpoint
from .augmentation import Augmentation
from .batches import Loader, draw_moves, epoch_batches, in_order, pick
from .engine import Engine
from .folder import BEST, HISTORY, LAST, TRACKED, RunFolder, fingerprint
from .meters import Meters
from .phases import TOLERANCE, Phase, PhaseResult, next_phase
from .processes import Processes
from .reporting import Reporter
from .step import Batch

BOXCAR = Boxcar(scale=1e-3)
"""As released but for its scale, which acts as the learning rate does: 1e-7 would drown in Adam's epsilon."""


class Stopped(Exception):
    """The run was asked to stop and has written a checkpoint."""


@dataclass
class Position:
    """``epoch`` and ``step_in_epoch`` are those of the phase, ``step`` is that of the run."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best: float = math.inf
    bad_epochs: int = 0


class Trainer:
    """One run in one folder.

    Args:
        config: what to do.
        split: the data. The validation part is taken from its training half; its test half is not touched.
        output: receives ``last.pt``, ``best.pt``, ``history.json`` and ``tensorboard/``.
        resume: go on from ``last.pt``.

    Raises:
        FileExistsError: ``output`` holds a run, and ``resume`` is False.
        FileNotFoundError: there is nothing to resume.
        OSError: ``output`` is in use by another process, or cannot be written to.
        ValueError: the configuration contradicts itself, the data or the checkpoint.
    """

    def __init__(
        self, config: Config, split: Split, output: Path, processes: Processes, *, resume: bool = False
    ) -> None:
        self.config, self.output, self.processes = config.check(), output, processes
        self.classes = split.classes
        training, data = config.training, config.data
        train, validation = hold_out(split.train, data.validation, training.seed)
        _check_batch(config, len(train), processes)
        self.folder = RunFolder(output, processes, resume=resume)
        state = self.folder.state(config, split) if resume else None
        self.data = fingerprint(split.train, data.root)
        self.train_images = Images(train, data.image_side)
        self.validation_images = Images(validation, data.image_side)
        self.loaders = tuple(
            Loader(images, data.workers, keep=data.keep, pin=processes.device.type == "cuda")
            for images in (self.train_images, self.validation_images)
        )
        self.unreadable = (Unreadable(train), Unreadable(validation))
        torch.manual_seed(training.seed)
        self.model = config.model.build(len(split.classes), pretrained=not resume).to(processes.device)
        if training.rank_gradient == "boxcar":
            self.model.crop_options |= {"window_grad": "boxcar", "boxcar": BOXCAR}
        self.model.to(memory_format=torch.channels_last)
        self.done: list[PhaseResult] = []
        self.history: list[dict[str, Any]] = []
        self.at, self.meters = Position(), Meters()
        self.stop_requested = False
        self._optimizer_state: dict[str, Any] | None = None
        if state is not None:
            with checkpoint.naming(output / LAST):
                self._restore(state)
        self.reporter = Reporter(output, processes, self.at.step)
        if self.folder.warning:
            self.reporter.note(self.folder.warning)

    def run(self) -> RACNN:
        """All phases that are left. Returns the model with the best weights of the last phase.

        Raises:
            Stopped: :attr:`stop_requested` was set; the checkpoint is on disk.
            FloatingPointError: a loss or a weight is not finite.
            ValueError: not one of the training or the validation images can be read.
        """
        with self.folder, self.reporter, closing(self.loaders[0]), closing(self.loaders[1]):
            while phase := next_phase(self.config.training, len(self.model.sizes), self.done):
                self._run_phase(phase)
        return self.model.eval()

    def _run_phase(self, phase: Phase) -> None:
        engine = Engine(self.model, phase, self.config.training, self.processes)
        if self._optimizer_state is not None:
            engine.optimizer.load_state_dict(self._optimizer_state)
            self._optimizer_state = None
        if self.at.best == math.inf:
            self._validate_start(phase, engine)
        while self.at.epoch < phase.epochs and self.at.bad_epochs < self.config.training.patience:
            self._train_epoch(phase, engine)
            self._end_epoch(phase, engine)
            self._save(engine)
        self.processes.wait()
        best = self.output / BEST
        state = checkpoint.load(best, self.processes.device)
        with checkpoint.naming(best):
            checkpoint.load_weights(self.model, state["model"])
        self.done.append(PhaseResult(phase, self.at.best, self.at.epoch))
        self.at = Position(step=self.at.step)
        self.processes.wait()
        self._save(None)

    def _train_epoch(self, phase: Phase, engine: Engine) -> None:
        config, count = self.config.training, len(self.train_images)
        order = 1000 * len(self.done) + self.at.epoch  # every epoch of the run has its own
        steps = epoch_batches(count, config.batch_size, config.seed, order, self.processes)
        classifies = phase.kind == "classify"
        augment = Augmentation(count, len(self.classes), self.config.data, config.seed, order, mix=classifies)
        shape = count, len(self.model.sizes) - 1, self.model.num_windows
        jitter = config.jitter if classifies else 0.0
        moves = draw_moves(shape, jitter, config.seed, order)
        engine.start_epoch()
        done, device = self.at.step_in_epoch, self.processes.device
        self.reporter.start_epoch(f"{phase.name}, epoch {self.at.epoch + 1}", len(steps), done)
        batches = self._read(0, steps[done:])
        for position, batch in enumerate(batches, done):
            engine.start_step(self.at.step, (self.at.epoch + position / len(steps)) / phase.epochs)
            images, shares = augment(batch.image, batch.label, batch.number)
            moved = pick(moves, batch.number, device)
            self.meters.add(engine.train(Batch(images, batch.label, moved, shares)))
            self.at.step += 1
            self.at.step_in_epoch = position + 1
            self.reporter.step()
            stop = self._all_agree_to_stop()
            if stop or (config.checkpoint_every and self.at.step % config.checkpoint_every == 0):
                self._save(engine)
            if stop:
                raise Stopped

    def _read(self, half: int, batches: list[list[int]]) -> Iterator[Sample]:
        """Batches of the training (0) or the validation images (1); what cannot be read is named."""
        for batch in self.loaders[half](batches):
            for path in self.unreadable[half].note(batch):
                self.reporter.note(f"cannot be read, left out: {printable(path)}")
            image, label = (part.to(self.processes.device, non_blocking=True) for part in batch[:2])
            yield Sample(image, label, *batch[2:])

    def _all_agree_to_stop(self) -> bool:
        """One process that stops alone would leave the others waiting for it."""
        if self.processes.world == 1:
            return self.stop_requested
        flag = torch.tensor(float(self.stop_requested), device=self.processes.device)
        return bool(self.processes.total(flag) > 0)

    @torch.no_grad()
    def validate(self, engine: Engine) -> dict[str, float]:
        """The phase's loss and accuracies on the validation images; empty without such images."""
        if len(self.validation_images) == 0:
            return {}
        self.model.eval()
        meters = Meters()
        batches = in_order(len(self.validation_images), self.config.training.batch_size)
        mine = batches[self.processes.rank :: self.processes.world]
        for batch in self._read(1, mine):
            with engine.autocast():
                meters.add(engine.step(Batch(batch.image, batch.label)))
        return self._means(meters, "validation")

    def _means(self, meters: Meters, half: str) -> dict[str, float]:
        means = meters.means(self.processes)
        if not means["images"]:
            raise ValueError(
                f"not one of the {half} images in {printable(self.config.data.root)} can be read"
            )
        return means

    def _validate_start(self, phase: Phase, engine: Engine) -> None:
        """What an APN starts with is the first that its epochs have to beat.

        Not so classifiers: those of older windows can be better calibrated and yet fit the new ones worse.
        """
        if phase.kind in ("imitate", "rank") and self.at.step_in_epoch == self.at.epoch == 0:
            validation = self.validate(engine)
            if validation and math.isfinite(validation["loss"]):
                self._keep(validation["loss"])

    def _keep(self, loss: float) -> None:
        self.at.best = loss
        if self.processes.is_first:
            checkpoint.save(self._state(), self.output / BEST)

    def _end_epoch(self, phase: Phase, engine: Engine) -> None:
        train = self._means(self.meters, "training")
        at = self.at
        # Random windows are those of every epoch, also where a run goes on between the last step and here.
        torch.manual_seed(self.config.training.seed)
        validation = self.validate(engine)
        loss = (validation or train)["loss"]
        if not math.isfinite(loss):
            raise FloatingPointError(f"{phase.name}, epoch {at.epoch + 1}: the loss is {loss}")
        worth_it = at.best == math.inf or loss < at.best - TOLERANCE * abs(at.best)
        at.bad_epochs = 0 if worth_it else at.bad_epochs + 1
        if loss < at.best:
            self._keep(loss)
        tracked, windows = self._track(phase)
        record = {"phase": phase.name, "epoch": at.epoch + 1, "step": at.step, "train": train}
        record |= {"validation": validation, "windows": windows}
        self.history.append(record)
        self.reporter.end_epoch(record, tracked)
        at.epoch, at.step_in_epoch, self.meters = at.epoch + 1, 0, Meters()

    @torch.no_grad()
    def _track(self, phase: Phase) -> tuple[list[Tensor], list[Any]]:
        """A few images (3, S, S), on the first process, and scale x image x window x (tx, ty, tl)."""
        images = self.validation_images if len(self.validation_images) else self.train_images
        count = min(TRACKED, len(images)) if self.processes.is_first else 0
        if not count:
            return [], []
        tracked = [images[i].image for i in range(count)]
        pixels = torch.stack(tracked).to(self.processes.device)
        source = "proposed" if phase.kind == "imitate" else phase.window_source
        output = self.model.eval()(pixels, window_source=source)
        return tracked, [(windows * 100).round().div(100).tolist() for windows in output.windows]

    def _state(self) -> dict[str, Any]:
        weights, config = self.model.state_dict(), self.config.to_dict()
        return {"model": weights, "classes": list(self.classes), "config": config}

    def _save(self, engine: Engine | None) -> None:
        """``last.pt``: all that decides how the run goes on. To be called on all processes."""
        sums = self.meters.totals(self.processes)
        if not self.processes.is_first:
            return
        state = self._state() | {
            "optimizer": engine.optimizer.state_dict() if engine else None,
            "done": [asdict(result) for result in self.done],
            "history": self.history,
            "meters": sums,
            "position": asdict(self.at),
            "data": self.data,
        }
        checkpoint.save(state, self.output / LAST)
        checkpoint.save_json(self.history, self.output / HISTORY)

    def _restore(self, state: dict[str, Any]) -> None:
        checkpoint.load_weights(self.model, state["model"])
        self.done = [PhaseResult(Phase(**r["phase"]), r["best"], r["epochs"]) for r in state["done"]]
        self.history = state["history"]
        self.at = Position(**state["position"])
        # Sums of all processes were saved; one of them goes on with them.
        self.meters = Meters(state["meters"] if self.processes.is_first else {})
        self._optimizer_state = state["optimizer"]


def _check_batch(config: Config, images: int, processes: Processes) -> None:
    batch = config.training.batch_size
    if batch % processes.world:
        raise ValueError(
            f"training.batch_size must be a multiple of {processes.world}, the processes, got {batch}"
        )
    if batch > images:
        raise ValueError(f"training.batch_size must be at most {images}, the training images, got {batch}")
