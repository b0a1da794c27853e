"""YOLO: one text file per image and one line per object, ``class x y width height``: centre and sides as fractions.

:mod:`~cornernet.data.formats.yolo_set` finds the class names and the images of every split in ``data.yaml`` and similar
files. Where no file names the images, those are read whose folder has labels, and splits come from folder names (train,
valid, test); if there are none, there is one split, 'all'. An image ``.../images/.../a.jpg`` has its labels in
``.../labels/.../a.txt`` or beside it.

More than four numbers after the class are a polygon (``x1 y1 x2 y2 x3 y3 ...``; an oriented box is one of four points),
which becomes its bounding box, or a box and keypoints, which are left out. ``kpt_shape`` in ``data.yaml`` decides;
without it, lines that can be read in both ways are an error.
"""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cornernet.config.choices import Points
from cornernet.console import count
from cornernet.data.dataset import Dropped
from cornernet.data.formats.importing import (
    IMAGE_SUFFIXES,
    ImportedBox,
    ImportedFolder,
    ImportedImage,
    check_classes,
    clipped,
    files_below,
    require_folder,
    require_names,
    split_named,
    split_of_folder,
)
from cornernet.data.formats.yolo_set import YoloSet, foreign, foreign_reason, read_set, read_text
from cornernet.data.images import DataError, read_image
from cornernet.data.parallel import in_order

__all__ = ["read_yolo"]

_TOLERANCE = 0.01
"""How far a fraction may be outside 0..1 because of rounding."""
_SAMPLE = 10_000
"""Lines that are looked at to tell keypoints from polygons."""
_NOT_LABELS = ("classes.txt", "names.txt", "labels.txt", "predefined_classes.txt")


def read_yolo(
    folder: Path,
    *,
    names: Path | None = None,
    classes: Sequence[str] = (),
    unlabelled: Literal["keep", "drop"] = "keep",
    points: Points = "auto",
) -> ImportedFolder:
    """Read a YOLO folder.

    ``names`` is the file with the class names; a yaml file that names images is followed in this too. ``classes``
    limits the result to these, in this order. ``unlabelled`` says what happens to images without a text file: they are
    kept as images without objects, or dropped. ``points`` says what more than four numbers after the class are. Raises
    ``DataError``, naming file, line and fix, where a file is not in YOLO format. Unusable objects and images are listed
    as dropped.
    """
    require_folder(folder)
    known = read_set(folder, names)
    check_classes(classes, known.names)
    labels = _LabelFiles(folder)
    files = files_below(folder)
    pictures = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    require_names(path for path in files if path.suffix.lower() in (".txt", *IMAGE_SUFFIXES) or foreign(path))
    chosen = _chosen(folder, known, pictures, labels)
    images = chosen.images
    paths = sorted({path for path, _ in images})
    _require_own_labels(paths, labels)
    sizes = dict(zip(paths, in_order(_size, paths), strict=True))
    keypoints = _keypoints(known, points, (file for path in paths if (file := labels.of(path)).is_file()))
    reader = _Reader(folder, known.names, tuple(classes), unlabelled, keypoints)
    read: dict[Path, tuple[ImportedBox, ...] | None] = {path: reader.boxes(path, sizes[path], labels) for path in paths}
    result = []
    for path, split in images:
        boxes, size = read[path], sizes[path]
        if boxes is not None and not isinstance(size, str):
            result.append(ImportedImage(path, size, boxes, split))
    return ImportedFolder(
        folder=folder,
        form="YOLO",
        classes=tuple(classes) or known.names,
        images=tuple(result),
        dropped=(*known.dropped, *chosen.dropped, *reader.dropped, *_orphans(folder, known, files, images, labels)),
        notes=(*known.notes, *chosen.notes, *reader.notes()),
    )


def _size(path: Path) -> tuple[int, int] | str:
    """Return (height, width) of an image, or why it cannot be read."""
    try:
        height, width = read_image(path).shape[:2]
    except DataError:
        return "it cannot be read as an image"
    return height, width


# ------------------------------------------------------------------------- images and their text files


class _LabelFiles:
    """Finds the text file of an image: with 'images' in its path replaced by 'labels', or else beside the image.

    'Images' and '.TXT' are found too. Where the image's folder is a link, it is also looked for beside its target.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[Path, list[Path]] = {}
        self._folders: dict[Path, tuple[dict[str, str], list[str]]] = {}

    def of(self, image: Path) -> Path:
        """Return the text file of an image, or where it would be if there is none."""
        if image.parent not in self._known:
            self._known[image.parent] = list(self._places(image.parent))
        places = self._known[image.parent]
        found = (place / name for place in places if (name := self._listing(place)[0].get(image.stem)))
        return next(found, places[0] / f"{image.stem}.txt")

    def _places(self, parent: Path) -> Iterator[Path]:
        yield from self._beside_images(self.folder, parent.relative_to(self.folder).parts)
        yield parent
        real = parent.resolve()
        yield from self._beside_images(Path(real.anchor), real.parts[1:])
        yield real

    def _beside_images(self, root: Path, parts: tuple[str, ...]) -> Iterator[Path]:
        for at in reversed(range(len(parts))):
            if parts[at].lower() == "images":
                above = root.joinpath(*parts[:at])
                there = [name for name in self._listing(above)[1] if name.lower() == "labels"]
                for name in sorted(there, reverse=True) or ["labels"]:
                    yield above.joinpath(name, *parts[at + 1 :])
                return

    def _listing(self, folder: Path) -> tuple[dict[str, str], list[str]]:
        """Return the text files of a folder by their stems, and its folders."""
        if folder not in self._folders:
            texts: dict[str, str] = {}
            folders: list[str] = []
            try:
                with os.scandir(folder) as entries:
                    for entry in sorted(entries, key=lambda entry: entry.name):
                        stem, suffix = Path(entry.name).stem, Path(entry.name).suffix
                        if entry.is_dir():
                            folders.append(entry.name)
                        elif suffix.lower() == ".txt" and (stem not in texts or suffix == ".txt"):
                            texts[stem] = entry.name
            except OSError:  # not there, or not to be read
                pass
            self._folders[folder] = texts, folders
        return self._folders[folder]


@dataclass
class _Chosen:
    """The images that are read."""

    images: list[tuple[Path, str]]
    """With their splits."""
    dropped: list[Dropped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _chosen(folder: Path, known: YoloSet, pictures: Sequence[Path], labels: _LabelFiles) -> _Chosen:
    """Return the images that a file names, or else those in folders with labels. Raises ``DataError`` if none is."""
    if not pictures:
        raise DataError(f"there is no image below {folder}: looked for files that end in .jpg, .png and so on")
    if known.images is None:
        images = [(path, split_of_folder(path, folder)) for path in pictures]
        groups = [_part(path, folder) for path in pictures]
        reason = "no image of its folder has a text file"
    else:
        images = list(known.images)
        groups = [Path(split) for _, split in images]
        reason = "no image of its split has a text file"
    labelled = {group for (path, _), group in zip(images, groups, strict=True) if labels.of(path).is_file()}
    if not labelled:
        raise DataError(
            f"none of the {count(len(images), 'image')} of {folder} has labels: looked for "
            f"{labels.of(images[0][0])} and so on"
        )
    kept = [image for image, group in zip(images, groups, strict=True) if group in labelled]
    chosen = _Chosen(kept)
    for (path, _), group in zip(images, groups, strict=True):
        if group not in labelled:
            chosen.dropped.append(Dropped(path.relative_to(folder).as_posix(), None, reason))
    if known.images is not None and known.source is not None:
        there = {path for path, _ in images}
        others = Counter(path.parent.relative_to(folder).as_posix() for path in pictures if path not in there)
        if others:
            shown = [f"{parent} {number}" for parent, number in others.most_common(5)]
            more = f" and {len(others) - 5} more folders" if len(others) > 5 else ""
            chosen.notes.append(
                f"{count(others.total(), 'image')} that {known.source.name} does not name: left out "
                f"({', '.join(shown)}{more})"
            )
    return chosen


def _part(path: Path, folder: Path) -> Path:
    """Return the part of a data set that an image is in: its deepest folder called images or as a split, or its own."""
    parts = path.relative_to(folder).parent.parts
    for end in range(len(parts), 0, -1):
        if parts[end - 1].lower() == "images" or split_named(parts[end - 1]):
            return Path(*parts[:end])
    return Path(*parts)


def _require_own_labels(paths: Iterable[Path], labels: _LabelFiles) -> None:
    """Raise ``DataError`` naming images that differ in their endings only, and would share a text file."""
    owners: dict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        if (file := labels.of(path)).is_file():
            owners[file].append(path)
    shared = {file: found for file, found in owners.items() if len(found) > 1}
    for file, (first, second, *_) in shared.items():
        more = f" (and {count(len(shared) - 1, 'more pair')})" if len(shared) > 1 else ""
        raise DataError(
            f"{first} and {second} have the same text file {file}{more}, and every object would be there twice; keep "
            "one of the two images, or rename one and give it its own text file"
        )


def _orphans(
    folder: Path,
    known: YoloSet,
    files: Sequence[Path],
    images: Sequence[tuple[Path, str]],
    labels: _LabelFiles,
) -> list[Dropped]:
    """Return text files without an image, and pictures of formats that are not read."""
    used = {labels.of(path) for path, _ in images}
    places = {path.parent for path in used}
    taken = {labels.of(path) for path in files if path.suffix.lower() in IMAGE_SUFFIXES}
    others: dict[Path, Path] = {}
    for path in files:
        if path.suffix.lower() not in (".txt", ".json", ".xml", ".yaml", ".yml", ".csv", ".npy", *IMAGE_SUFFIXES):
            others[labels.of(path)] = path
    dropped: dict[Path, str] = {}
    for path in files:
        # with a file that names the images, text files elsewhere belong to something else
        elsewhere = known.images is not None or "labels" not in map(str.lower, path.relative_to(folder).parent.parts)
        if path.suffix.lower() != ".txt" or path in taken or (path.parent not in places and elsewhere):
            continue
        if path in others:
            dropped[others[path]] = foreign_reason(others[path].suffix)
        elif path.name.lower() not in _NOT_LABELS and _is_label_file(path):
            dropped[path] = "it has no image"
    if known.images is None:
        parts = {_part(path, folder) for path, _ in images}
        for path in files:
            if foreign(path) and path not in dropped and _part(path, folder) in parts:
                dropped[path] = foreign_reason(path.suffix)
    found = [Dropped(path.relative_to(folder).as_posix(), None, dropped[path]) for path in sorted(dropped)]
    said = set(known.dropped)
    return [item for item in found if item not in said]


def _is_label_file(path: Path) -> bool:
    """Return whether a text file without an image looks like labels: it is empty, or begins with five numbers."""
    try:
        words = next((row.split() for row in read_text(path).splitlines() if row.strip()), None)
    except DataError:
        return False
    return words is None or (len(words) > 4 and all(math.isfinite(_number(word)) for word in words))


# ------------------------------------------------------------------------------ polygons and keypoints


@dataclass(frozen=True)
class _Keypoints:
    """Lines are a box and keypoints."""

    numbers: int | None
    """Numbers after the box, or None if the first such line decides."""


def _keypoints(known: YoloSet, points: Points, files: Iterable[Path]) -> _Keypoints | None:
    """Return how keypoints are written, or None where more than four numbers are polygons.

    Raises ``DataError`` where that cannot be told.
    """
    if points == "polygon":
        return None
    if known.keypoints is not None:
        return _Keypoints(known.keypoints[0] * known.keypoints[1])
    if points == "keypoints":
        return _Keypoints(None)
    polygons = boxes = either = looked = 0
    lengths: set[int] = set()
    example = ""
    for file in files:
        for number, row in enumerate(read_text(file).splitlines(), start=1):
            words = row.split()[1:]
            if len(words) < 6:
                continue
            values = [_number(word) for word in words]
            box, polygon = _like_box_and_keypoints(values), _like_polygon(values)
            boxes += box and not polygon
            polygons += polygon and not box
            either += box == polygon and len(words) % 2 == 0 and _fractions(values)
            looked += 1
            lengths.add(len(words))
            example = example or f"{file} line {number}: its {len(words)} numbers"
        if looked >= _SAMPLE:
            break
    if boxes > polygons or (boxes == polygons and either and len(lengths) == 1):
        raise DataError(
            f"{example} can be a box and keypoints, or a polygon; say which with kpt_shape in data.yaml (such as "
            "kpt_shape: [17, 3] for 17 points with visibility), --points keypoints or --points polygon"
        )
    return None


def _like_box_and_keypoints(values: Sequence[float]) -> bool:
    """Return whether numbers look like a box in the image and points in it (or at 0 0), with visibility or without."""
    x, y, width, height = values[:4]
    corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if not (_fractions(corners) and width > 0 and height > 0):
        return False
    return any(
        (len(values) - 4) % size == 0
        and all(
            (px == py == 0) or (abs(px - x) <= width / 2 + _TOLERANCE and abs(py - y) <= height / 2 + _TOLERANCE)
            for px, py in zip(values[4::size], values[5::size], strict=True)
        )
        and (size == 2 or set(values[6::3]) <= {0.0, 1.0, 2.0})
        for size in (2, 3)
    )


def _like_polygon(values: Sequence[float]) -> bool:
    """Return whether numbers look like the points of one shape: the second is not far from where the others are."""
    if len(values) % 2 or not _fractions(values):
        return False
    others = [(values[at], values[at + 1]) for at in range(0, len(values), 2) if at != 2]
    low, high = [min(axis) for axis in zip(*others, strict=True)], [max(axis) for axis in zip(*others, strict=True)]
    side = max(high[0] - low[0], high[1] - low[1])
    return all(low[axis] - side <= values[2 + axis] <= high[axis] + side for axis in (0, 1))


def _fractions(values: Iterable[float]) -> bool:
    return all(-_TOLERANCE <= value <= 1 + _TOLERANCE for value in values)


def _number(word: str) -> float:
    """Return a number, or nan for what is none; Python's ``1_0`` and digits of other scripts are none."""
    if not word.isascii() or "_" in word:
        return math.nan
    try:
        return float(word)
    except ValueError:
        return math.nan


# -------------------------------------------------------------------------------------------- labels


class _Reader:
    """Reads the text files; collects what was dropped and what the notes report."""

    def __init__(
        self,
        folder: Path,
        names: tuple[str, ...],
        classes: tuple[str, ...],
        unlabelled: str,
        keypoints: _Keypoints | None,
    ) -> None:
        self.folder, self.names, self.classes, self.unlabelled = folder, names, classes, unlabelled
        self.keypoints = keypoints
        self.dropped: list[Dropped] = []
        self.polygons = self.poses = self.without_file = self.over = self.mixed = 0

    def notes(self) -> tuple[str, ...]:
        """Return notes on how the files were read."""
        notes = []
        if self.polygons:
            notes.append(f"{count(self.polygons, 'polygon')}: replaced by the bounding box")
        if self.mixed:
            notes.append(
                f"{count(self.mixed, 'text file')} with boxes and polygons: four numbers were read as a box, more as a "
                "polygon"
            )
        if self.poses:
            notes.append(f"{count(self.poses, 'line')} with a box and keypoints: the keypoints were left out")
        if self.without_file and self.unlabelled == "keep":
            notes.append(
                f"{count(self.without_file, 'image')} without a text file: kept as images without objects "
                "(--unlabelled)"
            )
        if self.over:
            notes.append(
                f"{count(self.over, 'box', 'boxes')} beyond the edge of the image by more than a pixel: clipped"
            )
        return tuple(notes)

    def boxes(self, path: Path, size: tuple[int, int] | str, labels: _LabelFiles) -> tuple[ImportedBox, ...] | None:
        """Return the objects of an image, or None if it was dropped."""
        shown = path.relative_to(self.folder).as_posix()
        if isinstance(size, str):
            self.dropped.append(Dropped(shown, None, size))
            return None
        file = labels.of(path)
        if not file.is_file():
            self.without_file += 1
            if self.unlabelled == "drop":
                self.dropped.append(Dropped(shown, None, "it has no text file (--unlabelled drop)"))
                return None
            return ()
        return self._objects(file, size)

    def _objects(self, file: Path, size: tuple[int, int]) -> tuple[ImportedBox, ...]:
        shown = (file.relative_to(self.folder) if file.is_relative_to(self.folder) else file).as_posix()
        polygons = self.polygons
        seen: set[tuple[object, ...]] = set()
        objects: list[ImportedBox] = []
        lines = 0
        for number, row in enumerate(read_text(file).splitlines(), start=1):
            words = row.split()
            if not words:
                continue
            lines += 1
            where = f"{file} line {number}"
            name, box = self._name(words[0], where), self._box(words[1:], where)
            # rounded to what files are written with: 0.5 and 0.500000001 are the same
            key = (name, *(round(value, 6) for value in box))
            item = self._object(name, box, size)
            if key in seen:
                item = "it repeats an earlier line of its file"
            seen.add(key)
            if isinstance(item, str):
                self.dropped.append(Dropped(f"{shown} line {number}", None, item))
            else:
                objects.append(item)
        self.mixed += 0 < self.polygons - polygons < lines
        return tuple(objects)

    def _object(self, name: str, box: tuple[float, float, float, float], size: tuple[int, int]) -> ImportedBox | str:
        """Return an object, or why it is dropped."""
        x1, y1, x2, y2 = box
        height, width = size
        if self.classes and name not in self.classes:
            return f"its class {name} is not among --classes"
        if not (x2 > x1 and y2 > y1):
            return "its box has no width or no height"
        inside, over = clipped((x1 * width, y1 * height, x2 * width, y2 * height), size)
        if not (inside[2] > inside[0] and inside[3] > inside[1]):
            return "its box lies outside the image"
        self.over += over > 1
        return ImportedBox(inside, name)

    def _name(self, word: str, where: str) -> str:
        value = _number(word)
        if value.is_integer() and 0 <= value < len(self.names) and len(word) < 60:  # 1, and also 1.0 and 1e0
            return self.names[int(value)]
        if not math.isnan(value) and (value == math.inf or (value.is_integer() and value >= 0)):
            raise DataError(
                f"{where}: the class is {word[:40]}, but there are {count(len(self.names), 'name')} (0 to "
                f"{len(self.names) - 1}: {', '.join(self.names[:8])}); correct the line or give the right --names"
            )
        raise DataError(f"{where}: the class is {word[:40]!r}; write its number, from 0 to {len(self.names) - 1}")

    def _box(self, words: list[str], where: str) -> tuple[float, float, float, float]:
        """Return the box x1 y1 x2 y2 of a line, in fractions of the image's sides."""
        if self.keypoints is not None and len(words) > 4:
            words = self._without_keypoints(words, where)
        box = len(words) == 4
        if not box and (len(words) < 6 or len(words) % 2):
            raise DataError(
                f"{where} has {len(words)} numbers after the class; write 4 (x y width height) or the points of a "
                "polygon; a fifth number would be a score, and files with scores are detections, not labels; keypoints "
                "need kpt_shape in data.yaml or --points keypoints"
            )
        values = []
        for word in words:
            shown = word[:40]
            value = _number(word)
            if not math.isfinite(value):
                raise DataError(f"{where}: {shown!r} is not a number; write fractions of the image's width and height")
            if not _fractions((value,)):
                raise DataError(
                    f"{where}: {shown} is outside 0..1; YOLO's numbers are fractions of the image's sides, not pixels"
                )
            values.append(value)
        if box:
            x, y, width, height = values
            return x - width / 2, y - height / 2, x + width / 2, y + height / 2
        self.polygons += 1
        return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])

    def _without_keypoints(self, words: list[str], where: str) -> list[str]:
        assert self.keypoints is not None
        found = len(words) - 4
        if self.keypoints.numbers is None:
            self.keypoints = _Keypoints(found)
        if found != self.keypoints.numbers:
            raise DataError(
                f"{where} has {len(words)} numbers after the class; write 4 for the box and {self.keypoints.numbers} "
                "for the keypoints, or correct kpt_shape in data.yaml; --points polygon reads the numbers as a polygon"
            )
        for word in words[4:]:
            if not math.isfinite(_number(word)):
                raise DataError(f"{where}: {word[:40]!r} is not a number; write fractions of the image's sides")
        self.poses += 1
        return words[:4]
