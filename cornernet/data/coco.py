"""Folders in COCO format: finding the annotation file and the images, and reading both with nothing silently wrong.

Annotation files are looked for in ``annotations/``, in the folder itself, and as ``<split>/*annotations*.json``.
The file of a split is the one whose name contains the split's name at the start of a word (``instances_train2017``
for ``train``); among several, the one named exactly so, then the one that begins with ``instances_``. A split may also
be a path below the folder.

Images are looked for, in this order, in ``images/S``, ``S`` (S being the file's name without ``instances_``, then the
split's name), the annotation file's own folder, ``images``, and the folder itself.

What is dropped is listed with its reason; what makes the whole file doubtful (wrong types, ids that occur twice) is a
``DataError``. Boxes come from ``bbox``: ``segmentation`` is ignored, polygon or RLE. ``area`` is kept as it stands.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cornernet.config import CocoSource
from cornernet.data.dataset import AnnotationTable, DetectionDataset, Dropped, ImageTable
from cornernet.data.images import DataError, read_image
from cornernet.files import nearest

_MISSING = "its file is missing"

__all__ = [
    "annotation_files",
    "find_annotations",
    "is_detection_file",
    "open_coco",
    "read_annotations",
    "split_of",
]

_LARGEST_ID = 2**63 - 1


def open_coco(source: CocoSource, split: Literal["train", "val"]) -> DetectionDataset:
    """Return one split of the folder ``source.root``.

    Raises ``DataError`` where the folder, its annotation file or its images cannot be found, or the file is not
    COCO's format; the message names file, field and fix.
    """
    root = Path(source.root)
    wanted = source.train_split if split == "train" else source.val_split
    return read_annotations(root, find_annotations(root, wanted, split), wanted)


# ------------------------------------------------------------------------------------ finding the file


def annotation_files(root: Path) -> list[str]:
    """Return the paths of all files below ``root`` that may hold annotations, relative to it, with slashes.

    Raises ``DataError`` where ``root`` is no folder.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; give the folder of the data set (data.source.root){nearest(root)}")
    found: set[Path] = set()
    for pattern in ("*.json", "annotations/*.json", "*/*annotations*.json"):
        found.update(path for path in root.glob(pattern) if path.is_file())
    return sorted(path.relative_to(root).as_posix() for path in found)


def find_annotations(root: Path, wanted: str, split: str) -> str:
    """Return the annotation file of a split, relative to ``root``.

    ``wanted`` is part of its name or its path below ``root``; ``split`` is 'train' or 'val', for messages. Raises
    ``DataError`` that lists what is there where none or several fit.
    """
    files = annotation_files(root)
    if not wanted:
        raise DataError(f"data.source.{split}_split is empty; name a split of {root}: {_listing(files)}")
    if wanted.endswith(".json"):
        if not _stays_inside(wanted):
            raise DataError(f"data.source.{split}_split is {wanted!r}; give a path below {root}")
        if (root / wanted).is_file():
            return Path(wanted).as_posix()
    if not files:
        raise DataError(f"no annotation file in {root}: expected annotations/*.json or *.json in COCO format")
    matches = [name for name in files if _names_split(name, wanted)]
    exact = [name for name in matches if _stem(name).removeprefix("instances_") == wanted.lower()]
    matches = exact or [name for name in matches if _stem(name).startswith("instances_")] or matches
    if len(matches) == 1:
        return matches[0]
    flag = f"--data.source.{split}-split"
    if matches:
        raise DataError(
            f"several annotation files in {root} fit the split {wanted!r}: {_listing(matches)}; "
            f"choose one: {flag} {matches[0]}"
        )
    if len(files) == 1:
        fix = (
            f"divide it: cornernet data split {root}; or, to use the same file, as a trial, for both: "
            f"{flag} {split_of(files[0])}"
        )
    else:
        fix = f"choose one: {flag} PART-OF-ITS-NAME"
    raise DataError(f"no annotation file in {root} fits the split {wanted!r}; there is {_listing(files)}; {fix}")


def _stem(name: str) -> str:
    return name.lower().removeprefix("annotations/").removesuffix(".json")


def _names_split(name: str, wanted: str) -> bool:
    return re.search(rf"(?<![a-z]){re.escape(wanted.lower())}", _stem(name)) is not None


def split_of(name: str) -> str:
    """Return the split that an annotation file's name speaks of, or its name where it speaks of none."""
    for word in ("train", "val", "test"):
        if _names_split(name, word):
            return word
    return name


def _listing(files: list[str], shown: int = 8) -> str:
    return ", ".join(files[:shown]) + (f" and {len(files) - shown} more" if len(files) > shown else "")


def _stays_inside(name: str) -> bool:
    """Whether a relative path stays below its folder, whatever the system's separator."""
    parts = re.split(r"[\\/]", name)
    return not (name.startswith(("/", "\\")) or ".." in parts or re.match(r"^[A-Za-z]:", name) or "\0" in name)


# ---------------------------------------------------------------------------------- reading the file


def read_annotations(root: Path, file: str, split: str) -> DetectionDataset:
    """Return the data set in the annotation file ``file`` (relative to ``root``).

    ``split`` names it, and the folders its images may lie in. Raises ``DataError`` naming file, field and fix.
    """
    reader = _Reader(root, file, split)
    tree = _load(root / file)
    classes, category_ids = reader.categories(tree["categories"])
    images = reader.images(tree["images"])
    annotations = reader.annotations(tree["annotations"], images, category_ids)
    return DetectionDataset(
        name=root.resolve().name,
        split=split,
        classes=classes,
        category_ids=category_ids,
        images=images,
        annotations=annotations,
        dropped=reader.dropped,
        notes=tuple(reader.notes),
    )


def is_detection_file(path: Path) -> bool:
    """Return False for JSON that clearly holds something else than boxes (captions, settings), else True.

    A damaged file counts as one that should hold boxes, so that it is reported and not passed over.
    """
    try:
        tree = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return True
    return isinstance(tree, dict) and ("annotations" in tree and "categories" in tree)


def _load(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read the annotations {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"the annotations {path} are not JSON: {error}") from error
    if not isinstance(tree, dict):
        raise DataError(f"the annotations {path} hold a {type(tree).__name__}; COCO format is an object with lists")
    for key in ("images", "annotations", "categories"):
        if not isinstance(tree.get(key), list):
            raise DataError(f"the annotations {path} have no list {key!r}; COCO format needs it")
    return tree


def _whole(value: Any) -> int | None:
    """Return a JSON value as an integer where it is one (640.0 counts, True does not), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not (math.isfinite(value) and value.is_integer()):
        return None
    return int(value) if abs(value) <= _LARGEST_ID else None


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


class _Object(NamedTuple):
    number: int | None
    image: int
    label: int
    box: tuple[float, float, float, float]
    area: float | None
    crowd: bool


class _Reader:
    """One annotation file being read: where its images may be, and what was dropped on the way."""

    def __init__(self, root: Path, file: str, split: str) -> None:
        self.root = root
        self.file = root / file
        self.dropped: list[Dropped] = []
        self.notes: list[str] = []
        self._rows: dict[int, int] = {}
        self._dropped_images: dict[int, str] = {}
        stem = Path(file).stem.removeprefix("instances_")
        own = Path(file).parent.as_posix()
        places = [f"images/{stem}", stem, own, "images", "."]
        if "/" not in split and split != stem and _stays_inside(split):
            places[2:2] = [f"images/{split}", split]
        self.folders = tuple(dict.fromkeys(str(root / place) for place in places))
        self._listings: dict[str, frozenset[str]] = {}

    # ---- categories

    def categories(self, rows: list[Any]) -> tuple[tuple[str, ...], tuple[int, ...]]:
        names: dict[int, str] = {}
        for position, row in enumerate(rows):
            where = f"{self.file}: categories[{position}]"
            if not isinstance(row, dict):
                raise DataError(f"{where} is not an object with 'id' and 'name'")
            number, name = _whole(row.get("id")), row.get("name")
            if number is None:
                raise DataError(f"{where}.id is {row.get('id')!r}; use a whole number")
            if not isinstance(name, str) or not name:
                raise DataError(f"{where}.name is {name!r}; use a text")
            if number in names:
                raise DataError(f"{where}.id {number} occurs twice; give each category its own id")
            names[number] = name
        if not names:
            raise DataError(f"{self.file}: 'categories' is empty; list the classes")
        repeated = [name for name, count in Counter(names.values()).items() if count > 1]
        if repeated:
            self.notes.append(f"several categories are named {', '.join(map(repr, repeated))}; they stay apart")
        ids = tuple(sorted(names))
        return tuple(names[number] for number in ids), ids

    # ---- images

    def images(self, rows: list[Any]) -> ImageTable:
        ids: list[int] = []
        names: list[str] = []
        sizes: list[tuple[int, int]] = []
        folders: list[int] = []
        measured = missing = 0
        for position, row in enumerate(rows):
            number = self._image_id(position, row)
            name = row.get("file_name")
            found = self._locate(name)
            if isinstance(found, str):
                missing += found == _MISSING
                self._drop_image(number, name, found)
                continue
            size = self._size(row)
            if size is None and (row.get("height") is None or row.get("width") is None):
                size = self._measure(Path(self.folders[found], name))
                measured += 1
            if size is None:
                self._drop_image(number, name, "its width or height is not a positive whole number, or is unknown")
                continue
            self._rows[number] = len(ids)
            ids.append(number)
            names.append(name)
            sizes.append(size)
            folders.append(found)
        if not ids:
            self._refuse_empty(rows, missing)
        if measured:
            self.notes.append(f"{measured} images state no width and height: taken from their files")
        return ImageTable(
            ids=np.array(ids, np.int64),
            sizes=np.array(sizes, np.int64).reshape(-1, 2),
            names=tuple(names),
            folders=self.folders,
            folder=np.array(folders, np.uint8),
        )

    def _image_id(self, position: int, row: Any) -> int:
        where = f"{self.file}: images[{position}]"
        if not isinstance(row, dict):
            raise DataError(f"{where} is not an object with 'id' and 'file_name'")
        number = _whole(row.get("id"))
        if number is None:
            raise DataError(f"{where}.id is {row.get('id')!r}; use a whole number")
        if number in self._rows or number in self._dropped_images:
            raise DataError(f"{where}.id {number} occurs twice; give each image its own id")
        return number

    def _locate(self, name: Any) -> int | str:
        """Return the folder that holds the file, as an index, or the reason why none does."""
        if not isinstance(name, str) or not name:
            return "its file_name is missing"
        if not _stays_inside(name):
            return "its file_name leads out of the data set's folder"
        for index, folder in enumerate(self.folders):
            path = Path(folder, name)
            if path.name in self._listing(str(path.parent)):
                return index
        return _MISSING

    def _listing(self, folder: str) -> frozenset[str]:
        if folder not in self._listings:
            try:
                with os.scandir(folder) as entries:
                    self._listings[folder] = frozenset(entry.name for entry in entries if entry.is_file())
            except (FileNotFoundError, NotADirectoryError):
                self._listings[folder] = frozenset()
            except OSError as error:
                raise DataError(f"cannot list the folder {folder}: {error.strerror}") from error
        return self._listings[folder]

    def _size(self, row: dict[str, Any]) -> tuple[int, int] | None:
        height, width = _whole(row.get("height")), _whole(row.get("width"))
        if height is None or width is None or min(height, width) < 1:
            return None
        return height, width

    def _measure(self, path: Path) -> tuple[int, int] | None:
        try:
            image = read_image(path)
        except DataError:
            return None
        return image.shape[0], image.shape[1]

    def _drop_image(self, number: int, name: Any, reason: str) -> None:
        shown = name if isinstance(name, str) and name else f"image id {number}"
        self._dropped_images[number] = shown
        self.dropped.append(Dropped(shown, None, reason))

    def _refuse_empty(self, rows: list[Any], missing: int) -> None:
        if not rows:
            raise DataError(f"{self.file}: 'images' is empty; there is nothing to read")
        first = self.dropped[0]
        if missing == len(rows):
            raise DataError(
                f"none of the {len(rows)} images of {self.file} is there ({first.image} and so on); looked in "
                f"{', '.join(self.folders)}; put them in one of these folders"
            )
        raise DataError(f"none of the {len(rows)} images of {self.file} can be used: {first.image}: {first.reason}")

    # ---- annotations

    def annotations(self, rows: list[Any], images: ImageTable, category_ids: tuple[int, ...]) -> AnnotationTable:
        labels = {number: label for label, number in enumerate(category_ids)}
        sizes = images.sizes.tolist()
        kept: list[_Object] = []
        seen: dict[int, _Object] = {}
        repeated_ids = False
        for position, row in enumerate(rows):
            if not isinstance(row, dict):
                raise DataError(f"{self.file}: annotations[{position}] is not an object with 'image_id' and 'bbox'")
            item = self._object(row, images.names, sizes, labels)
            if item is None:
                continue
            if item.number is not None:
                if seen.get(item.number) == item:
                    self.dropped.append(Dropped(images.names[item.image], item.number, "it occurs twice"))
                    continue
                repeated_ids |= item.number in seen
                seen[item.number] = item
            kept.append(item)
        kept.sort(key=lambda item: item.image)  # stable: the file's order within an image
        self._note_areas(kept, sizes)
        return AnnotationTable(
            ids=self._usable_ids(kept, repeated_ids),
            image=np.array([item.image for item in kept], np.int64),
            labels=np.array([item.label for item in kept], np.int64),
            xywh=np.array([item.box for item in kept], np.float64).reshape(-1, 4),
            areas=np.array(
                [item.box[2] * item.box[3] if item.area is None else item.area for item in kept], np.float64
            ),
            crowd=np.array([item.crowd for item in kept], np.bool_),
        )

    def _object(
        self, row: dict[str, Any], names: tuple[str, ...], sizes: list[list[int]], labels: dict[int, int]
    ) -> _Object | None:
        """Return the object of one annotation, or None where it was dropped."""
        number, image_id, category = (_whole(row.get(key)) for key in ("id", "image_id", "category_id"))
        image = None if image_id is None else self._rows.get(image_id)
        if image is None:
            gone = None if image_id is None else self._dropped_images.get(image_id)
            reason = "its image_id is not in 'images'" if gone is None else "its image was dropped"
            self.dropped.append(Dropped(gone or f"image id {row.get('image_id')!r}", number, reason))
            return None
        label = None if category is None else labels.get(category)
        box = _box(row.get("bbox"), sizes[image])
        crowd = row.get("iscrowd", 0)
        reason = ""
        if label is None:
            reason = "its category_id is not in 'categories'"
        elif isinstance(box, str):
            reason = box
        elif crowd not in (0, 1):
            reason = "its iscrowd is neither 0 nor 1"
        if label is None or isinstance(box, str) or reason:
            self.dropped.append(Dropped(names[image], number, reason))
            return None
        area = _finite(row.get("area"))
        return _Object(number, image, label, box, None if area is None or area < 0 else area, bool(crowd))

    def _note_areas(self, kept: list[_Object], sizes: list[list[int]]) -> None:
        without = sum(item.area is None for item in kept)
        if without:
            self.notes.append(f"{without} annotations have no usable area: taken as width times height")
        over = 0
        for item in kept:
            (height, width), (x, y, w, h) = sizes[item.image], item.box
            over += x < -1 or y < -1 or x + w > width + 1 or y + h > height + 1
        if over:
            self.notes.append(
                f"{over} boxes reach over the edge of their image by more than a pixel: clipped for training, kept "
                "as they stand for evaluation"
            )

    def _usable_ids(self, kept: list[_Object], repeated: bool) -> NDArray[np.int64]:
        """Return the annotations' ids, or 1, 2, ... where COCOeval would go wrong with them: repeated or below 1."""
        ids = [item.number for item in kept]
        if repeated or any(number is None or number < 1 for number in ids):
            self.notes.append("annotation ids are missing, repeated or below 1: numbered anew for evaluation")
            return np.arange(1, len(ids) + 1, dtype=np.int64)
        return np.array(ids, np.int64)


def _box(value: Any, size: list[int]) -> tuple[float, float, float, float] | str:
    """Return a COCO box x, y, width, height, or the reason why it cannot be used in an image of (height, width)."""
    if not isinstance(value, list) or len(value) != 4:
        return "its bbox is not a list of four numbers"
    x, y, width, height = (_finite(number) for number in value)
    if x is None or y is None or width is None or height is None:
        return "its bbox is not four finite numbers"
    if width < 0 or height < 0:
        return "its bbox has a negative width or height"
    if width == 0 or height == 0:
        return "its bbox has no width or no height"
    if min(x + width, size[1]) <= max(x, 0) or min(y + height, size[0]) <= max(y, 0):
        return "its bbox lies outside the image"
    return x, y, width, height
