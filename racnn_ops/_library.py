# SPDX-License-Identifier: BSD-3-Clause
"""Loads the compiled libraries and remembers why one of them is not there.

``import racnn_ops`` never fails for want of a compiled library: without the CPU library the pure-PyTorch reference
answers, and ``cpu_error`` or ``cuda_error`` holds the cause until someone asks for it.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch

has_cpu = False
"""Whether the operators and their CPU kernels are registered with torch."""
has_cuda = False
"""Whether the CUDA kernels are registered as well."""
cpu_error: Exception | None = None
cuda_error: Exception | None = None

_CUDA_LIBRARY = Path(__file__).with_name("libracnn_ops_cuda.so")


def load() -> None:
    """Load what this torch can use; the libraries register their operators themselves. Safe to call again."""
    global has_cpu, has_cuda, cpu_error, cuda_error
    cpu_error = _error_of(_load_cpu)
    has_cpu = cpu_error is None
    cuda_error = _error_of(_load_cuda) if has_cpu else cpu_error
    has_cuda = cuda_error is None
    if cpu_error is not None:
        warnings.warn(
            f"racnn_ops runs its pure-PyTorch reference instead of its compiled library, which could not be "
            f"loaded: {cpu_error}",
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
    if not any(Path(__file__).parent.glob("_C.*")):
        raise ImportError("it was not built (on Linux, `pip install .` in the source folder builds it)")
    from . import _C  # noqa: F401  (its libtorch_cpu.so is the one that `import torch` has loaded)


def _load_cuda() -> None:
    if torch.version.hip is not None:
        raise RuntimeError("torch for ROCm has no kernels in racnn_ops")
    if not torch.backends.cuda.is_built():
        raise RuntimeError(f"torch {torch.__version__} is built without CUDA")
    if not _CUDA_LIBRARY.exists():
        from . import _C

        raise RuntimeError(
            f"its CUDA library was {_C.cuda_build()}; install it again with FORCE_CUDA=1 and CUDA_HOME set"
        )
    torch.ops.load_library(_CUDA_LIBRARY)
