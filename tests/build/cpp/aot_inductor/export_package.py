# SPDX-License-Identifier: BSD-3-Clause
"""``python export_package.py zoom.pt2``: compiles a model with a crop inside for run_package.cpp."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from racnn_ops import AttentionCrop


class Zoom(nn.Module):
    """Of uint8 photographs (B, 3, 24, 32), the normalised crop where a small network wants to look: by two
    taps an axis, and antialiased."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.attention = nn.Conv2d(3, 8, 3, stride=2), nn.Linear(8, 3)
        statistics: dict[str, Any] = {"mean": (0.4, 0.5, 0.6), "std": 0.25}
        self.crop = AttentionCrop((6, 8), mask_steepness=0.5, boundary="clip", **statistics)
        self.small = AttentionCrop((6, 8), interpolation="bicubic", antialias=True, fill=114, **statistics)

    def forward(self, photographs: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(photographs.float() / 255).relu()
        windows = self.attention(features.mean((2, 3))).sigmoid() * photographs.shape[3]
        return torch.cat((self.crop(photographs, windows), self.small(photographs, windows)), 1), windows


def make_model() -> Zoom:
    torch.manual_seed(0)
    return Zoom().eval()


def export(path: str) -> None:
    photographs = torch.zeros(2, 3, 24, 32, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(make_model(), (photographs,), dynamic_shapes=({0: batch},))
    torch._inductor.aoti_compile_and_package(program, package_path=path)


if __name__ == "__main__":
    export(sys.argv[1])
