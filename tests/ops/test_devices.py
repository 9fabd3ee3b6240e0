# SPDX-License-Identifier: BSD-3-Clause
"""What only GPUs can show: a first call inside a graph, calls on a device that is not the current one."""

from __future__ import annotations

import sys

import pytest
import torch
from conftest import needs_cuda
from programs import run_checked
from torch import Tensor

from racnn_ops import attention_crop

# In a process of its own, so that no kernel has been loaded before. Replayed on other pixels than captured.
FIRST_CALL_IN_A_GRAPH = """
import torch
from racnn_ops import attention_crop

images = torch.zeros(2, 3, 40, 50, device="cuda", requires_grad=True)
windows = torch.tensor([[20.0, 18.5, 12.3], [3.0, 30.0, 16.1]], device="cuda", requires_grad=True)
grad_output = torch.ones(2, 3, 24, 24, device="cuda")

def everything():
    results = []
    for window_grad in ("exact", "boxcar"):
        crops = attention_crop(images, windows, 24, window_grad=window_grad)
        results += [crops, *torch.autograd.grad(crops, (images, windows), grad_output)]
    return results

graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    captured = everything()
with torch.no_grad():
    images.uniform_()
    grad_output.uniform_()
graph.replay()
for one, other in zip(captured, everything(), strict=True):
    assert other.abs().max() > 0 and torch.equal(one, other)
"""


@needs_cuda
def test_first_call_in_a_cuda_graph() -> None:
    run_checked(sys.executable, "-c", FIRST_CALL_IN_A_GRAPH)


def everything(device: str | torch.device) -> list[Tensor]:
    """Crops and gradients of the same inputs, on the CPU afterwards."""
    g = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 40, 50, generator=g).to(device).requires_grad_()
    windows = torch.tensor([[20.0, 18.5, 12.3], [3.0, 30.0, 16.1]], device=device).requires_grad_()
    grad_output = torch.randn(2, 3, 24, 24, generator=g).to(device)
    results = []
    for window_grad in ("exact", "boxcar"):
        crops = attention_crop(images, windows, 24, window_grad=window_grad)
        results += [crops, *torch.autograd.grad(crops, (images, windows), grad_output, create_graph=True)]
    slopes = torch.autograd.grad(results[2].sum(), (images, windows))  # the kernels of tap tables
    assert all(result.device == images.device for result in (*results, *slopes))
    return [result.detach().cpu() for result in (*results, *slopes)]


@needs_cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU: there is no other than the current")
def test_cuda_device_that_is_not_current() -> None:
    with torch.cuda.device(0):
        on_first, on_second = everything("cuda:0"), everything("cuda:1")
        assert torch.cuda.current_device() == 0
    for one, other in zip(on_first, on_second, strict=True):
        torch.testing.assert_close(one, other)
