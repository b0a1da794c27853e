"""``python -m cornernet.kernels.aot``: both GPU implementations compile without a GPU, and a spill fails."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cornernet.kernels import aot
from cornernet.kernels.aot import Resources

ROOT = Path(aot.__file__).parents[1]

pytest.importorskip("triton", reason="triton is not installed: nothing to compile with, and no cuobjdump")
needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.core") is None,
    reason="cuda.core is not installed (the extra 'cuda'): nothing compiles the CUDA text here",
)


def run(*arguments: str, interpret: bool = False) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, "-m", "cornernet.kernels.aot", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_triton_compiles_for_hopper_without_a_spill():
    done = run("--only", "triton", "--arch", "sm_90", "--dtype", "bfloat16")
    assert done.returncode == 0, done.stdout + done.stderr
    for kernel in ("corner_forward", "corner_backward", "lines_forward", "lines_backward"):
        assert kernel in done.stdout
    assert done.stdout.endswith(" 0 with spills\n")


@needs_compiler
@pytest.mark.slow
def test_the_cuda_source_compiles_for_hopper_without_a_spill():
    done = run("--only", "cuda", "--arch", "sm_90", "--dtype", "float16")
    assert done.returncode == 0, done.stdout + done.stderr
    for kernel in ("corner_forward_planes", "corner_backward_channels", "strided_backward", "rows_forward"):
        assert kernel in done.stdout
    assert done.stdout.endswith(" 0 with spills\n")


@pytest.mark.parametrize(("local", "status"), [(0, 0), (8, 1)])
def test_the_exit_status_says_whether_a_kernel_spills(monkeypatch, capsys, local, status):
    def resources(arch: str, dtype: str) -> Iterator[Resources]:
        yield Resources("cuda", "some_kernel", "paper", dtype, arch, 255, 1024, local)

    monkeypatch.setattr(aot, "cuda_resources", resources)
    assert aot.main(["--only", "cuda", "--arch", "sm_90", "--dtype", "float32"]) == status
    assert ("SPILLS" in capsys.readouterr().out) == bool(local)


def test_a_process_that_interprets_triton_is_told_that_it_cannot_compile():
    done = run("--only", "triton", interpret=True)
    assert done.returncode == 2
    assert "TRITON_INTERPRET" in done.stderr
