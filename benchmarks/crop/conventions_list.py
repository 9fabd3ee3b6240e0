# SPDX-License-Identifier: BSD-3-Clause
"""How others write where to crop, as code on both sides; ``benchmarks/conventions.py`` runs and draws it."""

from __future__ import annotations

from typing import NamedTuple

H, W = 6, 8


class Convention(NamedTuple):
    """All code sees the names of ``benchmarks/conventions.py``, its ``NAMES`` and ``image``, (1, 2, H, W)."""

    name: str
    title: str
    text: str
    given: str
    """Statements."""
    windows: str
    """An expression, (1, 3) or (1, 4)."""
    theirs: str = ""
    """Ends with an expression: the crops (1, 2, h, w) of others, who must sample where we do. Empty: none."""
    size: tuple[int, int] = (3, 4)
    flip: bool = False
    box: str = ""
    """An expression: a box (4,) in pixels of the image, which is drawn, too."""


GROUPS: dict[str, tuple[Convention, ...]] = {
    "Windows": (
        Convention(
            "window",
            "`tx, ty, tl`",
            "Centre and half side, in pixels: a square.",
            "windows = torch.tensor([[3.5, 2.75, 1.75]])",
            "windows",
            size=(3, 3),
        ),
        Convention(
            "window-sides",
            "`tx, ty, tw, th`",
            "Centre and a half side for each axis. All boxes below become this.",
            "windows = torch.tensor([[3.5, 2.75, 2.5, 1.75]])",
            "windows",
        ),
        Convention(
            "flip",
            "`flip`",
            "The same samples in the opposite order: a square marks the crop's first.",
            "windows = torch.tensor([[3.5, 2.75, 2.5, 1.75]])\nflip = torch.tensor([True])",
            "windows",
            "attention_crop(image, windows, (3, 4)).flip(-1)",
            flip=True,
        ),
    ),
    "Boxes in pixels": (
        Convention(
            "xyxy",
            "`xyxy`: left, top, right, bottom",
            "Edges are edges, as in torchvision's boxes and in `roi_align(aligned=True)`.",
            "found = torch.tensor([[1.0, 1.0, 6.0, 4.5]])",
            "boxes.windows_from_boxes(found)",
            "roi_align(image, [found], (3, 4), sampling_ratio=1, aligned=True)",
        ),
        Convention(
            "xywh",
            "`xywh`: left, top, width, height",
            "COCO's; `resized_crop` takes them as top, left, height, width.",
            "found = torch.tensor([[1.0, 1.0, 5.0, 4.0]])",
            'boxes.windows_from_boxes(found, "xywh")',
            "v2.functional.resized_crop(image, 1, 1, 4, 5, [3, 4], antialias=False)",
        ),
        Convention(
            "cxcywh",
            "`cxcywh`: centre, width, height",
            "Whole sides, where a window has half sides.",
            "found = torch.tensor([[3.5, 2.75, 5.0, 3.5]])",
            'boxes.windows_from_boxes(found, "cxcywh")',
            'corners = box_convert(found, "cxcywh", "xyxy")\n'
            "roi_align(image, [corners], (3, 4), sampling_ratio=1, aligned=True)",
        ),
        Convention(
            "pil",
            "PIL's `box`",
            "Left, upper, right, lower of `Image.resize` and `Image.crop`: edges.",
            "found = torch.tensor([[1.5, 1.0, 4.5, 3.25]])",
            "boxes.windows_from_boxes(found)",
            "each_plane(\n"
            "    lambda plane: Image.fromarray(plane).resize(\n"
            "        (4, 3), Image.Resampling.BILINEAR, box=tuple(found[0].tolist())\n"
            "    )\n"
            ")",
        ),
        Convention(
            "inclusive",
            "First and last pixel, counted from 1",
            "Pascal VOC's files: subtract 1 from the first. Where pixels count from 0, add 1 to the last.",
            "found = torch.tensor([[2, 2, 6, 5]])",
            "boxes.windows_from_boxes(found - torch.tensor([1, 1, 0, 0]))",
            'F.interpolate(image[..., 2 - 1 : 5, 2 - 1 : 6], (3, 4), mode="bilinear")',
        ),
    ),
    "Boxes relative to the image": (
        Convention(
            "relative",
            "`xyxy` from 0 to 1",
            "1 is the right or lower edge of the image, whose `H, W` is given as `size`.",
            "found = torch.tensor([[1 / W, 1 / H, 6 / W, 4.5 / H]])",
            "boxes.windows_from_boxes(found, size=(H, W))",
            "corners = found * torch.tensor([W, H, W, H])\n"
            "roi_align(image, [corners], (3, 4), sampling_ratio=1, aligned=True)",
        ),
        Convention(
            "yolo",
            "YOLO's `cxcywh` from 0 to 1",
            "Centre, width, height.",
            "found = torch.tensor([[3.5 / W, 2.75 / H, 5 / W, 3.5 / H]])",
            'boxes.windows_from_boxes(found, "cxcywh", (H, W))',
            'corners = box_convert(found, "cxcywh", "xyxy") * torch.tensor([W, H, W, H])\n'
            "roi_align(image, [corners], (3, 4), sampling_ratio=1, aligned=True)",
        ),
        Convention(
            "tensorflow",
            "`tf.image.crop_and_resize`",
            "Top, left, bottom, right; 0 is the centre of the first pixel, 1 that of the last. Compared with "
            "the formula of its documentation: TensorFlow is not run.",
            "found = torch.tensor([[0.1, 0.2, 0.7, 0.9]])",
            "boxes.windows_from_boxes(\n"
            "    found[:, [1, 0, 3, 2]], size=(H, W), align_corners=True, output_size=(3, 4)\n"
            ")",
            "x, y = torch.linspace(0.2, 0.9, 4), torch.linspace(0.1, 0.7, 3)\n"
            'grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None] * 2 - 1\n'
            "F.grid_sample(image, grid, align_corners=True)",
        ),
    ),
    "Samplers": (
        Convention(
            "grid-sample",
            "`grid_sample(align_corners=False)`",
            "`affine_grid`'s matrix: scale and shift, where -1 and 1 are the image's edges.",
            "theta = torch.tensor([[[0.5, 0.0, 0.25], [0.0, 0.6, -0.2]]])",
            "boxes.windows_from_theta(theta, (H, W))",
            "grid = F.affine_grid(theta, [1, 2, 3, 4], align_corners=False)\n"
            "F.grid_sample(image, grid, align_corners=False)",
        ),
        Convention(
            "grid-sample-corners",
            "`grid_sample(align_corners=True)`",
            "The same matrix where -1 and 1 are the centres of the outermost pixels and samples.",
            "theta = torch.tensor([[[0.5, 0.0, 0.25], [0.0, 0.6, -0.2]]])",
            "boxes.windows_from_theta(\n    theta, (H, W), align_corners=True, output_size=(3, 4)\n)",
            "grid = F.affine_grid(theta, [1, 2, 3, 4], align_corners=True)\n"
            "F.grid_sample(image, grid, align_corners=True)",
        ),
        Convention(
            "kornia",
            "kornia's `crop_and_resize`",
            "Corners are the outermost samples, and 0 is the centre of the first pixel.",
            "corners = torch.tensor([[[1.0, 1.0], [6.0, 1.0], [6.0, 4.0], [1.0, 4.0]]])",
            "boxes.windows_from_boxes(\n"
            "    corners[:, [0, 2]].flatten(1), align_corners=True, output_size=(3, 4)\n"
            ")",
            "kornia.crop_and_resize(image, corners, (3, 4))",
        ),
        Convention(
            "warp-affine",
            "OpenCV's `warpAffine`",
            "From the crop's pixels to the image's, both by their centres: column j is read at 1.25 j + 1.",
            "matrix = torch.tensor([[1.25, 0.0, 1.0], [0.0, 1.5, 0.5]])\n"
            "outermost = torch.tensor([[0.0, 0.0, 1.0], [3.0, 2.0, 1.0]]) @ matrix.T",
            "boxes.windows_from_boxes(\n    outermost.view(1, 4), align_corners=True, output_size=(3, 4)\n)",
            "flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP\n"
            "each_plane(lambda plane: cv2.warpAffine(plane, matrix.numpy(), (4, 3), flags=flags))",
        ),
        Convention(
            "roi-align",
            "`roi_align` by default",
            "`aligned=False`: half a pixel further right and down, a pixel wide and high at least.",
            "found = torch.tensor([[1.0, 1.0, 6.0, 4.5]])",
            "boxes.windows_from_rois([found], aligned=False)[0]",
            "roi_align(image, [found], (3, 4), sampling_ratio=1)",
        ),
        Convention(
            "roi-align-scale",
            "`roi_align` with `spatial_scale`",
            "The image's number, then a box in pixels of what the feature map was made from.",
            "rois = torch.tensor([[0.0, 2.0, 2.0, 12.0, 9.0]])",
            "boxes.windows_from_rois(rois, spatial_scale=0.5)[0]",
            "roi_align(image, rois, (3, 4), spatial_scale=0.5, sampling_ratio=1, aligned=True)",
        ),
    ),
    "Crops": (
        Convention(
            "letterbox",
            "A letterbox",
            "The whole image in the crop's middle; what lies beyond is `fill`.",
            "",
            "boxes.letterbox((H, W), (5, 5))[None]",
            'F.interpolate(F.pad(image, (0, 0, 1, 1), value=torch.nan), (5, 5), mode="bilinear")',
            size=(5, 5),
        ),
        Convention(
            "boxes-to-image",
            "Boxes found in a crop",
            "In pixels of the crop, its edges being 0 and its sides; `boxes_to_crop` is the inverse. "
            "Green: the box, in the image.",
            "windows = torch.tensor([[3.5, 2.75, 2.5, 1.75]])\nin_crop = torch.tensor([1.0, 1.0, 3.0, 2.0])",
            "windows",
            box="boxes.boxes_to_image(in_crop, windows[0], (3, 4))",
        ),
        Convention(
            "relative-window",
            "RA-CNN's relative windows",
            "In units of the coarser window's side (green): 0.5, 0.5, 0.5 is all of it.",
            "coarser = torch.tensor([[4.0, 3.0, 3.0]])\nrelative = torch.tensor([[0.4, 0.5, 0.25]])",
            "geometry.compose(coarser, relative)",
            size=(3, 3),
            box="boxes.boxes_from_windows(coarser[0])",
        ),
    ),
}
CONVENTIONS = {convention.name: convention for group in GROUPS.values() for convention in group}
