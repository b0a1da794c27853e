"""Atomic writes, reading of files that a user names, the cache folder, and suggestions for misspelt paths."""

from __future__ import annotations

import contextlib
import difflib
import errno
import io
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "atomic_write",
    "cache_folder",
    "nearest",
    "open_regular",
    "read_regular",
    "remove_unfinished",
    "require_regular",
    "sync",
]

_UNFINISHED = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def atomic_write(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write ``content`` to ``path`` atomically: a reader sees the old file or the new one, even after a crash.

    Text is written as UTF-8. The folder must exist. Raises ``OSError`` naming the file, and then leaves nothing behind;
    a killed process may leave a temporary file, which :func:`remove_unfinished` removes.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp creates private files; this one gets the usual permissions
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
        sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise


def remove_unfinished(folder: Path, seconds: float = 0.0) -> None:
    """Remove temporary files that killed processes left in ``folder``.

    Files younger than ``seconds`` are kept, because another process may still be writing them.
    """
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if _UNFINISHED.fullmatch(path.name) and time.time() - path.stat().st_mtime >= seconds:
                path.unlink()


@contextlib.contextmanager
def open_regular(path: str | os.PathLike[str], largest: int, expected: str = "") -> Iterator[io.FileIO]:
    """Open a regular file of at most ``largest`` bytes for reading.

    ``expected`` is what the file should be, for the message about one that is larger: ``a configuration``.

    A user may name anything: reading a device such as /dev/zero never ends, and a pipe waits for its other end. Raises
    ``OSError`` whose ``strerror`` says what is wrong, also for a larger file.
    """
    try:
        # non-blocking, because opening a pipe waits too
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a null character
        raise OSError(errno.EINVAL, f"it is not a valid file name ({error})") from error
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is a folder, a device or a pipe; give a file", os.fspath(path))
        if found.st_size > largest:
            size, limit = _bytes(found.st_size), _bytes(largest)
            doubt = f"; is it really {expected}?" if expected else ""
            raise OSError(errno.EINVAL, f"it has {size}, and the limit is {limit}{doubt}", os.fspath(path))
        with io.FileIO(handle, closefd=False) as file:
            yield file
    finally:
        os.close(handle)


def read_regular(path: str | os.PathLike[str], largest: int, expected: str = "") -> bytes:
    """Return the content of a regular file; see :func:`open_regular`."""
    with open_regular(path, largest, expected) as file:
        return file.readall()


def require_regular(path: str | os.PathLike[str], largest: int) -> None:
    """Raise ``OSError`` unless :func:`open_regular` opens ``path``, for libraries that open files themselves."""
    with open_regular(path, largest):
        pass


def _bytes(number: int) -> str:
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if number >= 1 << power:
            return f"{number / (1 << power):,.4g} {unit}"
    return f"{number} bytes"


def cache_folder() -> Path | None:
    """Return the folder for cached data: $CORNERNET_CACHE, or else the user's cache folder; None without a home."""
    if named := os.environ.get("CORNERNET_CACHE"):
        return Path(named)
    if general := os.environ.get("XDG_CACHE_HOME"):
        return Path(general) / "cornernet-lab"
    try:
        return Path.home() / ".cache" / "cornernet-lab"
    except RuntimeError:
        return None


def nearest(path: str | os.PathLike[str]) -> str:
    """Return the end of a message about a missing path: the most similar existing path, or what the folder contains.

    '; did you mean a/photos?', or '; a contains photos, runs', or '; there is no folder a either'.
    """
    path = Path(path)
    parent = path.parent
    missing = None
    while not parent.is_dir() and parent != parent.parent:
        missing, parent = parent, parent.parent
    names = sorted(entry.name for entry in parent.iterdir()) if os.access(parent, os.R_OK) else []
    wanted = path.name if missing is None else missing.name
    near = difflib.get_close_matches(wanted, names, n=1)
    if near:
        return f"; did you mean {parent / near[0]}?"
    if missing is not None:
        return f"; there is no folder {missing} either"
    shown = [name for name in names if not name.startswith(".")][:6]
    return f"; {parent.resolve()} contains {', '.join(shown)}" if shown else f"; {parent.resolve()} is empty"
