"""Pascal VOC: one xml file per image, read safely; 1-based pixel indices become edges.

VOC (Everingham et al., "The PASCAL Visual Object Classes Challenge", 2010, and its development kit) counts pixels from
1, and a box is given by its first and its last pixel: with ``xmin`` 1 and ``xmax`` 10 it is ten pixels wide. In edges
that is x from 0 to 10. Several annotation tools write edges into the same tags; ``boxes="edges"`` takes the numbers
unchanged. The file does not say which convention it uses. The user chooses, and the report shows hints of a wrong
choice.

The xml files are those below folders named ``Annotations``, or else all below the folder; hidden files and folders are
skipped. ``cornernet.data.formats.gathering`` says which picture belongs to a file. The size is the picture's, whatever
``<size>`` says. Splits come from the lists in ``ImageSets/Main`` (train, val, test, also ``Valid.txt``), with several
years below the folder from those of each; otherwise from folder names; otherwise there is one, 'all'.

Files are not trusted. Entities and document types are refused (an entity may expand to gigabytes or read other files),
and so are files above :data:`LARGEST_FILE` and nesting deeper than :data:`DEEPEST`.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from cornernet.config import Size
from cornernet.config.choices import BoxConvention, Treatment
from cornernet.console import count
from cornernet.data.dataset import Dropped
from cornernet.data.formats.gathering import (
    ANNOTATION_FOLDERS,
    PICTURE_FOLDERS,
    Box,
    Gathering,
    after,
    bounding_box,
    same_name,
    stem_of,
    turned_corners,
)
from cornernet.data.formats.importing import (
    ImportedBox,
    ImportedFolder,
    ImportedImage,
    files_below,
    finite_number,
    require_folder,
    split_named,
    split_of_folder,
)
from cornernet.data.images import DataError
from cornernet.files import read_regular

__all__ = ["DEEPEST", "LARGEST_FILE", "parse_xml", "read_voc"]

LARGEST_FILE = 16 * 2**20
"""Bytes of an xml file: a hundred times the size of one with a thousand boxes."""
DEEPEST = 32
"""Nesting of tags; VOC needs five."""
_NAME = "the name of the class"
_FLAGGED = re.compile(r"(.*\S)\s+(?:-1|0|1)").fullmatch


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
    files, elsewhere = _xml_files(folder)
    reader = _Reader(folder, boxes, {"difficult": difficult, "truncated": truncated}, tuple(classes))
    lists = [_Lists(place, files) for place in _list_folders(folder)]
    images = [image for path in files if (image := reader.image(path, _split(path, folder, lists))) is not None]
    missing = sorted({name for each in lists for name in each.missing})
    dropped = [Dropped(name, None, "it is listed in ImageSets/Main but has no xml file") for name in missing]
    notes = [*reader.notes(), *(note for each in lists for note in each.notes)]
    notes += reader.gathering.unread(elsewhere, "xml file", "outside of Annotations: not read")
    left = reader.gathering.unannotated({path.stem for path in files})
    notes += reader.gathering.unread(left, "image", "without an xml file: left out")
    options = {"boxes": boxes, "difficult": difficult, "truncated": truncated}
    return reader.gathering.imported("Pascal VOC", images, notes, dropped=dropped, options=options)


# ------------------------------------------------------------------------------------------- folders


def _xml_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the xml files to read, sorted, and those that are not read because they are outside of Annotations."""
    found = files_below(folder, ".xml")
    if not found:
        raise DataError(f"there is no xml file in {folder}: looked for Annotations/*.xml, then for **/*.xml")
    inside = [path for path in found if _in_annotations(path, folder)]
    return (inside, [path for path in found if not _in_annotations(path, folder)]) if inside else (found, [])


def _in_annotations(path: Path, folder: Path) -> bool:
    return "annotations" in (part.lower() for part in path.relative_to(folder).parent.parts)


def _list_folders(folder: Path) -> list[Path]:
    """Return the folders with lists below ``folder``: ImageSets/Main, or else ImageSets itself."""
    places = sorted({path.parent for path in files_below(folder, ".txt")})
    main = [place for place in places if _names(place, folder)[-2:] == ("imagesets", "main")]
    sets = [place for place in places if _names(place, folder)[-1:] == ("imagesets",)]
    return main + [place for place in sets if not any(other.parent == place for other in main)]


def _names(place: Path, folder: Path) -> tuple[str, ...]:
    return tuple(part.lower() for part in place.relative_to(folder).parts)


class _Lists:
    """The lists of one folder ImageSets/Main, which concern the xml files beside and below ImageSets."""

    def __init__(self, place: Path, files: Sequence[Path]) -> None:
        self.place = place
        self.root = next(parent for parent in (place, *place.parents) if parent.name.lower() == "imagesets").parent
        self.missing: list[str] = []
        """Names that are listed and have no xml file."""
        self.notes: list[str] = []
        self._files: dict[str, list[Path]] = defaultdict(list)
        for path in files:
            if path.is_relative_to(self.root):
                self._files[same_name(path.stem)].append(path)
        self._splits = self._read()

    def __bool__(self) -> bool:
        """Return whether there is a list of a split."""
        return bool(self._splits)

    def split(self, path: Path) -> str | None:
        """Return the split of an xml file; None if it is in no list."""
        return next((split for split, files in self._splits.items() if path in files), None)

    def _read(self) -> dict[str, set[Path]]:
        lists: dict[str, Path] = {}
        unused = []
        for path in sorted(path for path in self.place.iterdir() if path.name.lower().endswith(".txt")):
            split = "trainval" if path.stem.lower() == "trainval" else split_named(path.stem)
            if path.name.startswith("."):
                continue
            if split is None:
                unused.append(path)
            elif split in lists:
                raise DataError(f"{lists[split]} and {path} are both lists of {split}; remove one of them")
            else:
                lists[split] = path
        if unused:
            names = ", ".join(path.name for path in unused[:3])
            self.notes.append(
                f"{count(len(unused), 'list')} of no split in {self.place}: not used ({names}"
                f"{', ...' if len(unused) > 3 else ''})"
            )
        if {"train", "val"} <= set(lists):
            lists.pop("trainval", None)
        order: list[str] = [split for split in ("train", "val", "test", "trainval") if split in lists]
        splits: dict[str, set[Path]] = {split: self._listed(lists[split]) for split in order}
        for at, split in enumerate(order):
            for other in order[at + 1 :]:
                self._require_apart(lists[split], splits[split], lists[other], splits[other])
        if "trainval" in splits and ("train" in splits or "val" in splits):
            both = splits.pop("trainval")
            known, new = ("train", "val") if "train" in splits else ("val", "train")
            if rest := both - splits[known]:
                splits[new] = rest
                self.notes.append(f"{new} is what {lists['trainval'].name} lists and {lists[known].name} does not")
        return splits

    def _require_apart(self, one: Path, files: set[Path], other: Path, others: set[Path]) -> None:
        if other.stem.lower() == "trainval" and split_named(one.stem) != "test":
            return  # it contains the others
        if twice := files & others:
            raise DataError(
                f"{self.place}: {min(twice).stem} is listed in {one.name} and in {other.name}; an image belongs to one "
                "split: correct one of the lists"
            )

    def _listed(self, path: Path) -> set[Path]:
        """Return the xml files that a list names: a name per line, which lists of a class follow with 1, -1 or 0."""
        try:
            rows = read_regular(path, LARGEST_FILE, "a list of images").decode("utf-8-sig", "replace").splitlines()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        found = set()
        for row in rows:
            name = row.strip()
            if not name:
                continue
            flagged = _FLAGGED(name)
            file = self._file(name, path) or (self._file(flagged[1], path) if flagged else None)
            if file is None:
                self.missing.append(flagged[1] if flagged else name)
            else:
                found.add(file)
        return found

    def _file(self, name: str, path: Path) -> Path | None:
        """Return the xml file with a listed name, which may be a path, with or without an ending."""
        *folders, last = [part for part in re.split(r"[\\/]+", name) if part not in ("", ".")] or [""]
        last = last[: -len(".xml")] if last.lower().endswith(".xml") else last
        files = self._files.get(same_name(last)) or self._files.get(same_name(stem_of(last)), [])
        own = {file: after(file.relative_to(self.root).parent.parts, ANNOTATION_FOLDERS) for file in files}
        wanted = after(folders, (*PICTURE_FOLDERS, *ANNOTATION_FOLDERS))
        exact = [file for file in files if own[file] == wanted] or [file for file in files if not own[file]]
        if not exact and not wanted:
            exact = files
        if len(exact) > 1:
            raise DataError(
                f"{path}: {name} may be {exact[0]} or {exact[1]}; write the folder, too, or rename one of them"
            )
        return exact[0] if exact else None


def _split(path: Path, folder: Path, lists: Sequence[_Lists]) -> str | None:
    """Return the split of an xml file; None if there are lists for it but it is in none of them."""
    near = [each for each in lists if each and path.is_relative_to(each.root)]
    if not near:
        return split_of_folder(path, folder)
    return max(near, key=lambda each: len(each.root.parts)).split(path)


# --------------------------------------------------------------------------------------------- files


def parse_xml(path: Path, largest: int | None = None) -> Element:
    """Return the root of an xml file of at most ``largest`` bytes, by default :data:`LARGEST_FILE`.

    Prefixes of namespaces are left out. Raises ``DataError``, naming the file and the problem, for damaged files, and
    for entities, document types and deep nesting, which are refused.
    """
    try:
        content = read_regular(path, largest or LARGEST_FILE, "an annotation file")
    except OSError as error:
        raise DataError(f"cannot read the annotations {path}: {error.strerror}") from error
    builder, depth = TreeBuilder(), 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        tag = tag.rpartition(":")[2]  # without the prefix of a namespace
        depth += 1
        if depth > DEEPEST:
            raise DataError(f"{path} nests tags more than {DEEPEST} deep; annotations need five")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag.rpartition(":")[2])

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
        self.folder, self.boxes, self.treatments = folder, boxes, treatments
        self.gathering = Gathering(folder, classes)
        self.flagged = dict.fromkeys(treatments, 0)
        self.at_zero = self.swapped = self.outlines = self.parts = 0

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
        if self.swapped:
            notes.append(
                f"{count(self.swapped, 'box', 'boxes')} with xmin above xmax or ymin above ymax: dropped; exchange the "
                "two in the files"
            )
        if self.outlines:
            notes.append(
                f"{count(self.outlines, 'object')} with a polygon or a rotated box alone: replaced by the bounding box"
            )
        if self.parts:
            notes.append(f"{count(self.parts, 'part')} of objects, with boxes of their own: left out")
        return (*notes, *self.gathering.notes())

    def image(self, path: Path, split: str | None) -> ImportedImage | None:
        """Return the image of an xml file with its objects, or None if it was dropped."""
        shown = self.gathering.shown(path)
        root = parse_xml(path)
        if root.tag != "annotation":
            if not _in_annotations(path, self.folder):
                self.gathering.drop(shown, f"its outermost tag is <{root.tag[:40]}>, not <annotation>")
                return None
            hint = "; read it with cornernet data import-cvat" if root.tag == "annotations" else ""
            raise DataError(f"{path}: the outermost tag is <{root.tag}>; in VOC it is <annotation>{hint}")
        if split is None:
            self.gathering.drop(shown, "it is in no list of ImageSets/Main")
            return None
        stated = root.findtext("filename", "").strip() or root.findtext("path", "").strip()
        picture = self.gathering.picture(stated, path.parent, path.stem)
        if picture is None:
            name = root.findtext("filename", "").strip() or f"{path.stem}.*"
            self.gathering.drop(shown, f"its image is missing (the first is {name})")
            return None
        self.gathering.take(picture, str(path))
        size = self.gathering.size(picture, _stated_size(root, path), shown)
        if size is None:
            return None
        objects = [self._object(node, at, path, size) for at, node in enumerate(root.findall("object"), start=1)]
        return ImportedImage(picture, size, tuple(item for item in objects if item is not None), split)

    def _object(self, node: Element, number: int, path: Path, size: Size) -> ImportedBox | None:
        where = f"{path}: object {number}"
        name = (node.findtext("name") or "").strip()
        if not name:
            raise DataError(f"{where} has no <name>; write {_NAME}, or remove the object")
        box = self._box(node, f"{where} ({name})", where)
        flags = {flag: _flag(node, flag, where) for flag in self.treatments}
        reason = "it is marked as deleted" if _flag(node, "deleted", where) else ""
        for flag, raised in flags.items():
            self.flagged[flag] += raised
            if raised and self.treatments[flag] == "drop":
                reason = reason or f"it is {flag} (--{flag} drop)"
        self.parts += sum(part.find("bndbox") is not None for part in node.findall("part"))
        inside = self.gathering.box(box, name, size, f"{self.gathering.shown(path)} object {number}", reason)
        if inside is None:
            return None
        ignored = any(raised and self.treatments[flag] == "ignore" for flag, raised in flags.items())
        return ImportedBox(inside, name, ignored, {flag: int(raised) for flag, raised in flags.items()})

    def _box(self, node: Element, shown: str, where: str) -> Box:
        """Return an object's box between edges."""
        bounds = node.find("bndbox")
        if bounds is None:
            outline = _outline(node, where)
            if not outline:
                raise DataError(f"{shown} has no <bndbox>; write one with xmin, ymin, xmax and ymax")
            self.outlines += 1
            return bounding_box(outline)
        x1, y1, x2, y2 = (_number(bounds, tag, where) for tag in ("xmin", "ymin", "xmax", "ymax"))
        first = 1 if self.boxes == "one-based" else 0
        self.swapped += x1 - first > x2 or y1 - first > y2
        self.at_zero += first == 1 and min(x1, y1) == 0
        return x1 - first, y1 - first, x2, y2


def _stated_size(root: Element, path: Path) -> Size | None:
    """Return (height, width) from the tag <size>, or None if it is missing or 0."""
    sides = []
    for side in ("height", "width"):
        text = (root.findtext(f"size/{side}") or "0").strip() or "0"
        if not re.fullmatch(r"[0-9]{1,6}(\.0*)?", text):
            raise DataError(
                f"{path}: size.{side} is {text[:40]!r}; write the image's {side} in pixels, or remove <size>"
            )
        sides.append(int(float(text)))
    return (sides[0], sides[1]) if all(sides) else None


def _outline(node: Element, where: str) -> list[tuple[float, float]]:
    """Return the corners of an object that has a polygon or a rotated box in place of a box; none if it has neither.

    Polygons are <x1><y1><x2><y2>..., or <pt> or <point> with <x> and <y>; rotated boxes are those of roLabelImg.
    """
    polygon, turned = node.find("polygon"), node.find("robndbox")
    if turned is not None:
        cx, cy, w, h, angle = (_number(turned, tag, where, "robndbox") for tag in ("cx", "cy", "w", "h", "angle"))
        return turned_corners((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), angle)
    if polygon is None:
        return []
    points = [*polygon.findall("pt"), *polygon.findall("point")]
    if points:
        pairs = [(point, "x", "y") for point in points]
    else:
        numbers = [tag.tag[1:] for tag in polygon if re.fullmatch(r"x[0-9]+", tag.tag)]
        pairs = [(polygon, f"x{number}", f"y{number}") for number in numbers]
    if len(pairs) < 2:
        raise DataError(f"{where}: its <polygon> has no corners; write a <bndbox>, or remove the object")
    return [(_number(at, x, where, "polygon"), _number(at, y, where, "polygon")) for at, x, y in pairs]


def _number(bounds: Element, tag: str, where: str, parent: str = "bndbox") -> float:
    text = (bounds.findtext(tag) or "").strip()
    value = finite_number(text)
    if math.isnan(value):
        raise DataError(f"{where}: {parent}.{tag} is {text[:40]!r}; write a number of pixels")
    return value


def _flag(node: Element, flag: str, where: str) -> bool:
    """Return whether an object is flagged; some tools write a fraction (of what is cut off) or a degree."""
    text = (node.findtext(flag) or "0").strip().lower()
    if text in ("false", "no", "unspecified", ""):
        return False
    if text in ("true", "yes"):
        return True
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise DataError(f"{where}: {flag} is {text[:40]!r}; write 0 or 1")
    return value > 0
