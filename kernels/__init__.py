"""Corner pooling in interchangeable implementations. Knows torch and nothing else of this project."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import corner_pool, directional_max_pool, implementations
    from .registry import Implementation, UnavailableError

__all__ = ["Implementation", "UnavailableError", "corner_pool", "directional_max_pool", "implementations"]

_WHERE = {
    "Implementation": "registry",
    "UnavailableError": "registry",
    "corner_pool": "api",
    "directional_max_pool": "api",
    "implementations": "api",
}
"""The module of each public name, imported when the name is first used: the configuration needs the registry alone."""


if not TYPE_CHECKING:  # for which every name would exist

    def __getattr__(name: str) -> Any:
        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if __name__ == "kernels":  # from a checkout's root; its name is cornernet.kernels, of which this becomes an alias
    importlib.import_module("cornernet.checkout").alias(__name__)
