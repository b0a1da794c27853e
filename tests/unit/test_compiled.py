"""Compiled functions on disk: code that changed is compiled again, whichever file it is in."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic

from cornernet.compiled import source_digest

ROOT = Path(__file__).parents[2]

# takes one ticket, finds nothing to search, and prints the counter of tickets
SEARCH_NOTHING = """
import ctypes
import numpy as np
from cornernet.model.heads.corner.decode_cpu import search_entry
tickets, parameters = np.zeros(1, np.int64), np.zeros(19, np.int64)
parameters[0] = tickets.ctypes.data
ctypes.CFUNCTYPE(None, ctypes.c_void_p)(search_entry())(parameters.ctypes.data)
print(tickets[0])
"""


@pytest.mark.slow
def test_a_change_in_an_inlined_file_is_seen_despite_the_cache_on_disk(tmp_path) -> None:
    for package in ("cornernet", "kernels"):
        shutil.copytree(ROOT / package, tmp_path / package, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    cache = tmp_path / "cache"

    def tickets_taken() -> int:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(cache)}
        command = [sys.executable, "-c", SEARCH_NOTHING]
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return int(run.stdout)

    assert tickets_taken() == 1
    compiled = sorted(cache.rglob("*search*.nbc"))
    assert tickets_taken() == 1
    assert sorted(cache.rglob("*search*.nbc")) == compiled != [], "the second process compiled again"
    helper = tmp_path / "kernels/cpu_kernels.py"
    before = helper.read_text()
    after = before.replace(
        '"add", args[0], ir.Constant(ir.IntType(64), 1)', '"add", args[0], ir.Constant(ir.IntType(64), 3)'
    )
    assert after != before
    helper.write_text(after)
    assert tickets_taken() == 3


def test_a_digest_depends_on_the_source_only(tmp_path) -> None:
    module = types.ModuleType("helper")
    digests = []
    for name, text in (("a.py", "A = 1\n"), ("b.py", "A = 1\n"), ("c.py", "A = 2\n")):
        (tmp_path / name).write_text(text)
        module.__file__ = str(tmp_path / name)
        digests.append(source_digest(module))
    assert digests[0] == digests[1] != digests[2]
    assert all(0 <= digest < 2**63 for digest in digests)


@pytest.mark.parametrize(
    "name",
    [
        "cornernet.ablations.statistics.resampling",
        "cornernet.inference.suppression_compiled",
        "cornernet.kernels.cpu_kernels",
        "cornernet.model.heads.corner.decode_cpu",
    ],
)
def test_compiled_functions_call_only_functions_of_their_own_file(name: str) -> None:
    """Or of a file whose digest is in the key of the cache."""
    allowed = {"cornernet.model.heads.corner.decode_cpu": {"cornernet.kernels.cpu_kernels"}}.get(name, set())
    module = importlib.import_module(name)
    functions = [value for value in vars(module).values() if isinstance(value, Dispatcher) and value.__module__ == name]
    assert functions
    for function in functions:
        used = [vars(module).get(each) for each in function.py_func.__code__.co_names]
        files = {each.__module__ for each in used if isinstance(each, Dispatcher)}
        files |= {each._defn.__module__ for each in used if isinstance(each, _Intrinsic)}
        assert files <= {name, *allowed}, function
