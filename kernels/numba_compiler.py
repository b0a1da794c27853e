"""numba's side of :mod:`.compiled`: compiles a function, or takes its machine code from disk."""

from __future__ import annotations

import contextlib
import pickle
import sys
from collections.abc import Callable
from typing import Any, cast

import llvmlite
import numba
import numpy as np
from numba import njit, types
from numba.core import caching, ccallback, compiler, config, serialize

from . import machine_code

__all__ = ["compile_c_function", "compile_function"]

_SETTINGS = (
    "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "USING_SVML", "ENABLE_AVX",
    "LLVM_REFPRUNE_PASS", "LLVM_REFPRUNE_FLAGS",
)  # fmt: skip
"""numba's settings that change the code, besides the processor's name and features."""


def compile_function(function: Callable[..., object], signature: str, source: str | None) -> Callable[..., object]:
    """Return ``function`` compiled for ``signature``; ``source`` is the digest of what its code depends on."""
    options: dict[str, Any] = {"error_model": "numpy", "nogil": True}
    dispatcher: Any = njit(**options)(function)
    if not getattr(config, "DISABLE_JIT", 0):  # then numba returns the function itself
        dispatcher._cache = _Kept(function, source, options)
        with dispatcher._cache.turn:
            dispatcher.compile(signature)
        dispatcher.disable_compile()
    return cast("Callable[..., object]", dispatcher)


def compile_c_function(function: Callable[..., object], source: str | None) -> Any:
    """Return ``function`` compiled as ``void(int64 *parameters)``, with its ``address``."""
    options: dict[str, Any] = {"error_model": "numpy"}
    signature = (types.CPointer(types.int64),), types.void  # type: ignore[no-untyped-call]
    found: Any = ccallback.CFunc(function, signature, locals={}, options=options)
    found._cache = _Kept(function, source, options)
    with found._cache.turn:
        found.compile()
    return found


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
