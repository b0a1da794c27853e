"""Functions that numba compiles at their first call, each for one signature, and whose code is kept on disk.

numba's own cache is not used. It keeps the signatures of a function in one index beside files numbered 1, 2, ...; two
processes that save different signatures at the same time can exchange their files, and numba checks neither. Here a
function has one signature, and :mod:`.machine_code` keeps its code in a file that holds everything the code depends on:
the function, its signature, the bytes of its source, the versions of Python, numpy, numba and llvmlite, the processor
and numba's settings. NUMBA_CACHE_DIR is ignored, because numba's folders may be shared with other users.

The source is that of the function's file. A function that calls compiled functions of another file says so
(``calls=``), so that a change there is noticed too.

numba itself is imported when the first function is compiled or read from disk (:mod:`.numba_compiler`), so that what
only declares compiled functions starts without it.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

__all__ = ["FUNCTIONS", "CFunction", "CompiledFunction", "c_function", "compiled"]

F = TypeVar("F", bound=Callable[..., object])

FUNCTIONS: list[CompiledFunction | CFunction] = []
"""All functions that were defined so far."""


class CompiledFunction:
    """A function of Python that is compiled for its one signature at the first call.

    Arguments of another dtype, layout or number of dimensions are a ``TypeError``: the caller makes them fit.
    """

    def __init__(self, function: Callable[..., object], signature: str, calls: Sequence[ModuleType]) -> None:
        functools.update_wrapper(self, function)
        self.py_func, self.signature = function, signature
        self._source = _source(function, calls)
        self._run: Callable[..., object] | None = None
        FUNCTIONS.append(self)
        self._lock = threading.Lock()

    def __call__(self, *arguments: object) -> object:
        """Run the compiled function."""
        if self._run is None:
            with self._lock:
                self._run = self._run or self._compiled()
        return self._run(*arguments)

    def _compiled(self) -> Callable[..., object]:
        from . import numba_compiler

        return numba_compiler.compile_function(self.py_func, self.signature, self._source)


class CFunction:
    """A function of Python that is compiled to a C function ``void(int64 *parameters)`` when its address is needed."""

    def __init__(self, function: Callable[..., object], calls: Sequence[ModuleType]) -> None:
        self.__name__, self.__doc__, self.__module__ = function.__name__, function.__doc__, function.__module__
        self.py_func = function
        self._source = _source(function, calls)
        self._compiled: Any = None
        FUNCTIONS.append(self)
        self._lock = threading.Lock()

    @property
    def address(self) -> int:
        """The address of the C function, valid until the process ends if this is a module's variable."""
        with self._lock:
            if self._compiled is None:
                from . import numba_compiler

                self._compiled = numba_compiler.compile_c_function(self.py_func, self._source)
            return int(self._compiled.address)


def compiled(signature: str, *, calls: Sequence[ModuleType] = ()) -> Callable[[F], F]:
    """Compile a function at its first call for ``signature``, in numba's notation, without the GIL.

    Arithmetic is not reordered. ``calls`` are other modules whose compiled functions it calls.
    """

    def decorate(function: F) -> F:
        return cast("F", CompiledFunction(function, signature, calls))

    return decorate


def c_function(*, calls: Sequence[ModuleType] = ()) -> Callable[[Callable[[Any], None]], CFunction]:
    """Compile a function to a C function ``void(int64 *parameters)``; see :func:`compiled`."""

    def decorate(function: Callable[[Any], None]) -> CFunction:
        return CFunction(function, calls)

    return decorate


def _source(function: Callable[..., object], calls: Sequence[ModuleType]) -> str | None:
    """Return digests of the source of ``function`` and of other modules; None if one cannot be read."""
    try:
        return " ".join(_file_digest(module) for module in (sys.modules[function.__module__], *calls))
    except (OSError, KeyError, TypeError):
        return None


@functools.cache
def _file_digest(module: ModuleType) -> str:
    """Return a digest of a module's source, read once, near the time of its import."""
    return hashlib.sha256(Path(cast("str", module.__file__)).read_bytes()).hexdigest()
