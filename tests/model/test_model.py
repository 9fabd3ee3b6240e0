# SPDX-License-Identifier: BSD-3-Clause
"""The model: shapes, windows, gradients, options, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from trees import random_images, tiny_backbone

from racnn import RACNN, ranking_loss
from racnn.windows import corners
from racnn_ops import attention_crop


def make(scales: int = 3, **options: Any) -> RACNN:
    torch.manual_seed(0)
    return RACNN(5, tiny_backbone, scales, (24, 16), weights=None, hidden=16, **options)


@pytest.mark.parametrize("num_windows", [1, 3])
@pytest.mark.parametrize("crop_from", ["previous", "image"])
@pytest.mark.parametrize("scales", [1, 2, 4])
def test_shapes(scales: int, crop_from: str, num_windows: int) -> None:
    model = make(scales, crop_from=crop_from, num_windows=num_windows)
    output = model(random_images(2))
    assert model.sizes == (24, 16, 16, 16)[:scales]
    assert [tuple(logits.shape) for logits in output.logits] == [(2, 5)] * scales
    assert [tuple(logits.shape) for logits in output.fused_logits] == [(2, 5)] * (scales - 1)
    assert [tuple(d.shape) for d in output.descriptors] == [(2, 12), *[(2, num_windows * 12)] * (scales - 1)]
    assert [tuple(w.shape) for w in output.windows] == [(2, num_windows, 3)] * (scales - 1)
    expected = [(2, 3, 24, 24), *[(2, num_windows, 3, 16, 16)] * (scales - 1)]
    assert [tuple(c.shape) for c in output.crops] == expected
    assert list(output.by_name()) == [
        *map(str, range(1, scales + 1)),
        *["1+2", "1+2+3", "1+2+3+4"][: scales - 1],
    ]
    for probabilities in output.probabilities:
        torch.testing.assert_close(probabilities.sum(1), torch.ones(2))


def test_scales_share_no_parameters() -> None:
    model = make(3)
    seen = [{id(p) for p in scale.parameters()} for scale in model.scales]
    assert not seen[0] & seen[1]
    assert not seen[1] & seen[2]


def test_an_untrained_apn_proposes_half_the_side_in_the_middle() -> None:
    output = make(3)(random_images(2, 48))
    torch.testing.assert_close(
        output.windows[0], torch.tensor([24.0, 24.0, 12.0]).expand(2, 1, 3), atol=0.3, rtol=0
    )
    torch.testing.assert_close(
        output.windows[1], torch.tensor([24.0, 24.0, 6.0]).expand(2, 1, 3), atol=0.3, rtol=0
    )


@pytest.mark.parametrize("source", ["proposed", "response", "centre", "random"])
def test_windows_start_with_the_initial_half_side(source: str) -> None:
    model = make(3, initial_half_side=0.4)
    first, second = model(random_images(2, 48), window_source=source).windows
    torch.testing.assert_close(first[..., 2], torch.full((2, 1), 0.4 * 48), atol=0.3, rtol=0)
    torch.testing.assert_close(second[..., 2], 0.8 * first[..., 2], atol=0.3, rtol=0)


def test_several_windows_start_apart() -> None:
    first, second = make(2, num_windows=2)(random_images(1)).windows[0][0]
    assert (first - second).abs().max() > 5


def given_windows(*numbers: tuple[float, float, float]) -> list[Tensor]:
    return [torch.tensor(window).expand(2, 1, 3) for window in numbers]


def test_crops_from_the_image_are_normalised_pixels_of_it() -> None:
    images = random_images(2)
    windows = given_windows((20.0, 24.0, 11.0), (18.0, 25.0, 5.0))
    output = make(3, crop_from="image")(images, windows)
    for crops, window in zip(output.crops[1:], windows, strict=True):
        expected = (attention_crop(images.float(), window[:, 0], 16, boundary="border") / 255 - 0.5) / 0.25
        torch.testing.assert_close(crops[:, 0], expected)


def test_crops_from_the_previous_input_compose_to_the_same_place() -> None:
    # A smooth image: both ways see the same there, up to the blur of being resampled twice.
    ramp = torch.linspace(0, 1, 48)
    across = ramp.expand(48, 48)
    images = torch.stack((across, across.T, across)).expand(2, 3, 48, 48)
    windows = given_windows((20.0, 24.0, 11.0), (18.0, 25.0, 5.0))
    outputs = [make(3, crop_from=source)(images, windows) for source in ("previous", "image")]
    torch.testing.assert_close(outputs[0].crops[2], outputs[1].crops[2], atol=0.02, rtol=0)
    assert (outputs[0].crops[2] - outputs[0].crops[1]).abs().max() > 0.2


def test_relative_windows_compose_to_windows() -> None:
    output = make(3)(random_images(2, 48))
    first, second = output.windows
    box, inner = corners(first), corners(second)
    assert (inner[..., :2] >= box[..., :2]).all()
    assert (inner[..., 2:] <= box[..., 2:]).all()
    torch.testing.assert_close(second[..., 2], 2 * first[..., 2] * output.relative_windows[1][..., 2])
    assert (second[..., 2] >= first[..., 2] / 3).all()


@pytest.mark.parametrize("crop_from", ["previous", "image"])
@pytest.mark.parametrize("chained", [True, False])
def test_the_chain_carries_gradients_to_coarser_windows(crop_from: str, chained: bool) -> None:
    model = make(3, crop_from=crop_from, chain_gradient=chained)
    output = model(random_images(2))
    output.logits[2].square().sum().backward()
    reached = [model.proposal(n).output.weight.grad is not None for n in (1, 2)]
    assert reached == [chained, True]


@pytest.mark.parametrize("options", [{}, {"window_grad": "boxcar"}, {"mask_steepness": 1.0}])
def test_the_ranking_loss_reaches_every_apn(options: dict[str, Any]) -> None:
    model = make(3)
    model.crop_options |= options
    labels = torch.tensor([0, 1])
    ranking_loss(model(random_images(2)).logits, labels, margin=1.0).backward()
    for n in (1, 2):
        gradient = model.proposal(n).output.weight.grad
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


def test_the_window_gradient_is_the_derivative() -> None:
    model = make(2, crop_from="image")
    images = torch.nn.functional.avg_pool2d(random_images(1).float() / 255, 5, 1, 2)
    window = torch.tensor([[[23.0, 25.0, 10.3]]], requires_grad=True)
    model(images, [window]).logits[1][0, 0].backward()
    assert window.grad is not None
    step = 0.02
    for axis in range(3):
        shift = step * torch.eye(3)[axis]
        with torch.no_grad():
            high = model(images, [window + shift]).logits[1][0, 0]
            low = model(images, [window - shift]).logits[1][0, 0]
        difference = ((high - low) / (2 * step)).item()
        assert window.grad[0, 0, axis].item() == pytest.approx(difference, rel=0.1, abs=2e-4)


def test_random_windows_follow_their_generator() -> None:
    model, images = make(3), random_images(4)
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 1, 2)]
    outputs = [model(images, window_source="random", generator=generator) for generator in generators]
    windows = [output.windows[0] for output in outputs]
    assert torch.equal(windows[0], windows[1])
    assert not torch.equal(windows[0], windows[2])
    assert corners(windows[2]).min() >= 0
    assert corners(windows[2]).max() <= 48


def test_autocast_keeps_windows_and_logits_in_float32() -> None:
    model = make(3)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(random_images(2))
    assert {w.dtype for w in output.windows} == {torch.float32}
    for scale, descriptor, logits in zip(model.each_scale(), output.descriptors, output.logits, strict=True):
        torch.testing.assert_close(scale.classifier(descriptor), logits, rtol=1e-5, atol=1e-6)


def test_state_dict_round_trip() -> None:
    model, other = make(3), RACNN(5, tiny_backbone, 3, (24, 16), weights=None, hidden=16)
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(random_images()).logits[2], other(random_images()).logits[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "num_classes must be a whole number of at least 2, got 1"),
        ({"scales": 0}, "scales must be"),
        ({"num_windows": 0}, "num_windows must be a whole number of at least 1, got 0"),
        ({"sizes": (4,)}, "sizes must be"),
        ({"sizes": ()}, "sizes must be"),
        ({"descriptor": "best"}, "descriptor must be one of 'mean', 'fc', got 'best'"),
        ({"descriptor": "fc"}, "descriptor must be 'mean' for a backbone without a head, got 'fc'"),
        ({"initial_half_side": 0.6}, r"initial_half_side must be in \(0, 0.5\], got 0.6"),
        ({"crop_from": "nowhere"}, "crop_from must be one of 'previous', 'image', got 'nowhere'"),
        ({"mask_steepness": -1.0}, "mask_steepness must be positive"),
        ({"half_side_bounds": (0.0, 1.0)}, "half_side_bounds"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"backbone": "vgg99"}, "backbone must be a callable, 'small' or one of timm.*got 'vgg99'"),
        ({"backbone": lambda weights: nn.Flatten()}, "backbone must give feature maps"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    arguments = {"num_classes": 5, "backbone": tiny_backbone, "sizes": (24, 16), "weights": None} | options
    with pytest.raises(ValueError, match=message):
        RACNN(**arguments)


def test_wrong_inputs_are_refused() -> None:
    model = make(3)
    with pytest.raises(ValueError, match=r"images must have shape \(B, 3, S, S\)"):
        model(torch.zeros(2, 3, 48, 40))
    with pytest.raises(ValueError, match=r"window_source must be one of 'proposed', .*, got 'everywhere'"):
        model(random_images(), window_source="everywhere")
    windows = given_windows((20.0, 24.0, 11.0), (18.0, 25.0, 5.0))
    with pytest.raises(ValueError, match="window_source must not be given together with windows"):
        model(random_images(), windows, window_source="centre")
    with pytest.raises(ValueError, match=r"windows must be 2 tensors of shape \(2, 1, 3\)"):
        model(random_images(), "random")
    with pytest.raises(ValueError, match=r"windows must be 2 tensors of shape \(2, 1, 3\)"):
        model(random_images(), [torch.zeros(2, 1, 3)])
