# SPDX-License-Identifier: BSD-3-Clause
"""``torch.onnx.export`` of models that call ``attention_crop``; needs the packages onnx and onnxscript.

::

    table = racnn_ops.onnx.translation_table()
    torch.onnx.export(model, args, "model.onnx", dynamo=True, custom_translation_table=table)

Any ONNX runtime runs the model, without this package. Every size but the windows' 3 or 4 may be dynamic. The
geometry of the windows becomes ordinary ONNX operators, and the sampling one ``GridSample`` where an output
reads two pixels an axis. Every other filter is the reference's own graph: tables of the weights of all
pixels, computed in the model by the formulas of ``_filters.py``, and matrix products with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import _library, reference
from ._options import KernelOptions

try:
    from onnx_ir import DataType, tensor
    from onnx_ir.tensor_adapters import from_torch_dtype, to_torch_dtype
    from onnxscript import opset18  # what torch.onnx builds with, before it converts to the opset asked for
except ImportError as error:
    raise ImportError(
        "racnn_ops.onnx needs the packages onnx and onnxscript: pip install 'racnn-ops[onnx]'"
    ) from error

__all__ = ["translation_table"]

op: Any = opset18  # its annotations do not know that numbers and lists become constants
Value = Any  # of the ONNX graph; torch.onnx reads annotations, and Any leaves arguments as they are

_FORWARD = f"{_library.NAMESPACE}::_crop_forward"


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The ``custom_translation_table`` of ``torch.onnx.export(..., dynamo=True)``.

    Every forward mode is translated: windows of 3 and 4 numbers, one or K an image, each filter and boundary,
    the mask, ``mean`` and ``std``, every dtype; ``window_grad`` does not matter. Two-tap crops take
    GridSample, which is in opset 16 and later; onnxruntime has it for float64 images only from opset 20 on,
    torch's default. There the mask costs K masked copies of the images. Other filters need opset 18. A
    derivative inside the exported model raises ``NotImplementedError``.

    Without the compiled library the table is empty: the model then holds the reference, which is plain torch.
    """
    if not _library.has_cpu:
        return {}
    every = torch._C._dispatch_get_all_op_names()
    # Without the overloads, which graphs do not hold.
    names = [name for name in every if name.startswith(f"{_library.NAMESPACE}::_crop_") and "." not in name]
    table = {_overload(name): _refusal(name) for name in names}
    table[_overload(_FORWARD)] = _crop_forward
    return table


def _overload(name: str) -> Callable[..., Any]:
    namespace, name = name.split("::")
    return getattr(getattr(torch.ops, namespace), name).default  # type: ignore[no-any-return]


def _refusal(name: str) -> Callable[..., Any]:
    def refuse(*arguments: Any) -> Any:
        raise NotImplementedError(
            f"the exported model contains {name}, a derivative of attention_crop: only {_FORWARD} "
            "has an ONNX translation; export the model without a derivative inside"
        )

    return refuse


def _crop_forward(
    images: Value,
    windows: Value,
    out_height: Value,  # or int, as the width
    out_width: Value,
    boundary: str,
    mask_steepness: Any,
    scale: Sequence[float],
    shift: Sequence[float],
    dtype: int,
    boxcar: Sequence[float] = (),  # of the gradient alone
    interpolation: str = "bilinear",
    antialias: bool = False,
    offset: Sequence[float] = (),
    channels_last: bool | None = None,  # ONNX knows no strides
) -> Value:
    """``racnn_ops::_crop_forward`` in ONNX."""
    options = KernelOptions(
        *(out_height, out_width, boundary, mask_steepness, tuple(scale), tuple(shift)),
        *(to_torch_dtype(DataType(dtype)), (), interpolation, bool(antialias), tuple(offset)),
    )
    if options.two_taps:
        return _two_taps(images, windows, options)
    return _reference(images, windows, options)


def _reference(images: Value, windows: Value, options: KernelOptions) -> Value:
    """The reference's graph, exported by torch and put in here: its formulas are not written twice."""
    sizes = [*images.shape, *windows.shape, *options[:2]]
    sizes[1] = len(options.scale or options.offset) or sizes[1]
    # Where a size is dynamic, the example has one that no other has, but for the two batches.
    dynamic = [not isinstance(size, int) for size in sizes]
    example = [5 + 2 * place if dynamic[place] else size for place, size in enumerate(sizes)]
    dynamic[0] = dynamic[4] = dynamic[0] and dynamic[4]
    example[0] = example[4] = example[4] if dynamic[0] else example[0]
    dimensions = [torch.export.Dim.DYNAMIC if each else torch.export.Dim.STATIC for each in dynamic]
    program = torch.onnx.export(
        _Reference(options).eval(),
        (
            torch.empty(example[:4], dtype=to_torch_dtype(images.dtype)),
            torch.zeros(example[4:-2], dtype=to_torch_dtype(windows.dtype)),
            *example[-2:],
        ),
        dynamo=True,
        dynamic_shapes=(dimensions[:4], dimensions[4:-2], *dimensions[-2:]),
        opset_version=op.version,
        verbose=False,
    )
    assert program is not None
    graph = program.model.graph
    inputs = [images, windows, *(size for size in options[:2] if not isinstance(size, int))]
    return _inlined(graph, dict(zip(graph.inputs, inputs, strict=True)))


class _Reference(nn.Module):
    def __init__(self, options: KernelOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, images: Tensor, windows: Tensor, height: int, width: int) -> Tensor:
        return reference.sample(images, windows, self.options._replace(height=height, width=width))


def _inlined(graph: Any, values: dict[Any, Value]) -> Value:
    """The output of ``graph``, of operators alone, where its inputs are ``values``."""
    for constant in graph.initializers.values():
        values[constant] = op.Constant(value=constant.const_value)
    for node in graph:
        arguments = [None if value is None else values[value] for value in node.inputs]
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        (output,) = node.outputs
        values[output] = getattr(op, node.op_type)(*arguments, **attributes)
    return values[graph.outputs[0]]


def _two_taps(images: Value, windows: Value, options: KernelOptions) -> Value:
    """Bilinear crops by GridSample; the formulas are those of ``reference.py``."""
    compute, batched = windows.dtype, len(windows.shape) == 3
    half_y = windows.shape[-1] - 1
    boundary = options.boundary
    if not batched:
        windows = op.Unsqueeze(windows, [1])
    pixels = images if images.dtype == compute else op.Cast(images, to=compute)
    if options.scale:
        factor, term = (_per_channel(values, compute) for values in (options.scale, options.shift))
        pixels = op.Add(op.Mul(pixels, factor), term)

    # A window that is not finite is replaced: no runtime shall make a position of it. Its crop follows below.
    lost = op.Cast(op.Or(op.IsNaN(windows), op.IsInf(windows)), to=DataType.INT32)
    lost = op.Cast(op.ReduceSum(lost, [2]), to=DataType.BOOL)  # (B, K, 1)
    windows = op.Where(lost, _constant(0.0, compute), windows)

    x = _Axis(windows, compute, (0, 2), op.Shape(images, start=3, end=4), options.width, boundary)
    y = _Axis(windows, compute, (1, half_y), op.Shape(images, start=2, end=3), options.height, boundary)
    crops = _sample(pixels, x, y, options.mask_steepness, "zeros" if boundary == "zeros" else "border")
    if options.offset:
        crops = op.Add(crops, _per_channel(options.offset, compute))

    dtype = from_torch_dtype(options.dtype)
    to_integer = dtype == DataType.UINT8
    crops = op.Where(op.Unsqueeze(lost, [3, 4]), _constant(0.0 if to_integer else math.nan, compute), crops)
    if to_integer:
        crops = op.Clip(op.Round(crops), _constant(0.0, compute), _constant(255.0, compute))
    if dtype != compute:
        crops = op.Cast(crops, to=dtype)
    return crops if batched else op.Squeeze(crops, [1])


class _Axis:
    """One axis of all windows (B, K, values): where it samples, and the mask along it."""

    def __init__(
        self, windows: Value, dtype: DataType, values: tuple[int, int], size: Value, out: Value, boundary: str
    ) -> None:
        self.size, self.out, self.dtype = size, op.Reshape(out, [1]), dtype
        zero, half, one, two = (_constant(number, dtype) for number in (0.0, 0.5, 1.0, 2.0))
        extent = op.Cast(size, to=dtype)
        centre, reach = (op.Gather(windows, [value], axis=2) for value in values)  # (B, K, 1)
        reach = op.Max(reach, zero)
        self.low, self.high = op.Sub(centre, reach), op.Add(centre, reach)
        if boundary == "clip":
            self.low, self.high = (op.Min(op.Max(edge, zero), extent) for edge in (self.low, self.high))
            centre = op.Mul(op.Add(self.low, self.high), half)
            reach = op.Mul(op.Sub(self.high, self.low), half)
        count = op.Cast(self.out, to=dtype)
        offset = op.Div(op.Sub(op.Add(op.Mul(self._range(self.out), two), one), count), count)
        position = op.Sub(op.Add(centre, op.Mul(reach, offset)), half)
        # Limited as in csrc/geometry.h: runtimes turn positions into integers without a look at their range.
        least, most = (_constant(-2.0, dtype), extent) if boundary == "zeros" else (zero, op.Sub(extent, one))
        position = op.Min(op.Max(position, least), most)
        self.grid = op.Sub(op.Div(op.Add(op.Mul(position, two), one), extent), one)  # (B, K, out), in [-1, 1]

    def mask(self, steepness: float) -> Value:
        """Of all pixels, (B, K, size)."""
        k = _constant(steepness, self.dtype)
        centres = op.Add(self._range(self.size), _constant(0.5, self.dtype))
        return op.Sub(*(op.Sigmoid(op.Mul(k, op.Sub(centres, edge))) for edge in (self.low, self.high)))

    def _range(self, count: Value) -> Value:
        zero, one = (op.Constant(value_int=number) for number in (0, 1))
        return op.Cast(op.Range(zero, op.Squeeze(count), one), to=self.dtype)


def _sample(pixels: Value, x: _Axis, y: _Axis, steepness: float | None, padding: str) -> Value:
    """The crops (B, K, C, h, w) of images (B, C, H, W)."""
    batch, channels = op.Shape(pixels, start=0, end=1), op.Shape(pixels, start=1, end=2)
    windows = op.Shape(x.grid, start=1, end=2)
    one, two = (op.Constant(value_ints=[number]) for number in (1, 2))
    grid_shape = op.Concat(batch, windows, y.out, x.out, one, axis=0)
    grid_x = op.Expand(op.Unsqueeze(x.grid, [2, 4]), grid_shape)
    grid_y = op.Expand(op.Unsqueeze(y.grid, [3, 4]), grid_shape)
    grid = op.Concat(grid_x, grid_y, axis=4)  # (B, K, h, w, 2)

    if steepness is None:
        # The windows of an image one below the other in one grid: the image is not copied.
        grid = _reshape(grid, batch, op.Mul(windows, y.out), x.out, two)
        crops = _reshape(_grid_sample(pixels, grid, padding), batch, channels, windows, y.out, x.out)
        return op.Transpose(crops, perm=[0, 2, 1, 3, 4])

    # The mask moves with the window: each has its own masked image.
    mask = op.Mul(op.Unsqueeze(y.mask(steepness), [2, 4]), op.Unsqueeze(x.mask(steepness), [2, 3]))
    masked = op.Mul(op.Unsqueeze(pixels, [1]), mask)  # (B, K, C, H, W)
    count = op.Mul(batch, windows)
    masked = _reshape(masked, count, channels, y.size, x.size)
    crops = _grid_sample(masked, _reshape(grid, count, y.out, x.out, two), padding)
    return _reshape(crops, batch, windows, channels, y.out, x.out)


def _grid_sample(images: Value, grid: Value, padding: str) -> Value:
    return op.GridSample(images, grid, align_corners=0, mode="bilinear", padding_mode=padding)


def _reshape(value: Value, *sizes: Value) -> Value:
    return op.Reshape(value, op.Concat(*sizes, axis=0), allowzero=1)  # a size of 0 means 0


def _per_channel(values: Sequence[float], dtype: DataType) -> Value:
    """(C, 1, 1)"""
    return _constant([[[number]] for number in values], dtype)


def _constant(value: Any, dtype: DataType) -> Value:
    return op.Constant(value=tensor(value, dtype=dtype))
