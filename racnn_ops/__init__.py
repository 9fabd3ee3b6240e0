# SPDX-License-Identifier: BSD-3-Clause
"""Fused, differentiable crop-and-zoom for PyTorch, as CUDA and CPU kernels written by hand."""

from . import _library

_library.load()
if _library.has_cpu:
    from . import _registration

    _registration.register()

from . import boxes, reference, transforms  # noqa: E402
from ._decompositions import decompositions  # noqa: E402
from ._options import Boxcar  # noqa: E402
from ._version import __version__  # noqa: E402
from .attention_crop import AttentionCrop, attention_crop  # noqa: E402
from .paste import paste  # noqa: E402

__all__ = [
    "AttentionCrop",
    "Boxcar",
    "__version__",
    "attention_crop",
    "boxes",
    "decompositions",
    "paste",
    "reference",
    "transforms",
]
