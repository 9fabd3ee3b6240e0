# SPDX-License-Identifier: BSD-3-Clause
"""Crop steps of published models that choose where to look.

Of each there is ``NAME_inputs(count, generator)``, in the sizes that the model has; ``NAME``, the step stated
anew as the model's public code does it; and ``NAME_ours``, the same by the operator. Both take the inputs by
name. ``published`` says whose they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from racnn_ops import attention_crop, boxes, paste

Inputs = dict[str, Tensor]


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (images - images.new_tensor(mean)[:, None, None]) / images.new_tensor(std)[:, None, None]


# AdaFocus V2: of every frame a patch in its own resolution, where the policy's two numbers say.

PATCH = 128


def adafocus_inputs(count: int, generator: Generator) -> Inputs:
    frames = torch.rand(count, 3, 224, 224, generator=generator)
    return {"frames": frames, "actions": torch.rand(count, 2, generator=generator)}


def adafocus(frames: Tensor, actions: Tensor) -> Tensor:
    side = frames.shape[-1]
    corner = actions.flip(1) * (side - PATCH)  # actions are of y and x
    theta = frames.new_zeros(len(frames), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = PATCH / side
    theta[:, :, 2] = (2 * corner + PATCH) / side - 1
    grid = F.affine_grid(theta, [len(frames), 3, PATCH, PATCH], align_corners=False)
    return F.grid_sample(frames, grid, align_corners=False)


def adafocus_ours(frames: Tensor, actions: Tensor) -> Tensor:
    centre = actions.flip(1) * (frames.shape[-1] - PATCH) + PATCH / 2
    windows = F.pad(centre, (0, 1), value=PATCH / 2)
    return attention_crop(frames, windows, PATCH)


# CAL (and WS-DAN, without the margin): the rectangle in which the attention is high, enlarged.

THRESHOLD, MARGIN = 0.3, 0.1


def cal_inputs(count: int, generator: Generator) -> Inputs:
    images = torch.rand(count, 3, 448, 448, generator=generator)
    centre = torch.rand(count, 2, 1, 1, generator=generator) * 20 + 4
    y, x = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    distance = (y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2
    return {"images": images, "attention": torch.exp(-distance / 30)[:, None]}


def cal(images: Tensor, attention: Tensor) -> Tensor:
    height, width = size = images.shape[2:]
    crops = []
    for image, its in zip(images.split(1), attention.split(1), strict=True):
        mask = F.interpolate(its, size, mode="bilinear", align_corners=True) >= THRESHOLD * its.max()
        y, x = torch.nonzero(mask[0, 0]).unbind(1)
        top = max(int(y.min().item() - MARGIN * height), 0)
        bottom = min(int(y.max().item() + MARGIN * height), height)
        left = max(int(x.min().item() - MARGIN * width), 0)
        right = min(int(x.max().item() + MARGIN * width), width)
        part = image[:, :, top:bottom, left:right]
        crops.append(F.interpolate(part, size, mode="bilinear", align_corners=True))
    return torch.cat(crops)


def cal_ours(images: Tensor, attention: Tensor) -> Tensor:
    size = images.shape[2:]
    most = attention.amax((2, 3), keepdim=True)
    mask = F.interpolate(attention, size, mode="bilinear", align_corners=True) >= THRESHOLD * most
    columns, rows = mask[:, 0].any(1).int(), mask[:, 0].any(2).int()
    edges = []
    for seen in (columns, rows):  # the first of the greatest, from both ends
        side = seen.shape[1]
        begin = (seen.argmax(1) - MARGIN * side).clamp(min=0)
        end = (side - 1 - seen.flip(1).argmax(1) + MARGIN * side).clamp(max=side)
        edges += [begin.trunc(), end.trunc() - 1]  # the slice's last pixel
    left, right, top, bottom = edges
    corners = torch.stack((left, top, right, bottom), 1).to(images.dtype)
    windows = boxes.windows_from_boxes(corners, align_corners=True, output_size=size)
    return attention_crop(images, windows, size, boundary="border")


# NTS-Net: the most informative anchors, cut out of the image with black around it.


def nts_inputs(count: int, generator: Generator) -> Inputs:
    """``parts``, (count, 6, 4): top, left, bottom, right, some of them beyond the image."""
    level = torch.randint(3, (count, 6, 1), generator=generator)
    side = 48 * 2 ** (level + torch.randint(1, 3, level.shape, generator=generator) / 3)
    aspect = torch.tensor([0.667, 1, 1.5])[torch.randint(3, level.shape, generator=generator)] ** 0.5
    stride = 32 * 2**level
    cell = (torch.rand(count, 6, 2, generator=generator) * (448 / stride).ceil()).floor()
    centre = (cell + 0.5) * stride
    half = torch.cat((side / aspect, side * aspect), 2) / 2
    parts = torch.cat((centre - half, centre + half), 2).floor().long()
    return {"images": torch.rand(count, 3, 448, 448, generator=generator), "parts": parts}


def nts(images: Tensor, parts: Tensor) -> Tensor:
    padded = F.pad(images, (224, 224, 224, 224))
    crops = images.new_zeros(*parts.shape[:2], 3, 224, 224)
    for i, rectangles in enumerate((parts + 224).tolist()):
        for j, (top, left, bottom, right) in enumerate(rectangles):
            part = padded[i : i + 1, :, top:bottom, left:right]
            crops[i : i + 1, j] = F.interpolate(part, (224, 224), mode="bilinear", align_corners=True)
    return crops


def nts_ours(images: Tensor, parts: Tensor) -> Tensor:
    pixels = parts[..., [1, 0, 3, 2]] - torch.tensor([0, 0, 1, 1], device=parts.device)  # first and last
    windows = boxes.windows_from_boxes(pixels.to(images.dtype), align_corners=True, output_size=224)
    return attention_crop(images, windows, 224)


# SPACE: 64 glimpses of every image, and what was decoded of them put back.

CELLS, GLIMPSE = 8, 32


def space_where(count: int, generator: Generator) -> Tensor:
    """(count, 64, 4): scales along x and y, shifts, as fractions of the image between -1 and 1."""
    cells = torch.cartesian_prod(torch.arange(float(CELLS)), torch.arange(float(CELLS))).flip(1)
    scale = torch.sigmoid(torch.randn(count, CELLS**2, 2, generator=generator) * 0.5 - 1.5)
    shift = torch.tanh(torch.randn(count, CELLS**2, 2, generator=generator) * 0.5)
    return torch.cat((scale, (cells + 0.5 + shift) * 2 / CELLS - 1), 2)


def space_glimpse_inputs(count: int, generator: Generator) -> Inputs:
    images = torch.rand(count, 3, 128, 128, generator=generator)
    return {"images": images, "where": space_where(count, generator)}


def space_paste_inputs(count: int, generator: Generator) -> Inputs:
    glimpses = torch.rand(count, CELLS**2, 3, GLIMPSE, GLIMPSE, generator=generator)
    return {"glimpses": glimpses, "where": space_where(count, generator)}


def transformed(images: Tensor, scale: Tensor, shift: Tensor, size: tuple[int, int]) -> Tensor:
    """The spatial transformer of AIR and its successors; scale and shift: (N, 1 or 2), (N, 2)."""
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale[:, 0], scale[:, -1], shift
    grid = F.affine_grid(theta, [*images.shape[:2], *size], align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def space_glimpse(images: Tensor, where: Tensor) -> Tensor:
    repeated = images.repeat_interleave(CELLS**2, 0)
    scale, shift = where.flatten(0, 1).split(2, 1)
    return transformed(repeated, scale, shift, (GLIMPSE, GLIMPSE)).unflatten(0, where.shape[:2])


def space_windows(where: Tensor) -> Tensor:
    scale, shift = where.split(2, 2)
    return boxes.windows_from_boxes(torch.cat(((shift + 1) / 2, scale), 2), "cxcywh", 128)


def space_glimpse_ours(images: Tensor, where: Tensor) -> Tensor:
    return attention_crop(images, space_windows(where), GLIMPSE)


def space_paste(glimpses: Tensor, where: Tensor) -> Tensor:
    scale, shift = where.flatten(0, 1).split(2, 1)
    scale = scale + 1e-9
    pasted = transformed(glimpses.flatten(0, 1), 1 / scale, -shift / scale, (128, 128))
    return pasted.unflatten(0, where.shape[:2])


def space_paste_ours(glimpses: Tensor, where: Tensor) -> Tensor:
    return paste(glimpses, space_windows(where), 128)


# AIR: a digit a step, added to the canvas.


def air_inputs(count: int, generator: Generator) -> Inputs:
    """``where``, for each of three steps: how often the digit's side goes into the canvas's, and shifts."""
    parts = torch.rand(count, 3, 28, 28, generator=generator)
    scale = 3 + 0.3 * torch.randn(count, 3, 1, generator=generator)
    shift = torch.randn(count, 3, 2, generator=generator)
    return {"parts": parts, "where": torch.cat((scale, shift), 2)}


def air(parts: Tensor, where: Tensor) -> Tensor:
    canvas = parts.new_zeros(len(parts), 1, 50, 50)
    for part, its in zip(parts.unbind(1), where.unbind(1), strict=True):
        canvas = canvas + transformed(part[:, None], its[:, :1], its[:, 1:], (50, 50))
    return canvas


def air_ours(parts: Tensor, where: Tensor) -> Tensor:
    scale, shift = where[..., :1], where[..., 1:]
    windows = torch.cat(((1 - shift / scale) * 25, 25 / scale), 2)
    return paste(parts[:, :, None], windows, 50, reduce="sum")


# CLIP cut-outs: squares of the image that is being made.

CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}


def cutouts_inputs(count: int, generator: Generator) -> Inputs:
    """``squares``: left, top, side."""
    sides = (torch.randn(count, generator=generator) * 0.3 + 0.8).clamp(0.5, 0.95).mul(512).long()
    corner = (torch.rand(count, 2, generator=generator) * (513 - sides[:, None])).long()
    return {
        "image": torch.rand(1, 3, 512, 512, generator=generator),
        "squares": torch.cat((corner, sides[:, None]), 1),
    }


def cutouts(image: Tensor, squares: Tensor) -> Tensor:
    pieces = []
    for x, y, side in squares.tolist():
        cutout = image[:, :, y : y + side, x : x + side]
        pieces.append(F.interpolate(cutout, (224, 224), mode="bilinear", align_corners=False))
    return normalised(torch.cat(pieces), **CLIP)


def cutouts_ours(image: Tensor, squares: Tensor) -> Tensor:
    windows = boxes.windows_from_boxes(squares[:, [0, 1, 2, 2]].to(image.dtype), "xywh")
    return attention_crop(image, [windows], 224, boundary="window", **CLIP)
