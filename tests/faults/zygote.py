"""A process that has imported everything and computed nothing, and forks the processes to kill.

``python -m tests.faults.zygote``.

Importing torch takes seconds. A fork of this process starts at once, so that hundreds of runs can be killed in minutes.
It reads requests as lines of JSON. It answers each with the process id, then with the exit status and the number of
file operations in the watched folder.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import torch._dynamo  # noqa: F401 - torch imports it for the first optimiser, which takes seconds

import cornernet.ablations.__main__ as ablations_command
import cornernet.cli.train  # noqa: F401 - the processes of the tests begin with it
import cornernet.kernels.cpu_kernels  # noqa: F401 - imported for the first pooling
from cornernet import Config
from cornernet.ablations.reporting.folder import write_files
from cornernet.ablations.running.planner import Job
from cornernet.ablations.running.runner import run_group
from cornernet.ablations.running.store import Store
from cornernet.cli import main as cornernet_command
from cornernet.training.loop import train
from tests.faults.cold import race

FILE_OPERATIONS = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.chmod", "shutil.rmtree")


class Fork:
    """A forked worker with the interface of ``ablations.running.executors.Run``."""

    def __init__(self, number: int) -> None:
        self.pid, self.returncode = number, None

    def poll(self) -> int | None:
        if self.returncode is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


class ForkExecutor:
    """Starts the workers of a runner as forks, like ``LocalExecutor`` but without importing torch again."""

    def __init__(self, workers: int, processes: int = 1) -> None:
        self.workers = workers

    def slots(self) -> int:
        return self.workers

    def start(self, store: Store, group: Sequence[Job], lock: IO[str]) -> Fork:
        path = store.log_path(group[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        number = os.fork()
        if number == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _leave(lambda: run_group(store, [job.config for job in group]), path)
        return Fork(number)


def _leave(run: Callable[[], int | None], log: Path) -> Any:
    """Run a function in this fork with its output in a file, then end the process."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    status: Any = 1
    try:
        status = run() or 0
    except KeyboardInterrupt as stop:
        print(f"stopped: {stop}", file=sys.stderr)
        status = 130
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - the test reads it in the log
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _train(request: dict[str, Any]) -> None:
    train(Config.load(request["config"]), request["out"], resume=True, quiet=True)


def _ablate(request: dict[str, Any]) -> int:
    ablations_command.LocalExecutor = ForkExecutor  # type: ignore[misc,assignment]
    return ablations_command.main(request["argv"])


def _write(request: dict[str, Any]) -> None:
    source = Path(request["source"])
    files = {str(path.relative_to(source)): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    write_files(Path(request["out"]), files)


def _cornernet(request: dict[str, Any]) -> int:
    return cornernet_command(request["argv"])


def _cold(request: dict[str, Any]) -> None:
    race(Path(request["cache"]), Path(request["out"]), request["processes"], request["seed"], request["costly"])


KINDS: dict[str, Callable[[dict[str, Any]], int | None]] = {
    "train": _train,
    "ablate": _ablate,
    "write": _write,
    "cornernet": _cornernet,
    "cold": _cold,
}


def _counted(request: dict[str, Any], counted: str) -> None:
    """Count the file operations below the request's ``watch``, and die before number ``kill_at``."""
    below, kill_at = request.get("watch"), request.get("kill_at")
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in FILE_OPERATIONS or not arguments or below is None or below not in str(arguments[0]):
            return
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        os.pwrite(handle, f"{count:12d}".encode(), 0)

    handle = os.open(counted, os.O_WRONLY)
    sys.addaudithook(hook)


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.NamedTemporaryFile("r", encoding="utf-8") as counted:
            number = os.fork()
            if number == 0:
                os.setsid()
                if "file_bytes" in request:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_bytes"],) * 2)
                _counted(request, counted.name)
                _leave(lambda request=request: KINDS[request["kind"]](request), Path(request["log"]))
            print(number, flush=True)
            status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
            print(status, int(counted.read() or 0), flush=True)


if __name__ == "__main__":
    main()
