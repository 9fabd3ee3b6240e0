# SPDX-License-Identifier: BSD-3-Clause
"""
Learn a window by gradient descent
==================================

The gradient of ``tx, ty, tl`` is exact, so that a window can follow it to the place that a crop came from.
"""

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle
from skimage import data, filters

from racnn_ops import attention_crop

# %%
# The target is a crop; where it was cut out is forgotten, and the search starts elsewhere.

photograph = torch.from_numpy(data.chelsea()).permute(2, 0, 1) / 255
hidden = torch.tensor([[170.0, 110.0, 52.0]])
windows = torch.tensor([[225.0, 150.0, 110.0]], requires_grad=True)
path = [windows.detach().clone()]

# %%
# Blurring the image and the target, less and less, lets the window see far first. Each step is that of any
# other parameter.

for blur in (16.0, 8.0, 4.0, 2.0, 0.0):
    image = torch.from_numpy(filters.gaussian(photograph.numpy(), blur, channel_axis=0)).float()[None]
    target = attention_crop(image, hidden, 64, boundary="border")
    optimizer = torch.optim.Adam([windows], lr=max(blur, 1.0) / 4)
    for _ in range(50):
        optimizer.zero_grad()
        loss = (attention_crop(image, windows, 64, boundary="border") - target).square().mean()
        loss.backward()
        optimizer.step()
        path.append(windows.detach().clone())

print("found", [round(number, 2) for number in windows[0].tolist()], "hidden", hidden[0].tolist())
assert (windows - hidden).abs().max() < 0.5

# %%
# The way from the dashed window to the hidden one, and crops along it.

shown = (0, 15, 40, 80, len(path) - 1)
figure, axes = plt.subplot_mosaic([["way"] * 5, [0, 1, 2, 3, 4]], height_ratios=(3, 1), layout="constrained")
axes["way"].imshow(photograph.permute(1, 2, 0))
axes["way"].plot(*torch.cat(path)[:, :2].T, color="tab:red")
for moment, style in ((0, "--"), (-1, "-")):
    x, y, half = path[moment][0].tolist()
    square = Rectangle((x - half, y - half), 2 * half, 2 * half, fill=False, color="tab:red", linestyle=style)
    axes["way"].add_patch(square)
for column, moment in enumerate(shown):
    crop = attention_crop(photograph[None], path[moment], 64, boundary="border")
    axes[column].imshow(crop[0].permute(1, 2, 0).clamp(0, 1))
    axes[column].set_title(f"step {moment}", fontsize=9)
for axis in axes.values():
    axis.set(xticks=[], yticks=[])
