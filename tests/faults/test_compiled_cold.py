"""Processes that compile at the same time, from a cold cache, compute the same to the bit as without a cache."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import cold
from tests.faults.conftest import Zygote, rounds

pytestmark = pytest.mark.xdist_group("faults")


def outputs(zygote: Zygote, root: Path, name: str, cache: Path, processes: int, seed: int, costly: bool) -> Counter:
    """How many processes wrote each output, the digests of all calls."""
    log, out = root / f"{name}.log", root / name
    status, _ = zygote.run("cold", log, cache=cache, out=out, processes=processes, seed=seed, costly=costly)
    assert status == 0, log.read_text()
    return Counter(path.read_text() for path in out.iterdir())


def compare(zygote: Zygote, root: Path, tally: Callable[..., None], processes: int, times: int, costly: bool) -> None:
    nowhere = root / "file"
    nowhere.write_text("")
    expected = outputs(zygote, root, "in-memory", nowhere / "cache", 1, 0, costly)
    (right,) = expected
    assert len(set(json.loads(right).values())) > 2
    for seed in range(times):
        cache = root / "cache"
        assert outputs(zygote, root, f"cold-{seed}", cache, processes, seed, costly) == {right: processes}
        (folder,) = cache.iterdir()
        kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.code")}
        assert {name.rpartition("-")[0] for name in kept} == cold.names(costly)
        assert not list(folder.glob("*.tmp"))
        assert outputs(zygote, root, f"warm-{seed}", cache, 1, seed, costly) == {right: 1}
        assert {path.name: path.stat().st_mtime_ns for path in folder.glob("*.code")} == kept, "nothing compiled again"
        shutil.rmtree(cache)
        tally("cold rounds")
        tally("cold processes", processes)


def test_every_module_with_compiled_functions_is_called() -> None:
    """Those that have a decorator in their source are those whose functions the processes know."""
    root = Path(__file__).parents[2]
    decorated = re.compile(r"^@compiled\(|(?<!def )c_function\(", re.MULTILINE)
    files = [path for part in ("kernels", "cornernet", "ablations") for path in (root / part).rglob("*.py")]
    written = {path.stem for path in files if decorated.search(path.read_text(encoding="utf-8"))}
    written -= {"compiled", "numba_compiler"}  # these define the decorators
    assert len(written) > 4
    program = "from tests.faults import cold; print(*{name.partition('.')[0] for name in cold.names(True)})"
    known = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert set(known.stdout.split()) == written


@pytest.mark.slow
def test_four_cold_processes(zygote: Zygote, tmp_path: Path, tally: Callable[..., None]) -> None:
    compare(zygote, tmp_path, tally, processes=4, times=1, costly=False)


@pytest.mark.thorough
def test_sixteen_cold_processes_and_every_function(zygote: Zygote, tmp_path: Path, tally: Callable[..., None]) -> None:
    compare(zygote, tmp_path, tally, processes=16, times=min(rounds(2), 50), costly=True)
