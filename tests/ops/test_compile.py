# SPDX-License-Identifier: BSD-3-Clause
"""torch.compile and export: whole graphs, right values, gradients and strides, one graph for all sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from samples import generator
from torch import Tensor, nn

from racnn_ops import AttentionCrop, attention_crop

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def sample(device: str, batch: int = 2, height: int = 12, width: int = 14) -> tuple[Tensor, Tensor]:
    g = generator(batch, height, width)
    images = torch.randn(batch, 3, height, width, generator=g).to(device)
    windows = (torch.rand(batch, 3, generator=g) * 3 + 4.03).to(device)
    return images.requires_grad_(), windows.requires_grad_()


def check_same(eager: Any, compiled: Any, images: Tensor, windows: Tensor, exactly: bool = True) -> None:
    """Values, strides and both gradients."""
    results = []
    for function in (eager, compiled):
        out = function(images, windows)
        results.append((out, *torch.autograd.grad(out.float().square().sum(), (images, windows))))
    for one, other in zip(*results, strict=True):
        assert one.stride() == other.stride()
        assert one.dtype == other.dtype
        if exactly:
            assert torch.equal(one, other)
        else:
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"mask_steepness": 0.7, "boundary": "clip", "mean": [0.1, 0.2, 0.3], "std": 0.5},
    {"window_grad": "boxcar", "dtype": torch.float16},
    {"boundary": "border", "dtype": torch.float64},
    {"interpolation": "bicubic", "antialias": True, "fill": 0.5, "std": 0.5},
    {"interpolation": "area", "boundary": "window", "mask_steepness": 0.7, "dtype": torch.float16},
    {"interpolation": "lanczos3", "window_grad": "boxcar", "boundary": "clip"},
    {"interpolation": "nearest"},
]


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_whole_graph(device: str, channels_last: bool, backend: str) -> None:
    for options in OPTIONS if backend == "aot_eager" else [*OPTIONS[1:3], OPTIONS[4]]:
        torch._dynamo.reset()

        def crop(images: Tensor, windows: Tensor, options: dict[str, Any] = options) -> Tensor:
            return attention_crop(images, windows, (5, 6), **options)

        images, windows = sample(device)
        if channels_last:
            images = images.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        check_same(crop, torch.compile(crop, backend=backend, fullgraph=True), images, windows)


class Model(nn.Module):
    """Two scales of RA-CNN in small: features, a window, a crop, features again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.attention = nn.Linear(4, 3)
        self.crop = AttentionCrop(8, mask_steepness=1.0)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        side = images.shape[-1]
        windows = self.attention(self.first(images).mean((2, 3))).sigmoid() * side
        zoomed = self.crop(images, windows.float())
        return self.second(zoomed).relu().mean((2, 3)), windows


@pytest.mark.parametrize("dynamic", [False, True])
def test_model_trains_compiled(device: str, dynamic: bool) -> None:
    torch.manual_seed(0)
    model = Model().to(device)
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic)
    images = torch.randn(2, 3, 16, 16, device=device)
    gradients = []
    for forward in (model, compiled):
        model.zero_grad()
        scores, windows = forward(images)
        (scores.square().sum() + windows.sum()).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert one.abs().sum() > 0
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("backend", "options"),
    [
        ("aot_eager", {}),
        ("inductor", {}),
        ("aot_eager", {"interpolation": "bicubic", "antialias": True, "boundary": "window"}),
        ("aot_eager", {"interpolation": "lanczos3", "boundary": "clip"}),
    ],
    ids=str,
)
def test_no_recompilation_for_other_sizes(device: str, backend: str, options: dict[str, Any]) -> None:
    """Batch, image and crop sizes all change after the one graph was made."""

    def crop(images: Tensor, windows: Tensor, height: int, width: int) -> Tensor:
        return attention_crop(images, windows, (height, width), **options) * 2

    counter = torch._dynamo.testing.CompileCounterWithBackend(backend)
    compiled = torch.compile(crop, backend=counter, fullgraph=True, dynamic=True)
    for batch, height, width, out_height, out_width in (
        (2, 12, 14, 5, 6),
        (3, 20, 9, 7, 4),
        (5, 11, 31, 12, 13),
    ):
        images, windows = sample(device, batch, height, width)
        sized = {"height": out_height, "width": out_width}
        check_same(
            lambda i, w, s=sized: crop(i, w, **s), lambda i, w, s=sized: compiled(i, w, **s), images, windows
        )
    assert counter.frame_count == 1


def test_automatic_dynamic_sizes_recompile_once(device: str) -> None:
    """Without dynamic=True: one graph for the first size, one for all others."""
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(
        lambda i, w: attention_crop(i, w, 6, mask_steepness=0.5), backend=counter, fullgraph=True
    )
    for batch, height, width in ((2, 12, 14), (3, 20, 9), (5, 11, 31), (4, 16, 15)):
        images, windows = sample(device, batch, height, width)
        assert compiled(images, windows).shape == (batch, 3, 6, 6)
    assert counter.frame_count <= 2


def test_errors_are_raised_by_compiled_code(device: str) -> None:
    images, windows = sample(device)
    compiled = torch.compile(lambda i, w: attention_crop(i, w[..., :2], 4), backend="aot_eager")
    with pytest.raises(Exception, match="windows must have shape"):
        compiled(images, windows)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"mask_steepness": 0.7, "window_grad": "exact"},
        {"mask_steepness": 0.7, "window_grad": "boxcar"},
        {"interpolation": "bicubic", "antialias": True, "boundary": "window"},
        {"interpolation": "area", "fill": 0.4},
        {"interpolation": "lanczos3", "window_grad": "boxcar"},
    ],
    ids=str,
)
def test_export(device: str, options: dict[str, Any], strict: bool) -> None:
    module = AttentionCrop((5, 6), mean=[0.1] * 3, std=[0.5] * 3, **options)
    images, windows = (tensor.detach() for tensor in sample(device))
    batch = torch.export.Dim("batch", min=1, max=64)
    side = {2: torch.export.Dim("height", min=2, max=512), 3: torch.export.Dim("width", min=2, max=512)}
    program = torch.export.export(
        module, (images, windows), dynamic_shapes=({0: batch, **side}, {0: batch}), strict=strict
    )
    called = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert torch.ops.racnn_ops._crop_forward.default in called
    for arguments in (sample(device), sample(device, 4, 9, 21)):
        check_same(module, program.module(), *arguments)  # an exported program trains as the module does
