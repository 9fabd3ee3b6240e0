# SPDX-License-Identifier: BSD-3-Clause
"""What a row of ``birds.py`` is: a model, its windows, and how long each part learns."""

from __future__ import annotations

from dataclasses import dataclass

from racnn.config import TrainingConfig
from racnn.windows import INITIAL_HALF_SIDE

EPOCHS = {"classify": 20, "imitate": 6, "rank": 6, "fuse": 20}


@dataclass(frozen=True)
class Row:
    """A row of the table: what is trained.

    Attributes:
        side: of every scale's input, in pixels; ``fine``: of the finer scales', where it is another.
        scales: 1 is a single look.
        windows: ``"proposed"``; ``"response"``, ``"centre"``, ``"random"``; ``"box"``, around the true boxes;
            a relative window ``(tx, ty, tl)``, the same for all images; or ``"as ROW"``, those that another
            row has learned.
        gradient: ``training.rank_gradient``, or ``"features"``: the operator on scale 1's feature map, no
            look at all.
        share: of the image's side that is seen, around its centre.
        jitter: of windows while classifiers learn; ``jitter_fusion``: while fusion does.
        mask: ``mask_steepness`` of the crops.
        lower, half: the least and the initial half side of windows, as :class:`racnn.RACNN` takes them.
        once: whether one seed is all that it gets.
    """

    side: int = 128
    scales: int = 2
    fine: int | None = None
    count: int = 1
    windows: str | tuple[float, float, float] = "proposed"
    gradient: str = "difference"
    rank_on: str = "scales"
    rounds: int = 1
    share: float = 1.0
    jitter: float = 0.8
    jitter_fusion: float = 0.0
    mask: float | None = None
    lower: float = 1 / 3
    half: float = INITIAL_HALF_SIDE
    once: bool = False

    @property
    def cost(self) -> float:
        """Of looking at an image, in looks of 128 x 128 pixels."""
        fine = (self.scales - 1) * self.count * self.sizes[-1] ** 2
        return (self.side**2 + fine) / 128**2

    @property
    def sizes(self) -> tuple[int, int]:
        return self.side, self.fine or self.side

    def config(self, seed: int) -> TrainingConfig:
        """The schedule; classifiers of windows that are not learned learn as long."""
        learned = self.windows == "proposed"
        rounds = 2 + self.rounds
        return TrainingConfig(
            window_source="response" if self.given else self.windows,  # type: ignore[arg-type]
            classify_epochs=EPOCHS["classify"] * (1 if learned else rounds),
            imitate_epochs=EPOCHS["imitate"],
            rank_epochs=EPOCHS["rank"],
            fuse_epochs=EPOCHS["fuse"],
            rounds=self.rounds,
            rank_gradient="exact" if self.gradient == "features" else self.gradient,  # type: ignore[arg-type]
            difference_step=0.6,
            rank_on=self.rank_on,  # type: ignore[arg-type]
            freeze_blocks=-1,
            seed=seed,
        )

    @property
    def given(self) -> bool:
        """Whether no model proposes the windows."""
        return isinstance(self.windows, tuple) or self.windows == "box" or self.windows.startswith("as ")
