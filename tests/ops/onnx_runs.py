# SPDX-License-Identifier: BSD-3-Clause
"""Crops exported to ONNX and run by onnxruntime, for the tests; needs both."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import exported
import onnxruntime
import torch
from torch import Tensor, nn


def export(module: nn.Module, *arguments: Tensor, sizes: Any = None, **given: Any) -> torch.onnx.ONNXProgram:
    """As `exported.export`."""
    program = exported.export(module, *arguments, sizes=sizes)
    converted = torch.onnx.export(program, dynamo=True, verbose=False, **given)
    assert converted is not None
    return converted


def runner(program: torch.onnx.ONNXProgram) -> Callable[[Tensor, Tensor], list[Tensor]]:
    """The model's outputs as onnxruntime computes them."""
    model = io.BytesIO()
    program.save(model)
    session = onnxruntime.InferenceSession(model.getvalue(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(*arguments: Tensor) -> list[Tensor]:
        values = (argument.numpy() for argument in arguments)
        return [torch.from_numpy(value) for value in session.run(None, dict(zip(names, values, strict=True)))]

    return run


def crop_with_onnx(module: nn.Module, images: Tensor, windows: Tensor, **options: Any) -> Tensor:
    (crops,) = runner(export(module, images, windows, **options))(images, windows)
    return crops
