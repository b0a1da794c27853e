"""What importers with one annotation file per picture share: finding the picture, its size, and usable boxes.

The picture of an annotation file is the one with the same stem. A name that the file states decides between pictures
of one stem (``a.jpg``, ``a.png``), and it is used where no picture has the stem; files are copied and renamed without
their content being changed. Several folders may have a picture of that name. The nearest one counts:
``cam1/a.xml`` has ``cam1/a.jpg``, ``Annotations/cam1/a.xml`` has ``JPEGImages/cam1/a.jpg``, then ``JPEGImages/a.jpg``.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cornernet.config import Size
from cornernet.console import count
from cornernet.data.dataset import Dropped
from cornernet.data.formats.importing import (
    IMAGE_SUFFIXES,
    ImportedFolder,
    ImportedImage,
    check_classes,
    clipped,
    image_files,
)
from cornernet.data.images import DataError, image_size

__all__ = [
    "ANNOTATION_FOLDERS",
    "PICTURE_FOLDERS",
    "Box",
    "Gathering",
    "after",
    "bounding_box",
    "last_part",
    "same_name",
    "stem_of",
    "turned_corners",
]

Box = tuple[float, float, float, float]
"""x1 y1 x2 y2 in pixels between edges."""

PICTURE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img", "pictures", "photos", "frames", "data", "raw", "jpg")
"""Names, in lower case, of folders for pictures alone; the first are preferred."""
ANNOTATION_FOLDERS = ("annotations", "annotation", "annos", "anns", "ann", "xmls", "xml", "labels", "label", "json")
"""Names, in lower case, of folders for annotation files alone."""


def last_part(path: str) -> str:
    """Return the last part of a path with the separators of any system."""
    return re.split(r"[\\/]", path.strip())[-1]


def stem_of(name: str) -> str:
    """Return a file name without the ending of an image; other dots belong to the name."""
    ending = next((suffix for suffix in IMAGE_SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(ending)]


def same_name(text: str) -> str:
    """Return a form of a name that is equal for composed and decomposed letters."""
    return unicodedata.normalize("NFC", text)


def after(parts: Sequence[str], words: Sequence[str]) -> tuple[str, ...]:
    """Return the folders below the last one that is among ``words``; all of them if none is."""
    at = max((number for number, part in enumerate(parts, start=1) if part.lower() in words), default=0)
    return tuple(parts[at:])


def bounding_box(points: Iterable[Sequence[float]]) -> Box:
    """Return the box around points (x, y); there must be one."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def turned_corners(box: Box, radians: float) -> list[tuple[float, float]]:
    """Return the corners of a box turned about its centre, clockwise as seen in the picture (y points down)."""
    x1, y1, x2, y2 = box
    cx, cy, cos, sin = (x1 + x2) / 2, (y1 + y2) / 2, math.cos(radians), math.sin(radians)
    corners = [(x1 - cx, y1 - cy), (x2 - cx, y1 - cy), (x2 - cx, y2 - cy), (x1 - cx, y2 - cy)]
    return [(cx + dx * cos - dy * sin, cy + dx * sin + dy * cos) for dx, dy in corners]


class _Pictures:
    """The pictures below a folder, by stem."""

    def __init__(self, folder: Path) -> None:
        self.paths = image_files(folder)
        self.by_path = {same_name(str(path)): path for path in self.paths}
        self._folder = folder
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            self._by_stem[self._key(stem_of(path.name))].append(path)

    @staticmethod
    def _key(stem: str) -> str:
        return same_name(stem).casefold()

    def find(self, name: str, stated: str, near: Path) -> Path | None:
        """Return the picture with the stem of ``name`` that is nearest to the folder ``near``, or None.

        Raises ``DataError`` where several are equally near and ``stated`` names none of them.
        """
        stem = stem_of(name)
        ranked = [(rank, path) for path in self._by_stem[self._key(stem)] if (rank := self._rank(path, near))]
        if not ranked:
            return None
        best = max(rank for rank, _ in ranked)
        paths = [path for rank, path in ranked if rank == best]
        for wanted in (stated, name):
            paths = [path for path in paths if same_name(path.name) == same_name(wanted)] or paths
        paths = [path for path in paths if same_name(stem_of(path.name)) == same_name(stem)] or paths
        if len(paths) > 1:
            raise DataError(
                f"{paths[0]} and {paths[1]} have the same stem, and nothing says which of them is annotated in {near}; "
                "rename or remove one"
            )
        return paths[0]

    def _rank(self, path: Path, near: Path) -> tuple[int, bool, int] | None:
        """Return how near a picture is to the folder of its annotation file (larger is nearer); None if unrelated.

        Below the last folder that both are in, folders for pictures or annotations do not count (JPEGImages beside
        Annotations), and the others must be the same on both sides, or missing on one of them.
        """
        own, other = (p.relative_to(self._folder).parts for p in (path.parent, near))
        shared = 0
        while shared < min(len(own), len(other)) and own[shared] == other[shared]:
            shared += 1
        own, other = own[shared:], other[shared:]
        kind = own[0].lower() if own else ""
        own = tuple(part for part in own if part.lower() not in PICTURE_FOLDERS)
        other = tuple(part for part in other if part.lower() not in ANNOTATION_FOLDERS)
        if own != other and own and (other or kind not in PICTURE_FOLDERS):
            return None
        preference = PICTURE_FOLDERS.index(kind) if kind in PICTURE_FOLDERS else len(PICTURE_FOLDERS) + bool(kind)
        return shared, own == other, -preference


class Gathering:
    """Collects, file by file, what is used, what was dropped, and what the notes report."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self.folder, self.classes = folder, tuple(classes)
        self.dropped: list[Dropped] = []
        self.names: set[str] = set()
        self.over = self.measured = 0
        self.taken: dict[Path, str] = {}
        """Where each picture was annotated."""
        self._pictures = _Pictures(folder)
        self._unlike: list[str] = []
        self._renamed: list[str] = []

    def shown(self, path: Path) -> str:
        """Return a path below the folder, for the report."""
        return path.relative_to(self.folder).as_posix()

    def drop(self, what: str, reason: str) -> None:
        """List something as dropped."""
        self.dropped.append(Dropped(what, None, reason))

    def picture(self, stated: str, near: Path, stem: str | None = None) -> Path | None:
        """Return the picture of an annotation file in the folder ``near``.

        ``stated`` is the name that the file states, if any, and ``stem`` the file's own stem: it decides, and a
        disagreement is noted. Returns None if there is none. Raises ``DataError`` if it cannot be said which one it is.
        """
        stated = last_part(stated)
        own = None if stem is None else self._pictures.find(stem, stated, near)
        if own is None:
            return self._pictures.find(stated, stated, near) if stated else None
        if stated and same_name(stem_of(stated)) != same_name(stem_of(stem or "")):
            self._renamed.append(f"{own.name}, not {stated}")
        return own

    def exact(self, path: Path) -> Path | None:
        """Return a picture with this very path, whatever form its accents have, or None."""
        return self._pictures.by_path.get(same_name(str(path)))

    def take(self, picture: Path, where: str) -> None:
        """Note that ``where`` annotates a picture. Raises ``DataError`` if something else does, too."""
        if picture in self.taken:
            raise DataError(f"{self.taken[picture]} and {where} both annotate {picture}; remove one of them")
        self.taken[picture] = where

    def size(self, picture: Path, stated: Size | None, where: str) -> Size | None:
        """Return the picture's (height, width), whatever ``stated`` says; None, and drops it, if it cannot be read."""
        try:
            size = image_size(picture, stated)
        except DataError:
            self.drop(where, "its image cannot be read")
            return None
        if stated is None:
            self.measured += 1
        elif size != stated:
            self._unlike.append(f"{self.shown(picture)} {stated[1]}x{stated[0]}, is {size[1]}x{size[0]}")
        return size

    def box(self, box: Box, name: str, size: Size, where: str, reason: str = "") -> Box | None:
        """Return a box clipped to its picture of ``size`` (height, width), or None if it was dropped.

        ``reason`` says why the caller drops it, if it does.
        """
        self.names.add(name)
        x1, y1, x2, y2 = box
        if self.classes and name not in self.classes:
            reason = f"its class {name} is not among --classes"
        elif not reason and not (x2 > x1 and y2 > y1):
            reason = "its box has no width or no height"
        inside, over = clipped(box, size)
        if not reason and not (inside[2] > inside[0] and inside[3] > inside[1]):
            reason = "its box lies outside the image"
        if reason:
            self.drop(where, reason)
            return None
        self.over += over > 1
        return inside

    def imported(
        self,
        form: str,
        images: Sequence[ImportedImage],
        notes: Sequence[str],
        *,
        dropped: Sequence[Dropped] = (),
        options: dict[str, Any] | None = None,
    ) -> ImportedFolder:
        """Return what was read, with the classes asked for, or else all that were found, sorted by name.

        ``dropped`` are further items. Raises ``DataError`` for a class that was asked for and does not occur.
        """
        check_classes(self.classes, self.names)
        return ImportedFolder(
            folder=self.folder,
            form=form,
            classes=self.classes or tuple(sorted(self.names)),
            images=tuple(images),
            dropped=(*self.dropped, *dropped),
            notes=tuple(notes),
            options={} if options is None else options,
        )

    def unannotated(self, stems: set[str]) -> list[Path]:
        """Return the pictures beside the used ones that no file annotates; ``stems`` are those of all such files."""
        places = {path.parent for path in self.taken}
        known = {same_name(stem_of(stem)).casefold() for stem in stems}
        return [
            path
            for path in self._pictures.paths
            if path.parent in places
            and path not in self.taken
            and same_name(stem_of(path.name)).casefold() not in known
        ]

    def unread(self, paths: Sequence[Path], noun: str, why: str) -> list[str]:
        """Return a note on files that are not read, naming the first of them; none if there are none."""
        return [f"{count(len(paths), noun)} {why} (first: {self.shown(paths[0])})"] if paths else []

    def notes(self) -> list[str]:
        """Return notes on names, sizes and clipped boxes."""
        notes = []
        if self._renamed:
            notes.append(
                f"the name of another image in {count(len(self._renamed), 'file')}: the file's own name decides "
                f"(first: {self._renamed[0]})"
            )
        if self._unlike:
            notes.append(
                f"{count(len(self._unlike), 'image')} of another size than the annotations state: the image decides "
                f"(width x height; first: {self._unlike[0]}); if it was resized after it was annotated, its boxes are "
                "wrong: look at them with cornernet data show"
            )
        if self.measured:
            notes.append(f"{count(self.measured, 'file')} without the size of the image: taken from the image")
        if self.over:
            notes.append(
                f"{count(self.over, 'box', 'boxes')} beyond the edge of the image by more than a pixel: clipped"
            )
        return notes
