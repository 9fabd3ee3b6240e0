# SPDX-License-Identifier: BSD-3-Clause
"""
Thumbnails from uint8 frames
============================

Frames as decoders give them, (B, H, W, 3) of uint8, to small, normalised, planar tensors in one pass.
"""

import matplotlib.pyplot as plt
import torch
from skimage import data
from torchvision.transforms import v2

from racnn_ops import attention_crop, boxes

# %%
# A large photograph, and the window that is all of it.

frames = torch.from_numpy(data.retina())[None]
H, W = frames.shape[1:3]
images = frames.permute(0, 3, 1, 2)  # a view: interleaved pixels are read as they are
whole = boxes.letterbox((H, W), 64)[None]

# %%
# Without ``antialias`` a reduction by 22 skips nearly all pixels.

skipping = attention_crop(images, whole, 64)
averaged = attention_crop(images, whole, 64, antialias=True, boundary="window")
lanczos = attention_crop(images, whole, 64, interpolation="lanczos3", boundary="window")

figure, axes = plt.subplots(1, 3, figsize=(8, 2.9), layout="constrained")
for axis, crop, title in zip(
    axes, (skipping, averaged, lanczos), ("bilinear", "antialias", "lanczos3"), strict=True
):
    axis.imshow(crop[0].permute(1, 2, 0))
    axis.set(title=title, xticks=[], yticks=[])

# %%
# ``antialias`` is what torchvision's ``resize`` does, to one step of rounding.

theirs = v2.functional.resize(images, [64, 64], antialias=True)
difference = (averaged.int() - theirs.int()).abs().max().item()
print("largest difference from torchvision:", difference)
assert difference <= 1

# %%
# What a network wants comes out of the same pass: floats, normalised, planar.

mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
tensors = attention_crop(
    images,
    whole,
    64,
    antialias=True,
    boundary="window",
    mean=mean,
    std=std,
    memory_format=torch.contiguous_format,
)
print(tensors.dtype, tensors.shape, tensors.is_contiguous())
