"""From command-line arguments to photographs, and from detections to JSON, COCO and CSV files."""

from __future__ import annotations

import codecs
import csv
import glob
import io
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from cornernet.config import ConfigError
from cornernet.console import count
from cornernet.data import DataError
from cornernet.data.dataset import class_titles
from cornernet.data.formats.importing import IMAGE_SUFFIXES, image_files, require_names
from cornernet.drawing.escapes import csv_escape
from cornernet.files import fitting_name, nearest
from cornernet.inference.detections import Detections

__all__ = ["Photo", "coco_tree", "csv_table", "find_photos", "json_list"]


_DRAWING, _HEATMAPS = ".png", "-heatmaps.png"


@dataclass(frozen=True)
class Photo:
    """A photograph to detect in, and the path of its drawing below the output folder, without the ending."""

    path: Path
    name: str

    @property
    def drawing(self) -> str:
        """The file of the drawn photograph."""
        return f"{self.name}{_DRAWING}"

    @property
    def heatmaps(self) -> str:
        """The file of its heatmaps."""
        return f"{self.name}{_HEATMAPS}"


def find_photos(inputs: Sequence[str], out: Path, stdin: TextIO) -> list[Photo]:
    """Return the photographs that ``inputs`` name, in order.

    An input is a file, a folder (all images below it except those in ``out``; drawings keep its subfolders), a pattern
    such as ``photos/**/*.jpg``, or ``-``, a list on ``stdin`` with one path per line. Raises ``DataError`` where
    nothing is found, saying what was looked for, and ``ConfigError`` where two drawings would have the same name.
    """
    if not inputs:
        raise ConfigError(
            "there are no photographs to detect in; give files, folders, a pattern in quotes, or - for a list on stdin"
        )
    photos: list[Photo] = []
    missing: list[str] = []
    for item in inputs:
        if item == "-":
            names = [line.strip() for line in re.split(r"[\r\n]", _text(stdin)) if line.strip()]
            if not names:
                raise DataError("the list on stdin is empty; give one path per line")
        else:
            names = [item]
        for name in names:
            path = Path(name)
            if path.is_file():
                photos.append(Photo(path, path.stem))
            elif path.is_dir():
                photos += _in_folder(path, out)
            elif item != "-" and glob.has_magic(name):
                photos += _matching(name)
            else:
                missing.append(name)
                photos.append(Photo(path, path.stem))
    require_names(photo.path for photo in photos)
    if missing:
        more = f" (and {count(len(missing) - 1, 'other')})" if missing[1:] else ""
        raise DataError(f"there is no file {missing[0]}{more}{nearest(missing[0])}")
    return _with_own_names(photos, out)


def _with_own_names(photos: Sequence[Photo], out: Path) -> list[Photo]:
    """Return the photographs with names of which no two make the same file.

    A name that several have gets the ending: a.jpg and a.png become a-jpg and a-png. Raises ``ConfigError`` where that
    does not tell them apart, because they lie in different folders.
    """
    photos = [replace(photo, name=_fitting(photo.name)) for photo in photos]
    counts = Counter(_key(photo.name) for photo in photos)

    def shared(photo: Photo) -> bool:
        # a-heatmaps.jpg is drawn where the heatmaps of a.jpg are
        beside = photo.name.removesuffix(_HEATMAPS.removesuffix(_DRAWING))
        return counts[_key(photo.name)] > 1 or (beside != photo.name and _key(beside) in counts)

    def with_ending(photo: Photo) -> Photo:
        name = photo.name
        while _key(name) in counts:
            name = _fitting(f"{name}-{photo.path.suffix[1:].lower()}")
        return replace(photo, name=name)

    told = [with_ending(photo) if shared(photo) else photo for photo in photos]
    taken: dict[str, Photo] = {}
    for photo in told:
        for file in (photo.drawing, photo.heatmaps):
            other = taken.setdefault(_key(file), photo)
            if other is not photo and other.path.samefile(photo.path):
                raise ConfigError(f"{photo.path} is given twice, as a file, in a folder or by a pattern; give it once")
            if other is not photo:
                raise ConfigError(
                    f"{other.path} and {photo.path} would overwrite each other in {out}, as {file}; give the folder "
                    "that contains them, so that subfolders are kept, or rename one"
                )
    return told


def _key(name: str) -> str:
    """Return what two names share if some file system takes them for one."""
    return unicodedata.normalize("NFC", name).casefold()


def _fitting(name: str) -> str:
    path = PurePosixPath(name)
    return path.with_name(fitting_name(path.name, _HEATMAPS)).as_posix() if path.name else name


_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def _text(stdin: TextIO) -> str:
    """Return what is on ``stdin``. A byte order mark says how it is encoded, as some editors and shells write it."""
    buffer = getattr(stdin, "buffer", None)
    if buffer is None:
        return stdin.read().removeprefix("\ufeff")
    content: bytes = buffer.read()
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.removeprefix(mark).decode(encoding, "surrogateescape" if encoding == "utf-8" else "replace")
    return os.fsdecode(content)


def _in_folder(folder: Path, out: Path) -> list[Photo]:
    inside = out.resolve()
    if folder.resolve().is_relative_to(inside):
        raise DataError(
            f"the output would be written among the photographs of {folder}; choose another --out than {out}"
        )
    found = [path for path in image_files(folder) if not path.resolve().is_relative_to(inside)]
    if not found:
        raise DataError(f"there is no image in the folder {folder}: looked for {', '.join(IMAGE_SUFFIXES)} below it")
    return [Photo(path, PurePosixPath(path.relative_to(folder)).with_suffix("").as_posix()) for path in found]


def _matching(pattern: str) -> list[Photo]:
    found = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207 - may be absolute
    files = [path for path in found if path.is_file() and path.name.lower().endswith(IMAGE_SUFFIXES)]
    if not files:
        also = f"; it matches {count(len(found), 'file')} without the ending of an image" if found else ""
        raise DataError(f"no image matches {pattern}{also}")
    return [Photo(path, path.stem) for path in files]


def coco_tree(found: Sequence[tuple[Photo, Detections]]) -> dict[str, Any]:
    """Return detections as a COCO annotation tree with scores, which annotation tools can read.

    Names are relative to the innermost folder that holds all photographs: in that folder, the file is a data set. Boxes
    without area, of which a detector that is not trained far has many, are left out: nothing can be trained on them.
    """
    paths = [Path(os.path.abspath(photo.path)) for photo, _ in found]  # noqa: PTH100 - keeps links
    folder = Path(os.path.commonpath([path.parent for path in paths])) if found else Path()
    categories: dict[int, str] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (path, (_, detections)) in enumerate(zip(paths, found, strict=True), start=1):
        size = detections.size or (0, 0)
        name = path.relative_to(folder).as_posix()
        images.append({"id": image_id, "file_name": name, "height": size[0], "width": size[1]})
        known = range(len(detections.classes)) if detections.classes else sorted(set(detections.labels.tolist()))
        categories |= {detections.category_of(label): detections.name_of(label) for label in known}
        for row in detections.to_coco(image_id):
            _, _, width, height = row["bbox"]
            if width <= 0 or height <= 0:
                continue
            annotations.append({"id": len(annotations) + 1, **row, "area": width * height, "iscrowd": 0})
    return {
        "info": {"description": "detections, with scores; no ground truth"},
        "images": images,
        "categories": [{"id": number, "name": name} for number, name in sorted(categories.items())],
        "annotations": annotations,
    }


def csv_table(found: Sequence[tuple[Photo, Detections]]) -> str:
    """Return detections as CSV, one row per box: image, class, score, x1, y1, x2, y2 in pixels.

    Names are made printable, and one that a spreadsheet would run gets an apostrophe (``cornernet.drawing.escapes``).
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "class", "score", "x1", "y1", "x2", "y2"])
    for photo, detections in found:
        titles = [csv_escape(title) for title in _titles(detections)]
        for box, score, label in zip(detections.boxes, detections.scores, detections.labels, strict=True):
            corners = [f"{value:.2f}" for value in box.tolist()]
            writer.writerow([csv_escape(photo.path), titles[label], f"{score:.4f}", *corners])
    return text.getvalue()


def _titles(detections: Detections) -> tuple[str, ...]:
    """Return the names by label, with the category id where names repeat."""
    known = range(len(detections.classes) if detections.classes else 1 + max(detections.labels, default=-1))
    return class_titles([detections.name_of(label) for label in known], [detections.category_of(at) for at in known])


def json_list(found: Sequence[tuple[Photo, Detections]]) -> str:
    """Return a JSON list with one entry per image and its boxes in COCO's result format."""
    rows = [
        {"image": str(photo.path), "detections": detections.to_coco(image_id=photo.path.name)}
        for photo, detections in found
    ]
    return json.dumps(rows, indent=1) + "\n"
