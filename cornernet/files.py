"""All output of the project, reading of files that a user names, the cache folder, and suggestions for misspelt paths.

Every file is written here; ``tests/unit/test_layout.py`` checks that no other module opens one for writing. The rules:

* A file appears whole or not at all. What a killed process leaves has a name that only :func:`atomic_write` and its
  siblings make, and the next call that writes in the folder removes it.
* Nothing is written through a symbolic link below the folder that was named. The error names the link and the fix.
* A command replaces a file only if the same command wrote it and nobody has changed it since (:class:`Output`), or if
  ``--overwrite`` was given. A photograph that is being read is never replaced.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import IO, BinaryIO

__all__ = [
    "Output",
    "OutputError",
    "atomic_copy",
    "atomic_write",
    "cache_folder",
    "fitting_name",
    "identities",
    "identity",
    "is_utf8",
    "make_folder",
    "nearest",
    "new_file",
    "open_log",
    "open_regular",
    "open_unchanged",
    "read_regular",
    "refuse_link",
    "remove_file",
    "remove_unfinished",
    "require_regular",
    "sync",
]

_UNFINISHED = re.compile(r"\.cornernet-([0-9a-f]{12})-([0-9a-f]{12})\.part")
_SECONDS_ABANDONED = 3600.0
"""Where a file system has no locks, an unfinished file that is older was left by a process that was killed."""
_LONGEST_NAME = 255
"""Bytes of a file name on all usual file systems."""
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)

_cleaned: set[Path] = set()
"""Folders in which this process has looked for unfinished files."""


class OutputError(OSError):
    """A file that may not be written or replaced. The message names it and the fix."""


# ----------------------------------------------------------------------------------------------------- one file


def atomic_write(path: str | os.PathLike[str], content: bytes | str, *, replace: bool = True) -> None:
    """Write ``content`` to ``path`` atomically: a reader sees the old file or the new one, even after a crash.

    Text is written as UTF-8. The folder must exist. Raises :class:`OutputError` where ``path`` is a symbolic link, and
    where it exists and ``replace`` is not set; otherwise ``OSError`` naming the file. Nothing is left behind then.
    """
    with new_file(Path(path), replace) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def atomic_copy(source: Path, target: Path, *, replace: bool = True) -> None:
    """Copy the content of a file to ``target``, with the promises of :func:`atomic_write`."""
    with source.open("rb") as content, new_file(target, replace) as file:
        shutil.copyfileobj(content, file, 1 << 20)


@contextlib.contextmanager
def new_file(path: Path, replace: bool = True) -> Iterator[BinaryIO]:
    """Yield a binary file that becomes ``path`` when the context ends without an error; see :func:`atomic_write`."""
    refuse_link(path)
    _clean(path.parent)
    partial = None
    try:
        handle, partial = _open_unfinished(path.parent)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            _publish(partial, path, replace)
        sync(path.parent)
    except BaseException as error:
        if partial is not None:
            with contextlib.suppress(OSError):
                partial.unlink()
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, str(partial)):
            # the name of the temporary file says nothing to the user
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _clean(folder: Path) -> None:
    """Remove what killed processes left in a folder, once in this process: a folder may have a million files."""
    folder = folder.absolute()
    if folder not in _cleaned:
        _cleaned.add(folder)
        remove_unfinished(folder)


def _open_unfinished(folder: Path) -> tuple[int, Path]:
    """Return a new file in ``folder``, open and locked, with a name that :func:`remove_unfinished` knows."""
    while True:
        path = folder / _unfinished_name(secrets.token_hex(6))
        # the kernel applies the umask; asking for it would change it for all threads
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            handle = os.open(path, flags, 0o666)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(folder)) from error
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, path
        os.close(handle)  # another process took it for abandoned before it was locked


def _unfinished_name(token: str) -> str:
    # the second part follows from the first, so that a user's file never looks like one of ours by accident
    return f".cornernet-{token}-{hashlib.sha256(f'unfinished {token}'.encode()).hexdigest()[:12]}.part"


def _publish(partial: Path, path: Path, replace: bool) -> None:
    """Give a finished file its name."""
    refuse_link(path)
    if replace:
        partial.replace(path)
        return
    try:
        os.link(partial, path, follow_symlinks=False)
    except FileExistsError:
        raise OutputError(f"{path} exists already; remove it, or choose another name") from None
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))
        partial.replace(path)
    else:
        partial.unlink()


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_log(path: Path) -> IO[bytes]:
    """Open a file to add lines to, created if needed. Raises ``OSError`` for a link and for what is not a file."""
    return os.fdopen(_open_plain(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")


def open_unchanged(path: Path) -> IO[str]:
    """Open a lock's file, created if needed, without changing its content. Raises as :func:`open_log` does."""
    return os.fdopen(_open_plain(path, os.O_RDWR | os.O_CREAT), "r+")


def _open_plain(path: Path, flags: int) -> int:
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    except OSError:
        refuse_link(path)
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OutputError(f"{path} is not a file; remove it, or choose another folder")
    return handle


def remove_file(path: Path) -> None:
    """Remove a file that this project wrote, if it is there. A link is left, because nothing of ours is one."""
    if not path.is_symlink():
        path.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that killed processes left in ``folder``, and nothing else.

    A process holds a lock on the file that it writes, so files that are being written are kept.
    """
    with contextlib.suppress(OSError):
        found = [match for path in folder.iterdir() if (match := _UNFINISHED.fullmatch(path.name))]
        for match in found:
            if match[0] == _unfinished_name(match[1]):
                _remove_abandoned(folder / match[0])


def _remove_abandoned(path: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                return
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            except OSError:
                if time.time() - about.st_mtime < _SECONDS_ABANDONED:
                    return
            path.unlink()
        finally:
            os.close(handle)


# ---------------------------------------------------------------------------------------------------- folders


def refuse_link(path: Path, below: Path | None = None) -> None:
    """Raise :class:`OutputError` if ``path`` is a symbolic link, or a folder between ``below`` and it is one."""
    for each in (path, *path.parents):
        if each == below:
            return
        if each.is_symlink():
            raise OutputError(
                f"{each} is a symbolic link to {each.readlink()}, and nothing is written through links; remove the "
                "link, or choose another place"
            )
        if below is None:
            return


def make_folder(path: Path, below: Path | None = None) -> None:
    """Create a folder and those above it. Raises :class:`OutputError` for a link between ``below`` and it.

    ``below`` is the folder that the user named, which may be a link; None if that is ``path`` itself.
    """
    if below is not None:
        refuse_link(path, below)
    path.mkdir(parents=True, exist_ok=True)


def is_utf8(name: str) -> bool:
    """Return whether a name can be written as UTF-8. One that the file system has in another encoding cannot."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def fitting_name(stem: str, ending: str) -> str:
    """Return ``stem`` (the last part of a path), shortened where with ``ending`` it is too long for a file name.

    A shortened one ends in a digest of the whole, so that different names stay different.
    """
    room = _LONGEST_NAME - len(os.fsencode(ending))
    whole = os.fsencode(stem)
    if len(whole) <= room:
        return stem
    mark = f"~{hashlib.sha256(whole).hexdigest()[:10]}"
    return whole[: room - len(mark)].decode(errors="ignore") + mark


class Output:
    """The files that one command writes into a folder, and which existing ones it may replace.

    ``command`` is its name, such as 'detect'. It may replace the files that it wrote itself, if their content is still
    what it wrote; any other file only with ``overwrite``; and one of ``originals``, the files that it reads, never. A
    list in the cache folder says what was written, with its sha256, so that nothing is left in the user's folders.
    ``known`` are further names whose present files it wrote, as something in the folder tells. The folder is created at
    the first write.
    """

    def __init__(
        self,
        folder: Path,
        command: str,
        *,
        overwrite: bool = False,
        originals: Iterable[Path] = (),
        known: Iterable[str] = (),
    ) -> None:
        self.folder = folder
        self.command = command
        self.overwrite = overwrite
        self._originals = originals
        self._present = {name: _digest(folder / name) for name in known if (folder / name).is_file()}

    def require(self, names: Iterable[str]) -> None:
        """Raise :class:`OutputError` for a name below the folder that may not be written, before work is lost."""
        for name in names:
            self._check(name)

    def write(self, name: str, content: bytes | str) -> Path:
        """Write a file, by its path below the folder, and return its path. Raises as :meth:`require` does."""
        data = content.encode() if isinstance(content, str) else content
        path = self.folder / name
        there = self._check(name)
        digest = hashlib.sha256(data).hexdigest()
        if there == digest:
            _clean(path.parent)
            return path
        make_folder(self.folder)
        make_folder(path.parent, below=self.folder)
        # before the file is there: after a crash in between, the next call may still replace what it finds
        self._note(name, digest)
        atomic_write(path, data, replace=there is not None)
        return path

    def remove(self, name: str) -> bool:
        """Remove a file that may be replaced, and return whether it was; a link and another's file stay."""
        try:
            there = self._check(name)
        except OutputError:
            return False
        if there is not None:
            remove_file(self.folder / name)
        return there is not None

    def _check(self, name: str) -> str | None:
        """Return the sha256 of the file that is there and may be replaced, or None if there is none."""
        path = self.folder / name
        refuse_link(path, below=self.folder)
        if not path.exists():
            return None
        if identity(path) in self._identities:
            raise OutputError(f"{path} is one of the files that are read, and is never replaced; choose another place")
        if not path.is_file():
            raise OutputError(f"{path} is there and is not a file; remove it, or choose another place")
        digest = _digest(path)
        if not self.overwrite and digest not in self._known.get(name, ()):
            changed = f"has changed since {self.command} wrote it" if name in self._known else "exists already"
            raise OutputError(f"{path} {changed}; choose another place, or replace it with --overwrite")
        return digest

    @cached_property
    def _identities(self) -> set[tuple[int, int]]:
        return identities(self._originals)

    @cached_property
    def _known(self) -> dict[str, set[str]]:
        """The digests of what this command wrote, by name."""
        known = {name: {digest} for name, digest in self._present.items()}
        with contextlib.suppress(OSError):
            path = self._ledger
            text = "" if path is None else path.read_text(encoding="utf-8", errors="replace")
            for row in text.splitlines():
                with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                    line = json.loads(row)
                    if line["by"] == self.command:
                        known.setdefault(str(line["file"]), set()).add(str(line["sha256"]))
        return known

    @property
    def _ledger(self) -> Path | None:
        """The list of what was written into this folder; None without a cache."""
        cache = cache_folder()
        if cache is None:
            return None
        place = hashlib.sha256(os.fsencode(self.folder.resolve())).hexdigest()[:16]
        return cache / f"written-{place}.jsonl"

    def _note(self, name: str, digest: str) -> None:
        """Add a line to the ledger, unless it has it. Without it, the next call asks for --overwrite."""
        known = self._known.setdefault(name, set())
        path = self._ledger
        if digest in known or path is None:
            return
        known.add(digest)
        line = json.dumps({"by": self.command, "file": name, "sha256": digest}) + "\n"
        with contextlib.suppress(OSError):
            make_folder(path.parent)
            with open_log(path) as file:
                file.write(line.encode())


def identities(paths: Iterable[Path]) -> set[tuple[int, int]]:
    """Return the :func:`identity` of those of ``paths`` that exist."""
    return {identity(path) for path in paths if path.exists()}


def identity(path: Path) -> tuple[int, int]:
    """Return what all names of one existing file share."""
    about = path.stat()
    return about.st_dev, about.st_ino


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ------------------------------------------------------------------------------------------------------ reading


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


# ---------------------------------------------------------------------------------------- the cache, suggestions


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
