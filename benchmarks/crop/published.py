# SPDX-License-Identifier: BSD-3-Clause
"""Crop steps of published models: whose they are, and which call of ours is the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec

import torch
from torch import Generator, Tensor

from record.section import table

from . import published_attention as attention
from . import published_detection as detection
from .published_attention import Inputs

Way = Callable[..., Tensor]


@dataclass(frozen=True)
class Step:
    """A model's crop step.

    Attributes:
        model, paper, code: whose it is, and the repository that it is stated after.
        what, by: what is cut out of what, and what of ours replaces it.
        inputs: ``count`` of them, by name; floats are float32.
        count: how many images, masks or crops the model has at a time.
        theirs, ours: of the inputs by name.
        gradients: the inputs that the model differentiates.
        note: what differs.
        limit: what ours is compared with, where it is not what the model computes.
        exact: how far ours may be from that in float64, relative to the largest value: roundings of positions
            of up to some thousand pixels, unless the note says more.
    """

    model: str
    paper: str
    code: str
    what: str
    by: str
    inputs: Callable[[int, Generator], Inputs]
    count: int
    theirs: Way
    ours: Way
    gradients: tuple[str, ...] = ()
    note: str = ""
    limit: Way | None = None
    exact: float = 1e-11
    needs: str = "torch"

    @property
    def name(self) -> str:
        return f"{self.model}: {self.what}"

    @property
    def is_installed(self) -> bool:
        return find_spec(self.needs) is not None

    @property
    def modes(self) -> dict[str, tuple[str, ...]]:
        """What is timed: gradients of what."""
        both = f"forward + backward ({', '.join(self.gradients)})"
        return {"forward": ()} | ({both: self.gradients} if self.gradients else {})

    def make(self) -> Inputs:
        return self.inputs(self.count, torch.Generator().manual_seed(0))


def _where(model: str, paper: str, code: str) -> dict[str, str]:
    return {"model": model, "paper": paper, "code": code}


SPACE = _where("SPACE", "Lin et al., ICLR 2020", "zhixuan-lin/SPACE")
MASK_RCNN = "He et al., ICCV 2017"
DETECTRON = _where("Mask R-CNN (detectron2)", MASK_RCNN, "facebookresearch/detectron2")
TORCHVISION = _where("Mask R-CNN (torchvision)", MASK_RCNN, "pytorch/vision")
ZOOM = "Where it enlarges, OpenCV repeats the square's edge, ours reads on: half a pixel around differs."

STEPS = (
    Step(
        **_where("AdaFocus V2", "Wang et al., CVPR 2022", "LeapLabTHU/AdaFocusV2"),
        what="a patch of every frame",
        by="`attention_crop`",
        inputs=attention.adafocus_inputs,
        count=64,
        theirs=attention.adafocus,
        ours=attention.adafocus_ours,
        gradients=("frames", "actions"),
    ),
    Step(
        **_where("CAL, WS-DAN", "Rao et al., ICCV 2021; Hu et al., 2019", "raoyongming/CAL"),
        what="where attention is high",
        by='`windows_from_boxes(align_corners=True)`, `boundary="border"`',
        inputs=attention.cal_inputs,
        count=16,
        theirs=attention.cal,
        ours=attention.cal_ours,
    ),
    Step(
        **_where("NTS-Net", "Yang et al., ECCV 2018", "yangze0930/NTS-Net"),
        what="six parts an image",
        by="`windows_from_boxes(align_corners=True)`, no padding",
        inputs=attention.nts_inputs,
        count=16,
        theirs=attention.nts,
        ours=attention.nts_ours,
    ),
    Step(
        **SPACE,
        what="64 glimpses an image",
        by="`attention_crop`, K windows",
        inputs=attention.space_glimpse_inputs,
        count=16,
        theirs=attention.space_glimpse,
        ours=attention.space_glimpse_ours,
        gradients=("images", "where"),
    ),
    Step(
        **SPACE,
        what="glimpses pasted",
        by="`paste`",
        inputs=attention.space_paste_inputs,
        count=16,
        theirs=attention.space_paste,
        ours=attention.space_paste_ours,
        gradients=("glimpses", "where"),
        note="SPACE adds 1e-9 to scales before it divides by them; ours need not.",
        exact=1e-6,
    ),
    Step(
        **_where("AIR", "Eslami et al., NIPS 2016", "pyro-ppl/pyro"),
        what="three parts pasted and added",
        by='`paste(reduce="sum")`',
        inputs=attention.air_inputs,
        count=64,
        theirs=attention.air,
        ours=attention.air_ours,
        gradients=("parts", "where"),
    ),
    Step(
        **DETECTRON,
        what="masks pasted and compared with 0.5",
        by="`paste(threshold=0.5)`",
        inputs=detection.paste_inputs,
        count=100,
        theirs=detection.detectron_paste,
        ours=detection.detectron_paste_ours,
    ),
    Step(
        **TORCHVISION,
        what="masks pasted",
        by='`paste(edges="hard")` of padded masks',
        inputs=detection.paste_inputs,
        count=25,
        theirs=detection.torchvision_paste,
        ours=detection.torchvision_paste_ours,
        note="torchvision rounds boxes to whole pixels; so must the windows' boxes be.",
    ),
    Step(
        **TORCHVISION,
        what="targets of masks",
        by='`interpolation="area"`, `windows_from_rois(aligned=False)`',
        inputs=detection.targets_inputs,
        count=128,
        theirs=detection.targets,
        ours=detection.targets_ours,
        note="Not the same: `roi_align` takes about a sample a pixel; ours is what more samples tend to, and "
        "compared with 32 x 32.",
        limit=partial(detection.targets, samples=32),
        exact=5e-3,
        needs="torchvision",
    ),
    Step(
        **_where("SiamFC", "Bertinetto et al., ECCV 2016", "huanglianghua/siamfc-pytorch"),
        what="three scales of a frame",
        by="`attention_crop(fill=...)`, a list of windows",
        inputs=detection.siamfc_inputs,
        count=3,
        theirs=detection.siamfc,
        ours=detection.siamfc_ours,
        note=f"{ZOOM} OpenCV rounds to uint8.",
        needs="cv2",
    ),
    Step(
        **_where("OSTrack", "Ye et al., ECCV 2022", "botaoye/OSTrack"),
        what="a frame's search region",
        by="`attention_crop(fill=0, mean=..., std=...)`",
        inputs=detection.ostrack_inputs,
        count=1,
        theirs=detection.ostrack,
        ours=detection.ostrack_ours,
        note="As SiamFC's. At the edge OSTrack pads over the last row and column; ours leaves them out.",
        needs="cv2",
    ),
    Step(
        **_where("CLIP cut-outs (Big Sleep)", "Crowson et al., ECCV 2022", "lucidrains/big-sleep"),
        what="squares of the image, normalised",
        by='`attention_crop(boundary="window", mean=..., std=...)`',
        inputs=attention.cutouts_inputs,
        count=128,
        theirs=attention.cutouts,
        ours=attention.cutouts_ours,
        gradients=("image",),
        note="With `bilinear=True`. Others' `adaptive_avg_pool2d` has bins of whole pixels; ours has none.",
    ),
)


def steps(device: torch.device, quick: bool) -> list[Step]:
    """Those that run there: OpenCV's on a CPU alone. Quick: an eighth of everything."""
    found = [step for step in STEPS if device.type == "cpu" or step.needs != "cv2"]
    return [replace(step, count=max(step.count // 8, 1)) for step in found] if quick else found


def listing() -> str:
    """For readers who look for their model: what of ours is its step, and what differs."""
    rows = []
    for step in STEPS:
        whose = f"[{step.model}](https://github.com/{step.code}), {step.paper}"
        differentiated = f"; gradients of {' and '.join(step.gradients)}" if step.gradients else ""
        rows.append([whose, f"{step.what}{differentiated}", step.by, step.note])
    lines = table(["", "step", "by", "what differs"], rows).splitlines()
    return "\n".join([lines[0], "|---|---|---|---|", *lines[2:]]) + "\n"
