# SPDX-License-Identifier: BSD-3-Clause
"""
Random crops for self-supervised training
=========================================

``MultiCrop`` draws windows of its own for every sample, large and small ones, and cuts each size in one call.
"""

import matplotlib.pyplot as plt
import torch
from skimage import data

from racnn_ops import boxes
from racnn_ops.transforms import MultiCrop, RandomResizedCrop

# %%
# A batch of uint8 images, as a loader gives them.

photographs = [data.astronaut()[:400, :400], data.coffee()[:, 150:550]]
images = torch.stack([torch.from_numpy(p.copy()) for p in photographs]).permute(0, 3, 1, 2)

# %%
# Two large crops and six small ones of each image, mirrored half of the time, as SwAV and DINO have them.
# With ``mean`` and ``std`` they would be normalised in the same pass.

torch.manual_seed(0)
large, small = MultiCrop(224, 96, 2, 6, flip=0.5)(images)
print(large.shape, small.shape)

figure, axes = plt.subplots(2, 8, figsize=(10, 2.8), layout="constrained")
for row, (of_large, of_small) in zip(axes, zip(large, small, strict=True), strict=True):
    for axis, crop in zip(row, (*of_large, *of_small), strict=True):
        axis.imshow(crop.permute(1, 2, 0))
        axis.set(xticks=[], yticks=[])

# %%
# Windows can be drawn first, and used for images, label maps and boxes alike.

random_crop = RandomResizedCrop(224, scale=(0.3, 1.0))
windows, flip = random_crop.windows(*images.shape[:1], *images.shape[2:])
labels = (images.float().mean(1, keepdim=True) > 128).long()
label_crop = RandomResizedCrop(224, interpolation="nearest", antialias=False)
crops, label_crops = random_crop.crop(images, windows), label_crop.crop(labels, windows)
found = boxes.boxes_to_crop(torch.tensor([[100.0, 100.0, 300.0, 300.0]]), windows, 224)
print(crops.shape, label_crops.shape, found.round().tolist())
assert set(label_crops.unique().tolist()) <= {0, 1}
