"""Machine code on disk: loaded only from files that this user wrote, and only if it is the code that was asked for.

Loading machine code runs it, so nobody else may be able to write it. It lies in a folder of its own, named after the
user's number: ``machine-code-1000`` below ``$CORNERNET_CACHE``, otherwise ``$XDG_CACHE_HOME/cornernet-lab``, otherwise
``~/.cache/cornernet-lab``. The folder is created with mode 0700. A folder or file that belongs to another user, that
others may write to, or that is a link is not used: :func:`load` and :func:`save` warn and do nothing, so the caller
compiles. What is checked is the opened folder, and files are opened relative to it, so it cannot be exchanged after the
check.

Each file holds one piece of code and the whole key that it was compiled for, under a checksum of both. There is no
index. A file is written under another name first and then renamed, so whatever processes do at the same time, and
wherever one is killed, a reader gets the code of its own key or none. A damaged or exchanged file counts as none.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import stat
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

__all__ = ["folder", "load", "save", "turn"]

_MAGIC = b"cornernet machine code 1\n"
_DIGEST = hashlib.sha256().digest_size
_LARGEST = 1 << 28
_LONGEST_TURN = 120.0
"""Seconds after which a process stops waiting for another one that compiles the same code, and compiles it too."""

_HOUR, _DAY = 3600.0, 86400.0
_KEPT = 30 * _DAY
_OURS = re.compile(r"[A-Za-z0-9_.]+-[0-9a-f]{32}\.code")
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")


def folder() -> Path | None:
    """Return this user's folder for machine code, whether or not it exists; None without a home."""
    if named := os.environ.get("CORNERNET_CACHE"):
        base = Path(named)
    elif general := os.environ.get("XDG_CACHE_HOME"):
        base = Path(general) / "cornernet-lab"
    else:
        try:
            base = Path.home() / ".cache" / "cornernet-lab"
        except RuntimeError:
            return None
    return base / f"machine-code-{os.geteuid()}"


def load(name: str, key: str) -> bytes | None:
    """Return the code that was saved under exactly this key; None if there is none, or it cannot be trusted.

    ``name`` is what is compiled, letters, digits, ``_`` and ``.``; ``key`` states everything that the code depends on.
    """
    with _opened(create=False) as place:
        if place is None:
            return None
        try:
            handle = os.open(_file(name, key), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
        except OSError:
            return None
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or _why_unsafe(status) or status.st_size > _LARGEST:
                return None
            try:
                content = file.read()
            except OSError:
                return None
            if time.time() - status.st_mtime > _DAY:  # files that nobody uses are removed by their age
                with contextlib.suppress(OSError):
                    os.utime(handle)
    start = _MAGIC + _head(key)
    if not content.startswith(start) or len(content) < len(start) + _DIGEST:
        return None
    body, checksum = content[:-_DIGEST], content[-_DIGEST:]
    return body[len(start) :] if hashlib.sha256(body).digest() == checksum else None


def save(name: str, key: str, code: bytes) -> None:
    """Save ``code`` under ``key``. Where that is impossible (no home, read-only, full), nothing is saved."""
    body = _MAGIC + _head(key) + code
    content = body + hashlib.sha256(body).digest()
    with _opened(create=True) as place:
        if place is None:
            return
        file = _file(name, key)
        temporary = f".{file}.{secrets.token_hex(8)}.tmp"
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=place)
        except OSError:
            return
        try:
            with os.fdopen(handle, "wb") as writing:
                writing.write(content)
            os.replace(temporary, file, src_dir_fd=place, dst_dir_fd=place)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=place)
        _remove_unused(place)


@contextlib.contextmanager
def turn(name: str) -> Iterator[None]:
    """Wait for other processes that compile ``name``, so that it is compiled once: look again with :func:`load`.

    The lock ends with its holder, killed or not. Correctness does not depend on it. After two minutes, or where files
    cannot be locked, there is no waiting.
    """
    with _opened(create=True) as place, contextlib.ExitStack() as held:
        if place is not None:
            with contextlib.suppress(OSError):
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
                handle = os.open(f"{name}.lock", flags, 0o600, dir_fd=place)
                held.callback(os.close, handle)
                if _locked(handle):
                    # closing would not release it if the process has forked meanwhile
                    held.callback(fcntl.flock, handle, fcntl.LOCK_UN)
        yield


def _locked(handle: int) -> bool:
    end = time.monotonic() + _LONGEST_TURN
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        else:
            return True


def _file(name: str, key: str) -> str:
    return f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.code"


def _head(key: str) -> bytes:
    data = key.encode()
    return len(data).to_bytes(8, "little") + data


@contextlib.contextmanager
def _opened(create: bool) -> Iterator[int | None]:
    """Open the folder and yield its descriptor; None if there is none or it is not this user's alone."""
    path = folder()
    handle, why = None, None
    if path is not None:
        try:
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    path.mkdir(mode=0o700)
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            why = "is a link" if path.is_symlink() else None
    try:
        if handle is not None:
            why = _why_unsafe(os.fstat(handle))
        if why is not None:
            _warn(
                f"{path} {why}: no machine code is read from it or saved there, so every process compiles again; "
                "remove it, or set CORNERNET_CACHE to a folder of your own"
            )
        yield handle if why is None else None
    finally:
        if handle is not None:
            os.close(handle)


def _why_unsafe(status: os.stat_result) -> str | None:
    """Return why somebody else may have written a folder or file, or None."""
    if status.st_uid != os.geteuid():
        return f"belongs to user {status.st_uid}"
    if status.st_mode & 0o022:
        return f"can be written by other users (mode {stat.S_IMODE(status.st_mode):04o})"
    return None


_warned: set[str] = set()


def _warn(message: str) -> None:
    """Warn once in this process."""
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=2)


def _remove_unused(place: int) -> None:
    """Remove code that was not used for a month, and what killed processes left unfinished an hour ago or earlier."""
    with contextlib.suppress(OSError):
        for file in os.listdir(place):
            limit = _KEPT if _OURS.fullmatch(file) else _HOUR if _UNFINISHED.fullmatch(file) else None
            if limit is None:
                continue
            with contextlib.suppress(OSError):
                if time.time() - os.stat(file, dir_fd=place, follow_symlinks=False).st_mtime > limit:
                    os.unlink(file, dir_fd=place)
