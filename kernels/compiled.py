"""Functions that numba compiles at their first call, each for one signature, and whose code is kept on disk.

numba's own cache is not used. It keeps the signatures of a function in one index beside files numbered 1, 2, ...; two
processes that save different signatures at the same time can exchange their files, and numba checks neither. Here a
function has one signature, and :mod:`.machine_code` keeps its code in a file that holds everything the code depends on:
the function, its signature, the bytes of its source, the versions of Python, numpy, numba and llvmlite, the processor
and numba's settings. NUMBA_CACHE_DIR is ignored, because numba's folders may be shared with other users.

The source is that of the function's file. A function that calls compiled functions of another file says so
(``calls=``), so that a change there is noticed too.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import pickle
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

import llvmlite
import numba
import numpy as np
from numba import njit, types
from numba.core import caching, ccallback, compiler, config, serialize

from . import machine_code

__all__ = ["FUNCTIONS", "CFunction", "CompiledFunction", "c_function", "compiled"]

F = TypeVar("F", bound=Callable[..., object])

_SETTINGS = (
    "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "USING_SVML", "ENABLE_AVX",
    "LLVM_REFPRUNE_PASS", "LLVM_REFPRUNE_FLAGS",
)  # fmt: skip
"""numba's settings that change the code, besides the processor's name and features."""


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
        options: dict[str, Any] = {"error_model": "numpy", "nogil": True}
        dispatcher: Any = njit(**options)(self.py_func)
        if not getattr(config, "DISABLE_JIT", 0):  # then numba returns the function itself
            dispatcher._cache = _Kept(self.py_func, self._source, options)
            with dispatcher._cache.turn:
                dispatcher.compile(self.signature)
            dispatcher.disable_compile()
        return cast("Callable[..., object]", dispatcher)


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
                options: dict[str, Any] = {"error_model": "numpy"}
                signature = (types.CPointer(types.int64),), types.void  # type: ignore[no-untyped-call]
                found: Any = ccallback.CFunc(self.py_func, signature, locals={}, options=options)
                found._cache = _Kept(self.py_func, self._source, options)
                with found._cache.turn:
                    found.compile()
                self._compiled = found
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


class _Kept(caching.NullCache):
    """The cache of one function in numba's terms: one signature, kept by :mod:`.machine_code`.

    numba asks for the code, and hands it over if it had to compile. ``turn`` is the time between; a process that has to
    compile waits in it until others have compiled the same function, and then looks again.
    """

    def __init__(self, function: Callable[..., object], source: str | None, options: dict[str, Any]) -> None:
        self.name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self.function, self.source, self.options = function, source, options
        self.turn = contextlib.ExitStack()

    def _key(self, signature: object, codegen: Any) -> str:
        parts = {
            "function": f"{self.function.__module__}.{self.function.__qualname__}",
            "signature": signature,
            "options": sorted(self.options.items()),
            "source": self.source,
            "python": (sys.implementation.cache_tag, sys.version),
            "versions": (np.__version__, numba.__version__, llvmlite.__version__),
            "processor": codegen.magic_tuple(),
            "settings": [(name, str(getattr(config, name, None))) for name in _SETTINGS],
        }
        return "\n".join(f"{name}: {value}" for name, value in parts.items())

    def load_overload(self, signature: object, target_context: Any) -> Any:
        if self.source is None:
            return None
        target_context.refresh()
        key = self._key(signature, target_context.codegen())
        code = machine_code.load(self.name, key)
        if code is None:
            self.turn.enter_context(machine_code.turn(self.name))
            code = machine_code.load(self.name, key)
        rebuild: Any = compiler.CompileResult._rebuild
        return None if code is None else rebuild(target_context, *pickle.loads(code))

    def save_overload(self, signature: object, result: Any) -> None:
        # code with addresses of this process in it is of no use to another one
        if self.source is not None and not result.library.has_dynamic_globals and not result.lifted:
            code = serialize.dumps(result._reduce())  # type: ignore[no-untyped-call]
            machine_code.save(self.name, self._key(signature, result.library.codegen), code)


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
