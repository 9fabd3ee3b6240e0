# SPDX-License-Identifier: BSD-3-Clause
"""Crop steps of published detectors and trackers.

Of each there is ``NAME_inputs(count, generator)``, in the sizes that the model has; ``NAME``, the step stated
anew as the model's public code does it; and ``NAME_ours``, the same by the operator. Both take the inputs by
name. ``published`` says whose they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from racnn_ops import attention_crop, boxes, paste

from .paste import IMAGE, THRESHOLD, grid_sample_in_boxes, make_masks
from .pictures import MEAN, STD
from .published_attention import Inputs, normalised

# Mask R-CNN: masks of 28 x 28 into the image, and targets of 28 x 28 out of the masks of an image.

PHOTOGRAPH = IMAGE


def paste_inputs(count: int, generator: Generator) -> Inputs:
    masks, windows = make_masks(torch.device("cpu"), count, PHOTOGRAPH)
    return {"masks": masks, "found": boxes.boxes_from_windows(windows)}


def detectron_paste(masks: Tensor, found: Tensor) -> Tensor:
    return grid_sample_in_boxes(masks, boxes.windows_from_boxes(found), PHOTOGRAPH)


def detectron_paste_ours(masks: Tensor, found: Tensor) -> Tensor:
    return paste(masks, boxes.windows_from_boxes(found), PHOTOGRAPH, threshold=THRESHOLD)


def enlarged(found: Tensor) -> Tensor:
    """By the pixel that torchvision puts around masks; then whole pixels, the last one included."""
    centre, half = (found[:, :2] + found[:, 2:]) / 2, (found[:, 2:] - found[:, :2]) / 2 * (30 / 28)
    return torch.cat((centre - half, centre + half), 1).long()


def torchvision_paste(masks: Tensor, found: Tensor) -> Tensor:
    height, width = PHOTOGRAPH
    images = []
    for mask, box in zip(F.pad(masks, (1, 1, 1, 1)).split(1), enlarged(found).tolist(), strict=True):
        left, top, right, bottom = box[0], box[1], box[2] + 1, box[3] + 1
        size = max(bottom - top, 1), max(right - left, 1)
        part = F.interpolate(mask, size, mode="bilinear", align_corners=False)[0]
        x, y, end, last = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
        image = mask.new_zeros(1, height, width)
        image[:, y:last, x:end] = part[:, y - top : last - top, x - left : end - left]
        images.append(image)
    return torch.stack(images)


def torchvision_paste_ours(masks: Tensor, found: Tensor) -> Tensor:
    edges = enlarged(found) + torch.tensor([0, 0, 1, 1], device=found.device)
    windows = boxes.windows_from_boxes(edges.to(masks.dtype))
    return paste(F.pad(masks, (1, 1, 1, 1)), windows, PHOTOGRAPH, edges="hard")


def targets_inputs(count: int, generator: Generator) -> Inputs:
    """Elliptic objects, an eighth as many as proposals; proposals are these, moved."""
    objects = max(count // 8, 1)
    found = paste_inputs(objects, generator)["found"]
    centre, half = (found[:, :2] + found[:, 2:]) / 2, (found[:, 2:] - found[:, :2]) / 2
    y, x = (torch.arange(side) + 0.5 for side in PHOTOGRAPH)
    x, y = (x - centre[:, :1]) / half[:, :1], (y - centre[:, 1:]) / half[:, 1:]
    masks = (x[:, None, :] ** 2 + y[:, :, None] ** 2 < 1).to(torch.uint8)
    matched = torch.randint(objects, (count,), generator=generator)
    moved = (torch.rand(count, 4, generator=generator) - 0.5) * half.repeat(1, 2)[matched] * 0.4
    proposals = (found[matched] + moved).clamp(min=0).minimum(torch.tensor(PHOTOGRAPH[::-1] * 2))
    return {"masks": masks, "proposals": proposals, "matched": matched}


def targets(masks: Tensor, proposals: Tensor, matched: Tensor, samples: int = -1) -> Tensor:
    from torchvision.ops import roi_align

    rois = torch.cat((matched[:, None].to(proposals), proposals), 1)
    crops: Tensor = roi_align(masks[:, None].to(rois), rois, (28, 28), 1.0, samples)
    return crops


def targets_ours(masks: Tensor, proposals: Tensor, matched: Tensor) -> Tensor:
    rois = torch.cat((matched[:, None].to(proposals), proposals), 1)
    windows, index = boxes.windows_from_rois(rois, aligned=False)
    options = {"interpolation": "area", "boundary": "border", "dtype": proposals.dtype}
    return attention_crop(masks[:, None], windows, 28, image_index=index, **options)


# Trackers: a square around where the target was, a frame at a time, by OpenCV on the CPU.


def siamfc_inputs(count: int, generator: Generator) -> Inputs:
    """``count`` scales around a target near the right edge; a frame as it is decoded, (H, W, C)."""
    frame = torch.randint(256, (720, 1280, 3), generator=generator, dtype=torch.uint8)
    scales = 1.0375 ** torch.linspace(-1, 1, count)
    target = torch.tensor([90.0, 120.0])
    around = (target + target.sum() / 2).prod().sqrt() * 255 / 127
    mean = frame.float().mean((0, 1))  # of the first frame, once
    return {"frame": frame, "mean": mean, "centre": torch.tensor([400.3, 1180.6]), "sides": around * scales}


def siamfc_corners(centre: Tensor, sides: Tensor) -> Tensor:
    """(N, 4): top, left, bottom, right, whole pixels."""
    sides = sides[:, None].round()
    corner = (centre - (sides - 1) / 2).round()
    return torch.cat((corner, corner + sides), 1)


def siamfc(frame: Tensor, mean: Tensor, centre: Tensor, sides: Tensor) -> Tensor:
    import cv2
    import numpy as np

    pixels = frame.numpy()
    colour = mean.tolist()
    crops = []
    for edges in siamfc_corners(centre, sides).numpy().astype(int):
        margin = max(0, *-edges[:2], *(edges[2:] - pixels.shape[:2]))
        padded = pixels
        if margin:
            padded = cv2.copyMakeBorder(pixels, *[margin] * 4, cv2.BORDER_CONSTANT, value=colour)
        top, left, bottom, right = edges + margin
        crops.append(cv2.resize(padded[top:bottom, left:right], (255, 255), interpolation=cv2.INTER_LINEAR))
    batch = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
    return batch.to(sides.dtype)


def siamfc_ours(frame: Tensor, mean: Tensor, centre: Tensor, sides: Tensor) -> Tensor:
    edges = siamfc_corners(centre, sides)[:, [1, 0, 3, 2]]
    options = {"fill": mean.tolist(), "dtype": sides.dtype, "memory_format": torch.contiguous_format}
    return attention_crop(frame.permute(2, 0, 1)[None], [boxes.windows_from_boxes(edges)], 255, **options)


def ostrack_inputs(count: int, generator: Generator) -> Inputs:
    """A target near the lower right corner, left, top, width, height."""
    frame = torch.randint(256, (720, 1280, 3), generator=generator, dtype=torch.uint8)
    return {"frame": frame, "target": torch.tensor([1130.4, 560.7, 96.2, 121.9])}


def ostrack_square(target: Tensor) -> tuple[int, int, int]:
    """Left, top and side: four times the target's, of the geometric mean."""
    x, y, width, height = target.tolist()
    side = int(torch.tensor(width * height).sqrt().mul(4).ceil())
    return round(x + width / 2 - side / 2), round(y + height / 2 - side / 2), side


def ostrack(frame: Tensor, target: Tensor) -> Tensor:
    import cv2

    pixels = frame.numpy()
    left, top, side = ostrack_square(target)
    before = max(0, -top), max(0, -left)
    # As published: where the square reaches the edge, the last row and column are padding, too.
    behind = max(top + side - pixels.shape[0] + 1, 0), max(left + side - pixels.shape[1] + 1, 0)
    part = pixels[top + before[0] : top + side - behind[0], left + before[1] : left + side - behind[1]]
    margins = before[0], behind[0], before[1], behind[1]
    crop = cv2.resize(cv2.copyMakeBorder(part, *margins, cv2.BORDER_CONSTANT), (256, 256))
    batch = torch.from_numpy(crop).to(target.dtype).permute(2, 0, 1)[None]
    return normalised(batch / 255, MEAN, STD)


def ostrack_ours(frame: Tensor, target: Tensor) -> Tensor:
    left, top, side = ostrack_square(target)
    height, width = (
        whole - (end + side >= whole) for whole, end in zip(frame.shape[:2], (top, left), strict=True)
    )
    window = boxes.windows_from_boxes(target.new_tensor([[left, top, left + side, top + side]]))
    unit = 1 if frame.dtype == torch.uint8 else 255
    return attention_crop(
        frame[:height, :width].permute(2, 0, 1)[None],
        window,
        256,
        fill=0,
        mean=[unit * number for number in MEAN],
        std=[unit * number for number in STD],
        dtype=target.dtype,
        memory_format=torch.contiguous_format,
    )
