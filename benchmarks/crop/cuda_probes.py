# SPDX-License-Identifier: BSD-3-Clause
"""What only a GPU has: kernels in a graph, without the host, and the launches of a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from .cases import Case, Inputs, floor_bytes
from .contestants import Contestant, crop_function
from .timing import Call, calls_of_a_sample, interleaved, take_cuda_sample

STEPS = {"forward": "forward", "backward window": "window", "backward both": "both"}
"""The floors' names -> the mode in which the step occurs."""

DTYPES = (("float32", "float32"), ("bfloat16", "bfloat16"), ("uint8", "float32"), ("uint8", "bfloat16"))
"""Of images and crops."""


def step_alone(contestant: Contestant, case: Case, inputs: Inputs, step: str) -> Call:
    """The forward or a backward by itself; the backward's forward is run here and kept."""
    crop = crop_function(contestant, case)
    images, windows = inputs.images.detach(), inputs.windows.detach()
    if step == "forward":
        forward = torch.no_grad()(crop)
        return lambda: forward(images, windows)
    leaves = [windows.requires_grad_()]
    if step == "backward both":
        leaves.append(images.requires_grad_())
    crops = crop(images, windows)
    return lambda: torch.autograd.grad(crops, leaves, inputs.grad_output, retain_graph=True)


def device_times(
    case: Case, inputs: Sequence[Inputs], contestants: Sequence[Contestant], rounds: int
) -> list[dict[str, Any]]:
    """Times of the kernels of each step, from replays of a CUDA graph over all input sets."""
    records = []
    for step in STEPS if case.image_type.is_floating_point else ("forward", "backward window"):
        replays: dict[str, Sequence[Call]] = {}
        calls = len(calls_of_a_sample(inputs, inputs[0].images.device))
        for contestant in contestants:
            try:
                replays[contestant.name] = [_capture(contestant, case, inputs, step, calls // len(inputs))]
            except RuntimeError as error:
                records.append(_record(case, step, contestant.name, not_captured=str(error)))
        for name, times in interleaved(replays, rounds, take_cuda_sample, calls_each=calls).items():
            records.append(_record(case, step, name, **times._asdict()))
    return records


def _capture(
    contestant: Contestant, case: Case, inputs: Sequence[Inputs], step: str, turns: int
) -> Callable[[], None]:
    # A backward runs on the stream of its forward, so both belong on the stream that is captured.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        calls = [step_alone(contestant, case, one, step) for one in inputs]
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for call in calls * turns:
            call()
    return graph.replay


def _record(case: Case, step: str, contestant: str, **found: Any) -> dict[str, Any]:
    floor = floor_bytes(case, step)
    return {"case": case.to_json(), "step": step, "contestant": contestant, "floor_bytes": floor, **found}


def launches(case: Case, inputs: Inputs, contestants: Sequence[Contestant]) -> list[dict[str, Any]]:
    """Kernels, memsets and copies that one step puts on the GPU."""
    records = []
    for step in STEPS:
        for contestant in contestants:
            call = step_alone(contestant, case, inputs, step)
            call()
            torch.cuda.synchronize()
            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
                call()
                torch.cuda.synchronize()
            names = [event.name for event in profiler.events() or [] if event.device_type == DeviceType.CUDA]
            record = {"case": case.to_json(), "step": step, "contestant": contestant.name}
            copies_to_host = sum("DtoH" in name for name in names)
            records.append(
                record | {"launches": len(names), "copies_to_host": copies_to_host, "names": names}
            )
    return records
