"""Pascal VOC: one xml file per image, read safely; 1-based pixel indices become edges.

VOC (Everingham et al., "The PASCAL Visual Object Classes Challenge", 2010, and its development kit) counts pixels from
1, and a box is given by its first and its last pixel: with ``xmin`` 1 and ``xmax`` 10 it is ten pixels wide. In edges
that is x from 0 to 10. Several annotation tools write edges into the same tags; ``boxes="edges"`` takes the numbers
unchanged. The file does not say which convention it uses. The user chooses, and the report shows hints of a wrong
choice.

The xml files are those in ``Annotations``, or else all below the folder. Splits come from the lists in
``ImageSets/Main`` if there are any, or else from folder names (train, valid, test); otherwise there is one, 'all'.

Files are not trusted. Entities and document types are refused (an entity may expand to gigabytes or read other files),
and so are files above :data:`LARGEST_FILE` and nesting deeper than :data:`DEEPEST`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from cornernet.console import count
from cornernet.data.dataset import Dropped
from cornernet.data.formats.importing import (
    IMAGE_SUFFIXES,
    ImportedBox,
    ImportedFolder,
    ImportedImage,
    check_classes,
    clipped,
    require_folder,
    split_of_folder,
)
from cornernet.data.images import DataError, read_image
from cornernet.files import read_regular

__all__ = ["DEEPEST", "LARGEST_FILE", "BoxConvention", "Treatment", "parse_xml", "read_voc"]

LARGEST_FILE = 16 * 2**20
"""Bytes of an xml file: a hundred times the size of one with a thousand boxes."""
DEEPEST = 32
"""Nesting of tags; VOC needs five."""
_NAME = "the name of the class"

Treatment: TypeAlias = Literal["keep", "ignore", "drop"]
"""What happens to a flagged object: used like any other; written as a crowd, which neither training nor evaluation
counts; or dropped."""
BoxConvention: TypeAlias = Literal["one-based", "edges"]


def read_voc(
    folder: Path,
    *,
    boxes: BoxConvention = "one-based",
    difficult: Treatment = "keep",
    truncated: Treatment = "keep",
    classes: Sequence[str] = (),
) -> ImportedFolder:
    """Read a Pascal VOC folder.

    ``classes`` limits the result to these, in this order; by default all classes found are used, sorted by name. Raises
    ``DataError``, naming file, field and fix, where a file is not in VOC format. Unusable objects and missing images
    are listed as dropped.
    """
    require_folder(folder)
    reader = _Reader(folder, boxes, {"difficult": difficult, "truncated": truncated}, tuple(classes))
    files = _xml_files(folder)
    splits = _listed_splits(folder)
    images = [image for path in files if (image := reader.image(path, _split(path, folder, splits))) is not None]
    check_classes(classes, reader.names)
    listed = {stem for stems in splits.values() for stem in stems} - {path.stem for path in files}
    dropped = [Dropped(name, None, "it is listed in ImageSets/Main but has no xml file") for name in sorted(listed)]
    return ImportedFolder(
        folder=folder,
        form="Pascal VOC",
        classes=tuple(classes) or tuple(sorted(reader.names)),
        images=tuple(images),
        dropped=(*reader.dropped, *dropped),
        notes=reader.notes(),
        options={"boxes": boxes, "difficult": difficult, "truncated": truncated},
    )


# ------------------------------------------------------------------------------------------- folders


def _xml_files(folder: Path) -> list[Path]:
    """Return the xml files of a folder, sorted."""
    places = [folder / "Annotations", folder / "annotations"]
    found = [path for place in places for path in place.glob("*.xml")]
    found = found or [path for path in folder.rglob("*.xml") if not path.name.startswith(".")]
    if not found:
        raise DataError(f"there is no xml file in {folder}: looked for Annotations/*.xml, then for **/*.xml")
    return sorted(set(found))


def _listed_splits(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the file stems that ImageSets/Main lists for each split; without train, trainval takes its place."""
    place = folder / "ImageSets" / "Main"
    names = [name for name in ("train", "val", "test") if (place / f"{name}.txt").is_file()]
    if "train" not in names and (place / "trainval.txt").is_file():
        names.append("trainval")
    splits = {}
    for name in names:
        path = place / f"{name}.txt"
        try:
            rows = read_regular(path, LARGEST_FILE, "a list of images").decode("utf-8", "replace").splitlines()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        splits[name] = tuple(row.split()[0] for row in rows if row.strip())
    twice = set()
    for name, stems in splits.items():
        for other, others in splits.items():
            if name < other:
                twice |= {(stem, name, other) for stem in set(stems) & set(others)}
    if twice:
        stem, name, other = min(twice)
        raise DataError(
            f"{place}: {stem} is listed in {name}.txt and in {other}.txt; an image belongs to one split: correct one "
            "of the lists"
        )
    return splits


def _split(path: Path, folder: Path, splits: dict[str, tuple[str, ...]]) -> str | None:
    """Return the split of an xml file; None if there are lists but it is in none of them."""
    if not splits:
        return split_of_folder(path, folder)
    return next((name for name, stems in splits.items() if path.stem in stems), None)


# --------------------------------------------------------------------------------------------- files


def parse_xml(path: Path) -> Element:
    """Return the root of an xml file.

    Raises ``DataError``, naming the file and the problem, for damaged files, and for entities, document types and deep
    nesting, which are refused.
    """
    try:
        content = read_regular(path, LARGEST_FILE, "an annotation file")
    except OSError as error:
        raise DataError(f"cannot read the annotations {path}: {error.strerror}") from error
    builder, depth = TreeBuilder(), 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise DataError(f"{path} nests tags more than {DEEPEST} deep; VOC needs five")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise DataError(
            f"{path} declares a document type or an entity, which annotations do not need: remove the "
            "<!DOCTYPE ...> part"
        )

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not valid xml: {error}; correct or remove it") from error
    return builder.close()


class _Reader:
    """Reads a folder; collects what was dropped and what the notes report."""

    def __init__(
        self, folder: Path, boxes: BoxConvention, treatments: dict[str, Treatment], classes: tuple[str, ...]
    ) -> None:
        self.folder, self.boxes, self.treatments, self.classes = folder, boxes, treatments, classes
        self.dropped: list[Dropped] = []
        self.names: set[str] = set()
        self.flagged = dict.fromkeys(treatments, 0)
        self.at_zero = self.over = self.measured = 0
        self.taken: dict[Path, Path] = {}
        self._listings: dict[Path, frozenset[str]] = {}

    def notes(self) -> tuple[str, ...]:
        """Return notes on how the files were read."""
        convention = {
            "one-based": "boxes are given by their first and last pixel, counted from 1: x from xmin - 1 to xmax",
            "edges": "boxes are given by their edges: x from xmin to xmax",
        }
        notes = [f"{convention[self.boxes]} (--boxes {self.boxes})"]
        verbs = {
            "keep": "kept",
            "ignore": "ignored in training and evaluation",
            "drop": "dropped",
        }
        for flag, number in self.flagged.items():
            if number:
                notes.append(f"{count(number, f'{flag} object')}: {verbs[self.treatments[flag]]} (--{flag})")
        if self.at_zero:
            notes.append(
                f"{count(self.at_zero, 'box', 'boxes')} from pixel 0, which does not exist if pixels are counted "
                "from 1: the tool that wrote the files may use edges; if so, give --boxes edges"
            )
        if self.over:
            notes.append(
                f"{count(self.over, 'box', 'boxes')} beyond the edge of the image by more than a pixel: clipped"
            )
        if self.measured:
            notes.append(f"{count(self.measured, 'file')} without the size of the image: taken from the image")
        return tuple(notes)

    def image(self, path: Path, split: str | None) -> ImportedImage | None:
        """Return the image of an xml file with its objects, or None if it was dropped."""
        shown = path.relative_to(self.folder).as_posix()
        root = parse_xml(path)
        if root.tag != "annotation":
            raise DataError(f"{path}: the outermost tag is <{root.tag}>; in VOC it is <annotation>")
        if split is None:
            self.dropped.append(Dropped(shown, None, "it is in no list of ImageSets/Main"))
            return None
        image_path = self._image_path(root, path)
        if image_path is None:
            name = root.findtext("filename", "").strip() or f"{path.stem}.*"
            self.dropped.append(Dropped(shown, None, f"its image is missing (the first is {name})"))
            return None
        if image_path in self.taken:
            raise DataError(f"{self.taken[image_path]} and {path} both annotate {image_path}; remove one of them")
        self.taken[image_path] = path
        size = self._size(root, path, image_path)
        objects = []
        for number, node in enumerate(root.findall("object"), start=1):
            item = self._object(node, number, path, size)
            if item is not None:
                objects.append(item)
        return ImportedImage(image_path, size, tuple(objects), split)

    def _image_path(self, root: Element, path: Path) -> Path | None:
        """Return the image file: named by the tag <filename>, or else like the xml file."""
        stated = re.split(r"[\\/]", root.findtext("filename", "").strip())[-1]
        names = [stated] if stated else []
        names += [stem + suffix for stem in (path.stem, Path(stated).stem) for suffix in IMAGE_SUFFIXES if stem]
        names += [name[: -len(Path(name).suffix)] + Path(name).suffix.upper() for name in names if Path(name).suffix]
        beside = [path.parent.parent / "JPEGImages", path.parent.parent / "images", path.parent]
        places = [self.folder / "JPEGImages", *beside, self.folder / "images", self.folder]
        for place in dict.fromkeys(places):
            there = self._listing(place)
            for name in names:
                if name in there and name.lower().endswith(IMAGE_SUFFIXES):
                    return place / name
        return None

    def _listing(self, place: Path) -> frozenset[str]:
        if place not in self._listings:
            inside = place.is_dir() and place.resolve().is_relative_to(self.folder.resolve())
            self._listings[place] = frozenset(entry.name for entry in place.iterdir()) if inside else frozenset()
        return self._listings[place]

    def _size(self, root: Element, path: Path, image_path: Path) -> tuple[int, int]:
        """Return (height, width) from the file, or from the image if the file states none."""
        texts = [(root.findtext(f"size/{side}") or "").strip() for side in ("height", "width")]
        if all(text in ("", "0") for text in texts):
            self.measured += 1
            height, width = read_image(image_path).shape[:2]
            return height, width
        for side, text in zip(("height", "width"), texts, strict=True):
            if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) == 0:
                raise DataError(
                    f"{path}: size.{side} is {text!r}; write the image's {side} in pixels, or remove <size>"
                )
        return int(texts[0]), int(texts[1])

    def _object(self, node: Element, number: int, path: Path, size: tuple[int, int]) -> ImportedBox | None:
        where = f"{path}: object {number}"
        name = (node.findtext("name") or "").strip()
        if not name:
            raise DataError(f"{where} has no <name>; write {_NAME}, or remove the object")
        bounds = node.find("bndbox")
        if bounds is None:
            raise DataError(f"{where} ({name}) has no <bndbox>; write one with xmin, ymin, xmax and ymax")
        x1, y1, x2, y2 = (_number(bounds, tag, where) for tag in ("xmin", "ymin", "xmax", "ymax"))
        flags = {flag: _flag(node, flag, where) for flag in self.treatments}
        self.names.add(name)
        reason = ""
        if self.classes and name not in self.classes:
            reason = f"its class {name} is not among --classes"
        for flag, raised in flags.items():
            self.flagged[flag] += raised
            if raised and self.treatments[flag] == "drop":
                reason = reason or f"it is {flag} (--{flag} drop)"
        if self.boxes == "one-based":
            self.at_zero += min(x1, y1) == 0
            x1, y1 = x1 - 1, y1 - 1
        if not reason and not (x2 > x1 and y2 > y1):
            reason = "its box has no width or no height"
        box, over = clipped((x1, y1, x2, y2), size)
        if not reason and not (box[2] > box[0] and box[3] > box[1]):
            reason = "its box lies outside the image"
        if reason:
            shown = path.relative_to(self.folder).as_posix()
            self.dropped.append(Dropped(f"{shown} object {number}", None, reason))
            return None
        self.over += over > 1
        ignored = any(raised and self.treatments[flag] == "ignore" for flag, raised in flags.items())
        return ImportedBox(box, name, ignored, {flag: int(raised) for flag, raised in flags.items()})


def _number(bounds: Element, tag: str, where: str) -> float:
    text = (bounds.findtext(tag) or "").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: bndbox.{tag} is {text!r}; write a number of pixels")
    return value


def _flag(node: Element, flag: str, where: str) -> bool:
    text = (node.findtext(flag) or "0").strip().lower()
    if text in ("0", "false", "unspecified", ""):
        return False
    if text in ("1", "true"):
        return True
    raise DataError(f"{where}: {flag} is {text!r}; write 0 or 1")
