# SPDX-License-Identifier: BSD-3-Clause
"""RA-CNN over a frozen backbone: what it says about crops that stay is computed once and kept.

The phases and their order are the model's own (:mod:`racnn.training`); only the loop around them is another,
as classifiers and fusion learn from descriptors that are known.
"""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from racnn import RACNN, classification_loss
from racnn import windows as geometry
from racnn.config import TrainingConfig
from racnn.evaluation import window_quality
from racnn.output import fusion_name
from racnn.training.engine import autocast
from racnn.training.optimisation import set_rates
from racnn.training.phases import Phase, PhaseResult, next_phase, set_trainable
from racnn.training.step import Batch, imitate, rank
from racnn.training.trainer import BOXCAR
from racnn_ops import attention_crop

from .lite0 import lite0
from .photographs import Half
from .row import Row

BATCH = 32
INFERENCE_BATCH = 64  # images a batch where nothing learns
RATES = {"classify": 1e-3, "imitate": 5e-4, "rank": 5e-4, "fuse": 2e-2}
DECAYS = {"classify": 10.0, "imitate": 0.1, "rank": 0.1, "fuse": 0.03}
AMP, CPU = "bf16", torch.device("cpu")


class Recalled(nn.Module):
    """In place of scale 1's network: its feature maps, of the images that are named before it is called."""

    def __init__(self, tables: dict[str, list[Tensor]]) -> None:
        super().__init__()
        self.tables = tables
        self.asked: tuple[str, int, Tensor] | None = None

    def forward(self, images: Tensor) -> Tensor:
        if self.asked is None:  # the model asks for the shape
            return self.tables["train"][0][: len(images)].float()
        half, view, numbers = self.asked
        return self.tables[half][view][numbers].float()


class FromRecalled(RACNN):
    """Its scale 1 need not be shown anything."""

    def _first_input(self, images: Tensor) -> Tensor:
        if isinstance(self.scales[0].features, Recalled):
            return self.mean.new_zeros((images.shape[0], 3, 8, 8))
        return super()._first_input(images)


class Description(NamedTuple):
    """Of all images of a half in one view: N x (images, D), N - 1 x (images, K, 3)."""

    descriptors: list[Tensor]
    windows: list[Tensor]


class Study:
    """One row with one seed.

    Args:
        halves: ``"train"`` and ``"test"``.
        tables: scale 1's feature maps of them, half -> view -> (N, C, h, w).
        learned: of ``"as ROW"``: half -> view -> relative windows (N, K, 3).
        numbers: of the images of the training half that are learned from, and of those held out.
    """

    def __init__(
        self,
        row: Row,
        seed: int,
        classes: int,
        halves: dict[str, Half],
        tables: dict[str, list[Tensor]],
        numbers: tuple[Tensor, Tensor],
        learned: dict[str, list[Tensor]] | None = None,
    ) -> None:
        self.row, self.seed, self.halves, self.learned = row, seed, halves, learned
        self.train, self.held_out = numbers
        self.config = row.config(seed)
        torch.manual_seed(seed)
        self.model = build(row, classes)
        self.recalled = Recalled(tables)
        self.model.scales[0].features = self.recalled  # type: ignore[union-attr]
        self.generator = torch.Generator().manual_seed(seed)
        self.described: dict[tuple[Any, ...], Description] = {}

    def run(self, start: Path | None = None) -> None:
        """All phases.

        Args:
            start: a file for what rows that differ in the ranking loss alone have in common: all before it.
        """
        done = self.go_on(start) if start is not None and start.is_file() else []
        while phase := next_phase(self.config, self.row.scales, done):
            set_trainable(self.model, phase, self.config)
            best = {
                "classify": self._fit_heads,
                "fuse": self._fit_heads,
                "imitate": self._fit_windows,
                "rank": self._fit_windows,
            }[phase.kind](phase)
            done.append(PhaseResult(phase, best, phase.epochs))
            print(f"  {phase.name}: validation loss {best:.4f}", flush=True)
            if start is not None and phase.name == "classify 1":
                before = [(asdict(result.phase), result.best, result.epochs) for result in done]
                generator = self.generator.get_state()
                torch.save({"state": self.state(), "generator": generator, "done": before}, start)
        self.done = done
        self.model.eval()

    def go_on(self, start: Path) -> list[PhaseResult]:
        """As an earlier run left it before windows learned."""
        known = torch.load(start, weights_only=True)
        self.model.load_state_dict(known["state"], strict=False)
        self.generator.set_state(known["generator"])
        return [PhaseResult(Phase(**phase), best, epochs) for phase, best, epochs in known["done"]]

    # Descriptors: what the networks say of windows that stay.

    @torch.no_grad()
    def describe(self, half: str, view: int, window_source: str, jitter: float) -> Description:
        """All images of a half; kept until windows change."""
        key = (half, view, None if self.row.given else window_source, jitter)
        if key in self.described:
            return self.described[key]
        batches: list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = []
        self.model.eval()
        data = self.halves[half]
        generator = torch.Generator().manual_seed(hash_of(self.seed, half, view))
        for numbers in torch.arange(len(data.labels)).split(INFERENCE_BATCH):
            shape = (len(numbers), self.row.scales - 1, self.row.count, 3)
            moves = jitter * (2 * torch.rand(shape, generator=generator) - 1)
            with self.recall(half, view % data.views, numbers), autocast(AMP, CPU):
                given = self._given(half, view % data.views, numbers, moves)
                output = self.model(
                    self.pixels(half, view % data.views, numbers),
                    given,
                    window_source=window_source if given is None else "proposed",
                    jitter=moves.unbind(1) if jitter else None,
                    generator=generator,
                )
            batches.append((output.descriptors, output.relative_windows))
        pairs = [list(map(torch.cat, zip(*parts, strict=True))) for parts in zip(*batches, strict=True)]
        self.described[key] = Description(*pairs) if self.row.scales > 1 else Description(pairs[0], [])
        return self.described[key]

    def _given(self, half: str, view: int, numbers: Tensor, moves: Tensor) -> list[Tensor] | None:
        """Windows that no model proposes, in pixels and moved; None where one does."""
        windows, data, count = self.row.windows, self.halves[half], self.row.count
        if self.row.scales == 1 or not self.row.given:
            return None
        if isinstance(windows, tuple):
            relative = torch.tensor(windows).expand(len(numbers), count, 3)
            if view % 2:
                relative = torch.cat((1 - relative[..., :1], relative[..., 1:]), -1)
        elif windows == "box":
            boxes = data.boxes(view)[numbers]
            relative = (geometry.around(boxes, data.side) / data.side).float().unsqueeze(1)
        else:
            assert self.learned is not None, "of the row that it is named after"
            relative = self.learned[half][view][numbers]
        free = geometry.Bounds(1e-3, 1.0)  # true boxes keep to no bounds
        return [geometry.moved(relative, moves[:, 0], free) * data.side]

    @contextlib.contextmanager
    def recall(self, half: str, view: int, numbers: Tensor) -> Iterator[None]:
        """While it lasts, scale 1 gives the features of these images."""
        self.recalled.asked = half, view, numbers
        try:
            yield
        finally:
            self.recalled.asked = None

    def pixels(self, half: str, view: int, numbers: Tensor) -> Tensor:
        """Only their shape matters where there is but one scale, whose features are known."""
        if self.row.scales == 1:
            return torch.zeros(len(numbers), 3, 8, 8, dtype=torch.uint8)
        return self.halves[half].pixels(numbers, view)

    def views(self, jitter: float) -> range:
        """Where windows are moved, each of two views twice, with other moves."""
        count = self.halves["train"].views
        return range(max(count, 4) if self.row.scales > 1 and jitter else count)

    def _fit_heads(self, phase: Phase) -> float:
        """Classifiers or fusion heads, from descriptors."""
        fusion = phase.kind == "fuse"
        jitter = self.row.jitter_fusion if fusion else self.row.jitter
        source = phase.window_source
        moved = [self.describe("train", view, source, jitter).descriptors for view in self.views(jitter)]
        views = [torch.stack(scale) for scale in zip(*moved, strict=True)]  # of each scale (views, N, D)
        still = self.describe("train", 0, source, 0.0).descriptors
        labels = self.halves["train"].labels

        def loss(numbers: Tensor, learns: bool) -> Tensor:
            if learns:
                choice = torch.randint(len(views[0]), (len(numbers),), generator=self.generator)
                chosen = [scale[choice, numbers] for scale in views]
            else:
                chosen = [scale[numbers] for scale in still]
            logits, fused = self.model.classify(chosen)
            return classification_loss(fused if fusion else logits, labels[numbers])

        return self._fit(phase, loss)

    def _fit_windows(self, phase: Phase) -> float:
        """The APNs, by the model's own losses."""
        self.described.clear()  # windows are about to change
        learn = imitate if phase.kind == "imitate" else rank
        if phase.kind == "rank" and self.row.gradient == "features":
            learn = rank_on_features
        views, labels = self.halves["train"].views, self.halves["train"].labels
        amp = "none" if self.row.gradient == "exact" else AMP  # bfloat16 would add noise to a derivative

        def loss(numbers: Tensor, learns: bool) -> Tensor:
            view = int(torch.randint(views, (), generator=self.generator)) if learns else 0
            batch = Batch(self.pixels("train", view, numbers), labels[numbers])
            with self.recall("train", view, numbers), autocast(amp, CPU):
                return learn(self.model, batch, phase.window_source, self.config)[0]

        return self._fit(phase, loss)

    def _fit(self, phase: Phase, loss: Callable[[Tensor, bool], Tensor]) -> float:
        """Returns the validation loss.

        Of APNs the weights with the least loss are kept. Heads keep the last: they are convex, their rate
        ends at 0, and a hundred images tell little of which epoch was best.
        """
        torch.manual_seed(hash_of(self.seed, phase.name, 0))
        weights, rate = [p for p in self.model.parameters() if p.requires_grad], RATES[phase.kind]
        matrices, biases = ([p for p in weights if (p.dim() > 1) is wanted] for wanted in (True, False))
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": DECAYS[phase.kind], "peak_lr": rate},
            {"params": biases, "weight_decay": 0.0, "peak_lr": rate},
        ]
        optimizer = torch.optim.AdamW(groups, lr=rate)
        windows_learn = phase.kind in ("imitate", "rank")
        best, kept = math.inf, [w.detach().clone() for w in weights]
        if windows_learn:
            best = self._validate(loss)
        steps = len(self.train) // BATCH
        for epoch in range(phase.epochs):
            set_trainable(self.model, phase, self.config)
            order = self.train[torch.randperm(len(self.train), generator=self.generator)]
            for step, numbers in enumerate(order[: steps * BATCH].split(BATCH)):
                set_rates(optimizer, (epoch + step / steps) / phase.epochs)
                optimizer.zero_grad()
                loss(numbers, True).backward()
                optimizer.step()
            last = epoch + 1 == phase.epochs
            if not windows_learn and not last:
                continue
            found = self._validate(loss)
            if found < best:
                best, kept = found, [w.detach().clone() for w in weights]
        with torch.no_grad():
            for weight, value in zip(weights, kept, strict=True):
                weight.copy_(value)
        return best

    @torch.no_grad()
    def _validate(self, loss: Callable[[Tensor, bool], Tensor]) -> float:
        self.model.eval()
        parts = self.held_out.split(BATCH)
        return sum(float(loss(numbers, False)) * len(numbers) for numbers in parts) / len(self.held_out)

    def state(self) -> dict[str, Tensor]:
        """Of all that has learned."""
        return {k: v for k, v in self.model.state_dict().items() if ".features." not in k}

    # What it is worth.

    @property
    def window_source(self) -> str:
        return self.row.windows if isinstance(self.row.windows, str) else "given"

    def hits(self, half: str) -> dict[str, Tensor]:
        """Name of :meth:`racnn.RACNNOutput.by_name` -> (images) bool."""
        described = self.describe(half, 0, self.window_source, 0.0)
        with torch.no_grad():
            logits, fused = self.model.classify(described.descriptors)
        named = {str(n): scale for n, scale in enumerate(logits, 1)}
        named |= {fusion_name(n): scale for n, scale in enumerate(fused, 2)}
        return {name: scale.argmax(1) == self.halves[half].labels for name, scale in named.items()}

    def quality(self, half: str) -> dict[str, Tensor]:
        """``inside`` and ``iou`` of scale 2's windows, see :func:`racnn.evaluation.window_quality`."""
        if self.row.scales == 1:
            return {}
        side = self.halves[half].side
        windows = self.describe(half, 0, self.window_source, 0.0).windows[0] * side
        found = window_quality(windows, self.halves[half].boxes(0).unsqueeze(1), float(side)).mean(1)
        return {"inside": found[:, 0], "iou": found[:, 2]}

    def windows(self) -> dict[str, list[Tensor]]:
        """Half -> view -> scale 2's relative windows (N, K, 3)."""
        return {
            half: [self.describe(half, v, self.window_source, 0.0).windows[0] for v in range(data.views)]
            for half, data in self.halves.items()
        }


def build(row: Row, classes: int) -> RACNN:
    """Its scales share the frozen network."""
    made = lite0()
    made.features.to(memory_format=torch.channels_last)
    model = FromRecalled(
        classes,
        lambda weights: made,
        row.scales,
        row.sizes,
        weights=None,
        num_windows=row.count,
        crop_from="image",
        mask_steepness=row.mask,
        half_side_bounds=(row.lower, 1.0),
        initial_half_side=row.half,
        hidden=256,
        chain_gradient=False,
    )
    model.crop_options["antialias"] = True
    if row.gradient == "boxcar":
        model.crop_options |= {"window_grad": "boxcar", "boxcar": BOXCAR}
    return model


def rank_on_features(
    model: RACNN, batch: Batch, window_source: str, config: TrainingConfig
) -> tuple[Tensor, tuple[Tensor, ...], dict[str, Tensor]]:
    """No look at all: windows are cut out of scale 1's feature map, whose classifier is to be sure."""
    with torch.no_grad():
        maps = model(batch.images, scales=1).features[0].float()
    relative: Tensor = model.proposal(1)(maps)
    loss = (1 - probability_on_features(model, maps, batch.labels, relative)).mean()
    return loss, (relative,), {}


def probability_on_features(model: RACNN, maps: Tensor, labels: Tensor, relative: Tensor) -> Tensor:
    """(B): by scale 1's classifier, of windows (B, K, 3) cut out of its feature map."""
    crops = attention_crop(maps, relative * maps.shape[-1], 4, interpolation="area", boundary="border")
    logits = model.each_scale()[0].classify(crops.mean((1, 3, 4)))
    return logits.softmax(1).gather(1, labels[:, None])[:, 0]


@torch.no_grad()
def feature_maps(half: Half, side: int) -> list[Tensor]:
    """Of scale 1, view by view: (N, C, h, w), bfloat16."""
    model = build(Row(side=side, scales=1), 2).eval()
    views = []
    for view in range(half.views):
        maps = []
        for numbers in torch.arange(len(half.labels)).split(INFERENCE_BATCH):
            with autocast(AMP, CPU):
                maps.append(model(half.pixels(numbers, view)).features[0].bfloat16())
        views.append(torch.cat(maps))
    return views


def hash_of(seed: int, name: str, number: int) -> int:
    """A seed for what is drawn at this place of the program, whatever was drawn before."""
    return zlib.crc32(f"{seed} {name} {number}".encode())
