"""What a result was made with."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import platform
from pathlib import Path

import torch
from msgspec import UNSET

from cornernet.checkout import revision

from .record import Provenance

__all__ = ["processor", "provenance"]

PACKAGES = ("torch", "numpy", "opencv-python-headless", "hotcoco", "pycocotools")


def provenance(device: torch.device, evaluator: str | None = None) -> Provenance:
    """Return the date (UTC), the revision, versions, hardware and evaluator. Names no user, host or path."""
    return Provenance(
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        revision=revision(),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        processor=processor(device),
        versions={name: importlib.metadata.version(name) for name in PACKAGES},
        evaluator=UNSET if evaluator is None else evaluator,
    )


def processor(device: torch.device) -> str:
    """Return the name of a CUDA device, or of the processor."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    with contextlib.suppress(OSError):  # Linux has the name here; elsewhere platform must do
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
