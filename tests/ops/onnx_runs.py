# SPDX-License-Identifier: BSD-3-Clause
"""Crops exported to ONNX and run by onnxruntime, for the tests; needs both."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import onnxruntime
import torch
from samples import SHAPES, generator, make_images, make_windows, window_dtype, window_sizes
from torch import Tensor, nn

from racnn_ops.onnx import translation_table

ANY = torch.export.Dim.DYNAMIC
CHANNELS = torch.export.Dim.AUTO  # fixed by mean and std, and by other layers


def export(module: nn.Module, images: Tensor, windows: Tensor, **options: Any) -> torch.onnx.ONNXProgram:
    """The exported module; the windows' last size stays, the others may change."""
    program = torch.onnx.export(
        module.eval(),
        (images, windows),
        dynamo=True,
        custom_translation_table=translation_table(),
        dynamic_shapes=({0: ANY, 1: CHANNELS, 2: ANY, 3: ANY}, dict.fromkeys(range(windows.dim() - 1), ANY)),
        verbose=False,
        **options,
    )
    assert program is not None
    return program


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


def sample(form: int = 0, dtype: torch.dtype = torch.float32, index: int = 0) -> tuple[Tensor, Tensor]:
    """Images and windows of a shape in `SHAPES`; windows inside, over the edge, outside, some degenerate."""
    shape, g = SHAPES[index], generator(form, dtype, index)
    windows = make_windows(window_sizes(form, shape.batch), shape, g)
    return make_images(shape.images, dtype, g), windows.to(window_dtype(dtype))
