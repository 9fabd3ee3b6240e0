# SPDX-License-Identifier: BSD-3-Clause
"""The whole model in one file for other programs: images in, logits and windows out, any batch."""

from __future__ import annotations

import json
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from racnn_ops import decompositions

from .model import RACNN
from .output import printable
from .targets import written_whole

METADATA = "racnn.json"
"""Names what every format carries beside the graph: classes and image side, as JSON."""


class Inference(nn.Module):
    """A model as other programs see it.

    Shapes: images (B, 3, S, S), uint8, S being the side in ``model.usage``. Results, by name, for scales n:
    ``logits_n`` (B, classes), ``fused_logits_n`` of scales 1 to n, from 2 on, and ``windows_n`` (B, K, 3),
    ``tx, ty, tl`` in pixels of the images, from 2 on.
    """

    def __init__(self, model: RACNN) -> None:
        super().__init__()
        self.model, self.window_source = model, model.usage.window_source

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        output = self.model(images, window_source=self.window_source)
        named = {f"logits_{n}": logits for n, logits in enumerate(output.logits, 1)}
        named |= {f"fused_logits_{n}": logits for n, logits in enumerate(output.fused_logits, 2)}
        return named | {f"windows_{n}": windows for n, windows in enumerate(output.windows, 2)}


def export(model: RACNN, file: str | Path) -> None:
    """Write the whole model, normalisation of pixels included, to a new file.

    Args:
        model: in evaluation mode; what is exported is its :class:`Inference`. ``model.usage`` says how large
            images are and where windows come from.
        file: its ending says what it becomes. ``.pt2``: a program for ``torch.export.load``;
            ``.aten.pt2``: the same of ATen operators alone, slower, which OpenVINO and ExecuTorch take too;
            ``.aoti.pt2``: one compiled for this machine and the model's device, for
            ``torch._inductor.aoti_load_package`` and C++, which takes a compiler and minutes; ``.onnx``.

    ``.pt2`` and ``.aoti.pt2`` need ``import racnn_ops``, or its library, where they run; the others nothing.

    Raises:
        ValueError: another ending, the file is there already, the model is in training mode, its windows are
            random, or the backbone holds what the format cannot express.
        ImportError: ONNX without the packages onnx and onnxscript.
        OSError: the file cannot be written.
    """
    path = Path(file)
    write = writer_of(path)
    usage = model.usage.check(model.num_classes)
    if usage.window_source == "random":
        raise ValueError(
            "window_source must not be 'random' for a model to be exported: a file has no generator"
        )
    if model.training:
        raise ValueError("the model must be in evaluation mode to be exported: call model.eval()")
    images = torch.zeros(
        2, 3, usage.image_side, usage.image_side, dtype=torch.uint8, device=model.mean.device
    )
    metadata = json.dumps({"classes": list(usage.classes), "image_side": usage.image_side})
    batch = torch.export.Dim("batch", min=1)
    try:
        with written_whole(path) as temporary, torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about itself
            program = torch.export.export(Inference(model), (images,), dynamic_shapes=({0: batch},))
            write(program, temporary, metadata)
    except RuntimeError as error:  # of torch's exporters and compilers
        raise ValueError(f"the model cannot become {printable(path)!r}: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    """What began it, in one line; the exporters' own message is what they advise."""
    while error.__cause__ is not None:
        error = error.__cause__
    return printable(textwrap.shorten(str(error), 250, placeholder=" ..."))


Writer = Callable[[ExportedProgram, Path, str], None]


def writer_of(file: Path) -> Writer:
    """Raises ValueError for endings that no format has."""
    for ending, write in _WRITERS.items():
        if file.name.endswith(ending) and file.name != ending:
            return write
    raise ValueError(f"the file must end with one of {', '.join(_WRITERS)}, got {printable(file)!r}")


def _program(program: ExportedProgram, file: Path, metadata: str) -> None:
    torch.export.save(program, file, extra_files={METADATA: metadata})


def _aten(program: ExportedProgram, file: Path, metadata: str) -> None:
    _program(program.run_decompositions(decompositions()), file, metadata)


def _compiled(program: ExportedProgram, file: Path, metadata: str) -> None:
    options = {"aot_inductor.metadata": {METADATA: metadata}}
    torch._inductor.aoti_compile_and_package(program, package_path=str(file), inductor_configs=options)


def _onnx(program: ExportedProgram, file: Path, metadata: str) -> None:
    exported = torch.onnx.export(
        program.run_decompositions(decompositions()),
        dynamo=True,
        custom_translation_table={torch.ops.aten.adaptive_max_pool2d.default: _adaptive_max_pool},
        input_names=["images"],
        output_names=list(program.call_spec.out_spec.context),  # the keys of the dict
        verbose=False,
    )
    assert exported is not None
    graph: Any = exported.model.graph
    for value in (*graph.inputs, *graph.outputs):
        value.shape[0] = "batch"  # the program's own name is s and a number
    exported.model.metadata_props[METADATA] = metadata
    exported.save(file)


def _adaptive_max_pool(features: Any, output_size: Any) -> tuple[Any, Any]:
    """Of any sides: torch translates none but those that divide. The second output, which torch wants too and
    a pooling does not use, would be positions."""
    from onnxscript import opset18

    op: Any = opset18
    for axis, side, count in zip((2, 3), features.shape[2:], output_size, strict=True):
        bins = [range(n * side // count, -(-(n + 1) * side // count)) for n in range(count)]
        longest = max(map(len, bins))
        indices = [min(part[0] + k, part[-1]) for part in bins for k in range(longest)]
        table = op.Reshape(op.Constant(value_ints=indices), op.Constant(value_ints=[count, longest]))
        features = op.ReduceMax(op.Gather(features, table, axis=axis), [axis + 1], keepdims=0)
    return features, op.Shape(features)


_WRITERS: dict[str, Writer] = {
    ".aoti.pt2": _compiled,
    ".aten.pt2": _aten,
    ".pt2": _program,  # behind the longer endings
    ".onnx": _onnx,
}
