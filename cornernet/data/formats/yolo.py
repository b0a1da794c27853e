"""YOLO: one text file per image and one line per object, ``class x y width height``: centre and sides as fractions.

Class names come from ``--names``, or else from a yaml file with ``names`` (``data.yaml``), or else from
``classes.txt``, ``names.txt`` or ``*.names`` with one name per line. An image ``.../images/.../a.jpg`` has its labels
in ``.../labels/.../a.txt`` or beside it. Splits come from folder names (train, valid, test); if there are none, there
is one split, 'all'. Polygons (``class x1 y1 x2 y2 x3 y3 ...``) become their bounding boxes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import yaml

from cornernet.console import count
from cornernet.data.dataset import Dropped
from cornernet.data.formats.importing import (
    ImportedBox,
    ImportedFolder,
    ImportedImage,
    check_classes,
    clipped,
    image_files,
    require_folder,
    split_of_folder,
)
from cornernet.data.images import DataError, read_image
from cornernet.files import nearest, read_regular

__all__ = ["DEEPEST", "LARGEST_FILE", "LARGEST_YAML", "read_names", "read_yolo"]

LARGEST_FILE = 4 * 2**20
"""Bytes of a text file."""
LARGEST_YAML = 256 * 2**10
"""Bytes of a yaml file: enough for the names of ten thousand classes. The yaml reader is a hundred times slower."""
DEEPEST = 32
"""Nesting of lists in a yaml file; names need two. The yaml reader takes minutes for some thousands."""
_TOLERANCE = 0.01
"""How far a fraction may be outside 0..1 because of rounding."""


def read_yolo(
    folder: Path,
    *,
    names: Path | None = None,
    classes: Sequence[str] = (),
    unlabelled: Literal["keep", "drop"] = "keep",
) -> ImportedFolder:
    """Read a YOLO folder.

    ``names`` is the file with the class names. ``classes`` limits the result to these, in this order. ``unlabelled``
    says what happens to images without a text file: they are kept as images without objects, or dropped. Raises
    ``DataError``, naming file, line and fix, where a file is not in YOLO format. Unusable objects and images are listed
    as dropped.
    """
    require_folder(folder)
    known = read_names(folder, names)
    paths = image_files(folder)
    if not paths:
        raise DataError(f"there is no image below {folder}: looked for files that end in .jpg, .png and so on")
    check_classes(classes, known)
    if not any(_label_file(path, folder).is_file() for path in paths):
        raise DataError(
            f"none of the {count(len(paths), 'image')} of {folder} has labels: looked for "
            f"{_label_file(paths[0], folder)} and so on"
        )
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        sizes = list(pool.map(_size, paths))
    reader = _Reader(folder, known, tuple(classes), unlabelled)
    images = [image for path, size in zip(paths, sizes, strict=True) if (image := reader.image(path, size)) is not None]
    labels = {_label_file(path, folder) for path in paths}
    orphans = sorted(path for path in folder.rglob("labels/**/*.txt") if path not in labels)
    dropped = [Dropped(path.relative_to(folder).as_posix(), None, "it has no image") for path in orphans]
    return ImportedFolder(
        folder=folder,
        form="YOLO",
        classes=tuple(classes) or known,
        images=tuple(images),
        dropped=(*reader.dropped, *dropped),
        notes=reader.notes(),
    )


def _size(path: Path) -> tuple[int, int] | str:
    """Return (height, width) of an image, or why it cannot be read."""
    try:
        height, width = read_image(path).shape[:2]
    except DataError:
        return "it cannot be read as an image"
    return height, width


def _label_file(path: Path, folder: Path) -> Path:
    """Return the text file of an image: with 'images' in its path replaced by 'labels', or else beside the image."""
    parts = list(path.relative_to(folder).parent.parts)
    for at in reversed(range(len(parts))):
        if parts[at].lower() == "images":
            other = folder.joinpath(*parts[:at], "labels", *parts[at + 1 :], f"{path.stem}.txt")
            return other if other.is_file() or not path.with_suffix(".txt").is_file() else path.with_suffix(".txt")
    return path.with_suffix(".txt")


# --------------------------------------------------------------------------------------------- names


def read_names(folder: Path, names: Path | None = None) -> tuple[str, ...]:
    """Return the class names in the order of their numbers, from ``names`` or the first such file in ``folder``.

    Raises ``DataError``, saying which files were looked for or what is wrong in the file.
    """
    if names is None:
        patterns = ("data.yaml", "data.yml", "*.yaml", "*.yml", "classes.txt", "names.txt", "*.names")
        found = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if _tells_names(path)]
        if not found:
            raise DataError(
                f"{folder} has no file with the class names: looked for {', '.join(patterns)}; "
                "give one with --names FILE, one name per line"
            )
        names = found[0]
    text = _text(names)
    if names.suffix.lower() in (".yaml", ".yml"):
        result = _yaml_names(names, text)
    else:
        rows = [row.strip() for row in text.splitlines()]
        while rows and not rows[-1]:
            rows.pop()
        result = tuple(rows)
    blank = [number for number, name in enumerate(result) if not name]
    twice = sorted({name for name in result if result.count(name) > 1})
    if not result or blank or twice:
        what = "no name" if not result else f"no name for class {blank[0]}" if blank else f"{twice[0]!r} twice"
        raise DataError(f"{names} has {what}; give every class its own name, in the order of the class numbers")
    return result


def _tells_names(path: Path) -> bool:
    return path.is_file() and (path.suffix.lower() not in (".yaml", ".yml") or "names" in _text(path))


def _yaml_names(path: Path, text: str) -> tuple[str, ...]:
    if len(text) > LARGEST_YAML:
        raise DataError(
            f"{path} has more than {LARGEST_YAML >> 10} KiB; is it really the file with the class names? "
            "If not, give --names FILE"
        )
    try:
        _refuse_traps(path, text)
        tree: Any = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{path} is not yaml: {' '.join(str(error).split())[:300]}") from error
    except (ValueError, OverflowError) as error:  # a number or a date that Python cannot represent
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} has an impossible value: {str(error)[:300]}; correct it or put it in quotes"
        ) from error
    names = tree.get("names") if isinstance(tree, dict) else None
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str | int | float) for name in names):
        raise DataError(f"{path}: names must be a list of names, or a mapping from the numbers 0, 1, ... to names")
    return tuple(str(name).strip() for name in names)


def _refuse_traps(path: Path, text: str) -> None:
    """Refuse, before anything is built, what could take unlimited memory or time: aliases and deep nesting."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        # aliases of aliases can expand exponentially
        if isinstance(event, yaml.AliasEvent):
            raise DataError(f"{path} has yaml aliases (*name), which a list of names does not need; write them out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise DataError(f"{path} is not a yaml file of class names: it nests lists more than {DEEPEST} deep")


def _text(path: Path) -> str:
    try:
        return read_regular(path, LARGEST_FILE, "a text file of labels or names").decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}{nearest(path)}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


# -------------------------------------------------------------------------------------------- labels


class _Reader:
    """Reads a folder; collects what was dropped and what the notes report."""

    def __init__(self, folder: Path, names: tuple[str, ...], classes: tuple[str, ...], unlabelled: str) -> None:
        self.folder, self.names, self.classes, self.unlabelled = folder, names, classes, unlabelled
        self.dropped: list[Dropped] = []
        self.polygons = self.without_file = self.over = 0

    def notes(self) -> tuple[str, ...]:
        """Return notes on how the files were read."""
        notes = []
        if self.polygons:
            notes.append(f"{count(self.polygons, 'polygon')}: replaced by the bounding box")
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

    def image(self, path: Path, size: tuple[int, int] | str) -> ImportedImage | None:
        """Return an image with its objects, or None if it was dropped."""
        shown = path.relative_to(self.folder).as_posix()
        if isinstance(size, str):
            self.dropped.append(Dropped(shown, None, size))
            return None
        labels = _label_file(path, self.folder)
        objects: list[ImportedBox] = []
        if labels.is_file():
            for number, row in enumerate(_text(labels).splitlines(), start=1):
                item = self._object(row.split(), f"{labels} line {number}", f"{shown} line {number}", size)
                if item is not None:
                    objects.append(item)
        else:
            self.without_file += 1
            if self.unlabelled == "drop":
                self.dropped.append(Dropped(shown, None, "it has no text file (--unlabelled drop)"))
                return None
        return ImportedImage(path, size, tuple(objects), split_of_folder(path, self.folder))

    def _object(self, words: list[str], where: str, shown: str, size: tuple[int, int]) -> ImportedBox | None:
        if not words:
            return None
        name = self._name(words[0], where)
        x1, y1, x2, y2 = self._fractions(words[1:], where)
        height, width = size
        reason = ""
        if self.classes and name not in self.classes:
            reason = f"its class {name} is not among --classes"
        elif not (x2 > x1 and y2 > y1):
            reason = "its box has no width or no height"
        box, over = clipped((x1 * width, y1 * height, x2 * width, y2 * height), size)
        if not reason and not (box[2] > box[0] and box[3] > box[1]):
            reason = "its box lies outside the image"
        if reason:
            self.dropped.append(Dropped(shown, None, reason))
            return None
        self.over += over > 1
        return ImportedBox(box, name)

    def _name(self, word: str, where: str) -> str:
        if not word.isascii() or not word.isdigit():
            raise DataError(f"{where}: the class is {word[:40]!r}; write its number, from 0 to {len(self.names) - 1}")
        # not all digits at once: Python refuses to convert thousands of them
        if int(word[-18:]) >= len(self.names) or word[:-18].strip("0"):
            raise DataError(
                f"{where}: the class is {word[:40]}, but there are {count(len(self.names), 'name')} (0 to "
                f"{len(self.names) - 1}: {', '.join(self.names[:8])}); correct the line or give the right --names"
            )
        return self.names[int(word[-18:])]

    def _fractions(self, words: list[str], where: str) -> tuple[float, float, float, float]:
        """Return the box x1 y1 x2 y2 of a line, in fractions of the image's sides."""
        box = len(words) == 4
        if not box and (len(words) < 6 or len(words) % 2):
            raise DataError(
                f"{where} has {len(words)} numbers after the class; write 4 (x y width height) or the points of a "
                "polygon; a fifth number would be a score, and files with scores are detections, not labels"
            )
        values = []
        for word in words:
            shown = word[:40]
            try:
                value = float(word)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                raise DataError(f"{where}: {shown!r} is not a number; write fractions of the image's width and height")
            if not -_TOLERANCE <= value <= 1 + _TOLERANCE:
                raise DataError(
                    f"{where}: {shown} is outside 0..1; YOLO's numbers are fractions of the image's sides, not pixels"
                )
            values.append(value)
        if box:
            x, y, width, height = values
            return x - width / 2, y - height / 2, x + width / 2, y + height / 2
        self.polygons += 1
        return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
