"""Loops that numba compiles at their first call and caches on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar, cast

from numba import njit

__all__ = ["compiled", "source_digest"]

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Return ``function`` compiled by numba, without the GIL and without reordering of arithmetic.

    numba caches the machine code in NUMBA_CACHE_DIR, beside the source, or in the user's cache folder. If none can be
    written, every process compiles again. The cache notices changes in the function's own file only, so the function
    must not call compiled functions of another file; :func:`source_digest` is for the one that has to.
    """
    try:
        return cast("F", njit(cache=True, error_model="numpy", nogil=True)(function))
    except RuntimeError:
        return cast("F", njit(error_model="numpy", nogil=True)(function))


def source_digest(module: ModuleType) -> int:
    """Return a digest of a module's source, 63 bits, never negative.

    A compiled function that inlines functions of ``module`` closes over it: numba's cache key then changes with the
    module's source.
    """
    assert module.__file__ is not None
    return int.from_bytes(hashlib.sha256(Path(module.__file__).read_bytes()).digest()[:8], "little") >> 1
