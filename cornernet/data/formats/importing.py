"""What the importers of other formats share: the result of reading, the COCO files written, and the report.

Boxes become COCO's [x, y, width, height] in pixels, measured between edges: the image's left edge is at 0 and its right
edge at its width. Images stay where they are, unless another output folder is given: then they are copied.
"""

from __future__ import annotations

import filecmp
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cornernet.config.checks import did_you_mean
from cornernet.console import count, named, printable
from cornernet.data.dataset import Dropped
from cornernet.data.formats.check import by_reason
from cornernet.data.images import DataError
from cornernet.files import atomic_copy, atomic_write, identities, identity, is_utf8, make_folder, nearest, refuse_link

__all__ = [
    "FOREIGN_SUFFIXES",
    "IMAGE_SUFFIXES",
    "WRITTEN_BY_US",
    "ImportedBox",
    "ImportedFolder",
    "ImportedImage",
    "annotation_file",
    "check_classes",
    "clipped",
    "files_below",
    "finite_number",
    "image_files",
    "require_folder",
    "require_names",
    "require_new",
    "split_named",
    "split_of_folder",
    "write_import",
]

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".mpo", ".png", ".apng", ".bmp", ".dib", ".tif", ".tiff"),
    *(".webp", ".gif", ".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm", ".pam", ".ras", ".sr"),
)
"""Endings, in lower case, of files that are treated as images: what OpenCV reads with 8 or 16 bits a channel."""
FOREIGN_SUFFIXES = (
    *(".heic", ".heif", ".jxl", ".jxr", ".svg", ".psd", ".ico", ".tga", ".pcx", ".exr", ".hdr", ".pfm", ".dng", ".raw"),
    *(".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
)
"""Endings, in lower case, of pictures that are not read; an importer says so instead of passing over them."""
WRITTEN_BY_US = {"written_by": "cornernet data"}
"""In the ``info`` of every annotation file that an importer or ``data split`` writes."""
_SPLIT_FOLDERS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
_SPLIT_FOLDERS |= {"test": "test", "testing": "test"}


@dataclass(frozen=True)
class ImportedBox:
    """One object: ``box`` x1 y1 x2 y2 in pixels between edges, its class, and further fields to write."""

    box: tuple[float, float, float, float]
    name: str
    ignored: bool = False
    """Written as a crowd: left out of training and ignored in evaluation."""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ImportedImage:
    """One image with its objects."""

    path: Path
    size: tuple[int, int]
    """(height, width)."""
    boxes: tuple[ImportedBox, ...]
    split: str


@dataclass(frozen=True)
class ImportedFolder:
    """The result of an importer."""

    folder: Path
    form: str
    """Name of the format, for the report."""
    classes: tuple[str, ...]
    images: tuple[ImportedImage, ...]
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    """The options it was read with, which are written into the files."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits found, train first; 'all' if the folder has no splits."""
        found = {image.split for image in self.images}
        known = [split for split in ("train", "val", "test") if split in found]
        return (*known, *sorted(found - set(known)))

    def tree(self, split: str) -> dict[str, Any]:
        """Return one split as a COCO annotation tree. Image ids are unique over all splits."""
        categories = {name: number for number, name in enumerate(self.classes, start=1)}
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image_id, image in enumerate(self.images, start=1):
            if image.split != split:
                continue
            height, width = image.size
            name = image.path.relative_to(self.folder).as_posix()
            images.append({"id": image_id, "file_name": name, "height": height, "width": width})
            for item in image.boxes:
                x1, y1, x2, y2 = item.box
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": categories[item.name],
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": int(item.ignored),
                        **item.extra,
                    }
                )
        return {
            "info": {
                "description": f"{self.folder.resolve().name} {split}, from {self.form}",
                **WRITTEN_BY_US,
                **self.options,
            },
            "images": images,
            "categories": [{"id": number, "name": name} for name, number in categories.items()],
            "annotations": annotations,
        }

    def to_text(self) -> str:
        """Return the report: splits, classes, notes, and what was dropped and why."""
        lines = [f"{printable(self.folder)}: {self.form}, {count(len(self.images), 'image')}"]
        for split in self.splits:
            images = [image for image in self.images if image.split == split]
            boxes = sum(len(image.boxes) for image in images)
            empty = sum(not image.boxes for image in images)
            lines.append(
                f"  {printable(split)}: {count(len(images), 'image')} ({empty} without objects), "
                f"{count(boxes, 'box', 'boxes')}"
            )
        counts = Counter(item.name for image in self.images for item in image.boxes)
        lines.append(f"  classes: {', '.join(f'{named(name)} {counts[name]}' for name in self.classes)}")
        lines += [f"  note: {printable(note)}" for note in self.notes]
        lines += [f"  {line}" for line in by_reason("dropped", self.dropped)]
        if not self.dropped:
            lines.append("  dropped: nothing")
        return "\n".join(lines)


def annotation_file(split: str) -> str:
    """Return the path of a split's annotation file below its folder."""
    return f"annotations/instances_{split}.json"


def write_import(found: ImportedFolder, out: Path, *, overwrite: bool = False, dry_run: bool = False) -> list[str]:
    """Write an annotation file for every split below ``out``, and the report beside them; return a line for each.

    If ``out`` is not the folder that was read, the images are copied to ``out/images``, except those that are there
    already. Files are written atomically. With ``dry_run`` nothing is written, and the lines say what would be. Raises
    ``DataError`` where no image is left, and where another file exists already and ``overwrite`` is not set; an image
    that is read is never replaced.
    """
    if not found.images:
        raise DataError(f"no image of {found.folder} can be used:", *found.to_text().split("\n"))
    targets = {split: out / annotation_file(split) for split in found.splits}
    report = out / "annotations" / "import.txt"
    require_new([*targets.values(), report], out, overwrite=overwrite)
    _require_no_remainder(found.splits, out)
    copies = _copies(found, out, overwrite)
    verb = "would write" if dry_run else "wrote"
    lines = [f"{verb} {printable(path)}" for path in targets.values()]
    if copies:
        lines.append(
            f"{'would copy' if dry_run else 'copied'} {count(len(copies), 'image')} to {printable(out / 'images')}"
        )
    if dry_run:
        return lines
    make_folder(out)
    for source, target in copies.items():
        make_folder(target.parent, below=out)
        atomic_copy(source, target, replace=overwrite)
    make_folder(report.parent, below=out)
    for split, path in targets.items():
        atomic_write(path, json.dumps(found.tree(split)) + "\n")
    atomic_write(report, found.to_text() + "\n")
    return [*lines, f"wrote this report to {printable(report)}"]


def _require_no_remainder(splits: Sequence[str], out: Path) -> None:
    """Raise ``DataError`` where ``data split`` has taken val out of an earlier import whose train is written again."""
    if "train" not in splits or "val" in splits:
        return
    names = [annotation_file("val"), annotation_file("train_all")]
    left = [name for name in names if (out / name).exists()]
    if left:
        raise DataError(
            f"{out} has {' and '.join(left)} from an earlier split, with images of the train that would be written "
            f"again; remove {'it' if len(left) == 1 else 'them'}, or choose another --out"
        )


def require_new(paths: Iterable[Path], folder: Path, *, overwrite: bool = False) -> None:
    """Raise ``DataError`` naming a file of ``paths`` that exists already, unless ``overwrite`` is set.

    Raises ``OutputError`` for a symbolic link below ``folder`` whether it is or not.
    """
    for path in paths:
        refuse_link(path, below=folder)
        if path.exists() and not overwrite:
            raise DataError(f"{path} exists already; remove it or give --overwrite")


def _copies(found: ImportedFolder, out: Path, overwrite: bool) -> dict[Path, Path]:
    """Return where images are copied to, without those that are there already. Raises as :func:`write_import` does."""
    if out.resolve() == found.folder.resolve():
        return {}
    copies = {}
    originals = identities(image.path for image in found.images)
    for image in found.images:
        target = out / "images" / image.path.relative_to(found.folder)
        if not target.is_symlink() and target.is_file() and filecmp.cmp(image.path, target, shallow=False):
            continue
        require_new([target], out, overwrite=overwrite)
        if target.exists() and identity(target) in originals:
            raise DataError(f"{target} is one of the images to import, and is not replaced; choose another --out")
        copies[image.path] = target
    return copies


def require_folder(folder: Path) -> None:
    """Raise ``DataError`` where ``folder`` is not a folder, naming the most similar path."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}{nearest(folder)}")


def image_files(folder: Path) -> list[Path]:
    """Return the image files below ``folder``, by their endings, sorted; see :func:`files_below`."""
    return files_below(folder, IMAGE_SUFFIXES)


def files_below(folder: Path, suffixes: str | tuple[str, ...] = "") -> list[Path]:
    """Return the files below ``folder`` with these endings, in either case, sorted; hidden ones are skipped.

    Hidden are files and folders that begin with a dot: of an editor, of Jupyter, of macOS. Links to folders are
    followed, each target once, so that links in a circle end. Raises ``DataError`` for a name that is not UTF-8,
    because it cannot be written into an annotation file; without ``suffixes``, the caller must look
    (:func:`require_names`).
    """
    found: list[Path] = []
    followed = {folder.resolve()}
    for parent, folders, names in os.walk(folder, followlinks=True):
        kept = []
        for name in sorted(folders):
            path = Path(parent, name)
            if name.startswith(".") or (path.is_symlink() and path.resolve() in followed):
                continue
            if path.is_symlink():
                followed.add(path.resolve())
            kept.append(name)
        folders[:] = kept
        found += [Path(parent, name) for name in names if name.lower().endswith(suffixes) and not name.startswith(".")]
    if suffixes:
        require_names(found)
    return sorted(found)


def require_names(paths: Iterable[Path]) -> None:
    """Raise ``DataError`` for a path that is not valid UTF-8, which neither JSON nor a terminal can show."""
    for path in paths:
        if not is_utf8(str(path)):
            raise DataError(f"the file name {str(path)!a} is not valid UTF-8; rename the file")


def split_of_folder(path: Path, folder: Path) -> str:
    """Return the split named by a folder between ``folder`` and the file ``path``, or 'all'."""
    parts = reversed(path.relative_to(folder).parent.parts)
    return next((split for part in parts if (split := split_named(part)) is not None), "all")


def split_named(word: str) -> str | None:
    """Return the split that a folder or a list with this name stands for, in any case; None if it names none.

    A year may follow, as in ``train2017``.
    """
    return _SPLIT_FOLDERS.get(re.sub(r"[-_]?(19|20)[0-9]{2}$", "", word.lower()))


def clipped(
    box: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[tuple[float, float, float, float], float]:
    """Return a box clipped to an image of ``size`` (height, width), and how far it extended beyond the edge."""
    height, width = size
    x1, y1, x2, y2 = box
    over = max(-x1, -y1, x2 - width, y2 - height, 0.0)
    return (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))), over


def finite_number(text: str) -> float:
    """Return the number that a text is, or NaN if it is none or not finite."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def check_classes(wanted: Sequence[str], found: Iterable[str]) -> None:
    """Raise ``DataError`` for a wanted class that does not occur, naming similar ones that do."""
    there = sorted(set(found))
    for name in wanted:
        if name not in there:
            raise DataError(f"--classes has {name!r}, which does not occur in the folder{did_you_mean(name, there)}")
