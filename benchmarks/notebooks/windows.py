# SPDX-License-Identifier: BSD-3-Clause
# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Windows that can be dragged, and learned
#
# A window is three numbers, `tx, ty, tl`: its centre and half of its side, in pixels. `attention_crop` cuts it out and
# zooms it, and differentiates in all three. This notebook shows what that means, and ends with a network that learns
# where to look without being told.
#
# Open this file in Jupyter with jupytext, or make a notebook of it: `jupytext --to ipynb windows.py`.

# %%
import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle
from skimage import data
from torch import Tensor, nn

from racnn_ops import attention_crop, paste

torch.manual_seed(0)
photograph = torch.from_numpy(data.coffee()).permute(2, 0, 1)[None].double() / 255  # (1, 3, 400, 600)


def show(axis: plt.Axes, image: Tensor, title: str = "") -> None:
    """(1, 3, H, W) or (3, H, W), 0 to 1."""
    axis.imshow(image.reshape(image.shape[-3:]).permute(1, 2, 0).clamp(0, 1).numpy())
    axis.set(title=title, xticks=[], yticks=[])


def outline(axis: plt.Axes, window: Tensor, colour: str) -> None:
    x, y, half = window.flatten().tolist()
    # imshow puts the middle of the first pixel at 0, windows count from its edge.
    corner = (x - half - 0.5, y - half - 0.5)
    axis.add_patch(Rectangle(corner, 2 * half, 2 * half, fill=False, color=colour, linewidth=2))


# %% [markdown]
# ## What a window is
#
# Output column `j` of `w` reads the photograph at `tx + tl * ((2j + 1) / w - 1)`, between pixels where that falls
# between pixels. Below, the same by hand: a window of 8 outputs along x, as a linear interpolation.

# %%
window = torch.tensor([[310.0, 180.0, 90.0]], dtype=torch.float64)
crop = attention_crop(photograph, window, 128)

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), width_ratios=(3, 2), layout="constrained")
show(left, photograph, "tx 310, ty 180, tl 90")
outline(left, window, "tab:red")
show(right, crop, "its crop, 128 x 128")

# %%
ramp = (
    torch.arange(600, dtype=torch.float64).expand(1, 1, 400, 600) + 0.5
)  # every pixel holds where its middle is
positions = 310 + 90 * ((2 * torch.arange(8) + 1) / 8 - 1)
found = attention_crop(ramp, window, 8)[0, 0, 0]
print("by the formula ", positions.tolist())
print("read by a crop ", found.tolist())
torch.testing.assert_close(found, positions.double())

# %% [markdown]
# ## Dragging it
#
# Numbers need not be whole: a crop follows each hundredth of a pixel. What a loss says of the crop is then a
# continuous function of the window. Here it is the squared difference from the crop of a target window.

# %%
target = attention_crop(
    photograph, torch.tensor([[330.0, 180.0, 90.0]], dtype=torch.float64), 32, antialias=True
)


def loss(windows: Tensor, antialias: bool = True) -> Tensor:
    """(K, 3) -> (K,): all windows are on the one photograph, and cut in one call."""
    crops = attention_crop(photograph, windows[None], 32, antialias=antialias)
    return (crops[0] - target).square().mean((1, 2, 3))


def along_x(positions: Tensor) -> Tensor:
    """Windows (K, 3) at these ``tx``."""
    return torch.stack((positions, torch.full_like(positions, 180), torch.full_like(positions, 90)), 1)


path = torch.linspace(270, 390, 241, dtype=torch.float64)
values = loss(along_x(path))

figure, axes = plt.subplots(1, 5, figsize=(9, 2), layout="constrained")
for axis, x in zip(axes, (270, 300, 330, 360, 390), strict=True):
    moved = along_x(torch.tensor([x], dtype=torch.float64))
    show(axis, attention_crop(photograph, moved, 128), f"tx {x}")
assert path[values.argmin()] == 330

# %% [markdown]
# ## Its gradient
#
# `backward()` gives the derivative of what was computed, which central differences confirm. Short lines are the slopes
# that it gives: tangents of the curve.

# %%
touched = along_x(torch.tensor([285.3, 310.7, 345.2, 371.9], dtype=torch.float64)).requires_grad_()
loss(touched).sum().backward()

step = 1e-5 * torch.eye(3, dtype=torch.float64)
differences = torch.stack(
    [(loss(touched.detach() + s) - loss(touched.detach() - s)) / 2e-5 for s in step], dim=1
)
torch.testing.assert_close(touched.grad, differences, rtol=1e-5, atol=1e-9)
print("largest difference from central differences:", (touched.grad - differences).abs().max().item())

figure, axis = plt.subplots(figsize=(7, 2.8), layout="constrained")
axis.plot(path, values, color="tab:grey")
for (x, _, _), value, (slope, _, _) in zip(
    touched.tolist(), loss(touched).tolist(), touched.grad.tolist(), strict=True
):
    axis.plot([x - 9, x + 9], [value - 9 * slope, value + 9 * slope], color="tab:red", linewidth=2.5)
axis.set(xlabel="tx", ylabel="loss", title="a loss, dragged along x, and its derivative at four places")

# %% [markdown]
# ## Antialiasing
#
# A window of 180 pixels for a crop of 32 is a reduction by nearly 6. Without `antialias` an output reads the two pixels
# beside one point and skips the rest: its loss is rough, and the slope at a point tells little of the way. With it an
# output is a mean of all that it covers. The number is the mean change of slope from a quarter pixel to the next, over the
# mean slope.

# %%
fine = torch.linspace(340, 360, 81, dtype=torch.float64)
roughness = {}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
for antialias, colour in ((False, "tab:orange"), (True, "tab:blue")):
    windows = along_x(fine).requires_grad_()
    values = loss(windows, antialias)
    values.sum().backward()
    slopes = windows.grad[:, 0]
    roughness[antialias] = ((slopes[1:] - slopes[:-1]).abs().mean() / slopes.abs().mean()).item()
    name = f"antialias={antialias}: {roughness[antialias]:.3f}"
    left.plot(fine, values.detach(), color=colour, label=name)
    right.plot(fine, slopes, color=colour)
left.set(xlabel="tx", title="loss")
left.legend(frameon=False, fontsize=8)
right.set(xlabel="tx", title="its derivative by tx")
assert roughness[True] < roughness[False] / 2

# %% [markdown]
# ## A window that a network learns
#
# A scene is a piece of the photograph with a blue disc somewhere. A small network looks at the scene and says `tx, ty, tl`.
# All that it hears is how much its crop differs from the picture of a disc. Where discs are it is never told: that comes
# through the gradient of the window. `paste` puts the discs where they are, with soft edges.

# %%
SIDE = 48
y, x = (torch.arange(16) + 0.5 - 8).square().view(2, 1, 8, 2).unbind(0)[0].flatten(), None
