# SPDX-License-Identifier: BSD-3-Clause
"""
Images of different sizes in one call
=====================================

Photographs need not be padded or resized to be cropped together: a list of images goes with one of windows.
"""

import matplotlib.pyplot as plt
import torch
from skimage import data

from racnn_ops import attention_crop, boxes

# %%
# Three photographs as they are, with two boxes, one, and none.

names = ("coffee", "chelsea", "rocket")
photographs = [torch.from_numpy(getattr(data, name)()).permute(2, 0, 1) for name in names]
found = [
    torch.tensor([[170, 60, 470, 330], [350, 190, 560, 350]]),
    torch.tensor([[110, 60, 230, 165]]),
    torch.empty(0, 4),
]
for name, photograph, own in zip(names, photographs, found, strict=True):
    print(name, tuple(photograph.shape), len(own), "boxes")

# %%
# One call, without copies of the images; uint8 in, uint8 out, averaged as ``resized_crop`` does.

windows = [boxes.windows_from_boxes(own) for own in found]
crops = attention_crop(photographs, windows, (96, 128), antialias=True, boundary="window")
print(crops.shape, crops.dtype)

figure, axes = plt.subplots(1, len(crops), figsize=(8, 2.2), layout="constrained")
for axis, crop in zip(axes, crops, strict=True):
    axis.imshow(crop.permute(1, 2, 0))
    axis.set(xticks=[], yticks=[])

# %%
# They are, to the bit, those of single calls.

alone = attention_crop(photographs[1][None], windows[1], (96, 128), antialias=True, boundary="window")
assert torch.equal(crops[2:], alone)
