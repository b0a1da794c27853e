"""The one table of implementations: a row each. To add one: its file beside this one, and a row here."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from types import ModuleType

import torch

__all__ = ["ROWS", "Implementation", "UnavailableError", "choose"]

FLOATS = ("float64", "float32", "float16", "bfloat16")


class UnavailableError(RuntimeError):
    """An implementation was asked for by name and cannot serve here. The message says why."""


@dataclass(frozen=True, kw_only=True)
class Implementation:
    """One row: what an implementation is called, what it serves and where it lives.

    ``module`` defines ``directional_max_pool(x, direction)`` and ``corner_pool(vertical, horizontal, corner)``
    for checked arguments, and ``why_unavailable() -> str | None`` for this machine as a whole.
    ``auto_rank`` orders the candidates of ``impl="auto"``, lowest first; None is never a candidate.
    """

    name: str
    module: str
    devices: tuple[str, ...]
    dtypes: tuple[str, ...] = FLOATS
    auto_rank: int | None = None
    note: str = ""

    def load(self) -> ModuleType:
        """Import the module that implements this row."""
        return importlib.import_module(self.module)

    def why_unavailable(self) -> str | None:
        """Return why it cannot run on this machine, or None when it can."""
        reason: str | None = self.load().why_unavailable()
        return reason

    def why_not(self, x: torch.Tensor) -> str | None:
        """Return why it cannot serve ``x``, or None when it can."""
        if self.devices != ("any",) and x.device.type not in self.devices:
            return f"it runs on {', '.join(self.devices)}, not on {x.device.type}"
        dtype = str(x.dtype).removeprefix("torch.")
        if dtype not in self.dtypes:
            return f"it takes {', '.join(self.dtypes)}, not {dtype}"
        return self.why_unavailable()


ROWS: tuple[Implementation, ...] = (
    Implementation(
        name="eager",
        module="kernels.eager",
        devices=("any",),
        auto_rank=90,
        note="slices in a loop, plain differentiable torch, as the authors' code scans",
    ),
)


def choose(impl: str, x: torch.Tensor) -> ModuleType:
    """Return the module that serves ``x`` under ``impl``, a row's name or 'auto'.

    Raises :class:`UnavailableError` where the named row cannot serve ``x``, ``ValueError`` for an unknown name.
    """
    if impl == "auto":
        ranked = sorted((row for row in ROWS if row.auto_rank is not None), key=lambda row: row.auto_rank or 0)
        reasons = []
        for row in ranked:
            reason = row.why_not(x)
            if reason is None:
                return row.load()
            reasons.append(f"{row.name}: {reason}")
        raise UnavailableError("no implementation of corner pooling can serve this tensor; " + "; ".join(reasons))
    for row in ROWS:
        if row.name == impl:
            reason = row.why_not(x)
            if reason is not None:
                raise UnavailableError(f"corner pooling implementation {impl!r} cannot run here: {reason}")
            return row.load()
    names = [row.name for row in ROWS]
    near = difflib.get_close_matches(impl, names, n=2) or ["auto", *names]
    raise ValueError(f"there is no corner pooling implementation {impl!r}; did you mean {' or '.join(near)}?")
