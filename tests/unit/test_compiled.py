"""Compiled functions and their code on disk: never another function's or signature's, never that of other source."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher, _FunctionCompiler
from numba.core.extending import _Intrinsic
from numpy.typing import NDArray

from cornernet.kernels import machine_code
from cornernet.kernels.compiled import FUNCTIONS, CFunction, CompiledFunction, compiled

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
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "CORNERNET_CACHE": str(cache)}
        command = [sys.executable, "-c", SEARCH_NOTHING]
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return int(run.stdout)

    assert tickets_taken() == 1
    kept = sorted(cache.rglob("*search*.code"))
    assert tickets_taken() == 1
    assert sorted(cache.rglob("*search*.code")) == kept != [], "the second process compiled again"
    helper = tmp_path / "kernels/cpu_kernels.py"
    before = helper.read_text()
    after = before.replace(
        '"add", args[0], ir.Constant(ir.IntType(64), 1)', '"add", args[0], ir.Constant(ir.IntType(64), 3)'
    )
    assert after != before
    helper.write_text(after)
    assert tickets_taken() == 3


@compiled("float64(float64[::1])")
def first_of(values: NDArray[np.float64]) -> float:
    return values[0] + 0.5


def doubled(values: NDArray[np.float64]) -> float:
    return values[0] * 2


doubled.__name__ = doubled.__qualname__ = "first_of"  # another function that compiles under the same name
other_first_of = compiled("float64(float32[::1])")(doubled)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CORNERNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / f"machine-code-{os.geteuid()}"


def fresh(function: Any) -> Any:
    """The function as another process has it: not compiled yet."""
    return CompiledFunction(function.py_func, function.signature, ())


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The signatures that are compiled from now on, not loaded."""
    found: list[str] = []
    compile_it = _FunctionCompiler.compile

    def counted(self: Any, args: Any, return_type: Any) -> Any:
        found.append(str(args))
        return compile_it(self, args, return_type)

    monkeypatch.setattr(_FunctionCompiler, "compile", counted)
    return found


def test_a_function_is_compiled_once_and_then_loaded(cache: Path, compilations: list[str]) -> None:
    assert fresh(first_of)(np.ones(3)) == 1.5
    assert len(compilations) == 1
    assert fresh(first_of)(np.ones(3)) == 1.5
    assert len(compilations) == 1
    assert len(list(cache.glob("*.code"))) == 1


def test_a_function_has_one_signature_and_refuses_other_arguments(cache: Path) -> None:
    assert fresh(first_of)(np.ones(3)) == 1.5
    for other in (np.ones(6)[::2], np.ones(3, np.float32), np.ones((3, 1))):
        with pytest.raises(TypeError, match="No matching definition"):
            fresh(first_of)(other)


def test_two_signatures_saved_at_the_same_time_are_not_exchanged(
    cache: Path, compilations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """numba's own cache fails here: its index would name one signature and its file hold the other's code."""
    replace = os.replace

    def interrupted(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(os, "replace", replace)
        assert fresh(other_first_of)(np.ones(3, np.float32)) == 2.0
        replace(*arguments, **options)

    monkeypatch.setattr(os, "replace", interrupted)
    monkeypatch.setattr(machine_code, "_LONGEST_TURN", 0.0)  # as if there were no lock
    assert fresh(first_of)(np.ones(3)) == 1.5
    assert len(compilations) == 2
    assert fresh(first_of)(np.ones(3)) == 1.5
    assert fresh(other_first_of)(np.ones(3, np.float32)) == 2.0
    assert len(compilations) == 2, "both are loaded"


def test_code_of_another_function_in_a_file_is_compiled_again(cache: Path, compilations: list[str]) -> None:
    fresh(first_of)(np.ones(3))
    (one,) = cache.glob("*.code")
    fresh(other_first_of)(np.ones(3, np.float32))
    (two,) = set(cache.glob("*.code")) - {one}
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    assert fresh(first_of)(np.ones(3)) == 1.5
    assert fresh(other_first_of)(np.ones(3, np.float32)) == 2.0
    assert len(compilations) == 4
    assert fresh(first_of)(np.ones(3)) == 1.5
    assert len(compilations) == 4, "the right code is saved again"


def test_a_setting_of_numba_that_changes_the_code_changes_its_key(
    cache: Path, compilations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh(first_of)(np.ones(3))
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", 1)
    assert fresh(first_of)(np.ones(3)) == 1.5
    assert len(compilations) == 2


def test_without_a_cache_folder_functions_are_compiled_in_memory(
    tmp_path: Path, compilations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CORNERNET_CACHE", str(tmp_path / "file" / "cache"))
    for count in (1, 2):
        assert fresh(first_of)(np.ones(3)) == 1.5
        assert len(compilations) == count


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
    """Or of a file whose digest is in the key of the cache. None calls itself: such code crashes when loaded."""
    allowed = {"cornernet.model.heads.corner.decode_cpu": {"cornernet.kernels.cpu_kernels"}}.get(name, set())
    module = importlib.import_module(name)
    kinds = (Dispatcher, CompiledFunction, CFunction)
    functions = [value for value in [*vars(module).values(), *FUNCTIONS] if isinstance(value, kinds)]
    functions = [function for function in functions if function.__module__ == name]
    assert functions
    for function in functions:
        used = [vars(module).get(each) for each in function.py_func.__code__.co_names]
        files = {each.__module__ for each in used if isinstance(each, kinds)}
        files |= {each._defn.__module__ for each in used if isinstance(each, _Intrinsic)}
        assert files <= {name, *allowed}, function
        assert function not in used, function
