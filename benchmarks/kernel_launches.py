# SPDX-License-Identifier: BSD-3-Clause
"""Launches every kernel on the benchmark's main case, for a profiler that counts: ``ncu python …``.

    python benchmarks/kernel_launches.py [--device cpu] [--batch B]

The fused kernels for each pair of dtypes and both layouts, those of transforms for float32.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch

from crop.cases import Case, Inputs, make_inputs
from crop.contestants import OURS, Contestant
from crop.cuda_probes import DTYPES, step_alone
from crop.images import synthetic
from crop.timing import Call
from racnn_ops import attention_crop

BOXCAR = Contestant("boxcar", partial(attention_crop, window_grad="boxcar"))


def calls(main_case: Case, device: torch.device) -> Iterator[Call]:
    for dtype, out_dtype in DTYPES:
        for layout in ("contiguous", "channels_last"):
            case = replace(main_case, dtype=dtype, out_dtype=out_dtype, layout=layout)
            inputs = make_inputs(case, synthetic, device)
            yield step_alone(OURS, case, inputs, "forward")
            with_images = case.image_type.is_floating_point
            yield step_alone(OURS, case, inputs, "backward both" if with_images else "backward window")
            yield step_alone(BOXCAR, case, inputs, "backward window")
    yield partial(_second_derivative, main_case, make_inputs(main_case, synthetic, device))


def _second_derivative(case: Case, inputs: Inputs) -> None:
    """Crops and image gradients by tables of taps."""
    images, windows = inputs.images.requires_grad_(), inputs.windows.requires_grad_()
    crops = attention_crop(images, windows, case.crop)
    gradients = torch.autograd.grad(crops, (images, windows), inputs.grad_output, create_graph=True)
    sum(gradient.sum() for gradient in gradients).backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--batch", type=int, help="default: 64, 1 on a CPU")
    arguments = parser.parse_args()
    batch = arguments.batch or {"cpu": 1, "cuda": 64}[arguments.device]
    for call in calls(Case(batch), torch.device(arguments.device)):
        call()
    if arguments.device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
