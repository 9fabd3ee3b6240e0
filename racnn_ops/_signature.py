# SPDX-License-Identifier: BSD-3-Clause
"""Signatures of autograd functions with ``setup_context``, which torch looks up and binds at each call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def with_signature(forward: F) -> F:
    """The same function with its signature made once: inspecting it takes as long as many a kernel."""
    forward.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    return forward
