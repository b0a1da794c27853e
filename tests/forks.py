"""Python programs as forks of a process that has imported what they import: a new Python takes seven seconds of CPU.

The fixture ``forked`` of tests/conftest.py is for tests that start programs of the project and are about what these do.
A test of the start itself, of what is imported or of how Python is called needs a new Python.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver, reduction
from pathlib import Path
from typing import IO, Any

__all__ = ["Popen"]

ROOT = Path(__file__).parents[1]
PRELOAD = ("tests.preloaded", "pytest")

_Popen = subprocess.Popen


class Popen(_Popen):  # type: ignore[type-arg]
    """``subprocess.Popen``, with a :class:`Fork` for Python. It knows ``-m``, ``-c`` and scripts, also after ``-u``."""

    def __new__(cls, args: Any, *more: Any, **options: Any) -> Any:
        if not isinstance(args, str) and args[0] == sys.executable:
            return Fork(args, *more, **options)
        return super().__new__(cls)


class Fork:
    """The part of ``subprocess.Popen`` that is used here. Output to a pipe is there once the process has ended."""

    def __init__(
        self,
        args: Sequence[str],
        *,
        cwd: os.PathLike[str] | str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: IO[Any] | int | None = None,
        stdout: IO[Any] | int | None = None,
        stderr: IO[Any] | int | None = None,
        text: bool = False,
        pass_fds: Sequence[int] = (),
        start_new_session: bool = False,
        preexec_fn: None = None,
    ) -> None:
        self.args, self._text = args, text
        self._pipes: dict[int, IO[bytes]] = {}
        with Path(os.devnull).open("r+b") as null:

            def number(given: IO[Any] | int | None, inherited: int) -> int:
                if given is None:
                    return inherited
                if given == subprocess.PIPE:
                    return self._pipes.setdefault(inherited, tempfile.TemporaryFile()).fileno()
                if given == subprocess.DEVNULL:
                    return null.fileno()
                return out if given == subprocess.STDOUT else given if isinstance(given, int) else given.fileno()

            out = number(stdout, 1)
            numbers = (number(subprocess.DEVNULL if stdin is None else stdin, 0), out, number(stderr, 2))
            files, kept = list(map(_File, numbers)), list(map(_File, pass_fds))
            folder, environment = (
                os.fspath(Path.cwd() if cwd is None else cwd),
                dict(os.environ if env is None else env),
            )
            arguments = list(args[1:]), folder, environment, files, kept, start_new_session
            self._process = _context().Process(target=_run, args=arguments)
            self._process.start()
        # otherwise multiprocessing waits for it before this process ends
        multiprocessing.process._children.discard(self._process)  # type: ignore[attr-defined]
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        status: int | None = self._process.exitcode
        return status

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def communicate(self, input: None = None, timeout: float | None = None) -> tuple[Any, Any]:
        self.wait(timeout)
        return self._said(1), self._said(2)

    def _said(self, number: int) -> Any:
        if number not in self._pipes:
            return None
        with self._pipes.pop(number) as pipe:
            pipe.seek(0)
            said = pipe.read()
        return said.decode() if self._text else said

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Fork:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()


class _File:
    """An open file that goes to the fork; with it go its locks."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (reduction.DupFd(self.number),)


def _received(sent: Any) -> _File:
    return _File(sent.detach())


_FORKED = False
"""Whether this process is a fork. Its own forks are of itself: it has imported what they need."""


def _context() -> Any:
    """Return what starts a fork. The process to fork computes nothing, and its forks compute with one thread."""
    if _FORKED:
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "OMP_NUM_THREADS")}
    os.environ.update(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    try:
        forkserver.ensure_running()
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})
        for name in (name for name, value in before.items() if value is None):
            del os.environ[name]
    return context


def _run(
    arguments: list[str], folder: str, environment: dict[str, str], files: list[_File], kept: list[_File], session: bool
) -> None:
    """Be the program, in the fork."""
    global _FORKED
    _FORKED = True
    # a new program does not inherit what its parent does at a signal
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if session:
        os.setsid()
    for number, file in enumerate(files):
        os.dup2(file.number, number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    subprocess.Popen = Popen  # type: ignore[misc]
    status: Any = 0
    try:
        if arguments[0] == "-u":
            del arguments[0]
        if arguments[0] == "-c":
            sys.argv = ["-c", *arguments[2:]]
            exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
        elif arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        status = end.code
    except BaseException:  # noqa: BLE001 - as Python ends a program
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    _save_coverage()
    sys.exit(status)


def _save_coverage() -> None:
    """Write what was covered: multiprocessing ends its processes without what is registered for the exit."""
    coverage = sys.modules.get("coverage")
    if coverage is not None and (current := coverage.Coverage.current()) is not None:
        current.stop()
        current.save()
