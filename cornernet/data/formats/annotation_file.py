"""A COCO annotation file as columns: decoded without what is not needed, and cached.

A file of COCO's size holds some fifty million numbers of polygons that detection never looks at. A typed decoder
(msgspec) passes over them; what it refuses (NaN, which JSON has not but Python writes; UTF-16; rows of a wrong kind)
is read again by the standard library, slowly, so that what is wrong can be named.

The columns of a large file are cached below ``cache_folder()``. A cached file is taken only where path, size, inode,
the times of content and of inode, and the version of this code are those it was made from, and where it is whole (its
members carry checksums); else the annotations are read as if it were not there. It holds arrays and JSON, no pickle.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import math
import os
import reprlib
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from cornernet.data.images import DataError
from cornernet.data.shared import Texts
from cornernet.files import atomic_write, cache_folder

__all__ = ["CACHED_FROM", "LARGEST_FILE", "NOTHING", "AnnotationColumns", "is_detection_file", "read_columns"]

LARGEST_FILE = 4 * 2**30
"""Bytes of an annotation file: nine times COCO's."""
CACHED_FROM = 4 * 2**20
"""Bytes from which on a file's columns are cached; smaller ones are read in less time than a cache takes."""
NOTHING = -(2**63)
"""Stands in a column of whole numbers where the file has none."""
_LARGEST_ID = 2**63 - 1
_VERSION = 1
_SETTLED = 2.0
"""Seconds: a file that changed later than this before it was read may change again under the same times."""


@dataclass(frozen=True)
class AnnotationColumns:
    """What an annotation file says, N images and M annotations, unusable values marked and nothing left out."""

    category_ids: NDArray[np.int64]
    category_names: Texts
    image_ids: NDArray[np.int64]
    image_sizes: NDArray[np.int64]
    """[N, 2] height, width; -1 where one is not stated, 0 where one is not a positive whole number."""
    image_names: Texts
    """Empty where file_name is missing; see ``unnamed``."""
    unnamed: NDArray[np.bool_]
    """[N] file_name is a text that is no file's name: it cannot be said in UTF-8."""
    ids: NDArray[np.int64]
    """[M] :data:`NOTHING` where there is no whole number; so in the next two."""
    image: NDArray[np.int64]
    category: NDArray[np.int64]
    xywh: NDArray[np.float64]
    """[M, 4]; NaN or infinite where a number is."""
    no_box: NDArray[np.bool_]
    """[M] bbox is not a list of four."""
    areas: NDArray[np.float64]
    """[M] NaN where there is no usable one."""
    crowd: NDArray[np.uint8]
    """[M] 0, 1, or 2 for what is neither."""
    odd_rows: NDArray[np.int64]
    """Annotations whose image_id is :data:`NOTHING`, and in ``odd_texts`` what stands there instead."""
    odd_texts: Texts


class _Category(msgspec.Struct, gc=False):
    id: Any = None
    name: Any = None


class _Image(msgspec.Struct, gc=False):
    id: Any = None
    file_name: Any = None
    height: Any = None
    width: Any = None


class _Annotation(msgspec.Struct, gc=False):
    id: Any = None
    image_id: Any = None
    category_id: Any = None
    bbox: Any = None
    area: Any = None
    iscrowd: Any = 0


class _File(msgspec.Struct, gc=False):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


class _Kind(msgspec.Struct, gc=False):
    """Of a file only whether it has these."""

    annotations: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    categories: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_DAMAGED = (
    *(OSError, ValueError, KeyError, EOFError, RecursionError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What reading an npz file raises that is not one."""
_REFUSED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def read_columns(path: Path) -> AnnotationColumns:
    """Return what an annotation file says, from the cache where its columns are there.

    Raises ``DataError`` naming file, field and fix where the file is too large, not JSON or not COCO's format, and
    where an id is no whole number or occurs twice among images or categories.
    """
    found = _identity(path)
    size = found["size"]
    if size > LARGEST_FILE:
        raise DataError(
            f"the annotations {path} have {size / 2**30:.1f} GiB, and at most {LARGEST_FILE >> 30} are read: divide "
            "the data set into several files"
        )
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
    """Return False for JSON that clearly holds something else than boxes (captions, settings), else True.

    A damaged file counts as one that should hold boxes, so that it is reported and not passed over; so does one too
    large to be read.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            return True
        content = path.read_bytes()
    except OSError:
        return True
    try:
        tree = msgspec.json.decode(content, type=_Kind)
        return tree.annotations is not msgspec.UNSET and tree.categories is not msgspec.UNSET
    except _REFUSED:
        pass
    try:
        whole = json.loads(content, object_hook=_without_outlines)
    except (ValueError, RecursionError):
        return True
    return isinstance(whole, dict) and "annotations" in whole and "categories" in whole


# ------------------------------------------------------------------------------------------- reading


def _read(path: Path) -> AnnotationColumns:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the annotations {path}: {error.strerror}") from error
    try:
        tree = msgspec.json.decode(content, type=_File)
    except _REFUSED:
        tree = _read_slowly(path, content)
    del content
    names, ids = _categories(path, tree.categories)
    image_ids = _image_ids(path, tree.images)
    unnamed, image_names = _image_names(tree.images)
    sizes = [_size(row) for row in tree.images]
    tree.images.clear()
    return AnnotationColumns(
        category_ids=ids,
        category_names=names,
        image_ids=image_ids,
        image_sizes=np.array(sizes, np.int64).reshape(-1, 2),
        image_names=image_names,
        unnamed=unnamed,
        **_annotations(tree.annotations),
    )


def _read_slowly(path: Path, content: bytes) -> _File:
    """Read what the typed decoder refused, and say what is wrong where something is."""
    try:
        tree = json.loads(content, object_hook=_without_outlines)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the annotations {path} are not JSON: {error}") from error
    if not isinstance(tree, dict):
        raise DataError(f"the annotations {path} hold a {type(tree).__name__}; COCO format is an object with lists")
    rows: dict[str, list[Any]] = {}
    for key, needs, kind in (
        ("images", "'id' and 'file_name'", _Image),
        ("annotations", "'image_id' and 'bbox'", _Annotation),
        ("categories", "'id' and 'name'", _Category),
    ):
        if not isinstance(tree.get(key), list):
            raise DataError(f"the annotations {path} have no list {key!r}; COCO format needs it")
        rows[key] = []
        known = kind.__struct_fields__
        for position, row in enumerate(tree[key]):
            if not isinstance(row, dict):
                raise DataError(f"{path}: {key}[{position}] is not an object with {needs}")
            rows[key].append(kind(**{name: row[name] for name in known if name in row}))
    return _File(**rows)


def _without_outlines(row: dict[str, Any]) -> dict[str, Any]:
    # most of a file, and nothing that is used
    row.pop("segmentation", None)
    return row


def _categories(path: Path, rows: Sequence[_Category]) -> tuple[Texts, NDArray[np.int64]]:
    names: dict[int, str] = {}
    for position, row in enumerate(rows):
        where = f"{path}: categories[{position}]"
        number = _whole(row.id)
        if number is None:
            raise DataError(f"{where}.id is {_shown(row.id)}; use a whole number")
        if not isinstance(row.name, str) or not row.name:
            raise DataError(f"{where}.name is {_shown(row.name)}; use a text")
        if not _sayable(row.name):
            raise DataError(f"{where}.name is {row.name!a}, which is not whole Unicode; write it anew")
        if number in names:
            raise DataError(f"{where}.id {number} occurs twice; give each category its own id")
        names[number] = row.name
    if not names:
        raise DataError(f"{path}: 'categories' is empty; list the classes")
    ids = sorted(names)
    return Texts.of(names[number] for number in ids), np.array(ids, np.int64)


def _image_ids(path: Path, rows: Sequence[_Image]) -> NDArray[np.int64]:
    seen: set[int] = set()
    for position, row in enumerate(rows):
        number = _whole(row.id)
        if number is None:
            raise DataError(f"{path}: images[{position}].id is {_shown(row.id)}; use a whole number")
        if number in seen:
            raise DataError(f"{path}: images[{position}].id {number} occurs twice; give each image its own id")
        seen.add(number)
    return np.array([_whole(row.id) for row in rows], np.int64)


def _image_names(rows: Sequence[_Image]) -> tuple[NDArray[np.bool_], Texts]:
    names = [row.file_name if isinstance(row.file_name, str) else "" for row in rows]
    unnamed = np.array([not _sayable(name) for name in names], np.bool_)
    return unnamed, Texts.of(name if _sayable(name) else ascii(name) for name in names)


def _size(row: _Image) -> tuple[int, int]:
    height, width = _whole(row.height), _whole(row.width)
    if height is not None and width is not None and min(height, width) >= 1:
        return height, width
    return (-1, -1) if row.height is None or row.width is None else (0, 0)


def _annotations(rows: list[_Annotation]) -> dict[str, Any]:
    image = _wholes([row.image_id for row in rows])
    odd = np.flatnonzero(image == NOTHING)
    xywh, no_box = _boxes([row.bbox for row in rows])
    return {
        "ids": _wholes([row.id for row in rows]),
        "image": image,
        "category": _wholes([row.category_id for row in rows]),
        "xywh": xywh,
        "no_box": no_box,
        "areas": _areas([row.area for row in rows]),
        "crowd": _crowds([row.iscrowd for row in rows]),
        "odd_rows": odd,
        "odd_texts": Texts.of(_shown(rows[at].image_id) for at in odd.tolist()),
    }


# A column is made at once where all its values are of the usual kind, and value by value where one is not.


def _wholes(values: list[Any]) -> NDArray[np.int64]:
    if set(map(type, values)) <= {int}:
        with contextlib.suppress(OverflowError):
            return np.fromiter(values, np.int64, len(values))
    return _one_by_one(values, lambda value: NOTHING if (number := _whole(value)) is None else number, np.int64)


def _areas(values: list[Any]) -> NDArray[np.float64]:
    areas = _numbers(values)
    return np.where(np.isfinite(areas) & (areas >= 0), areas, np.nan)


def _crowds(values: list[Any]) -> NDArray[np.uint8]:
    return _one_by_one(values, lambda value: int(value) if value in (0, 1) else 2, np.uint8)


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


def _whole(value: Any) -> int | None:
    """Return a JSON value as an integer where it is one (640.0 counts, True does not), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not (math.isfinite(value) and value.is_integer()):
        return None
    return int(value) if abs(value) <= _LARGEST_ID else None


def _number(value: Any) -> float:
    """Return a JSON value as a number, NaN where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _sayable(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _shown(value: Any) -> str:
    """Return a value as a message shows it: what a file holds may be as long as the file."""
    return ascii(reprlib.repr(value)) if not _sayable(text := reprlib.repr(value)) else text


# ------------------------------------------------------------------------------------------- caching


def _identity(path: Path) -> dict[str, Any]:
    """Return what tells one state of a file from another."""
    try:
        found = path.stat()
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
    """Write whole or not at all. The cache saves time, nothing else: where it cannot be written, it is not."""
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
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, buffer.getvalue())


def _load(path: Path, found: dict[str, Any]) -> AnnotationColumns | None:
    """Return the columns of exactly the file that was found, or None where they are absent, stale or damaged."""
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
