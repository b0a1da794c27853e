"""A call of the benchmarks that runs none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_a_call_that_runs_no_benchmark_ends_without_a_traceback(tmp_path) -> None:
    # a file of tests, since collecting all benchmarks takes long; the plugin and its settings are the same
    here = Path(__file__)
    command = [sys.executable, "-m", "pytest", str(here), "-k", "nothing", "-p", "no:cacheprovider", "-p", "no:xdist"]
    # a worker's variables would make the plugin believe that another process reports
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ended = subprocess.run(
        [*command, f"--benchmark-json={tmp_path / 'out.json'}"],
        cwd=here.parents[3],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert ended.returncode == 5, "no test was collected"
    assert "no benchmarks have been run" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
