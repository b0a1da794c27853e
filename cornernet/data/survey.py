"""What the image files of a data set contain that a training should know before it starts.

The beginning and the end of every file are read, some twenty thousand files a second from a warm disk; only files that
look unusual are read completely. ``data.unreadable`` at ``skip`` decodes every file.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cornernet.config import Orientation, Size
from cornernet.console import count
from cornernet.data.dataset import DetectionDataset, Dropped
from cornernet.data.images import ENDS_EARLY, LARGEST_FILE, DataError, Picture, stated_size, stored_orientation
from cornernet.data.parallel import in_order
from cornernet.files import open_regular

__all__ = ["Survey", "doubts_of", "survey", "turned", "without_unreadable"]

_PROBE = 2**12
"""Bytes read at each end of a file."""
_DEEP_FILES = 32
"""16-bit files of a data set that are decoded to see how many bits are in use."""
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Survey:
    """What was found in the files of one or more data sets."""

    stored: int = 0
    """Images with an EXIF orientation whose annotations are for the image as stored."""
    upright: int = 0
    """Images with an EXIF orientation whose annotations are for the image turned upright."""
    warnings: tuple[str, ...] = ()

    @property
    def orientation(self) -> Orientation:
        """The one rule about EXIF orientation that all annotations follow, if there is one."""
        return "stored" if self.stored and not self.upright else "annotations"


@dataclass(frozen=True)
class _Found:
    turn: str = ""
    doubtful: bool = False
    deep: bool = False


def survey(*datasets: DetectionDataset) -> Survey:
    """Return what the files of ``datasets`` contain; nothing for generated images. A missing file is passed over."""
    stored = upright = 0
    warnings = []
    for dataset in datasets:
        if dataset.pixels is not None:
            continue
        found = _probed(dataset)
        as_stored, as_upright = _turned(found)
        stored, upright = stored + as_stored, upright + as_upright
        deep = [index for index, item in enumerate(found) if item.deep]
        wanted = [index for index, item in enumerate(found) if item.doubtful]
        wanted += deep[:: max(1, len(deep) // _DEEP_FILES)]
        pictures = _each(dataset, functools.partial(_inspected, dataset), wanted)
        warnings += doubts_of(
            f"{dataset.name} {dataset.split}",
            [
                (dataset.records[index].path.name, picture)
                for index, picture in zip(wanted, pictures, strict=True)
                if isinstance(picture, Picture)
            ],
        )
    if stored and upright:
        warnings.append(
            f"the annotations of {count(stored, 'image')} with an EXIF orientation are for the image as stored, and of "
            f"{upright} for the image turned upright: detection turns all upright; annotate them in one way"
        )
    return Survey(stored, upright, tuple(warnings))


def turned(dataset: DetectionDataset) -> tuple[int, int]:
    """Return :attr:`Survey.stored` and :attr:`Survey.upright` of a data set; nothing is decoded."""
    return (0, 0) if dataset.pixels is not None else _turned(_probed(dataset))


def _probed(dataset: DetectionDataset) -> list[_Found]:
    return _each(dataset, functools.partial(_probe, dataset))


def _turned(found: Sequence[_Found]) -> tuple[int, int]:
    return sum(item.turn == "stored" for item in found), sum(item.turn == "upright" for item in found)


def doubts_of(where: str, pictures: Iterable[tuple[str, Picture]]) -> list[str]:
    """Return a warning for each kind of doubt about the pixels of ``pictures``, with the first of their names."""
    early: list[str] = []
    deep: list[tuple[str, int, int]] = []
    for name, picture in pictures:
        if picture.doubt == ENDS_EARLY:
            early.append(name)
        if picture.largest is not None:
            deep.append((name, picture.largest, picture.bits))
    warnings = []
    if early:
        warnings.append(
            f"{where}: {count(len(early), 'image')} ending early, first {early[0]}: read as far as possible, the rest "
            "is grey; restore the files, or leave them out with --data.unreadable skip"
        )
    if deep:
        warnings.append(
            f"{where}: images of 16 bits with values up to {max(largest for _, largest, _ in deep)} only, first "
            f"{deep[0][0]}: they are read almost black; --data.bits {max(bits for *_, bits in deep)} scales them"
        )
    return warnings


def without_unreadable(dataset: DetectionDataset) -> DetectionDataset:
    """Return the data set without the images that cannot be read, or that end early; all are decoded."""
    if dataset.pixels is not None:
        return dataset

    def reason(index: int) -> Dropped | None:
        found = _inspected(dataset, index)
        if isinstance(found, DataError):
            return Dropped(dataset.records[index].path.name, None, "it cannot be read")
        if found.doubt == ENDS_EARLY:
            return Dropped(dataset.records[index].path.name, None, "it ends early")
        return None

    dropped = _each(dataset, reason)
    number = sum(item is not None for item in dropped)
    return dataset.without(dropped, f"{count(number, 'image')} that cannot be read left out: data.unreadable is 'skip'")


def _each(
    dataset: DetectionDataset, function: Callable[[int], _Result], indices: Iterable[int] | None = None
) -> list[_Result]:
    return list(in_order(function, range(len(dataset)) if indices is None else indices))


def _inspected(dataset: DetectionDataset, index: int) -> Picture | DataError:
    try:
        return dataset.inspect(index).without_pixels()
    except DataError as error:
        return error


def _probe(dataset: DetectionDataset, index: int) -> _Found:
    path = dataset.records[index].path
    try:
        with open_regular(path, LARGEST_FILE) as file:
            head = file.read(_PROBE) or b""
            file.seek(max(0, os.fstat(file.fileno()).st_size - _PROBE))
            tail = file.read(_PROBE) or b""
            if not _may_be_turned(head, tail):
                return _Found("", _may_be_short(head, tail), _may_be_deep(head))
            file.seek(0)
            content = file.readall()
    except OSError:
        return _Found()
    return _Found(_turn(content, dataset.size(index)), _may_be_short(head, tail), _may_be_deep(head))


def _may_be_turned(head: bytes, tail: bytes) -> bool:
    return any(mark in head or mark in tail for mark in (b"Exif\0", b"eXIf", b"EXIF")) or head[:2] in (b"II", b"MM")


def _may_be_short(head: bytes, tail: bytes) -> bool:
    return head.startswith(b"\xff\xd8") and b"\xff\xd9" not in tail


def _may_be_deep(head: bytes) -> bool:
    if head.startswith(b"\x89PNG"):
        return head[24:25] == b"\x10"
    return head[:2] in (b"II", b"MM", b"P5", b"P6")


def _turn(content: bytes, size: Size) -> str:
    """Return whether annotations of ``size`` (height, width) are for the image 'stored' or 'upright', or ''."""
    orientation = stored_orientation(content)
    if orientation < 5:
        return ""
    try:
        stated = stated_size(content)
    except ValueError:
        return ""
    if stated is None or stated[0] == stated[1]:
        return ""
    return {stated: "stored", stated[::-1]: "upright"}.get(size, "")
