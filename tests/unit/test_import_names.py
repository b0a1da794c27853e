"""One name when installed, two in a checkout: whichever is imported first, there is one module and one operator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SAME = """
import torch
import kernels, kernels.ops, ablations.running.planner
import cornernet.kernels.ops, cornernet.ablations.running.planner
from cornernet import ablations as long_ablations
from cornernet import kernels as long_kernels

assert kernels is long_kernels and ablations is long_ablations
assert kernels.ops is cornernet.kernels.ops
assert ablations.running.planner is cornernet.ablations.running.planner
assert kernels.ops.__name__ == kernels.ops.__spec__.name == "cornernet.kernels.ops"
x = torch.rand(1, 2, 5, 4)
assert torch.equal(kernels.corner_pool(x, x, "top_left"), long_kernels.corner_pool(x, x, "top_left", impl="reference"))
"""


def run(code: str, folder: Path = ROOT) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "first",
    [
        "import kernels",
        "import cornernet.kernels",
        "from ablations.studies import STUDIES",
    ],
)
def test_both_names_are_one_module_whichever_comes_first(first: str) -> None:
    run(f"{first}\n{SAME}")


@pytest.mark.parametrize("module", ["ablations", "cornernet.ablations"])
def test_both_names_run_as_programs(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")


def test_kernels_load_nothing_of_the_detector_and_missing_names_are_import_errors() -> None:
    code = """
import importlib, sys
import kernels
print(*sorted(name for name in sys.modules if name.startswith("cornernet") and "kernels" not in name))
for name in ("kernels", "cornernet.kernels"):
    try:
        importlib.import_module(f"{name}.missing")
    except ModuleNotFoundError as error:
        print(error)
"""
    loaded, *errors = run(code).splitlines()
    assert loaded == "cornernet cornernet.checkout"
    assert errors == ["No module named 'kernels.missing'", "No module named 'cornernet.kernels.missing'"]


def test_public_names_are_found_when_they_are_asked_for() -> None:
    code = """
import cornernet
assert set(cornernet.__all__) <= set(dir(cornernet))
assert all(getattr(cornernet, name) is not None for name in cornernet.__all__)
assert cornernet.kernels.corner_pool and cornernet.training.__doc__
try:
    cornernet.missing
except AttributeError as error:
    print(error)
"""
    assert run(code) == "module 'cornernet' has no attribute 'missing'\n"
