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
# A window is three numbers, `tx, ty, tl`: its centre and half of its side, in pixels. `attention_crop`
# cuts it out and zooms it, and differentiates in all three. Open this file in Jupyter with jupytext, or
# make a notebook of it: `jupytext --to ipynb windows.py`.

# %%
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from skimage import data
from torch import Tensor, nn

from racnn_ops import attention_crop

torch.manual_seed(0)
photograph = torch.from_numpy(data.coffee()).permute(2, 0, 1)[None] / 255.0  # (1, 3, 400, 600)


def show(axis: Axes, image: Tensor, title: str = "", window: Tensor | None = None) -> None:
    """(1, 3, H, W) or (3, H, W) from 0 to 1, with the window's outline."""
    axis.imshow(image.reshape(image.shape[-3:]).permute(1, 2, 0).clamp(0, 1).numpy())
    axis.set(title=title, xticks=[], yticks=[])
    if window is not None:  # imshow has the middle of the first pixel at 0, windows count from its edge
        x, y, half = window.flatten().tolist()
        corner = (x - half - 0.5, y - half - 0.5)
        axis.add_patch(Rectangle(corner, 2 * half, 2 * half, fill=False, color="deepskyblue", linewidth=2))


# %% [markdown]
# ## What a window is
#
# Output column `j` of `w` reads the image at `tx + tl * ((2j + 1) / w - 1)`, where the first pixel reaches
# from 0 to 1; rows likewise. An image whose pixels hold where their middles are shows it.

# %%
window = torch.tensor([[310.0, 180.0, 90.0]])
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), width_ratios=(3, 2), layout="constrained")
show(left, photograph, "tx 310, ty 180, tl 90", window)
show(right, attention_crop(photograph, window, 128), "its crop, 128 x 128")

ramp = torch.arange(600.0).expand(1, 1, 400, 600) + 0.5
formula = 310 + 90 * ((2 * torch.arange(8) + 1) / 8 - 1)
print("by the formula:", formula.tolist())
torch.testing.assert_close(attention_crop(ramp, window, 8)[0, 0, 0], formula)

# %% [markdown]
# ## Dragging it
#
# A crop follows each hundredth of a pixel. Its squared difference from the crop at `tx` 330 is a
# continuous function of the window, and `backward()` gives the derivative of just that, as central
# differences confirm. The lines are tangents with the slopes that it gave.

# %%
exact = photograph.double()
target = attention_crop(exact, torch.tensor([[330.0, 180.0, 90.0]]).double(), 32, antialias=True)


def loss(windows: Tensor, antialias: bool = True) -> Tensor:
    """(K, 3) -> (K,): all windows are on the one photograph, and cut in one call."""
    crops = attention_crop(exact, windows[None], 32, antialias=antialias)
    return (crops[0] - target).square().mean((1, 2, 3))


def at(positions: Tensor) -> Tensor:
    """Windows (K, 3) with these ``tx``."""
    positions = positions.double()
    return torch.stack((positions, torch.full_like(positions, 180), torch.full_like(positions, 90)), 1)


touched = at(torch.tensor([285.3, 310.7, 345.2, 371.9])).requires_grad_()
loss(touched).sum().backward()
steps = 1e-5 * torch.eye(3, dtype=torch.float64)
with torch.no_grad():
    differences = torch.stack([(loss(touched + step) - loss(touched - step)) / 2e-5 for step in steps], 1)
torch.testing.assert_close(touched.grad, differences, rtol=1e-5, atol=1e-9)

path = torch.linspace(270, 390, 241)
figure, axis = plt.subplots(figsize=(7, 2.8), layout="constrained")
axis.plot(path, loss(at(path)), color="tab:grey")
axis.set(xlabel="tx", title="a loss along tx, and its derivative at four places")
for x, value, slope in zip(touched[:, 0].detach(), loss(touched.detach()), touched.grad[:, 0], strict=True):
    axis.plot([x - 9, x + 9], [value - 9 * slope, value + 9 * slope], color="tab:red", linewidth=2.5)

# %% [markdown]
# ## Antialiasing
#
# A crop of 32 from a window of 180 pixels is a reduction by nearly 6. Without `antialias` an output reads
# what is beside one point and skips the rest: the loss is rough, and its slope says little of the way.
# With it an output is a mean of all that it covers.

# %%
fine = torch.linspace(340, 360, 161)
roughness = {}
figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained")
for antialias in (False, True):
    windows = at(fine).requires_grad_()
    values = loss(windows, antialias)
    (slopes,) = torch.autograd.grad(values.sum(), windows)
    axes[0].plot(fine, values.detach(), label=f"antialias={antialias}")
    axes[1].plot(fine, slopes[:, 0])
    roughness[antialias] = (slopes[:, 0].diff().abs().mean() / slopes[:, 0].abs().mean()).item()
axes[0].set(xlabel="tx", title="loss")
axes[1].set(xlabel="tx", title="its derivative by tx")
axes[0].legend(frameon=False)
print("change of slope in an eighth of a pixel, over the slope:", roughness)
assert roughness[True] < roughness[False] / 2

# %% [markdown]
# ## A network that learns where to look
#
# Pieces of the photograph, each with a blue disc somewhere. A small network says `tx, ty, tl`, and all
# that it hears is how much its crop differs from the picture of a disc. Where the discs are it is never
# told: it learns that through the gradient of its windows.

# %%
SIDE = 48
BLUE = torch.tensor([0.1, 0.3, 0.9]).view(3, 1, 1)
pixels = torch.arange(SIDE) + 0.5
unit = (2 * torch.arange(16) + 1) / 16 - 1
wanted = torch.where(unit.square() + unit[:, None].square() < 1, BLUE, photograph.mean((2, 3)).view(3, 1, 1))


def scenes(count: int) -> tuple[Tensor, Tensor]:
    """Images, and the windows that just hold their discs."""
    pieces = torch.tensor([120, 120, 60]) + torch.rand(1, count, 3) * torch.tensor([360, 160, 60])
    discs = torch.tensor([12, 12, 6]) + torch.rand(count, 3) * torch.tensor([24, 24, 8])
    x, y, radius = discs.view(count, 3, 1, 1, 1).unbind(1)
    inside = (radius - ((pixels - x).square() + (pixels[:, None] - y).square()).sqrt()).sigmoid()
    return torch.lerp(attention_crop(photograph, pieces, SIDE, antialias=True)[0], BLUE, inside), discs


def look(images: Tensor) -> Tensor:
    share = network(images).sigmoid()
    return SIDE * torch.stack((share[:, 0], share[:, 1], 0.1 + 0.4 * share[:, 2]), 1)


layers = [nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten()]
network = nn.Sequential(*layers, nn.Linear(32 * (SIDE // 4) ** 2, 64), nn.ReLU(), nn.Linear(64, 3))
optimizer = torch.optim.Adam(network.parameters(), 1e-3)
for _ in range(300):
    images, _ = scenes(64)
    crops = attention_crop(images, look(images), 16, antialias=True, boundary="border")
    optimizer.zero_grad()
    (crops - wanted).square().mean().backward()
    optimizer.step()

# %%
images, discs = scenes(200)
with torch.no_grad():
    found = look(images)
print("mean error of tx, ty, tl in pixels:", (found - discs).abs().mean(0).tolist())
assert (found - discs)[:, :2].abs().mean() < 1

figure, axes = plt.subplots(2, 6, figsize=(9, 3), layout="constrained")
for image, window, (above, below) in zip(images[:6], found[:6], axes.T, strict=True):
    show(above, image, window=window)
    show(below, attention_crop(image[None], window[None], 64))

# %% [markdown]
# [A window that finds its target on a photograph](../../docs/examples/learn_window.py), and [networks that
# look at real birds](../../racnn/README.md).
