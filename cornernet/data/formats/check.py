"""What a folder contains, what training would drop, and what would stop it: ``cornernet data check FOLDER``.

Everything is checked: every annotation file, every annotation, and every image, which is decoded completely.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from cornernet.console import count, listing, named, printable
from cornernet.data.dataset import DetectionDataset, Dropped
from cornernet.data.formats.coco import (
    annotation_files,
    find_annotations,
    is_detection_file,
    read_annotations,
    split_of,
)
from cornernet.data.images import LARGEST_FILE, DataError, Picture
from cornernet.data.parallel import in_order
from cornernet.data.survey import doubts_of, turned
from cornernet.files import read_regular

__all__ = ["DataReport", "FileReport", "by_reason", "check_folder"]

_SHOWN = 5


@dataclass(frozen=True)
class FileReport:
    """One annotation file."""

    name: str
    """Path below the folder, with slashes."""
    dataset: DetectionDataset | None
    """Its content, or None if it cannot be read; :attr:`error` says why."""
    error: str = ""
    unreadable: Sequence[Dropped] = ()
    """Images that would stop training and evaluation, with the reason."""
    warnings: Sequence[str] = ()
    """What is doubtful about its boxes and images."""
    digests: Sequence[bytes] = ()
    """sha256 of every image file that could be read."""


@dataclass(frozen=True)
class DataReport:
    """What :func:`check_folder` found."""

    folder: Path
    files: Sequence[FileReport]
    ignored: Sequence[str] = ()
    """JSON files that contain no boxes (captions, other data)."""
    splits: Sequence[tuple[str, str]] = ()
    """For train and val: the annotation file that is used by default, or why there is none."""
    warnings: Sequence[str] = ()
    """What does not stop training but makes its results doubtful."""
    errors: Sequence[str] = field(default=())
    """What stops training or evaluation."""

    @property
    def usable(self) -> bool:
        """Whether nothing stops training; dropped items are allowed, errors are not. See also :attr:`missing`."""
        return not self.errors

    @property
    def missing(self) -> tuple[str, ...]:
        """Those of train and val for which no annotation file is used by default."""
        names = {file.name for file in self.files}
        return tuple(split for split, found in self.splits if found not in names)

    def to_text(self) -> str:
        """Return the report as text: some lines for each annotation file, and the verdict at the end."""
        lines = [f"{printable(self.folder)}: {count(len(self.files), 'annotation file')}"]
        for file in self.files:
            lines += ["", printable(file.name), *(f"  {line}" for line in _file_lines(file))]
        lines.append("")
        if self.ignored:
            lines.append(f"ignored, because they contain no boxes: {listing(self.ignored)}")
        lines += [f"split {split}: {printable(found)}" for split, found in self.splits]
        lines += [f"warning: {printable(text)}" for text in self.warnings]
        lines += [f"error: {printable(text)}" for text in self.errors]
        lines.append(self._verdict())
        return "\n".join(lines)

    def _verdict(self) -> str:
        if not self.usable:
            return "This folder cannot be used as it is."
        if not self.missing:
            return "This folder can be used."
        flags = " ".join(f"--data.source.{split}-split NAME" for split in self.missing)
        return f"To use this folder, say which file is {' and which is '.join(self.missing)}: {flags} (see above)."


def check_folder(folder: str | Path, progress: Callable[[str, int, int], None] | None = None) -> DataReport:
    """Read every annotation and every image of a COCO-format folder and return a report.

    ``progress`` is called with the name of an annotation file, the number of its images checked, and their total.
    Raises nothing for bad data: whatever stops training, such as a missing folder, is in ``DataReport.errors``.
    """
    root = Path(folder)
    try:
        names = annotation_files(root)
    except DataError as error:
        return DataReport(root, (), errors=(str(error),))
    wanted = [name for name in names if is_detection_file(root / name)]
    files = [_check_file(root, name, progress) for name in wanted]
    errors = [file.error for file in files if file.error]
    for file in files:
        if file.unreadable:
            errors.append(
                f"{file.name}: {count(len(file.unreadable), 'image')} cannot be read, which stops training; restore "
                "the files, remove them from the annotations, or leave them out with --data.unreadable skip"
            )
        elif file.dataset is not None and not sum(file.dataset.box_counts().values()):
            errors.append(f"{file.name}: there is no box to train on")
    if not files:
        errors.append(f"there is no annotation file in {root}; expected annotations/*.json or *.json in COCO format")
    splits = _splits(root) if files else []
    return DataReport(
        folder=root,
        files=files,
        ignored=[name for name in names if name not in wanted],
        splits=splits,
        warnings=_warnings(files, dict(splits)),
        errors=errors,
    )


def _check_file(root: Path, name: str, progress: Callable[[str, int, int], None] | None) -> FileReport:
    try:
        dataset = read_annotations(root, name, split_of(name))
    except DataError as error:
        return FileReport(name, None, str(error))
    results = []
    for result in in_order(lambda index: _check_image(dataset, index), range(len(dataset))):
        results.append(result)
        if progress is not None:
            progress(name, len(results), len(dataset))
    read = [result for result in results if not isinstance(result, Dropped)]
    doubts = [doubt for _, doubt in read if doubt is not None]
    warnings = [*(f"{name}: {text}" for text in dataset.warnings), *doubts_of(name, doubts)]
    stored, upright = turned(dataset)
    if stored:
        mixed = f", and those of {upright} for the image turned upright" if upright else ""
        warnings.append(
            f"{name}: the annotations of {count(stored, 'image')} with an EXIF orientation are for the image as "
            f"stored{mixed}; "
            + ("annotate them in one way" if mixed else "a training uses them so, and so does detection with its run")
        )
    return FileReport(
        name,
        dataset,
        unreadable=[result for result in results if isinstance(result, Dropped)],
        warnings=warnings,
        digests=[digest for digest, _ in read],
    )


def _check_image(dataset: DetectionDataset, index: int) -> tuple[bytes, tuple[str, Picture] | None] | Dropped:
    """Return the digest of an image's file, and the image without its pixels if it is doubtful."""
    record = dataset.records[index]
    try:
        picture = dataset.inspect(index)
        doubt = (record.path.name, picture.without_pixels()) if picture.doubt else None
        return hashlib.sha256(read_regular(record.path, LARGEST_FILE)).digest(), doubt
    except (DataError, OSError) as error:
        return Dropped(record.path.name, None, str(error))


def _splits(root: Path) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    splits: tuple[Literal["train"], Literal["val"]] = ("train", "val")
    for split in splits:
        try:
            found.append((split, find_annotations(root, split, split)))
        except DataError as error:
            found.append((split, f"none by default: {error}"))
    return found


def _warnings(files: Sequence[FileReport], used: dict[str, str]) -> list[str]:
    warnings: list[str] = []
    for file in files:
        warnings += file.warnings
        repeated = len(file.digests) - len(set(file.digests))
        if repeated:
            warnings.append(f"{file.name}: {count(repeated, 'image')} with the same content as another")
    # the file that `data split` has split is not a split itself: with train and val in use, their sources are not
    if set(used.values()) <= {file.name for file in files}:
        splits = [file for file in files if file.name in used.values() or split_of(file.name) == "test"]
    else:
        splits = [file for file in files if not Path(file.name).stem.endswith("_all")]
    for a, b in itertools.combinations(splits, 2):
        shared = len(set(a.digests) & set(b.digests))
        if shared:
            warnings.append(
                f"{count(shared, 'image')} {'is' if shared == 1 else 'are'} in both {a.name} and {b.name}; metrics on "
                "images that were used for training say little"
            )
        if a.dataset and b.dataset and a.dataset.classes != b.dataset.classes:
            warnings.append(
                f"{a.name} and {b.name} have different categories; they cannot be used together as train and val"
            )
    return warnings


def _file_lines(file: FileReport) -> Iterable[str]:
    if file.dataset is None:
        return ["cannot be read: see the error below"]
    # its warnings are among those of the whole folder
    lines = [line for line in file.dataset.summary().split("\n") if not line.startswith("  warning: ")]
    boxes = np.concatenate([record.boxes for record in file.dataset.records])
    if len(boxes):
        sides = boxes[:, 2:] - boxes[:, :2]
        low, middle, high = sides.min(0), np.median(sides, axis=0), sides.max(0)
        lines.append(
            f"  boxes (smallest, median, largest): width {low[0]:.4g} {middle[0]:.4g} {high[0]:.4g}, "
            f"height {low[1]:.4g} {middle[1]:.4g} {high[1]:.4g} pixels"
        )
    lines += [f"  {line}" for line in by_reason("dropped", file.dataset.dropped)]
    if file.unreadable:
        lines.append(f"  unreadable images: {len(file.unreadable)}")
        lines += [f"    {printable(item.reason)}" for item in file.unreadable[:_SHOWN]]
        if len(file.unreadable) > _SHOWN:
            lines.append(f"    and {len(file.unreadable) - _SHOWN} more")
    return lines


def by_reason(what: str, items: Sequence[Dropped]) -> Iterable[str]:
    """Yield a line for each reason: the number of items and the first few of them."""
    groups: dict[str, list[str]] = defaultdict(list)
    for item in items:
        groups[item.reason].append(
            named(item.image) if item.annotation is None else f"{named(item.image)} annotation {item.annotation}"
        )
    for reason, places in groups.items():
        more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
        yield f"{what} because {printable(reason)} ({len(places)}): {', '.join(places[:_SHOWN])}{more}"
