"""Programs that tests start as forks do what a new Python does."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("forked")

PROGRAMS = {
    "says and ends": "import sys; print('out', sys.argv[1:]); print('err', file=sys.stderr); sys.exit(3)",
    "has a reason": "import sys; sys.exit('a reason')",
    "fails": "def f():\n    raise ValueError('no')\ntry:\n    f()\nexcept ValueError:\n    raise SystemExit(1)",
    "environment and folder": "import os; print(sorted(os.environ), os.getcwd(), os.getpgid(0) == os.getpid())",
    "is killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "starts another": "import subprocess, sys; c = [sys.executable, '-c', 'import sys; print(5); sys.exit(4)']\n"
    "done = subprocess.run(c, capture_output=True, text=True); print(done.returncode, done.stdout)",
    "other programs": "import subprocess; print(subprocess.run(['echo', 'x'], capture_output=True).stdout)",
    "signals": "import signal; print(signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))",
    "its input": "import sys; print(sys.stdin.read())",
}


def outcome(program: str, folder: Path) -> tuple[int | str | None, ...]:
    (folder / "script.py").write_text(program)
    command = [sys.executable, *(("-c", program) if "argv" in program else ("-u", str(folder / "script.py"))), "a"]
    done = subprocess.run(
        command, cwd=folder, env={"LC_CTYPE": "C.UTF-8", "X": "y"}, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, start_new_session=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_fork_ends_and_says_what_a_new_python_does(program, tmp_path, request) -> None:
    expected = outcome(program, tmp_path)
    request.getfixturevalue("forked")
    assert outcome(program, tmp_path) == expected


@pytest.mark.usefixtures("forked")
def test_a_fork_ends_without_those_that_it_has_started(tmp_path) -> None:
    sleeps = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    starts = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleeps!r}])"
    with (tmp_path / "number").open("w") as numbers:
        done = subprocess.run([sys.executable, "-c", starts], stdout=numbers, check=False, timeout=300)
    assert done.returncode == 0
    while not (number := (tmp_path / "number").read_text()):
        time.sleep(0.01)
    os.kill(int(number), signal.SIGKILL)


@pytest.mark.usefixtures("forked")
def test_a_fork_holds_the_locks_that_it_is_given_and_is_stopped(tmp_path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        command = [sys.executable, "-c", "import time; time.sleep(600)"]
        process = subprocess.Popen(command, pass_fds=[lock.fileno()])
    assert process.poll() is None
    with path.open("w") as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.terminate()
        assert process.wait() == -signal.SIGTERM
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not Path(f"/proc/{process.pid}").exists() or os.uname().sysname != "Linux"
