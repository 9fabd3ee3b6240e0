# SPDX-License-Identifier: BSD-3-Clause
"""
Paste masks and crops back
==========================

``paste`` is the inverse of ``attention_crop``: Mask R-CNN's small masks become masks of the image, and crops
that were processed return to their places.
"""

import matplotlib.pyplot as plt
import torch
from skimage import data

from racnn_ops import attention_crop, boxes, paste

# %%
# Boxes of coins, and for each a mask of 28 x 28 probabilities: here a disc, in Mask R-CNN a network's.

coins = torch.from_numpy(data.coins()).float()[None, None] / 255
H, W = coins.shape[2:]
found = torch.tensor([[20.0, 22, 72, 70], [84, 18, 132, 66], [240, 12, 300, 72], [316, 6, 378, 72]])
windows = boxes.windows_from_boxes(found)
y, x = torch.meshgrid(*[torch.linspace(-1, 1, 28)] * 2, indexing="ij")
probabilities = ((1 - (x**2 + y**2).sqrt()) * 5).sigmoid().expand(len(found), 1, 28, 28)

# %%
# ``threshold`` makes bool masks, without memory for an image of numbers each.

masks = paste(probabilities, windows, (H, W), threshold=0.5)
print(masks.shape, masks.dtype, masks.flatten(1).sum(1).tolist())

# %%
# Crops that were changed, here inverted, go back where they came from; ``mask`` blends them in.

crops = attention_crop(coins.expand(len(found), -1, -1, -1), windows, 64)
inverted = paste(1 - crops, windows, (H, W))
result = coins[0]
for picture, mask in zip(inverted, masks, strict=True):
    result = torch.where(mask, picture, result)

figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
axes[0].imshow(coins[0, 0], cmap="gray")
axes[0].contour(masks.any(0)[0], levels=[0.5], colors="tab:red")
axes[1].imshow(result[0], cmap="gray", vmin=0, vmax=1)
for axis in axes:
    axis.set(xticks=[], yticks=[])
