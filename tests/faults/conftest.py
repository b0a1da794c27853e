"""Processes to kill, how often to kill them, and the results that they must reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.runs import Whole, config, results

ROOT = Path(__file__).parents[2]


def pytest_report_header() -> str:
    return f"faults: {rounds(2)} of each kind; set CORNERNET_FAULTS to inject more"


def rounds(few: int) -> int:
    """The number of faults of each kind: CORNERNET_FAULTS if it is set, otherwise ``few``."""
    return int(os.environ.get("CORNERNET_FAULTS", few))


class Running:
    """A running fork of the zygote."""

    def __init__(self, zygote: subprocess.Popen[str]) -> None:
        self.zygote = zygote
        self.pid = int(self._line())
        self.began = time.monotonic()

    def _line(self) -> str:
        assert self.zygote.stdout is not None
        line = self.zygote.stdout.readline()
        assert line, "the zygote has died"
        return line

    def kill(self) -> None:
        """Kill the whole process tree, without a chance to clean up."""
        try:
            process = psutil.Process(self.pid)
            tree = [*process.children(recursive=True), process]
        except psutil.NoSuchProcess:
            return
        for each in tree:
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
        # wait cannot be called for grandchildren
        psutil.wait_procs(tree[:-1], timeout=30)

    def signal(self, number: int) -> None:
        """Send a signal to the whole process group, as a terminal does."""
        os.killpg(self.pid, number)

    def alive(self) -> bool:
        return psutil.pid_exists(self.pid) and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE

    def wait(self) -> tuple[int, int]:
        """Return the exit status and the number of file operations."""
        status, operations = self._line().split()
        return int(status), int(operations)


class Zygote:
    """Starts forks of a process that has imported everything."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, kind: str, log: Path, **request: Any) -> Running:
        assert self.process.stdin is not None
        text = json.dumps({"kind": kind, "log": log, **request}, default=str)
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return Running(self.process)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def run(self, kind: str, log: Path, **request: Any) -> tuple[int, int]:
        return self.start(kind, log, **request).wait()


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    started = Zygote()
    yield started
    started.close()


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """Count the faults; they are written to the file that CORNERNET_FAULTS_LOG names."""
    counted: dict[str, int] = {}

    def add(what: str, number: int = 1) -> None:
        counted[what] = counted.get(what, 0) + number

    yield add
    path = os.environ.get("CORNERNET_FAULTS_LOG")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"test": request.node.name, **counted}) + "\n")


@pytest.fixture(scope="session")
def whole(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    root = tmp_path_factory.mktemp("whole")
    path = root / "config.json"
    path.write_text(config().to_json())
    began = time.monotonic()
    status, operations = zygote.run("train", root / "log", config=path, out=root / "run", watch=root)
    assert status == 0, (root / "log").read_text()
    assert operations > 20
    found = Whole(path, root / "run", time.monotonic() - began, operations, results(root / "run"))
    assert len(found.results["lines"]) == 8 + 2
    assert found.results["detections"]
    return found
