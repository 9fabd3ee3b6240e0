# SPDX-License-Identifier: BSD-3-Clause
"""``python -m racnn_ops``: what runs here and why, to paste into a bug report."""

import platform
from collections.abc import Iterator

import torch

from . import _library
from ._version import __version__


def report() -> str:
    """One ``name: value`` a line."""
    return "\n".join(f"{name + ':':14} {value}" for name, value in _facts())


def _facts() -> Iterator[tuple[str, str]]:
    yield "racnn_ops", f"{__version__} in {_library.FOLDER}"
    yield "Python", f"{platform.python_version()}, {platform.platform()}"
    yield "torch", f"{torch.__version__}, CUDA {torch.version.cuda or 'not built in'}"
    if _library.has_cpu:
        fact = _library.fact
        yield "built", fact("build_info")
        yield "CPU library", f"loaded, {fact('cpu_capability')} kernels, {torch.get_num_threads()} threads"
        yield "CUDA build", fact("cuda_build")
    else:
        yield "CPU library", f"not loaded: {_library.cpu_error}"
    yield "CUDA library", "loaded" if _library.has_cuda else f"not loaded: {_library.cuda_error}"
    yield "GPUs", str(torch.cuda.device_count())
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        yield f"GPU {index}", f"{gpu.name}, compute capability {gpu.major}.{gpu.minor}"


if __name__ == "__main__":
    print(report())
