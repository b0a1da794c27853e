"""Compiles the CUDA text for the CPU behind host.cpp, and executes launches of ``kernels.cuda_pool`` on it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import torch
from torch import Tensor

from cornernet.kernels.cuda_pool import SOURCE, THREADS, Launch, Variant

HERE = Path(__file__).parent


def why_no_host() -> str | None:
    """Return why the CUDA text cannot be compiled for the CPU here, or None."""
    return None if shutil.which("g++") else "no g++ was found, which compiles the CUDA text for the CPU"


class Host:
    """Executes launches on the CPU; each variant is compiled once, into ``folder``.

    ``entries`` collects the names of the kernels that ran. ``descending`` runs a block's threads in descending order.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.descending = False
        self.entries: set[str] = set()
        self._libraries: dict[Variant, ctypes.CDLL] = {}

    def __call__(self, variant: Variant, launch: Launch, device: torch.device) -> None:
        assert device.type == "cpu"
        arguments = [
            argument.data_ptr() if isinstance(argument, Tensor) else argument or 0 for argument in launch.arguments
        ]
        run = self._library(variant).run
        run.restype = ctypes.c_char_p
        problem = run(
            launch.entry.encode(),
            ctypes.c_uint(launch.blocks),
            ctypes.c_uint(THREADS),
            ctypes.c_size_t(launch.shared),
            ctypes.c_int(self.descending),
            (ctypes.c_longlong * len(arguments))(*arguments),
            ctypes.c_size_t(len(arguments)),
        )
        if problem:
            raise RuntimeError(f"{launch.entry}: {problem.decode()}")
        self.entries.add(launch.entry)

    def _library(self, variant: Variant) -> ctypes.CDLL:
        if variant not in self._libraries:
            path = self.folder / f"{str(variant.dtype).removeprefix('torch.')}_{variant.vec}.so"
            if not path.exists():
                self._compile(variant, path)
            self._libraries[variant] = ctypes.CDLL(str(path))
        return self._libraries[variant]

    def _compile(self, variant: Variant, path: Path) -> None:
        macros = [f"-D{name}={value}" for name, value in variant.macros.items()]
        flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-fno-strict-aliasing", "-Wno-unknown-pragmas"]
        command = ["g++", *flags, *macros, f'-DTEXT="{SOURCE}"', str(HERE / "host.cpp"), "-o", str(path)]
        subprocess.run(command, check=True, capture_output=True, text=True)
