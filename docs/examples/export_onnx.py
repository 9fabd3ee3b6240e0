# SPDX-License-Identifier: BSD-3-Clause
"""
Export a model with crops to ONNX
=================================

A model that decides where to look and crops there, as an ONNX file that runs without this package.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
import torch
from skimage import data
from torch import nn

from racnn_ops import attention_crop, decompositions

# %%
# The model looks where the image differs most from its blurred self: a stand-in for a network.


class Glimpse(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        grey = images.mean(1, keepdim=True)
        detail = nn.functional.avg_pool2d((grey - nn.functional.avg_pool2d(grey, 9, 1, 4)).abs(), 64, 16)
        share = detail.flatten(1).mul(100).softmax(1).view_as(detail)
        x = share.sum((1, 2)) @ (torch.arange(share.shape[3]) * 16.0 + 32)
        y = share.sum((1, 3)) @ (torch.arange(share.shape[2]) * 16.0 + 32)
        windows = torch.stack((x, y, torch.full_like(x, 64.0)), 1)
        return attention_crop(images, windows, 128, boundary="border")


photographs = [data.astronaut()[:384, :384], data.coffee()[:384, 150:534]]
images = torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1) for p in photographs]).float() / 255
model = Glimpse().eval()
crops = model(images)

# %%
# The exported program holds the operator, which ATen operators replace; the batch may be of any size.

folder = tempfile.TemporaryDirectory()
file = Path(folder.name) / "glimpse.onnx"
program = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
program = program.run_decompositions(decompositions())
torch.onnx.export(program, f=file, dynamo=True, verbose=False)

# %%
# onnxruntime gives the same crops, also of one image.

session = onnxruntime.InferenceSession(file)
name = session.get_inputs()[0].name
(of_both,) = session.run(None, {name: images.numpy()})
(of_one,) = session.run(None, {name: images[:1].numpy()})
torch.testing.assert_close(torch.from_numpy(of_both), crops, rtol=1e-3, atol=1e-4)
torch.testing.assert_close(torch.from_numpy(of_one), crops[:1], rtol=1e-3, atol=1e-4)

figure, axes = plt.subplots(1, 4, figsize=(8, 2.2), layout="constrained")
for axis, picture in zip(axes, (images[0], of_both[0], images[1], of_both[1]), strict=True):
    axis.imshow(np.clip(np.asarray(picture).transpose(1, 2, 0), 0, 1))
    axis.set(xticks=[], yticks=[])
