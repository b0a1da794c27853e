"""``shapes``: generated images of rotated shapes on textured backgrounds, with exact boxes. Nothing to download.

It tests corner detection because no shape extends into the corners of its box: a corner can be located only by looking
along its row and column, as corner pooling does (CornerNet, section 1 and figure 2).

* Six kinds: ellipse, triangle, rhombus, cross, star, ring, rotated, with rounded tips, filled with textures and
  gradients like the background. What is behind a ring is visible through its hole.
* A box is the extent of the object's mask, hidden parts included. The mask is the pixels that the shape covers by half
  or more. x1, y1 is the left, upper edge of the first such column and row; x2, y2 is the right, lower edge of the last
  (exclusive), so x2 - x1 is the number of columns. ``area`` is that of the mask, as in COCO.
* Objects hide parts of earlier ones, but at least 60% of each stays visible, and no two boxes have an IoU above 0.4.
  Objects are completely inside the image.
* Distractors (thin line segments and small blobs) belong to no class.

Image ``i`` of a split depends on the seed, :data:`SHAPES_VERSION`, the split, ``i`` and the fields of the source,
but not on the number of images. Area bands are COCO's, with sides scaled by the image's shorter side over 511, the
authors' input size; the summary says so.

Images are cached below ``$CORNERNET_CACHE``, or else in the user's cache folder. If it cannot be written, there is no
cache and no error. It can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cornernet.config import ShapesSource, Size
from cornernet.data.dataset import COCO_AREA_BANDS, AnnotationTable, DetectionDataset, ImageTable
from cornernet.data.images import DataError
from cornernet.files import atomic_write, cache_folder, make_folder

__all__ = ["KINDS", "SHAPES_VERSION", "Picture", "draw_picture", "open_shapes"]

SHAPES_VERSION = 1
"""Incremented by hand whenever an image would change."""

Float = NDArray[np.float32]

_SUPERSAMPLING = 4
_LEAST_VISIBLE = 0.6
_LARGEST_IOU = 0.4
_LEAST_CONTRAST = 0.28
_CLEAR_CORNER = 0.04
_SPLITS = {"train": 0, "val": 1}


class Picture(NamedTuple):
    """One generated image."""

    image: NDArray[np.uint8]
    """[H, W, 3] BGR."""
    boxes: NDArray[np.float64]
    """[N, 4] x1 y1 x2 y2, exclusive edges."""
    labels: NDArray[np.int64]
    """[N] index into the source's classes."""
    areas: NDArray[np.float64]
    """[N] pixels of the whole mask."""
    masks: NDArray[np.bool_]
    """[N, H, W] whole masks, hidden parts included."""


# ------------------------------------------------------------------------------------------- outlines


def _smooth(corners: NDArray[np.float64], rounding: float, points: int = 240) -> NDArray[np.float64]:
    """Return the outline of a polygon [K, 2] as ``points`` points, its tips rounded by a gaussian along the outline."""
    closed = np.vstack([corners, corners[:1]])
    lengths = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    at = np.linspace(0.0, lengths[-1], points, endpoint=False)
    outline = np.interp(at, lengths, closed[:, 0]) + 1j * np.interp(at, lengths, closed[:, 1])
    damping = np.exp(-2.0 * (np.pi * rounding * np.fft.fftfreq(points, 1.0 / points)) ** 2)
    smooth = np.fft.ifft(np.fft.fft(outline) * damping)
    return np.stack([smooth.real, smooth.imag], axis=1)


def _circle(radius: float = 1.0, points: int = 120) -> NDArray[np.float64]:
    angle = np.linspace(0.0, 2.0 * np.pi, points, endpoint=False)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _ellipse(rng: np.random.Generator) -> list[NDArray[np.float64]]:
    return [_circle() * [1.0, rng.uniform(0.55, 0.9)]]


def _triangle(rng: np.random.Generator) -> list[NDArray[np.float64]]:
    angle = np.array([90.0, 210.0, 330.0]) + rng.uniform(-12.0, 12.0, 3)
    corners = np.stack([np.cos(np.radians(angle)), np.sin(np.radians(angle))], axis=1)
    return [_smooth(corners, 0.078)]


def _rhombus(rng: np.random.Generator) -> list[NDArray[np.float64]]:
    short = rng.uniform(0.55, 0.85)
    return [_smooth(np.array([[1.0, 0.0], [0.0, short], [-1.0, 0.0], [0.0, -short]]), 0.015)]


def _cross(rng: np.random.Generator) -> list[NDArray[np.float64]]:
    arm = rng.uniform(0.20, 0.32)
    quarter = np.array([[arm, arm], [arm, 1.0], [-arm, 1.0]])
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    corners = [quarter]
    for _ in range(3):
        corners.append(corners[-1] @ turn)
    return [_smooth(np.vstack(corners) * [1.0, rng.uniform(0.8, 1.0)], 0.005)]


def _star(rng: np.random.Generator) -> list[NDArray[np.float64]]:
    tips = 5
    angle = np.arange(2 * tips) * np.pi / tips
    radius = np.where(np.arange(2 * tips) % 2 == 0, 1.0, rng.uniform(0.40, 0.50))
    return [_smooth(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), 0.006)]


def _ring(rng: np.random.Generator) -> list[NDArray[np.float64]]:
    squeeze = [1.0, rng.uniform(0.65, 1.0)]
    return [_circle() * squeeze, _circle(rng.uniform(0.5, 0.65)) * squeeze]


_OUTLINES: dict[str, Callable[[np.random.Generator], list[NDArray[np.float64]]]] = {
    "ellipse": _ellipse,
    "triangle": _triangle,
    "rhombus": _rhombus,
    "cross": _cross,
    "star": _star,
    "ring": _ring,
}

KINDS = tuple(_OUTLINES)
"""Names that ``data.source.classes`` may contain."""


def _rotate(outlines: list[NDArray[np.float64]], angle: float) -> list[NDArray[np.float64]]:
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return [outline @ turn for outline in outlines]


def _outline(
    kind: str, sides: tuple[float, float], rng: np.random.Generator
) -> tuple[list[NDArray[np.float64]], float, float]:
    """Return outlines in pixels, from (0, 0), and their width and height, both within ``sides``.

    Shapes keep their proportions unless ``sides`` leaves too little room for that; then they are stretched.
    """
    low, high = sides
    clearest = -1.0
    for _ in range(20):
        outlines = _rotate(_OUTLINES[kind](rng), rng.uniform(0.0, 2.0 * np.pi))
        outlines = [(outline - outlines[0].min(0)) for outline in outlines]
        extent = outlines[0].max(0)
        clear = _clear_corner(outlines[0] / extent)
        smallest, largest = low / extent.min(), high / extent.max()
        if clear >= _CLEAR_CORNER and smallest <= largest:
            scale = rng.uniform(smallest, largest)
            return [outline * scale for outline in outlines], float(extent[0] * scale), float(extent[1] * scale)
        if clear > clearest:
            clearest, best = clear, [outline / extent for outline in outlines]
    size = rng.uniform(low, high, 2)
    return [outline * size for outline in best], float(size[0]), float(size[1])


def _clear_corner(outline: NDArray[np.float64]) -> float:
    """Return the side of the largest empty square that fits into every corner of an outline's box of side 1."""
    return float(np.minimum(outline, 1.0 - outline).max(axis=1).min())


def _mask(outlines: list[NDArray[np.float64]], at: tuple[float, float], size: Size) -> Float:
    """Return the fraction of every pixel covered by the outlines, moved by ``at`` (x, y): float32 [H, W]."""
    import cv2

    factor, bits = _SUPERSAMPLING, 4
    cover = np.zeros(size, np.float32)
    low = np.maximum(np.floor(outlines[0].min(0) + at).astype(int) - 1, 0)
    high = np.minimum(np.ceil(outlines[0].max(0) + at).astype(int) + 1, [size[1], size[0]])
    width, height = (int(side) for side in high - low)
    if width <= 0 or height <= 0:
        return cover
    fine = np.zeros((height * factor, width * factor), np.uint8)
    unit = 2**bits
    polygons = [((outline + at - low) * factor * unit - unit / 2).round().astype(np.int32) for outline in outlines]
    cv2.fillPoly(fine, polygons, 255, cv2.LINE_8, bits)
    coarse = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    cover[low[1] : high[1], low[0] : high[0]] = coarse.astype(np.float32) / np.float32(255.0)
    return cover


# ------------------------------------------------------------------------------------------- textures


def _ramp(size: Size, angle: float) -> Float:
    """Return a plane that rises by one over the image's longer side, in the direction ``angle``."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32) / np.float32(max(size))
    return np.asarray(columns * np.float32(np.cos(angle)) + rows * np.float32(np.sin(angle)), np.float32)


def _clouds(size: Size, cells: int, rng: np.random.Generator) -> Float:
    """Return smooth noise [H, W] in -1..1 with about ``cells`` bumps along the longer side."""
    import cv2

    longer = max(size)
    grid = [max(2, round(cells * side / longer) + 1) for side in size]
    noise = rng.uniform(-1.0, 1.0, grid).astype(np.float32)
    return np.asarray(cv2.resize(noise, (size[1], size[0]), interpolation=cv2.INTER_CUBIC), np.float32)


def _pattern(size: Size, rng: np.random.Generator) -> Float:
    """Return a grey pattern [H, W] in about -1..1: stripes, checks, speckle or clouds."""
    kind = int(rng.integers(4))
    angle, waves = rng.uniform(0.0, np.pi), rng.uniform(5.0, 14.0)
    if kind == 0:
        return np.asarray(np.sin(np.float32(2.0 * np.pi * waves) * _ramp(size, angle)), np.float32)
    if kind == 1:
        across = np.sin(np.float32(2.0 * np.pi * waves) * _ramp(size, angle))
        along = np.sin(np.float32(2.0 * np.pi * waves) * _ramp(size, angle + np.pi / 2))
        return np.asarray(across * along, np.float32)
    if kind == 2:
        return _clouds(size, 30, rng)
    return _clouds(size, int(rng.integers(6, 14)), rng)


def _texture(size: Size, colour: NDArray[np.float64], strength: float, rng: np.random.Generator) -> Float:
    """Return an image [H, W, 3] around ``colour``: a gradient, a pattern, and a little colour of its own."""
    light = _ramp(size, rng.uniform(0.0, 2.0 * np.pi))
    light = (light - light.mean()) * np.float32(rng.uniform(0.1, 0.4))
    light += np.float32(strength) * _pattern(size, rng)
    tint = (1.0 + rng.uniform(-0.25, 0.25, 3)).astype(np.float32)
    return np.asarray(colour.astype(np.float32) + light[:, :, None] * tint, np.float32)


def _background(size: Size, rng: np.random.Generator) -> Float:
    colour = rng.uniform(0.2, 0.8, 3)
    picture = _texture(size, colour, rng.uniform(0.02, 0.07), rng)
    for channel in range(3):
        picture[:, :, channel] += np.float32(0.1) * _clouds(size, 4, rng)
    return picture


def _contrasting(behind: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a colour that contrasts with the colour ``behind``: the first of 12 draws that does, or else the best."""
    colours = rng.uniform(0.05, 0.95, (12, 3))
    away = np.sqrt(np.mean((colours - behind) ** 2, axis=1))
    good = np.flatnonzero(away >= _LEAST_CONTRAST)
    chosen: NDArray[np.float64] = colours[int(good[0]) if len(good) else int(away.argmax())]
    return chosen


# ------------------------------------------------------------------------------------------- images


class _Placed(NamedTuple):
    label: int
    cover: Float
    mask: NDArray[np.bool_]
    box: NDArray[np.float64]


def _extent(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)


def _iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(sides, 0.0)))
    return shared / (float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - shared)


def _place(source: ShapesSource, placed: list[_Placed], rng: np.random.Generator) -> _Placed | None:
    """Return one more object that hides none of those ``placed`` too much, or None if 12 tries found no room."""
    height, width = source.image_size
    shorter = min(height, width)
    label = int(rng.integers(len(source.classes)))
    for _ in range(12):
        sides = (source.object_size[0] * shorter, source.object_size[1] * shorter)
        outlines, w, h = _outline(source.classes[label], sides, rng)
        at = (rng.uniform(0.0, max(0.0, width - w)), rng.uniform(0.0, max(0.0, height - h)))
        cover = _mask(outlines, at, source.image_size)
        mask = cover >= 0.5
        if not mask.any():
            continue
        item = _Placed(label, cover, mask, _extent(mask))
        if _fits(item, placed):
            return item
    return None


def _fits(item: _Placed, placed: list[_Placed]) -> bool:
    if any(_iou(item.box, other.box) > _LARGEST_IOU for other in placed):
        return False
    above = item.mask
    for other in reversed(placed):
        if (other.mask & ~above).sum() < _LEAST_VISIBLE * other.mask.sum():
            return False
        above = above | other.mask
    return True


def _add_distractors(picture: Float, smallest: float, count: int, rng: np.random.Generator) -> None:
    """Draw ``count`` line segments and blobs, each far smaller or thinner than an object of side ``smallest``."""
    height, width = picture.shape[:2]
    for _ in range(count):
        x, y = rng.uniform(0.0, width), rng.uniform(0.0, height)
        colour = rng.uniform(0.05, 0.95, 3)
        angle = rng.uniform(0.0, 2.0 * np.pi)
        if rng.random() < 0.5:
            length = rng.uniform(0.15, 0.4) * min(height, width)
            half = max(0.5, rng.uniform(0.008, 0.016) * min(height, width))
            corners = np.array([[0.0, -half], [length, -half], [length, half], [0.0, half]])
        else:
            corners = _circle(rng.uniform(0.08, 0.18) * smallest, 24) * [1.0, rng.uniform(0.6, 1.0)]
        cover = _mask(_rotate([corners], angle), (x, y), (height, width))[:, :, None]
        picture += cover * np.float32(0.8) * (colour.astype(np.float32) - picture)


def draw_picture(source: ShapesSource, split: Literal["train", "val"], index: int) -> Picture:
    """Return image ``index`` of a split. It depends only on the arguments and :data:`SHAPES_VERSION`."""
    import cv2

    rng = np.random.default_rng([SHAPES_VERSION, source.seed % 2**64, _SPLITS[split], index])
    size = source.image_size
    smallest = source.object_size[0] * min(size)
    picture = _background(size, rng)
    _add_distractors(picture, smallest, int(rng.integers(2, 6)), rng)
    placed: list[_Placed] = []
    for _ in range(int(rng.integers(1, source.max_objects + 1)) if source.max_objects else 0):
        item = _place(source, placed, rng)
        if item is None:
            continue
        placed.append(item)
        colour = _contrasting(picture[item.mask].mean(0).astype(np.float64), rng)
        fill = _texture(size, colour, rng.uniform(0.02, 0.08), rng)
        picture += item.cover[:, :, None] * (fill - picture)
    _add_distractors(picture, smallest, int(rng.integers(0, 3)), rng)
    picture = cv2.GaussianBlur(picture, (3, 3), rng.uniform(0.3, 0.6)).astype(np.float32)
    picture += rng.normal(0.0, 0.012, picture.shape).astype(np.float32)
    return Picture(
        image=np.clip(np.round(picture * 255.0), 0, 255).astype(np.uint8),
        boxes=np.array([item.box for item in placed], np.float64).reshape(-1, 4),
        labels=np.array([item.label for item in placed], np.int64),
        areas=np.array([item.mask.sum() for item in placed], np.float64),
        masks=np.array([item.mask for item in placed], np.bool_).reshape(-1, *size),
    )


# ------------------------------------------------------------------------------------------- data set


def open_shapes(source: ShapesSource, split: Literal["train", "val"]) -> DetectionDataset:
    """Return one split, from the cache, or generated (some milliseconds per image) and then cached.

    Raises ``DataError`` for a class that is not in :data:`KINDS`.
    """
    for kind in source.classes:
        if kind not in KINDS:
            raise DataError(f"data.source.classes has {kind!r}; shapes can be {', '.join(KINDS)}")
    columns = _cached(source, split)
    count = len(columns["pixels"])
    height, width = source.image_size
    scale = min(height, width) / 511.0
    bands = (COCO_AREA_BANDS[0] * scale**2, COCO_AREA_BANDS[1] * scale**2)
    boxes = columns["boxes"]
    return DetectionDataset(
        name="shapes",
        split=split,
        classes=source.classes,
        category_ids=tuple(range(1, len(source.classes) + 1)),
        images=ImageTable(
            ids=np.arange(1, count + 1, dtype=np.int64),
            sizes=np.tile(np.array([[height, width]], np.int64), (count, 1)),
            names=tuple(f"shapes_{split}_{number:06d}.png" for number in range(1, count + 1)),
        ),
        annotations=AnnotationTable(
            ids=np.arange(1, len(boxes) + 1, dtype=np.int64),
            image=columns["image"],
            labels=columns["labels"],
            xywh=np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1),
            areas=columns["areas"],
            crowd=np.zeros(len(boxes), np.bool_),
        ),
        area_bands=bands,
        notes=(
            f"small, medium and large are COCO's with sides scaled to this image by {min(height, width)}/511: "
            f"below {32 * scale:.3g} and {96 * scale:.3g} pixels squared",
        ),
        pixels=columns["pixels"],
    )


_Columns = dict[str, NDArray[Any]]


def _generate(source: ShapesSource, split: Literal["train", "val"]) -> _Columns:
    count = source.train_images if split == "train" else source.val_images
    pictures = [draw_picture(source, split, index)._replace(masks=np.zeros(0, np.bool_)) for index in range(count)]
    return {
        "pixels": np.stack([picture.image for picture in pictures]),
        "image": np.repeat(np.arange(count, dtype=np.int64), [len(picture.boxes) for picture in pictures]),
        "boxes": np.concatenate([picture.boxes for picture in pictures]),
        "labels": np.concatenate([picture.labels for picture in pictures]),
        "areas": np.concatenate([picture.areas for picture in pictures]),
    }


def _cache_file(source: ShapesSource, split: str) -> Path | None:
    """Return the cache file of a split. Its name depends on all that its images depend on, including this code."""
    import cv2

    folder = cache_folder()
    if folder is None:
        return None
    fields = dataclasses.asdict(source)
    fields.pop("train_images" if split == "val" else "val_images")
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    key = json.dumps([SHAPES_VERSION, code, cv2.__version__, np.__version__, split, fields], sort_keys=True)
    return folder / f"shapes-{split}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"


def _cached(source: ShapesSource, split: Literal["train", "val"]) -> _Columns:
    path = _cache_file(source, split)
    columns = None if path is None else _load(path)
    if columns is None:
        columns = _generate(source, split)
        if path is not None:
            _store(path, columns)
    return columns


def _load(path: Path) -> _Columns | None:
    """Return what :func:`_store` wrote, or None if it is missing or damaged (npz members have checksums)."""
    try:
        # opened here: np.load would leave a damaged file open
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in ("pixels", "image", "boxes", "labels", "areas")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _store(path: Path, columns: _Columns) -> None:
    """Write atomically; concurrent processes write the same content. Failure is no error: the cache only saves time."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **columns)
    with contextlib.suppress(OSError):
        make_folder(path.parent)
        atomic_write(path, buffer.getvalue())
