"""Drawing on photographs: boxes with names and scores, the two kinds of corner heatmaps, and pairs of corners.

The colours are Okabe and Ito's, which people with any common colour deficiency can tell apart ("Color Universal
Design", 2008). Everything is drawn in BGR with OpenCV, in sizes that scale with the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cornernet.drawing.escapes import picture_escape

__all__ = [
    "BOTTOM_RIGHT_COLOUR",
    "PALETTE",
    "TOP_LEFT_COLOUR",
    "draw_boxes",
    "draw_heatmaps",
    "draw_pairs",
    "enlargement",
    "sheet",
]

Colour: TypeAlias = tuple[int, int, int]

PALETTE: tuple[Colour, ...] = (
    (0, 159, 230),  # orange
    (233, 180, 86),  # sky blue
    (66, 228, 240),  # yellow
    (115, 158, 0),  # bluish green
    (167, 121, 204),  # reddish purple
    (178, 114, 0),  # blue
    (0, 94, 213),  # vermilion
)
"""BGR, indexed by label modulo the length. Okabe and Ito's colours without black."""

TOP_LEFT_COLOUR: Colour = (0, 159, 230)
"""Orange: heatmaps of top-left corners."""
BOTTOM_RIGHT_COLOUR: Colour = (233, 180, 86)
"""Sky blue: heatmaps of bottom-right corners."""

_READABLE = 480
"""Shorter side in pixels below which a picture is enlarged before it is drawn on."""
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def _check(image: NDArray[np.uint8]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"the picture must be uint8 [H, W, 3] BGR, not {image.dtype} {list(image.shape)}")


def enlargement(size: tuple[int, int]) -> int:
    """Return the whole factor by which a picture of ``size`` (height, width) is enlarged before it is drawn on.

    The factor is 1 if the shorter side is at least 480. The longer side is never enlarged beyond 4 * 480.
    """
    short, long = min(size), max(size)
    return max(1, min(-(-_READABLE // short), 4 * _READABLE // long))


def _canvas(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    if factor == 1:
        return image.copy()
    size = (image.shape[1] * factor, image.shape[0] * factor)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _ink(colour: Colour) -> Colour:
    """Return black or white, whichever is readable on ``colour``."""
    blue, green, red = colour
    return (0, 0, 0) if 0.114 * blue + 0.587 * green + 0.299 * red > 110 else (255, 255, 255)


def draw_boxes(
    image: NDArray[np.uint8],
    boxes: ArrayLike,
    labels: ArrayLike,
    scores: ArrayLike | None = None,
    classes: Sequence[str] | None = None,
    *,
    colours: Sequence[Colour] | None = None,
) -> NDArray[np.uint8]:
    """Return a copy of ``image`` with boxes drawn on it, the highest score on top.

    ``image`` is uint8 [H, W, 3] BGR; ``boxes`` [N, 4] x1 y1 x2 y2 in its pixels; ``labels`` [N]; ``scores`` [N], or
    None for ground truth; ``classes`` the names by label; ``colours`` BGR by label, :data:`PALETTE` by default. A small
    picture is enlarged by :func:`enlargement`. Lines and letters scale with a large one. Raises ``ValueError`` if
    ``image`` is not such an array.
    """
    _check(image)
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    labels = np.asarray(labels, np.int64).reshape(-1)
    ranks = np.zeros(len(labels)) if scores is None else np.asarray(scores, np.float64).reshape(-1)
    palette = PALETTE if colours is None else tuple(colours)
    factor = enlargement((image.shape[0], image.shape[1]))
    canvas = _canvas(image, factor)
    side = min(canvas.shape[:2])
    thickness = max(2, round(side / 320))
    order = np.argsort(ranks, kind="stable")
    for i in order:
        colour = palette[labels[i] % len(palette)]
        corners = [round(float(value)) for value in boxes[i] * factor]
        _rectangle(canvas, corners, colour, thickness)
    for i in order:
        name = f"class {labels[i]}" if classes is None else classes[labels[i]]
        text = name if scores is None else f"{name} {ranks[i]:.2f}"
        left, top = (round(float(value)) for value in boxes[i, :2] * factor)
        _tag(canvas, text, (left, top), palette[labels[i] % len(palette)], thickness)
    return canvas


def _rectangle(canvas: NDArray[np.uint8], corners: list[int], colour: Colour, thickness: int) -> None:
    """Draw a coloured frame with a thin dark outline, which is visible on any background."""
    height, width = canvas.shape[:2]
    x1, x2 = (min(max(x, 0), width - 1) for x in corners[::2])
    y1, y2 = (min(max(y, 0), height - 1) for y in corners[1::2])
    edge = max(1, thickness // 3)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), (0, 0, 0), thickness + 2 * edge, cv2.LINE_8)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, thickness, cv2.LINE_8)


def _tag(canvas: NDArray[np.uint8], text: str, corner: tuple[int, int], colour: Colour, thickness: int) -> None:
    """Write the name on a filled background above the box's top-left corner, or inside the box if there is no room."""
    height, width = canvas.shape[:2]
    text = picture_escape(text)
    scale = max(0.5, min(height, width) / 1000)
    weight = max(1, round(scale * 1.6))
    (text_width, _), _ = cv2.getTextSize(text, _FONT, scale, weight)
    # the same height for all names, whatever their letters
    (_, text_height), below = cv2.getTextSize("Agjp0", _FONT, scale, weight)
    pad = max(2, thickness)
    tag_width, tag_height = text_width + 2 * pad, text_height + below + pad
    left = min(max(corner[0] - thickness // 2, 0), max(0, width - tag_width))
    top = corner[1] - tag_height
    if top < 0:
        top = min(max(corner[1], 0), max(0, height - tag_height))
    cv2.rectangle(canvas, (left, top), (left + tag_width, top + tag_height), colour, cv2.FILLED)
    baseline = (left + pad, top + text_height + pad)
    cv2.putText(canvas, text, baseline, _FONT, scale, _ink(colour), weight, cv2.LINE_AA)


def draw_heatmaps(
    image: NDArray[np.uint8],
    top_left: ArrayLike,
    bottom_right: ArrayLike,
    window: tuple[float, float, float, float] | None = None,
) -> NDArray[np.uint8]:
    """Return the dimmed picture with the corner heatmaps over it: top-left in orange, bottom-right in blue.

    ``image`` is uint8 [H, W, 3] BGR. The heatmaps are [K, h, w] with probabilities in 0..1 (after the sigmoid). Their
    maximum over the classes is shown, with the peaks widened to be visible. ``window`` is the part of the heatmaps that
    the picture covers, x1 y1 x2 y2 in cells (``Placement.window``), by default all of it. Small pictures are enlarged
    as in :func:`draw_boxes`. Raises ``ValueError`` if ``image`` or a heatmap is not such an array.
    """
    _check(image)
    canvas = _canvas(image, enlargement((image.shape[0], image.shape[1])))
    grey = cv2.cvtColor(cv2.cvtColor(canvas, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    result = 0.35 * grey.astype(np.float32) + 0.15 * canvas
    size = (canvas.shape[0], canvas.shape[1])
    for name, heatmap, colour in (
        ("top_left", top_left, TOP_LEFT_COLOUR),
        ("bottom_right", bottom_right, BOTTOM_RIGHT_COLOUR),
    ):
        strength = _spread(name, np.asarray(heatmap, np.float32), size, window)
        result += strength[:, :, None] * (np.array(colour, np.float32) - result)
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


def _spread(
    name: str, heatmap: NDArray[np.float32], size: tuple[int, int], window: tuple[float, float, float, float] | None
) -> NDArray[np.float32]:
    """Return the strongest class of a heatmap [K, h, w], resized to ``size``, with wider peaks: [H, W] in 0..1."""
    if heatmap.ndim != 3 or heatmap.size == 0:
        raise ValueError(f"the heatmap {name} must be [K, h, w], not {list(heatmap.shape)}")
    if not (heatmap.min() >= 0 and heatmap.max() <= 1):
        raise ValueError(
            f"the heatmap {name} must hold probabilities in 0..1; apply the sigmoid to the network's output"
        )
    height, width = size
    x1, y1, x2, y2 = window or (0.0, 0.0, float(heatmap.shape[2]), float(heatmap.shape[1]))
    step_x, step_y = (x2 - x1) / width, (y2 - y1) / height
    # the centre of output pixel i lies at cell coordinate x1 + (i + 0.5) * step; the centre of cell 0 lies at 0.5
    matrix = np.array([[step_x, 0, x1 + 0.5 * step_x - 0.5], [0, step_y, y1 + 0.5 * step_y - 0.5]], np.float64)
    spread = cv2.warpAffine(heatmap.max(axis=0), matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    radius = round(min(size) / 150)
    if radius > 0:
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        spread = cv2.GaussianBlur(cv2.dilate(spread, disc), (0, 0), radius / 2)
    return np.clip(np.asarray(spread, np.float32), 0, 1)


def draw_pairs(
    image: NDArray[np.uint8],
    boxes: ArrayLike,
    unpaired_top_left: ArrayLike = (),
    unpaired_bottom_right: ArrayLike = (),
    *,
    notes: Sequence[str] = (),
    caption: str = "",
) -> NDArray[np.uint8]:
    """Return a copy of ``image`` with the pairs of corners as lines and the unpaired corners as crosses.

    ``boxes`` [N, 4] x1 y1 x2 y2 and the unpaired corners [M, 2] x y are in pixels of ``image``. If the picture has been
    enlarged (:func:`enlargement`), scale them by the same factor first. Top-left corners are orange, bottom-right ones
    blue. ``notes`` [N] are written at the middle of a pair, whose line is then broken; an empty one is none.
    ``caption`` is written at the lower left. Raises ``ValueError`` if ``image`` is not uint8 [H, W, 3].
    """
    _check(image)
    canvas = image.copy()
    side = min(canvas.shape[:2])
    thickness = max(1, round(side / 400))
    radius = 3 * thickness
    rows = np.asarray(boxes, np.float64).reshape(-1, 4)
    written = [*notes, *[""] * (len(rows) - len(notes))]
    for (x1, y1, x2, y2), note in zip(rows, written, strict=True):
        first, second = (round(float(x1)), round(float(y1))), (round(float(x2)), round(float(y2)))
        for start, end in _dashes(first, second, 4 * radius) if note else [(first, second)]:
            cv2.line(canvas, start, end, (0, 0, 0), thickness + 2, cv2.LINE_AA)
            cv2.line(canvas, start, end, (255, 255, 255), thickness, cv2.LINE_AA)
        for point, colour in ((first, TOP_LEFT_COLOUR), (second, BOTTOM_RIGHT_COLOUR)):
            cv2.circle(canvas, point, radius + 1, (0, 0, 0), cv2.FILLED, cv2.LINE_AA)
            cv2.circle(canvas, point, radius, colour, cv2.FILLED, cv2.LINE_AA)
    for points, colour in ((unpaired_top_left, TOP_LEFT_COLOUR), (unpaired_bottom_right, BOTTOM_RIGHT_COLOUR)):
        for x, y in np.asarray(points, np.float64).reshape(-1, 2):
            at = (round(float(x)), round(float(y)))
            cv2.drawMarker(canvas, at, (0, 0, 0), cv2.MARKER_TILTED_CROSS, 3 * radius, thickness + 2, cv2.LINE_AA)
            cv2.drawMarker(canvas, at, colour, cv2.MARKER_TILTED_CROSS, 3 * radius, thickness, cv2.LINE_AA)
    for (x1, y1, x2, y2), note in zip(rows, written, strict=True):
        if note:
            _tag(canvas, note, (round(float(x1 + x2) / 2), round(float(y1 + y2) / 2)), (255, 255, 255), thickness)
    if caption:
        _tag(canvas, caption, (0, canvas.shape[0]), (255, 255, 255), thickness)
    return canvas


def _dashes(
    first: tuple[int, int], second: tuple[int, int], length: int
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the parts of a broken line, each of about ``length`` pixels, as are the gaps."""
    ends = np.array([first, second], np.float64)
    parts = 2 * max(1, round(float(np.linalg.norm(ends[1] - ends[0])) / (2 * length))) + 1
    points = [(round(x), round(y)) for x, y in np.linspace(ends[0], ends[1], parts + 1).tolist()]
    return list(zip(points[::2], points[1::2], strict=True))


def sheet(
    rows: Sequence[Sequence[tuple[str, NDArray[np.uint8]]]], height: int = 300, title: str = ""
) -> NDArray[np.uint8]:
    """Return captioned pictures in rows on one white sheet, each picture ``height`` pixels high.

    ``rows`` hold pairs of a caption and a picture, uint8 [H, W, 3] BGR. Raises ``ValueError`` for another kind of
    array, and if a row or the sheet is empty.
    """
    if not rows or not all(rows):
        raise ValueError("a sheet needs a picture in every row, and at least one row")
    gap, line = 8, 22
    bands = []
    for row in rows:
        cells = [np.full((height + line, gap, 3), 255, np.uint8)]
        for caption, image in row:
            _check(image)
            width = max(1, round(image.shape[1] * height / image.shape[0]))
            shrinks = height < image.shape[0]
            how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
            cell = np.full((height + line, width + gap, 3), 255, np.uint8)
            cell[line:, :width] = cv2.resize(image, (width, height), interpolation=how)
            text = picture_escape(caption)
            while text and cv2.getTextSize(text, _FONT, 0.45, 1)[0][0] > width:
                text = text[:-1]
            cv2.putText(cell, text, (1, line - 7), _FONT, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
            cells.append(cell)
        bands.append(np.concatenate(cells, axis=1))
    wide = max(band.shape[1] for band in bands)
    padded = [np.pad(band, ((0, gap), (0, wide - band.shape[1]), (0, 0)), constant_values=255) for band in bands]
    if title:
        head = np.full((30, wide, 3), 255, np.uint8)
        cv2.putText(head, picture_escape(title), (gap, 21), _FONT, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
        padded.insert(0, head)
    return np.concatenate(padded, axis=0)
