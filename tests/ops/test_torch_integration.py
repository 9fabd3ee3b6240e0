# SPDX-License-Identifier: BSD-3-Clause
"""The operator as a part of a PyTorch program: imports, module, autocast, training."""

from __future__ import annotations

import copy
import importlib
import io
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import racnn_ops
from racnn_ops import AttentionCrop, Boxcar, attention_crop, reference
from racnn_ops._options import CropOptions


def test_import_forms() -> None:
    """As with torchvision.ops.roi_align: the module's name and the function's are the same."""
    code = """
import racnn_ops.attention_crop
from racnn_ops import attention_crop
assert callable(attention_crop)
from racnn_ops.attention_crop import AttentionCrop, attention_crop as same
assert same is attention_crop is racnn_ops.attention_crop
assert AttentionCrop is racnn_ops.AttentionCrop
from racnn_ops import reference, Boxcar
assert callable(reference.attention_crop) and Boxcar().steepness == 0.05
"""
    subprocess.run([sys.executable, "-W", "error::ImportWarning", "-c", code], check=True)
    assert importlib.import_module("racnn_ops.attention_crop").AttentionCrop is AttentionCrop
    assert set(racnn_ops.__all__) >= {"AttentionCrop", "Boxcar", "attention_crop", "reference"}


OPTIONS = {
    "mask_steepness": 0.7,
    "boundary": "clip",
    "window_grad": "boxcar",
    "mean": [0.1, 0.2, 0.3],
    "std": 0.5,
    "dtype": torch.float16,
    "boxcar": Boxcar(energy="square"),
}


def test_module_is_the_function(device: str) -> None:
    images = torch.randn(2, 3, 9, 8, device=device)
    for windows in (torch.full((2, 3), 3.7, device=device), torch.full((2, 5, 4), 3.7, device=device)):
        windows.requires_grad_()
        crops = AttentionCrop((5, 6), **OPTIONS)(images, windows)
        exact = attention_crop(images, windows, (5, 6), **OPTIONS)
        assert torch.equal(crops, exact)
        (one,), (other,) = (torch.autograd.grad(c.float().square().sum(), windows) for c in (crops, exact))
        assert torch.equal(one, other)


def test_module_has_no_state_and_copies() -> None:
    module = AttentionCrop((5, 6), **OPTIONS)
    assert module.state_dict() == {}
    assert list(module.parameters()) == []
    saved = io.BytesIO()
    torch.save(module, saved)
    saved.seek(0)
    images, windows = torch.randn(1, 3, 9, 8), torch.tensor([[4.0, 4.0, 3.0]])
    for other in (
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(saved, weights_only=False),
    ):
        assert repr(other) == repr(module)
        assert torch.equal(other(images, windows), module(images, windows))


def test_module_loads_with_weights_only() -> None:
    """Alone its classes have to be allowed; in a model's state_dict it leaves nothing."""
    module, saved = AttentionCrop((5, 6), **OPTIONS), io.BytesIO()
    torch.save(module, saved)
    saved.seek(0)
    with torch.serialization.safe_globals([AttentionCrop, CropOptions, Boxcar]):
        assert repr(torch.load(saved, weights_only=True)) == repr(module)

    model, saved = nn.Sequential(nn.Conv2d(3, 4, 3), module), io.BytesIO()
    torch.save(model.state_dict(), saved)
    saved.seek(0)
    assert copy.deepcopy(model).load_state_dict(torch.load(saved, weights_only=True)) == ([], [])


def test_module_repr() -> None:
    assert (
        repr(AttentionCrop(224))
        == "AttentionCrop(output_size=(224, 224), interpolation='bilinear', antialias=False, "
        "boundary='zeros', window_grad='exact')"
    )
    shown = repr(AttentionCrop((5, 6), **OPTIONS))
    for part in (
        "output_size=(5, 6)",
        "mask_steepness=0.7",
        "boundary='clip'",
        "mean=(0.1, 0.2, 0.3)",
        "std=(0.5,)",
        "dtype=torch.float16",
        "boxcar=Boxcar(steepness=0.05, energy='square'",
    ):
        assert part in shown


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_leaves_windows_alone(device: str, dtype: torch.dtype) -> None:
    """Images may come out of an autocast layer in 16 bits; a window's float32 is not touched."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3, device=device)
    images = torch.randn(2, 3, 40, 40, device=device)
    # Not representable in 16 bits: a cast would move the window by up to 1/16 of a pixel.
    windows = torch.tensor([[17.03127, 19.0417, 9.0173], [16.5019, 20.00917, 8.3337]], device=device)
    windows.requires_grad_()
    with torch.autocast(device, dtype=dtype):
        features = layer(images)
        assert features.dtype == dtype
        crops = attention_crop(features, windows, 7)
        assert crops.dtype == dtype
        assert attention_crop(images, windows, 7).dtype == torch.float32
    outside = attention_crop(features, windows, 7)
    assert torch.equal(crops, outside)
    crops.float().square().sum().backward()
    assert windows.grad.dtype == torch.float32
    assert windows.grad.abs().min() > 0
    assert layer.weight.grad.abs().sum() > 0


def test_windows_learn(device: str) -> None:
    """Gradient descent through the crop finds the square it was shown."""
    axis = torch.arange(48, dtype=torch.float32, device=device)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    images = torch.stack([(x / 9).sin() * (y / 7).cos(), x / 48, y / 48])[None]
    target = attention_crop(images, torch.tensor([[28.0, 20.0, 12.0]], device=device), 16)
    windows = torch.tensor([[22.0, 26.0, 17.0]], device=device, requires_grad=True)
    optimizer = torch.optim.Adam([windows], lr=0.3)
    for _ in range(150):
        optimizer.zero_grad()
        (attention_crop(images, windows, 16) - target).square().mean().backward()
        optimizer.step()
    assert torch.allclose(windows, torch.tensor([[28.0, 20.0, 12.0]], device=device), atol=0.3)


def test_dataparallel_like_threads(device: str) -> None:
    """Several Python threads at once."""
    from concurrent.futures import ThreadPoolExecutor

    images = torch.randn(2, 3, 60, 60, device=device)
    windows = torch.tensor([[30.0, 30.0, 20.3], [20.0, 35.0, 18.1]], device=device)

    def work(_: int) -> torch.Tensor:
        leaf = windows.clone().requires_grad_()
        attention_crop(images, leaf, 64).square().sum().backward()
        return leaf.grad

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(32)))
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoint_has_the_same_gradients(device: str, use_reentrant: bool) -> None:
    """The crop is computed twice, the gradients are the same to the last bit."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3).to(device)
    images = torch.randn(2, 3, 20, 20, device=device, requires_grad=True)
    windows = torch.tensor([[9.0, 10.0, 6.1], [12.0, 7.0, 9.3]], device=device, requires_grad=True)
    inputs = (images, windows, *layer.parameters())

    def zoom(images: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        return layer(attention_crop(images, windows, 9, mask_steepness=0.7)).square()

    exact = torch.autograd.grad(zoom(images, windows).mean(), inputs)
    checkpoint(zoom, images, windows, use_reentrant=use_reentrant).mean().backward()
    for tensor, gradient in zip(inputs, exact, strict=True):
        assert gradient.abs().max() > 0
        assert torch.equal(tensor.grad, gradient)


def test_reference_answers_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("racnn_ops._library.has_cpu", False)
    images, windows = torch.randn(1, 3, 9, 8), torch.tensor([[4.0, 4.0, 3.0]])
    assert torch.equal(attention_crop(images, windows, 5), reference.attention_crop(images, windows, 5))
