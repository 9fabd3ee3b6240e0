# SPDX-License-Identifier: BSD-3-Clause
"""Loads the compiled libraries and remembers why one of them is not there.

``import racnn_ops`` never fails for want of a compiled library: without the CPU library the pure-PyTorch
reference answers, and ``cpu_error`` or ``cuda_error`` holds the cause until someone asks for it.
"""

import ctypes
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

FOLDER = Path(__file__).resolve().parent

LIBRARY = next(
    (file for file in sorted(FOLDER.glob("lib*.so")) if not file.stem.endswith("_cuda")),
    FOLDER / "libracnn_ops.so",
)
NAMESPACE = LIBRARY.stem.removeprefix("lib")
"""Of the operators: the library registers them under its own file's name."""

has_cpu = False
"""Whether the operators and their CPU kernels are registered with torch."""
has_cuda = False
"""Whether the CUDA kernels are registered as well."""
fused_pairs: frozenset[tuple[torch.dtype, torch.dtype]] = frozenset()
"""Of image and crop: those that have a kernel. Others are composed of one of these and a conversion."""
cpu_error: Exception | None = None
cuda_error: Exception | None = None


def fact(name: str) -> str:
    """What the CPU library says of itself, see csrc/torch/facts.cpp; only where it is loaded.

    Args:
        name: "build_info", "cuda_build", "cpu_capability", "fused_pairs" or "earlier_copy".
    """
    function = getattr(ctypes.CDLL(str(LIBRARY), os.RTLD_NOLOAD), f"racnn_{name}")
    function.restype = ctypes.c_char_p
    return os.fsdecode(function())


def load() -> None:
    """Load what this torch can use; the libraries register their operators themselves. Safe to call again."""
    global has_cpu, has_cuda, cpu_error, cuda_error
    cpu_error = _error_of(_load_cpu)
    has_cpu = cpu_error is None
    cuda_error = _error_of(_load_cuda) if has_cpu else cpu_error
    has_cuda = cuda_error is None
    if cpu_error is not None:
        warnings.warn(
            f"racnn_ops: the compiled library could not be loaded ({cpu_error}); "
            f"the slower pure-PyTorch reference answers",
            RuntimeWarning,
            stacklevel=3,
        )


def _error_of(step: Callable[[], None]) -> Exception | None:
    try:
        step()
    except (ImportError, OSError, RuntimeError) as error:
        return error
    return None


def _load_cpu() -> None:
    global fused_pairs
    if not LIBRARY.exists():
        raise ImportError("it was not built; on Linux `pip install .` in the source folder builds it")
    _check_length(LIBRARY)
    torch.ops.load_library(LIBRARY)  # finds the libtorch_cpu.so that `import torch` has loaded
    if earlier := fact("earlier_copy"):
        raise ImportError(f"{earlier} is in this process already, and its operators are not of {FOLDER}")
    pairs = (line.split() for line in fact("fused_pairs").splitlines())
    fused_pairs = frozenset((getattr(torch, image), getattr(torch, crop)) for image, crop in pairs)


def _check_length(library: Path) -> None:
    """Raise for a file that was not copied or downloaded to its end: loading it could end the process."""
    with library.open("rb") as file:
        header = file.read(64)
    if len(header) < 64 or header[:5] != b"\x7fELF\x02":
        return  # the dynamic linker says so
    start = int.from_bytes(header[40:48], sys.byteorder)  # of the table of sections, the last thing in a file
    size, count = (int.from_bytes(header[at : at + 2], sys.byteorder) for at in (58, 60))
    if library.stat().st_size < start + size * count:
        raise ImportError(f"{library} is cut off: install racnn_ops again")


def _load_cuda() -> None:
    if torch.version.hip is not None:
        raise RuntimeError("racnn_ops has no kernels for ROCm")
    if torch.version.cuda is None:
        raise RuntimeError(f"torch {torch.__version__} is built without CUDA")
    library = LIBRARY.with_name(f"lib{NAMESPACE}_cuda.so")
    if not library.exists():
        raise RuntimeError(
            f"{library.name} is missing ({fact('cuda_build')}): install racnn_ops again with FORCE_CUDA=1 "
            f"and CUDA_HOME set to a CUDA toolkit"
        )
    _check_length(library)
    torch.ops.load_library(library)
