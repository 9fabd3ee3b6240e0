# SPDX-License-Identifier: BSD-3-Clause
"""Measurements beside the time of a large call: host overhead, threads, memory."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import hessian, jvp
from torch.profiler import ProfilerActivity, profile

from .cases import MODES, Case, Inputs, floor_of_mode, make_inputs
from .contestants import GRID_SAMPLE, OURS, Contestant, Step, crop_function, each_window, make_step
from .images import Source, synthetic
from .timing import Call, interleaved, large_copy, take_cpu_sample

TINY = Case(batch=1, image=8, crop=4)
PAIR = (OURS, GRID_SAMPLE)
CPU = torch.device("cpu")


def _step(contestant: Contestant, case: Case, inputs: Inputs, mode: str) -> Step:
    return make_step(crop_function(contestant, case), contestant.gradients, inputs, mode)


def host_overhead(device: torch.device, rounds: int, calls: int = 200) -> list[dict[str, Any]]:
    """Host time of a call on tensors so small that there is nothing else; one thread."""
    inputs = make_inputs(TINY, synthetic, device)
    steps: dict[tuple[str, str], list[Call]] = {
        (contestant.name, mode): [_step(contestant, TINY, inputs, mode)] * calls
        for contestant in PAIR
        for mode in MODES
    }
    for name, transform in _transforms(inputs).items():
        steps[OURS.name, name] = [transform] * max(calls // 20, 1)  # slow, and grid_sample has not all

    def wait(name: object) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    measured = interleaved(steps, rounds, take_cpu_sample, before=wait)
    torch.set_num_threads(threads)
    return [
        {"contestant": contestant, "mode": mode, **times._asdict()}
        for (contestant, mode), times in measured.items()
    ]


def _transforms(inputs: Inputs) -> dict[str, Call]:
    """By the windows: what is not ``backward()`` makes tables by small tensor operations first."""
    images, windows, grad_output = inputs
    crop = crop_function(OURS, TINY)

    def loss(windows: Tensor) -> Tensor:
        return (crop(images, windows) * grad_output).sum()

    def double_backward() -> Tensor:
        leaf = windows.detach().requires_grad_()
        (first,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
        return torch.autograd.grad(first.sum(), leaf)[0]

    return {
        "jvp": lambda: jvp(loss, (windows,), (torch.ones_like(windows),)),
        "double backward": double_backward,
        "hessian": lambda: hessian(loss)(windows),
    }


COPY = "copy_"
WINDOW_COPY = "clone of slices"


def thread_scaling(cases: Sequence[Case], source: Source, rounds: int) -> list[dict[str, Any]]:
    """The same call with one thread, with two, and with all, by turns; first a plain copy (of no case).

    Beside each case its control, what reading windows costs a copy: their pixels, cloned one after the other.
    """
    most = torch.get_num_threads()
    counts = sorted({1, min(2, most), most})
    records = []

    def measure(calls: Mapping[str, Call], **facts: Any) -> None:
        variants = {(name, threads): [call] for name, call in calls.items() for threads in counts}
        measured = interleaved(
            variants, rounds, take_cpu_sample, before=lambda name: torch.set_num_threads(name[1])
        )
        records.extend(
            {"contestant": name, **facts, **times._asdict(), "threads": threads}
            for (name, threads), times in measured.items()
        )

    copy, moved = large_copy(CPU)
    measure({COPY: copy}, case=None, mode="forward", floor_bytes=moved)
    del copy
    for case in cases:
        inputs = make_inputs(case, source, CPU)
        clone, moved = _window_copy(inputs)
        measure({WINDOW_COPY: clone}, case=case.to_json(), mode="forward", floor_bytes=moved)
        for mode in case.modes:
            steps = {contestant.name: _step(contestant, case, inputs, mode) for contestant in PAIR}
            measure(steps, case=case.to_json(), mode=mode, floor_bytes=floor_of_mode(case, mode))
    torch.set_num_threads(most)
    return records


def _window_copy(inputs: Inputs) -> tuple[Call, int]:
    """A copy of the pixels of all windows, to whole numbers, and the bytes that it moves."""
    slices = [
        image[..., top:bottom, left:right]
        for image, (left, top, right, bottom) in each_window(inputs.images, inputs.windows)
    ]

    def clone() -> list[Tensor]:
        return [pixels.clone(memory_format=torch.contiguous_format) for pixels in slices]

    return clone, 2 * sum(pixels.nbytes for pixels in slices)


def peak_memory(step: Step, device: torch.device) -> dict[str, int | None]:
    """Bytes at the peak of one call, above what was there before, and the bytes of its results among them.

    ``torch_bytes`` are those of torch's allocator. Only the resident set, where the system can tell its peak,
    shows what a library allocates by itself; it counts whole pages, which may be huge ones.
    """
    results = sum(result.nbytes for result in step().values())
    torch_bytes = _cuda_peak(step) if device.type == "cuda" else _profiled_peak(step)
    resident = None if device.type == "cuda" else _resident_peak(step)
    return {"torch_bytes": torch_bytes, "resident_bytes": resident, "result_bytes": results}


def _cuda_peak(step: Step) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _profiled_peak(step: Step) -> int:
    """The highest sum of all allocations and releases, in the order of their times."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        results = step()
    del results
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak


def _resident_peak(step: Step) -> int | None:
    """How far the resident set grows during a call; Linux keeps its peak since the last reset."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _status_kib("VmRSS")
        step()
        return 1024 * (_status_kib("VmHWM") - before)
    except (AttributeError, OSError):
        return None


def _status_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def memory_table(case: Case, inputs: Inputs, contestants: Sequence[Contestant]) -> list[dict[str, Any]]:
    records = []
    for mode in case.modes:
        for contestant in contestants:
            if contestant.takes_part(mode):
                memory = peak_memory(_step(contestant, case, inputs, mode), inputs.images.device)
                records.append(
                    {"case": case.to_json(), "mode": mode, "contestant": contestant.name, **memory}
                )
    return records
