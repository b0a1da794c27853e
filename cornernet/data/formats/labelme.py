"""labelme: one json file per picture, with shapes; also what X-AnyLabeling writes.

A shape becomes its bounding box: a rectangle (two or four corners, in any order), a polygon, a circle (its centre and a
point on it), a mask (two corners), a rotated rectangle. Coordinates are edges. Shapes of one label and one ``group_id``
are the parts of one object, such as one that something in front divides, and get one box. Points and lines have no area
and are dropped.

The json files are all below the folder that have ``shapes``; others are counted. ``cornernet.data.formats.gathering``
says which picture belongs to a file, and the size is the picture's. Splits come from folder names (train, valid, test);
otherwise there is one, 'all'.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cornernet.config import Size
from cornernet.console import count
from cornernet.data.formats.gathering import Box, Gathering, bounding_box
from cornernet.data.formats.importing import (
    ImportedBox,
    ImportedFolder,
    ImportedImage,
    files_below,
    require_folder,
    split_of_folder,
)
from cornernet.data.images import DataError
from cornernet.files import read_regular

__all__ = ["LARGEST_FILE", "read_labelme"]

LARGEST_FILE = 128 * 2**20
"""Bytes of a json file; it may contain its picture (imageData)."""
_POINTS = {
    **{"rectangle": 2, "polygon": 3, "circle": 2, "mask": 2},
    **{"rotation": 3, "oriented_rectangle": 3, "quadrilateral": 3, "cuboid": 3},
}
"""Types of shapes with an area, and how many points each needs at least."""
_FLAT = ("point", "points", "line", "linestrip", "polyline")


def read_labelme(folder: Path, *, classes: Sequence[str] = ()) -> ImportedFolder:
    """Read a folder of labelme's json files.

    ``classes`` limits the result to these, in this order; by default all labels found are used, sorted by name. Raises
    ``DataError``, naming file, field and fix, where a file is not in labelme's format. Unusable shapes and missing
    images are listed as dropped.
    """
    require_folder(folder)
    trees = {path: _tree(path) for path in files_below(folder, ".json")}
    files = [path for path, tree in trees.items() if _is_labelme(tree)]
    if not files:
        raise DataError(
            f"there is no json file of labelme in {folder}: looked for **/*.json with 'shapes' "
            f"({count(len(trees), 'json file')} without)"
        )
    reader = _Reader(folder, classes)
    images = [image for path in files if (image := reader.image(path, trees[path])) is not None]
    notes = reader.notes()
    others = [path for path, tree in trees.items() if not _is_labelme(tree)]
    notes += reader.gathering.unread(others, "json file", "without 'shapes': not read")
    left = reader.gathering.unannotated({path.stem for path in files})
    notes += reader.gathering.unread(left, "image", "without a json file: left out")
    return reader.gathering.imported("labelme", images, notes)


def _is_labelme(tree: object) -> bool:
    return isinstance(tree, dict) and "shapes" in tree


def _tree(path: Path) -> Any:
    """Return the content of a json file without the picture that it may contain."""
    try:
        tree = json.loads(read_regular(path, LARGEST_FILE, "a json file of labelme"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {str(error)[:200]}; correct or remove it") from error
    if not _is_labelme(tree):
        return None
    if tree.get("imageData") is not None:
        tree["imageData"] = True
    return tree


class _Reader:
    """Reads a folder; collects what was dropped and what the notes report."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self.folder = folder
        self.gathering = Gathering(folder, classes)
        self.outlines = self.grouped = 0

    def notes(self) -> list[str]:
        """Return notes on how the files were read."""
        notes = []
        if self.outlines:
            notes.append(f"{count(self.outlines, 'shape')} other than rectangles: replaced by the bounding box")
        if self.grouped:
            notes.append(
                f"{count(self.grouped, 'shape')} with the label and group_id of an earlier one: one object with it"
            )
        return [*notes, *self.gathering.notes()]

    def image(self, path: Path, tree: dict[str, Any]) -> ImportedImage | None:
        """Return the image of a json file with its objects, or None if it was dropped."""
        shown = self.gathering.shown(path)
        stated = tree.get("imagePath")
        stated = stated if isinstance(stated, str) else ""
        picture = self.gathering.picture(stated, path.parent, path.stem)
        if picture is None:
            inside = "; its imageData has it: labelme_export_json writes it" if tree.get("imageData") else ""
            self.gathering.drop(shown, f"its image is missing (the first is {stated or path.stem + '.*'}){inside}")
            return None
        self.gathering.take(picture, str(path))
        size = self.gathering.size(picture, _stated_size(tree, path), shown)
        if size is None:
            return None
        shapes = tree["shapes"]
        if not isinstance(shapes, list):
            raise DataError(f"{path}: 'shapes' is not a list; correct or remove the file")
        boxes: dict[object, tuple[str, Box]] = {}
        for number, shape in enumerate(shapes):
            self._add(shape, f"{path}: shapes[{number}]", f"{shown} shape {number}", size, boxes)
        objects = tuple(ImportedBox(box, name) for name, box in boxes.values())
        return ImportedImage(picture, size, objects, split_of_folder(path, self.folder))

    def _add(self, shape: Any, where: str, shown: str, size: Size, boxes: dict[object, tuple[str, Box]]) -> None:
        """Add a shape's box to ``boxes``, or enlarge the one of the shape that it continues."""
        if not isinstance(shape, dict):
            raise DataError(f"{where} is not an object with 'label' and 'points'; correct or remove it")
        name = shape.get("label")
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{where} has no label; write the name of the class, or remove the shape")
        name = name.strip()
        # files of versions before 3 have polygons alone
        kind = str(shape.get("shape_type") or "polygon")
        reason = ""
        if kind in _FLAT:
            reason = f"a {kind} has no area"
        elif kind not in _POINTS:
            reason = f"the shape_type {kind[:40]!r} is unknown"
        points = [] if reason else _points(shape, where)
        if not reason and len(points) < _POINTS[kind]:
            reason = f"a {kind} needs {_POINTS[kind]} points or more"
        box = (0.0, 0.0, 0.0, 0.0) if reason else _box(kind, points)
        inside = self.gathering.box(box, name, size, shown, reason)
        if inside is None:
            return
        self.outlines += kind != "rectangle"
        group = shape.get("group_id")
        key: object = len(boxes) if group is None else (name, str(group))
        if key in boxes:
            self.grouped += 1
            earlier = boxes[key][1]
            inside = bounding_box([earlier[:2], earlier[2:], inside[:2], inside[2:]])
        boxes[key] = name, inside


def _points(shape: dict[str, Any], where: str) -> list[tuple[float, float]]:
    points = shape.get("points")
    if not isinstance(points, list):
        raise DataError(f"{where} has no list of points; correct or remove the shape")
    found = []
    for number, point in enumerate(points):
        if not (isinstance(point, list) and len(point) == 2 and all(map(_is_finite, point))):
            raise DataError(f"{where}: points[{number}] is not [x, y] in pixels; correct it or remove the shape")
        found.append((float(point[0]), float(point[1])))
    return found


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer above the largest float
        return False


def _box(kind: str, points: list[tuple[float, float]]) -> Box:
    if kind != "circle":
        return bounding_box(points)
    (x, y), edge = points[:2]
    radius = math.dist((x, y), edge)
    return x - radius, y - radius, x + radius, y + radius


def _stated_size(tree: dict[str, Any], path: Path) -> Size | None:
    """Return (height, width) from the file, or None if it does not state them."""
    sides: list[Any] = [tree.get("imageHeight"), tree.get("imageWidth")]
    if any(side is None for side in sides):
        return None
    if not all(_is_finite(side) and 0 < side < 10**6 for side in sides):
        raise DataError(f"{path}: imageHeight and imageWidth are {str(sides)[:80]}; write pixels, or remove them")
    return int(sides[0]), int(sides[1])
