# SPDX-License-Identifier: BSD-3-Clause
"""Which transforms of PyTorch work on a crop, with the right value: ours, grid_sample's and roi_align's.

    python benchmarks/transforms.py [--update]

Every cell is a run: a transform of a loss of crops, by images and by windows, compared with the same
transform of racnn_ops.reference, which is plain PyTorch operations. ``--update`` writes
benchmarks/results/transforms.md, which the test suite compares with a run of its own.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap
from torchvision.ops import roi_align

from racnn_ops import Boxcar, attention_crop, reference

TABLE = Path(__file__).resolve().parent / "results" / "transforms.md"
SIZE = (2, 3)  # of a crop

Crop = Callable[[Tensor, Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


def by_grid_sample(images: Tensor, windows: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    x, y, half = windows.unbind(-1)
    zero = torch.zeros_like(x)
    rows = (
        torch.stack((2 * half / width, zero, 2 * x / width - 1), -1),
        torch.stack((zero, 2 * half / height, 2 * y / height - 1), -1),
    )
    shape = [*images.shape[:2], *SIZE]
    return F.grid_sample(
        images, F.affine_grid(torch.stack(rows, 1), shape, align_corners=False), align_corners=False
    )


def by_roi_align(images: Tensor, windows: Tensor) -> Tensor:
    x, y, half = windows.unbind(-1)
    number = torch.arange(len(windows), dtype=windows.dtype)
    boxes = torch.stack((number, x - half, y - half, x + half, y + half), -1)
    return roi_align(images, boxes, SIZE, sampling_ratio=1, aligned=True)


def with_options(crop: Any, **options: Any) -> Crop:
    return lambda images, windows: crop(images, windows, SIZE, **options)


MODES: dict[str, dict[str, Any]] = {
    "zeros": {},
    "border": {"boundary": "border"},
    "clip": {"boundary": "clip"},
    "mask": {"mask_steepness": 0.7},
    "K windows": {},
    "boxcar": {"window_grad": "boxcar", "boxcar": Boxcar(scale=1.0)},
}
COLUMNS = (*MODES, "grid_sample", "roi_align")


def crops_of(column: str) -> tuple[Crop, Crop]:
    """A column's crop, and the truth."""
    options = MODES.get(column, {})
    crop = {"grid_sample": by_grid_sample, "roi_align": by_roi_align}.get(column)
    return crop or with_options(attention_crop, **options), with_options(reference.attention_crop, **options)


def inputs(column: str) -> tuple[Tensor, Tensor]:
    """Windows inside the image and away from the sampler's kinks: all columns compute the same crop."""
    images = torch.rand(2, 2, 7, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    windows = torch.tensor([[4.13, 3.37, 2.11], [3.72, 3.57, 2.31]], dtype=torch.float64)
    if column == "K windows":
        windows = torch.stack((windows, windows * 0.97 + 0.01), 1)
    return images, windows


def loss_of(crop: Crop) -> Loss:
    return lambda images, windows: crop(images, windows).sin().sum()


# The transforms: of the loss, by some of its arguments (images 0, windows 1). A result is a tuple of tensors.

Arguments = tuple[int, ...]
Transform = Callable[[Loss, Arguments, tuple[Tensor, Tensor]], Any]


def _leaves(where: Arguments, inputs: tuple[Tensor, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Fresh inputs, and those of them to differentiate by."""
    fresh = [tensor.detach().clone().requires_grad_(i in where) for i, tensor in enumerate(inputs)]
    return fresh, [fresh[i] for i in where]


def backward(loss: Loss, where: Arguments, inputs: tuple[Tensor, Tensor]) -> Any:
    fresh, leaves = _leaves(where, inputs)
    return torch.autograd.grad(loss(*fresh), leaves)


def double_backward(loss: Loss, where: Arguments, inputs: tuple[Tensor, Tensor]) -> Any:
    fresh, leaves = _leaves(where, inputs)
    first = torch.autograd.grad(loss(*fresh), leaves, create_graph=True)
    return torch.autograd.grad(sum(t.square().sum() for t in first), leaves)


def batched_backward(loss: Loss, where: Arguments, inputs: tuple[Tensor, Tensor]) -> Any:
    fresh, leaves = _leaves(where, inputs)
    many = torch.tensor([1.0, 2.0], dtype=torch.float64)
    return torch.autograd.grad(loss(*fresh), leaves, many, is_grads_batched=True)


def _dual(where: Arguments, inputs: Sequence[Tensor]) -> list[Tensor]:
    return [forward_ad.make_dual(t, t.cos()) if i in where else t for i, t in enumerate(inputs)]


def forward_mode(loss: Loss, where: Arguments, inputs: tuple[Tensor, Tensor]) -> Any:
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(loss(*_dual(where, inputs))).tangent
    assert tangent is not None, "no tangent, and no error"
    return tangent


def forward_over_backward(loss: Loss, where: Arguments, inputs: tuple[Tensor, Tensor]) -> Any:
    fresh, _ = _leaves(where, inputs)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t, t.detach().cos()) if i in where else t for i, t in enumerate(fresh)]
        first = torch.autograd.grad(loss(*duals), [duals[i] for i in where])
        return tuple(forward_ad.unpack_dual(t).tangent for t in first)


def func(transform: Callable[[Loss, Arguments], Any]) -> Transform:
    return lambda loss, where, inputs: transform(loss, where)(*inputs)


def along(loss: Loss, where: Arguments) -> Any:
    """The derivative along one direction, by jvp."""

    def derivative(*inputs: Tensor) -> Any:
        def of_some(*some: Tensor) -> Tensor:
            every = list(inputs)
            for i, tensor in zip(where, some, strict=True):
                every[i] = tensor
            return loss(*every)

        some = tuple(inputs[i] for i in where)
        return jvp(of_some, some, tuple(torch.ones_like(t) for t in some))[1]

    return derivative


def for_each_sample(loss: Loss) -> Any:
    return lambda image, window: loss(image[None], window[None])


def each_gradient(loss: Loss, where: Arguments) -> Any:
    return vmap(grad(for_each_sample(loss), where))


def each_window(loss: Loss, where: Arguments) -> Any:
    """Several sets of windows on the same images."""
    gradient = grad(loss, where)
    return lambda images, windows: vmap(gradient, (None, 0))(images, torch.stack((windows, windows * 0.99)))


def compiled(transform: Callable[[Loss, Arguments], Any]) -> Transform:
    def run(loss: Loss, where: Arguments, inputs: tuple[Tensor, Tensor]) -> Any:
        torch._dynamo.reset()
        return torch.compile(transform(loss, where), fullgraph=True, backend="aot_eager")(*inputs)

    return run


def compiled_loss(transform: Transform) -> Transform:
    def run(loss: Loss, where: Arguments, inputs: tuple[Tensor, Tensor]) -> Any:
        torch._dynamo.reset()
        return transform(torch.compile(loss, fullgraph=True, backend="aot_eager"), where, inputs)

    return run


def exported(loss: Loss, where: Arguments, inputs: tuple[Tensor, Tensor]) -> Any:
    class Module(torch.nn.Module):
        def forward(self, images: Tensor, windows: Tensor) -> Tensor:
            return loss(images, windows)

    return backward(torch.export.export(Module(), inputs).module(), where, inputs)


def exported_gradient(loss: Loss, where: Arguments, inputs: tuple[Tensor, Tensor]) -> Any:
    class Module(torch.nn.Module):
        def forward(self, images: Tensor, windows: Tensor) -> Any:
            return grad(loss, where)(images, windows)

    return torch.export.export(Module(), inputs).module()(*inputs)


TRANSFORMS: dict[str, Transform] = {
    "`backward`": backward,
    "`backward`, twice (`create_graph`)": double_backward,
    "`backward`, batched (`is_grads_batched`)": batched_backward,
    "forward mode (`forward_ad`)": forward_mode,
    "forward mode over `backward`": forward_over_backward,
    "`func.grad`": func(grad),
    "`jvp`": func(along),
    "`jvp` of `jvp`": func(lambda loss, where: along(along(loss, where), where)),
    "`jacrev`": func(jacrev),
    "`jacfwd`": func(jacfwd),
    "`hessian` (`jacfwd` of `jacrev`)": func(hessian),
    "`jacrev` of `jacrev`": func(lambda loss, where: jacrev(jacrev(loss, where), where)),
    "third derivative (`jvp` of `hessian`)": func(lambda loss, where: along(hessian(loss, where), where)),
    "`vmap`": lambda loss, where, inputs: vmap(for_each_sample(loss))(*inputs),
    "`vmap` of `grad`, each sample": func(each_gradient),
    "`vmap` of `grad`, the same images": func(each_window),
    "`compile`, `backward`": compiled_loss(backward),
    "`compile`, `backward` twice": compiled_loss(double_backward),
    "`compile` of `func.grad`": compiled(grad),
    "`compile` of `jvp`": compiled(along),
    "`compile` of `hessian`": compiled(hessian),
    "`compile` of `vmap` of `grad`": compiled(each_gradient),
    "`torch.export`, `backward`": exported,
    "`torch.export` of `func.grad`": exported_gradient,
}

# What an exported program must give.
EAGER: dict[Transform, Transform] = {exported: backward, exported_gradient: func(grad)}


def outcome(transform: Transform, column: str, where: Arguments) -> str:
    crop, truth = crops_of(column)
    arguments = inputs(column)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = transform(loss_of(crop), where, arguments)
        except Exception:
            return "no"
        try:
            with torch.compiler.set_stance("force_eager"):
                expected = EAGER.get(transform, transform)(loss_of(truth), where, arguments)
        except NotImplementedError:  # there is no right value
            return "wrong"
    try:
        torch.testing.assert_close(result, expected, rtol=1e-8, atol=1e-8)
    except Exception:  # a mismatch, or no numbers to compare
        return "wrong"
    return "yes"


def cell(transform: Transform, column: str) -> str:
    """``yes``, ``no`` (an error), ``wrong`` (a value, no error), or which of the two inputs has which."""
    both = outcome(transform, column, (0, 1))
    if both == "yes":
        return both
    images, windows = (outcome(transform, column, (i,)) for i in (0, 1))
    if images == windows:
        return both
    return f"images {images}, windows {windows}"


def run(columns: Sequence[str] = COLUMNS) -> dict[str, dict[str, str]]:
    return {
        name: {column: cell(transform, column) for column in columns}
        for name, transform in track(TRANSFORMS.items(), "transforms")
    }


def as_markdown(table: dict[str, dict[str, str]]) -> str:
    lines = [
        "| | " + " | ".join(COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
        *(f"| {name} | " + " | ".join(cells[c] for c in COLUMNS) + " |" for name, cells in table.items()),
    ]
    return "\n".join(lines) + "\n"


HEADER = """\
# Transforms of a crop

Made by `python benchmarks/transforms.py --update` with torch {version}, on a CPU; the test suite makes
it again. The first six columns are `attention_crop` in its modes (`boundary`, `mask_steepness`, K windows,
`window_grad`).

- **yes**: by images and by windows, with the value that plain PyTorch operations give.
- **no**: an error. **wrong**: a wrong value without an error.
- The surrogate gradient (`boxcar`) is not a derivative: what needs one by the windows is refused.
- torch has no double backward of a compiled function and no export of `func.grad`, whatever is in it.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--update", action="store_true", help=f"write {TABLE.name}")
    arguments = parser.parse_args()
    text = as_markdown(run())
    print(text)
    if arguments.update:
        TABLE.write_text(HEADER.format(version=torch.__version__.split("+")[0]) + text)
        print(f"wrote {TABLE}")


if __name__ == "__main__":
    main()
