"""The table of implementations. To add one, put its file beside this one and a row here.

The configuration reads the names, so nothing here needs torch before an implementation is chosen.
"""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from .contract import FLOATS

if TYPE_CHECKING:
    import torch

    from . import ops

__all__ = ["AUTO_ORDER", "FLOATS", "ROWS", "Implementation", "UnavailableError", "choose", "row"]


class UnavailableError(RuntimeError):
    """The named implementation cannot run here or does not support the tensor. The message says why."""


@dataclass(frozen=True, kw_only=True)
class Implementation:
    """One row: an implementation's name, the tensors that it supports, and its module.

    ``module`` defines ``directional_max_pool(x, direction)`` and ``corner_pool(vertical, horizontal, corner)`` for
    checked arguments or, with ``operators``, the functions that ``kernels.ops`` makes these two from. It also defines
    ``why_unavailable() -> str | None`` for the machine as a whole. With ``device_limits`` it defines
    ``why_not(device_type, auto) -> str | None`` too, for limits of a device or of ``impl="auto"``. ``ties_to_first``
    tells whether the first of equal values in scan order gets the gradient, as the contract requires.
    """

    name: str
    module: str
    devices: tuple[str, ...]
    dtypes: tuple[str, ...] = FLOATS
    operators: bool = False
    device_limits: bool = False
    ties_to_first: bool = True
    note: str = ""

    def load(self) -> ModuleType:
        """Import the module that implements this row."""
        return importlib.import_module(self.module, __package__)

    def functions(self) -> ModuleType | ops.Operators:
        """Return the object with the row's ``directional_max_pool`` and ``corner_pool``."""
        if not self.operators:
            return self.load()
        from . import ops

        return ops.Operators(self.name)

    def why_unavailable(self) -> str | None:
        """Return why it cannot run on this machine, or None if it can."""
        try:
            module = self.load()
        except ImportError as error:
            return f"{self.module.removeprefix('.')} cannot be imported: {error}"
        reason: str | None = module.why_unavailable()
        return reason

    def why_not(self, device_type: str, dtype: torch.dtype | str, auto: bool = False) -> str | None:
        """Return why it does not support such tensors, or with ``auto`` why it is not picked, or None.

        ``dtype`` may be a name, as in :data:`FLOATS`.
        """
        if self.devices != ("any",) and device_type not in self.devices:
            return f"it runs on {', '.join(self.devices)}, not on {device_type}"
        if str(dtype).removeprefix("torch.") not in self.dtypes:
            return f"it takes {', '.join(self.dtypes)}, not {str(dtype).removeprefix('torch.')}"
        reason = self.why_unavailable()
        if reason is None and self.device_limits:
            reason = self.load().why_not(device_type, auto)
        return reason


ROWS: tuple[Implementation, ...] = (
    Implementation(
        name="cuda",
        module=".cuda_pool",
        operators=True,
        devices=("cuda",),
        note="CUDA C++, compiled at first use by NVRTC; fused forward and backward",
    ),
    Implementation(
        name="triton",
        module=".triton_pool",
        operators=True,
        device_limits=True,
        devices=("cuda", "cpu"),
        note="Triton, fused forward and backward; on the CPU only in its interpreter, for tests",
    ),
    Implementation(
        name="cpu",
        module=".cpu",
        operators=True,
        devices=("cpu",),
        note="one pass over memory in loops that numba compiles, on as many threads as torch uses",
    ),
    Implementation(
        name="logstep",
        module=".logstep",
        devices=("any",),
        note="log2(n) steps in plain differentiable torch: can be exported without a custom operator",
    ),
    Implementation(
        name="eager",
        module=".eager",
        devices=("any",),
        note="a loop over slices in plain differentiable torch, as in the authors' code",
    ),
    Implementation(
        name="cummax",
        module=".cummax",
        devices=("any",),
        ties_to_first=False,
        note="flip, torch.cummax, flip, as in mmcv: the last of equal values gets the gradient; never picked by auto",
    ),
    Implementation(
        name="reference",
        module=".reference",
        device_limits=True,
        devices=("any",),
        note="the definition, by brute force in Python: the oracle of the tests, never picked by auto",
    ),
)

# What impl="auto" tries, fastest first, by type of device; "" stands for all other devices. Times relative to cpu on
# two cores at [1, 128, 128, 128] float32: eager 28, logstep 290 (it writes seven times as much). On a GPU the 127
# launches of each of eager's loops are slower than the few passes of logstep.
AUTO_ORDER = {
    "cuda": ("cuda", "triton", "logstep", "eager"),
    "cpu": ("cpu", "eager", "logstep"),
    "": ("logstep", "eager"),
}

_CHOSEN: dict[tuple[str, str, torch.dtype], str] = {}
_LOADED: dict[str, ModuleType | ops.Operators] = {}


def choose(impl: str, device_type: str, dtype: torch.dtype) -> ModuleType | ops.Operators:
    """Return the functions for such tensors under ``impl``, a row's name or 'auto'.

    Raises :class:`UnavailableError` if the named row does not support them, ``ValueError`` for an unknown name.
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


# When torch.compile traces, the choice is made once and is a constant of the graph. This is the attribute that
# torch.compiler.assume_constant_result sets. Calling that would import torch._dynamo, a second at every start.
_chosen_name._dynamo_marked_constant = True  # type: ignore[attr-defined]


def row(name: str) -> Implementation:
    """Return the row of a name. Raises ``ValueError`` with similar names for an unknown one."""
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
    raise UnavailableError("no implementation of corner pooling supports this tensor; " + "; ".join(reasons))
