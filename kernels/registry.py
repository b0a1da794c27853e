"""The one table of implementations: a row each. To add one: its file beside this one, and a row here."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from types import ModuleType

import torch

from . import ops
from .contract import FLOATS

__all__ = ["AUTO_ORDER", "FLOATS", "ROWS", "Implementation", "UnavailableError", "choose", "row"]


class UnavailableError(RuntimeError):
    """An implementation was asked for by name and cannot serve here. The message says why."""


@dataclass(frozen=True, kw_only=True)
class Implementation:
    """One row: what an implementation is called, what it serves and where it lives.

    ``module`` defines ``directional_max_pool(x, direction)`` and ``corner_pool(vertical, horizontal, corner)``
    for checked arguments, or, with ``operators``, what ``kernels.ops`` makes them from. It defines
    ``why_unavailable() -> str | None`` for this machine as a whole, and may define
    ``why_not(device_type, auto) -> str | None`` for what depends on the device or concerns ``impl="auto"`` only.
    ``ties_to_first``: among equals the first in the scan gets the gradient, as the contract asks.
    """

    name: str
    module: str
    devices: tuple[str, ...]
    dtypes: tuple[str, ...] = FLOATS
    operators: bool = False
    ties_to_first: bool = True
    note: str = ""

    def load(self) -> ModuleType:
        """Import the module that implements this row."""
        return importlib.import_module(self.module, __package__)

    def functions(self) -> ModuleType | ops.Operators:
        """Return what holds the row's ``directional_max_pool`` and ``corner_pool``."""
        return ops.Operators(self.name) if self.operators else self.load()

    def why_unavailable(self) -> str | None:
        """Return why it cannot run on this machine, or None when it can."""
        try:
            module = self.load()
        except ImportError as error:
            return f"{self.module.removeprefix('.')} cannot be imported: {error}"
        reason: str | None = module.why_unavailable()
        return reason

    def why_not(self, device_type: str, dtype: torch.dtype, auto: bool = False) -> str | None:
        """Return why it cannot serve such tensors, or, with ``auto``, why it would not be picked; None when it can."""
        if self.devices != ("any",) and device_type not in self.devices:
            return f"it runs on {', '.join(self.devices)}, not on {device_type}"
        if str(dtype).removeprefix("torch.") not in self.dtypes:
            return f"it takes {', '.join(self.dtypes)}, not {str(dtype).removeprefix('torch.')}"
        reason = self.why_unavailable()
        if reason is None and hasattr(self.load(), "why_not"):
            reason = self.load().why_not(device_type, auto)
        return reason


ROWS: tuple[Implementation, ...] = (
    Implementation(
        name="cuda",
        module=".cuda_pool",
        operators=True,
        devices=("cuda",),
        note="CUDA C++ compiled at first use by NVRTC, fused forward and backward",
    ),
    Implementation(
        name="triton",
        module=".triton_pool",
        operators=True,
        devices=("cuda", "cpu"),
        note="Triton, fused forward and backward; on the CPU only its interpreter, for tests",
    ),
    Implementation(
        name="cpu",
        module=".cpu",
        operators=True,
        devices=("cpu",),
        note="one pass over memory by loops that numba compiles; as many threads as torch uses",
    ),
    Implementation(
        name="logstep",
        module=".logstep",
        devices=("any",),
        note="log2(n) steps of plain differentiable torch: exports without a custom operator",
    ),
    Implementation(
        name="eager",
        module=".eager",
        devices=("any",),
        note="slices in a loop, plain differentiable torch, as the authors' code scans",
    ),
    Implementation(
        name="cummax",
        module=".cummax",
        devices=("any",),
        ties_to_first=False,
        note="flip, torch.cummax, flip, as mmcv: ties give the gradient to the last, so never picked by auto",
    ),
    Implementation(
        name="reference",
        module=".reference",
        devices=("any",),
        note="the definition, brute force in Python: the oracle of the tests, never picked by auto",
    ),
)

# What impl="auto" tries, fastest first, by type of device; any other device tries what an unknown one ("") does.
# Measured on two cores at [1, 128, 128, 128] float32: cpu 1, eager 28, logstep 290 (it writes seven times as much).
# A GPU runs the 127 launches of each of eager's loops slower than logstep's few passes.
AUTO_ORDER = {
    "cuda": ("cuda", "triton", "logstep", "eager"),
    "cpu": ("cpu", "eager", "logstep"),
    "": ("logstep", "eager"),
}

_CHOSEN: dict[tuple[str, str, torch.dtype], str] = {}
_LOADED: dict[str, ModuleType | ops.Operators] = {}


def choose(impl: str, device_type: str, dtype: torch.dtype) -> ModuleType | ops.Operators:
    """Return the functions that serve such tensors under ``impl``, a row's name or 'auto'.

    Raises :class:`UnavailableError` where the named row cannot serve them, ``ValueError`` for an unknown name.
    """
    return _LOADED[_chosen_name(impl, device_type, dtype)]


def _chosen_name(impl: str, device_type: str, dtype: torch.dtype) -> str:
    key = impl, device_type, dtype
    if key not in _CHOSEN:
        chosen = _search(impl, device_type, dtype)
        if chosen.name not in _LOADED:
            _LOADED[chosen.name] = chosen.functions()
        _CHOSEN[key] = chosen.name
    return _CHOSEN[key]


# While torch.compile traces, the choice is made once and is a constant of the graph. This is the mark that
# torch.compiler.assume_constant_result sets; calling that imports torch._dynamo, a second of everyone's start-up
_chosen_name._dynamo_marked_constant = True  # type: ignore[attr-defined]


def row(name: str) -> Implementation:
    """Return the row called ``name``; raises ``ValueError``, naming the nearest, where there is none."""
    for each in ROWS:
        if each.name == name:
            return each
    names = ["auto", *(each.name for each in ROWS)]
    near = difflib.get_close_matches(name, names, n=2) or names
    raise ValueError(f"there is no corner pooling implementation {name!r}; did you mean {' or '.join(near)}?")


def _search(impl: str, device_type: str, dtype: torch.dtype) -> Implementation:
    if impl != "auto":
        named = row(impl)
        reason = named.why_not(device_type, dtype)
        if reason is not None:
            raise UnavailableError(f"corner pooling implementation {impl!r} cannot run here: {reason}")
        return named
    reasons = []
    for each in map(row, AUTO_ORDER.get(device_type, AUTO_ORDER[""])):
        reason = each.why_not(device_type, dtype, auto=True)
        if reason is None:
            return each
        reasons.append(f"{each.name}: {reason}")
    raise UnavailableError("no implementation of corner pooling can serve this tensor; " + "; ".join(reasons))
