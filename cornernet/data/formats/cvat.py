"""CVAT: the xml of 'CVAT for images 1.1', one file for many pictures.

A shape becomes its bounding box: a box (also a rotated one), a polygon, an ellipse, a mask, a cuboid. Coordinates are
edges. Polylines, points, skeletons and tags of a whole picture have no area and are dropped.

The xml files are all below the folder that begin with ``<annotations>``. A picture is looked for by the path in
``name``: from the folder of the xml file, from ``images`` there, and then by its name (see
``cornernet.data.formats.gathering``). The size is the picture's. Splits are those of ``subset`` (train, valid,
test), or else come from the folders of the pictures; otherwise there is one, 'all'. The xml of 'CVAT for video' is
refused: its boxes are interpolated between frames.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element

from cornernet.config import Size
from cornernet.console import count
from cornernet.data.formats.gathering import Box, Gathering, bounding_box, turned_corners
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
from cornernet.data.formats.voc import parse_xml
from cornernet.data.images import DataError

__all__ = ["LARGEST_FILE", "read_cvat"]

LARGEST_FILE = 256 * 2**20
"""Bytes of an xml file."""
_FLAT = ("polyline", "points", "skeleton", "tag")
_CUBOID = tuple(f"{axis}{side}" for side in ("tl1", "bl1", "tr1", "br1", "tl2", "bl2", "tr2", "br2") for axis in "xy")


def read_cvat(
    folder: Path, *, unlabelled: Literal["keep", "drop"] = "keep", classes: Sequence[str] = ()
) -> ImportedFolder:
    """Read a folder with the xml of 'CVAT for images 1.1' and its pictures.

    ``unlabelled`` says what happens to pictures without shapes: they are kept as images without objects, or dropped.
    ``classes`` limits the result to these, in this order; by default all labels found are used, sorted by name. Raises
    ``DataError``, naming file, field and fix, where a file is not in this format. Unusable shapes and missing images
    are listed as dropped.
    """
    require_folder(folder)
    trees = {path: parse_xml(path, LARGEST_FILE) for path in files_below(folder, ".xml")}
    files = [path for path, tree in trees.items() if tree.tag == "annotations"]
    if not files:
        hint = "; Pascal VOC is read with cornernet data import-voc" if trees else ""
        raise DataError(f"there is no xml file of CVAT in {folder}: looked for **/*.xml with <annotations>{hint}")
    reader = _Reader(folder, unlabelled, classes)
    images = [image for path in files for image in reader.images(path, trees[path])]
    notes = reader.notes()
    others = [path for path, tree in trees.items() if tree.tag != "annotations"]
    notes += reader.gathering.unread(others, "xml file", "without <annotations>: not read")
    left = reader.gathering.unannotated(set())
    notes += reader.gathering.unread(left, "image", "named in no xml file: left out")
    return reader.gathering.imported("CVAT for images", images, notes)


class _Reader:
    """Reads a folder; collects what was dropped and what the notes report."""

    def __init__(self, folder: Path, unlabelled: str, classes: Sequence[str]) -> None:
        self.folder, self.unlabelled = folder, unlabelled
        self.gathering = Gathering(folder, classes)
        self.outlines = self.empty = 0

    def notes(self) -> list[str]:
        """Return notes on how the files were read."""
        notes = []
        if self.empty and self.unlabelled == "keep":
            notes.append(f"{count(self.empty, 'image')} without shapes: kept as images without objects (--unlabelled)")
        if self.outlines:
            notes.append(f"{count(self.outlines, 'shape')} other than upright boxes: replaced by the bounding box")
        return [*notes, *self.gathering.notes()]

    def images(self, path: Path, tree: Element) -> list[ImportedImage]:
        """Return the images of an xml file with their objects."""
        if tree.find("track") is not None:
            raise DataError(
                f"{path} has tracks: it is 'CVAT for video'; export the task again as 'CVAT for images 1.1'"
            )
        nodes = tree.findall("image")
        return [image for at, node in enumerate(nodes, start=1) if (image := self._image(node, at, path)) is not None]

    def _image(self, node: Element, number: int, path: Path) -> ImportedImage | None:
        name = (node.get("name") or "").strip()
        if not name:
            raise DataError(f"{path}: image {number} has no name; write the path of the picture, or remove it")
        shown = f"{self.gathering.shown(path)} {name}"
        if len(node) == 0:
            self.empty += 1
            if self.unlabelled == "drop":
                self.gathering.drop(shown, "it has no shapes (--unlabelled drop)")
                return None
        subset = node.get("subset") or ""
        picture = self._picture(name, subset, path)
        if picture is None:
            self.gathering.drop(shown, "its image is missing")
            return None
        where = f"{path}: image {number} ({name})"
        self.gathering.take(picture, where)
        size = self.gathering.size(picture, _stated_size(node, where), shown)
        if size is None:
            return None
        boxes = [self._box(shape, at, where, shown, size) for at, shape in enumerate(node, start=1)]
        split = split_named(subset) or split_of_folder(picture, self.folder)
        return ImportedImage(picture, size, tuple(box for box in boxes if box is not None), split)

    def _picture(self, name: str, subset: str, path: Path) -> Path | None:
        """Return the picture with a stated path, which may begin in several folders, or else the one of its name."""
        parts = [part for part in re.split(r"[\\/]+", name) if part not in ("", ".", "..")]
        inside = Path(*parts) if parts else Path()
        places = [path.parent / part for part in (f"images/{subset}", "images", subset, "")]
        for place in places:
            if (found := self.gathering.exact(place / inside)) is not None:
                return found
        return self.gathering.picture(name, path.parent.joinpath(*parts[:-1]))

    def _box(self, shape: Element, number: int, where: str, shown: str, size: Size) -> ImportedBox | None:
        where = f"{where}: shape {number} <{shape.tag[:40]}>"
        name = (shape.get("label") or "").strip()
        if not name:
            raise DataError(f"{where} has no label; write the name of the class, or remove the shape")
        reason = f"a {shape.tag} has no area" if shape.tag in _FLAT else ""
        corners = [] if reason else _corners(shape, where)
        if not reason and corners is None:
            reason = f"the shape <{shape.tag[:40]}> is unknown"
        box: Box = bounding_box(corners) if corners else (0.0, 0.0, 0.0, 0.0)
        inside = self.gathering.box(box, name, size, f"{shown} shape {number}", reason)
        if inside is None:
            return None
        self.outlines += shape.tag != "box" or bool(shape.get("rotation"))
        return ImportedBox(inside, name)


def _corners(shape: Element, where: str) -> list[tuple[float, float]] | None:
    """Return points (x, y) that have the box of a shape around them, or None for an unknown kind."""

    def numbers(*names: str) -> list[float]:
        return [_number(shape.get(name), name, where) for name in names]

    if shape.tag in ("box", "ellipse"):
        if shape.tag == "box":
            x1, y1, x2, y2 = numbers("xtl", "ytl", "xbr", "ybr")
        else:
            cx, cy, rx, ry = numbers("cx", "cy", "rx", "ry")
            x1, y1, x2, y2 = cx - rx, cy - ry, cx + rx, cy + ry
        if not shape.get("rotation"):
            return [(x1, y1), (x2, y2)]
        turn = math.radians(_number(shape.get("rotation"), "rotation", where))
        if shape.tag == "box":
            return turned_corners((x1, y1, x2, y2), turn)
        # the box around a turned ellipse is smaller than the one around its turned box
        half_width = math.hypot(rx * math.cos(turn), ry * math.sin(turn))
        half_height = math.hypot(rx * math.sin(turn), ry * math.cos(turn))
        return [(cx - half_width, cy - half_height), (cx + half_width, cy + half_height)]
    if shape.tag == "mask":
        left, top, width, height = numbers("left", "top", "width", "height")
        return [(left, top), (left + width, top + height)]
    if shape.tag == "cuboid":
        values = numbers(*_CUBOID)
        return list(zip(values[::2], values[1::2], strict=True))
    if shape.tag == "polygon":
        pairs = [pair.split(",") for pair in (shape.get("points") or "").split(";")]
        if any(len(pair) != 2 for pair in pairs):
            raise DataError(f"{where}: points are not x,y;x,y;...; correct them or remove the shape")
        return [(_number(x, "points", where), _number(y, "points", where)) for x, y in pairs]
    return None


def _number(text: str | None, name: str, where: str) -> float:
    value = finite_number(text or "")
    if math.isnan(value):
        raise DataError(f"{where}: {name} is {(text or '')[:40]!r}; write a number of pixels")
    return value


def _stated_size(node: Element, where: str) -> Size | None:
    """Return (height, width) from the file, or None if it does not state them."""
    texts = [text for side in ("height", "width") if (text := node.get(side)) is not None]
    if len(texts) < 2:
        return None
    height, width = (int(text) if re.fullmatch(r"[0-9]{1,6}", text) else 0 for text in texts)
    if not (height and width):
        raise DataError(f"{where}: height and width are {str(texts)[:80]}; write pixels, or remove them")
    return height, width
