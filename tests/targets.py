"""Parameters for the kernel tests: every implementation on every device that it supports on this machine."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from cornernet.kernels import registry
from tests.emulation import fast_interpreter


@dataclass(frozen=True)
class Target:
    """An implementation on a device."""

    row: registry.Implementation
    device: str

    @property
    def name(self) -> str:
        """The name to pass as ``impl``."""
        return self.row.name

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """The dtypes that the implementation supports."""
        return tuple(getattr(torch, dtype) for dtype in self.row.dtypes)

    @property
    def is_interpreted(self) -> bool:
        """Whether this is Triton's interpreter, which is thousands of times slower than a GPU."""
        return self.name == "triton" and self.device == "cpu"


def _devices(row: registry.Implementation) -> tuple[str, ...]:
    here = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    devices = here if row.devices == ("any",) else tuple(device for device in row.devices if device in here)
    return devices or row.devices[:1]  # nothing to run on: one test, skipped with the reason


def targets(*leave_out: str) -> list[pytest.param]:
    """Return a parameter for each implementation and device. Those that cannot run are skipped with the reason.

    Triton's interpreter is made faster, see ``tests.emulation.fast_interpreter``.
    """
    params = []
    for row in registry.ROWS:
        if row.name in leave_out:
            continue
        for device in _devices(row):
            reasons = {row.why_not(device, dtype) for dtype in Target(row, device).dtypes}
            reason = " and ".join(sorted(filter(None, reasons)))
            if Target(row, device).is_interpreted and not reason:
                fast_interpreter.install()
            marks = [pytest.mark.gpu] if device == "cuda" else []
            if reason:
                marks.append(pytest.mark.skip(reason=f"{row.name}: {reason}"))
            params.append(pytest.param(Target(row, device), id=f"{row.name}-{device}", marks=marks))
    return params
