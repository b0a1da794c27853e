"""Pascal VOC: an xml file a picture, read safely, with 1-based pixels made into edges.

VOC (Everingham et al., "The PASCAL Visual Object Classes Challenge", 2010, and its development kit) counts pixels from
1 and names the first and the last pixel of a box, both inside it: ``xmin`` 1 and ``xmax`` 10 are ten pixels wide. As
edges that is x from 0 to 10. Several annotation tools write edges into the same tags; ``boxes="edges"`` takes the
numbers as they stand. Nothing in the file says which it is: the choice is the user's, and the report says what hints
at a wrong one.

The xml files are those of ``Annotations``, else all below the folder. Splits are the lists of ``ImageSets/Main``
where there are any, else they follow from the names of folders (train, valid, test), else there is one, 'all'.

A file comes from anywhere: entities and document types are refused (an entity may expand to gigabytes or read other
files), and so are files above :data:`LARGEST_FILE` and nesting deeper than :data:`DEEPEST`.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

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

__all__ = ["DEEPEST", "LARGEST_FILE", "BoxConvention", "Treatment", "parse_xml", "read_voc"]

LARGEST_FILE = 16 * 2**20
"""Bytes of an xml file: a hundred times one with a thousand boxes."""
DEEPEST = 32
"""Tags within tags; VOC needs five."""
_NAME = "the name of the class"

Treatment: TypeAlias = Literal["keep", "ignore", "drop"]
"""What becomes of a flagged object: used as any other; a crowd, which neither training nor evaluation counts; gone."""
BoxConvention: TypeAlias = Literal["one-based", "edges"]


def read_voc(
    folder: Path,
    *,
    boxes: BoxConvention = "one-based",
    difficult: Treatment = "keep",
    truncated: Treatment = "keep",
    classes: Sequence[str] = (),
) -> ImportedFolder:
    """Read a folder in VOC form.

    ``classes`` limits the result to these, in this order; without it the classes are those found, by name. Raises
    ``DataError`` naming file, field and fix where a file is not VOC's form; objects that cannot be used and pictures
    that are not there are listed as dropped.
    """
    require_folder(folder)
    reader = _Reader(folder, boxes, {"difficult": difficult, "truncated": truncated}, tuple(classes))
    files = _xml_files(folder)
    splits = _listed_splits(folder)
    images = [image for path in files if (image := reader.image(path, _split(path, folder, splits))) is not None]
    check_classes(classes, reader.names)
    listed = {stem for stems in splits.values() for stem in stems} - {path.stem for path in files}
    dropped = [Dropped(name, None, "ImageSets/Main lists it and it has no xml file") for name in sorted(listed)]
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
    """The xml files of a folder, sorted."""
    places = [folder / "Annotations", folder / "annotations"]
    found = [path for place in places for path in place.glob("*.xml")]
    found = found or [path for path in folder.rglob("*.xml") if not path.name.startswith(".")]
    if not found:
        raise DataError(f"there is no xml file in {folder}: looked for Annotations/*.xml, then for **/*.xml")
    return sorted(set(found))


def _listed_splits(folder: Path) -> dict[str, tuple[str, ...]]:
    """The stems that ImageSets/Main lists by split; trainval stands for train where that is not there."""
    place = folder / "ImageSets" / "Main"
    names = [name for name in ("train", "val", "test") if (place / f"{name}.txt").is_file()]
    if "train" not in names and (place / "trainval.txt").is_file():
        names.append("trainval")
    splits = {}
    for name in names:
        if (place / f"{name}.txt").stat().st_size > LARGEST_FILE:
            raise DataError(f"{place / name}.txt has more than {LARGEST_FILE >> 20} MiB; is it another file?")
        rows = (place / f"{name}.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        splits[name] = tuple(row.split()[0] for row in rows if row.strip())
    twice = set()
    for name, stems in splits.items():
        for other, others in splits.items():
            if name < other:
                twice |= {(stem, name, other) for stem in set(stems) & set(others)}
    if twice:
        stem, name, other = min(twice)
        raise DataError(
            f"{place}: {stem} is listed in {name}.txt and in {other}.txt; a picture belongs to one split: correct one"
        )
    return splits


def _split(path: Path, folder: Path, splits: dict[str, tuple[str, ...]]) -> str | None:
    """The split of an xml file; None where there are lists and it is in none."""
    if not splits:
        return split_of_folder(path, folder)
    return next((name for name, stems in splits.items() if path.stem in stems), None)


# --------------------------------------------------------------------------------------------- files


def parse_xml(path: Path) -> Element:
    """Return the root of an xml file, read without entities, document types or deep nesting.

    Raises ``DataError`` naming the file and what is wrong in it.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"cannot read the annotations {path}: it is a folder, a device or a pipe; remove it")
        if found.st_size > LARGEST_FILE:
            raise DataError(
                f"{path} has {found.st_size / 2**20:.0f} MiB; annotations of one picture stay below "
                f"{LARGEST_FILE >> 20} MiB: is it another file?"
            )
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the annotations {path}: {error.strerror}") from error
    builder, depth = TreeBuilder(), 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise DataError(f"{path} nests tags more than {DEEPEST} deep; VOC's form needs five")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise DataError(
            f"{path} declares a document type or an entity, which annotations need not: remove the <!DOCTYPE ...> part"
        )

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # LookupError: an encoding that nobody knows
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not whole xml: {error}; write it anew or remove it") from error
    return builder.close()


class _Reader:
    """A folder being read: what was dropped and met on the way."""

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
        """What is worth knowing about how the files were read."""
        convention = {
            "one-based": "boxes name their first and last pixel, counted from 1: x from xmin - 1 to xmax",
            "edges": "boxes are taken as edges: x from xmin to xmax",
        }
        notes = [f"{convention[self.boxes]} (--boxes {self.boxes})"]
        verbs = {"keep": "kept", "ignore": "written as crowds, which nothing counts", "drop": "dropped"}
        for flag, count in self.flagged.items():
            if count:
                notes.append(f"{count} objects are {flag}: {verbs[self.treatments[flag]]} (--{flag})")
        if self.at_zero:
            notes.append(
                f"{self.at_zero} boxes begin at pixel 0, which pixels counted from 1 do not have: perhaps the tool "
                "that wrote them counts edges; then give --boxes edges"
            )
        if self.over:
            notes.append(f"{self.over} boxes reach over the edge of their picture by more than a pixel: clipped")
        if self.measured:
            notes.append(f"{self.measured} files state no size of the picture: taken from the picture")
        return tuple(notes)

    def image(self, path: Path, split: str | None) -> ImportedImage | None:
        """Return the picture of an xml file with its objects, or None where it was dropped."""
        shown = path.relative_to(self.folder).as_posix()
        root = parse_xml(path)
        if root.tag != "annotation":
            raise DataError(f"{path}: the outermost tag is <{root.tag}>; VOC's is <annotation>")
        if split is None:
            self.dropped.append(Dropped(shown, None, "no list in ImageSets/Main names it"))
            return None
        picture = self._picture(root, path)
        if picture is None:
            name = root.findtext("filename", "").strip() or f"{path.stem}.*"
            self.dropped.append(Dropped(shown, None, f"its picture is missing, {name} for the first of them"))
            return None
        if picture in self.taken:
            raise DataError(f"{self.taken[picture]} and {path} both annotate {picture}; remove one of them")
        self.taken[picture] = path
        size = self._size(root, path, picture)
        objects = []
        for number, node in enumerate(root.findall("object"), start=1):
            item = self._object(node, number, path, size)
            if item is not None:
                objects.append(item)
        return ImportedImage(picture, size, tuple(objects), split)

    def _picture(self, root: Element, path: Path) -> Path | None:
        """The picture's file: by the tag <filename>, else by the xml file's own name."""
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

    def _size(self, root: Element, path: Path, picture: Path) -> tuple[int, int]:
        """(height, width) as the file states it, or that of the picture where it states none."""
        texts = [(root.findtext(f"size/{side}") or "").strip() for side in ("height", "width")]
        if all(text in ("", "0") for text in texts):
            self.measured += 1
            height, width = read_image(picture).shape[:2]
            return height, width
        for side, text in zip(("height", "width"), texts, strict=True):
            if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) == 0:
                raise DataError(
                    f"{path}: size.{side} is {text!r}; write the picture's {side} in pixels, or remove <size>"
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
            reason = "its box lies outside the picture"
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
