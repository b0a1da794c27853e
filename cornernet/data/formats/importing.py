"""What importers of other formats share: what they found, the COCO files they write, and the report of both.

Boxes become COCO's [x, y, width, height] in pixels, measured between edges: the picture's left edge is 0, its right
edge is its width. Pictures are left where they are, or copied where another folder is written to.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cornernet.config.checks import did_you_mean
from cornernet.data.dataset import Dropped
from cornernet.data.formats.check import by_reason
from cornernet.data.images import DataError
from cornernet.files import atomic_write, nearest

__all__ = [
    "IMAGE_SUFFIXES",
    "ImportedBox",
    "ImportedFolder",
    "ImportedImage",
    "annotation_file",
    "check_classes",
    "clipped",
    "image_files",
    "require_folder",
    "require_names",
    "require_new",
    "split_of_folder",
    "write_import",
]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
"""Endings, in lower case, of what is taken for a picture."""
_SPLIT_FOLDERS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
_SPLIT_FOLDERS |= {"test": "test", "testing": "test"}


@dataclass(frozen=True)
class ImportedBox:
    """One object: ``box`` x1 y1 x2 y2 in pixels between edges, its class, and what else is written with it."""

    box: tuple[float, float, float, float]
    name: str
    ignored: bool = False
    """Written as a crowd: left out of training, and neither right nor wrong in evaluation."""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ImportedImage:
    """One picture with its objects."""

    path: Path
    size: tuple[int, int]
    """(height, width)."""
    boxes: tuple[ImportedBox, ...]
    split: str


@dataclass(frozen=True)
class ImportedFolder:
    """What an importer read."""

    folder: Path
    form: str
    """The format's name, for people."""
    classes: tuple[str, ...]
    images: tuple[ImportedImage, ...]
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    """The choices it was read with, written into the files."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits found, train first; 'all' where the folder divides nothing."""
        found = {image.split for image in self.images}
        known = [split for split in ("train", "val", "test") if split in found]
        return (*known, *sorted(found - set(known)))

    def tree(self, split: str) -> dict[str, Any]:
        """Return one split as COCO's JSON. Image ids count over all splits, so that none occurs in two."""
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
            "info": {"description": f"{self.folder.resolve().name} {split}, from {self.form}", **self.options},
            "images": images,
            "categories": [{"id": number, "name": name} for name, number in categories.items()],
            "annotations": annotations,
        }

    def to_text(self) -> str:
        """Return the report: splits, classes, what was dropped and why, and what else is worth knowing."""
        lines = [f"{self.folder}: {self.form}, {len(self.images)} images"]
        for split in self.splits:
            images = [image for image in self.images if image.split == split]
            boxes = sum(len(image.boxes) for image in images)
            empty = sum(not image.boxes for image in images)
            lines.append(f"  {split}: {len(images)} images ({empty} without objects), {boxes} boxes")
        counts = Counter(item.name for image in self.images for item in image.boxes)
        lines.append(f"  classes: {', '.join(f'{name} {counts[name]}' for name in self.classes)}")
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  {line}" for line in by_reason("dropped", self.dropped)]
        if not self.dropped:
            lines.append("  dropped: nothing")
        return "\n".join(lines)


def annotation_file(split: str) -> str:
    """Return the path of a split's annotation file below its folder."""
    return f"annotations/instances_{split}.json"


def write_import(found: ImportedFolder, out: Path, *, overwrite: bool = False, dry_run: bool = False) -> list[str]:
    """Write an annotation file for every split below ``out``, and the report beside them; return lines that say so.

    Where ``out`` is not the folder that was read, its pictures are copied to ``out/images``. Each file is written whole
    or not at all. ``dry_run`` writes nothing and says what would be. Raises ``DataError`` where a file is there
    already and ``overwrite`` is not set.
    """
    if not found.images:
        raise DataError(f"nothing is left of {found.folder}:\n{found.to_text()}")
    targets = {split: out / annotation_file(split) for split in found.splits}
    report = out / "annotations" / "import.txt"
    if not overwrite:
        require_new(targets.values())
    copies = _copies(found, out)
    verb = "would write" if dry_run else "wrote"
    lines = [f"{verb} {path}" for path in targets.values()]
    if copies:
        lines.append(f"{'would copy' if dry_run else 'copied'} {len(copies)} images to {out / 'images'}")
    if dry_run:
        return lines
    for source, target in copies.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(source, target)
    report.parent.mkdir(parents=True, exist_ok=True)
    for split, path in targets.items():
        atomic_write(path, json.dumps(found.tree(split)) + "\n")
    atomic_write(report, found.to_text() + "\n")
    return [*lines, f"wrote this report to {report}"]


def require_new(paths: Iterable[Path]) -> None:
    """Raise ``DataError`` that names a file of ``paths`` which is there already."""
    there = [path for path in paths if path.exists()]
    if there:
        raise DataError(f"{there[0]} is there already; remove it, or give --overwrite")


def _copies(found: ImportedFolder, out: Path) -> dict[Path, Path]:
    if out.resolve() == found.folder.resolve():
        return {}
    return {image.path: out / "images" / image.path.relative_to(found.folder) for image in found.images}


def _copy(source: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    shutil.copyfile(source, partial)
    partial.replace(target)


def require_folder(folder: Path) -> None:
    """Raise ``DataError`` where ``folder`` is none, naming the nearest that is there."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}{nearest(folder)}")


def image_files(folder: Path) -> list[Path]:
    """Return the pictures below ``folder`` by their endings, sorted; hidden files and folders are passed over.

    Raises ``DataError`` for a name that is not UTF-8: no file that is written of it could say it.
    """
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(parent, name) for name in names if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        ]
    require_names(found)
    return sorted(found)


def require_names(paths: Iterable[Path]) -> None:
    """Raise ``DataError`` for a path that is not text in UTF-8, which neither JSON nor a terminal can show."""
    for path in paths:
        if not os.fsencode(path).isascii() and any("\ud800" <= letter <= "\udfff" for letter in str(path)):
            raise DataError(f"the name of the file {str(path)!a} is not text in UTF-8; rename it")


def split_of_folder(path: Path, folder: Path) -> str:
    """Return the split that the names of the folders between ``folder`` and the file ``path`` speak of, or 'all'."""
    for part in reversed(path.relative_to(folder).parent.parts):
        if part.lower() in _SPLIT_FOLDERS:
            return _SPLIT_FOLDERS[part.lower()]
    return "all"


def clipped(
    box: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[tuple[float, float, float, float], float]:
    """Return a box clipped to a picture of ``size`` (height, width), and how far it reached over the edge."""
    height, width = size
    x1, y1, x2, y2 = box
    over = max(-x1, -y1, x2 - width, y2 - height, 0.0)
    return (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))), over


def check_classes(wanted: Sequence[str], found: Iterable[str]) -> None:
    """Raise ``DataError`` for a class that was asked for and is not in the data, naming what is."""
    there = sorted(set(found))
    for name in wanted:
        if name not in there:
            raise DataError(f"--classes names {name!r}, which the folder does not have{did_you_mean(name, there)}")
