"""Loops that numba compiles at their first call and keeps on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

__all__ = ["compiled"]

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Return ``function`` compiled by numba, for one thread, without reordering arithmetic.

    The code is kept where numba keeps it (NUMBA_CACHE_DIR, the folder of the source, the user's cache); where nothing
    can be written it is compiled anew in every process.
    """
    try:
        return cast("F", njit(cache=True, error_model="numpy", nogil=True)(function))
    except RuntimeError:
        return cast("F", njit(error_model="numpy", nogil=True)(function))
