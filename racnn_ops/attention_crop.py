# SPDX-License-Identifier: BSD-3-Clause
"""``attention_crop`` and ``AttentionCrop``: crop a window out of an image and zoom it, differentiably."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ._arguments import check_arguments, check_options
from ._dispatch import crop
from ._options import Boxcar

__all__ = ["AttentionCrop", "attention_crop"]


def attention_crop(
    images: Tensor | Sequence[Tensor],
    windows: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    *,
    interpolation: str = "bilinear",
    antialias: bool = False,
    mask_steepness: float | None = None,
    boundary: str = "zeros",
    fill: float | Sequence[float] | None = None,
    window_grad: str = "exact",
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    boxcar: Boxcar | None = None,
    flip: Tensor | None = None,
    image_index: Tensor | None = None,
) -> Tensor:
    """Cut windows out of images and zoom them to one size, in one pass.

    Differentiable in the images and in the windows; deterministic, in both gradients, for any number of
    threads. The crop-and-amplify step of RA-CNN (Fu, Zheng, Mei, "Look Closer to See Better", CVPR 2017,
    section 3.2).

    Pixel ``i`` covers ``[i, i + 1)``. Output column ``j`` of ``w`` samples at
    ``tx + tl * ((2j + 1)/w - 1)``, rows alike: the window's edges are the crop's edges
    (``align_corners=False``). By default nothing is averaged: where the window holds more pixels than the
    crop, samples skip some, as in ``grid_sample``; ``antialias``, ``"area"`` and ``"lanczos3"`` read all.

    Args:
        images (Tensor[B, C, H, W]): float16, bfloat16, float32, float64 or uint8, with ``"nearest"`` any
            other integer dtype or bool, too, whose pixels are selected exactly; contiguous and
            channels_last are read as they are, as is any other stride; on a CPU, where neighbouring pixels
            lie in different cache lines (transposed, batch innermost), what windows read is copied first.
            Or a list of images ``(C, H, W)`` of different sizes, of one dtype, device and C, with a list of
            windows or ``image_index``.
        windows (Tensor[B, 3] or Tensor[B, K, 3]): ``tx, ty, tl``, centre and half side in pixels; or
            ``(B, 4)``, ``(B, K, 4)``: ``tx, ty, tw, th``, with a half side for each axis. float32
            (float64 with float64 images), under autocast too. A half side of 0 or less counts as 0 and
            keeps the gradient of 0. A window with NaN or infinity gives a crop of NaN (0 for integers) and
            a NaN gradient to itself, and touches nothing else. Or a list of ``(K, 3)`` or ``(K, 4)``, one
            for each image, K its own; or, with ``image_index``, ``(N, 3)`` or ``(N, 4)``.
        output_size (int or (int, int)): ``h, w`` of a crop.
        interpolation (str): ``"nearest"``, the pixel in which the position lies (no gradient to windows);
            ``"bilinear"``; ``"bicubic"``, Keys' cubic with A = -0.75 (-0.5 with ``antialias``);
            ``"lanczos3"``, always antialiased; ``"area"``, the mean of the bilinear interpolant over what
            an output covers, as in PrRoIPool. Labels want ``"nearest"``, zooms ``"bilinear"``, reductions
            ``antialias``, photographs for people ``"bicubic"`` or ``"lanczos3"``, feature maps ``"area"``.
        antialias (bool): stretch ``"bilinear"`` and ``"bicubic"`` by the reduction in size, as
            ``interpolate(antialias=True)``, torchvision's ``resized_crop`` and PIL's ``resize`` do.
        mask_steepness (float, optional): k of the paper's soft boxcar mask (equations 5 and 6), per
            pixel, up to 1e9; the image is multiplied with the mask around the window before it is sampled.
        boundary (str): what lies outside the image: ``"zeros"``; ``"border"``, the nearest edge pixel;
            ``"clip"``, where the window is clipped to the image first (as in the authors' release); or
            ``"window"``, where outputs read the window's own pixels only, as a crop before a resize does.
            With ``antialias`` weights are normalised over all pixels there could be (``"zeros"``) or over
            those that may be read (the others).
        fill (float or sequence, optional): what lies outside the image under ``boundary="zeros"``, in the
            units of ``images`` (0 to 255 for uint8), one number or one per channel: a pixel like any other,
            normalised with the rest. By default (None) the outside is 0 after normalisation. Not with
            another boundary or ``mask_steepness``. At most 1e15 in magnitude; float32 crops are as exact
            as numbers of its magnitude are. Where integers or bools are selected, one of their values.
        window_grad (str): ``"exact"``, the derivative of what is computed; or ``"boxcar"``, RA-CNN's
            surrogate, which looks at the incoming gradient alone (see :class:`racnn_ops.Boxcar`).
        mean, std (float or sequence, optional): normalise on the way, one number or one per channel:
            ``(x / 255 - mean) / std`` for uint8 images, ``(x - mean) / std`` for others. With only one of
            them given the other is 0 or 1; with neither, values stay as they are. ``mean`` is at most 1e15
            in magnitude, ``std`` between 1e-15 and 1e15.
        dtype (torch.dtype, optional): of the result; by default that of the images (float32 for uint8
            images that are normalised). uint8 results are rounded and saturated. Of selected integers and
            bools it is theirs, and neither ``mean``, ``std`` nor ``mask_steepness`` may be given.
        memory_format (torch.memory_format, optional): of the result, ``torch.contiguous_format`` or
            ``torch.channels_last``, whatever that of the images is, in the same pass; by default theirs.
            Frames as decoders give them, uint8 (B, H, W, C), enter as ``frames.permute(0, 3, 1, 2)``.
        boxcar (Boxcar, optional): options of ``window_grad="boxcar"``.
        flip (Tensor[B], Tensor[B, K] or Tensor[N], optional): bool; crops that are mirrored left-right, as
            ``crop.flip(-1)`` is. On CPUs, where nothing is differentiated, without a further pass.
        image_index (Tensor[N], optional): int32 or int64, on the windows' device: window n is cut out of
            ``images[image_index[n]]``, in any order and number. Where there is no such image the crop is NaN
            (0 for integers), and nothing has a gradient; a GPU is not waited for, but with a list of images.

    Returns:
        Tensor[B, C, h, w]; Tensor[B, K, C, h, w] for ``(B, K, ...)`` windows; Tensor[N, C, h, w] with
        ``image_index`` or a list of windows, of all images one behind the other. Dense in memory; of a list
        of images channels_last where all of them are.

    Raises:
        TypeError, ValueError: before any work, naming the argument, what it was and what is allowed.

    Example:
        >>> images = torch.arange(16.0).view(1, 1, 4, 4)
        >>> windows = torch.tensor([[2.0, 2.0, 1.0]], requires_grad=True)  # the middle two by two pixels
        >>> crop = attention_crop(images, windows, 2)
        >>> crop.detach().squeeze()
        tensor([[ 5.,  6.],
                [ 9., 10.]])
        >>> crop.sum().backward()  # one to the right is 1 more, one down is 4 more, in each of four outputs
        >>> windows.grad
        tensor([[ 4., 16.,  0.]])
    """
    options = check_options(
        *(output_size, interpolation, antialias, mask_steepness, boundary, fill),
        *(window_grad, mean, std, dtype, memory_format, boxcar),
    )
    check_arguments(images, windows, options, flip, image_index)
    return crop(images, windows, options, flip, image_index)


class AttentionCrop(nn.Module):
    """:func:`attention_crop` as a module: the options at construction, the tensors at each call.

    Shapes: ``images`` (B, C, H, W), ``windows`` (B, 3 | 4) or (B, K, 3 | 4), ``flip`` (B,) or (B, K), result
    (B, [K,] C, h, w); with lists or ``image_index`` as there. It has no parameters.

    Example:
        >>> crop = AttentionCrop(224, boundary="border")
        >>> crop(torch.rand(2, 3, 448, 448), torch.tensor([[224.0, 224.0, 96.0]] * 2)).shape
        torch.Size([2, 3, 224, 224])
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        *,
        interpolation: str = "bilinear",
        antialias: bool = False,
        mask_steepness: float | None = None,
        boundary: str = "zeros",
        fill: float | Sequence[float] | None = None,
        window_grad: str = "exact",
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        dtype: torch.dtype | None = None,
        memory_format: torch.memory_format | None = None,
        boxcar: Boxcar | None = None,
    ) -> None:
        super().__init__()
        self.options = check_options(
            *(output_size, interpolation, antialias, mask_steepness, boundary, fill),
            *(window_grad, mean, std, dtype, memory_format, boxcar),
        )

    def forward(
        self,
        images: Tensor | Sequence[Tensor],
        windows: Tensor | Sequence[Tensor],
        flip: Tensor | None = None,
        image_index: Tensor | None = None,
    ) -> Tensor:
        """See :func:`attention_crop`."""
        check_arguments(images, windows, self.options, flip, image_index)
        return crop(images, windows, self.options, flip, image_index)

    def extra_repr(self) -> str:
        shown = {name: value for name, value in self.options._asdict().items() if value is not None}
        if self.options.window_grad != "boxcar":
            del shown["boxcar"]
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())
