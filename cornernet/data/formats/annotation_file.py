"""A COCO annotation file as columns: only the needed fields are decoded, and the result is cached.

A file of COCO's size contains some fifty million polygon coordinates, which detection does not use. A typed decoder
(msgspec) skips them. What it refuses (NaN, which is not JSON but which Python writes; UTF-16; rows of a wrong type) is
read again, slowly, by the standard library, so that the message can name what is wrong.

The columns of a large file are cached below ``cache_folder()``. A cached file is used only if path, size, inode,
modification times and the version of this code are those it was made from, and if it is complete (its members have
checksums). Otherwise the annotations are read as if there were no cache. It contains arrays and JSON, no pickle.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import math
import os
import re
import reprlib
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
import numpy as np
from numpy.typing import NDArray

from cornernet.config.checks import json_problem
from cornernet.data.formats.masks import box_of_mask
from cornernet.data.images import DataError
from cornernet.data.shared import Texts
from cornernet.files import atomic_write, cache_folder, is_utf8, make_folder, open_regular, read_regular

__all__ = [
    "CACHED_FROM",
    "LARGEST_FILE",
    "NOTHING",
    "AnnotationColumns",
    "is_detection_file",
    "read_columns",
    "written_integer",
]

LARGEST_FILE = 4 * 2**30
"""Bytes of an annotation file: nine times COCO's."""
CACHED_FROM = 4 * 2**20
"""Bytes of the smallest file that is cached; smaller files are read faster than a cache."""
NOTHING = -(2**63)
"""In a column of integers: the file has no integer there."""
_LARGEST_ID = 2**63 - 1
_INTEGER = re.compile(r"-?[0-9]{1,18}").fullmatch
_VERSION = 2
_SETTLED = 2.0
"""Seconds: a file modified more recently than this may be modified again with the same timestamps."""


@dataclass(frozen=True)
class AnnotationColumns:
    """The content of an annotation file with N images and M annotations; unusable values are marked, none left out."""

    category_ids: NDArray[np.int64]
    category_names: Texts
    parents: NDArray[np.bool_]
    """[K] the category has no supercategory itself and is that of others, as in exports of Roboflow."""
    image_ids: NDArray[np.int64]
    image_sizes: NDArray[np.int64]
    """[N, 2] height, width; -1 if either is missing, 0 if either is not a positive integer."""
    image_names: Texts
    """file_name, or the last two parts of coco_url, or empty if both are missing; see ``unnamed``."""
    from_url: NDArray[np.bool_]
    """[N] the name is from coco_url."""
    unnamed: NDArray[np.bool_]
    """[N] file_name is a string that cannot be encoded in UTF-8, so no file has this name."""
    ids: NDArray[np.int64]
    """[M] :data:`NOTHING` if it is not an integer; also in the next two."""
    image: NDArray[np.int64]
    category: NDArray[np.int64]
    xywh: NDArray[np.float64]
    """[M, 4]; may contain NaN and infinite values."""
    no_box: NDArray[np.bool_]
    """[M] bbox is not a list of four, and there is no segmentation to take a box from."""
    from_mask: NDArray[np.bool_]
    """[M] bbox is missing or empty, and the box is that of the segmentation."""
    areas: NDArray[np.float64]
    """[M] NaN if there is no usable area."""
    crowd: NDArray[np.uint8]
    """[M] 0, 1, or 2 for anything else; null is 0."""
    ignored: NDArray[np.bool_]
    """[M] the field ``ignore`` is set."""
    as_text: NDArray[np.bool_]
    """[M] image_id or category_id is a number written as a text."""
    odd_rows: NDArray[np.int64]
    """Annotations whose image_id is :data:`NOTHING`; ``odd_texts`` has what the file says instead."""
    odd_texts: Texts
    annotated: NDArray[np.bool_]
    """[1] whether the file has a list of annotations; COCO's files of test images have none."""


class _Category(msgspec.Struct, gc=False):
    id: Any = None
    name: Any = None
    supercategory: Any = None


class _Image(msgspec.Struct, gc=False):
    id: Any = None
    file_name: Any = None
    coco_url: Any = None
    height: Any = None
    width: Any = None


class _Annotation(msgspec.Struct, gc=False):
    id: Any = None
    image_id: Any = None
    category_id: Any = None
    bbox: Any = None
    area: Any = None
    iscrowd: Any = 0
    ignore: Any = 0


class _File(msgspec.Struct, gc=False):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation] | msgspec.UnsetType = msgspec.UNSET


class _Mask(msgspec.Struct, gc=False):
    segmentation: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Masks(msgspec.Struct, gc=False):
    """The segmentations alone, not decoded."""

    annotations: list[_Mask]


class _Kind(msgspec.Struct, gc=False):
    """Only whether a file has these fields."""

    annotations: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    categories: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_DAMAGED = (
    *(OSError, ValueError, KeyError, EOFError, RecursionError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What numpy raises for a damaged npz file."""
_REFUSED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def read_columns(path: Path) -> AnnotationColumns:
    """Return the content of an annotation file, from the cache if possible.

    Raises ``DataError``, naming file, field and fix, where the file is too large, not JSON or not in COCO format, and
    where an id of an image or a category is not an integer or occurs twice.
    """
    found = _identity(path)
    size = found["size"]
    cached = _cache_file(path) if size >= CACHED_FROM else None
    columns = None if cached is None else _load(cached, found)
    if columns is not None:
        return columns
    began = time.time()
    columns = _read(path)
    if cached is not None and _identity(path) == found and began - max(found["mtime"], found["ctime"]) / 1e9 > _SETTLED:
        _store(cached, found, columns)
    return columns


def is_detection_file(path: Path) -> bool:
    """Return False for JSON that clearly contains no boxes (captions, settings), else True.

    A damaged file, or one too large to be read, counts as an annotation file, so that it is reported and not ignored.
    """
    try:
        content = read_regular(path, LARGEST_FILE)
    except OSError:
        return True
    try:
        tree = msgspec.json.decode(content, type=_Kind)
        return tree.annotations is not msgspec.UNSET and tree.categories is not msgspec.UNSET
    except _REFUSED:
        pass
    try:
        whole = json.loads(content, object_hook=_without_segmentation)
    except (ValueError, RecursionError):
        return True
    return isinstance(whole, dict) and "annotations" in whole and "categories" in whole


# ------------------------------------------------------------------------------------------- reading


def _read(path: Path) -> AnnotationColumns:
    try:
        content = read_regular(path, LARGEST_FILE)
    except OSError as error:
        raise DataError(f"cannot read the annotations {path}: {error.strerror}") from error
    try:
        tree = msgspec.json.decode(content, type=_File)
    except _REFUSED:
        tree = _read_slowly(path, content)
    annotated = tree.annotations is not msgspec.UNSET
    rows = [] if isinstance(tree.annotations, msgspec.UnsetType) else tree.annotations
    masks = _masks(content, rows)
    del content
    names, ids, parents = _categories(path, tree.categories)
    image_ids = _image_ids(path, tree.images)
    unnamed, from_url, image_names = _image_names(tree.images)
    sizes = [_size(row) for row in tree.images]
    tree.images.clear()
    return AnnotationColumns(
        category_ids=ids,
        category_names=names,
        parents=parents,
        image_ids=image_ids,
        image_sizes=np.array(sizes, np.int64).reshape(-1, 2),
        image_names=image_names,
        from_url=from_url,
        unnamed=unnamed,
        **_annotations(rows, masks),
        annotated=np.array([annotated]),
    )


def _read_slowly(path: Path, content: bytes) -> _File:
    """Read what the typed decoder refused. Raises ``DataError`` saying what is wrong, if anything is."""
    try:
        tree = json.loads(content, object_hook=_without_segmentation)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the annotations {path} are not JSON: {json_problem(error)}") from error
    if not isinstance(tree, dict):
        raise DataError(f"the annotations {path} are a JSON {type(tree).__name__}; COCO format is an object with lists")
    rows: dict[str, list[Any]] = {}
    for key, needs, kind in (
        ("images", "'id' and 'file_name'", _Image),
        ("annotations", "'image_id' and 'bbox'", _Annotation),
        ("categories", "'id' and 'name'", _Category),
    ):
        if key == "annotations" and key not in tree:
            continue
        if not isinstance(tree.get(key), list):
            raise DataError(f"the annotations {path} have no list {key!r}; COCO format needs it")
        rows[key] = []
        known = kind.__struct_fields__
        for position, row in enumerate(tree[key]):
            if not isinstance(row, dict):
                raise DataError(f"{path}: {key}[{position}] is not an object with {needs}")
            rows[key].append(kind(**{name: row[name] for name in known if name in row}))
    return _File(**rows)


def _without_segmentation(row: dict[str, Any]) -> dict[str, Any]:
    # most of the file, and never used
    row.pop("segmentation", None)
    return row


def _categories(path: Path, rows: Sequence[_Category]) -> tuple[Texts, NDArray[np.int64], NDArray[np.bool_]]:
    names: dict[int, str] = {}
    above: dict[int, Any] = {}
    for position, row in enumerate(rows):
        where = f"{path}: categories[{position}]"
        number = _integer(row.id)
        if number is None:
            raise DataError(f"{where}.id is {_shown(row.id)}; use an integer")
        if not isinstance(row.name, str) or not row.name:
            raise DataError(f"{where}.name is {_shown(row.name)}; use a string")
        if not is_utf8(row.name):
            raise DataError(f"{where}.name is {row.name!a}, which is not valid Unicode; correct it")
        if number in names:
            raise DataError(f"{where}.id {number} occurs twice; give each category its own id")
        names[number] = row.name
        above[number] = row.supercategory
    if not names:
        raise DataError(f"{path}: 'categories' is empty; list the classes")
    ids = sorted(names)
    parents = [
        above[number] in (None, "", "none") and any(above[other] == names[number] for other in ids if other != number)
        for number in ids
    ]
    return Texts.of(names[number] for number in ids), np.array(ids, np.int64), np.array(parents, np.bool_)


def _image_ids(path: Path, rows: Sequence[_Image]) -> NDArray[np.int64]:
    seen: set[int] = set()
    for position, row in enumerate(rows):
        number = _integer(row.id)
        if number is None:
            raise DataError(f"{path}: images[{position}].id is {_shown(row.id)}; use an integer")
        if number in seen:
            raise DataError(f"{path}: images[{position}].id {number} occurs twice; give each image its own id")
        seen.add(number)
    return np.array([_integer(row.id) for row in rows], np.int64)


def _image_names(rows: Sequence[_Image]) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Texts]:
    names = [row.file_name if isinstance(row.file_name, str) else "" for row in rows]
    from_url = np.zeros(len(rows), np.bool_)
    for at, (name, row) in enumerate(zip(names, rows, strict=True)):
        if not name and isinstance(row.coco_url, str):
            names[at] = _end_of_url(row.coco_url)
            from_url[at] = bool(names[at])
    unnamed = np.array([not is_utf8(name) for name in names], np.bool_)
    return unnamed, from_url, Texts.of(name if is_utf8(name) else ascii(name) for name in names)


def _end_of_url(url: str) -> str:
    """Return the last two parts of a URL's path: LVIS has its images in COCO's folders train2017 and val2017."""
    try:
        parts = [unquote(part) for part in urlsplit(url).path.split("/") if part]
    except ValueError:
        return ""
    return "/".join(parts[-2:])


def _size(row: _Image) -> tuple[int, int]:
    height, width = _integer(row.height), _integer(row.width)
    if height is not None and width is not None and min(height, width) >= 1:
        return height, width
    return (-1, -1) if row.height is None or row.width is None else (0, 0)


def _annotations(rows: list[_Annotation], masks: dict[int, Any]) -> dict[str, Any]:
    images, categories = [row.image_id for row in rows], [row.category_id for row in rows]
    crowds = [row.iscrowd for row in rows]
    as_text = _texts(images) | _texts(categories)
    image = _integers(images)
    odd = np.flatnonzero(image == NOTHING)
    xywh, no_box = _boxes([row.bbox for row in rows])
    from_mask = np.zeros(len(rows), np.bool_)
    for at, mask in masks.items():
        box = box_of_mask(mask)
        if box is not None:
            xywh[at], no_box[at], from_mask[at] = box, False, True
    return {
        "ids": _integers([row.id for row in rows]),
        "image": image,
        "category": _integers(categories),
        "xywh": xywh,
        "no_box": no_box,
        "from_mask": from_mask,
        "areas": _areas([row.area for row in rows]),
        "crowd": _crowds(crowds),
        "ignored": _flags([row.ignore for row in rows]),
        "as_text": as_text,
        "odd_rows": odd,
        "odd_texts": Texts.of(_shown(rows[at].image_id) for at in odd.tolist()),
    }


def _masks(content: bytes, rows: list[_Annotation]) -> dict[int, Any]:
    """Return the segmentations of the annotations that have no bbox, by position: the only ones that are needed.

    They are most of the file, so that they are read, in a second pass, only if there are such annotations.
    """
    without = [at for at, row in enumerate(rows) if not row.bbox]
    if not without:
        return {}
    try:
        masks = msgspec.json.decode(content, type=_Masks).annotations
        found = {at: masks[at].segmentation for at in without}
        return {at: msgspec.json.decode(mask) for at, mask in found.items() if not isinstance(mask, msgspec.UnsetType)}
    except _REFUSED:
        # a number that Python does not convert for its length is in no picture
        whole = json.loads(content, parse_int=lambda text: int(text) if len(text) < 20 else math.inf)["annotations"]
        return {at: whole[at].get("segmentation") for at in without}


# A column is converted at once if all its values have the usual type, and value by value otherwise.


def _integers(values: list[Any]) -> NDArray[np.int64]:
    if set(map(type, values)) <= {int}:
        with contextlib.suppress(OverflowError):
            return np.fromiter(values, np.int64, len(values))
    return _one_by_one(
        values, lambda value: NOTHING if (number := written_integer(value)) is None else number, np.int64
    )


def _areas(values: list[Any]) -> NDArray[np.float64]:
    areas = _numbers(values)
    return np.where(np.isfinite(areas) & (areas >= 0), areas, np.nan)


def _crowds(values: list[Any]) -> NDArray[np.uint8]:
    if set(map(type, values)) <= {int} and set(values) <= {0, 1}:
        return np.fromiter(values, np.uint8, len(values))
    return _one_by_one(values, _crowd, np.uint8)


def _crowd(value: Any) -> int:
    if value is None:
        return 0
    return int(value) if value in (0, 1) else 2


def _flags(values: list[Any]) -> NDArray[np.bool_]:
    if set(map(type, values)) <= {int} and set(values) <= {0}:
        return np.zeros(len(values), np.bool_)
    return _one_by_one(values, lambda value: isinstance(value, int | float) and value > 0, np.bool_)


def _texts(values: list[Any]) -> NDArray[np.bool_]:
    if str not in set(map(type, values)):
        return np.zeros(len(values), np.bool_)
    return _one_by_one(values, lambda value: isinstance(value, str) and written_integer(value) is not None, np.bool_)


def _boxes(values: list[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    no_box = _one_by_one(values, lambda value: not isinstance(value, list) or len(value) != 4, np.bool_)
    if no_box.any():
        values = [[math.nan] * 4 if bad else value for value, bad in zip(values, no_box.tolist(), strict=True)]
    return _numbers(list(itertools.chain.from_iterable(values))).reshape(-1, 4), no_box


def _numbers(values: list[Any]) -> NDArray[np.float64]:
    if set(map(type, values)) <= {int, float}:
        with contextlib.suppress(OverflowError):
            return np.fromiter(values, np.float64, len(values))
    return _one_by_one(values, _number, np.float64)


def _one_by_one(values: list[Any], function: Callable[[Any], Any], dtype: Any) -> NDArray[Any]:
    return np.fromiter(map(function, values), dtype, len(values))


def _integer(value: Any) -> int | None:
    """Return a JSON value as an integer if it is one (640.0 is, True is not), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not (math.isfinite(value) and value.is_integer()):
        return None
    return int(value) if abs(value) <= _LARGEST_ID else None


def written_integer(value: Any) -> int | None:
    """Return what :func:`_integer` does, and the integer in a text that is one (``"7"``)."""
    return int(value) if isinstance(value, str) and _INTEGER(value) else _integer(value)


def _number(value: Any) -> float:
    """Return a JSON value as a number, NaN if it is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _shown(value: Any) -> str:
    """Return a value for a message, shortened: it may be as long as the file."""
    return ascii(reprlib.repr(value)) if not is_utf8(text := reprlib.repr(value)) else text


# ------------------------------------------------------------------------------------------- caching


def _identity(path: Path) -> dict[str, Any]:
    """Return what distinguishes one state of a file from another."""
    try:
        with open_regular(path, LARGEST_FILE) as file:
            found = os.fstat(file.fileno())
        place = str(path.resolve())
    except (OSError, RuntimeError) as error:
        raise DataError(f"cannot read the annotations {path}: {getattr(error, 'strerror', error)}") from error
    return {
        "version": _VERSION,
        "code": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "path": place,
        "size": found.st_size,
        "mtime": found.st_mtime_ns,
        "ctime": found.st_ctime_ns,
        "inode": found.st_ino,
        "device": found.st_dev,
    }


def _cache_file(path: Path) -> Path | None:
    folder = cache_folder()
    if folder is None:
        return None
    place = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    return folder / f"annotations-{place}.npz"


def _store(path: Path, found: dict[str, Any], columns: AnnotationColumns) -> None:
    """Write the cache atomically. It only saves time, so that failing to write it is not an error."""
    arrays: dict[str, NDArray[Any]] = {"identity": np.frombuffer(json.dumps(found).encode(), np.uint8)}
    for field in fields(columns):
        value = getattr(columns, field.name)
        if isinstance(value, Texts):
            arrays |= {f"{field.name}.content": value.content, f"{field.name}.ends": value.ends}
        else:
            arrays[field.name] = value
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    with contextlib.suppress(OSError):
        make_folder(path.parent)
        atomic_write(path, buffer.getvalue())


def _load(path: Path, found: dict[str, Any]) -> AnnotationColumns | None:
    """Return the columns of exactly the file that was found, or None if they are missing, stale or damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if json.loads(stored["identity"].tobytes()) != found:
                return None
            arrays = {name: stored[name] for name in stored.files}
    except _DAMAGED:
        return None
    try:
        values: dict[str, Any] = {
            field.name: Texts(arrays[f"{field.name}.content"], arrays[f"{field.name}.ends"])
            if f"{field.name}.ends" in arrays
            else arrays[field.name]
            for field in fields(AnnotationColumns)
        }
    except KeyError:
        return None
    return AnnotationColumns(**values)
