"""Where the images of a COCO-format folder are: the usual places, other spellings of a name, and a search by name.

A file name is looked for as it is written, then with slashes for backslashes and with accents composed in the other of
Unicode's two ways, which archives and operating systems change. An absolute path counts if it leads into the folder.
If no image at all is in the usual places, a folder below is looked for that holds them all, also without the folders
that all names begin with; failing that, all files below the folder are searched by their last part. A name that several
files have is not guessed: it is the one whose path ends as the annotations say or, failing that, the one in a folder of
the split.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from cornernet.data.images import DataError
from cornernet.files import is_utf8

__all__ = ["AMBIGUOUS", "LEADS_OUT", "MISSING", "NAMELESS", "ImagePlaces", "names_split", "stays_inside"]

MISSING = "its file is missing"
NAMELESS = "its file_name is missing"
LEADS_OUT = "its file_name leads out of the data set's folder"
AMBIGUOUS = "several files below the folder have its name"

_PLAIN = re.compile(r"[^/\\:\0]+").fullmatch
"""Matches a file_name without a folder."""
_NO_SUCH_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
_OTHER_NAMES = {"val": ("val", "valid"), "train": ("train",), "test": ("test",)}


class ImagePlaces:
    """The folders in which the images of one annotation file may be, relative to the data set's folder ``root``."""

    def __init__(self, root: Path, file: str, split: str) -> None:
        self._root = root
        stem = Path(file).stem.removeprefix("instances_")
        places = [f"images/{stem}", stem, Path(file).parent.as_posix(), "images", "."]
        if "/" not in split and split != stem and stays_inside(split):
            places[2:2] = [f"images/{split}", split]
        self.folders = tuple(dict.fromkeys(str(root / place) for place in places))
        self._whole = self.folders.index(str(root))
        self._splits = [word for word in _OTHER_NAMES if names_split(file, word) or names_split(split, word)]
        self._listings: dict[str, frozenset[str]] = {}
        self._composed: dict[str, dict[str, str]] = {}
        self._by_name: dict[str, list[str]] | None = None

    def locate(self, name: str) -> tuple[int, str] | str:
        """Return the index of the folder that contains an image and its name there, or the reason why none does."""
        found = self._exactly(name)
        if found != MISSING and found != LEADS_OUT:
            return found
        if found == LEADS_OUT:
            inside = self._inside(name)
            return LEADS_OUT if inside is None else self._exactly(inside)
        slashed = name.replace("\\", "/")
        if slashed != name and (found := self._exactly(slashed)) != MISSING:
            return found
        return MISSING if slashed.isascii() else self._spelled_otherwise(slashed)

    def _exactly(self, name: str) -> tuple[int, str] | str:
        if _PLAIN(name) and name not in (".", ".."):
            for index, folder in enumerate(self.folders):
                if name in self._listing(folder):
                    return index, name
            return MISSING
        if not name:
            return NAMELESS
        if not stays_inside(name):
            return LEADS_OUT
        for index, folder in enumerate(self.folders):
            path = Path(folder, name)
            if path.name in self._listing(str(path.parent)):
                return index, name
        return MISSING

    def _inside(self, name: str) -> str | None:
        """Return an absolute path relative to the data set's folder, or None where it does not lead into it."""
        path = Path(name)
        if not path.is_absolute() or ".." in path.parts or "\0" in name:
            return None
        for root in (self._root.absolute(), self._root.resolve()):
            if path.is_relative_to(root):
                return path.relative_to(root).as_posix()
        return None

    def _spelled_otherwise(self, name: str) -> tuple[int, str] | str:
        parts = name.split("/")
        for index, folder in enumerate(self.folders):
            # every part of the path may be composed in another way
            place, found = folder, []
            for part in parts:
                spelling = self._spellings(place).get(unicodedata.normalize("NFC", part))
                if spelling is None:
                    break
                found.append(spelling)
                place = str(Path(place, spelling))
            else:
                if found[-1] in self._listing(str(Path(place).parent)):
                    return index, "/".join(found)
        return MISSING

    def _spellings(self, folder: str) -> dict[str, str]:
        """Return the entries of a folder by their composed form."""
        if folder not in self._composed:
            entries: list[str] = []
            with contextlib.suppress(OSError), os.scandir(folder) as found:
                entries = sorted(entry.name for entry in found)
            self._composed[folder] = {unicodedata.normalize("NFC", entry): entry for entry in entries}
        return self._composed[folder]

    def _listing(self, folder: str) -> frozenset[str]:
        found = self._listings.get(folder)
        if found is None:
            found = self._listings[folder] = _files_in(folder)
        return found

    # ---- the search

    def together(self, names: Sequence[str]) -> list[tuple[int, str]] | None:
        """Return the files of all names from the one folder that holds them all, or None where there is no such folder.

        The names may have been written relative to a folder above or below the data set's.
        """
        if self._by_name is None:
            self._by_name = self._all_files()
        parts = [[part for part in _normal(name).split("/") if part not in ("", ".")] for name in names]
        if not parts or any(not each or ".." in each for each in parts):
            return None
        files = {_normal(path): path for paths in self._by_name.values() for path in paths}
        for skipped in range(min(map(len, parts))):
            if any(each[:skipped] != parts[0][:skipped] for each in parts):
                break
            wanted = ["/".join(each[skipped:]) for each in parts]
            ending = f"/{wanted[0]}"
            starts = [
                f"/{_normal(path)}"[: -len(wanted[0])].lstrip("/")
                for path in self._by_name.get(parts[0][-1], ())
                if f"/{_normal(path)}".endswith(ending) and not self._of_another_split(path)
            ]
            starts = [start for start in starts if all(start + name in files for name in wanted)]
            if len(starts) > 1:
                starts = [start for start in starts if self._of_this_split(start)]
            if len(starts) == 1:
                return [(self._whole, files[starts[0] + name]) for name in wanted]
        return None

    def search(self, name: str) -> tuple[int, str] | str:
        """Return what :meth:`locate` does, from all files below the data set's folder, by the last part of ``name``.

        Files in a folder that is named as another split are passed over: every split may have an image ``0.jpg``.
        """
        if not name:
            return NAMELESS
        if self._by_name is None:
            self._by_name = self._all_files()
        parts = [part for part in _normal(name).split("/") if part not in ("", ".")]
        if not parts or ".." in parts:
            return LEADS_OUT
        found = [path for path in self._by_name.get(parts[-1], ()) if not self._of_another_split(path)]
        if len(found) > 1:
            ending = "/" + "/".join(parts)
            found = [path for path in found if f"/{_normal(path)}".endswith(ending)] or found
        if len(found) > 1:
            found = [path for path in found if self._of_this_split(path)] or found
        if not found:
            return MISSING
        return AMBIGUOUS if len(found) > 1 else (self._whole, found[0])

    def _all_files(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for parent, folders, names in os.walk(self._root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            below = Path(parent).relative_to(self._root)
            for name in sorted(names):
                if not name.startswith(".") and is_utf8(name):
                    found[unicodedata.normalize("NFC", name)].append((below / name).as_posix())
        return found

    def _of_another_split(self, path: str) -> bool:
        named = _splits_in(path)
        return bool(self._splits and named and not named & set(self._splits))

    def _of_this_split(self, path: str) -> bool:
        return bool(_splits_in(path) & set(self._splits))


def names_split(name: str, word: str) -> bool:
    """Return whether a file's name, or a split's, contains ``word`` at the start of a word."""
    stem = name.lower().removeprefix("annotations/").removesuffix(".json")
    return re.search(rf"(?<![a-z]){re.escape(word.lower())}", stem) is not None


def stays_inside(name: str) -> bool:
    """Return whether a relative path stays below its folder, with either system's separator."""
    parts = re.split(r"[\\/]", name)
    return not (name.startswith(("/", "\\")) or ".." in parts or re.match(r"^[A-Za-z]:", name) or "\0" in name)


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def _splits_in(path: str) -> set[str]:
    """Return the splits that the folders of a path name: train for ``train2017/0.jpg``."""
    folders = path.lower().split("/")[:-1]
    return {
        split
        for split, words in _OTHER_NAMES.items()
        for folder in folders
        if re.match(rf"(?:{'|'.join(words)})(?![a-z])|{split}(?:ing|idation)(?![a-z])", folder)
    }


def _files_in(folder: str) -> frozenset[str]:
    """Return the names of the files in a folder; none if the folder does not exist or its name is impossible."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if _is_file(entry))
    except OSError as error:
        if error.errno in _NO_SUCH_PLACE:
            return frozenset()
        raise DataError(f"cannot list the folder {folder}: {error.strerror}") from error


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Return whether a folder's entry is a file or a link to one; False for broken and circular links."""
    try:
        return entry.is_file()
    except OSError:
        return False
