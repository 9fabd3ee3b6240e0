# SPDX-License-Identifier: BSD-3-Clause
"""
Crop what a detector found
==========================

A detector's boxes become windows, any number for each image, and all crops are made in one call.
"""

import matplotlib.pyplot as plt
import torch
from skimage import data
from torchvision.ops import roi_align

from racnn_ops import attention_crop, boxes

# %%
# Two photographs, and what a detector found in each: left, top, right, bottom, in pixels.

astronaut = torch.from_numpy(data.astronaut()).permute(2, 0, 1)
rocket = torch.from_numpy(data.rocket()).permute(2, 0, 1)[:, :, :512]
images = torch.stack((astronaut[:, :427], rocket)).float() / 255
found = [
    torch.tensor([[166.0, 55.0, 282.0, 210.0], [20.0, 0.0, 150.0, 230.0], [300.0, 240.0, 420.0, 400.0]]),
    torch.tensor([[290.0, 110.0, 350.0, 330.0]]),
]

# %%
# ``windows_from_rois`` takes them as ``roi_align`` does, and tells of which image each window is.

windows, index = boxes.windows_from_rois(found)
crops = attention_crop(images, windows, 96, image_index=index, antialias=True)
print(crops.shape)

figure, axes = plt.subplots(1, len(crops), figsize=(8, 2.2), layout="constrained")
for axis, crop, number in zip(axes, crops, index.tolist(), strict=True):
    axis.imshow(crop.permute(1, 2, 0).clamp(0, 1))
    axis.set(title=f"of image {number}", xticks=[], yticks=[])

# %%
# A square crop distorts what is not square. Windows that are as wide as they are high, around the same
# centres, keep proportions and show more of the surroundings; what lies beyond the image is grey.

half = windows[:, 2:].amax(1, keepdim=True)
squares = torch.cat((windows[:, :2], half), 1)
crops = attention_crop(images, squares, 96, image_index=index, antialias=True, fill=0.5)

figure, axes = plt.subplots(1, len(crops), figsize=(8, 2.2), layout="constrained")
for axis, crop in zip(axes, crops, strict=True):
    axis.imshow(crop.permute(1, 2, 0).clamp(0, 1))
    axis.set(xticks=[], yticks=[])

# %%
# Without ``antialias`` these are ``roi_align``'s crops, with one sample an output.

ours = attention_crop(images, windows, 96, image_index=index, boundary="border")
theirs = roi_align(images, found, (96, 96), sampling_ratio=1, aligned=True)
torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
