# SPDX-License-Identifier: BSD-3-Clause
"""Ways in which a loss reaches ``tx, ty, tl``: the exact gradient, differences, and the surrogates in use.

All of them look through the same crop, that of ``racnn_ops``; only what comes back to the window differs.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from racnn import RACNN, Backbone
from racnn.training.differences import TrueClassProbability, slopes
from racnn_ops import Boxcar


class Method(NamedTuple):
    """What comes back to a window.

    Attributes:
        window_grad: ``"exact"``, ``"thirds"``, or ``"boxcar"`` with these options (None: the model's).
        moved: the gradient is taken at a window moved at random, with this standard deviation in half sides.
        step: of a central difference, in half sides; 0: a gradient.
    """

    window_grad: str = "exact"
    boxcar: Boxcar | None = None
    moved: float = 0.0
    step: float = 0.0


def use(model: RACNN, method: Method) -> None:
    """Let the model's crops send to windows what the method says; ``"thirds"`` by a :class:`Reader` alone."""
    if isinstance(model, Reader):
        model.thirds = method.window_grad == "thirds"
    model.crop_options["window_grad"] = "boxcar" if method.window_grad == "boxcar" else "exact"
    if method.boxcar is not None:
        model.crop_options["boxcar"] = method.boxcar


def negative_probability(model: RACNN, images: Tensor, labels: Tensor, windows: Tensor) -> Tensor:
    """Minus the sum of p of the true class at scale 2 through windows (B, 3), in pixels: their loss.

    It must be this and not p, whose gradient is the opposite: the surrogates do not see the sign.
    """
    output = model(images, [windows.unsqueeze(1)])
    return -output.probabilities[1].gather(1, labels[:, None]).sum()


def probability_slope(model: RACNN, images: Tensor, labels: Tensor, windows: Tensor, step: float) -> Tensor:
    """(B, 3): central differences of the same p, per pixel."""
    side = images.shape[-1]
    with torch.no_grad():
        output = model(images, scales=1)
    probability = TrueClassProbability(model, images, labels, output, 2)
    return slopes(probability, windows.detach().unsqueeze(1) / side, step)[:, 0] / side


def thirds_window_grad(grad_output: Tensor) -> Tensor:
    """What the public PyTorch code sends to a window: energy of the gradient by thirds of the crop.

    Reproduces ``AttentionCropFunction.backward`` of jeong-tae/RACNN-pytorch and klrc/RACNN-pytorch, for any
    size of the crop. With ``e`` the squared norm of ``grad_output`` over channels, the gradient of

    - ``tx``: minus (``e`` in the last third of the columns - ``e`` in the first);
    - ``ty``: the same of rows;
    - ``tl``: minus (``e`` outside the central ninth - ``e`` inside).

    An optimiser subtracts it: a window moves to where the crop has more of ``e``, and grows unless the
    central ninth has more than half of it. Whether the loss rises or falls with a pixel plays no part.

    Left out are defects that are not the idea: 224 pixels written into the backward, x as the axis of rows
    (in jeong-tae's against its own forward), and of the forward the edges cut to whole pixels, the mask on
    whole pixels, the loop over the batch and the floor of tl.

    Args:
        grad_output: (B, K, C, h, w).

    Returns:
        Tensor[B, K, 3]
    """
    energy = grad_output.square().sum(2)
    (first_x, last_x), (first_y, last_y) = (_outer_thirds(energy, n) for n in (-1, -2))
    outside = ((first_x + last_x) + (first_y + last_y).unsqueeze(-1)).clamp(max=1)
    maps = (last_x - first_x, (last_y - first_y).unsqueeze(-1), 2 * outside - 1)
    return -torch.stack([(energy * m).sum((-2, -1)) for m in maps], -1)


def _outer_thirds(energy: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """1 in the first third along an axis, 1 in the last."""
    size = energy.shape[axis]
    place = torch.arange(size, device=energy.device)
    return (place < size / 3).to(energy), (place >= size / 3 * 2).to(energy)


class WithThirds(torch.autograd.Function):
    """Crops (B, K, C, h, w), with :func:`thirds_window_grad` as gradient of their windows (B, K, 3)."""

    @staticmethod
    def forward(ctx: Any, crops: Tensor, windows: Tensor) -> Tensor:
        return crops.clone()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor]:
        return grad_output, thirds_window_grad(grad_output)


class Reader(RACNN):
    """A slim RA-CNN of two scales for canvases with digits, which looks through any method."""

    thirds = False

    def __init__(self, sizes: tuple[int, int], least: float) -> None:
        # Scale 1 is cheap; scale 2 is smooth, so that its p says something to a derivative.
        made = iter((_network(2, nn.ReLU), _network(1, nn.SiLU)))
        super().__init__(
            10,
            lambda weights: Backbone(next(made), (0.2,) * 3, (0.3,) * 3),
            2,
            sizes,
            weights=None,
            crop_from="image",
            half_side_bounds=(least, 1.0),
            hidden=128,
        )

    def cut(self, images: Tensor, windows: Tensor, size: int, **normalisation: Any) -> Tensor:
        if not self.thirds:
            return super().cut(images, windows, size, **normalisation)
        crops = super().cut(images, windows.detach(), size, **normalisation)
        return WithThirds.apply(crops, windows)


CHANNELS = (3, 16, 32, 64)


def _network(stride: int, activation: type[nn.Module]) -> nn.Module:
    """Halves the side three times: by strides or, with a stride of 1, by averages."""
    layers: list[nn.Module] = []
    for i, o in itertools.pairwise(CHANNELS):
        layers += [nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), activation()]
        layers += [nn.AvgPool2d(2)] * (stride == 1)
    return nn.Sequential(*layers, nn.Conv2d(64, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), activation())
