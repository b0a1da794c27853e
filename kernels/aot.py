"""Compiles the GPU kernels without a GPU and prints the resources of each: ``python -m cornernet.kernels.aot``.

It compiles every Triton launch and every CUDA entry point for each element type and architecture, on the workloads of
:data:`CASES`. It prints registers per thread, bytes of shared memory per block and bytes of local memory per thread.
Local memory means spilled registers, which cost more than the kernels' arithmetic, so any makes the exit status 1.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import cuda_pool, triton_pool
from .contract import FLOATS

__all__ = ["ARCHITECTURES", "CASES", "Resources", "cuda_resources", "main", "triton_resources"]

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")

# Name: shape and layout. The paper's map in both layouts; sizes that allow no wide access; lines longer than a block.
CASES: dict[str, tuple[tuple[int, int, int, int], torch.memory_format]] = {
    "paper": ((8, 128, 128, 128), torch.contiguous_format),
    "paper, channels_last": ((8, 128, 128, 128), torch.channels_last),
    "odd": ((32, 33, 127, 129), torch.contiguous_format),
    "odd, channels_last": ((32, 33, 127, 129), torch.channels_last),
    "long": ((2, 16, 700, 1600), torch.contiguous_format),
}


@dataclass(frozen=True)
class Resources:
    """One compiled kernel: registers per thread, bytes of shared memory per block and of local memory per thread."""

    implementation: str
    kernel: str
    case: str
    dtype: str
    arch: str
    registers: int
    shared: int
    local: int


def _inputs(case: str, dtype: str) -> Tensor:
    shape, layout = CASES[case]
    return torch.empty(shape, dtype=getattr(torch, dtype), device="meta", memory_format=layout)


def _cuobjdump() -> Path:
    import triton.backends.nvidia

    path = Path(triton.backends.nvidia.__file__ or "").parent / "bin" / "cuobjdump"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: this build of triton does not include cuobjdump")
    return path


def _usage(cubin: bytes) -> dict[str, dict[str, int]]:
    """Return the resources of each function of ``cubin`` as cuobjdump reports them: REG, STACK, SHARED, LOCAL, ..."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(_cuobjdump()), "-res-usage", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.findall(r"Function (\S+):\s*\n\s*(.*)", text)
    if not found:
        raise RuntimeError(f"cuobjdump reported no function: {text!r}")
    return {name: {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", line)} for name, line in found}


def _local(usage: dict[str, int]) -> int:
    return usage["STACK"] + usage["LOCAL"]


# --------------------------------------------------------------------------------------------------------------- triton
_POINTERS = {"float64": "*fp64", "float32": "*fp32", "float16": "*fp16", "bfloat16": "*bf16"}


def _source(launch: triton_pool.Launch) -> Any:
    """Return the source that Triton would compile at the first run of ``launch``, specialised to its values."""
    from triton.compiler import ASTSource

    signature: dict[str, str] = {}
    constants: dict[tuple[int], Any] = {}
    hints: dict[tuple[int], list[list[Any]]] = {}
    for i, name in enumerate(launch.kernel.arg_names):
        value = launch.constants[name] if name in launch.constants else launch.arguments[name]
        if name in launch.constants or (isinstance(value, int) and value == 1):
            signature[name], constants[(i,)] = "constexpr", value
            continue
        if isinstance(value, Tensor):
            signature[name] = _POINTERS[str(value.dtype).removeprefix("torch.")]
        else:
            signature[name] = "i32" if value < 2**31 else "i64"
        if isinstance(value, Tensor) or value % 16 == 0:
            hints[(i,)] = [["tt.divisibility", 16]]
    return ASTSource(fn=launch.kernel, signature=signature, constexprs=constants, attrs=hints)


def _triton_launches(case: str, dtype: str) -> Iterator[triton_pool.Launch]:
    x = _inputs(case, dtype)
    for corner in ("top_left", "bottom_right"):
        yield from triton_pool.plan_corner_forward(x, x, x, corner)
    yield triton_pool.plan_corner_backward(x, x, x, x, x, "top_left")
    if case == "paper":
        for direction in ("top", "left"):
            yield triton_pool.plan_pool_forward(x, None, x, direction)
            yield triton_pool.plan_pool_backward(x, x, x, direction)


def triton_resources(arch: str, dtype: str) -> Iterator[Resources]:
    """Compile every launch of ``kernels.triton_pool`` on :data:`CASES` for ``arch``; yield the resources of each."""
    import triton
    from triton.backends.compiler import GPUTarget

    target = GPUTarget("cuda", int(arch.removeprefix("sm_")), 32)
    for case in CASES:
        for launch in _triton_launches(case, dtype):
            compiled = triton.compile(_source(launch), target=target, options=dict(launch.options))
            (usage,) = _usage(compiled.asm["cubin"]).values()
            name = launch.kernel.__name__.strip("_") + (", reversed" if launch.constants["REVERSED"] else "")
            yield Resources(
                "triton", name, case, dtype, arch, usage["REG"], int(compiled.metadata.shared), _local(usage)
            )


# ----------------------------------------------------------------------------------------------------------------- cuda
def _cuda_launches(case: str, dtype: str) -> dict[tuple[cuda_pool.Variant, str], int]:
    """Return the shared memory of the launches for ``case``, by variant and entry point."""
    taken: dict[tuple[cuda_pool.Variant, str], int] = {}

    def record(variant: cuda_pool.Variant, launch: cuda_pool.Launch, _: torch.device) -> None:
        taken[variant, launch.entry] = launch.shared

    x = _inputs(case, dtype)
    kernels = cuda_pool.Kernels(record, lambda _: 132)
    kernels.corner_forward(x, x, "top_left")
    kernels.corner_backward(x, x, x, "top_left")
    for direction in ("top", "left"):
        kernels.pool_forward(x, direction)
        kernels.pool_backward(x, x, direction)
    return taken


def cuda_resources(arch: str, dtype: str) -> Iterator[Resources]:
    """Compile what ``kernels.cuda_pool`` launches on :data:`CASES` for ``arch``; yield the resources of each entry."""
    usages: dict[cuda_pool.Variant, dict[str, dict[str, int]]] = {}
    left: set[tuple[cuda_pool.Variant, str]] = set()

    def row(variant: cuda_pool.Variant, entry: str, case: str, shared: int) -> Resources:
        usage = usages[variant][entry]
        name = f"{entry}, {variant.vec} wide"
        return Resources("cuda", name, case, dtype, arch, usage["REG"], shared + usage["SHARED"], _local(usage))

    for case in CASES:
        for (variant, entry), shared in _cuda_launches(case, dtype).items():
            if variant not in usages:
                usages[variant] = _usage(cuda_pool.compile_cubin(variant, arch))
                left |= {(variant, other) for other in usages[variant]}
            left.discard((variant, entry))
            yield row(variant, entry, case, shared)
    for variant, entry in sorted(left, key=str):  # entry points that no case launches must not spill either
        yield row(variant, entry, "(no case)", 0)


# ----------------------------------------------------------------------------------------------------------------- main
def main(arguments: list[str] | None = None) -> int:
    """Print the table; return 1 if a kernel spills, else 0."""
    parser = argparse.ArgumentParser(prog="python -m cornernet.kernels.aot", description=__doc__)
    parser.add_argument("--arch", nargs="+", default=ARCHITECTURES, help="architectures (default: %(default)s)")
    parser.add_argument("--dtype", nargs="+", default=FLOATS, choices=FLOATS, help="element types (default: all)")
    parser.add_argument("--only", choices=("triton", "cuda"), help="one implementation (default: both)")
    chosen = parser.parse_args(arguments)
    if os.environ.get("TRITON_INTERPRET", "0") == "1" and chosen.only != "cuda":
        parser.error("TRITON_INTERPRET=1 is set: a process that interprets Triton cannot compile it; unset it")
    compilers = {"triton": triton_resources, "cuda": cuda_resources}
    spilled = total = 0
    widths = (14, 32, 20, 8, 6, 9, 6, 5)
    print("  ".join(field.name.ljust(width) for field, width in zip(fields(Resources), widths, strict=True)))
    for name, resources in compilers.items():
        if chosen.only not in (None, name):
            continue
        for arch in chosen.arch:
            for dtype in chosen.dtype:
                for row in resources(arch, dtype):
                    cells = "  ".join(str(cell).ljust(width) for cell, width in zip(astuple(row), widths, strict=True))
                    print(cells.rstrip() + ("  SPILLS" if row.local else ""), flush=True)
                    total += 1
                    spilled += row.local > 0
    print(f"{total} kernels compiled, {spilled} with spills")
    return 1 if spilled else 0


if __name__ == "__main__":
    sys.exit(main())
