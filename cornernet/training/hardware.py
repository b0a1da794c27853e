"""What can be told about this machine without torch, whose import takes seconds."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

__all__ = ["surely_no_gpu"]


def surely_no_gpu() -> bool:
    """Return whether torch would certainly find no GPU, because there is no driver; where it is loaded, it is asked."""
    if "torch" in sys.modules or sys.platform != "linux" or Path("/dev/kfd").exists():  # kfd is AMD's driver
        return False
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return True
    return False
