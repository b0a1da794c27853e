"""The test path: from photographs to reported boxes, over flips and scales (paper section 4.2).

The stages are functions of their own, in the order that data flows, so that each can be timed::

    prepare -> network -> decode -> restore -> suppress

and :func:`detect` runs them all. A photograph is tested at its own size, in the middle of a black canvas whose sides
are the next multiple of the network's total stride, less one.

The authors' test path has two defects, which ``testing.authors_compatible`` reproduces and which are separate
switches of :func:`soft_nms` and :func:`suppress`:

* ``stale_rows``: a box that suppression discards leaves copies in the array, and they are reported;
* ``column_defect``: the scores of a box's two corners do not follow it when boxes change places, so that merging
  weighs by the corner scores of whichever box stood there before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cornernet.config import Config, ConfigError, DataConfig, Size, TestingConfig
from cornernet.data.images import read_image
from cornernet.data.transforms import crop_window, fit_image, normalise, to_float
from cornernet.inference.detections import Detections
from cornernet.model.detector import Detector
from cornernet.model.heads import Candidates

__all__ = [
    "CornersInView",
    "Examined",
    "Inputs",
    "Placement",
    "Truth",
    "decode",
    "detect",
    "examine",
    "inputs_of",
    "lay",
    "network",
    "place",
    "prepare",
    "restore",
    "soft_nms",
    "suppress",
    "testing_mode",
]

Image: TypeAlias = NDArray[np.uint8]
Photograph: TypeAlias = Image | str | Path
Rows: TypeAlias = NDArray[np.float32]
Method: TypeAlias = Literal["hard", "linear", "gaussian"]
Extent: TypeAlias = Literal["pixels", "points"]


# ----------------------------------------------------------------------------------------- placement


@dataclass(frozen=True)
class Placement:
    """How a photograph at a scale lies on its canvas. Sizes are (height, width)."""

    scale: float
    """Factor by which the photograph was resized."""
    scaled: Size
    """Its size after that."""
    canvas: Size
    """Size of the network's input."""
    offset: tuple[int, int]
    """Where the photograph's top-left pixel lies on the canvas (x, y); -1 where a row or column is cut off."""
    output_stride: int = 4
    """Input pixels a heatmap cell."""

    @property
    def output(self) -> Size:
        """Size of the heatmaps."""
        height, width = self.canvas
        return (height + 1) // self.output_stride, (width + 1) // self.output_stride

    @property
    def ratio(self) -> tuple[float, float]:
        """Heatmap cells per canvas pixel (x, y), a little over 1 / output_stride."""
        return self.output[1] / self.canvas[1], self.output[0] / self.canvas[0]

    @property
    def window(self) -> tuple[float, float, float, float]:
        """The part of the heatmaps that the photograph covers, x1 y1 x2 y2 in cells."""
        (dx, dy), (rx, ry), (height, width) = self.offset, self.ratio, self.scaled
        return dx * rx, dy * ry, (dx + width) * rx, (dy + height) * ry


def place(image: Image, scale: float, total_stride: int, output_stride: int = 4) -> tuple[Image, Placement]:
    """Resize a photograph by ``scale`` and lay it in the middle of a black canvas.

    ``image`` is uint8 [H, W, 3]. The canvas has the sides ``n | (total_stride - 1)`` of the resized picture's n;
    ``total_stride`` is a power of two. A picture with a side that is such a number already loses its last row or
    column, as in the authors' code.
    """
    if total_stride < 1 or total_stride & (total_stride - 1):
        raise ValueError(f"total_stride is {total_stride}; the canvas needs a power of two")
    height, width = image.shape[:2]
    size = max(1, int(height * scale)), max(1, int(width * scale))
    if size != (height, width):
        image = np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), np.uint8)
    canvas_size = size[0] | (total_stride - 1), size[1] | (total_stride - 1)
    canvas, offset = crop_window(image, (size[1] // 2, size[0] // 2), canvas_size)
    return canvas, Placement(scale, size, canvas_size, offset, output_stride)


# -------------------------------------------------------------------------------------------- stages


def prepare(
    image: Image, config: DataConfig, scale: float, flip: bool, total_stride: int, output_stride: int = 4
) -> tuple[Tensor, Placement]:
    """Return a photograph's input at one scale: the normalised canvas and, with ``flip``, its mirror image.

    ``image`` is uint8 [H, W, 3] BGR; the tensor is float32 [1 or 2, 3, H', W'] on the CPU.
    """
    canvas, placement = place(image, scale, total_stride, output_stride)
    planes = normalise(to_float(canvas), config)
    if config.padding == "mean":
        _fill_around(planes, placement)
    batch = np.stack([planes, planes[:, :, ::-1]]) if flip else planes[None]
    return torch.from_numpy(batch), placement


def _fill_around(planes: Rows, placement: Placement) -> None:
    """Set what the photograph leaves of its normalised canvas [3, H, W] to zero, the mean, in place."""
    (dx, dy), (height, width) = placement.offset, placement.scaled
    # a window never reaches the last row and column of a canvas with odd sides (see crop_window)
    bottom, right = (
        min(at + n, side // 2 * 2) for at, n, side in zip((dy, dx), (height, width), placement.canvas, strict=True)
    )
    planes[:, : max(dy, 0)] = 0
    planes[:, bottom:] = 0
    planes[:, :, : max(dx, 0)] = 0
    planes[:, :, right:] = 0


def network(detector: Detector, batch: Tensor, channels_last: bool = True) -> list[Any]:
    """Return the last stack's predictions for a batch, on the detector's device."""
    weight = next(detector.parameters())
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    batch = batch.to(weight.device, weight.dtype).contiguous(memory_format=memory_format)
    predictions: list[Any] = detector(batch, last_only=True)
    return predictions


def decode(detector: Detector, predictions: list[Any], testing: TestingConfig) -> list[Candidates]:
    """Return the candidates of every input of the batch on the CPU, boxes in heatmap cells."""
    return [
        Candidates(*(column.detach().cpu() for column in candidates))
        for candidates in detector.decode(predictions, testing)
    ]


def restore(candidates: Candidates, placement: Placement, mirrored: bool = False) -> Candidates:
    """Return candidates with their boxes moved from heatmap cells to pixels of the photograph before scaling.

    Un-mirrors (x becomes output width - x; each corner keeps its score), divides by the ratio, subtracts the offset,
    clips to the scaled photograph and divides by the scale, in the authors' order.
    """
    boxes = candidates.boxes.float()
    if mirrored:
        out_width = placement.output[1]
        boxes = torch.stack([out_width - boxes[:, 2], boxes[:, 1], out_width - boxes[:, 0], boxes[:, 3]], dim=1)
    boxes = boxes / boxes.new_tensor(placement.ratio * 2) - boxes.new_tensor(placement.offset * 2)
    height, width = placement.scaled
    boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))
    return candidates._replace(boxes=boxes / placement.scale)


def lay(boxes: Tensor, placement: Placement, mirrored: bool = False) -> Tensor:
    """Return boxes [N, 4] moved from pixels of the photograph before scaling to heatmap cells: undoes :func:`restore`.

    A corner on the photograph's edge may come to lie on the edge of the heatmap, and so in no cell.
    """
    boxes = boxes * placement.scale + boxes.new_tensor(placement.offset * 2)
    boxes = boxes * boxes.new_tensor(placement.ratio * 2)
    if mirrored:
        out_width = placement.output[1]
        boxes = torch.stack([out_width - boxes[:, 2], boxes[:, 1], out_width - boxes[:, 0], boxes[:, 3]], dim=1)
    return boxes


# ---------------------------------------------------------------------------------------- suppression


def soft_nms(
    rows: Rows,
    *,
    method: Method = "gaussian",
    iou: float = 0.5,
    sigma: float = 0.5,
    min_score: float = 0.001,
    merge_exponent: float | None = None,
    column_defect: bool = False,
    stale_rows: bool = False,
    max_picks: int | None = None,
    extent: Extent = "pixels",
) -> Rows:
    """Return the boxes of one class that survive (soft) non-maximum suppression, in the order they were picked.

    ``rows`` is float32 [N, 7]: x1 y1 x2 y2 score top-left-score bottom-right-score; it is left as it is. The best box
    is picked, the scores of the others fall by their overlap with it, those that fall below ``min_score`` are
    discarded, and so on with what is left (Bodla et al., "Soft-NMS", 2017). By ``method`` a score is multiplied by

    * hard: 0 where the IoU is over ``iou``, and the box is discarded;
    * linear: 1 - IoU where the IoU is over ``iou``;
    * gaussian: exp(-IoU^2 / ``sigma``).

    The IoU counts pixels, widths and heights being x2 - x1 + 1, or with the ``extent`` 'points' x2 - x1. Among equal
    scores the first in the array is picked; a discarded row is replaced by the last that is left. A number as
    ``merge_exponent`` also averages the corners of a picked box with those of the boxes it overlaps, weighted by corner
    scores and by (1 - factor)^merge_exponent.

    ``column_defect`` and ``stale_rows`` reproduce the authors' defects (see the module); with ``stale_rows`` the
    result has all N rows, survivors first. ``max_picks`` stops after so many survivors: scores of picks never rise, so
    these are the best. Raises ``ValueError`` for another shape or method.
    """
    if rows.ndim != 2 or rows.shape[1] != 7:
        raise ValueError(f"soft_nms takes rows [N, 7], not {list(rows.shape)}")
    if method not in ("hard", "linear", "gaussian"):
        raise ValueError(f"method must be hard, linear or gaussian, not {method!r}")
    columns = np.array(rows.T, dtype=np.float32, order="C")
    boxes, scores, corner_scores = columns[:4], columns[4], columns[5:]
    moving = columns[:5] if column_defect else columns
    # a score of zero is always under the floor: 'hard' discards whatever min_score is
    floor = max(np.float32(min_score), np.finfo(np.float32).tiny)
    one = np.float32(extent == "pixels")
    live, picked = columns.shape[1], 0
    last_pick = live if max_picks is None else max_picks
    while picked < min(live, last_pick):
        best = picked + int(scores[picked:live].argmax())
        if best != picked:
            moving[:, [picked, best]] = moving[:, [best, picked]]
        start = picked + 1
        overlap = _overlap(boxes[:, picked], boxes[:, start:live], one)
        factor = _factor(overlap, method, iou, sigma)
        lowered = scores[start:live] * factor
        discarded = (lowered < floor) & (overlap > 0)
        if merge_exponent is not None:
            weight = _merge_weights(overlap, factor, merge_exponent)
            others = corner_scores[:, start:live]
            if column_defect:
                others = others[:, _examined_at(discarded)]
            boxes[:, picked] = _merged(
                boxes[:, picked], corner_scores[:, picked], boxes[:, start:live], weight * others
            )
        before = scores[start:live].copy() if stale_rows else None
        scores[start:live] = lowered
        if discarded.any():
            kept = _close_gaps(moving[:, start:live], discarded, before)
            live = start + kept
        picked += 1
    return np.ascontiguousarray(columns[:, : None if stale_rows else picked].T)


def _overlap(box: Rows, others: Rows, one: np.float32) -> Rows:
    """The IoU of one box [4] with others [4, N]; 0 where they do not touch. ``one`` is 1 to count pixels, 0 if not."""
    low = np.maximum(box[:2, None], others[:2])
    sides = np.minimum(box[2:, None], others[2:])
    sides -= low
    sides += one
    np.maximum(sides, 0, out=sides)
    shared = sides[0] * sides[1]
    extent = others[2:] - others[:2]
    extent += one
    union = extent[0] * extent[1]
    union += (box[2] - box[0] + one) * (box[3] - box[1] + one)
    union -= shared
    result: Rows = np.divide(shared, union, out=shared, where=shared > 0)
    return result


def _factor(overlap: Rows, method: Method, iou: float, sigma: float) -> Rows:
    """What the score of a box with this overlap is multiplied by."""
    if method == "gaussian":
        return np.asarray(np.exp(overlap * overlap / np.float32(-sigma)), np.float32)
    over = np.float32(0) if method == "hard" else 1 - overlap
    return np.where(overlap > iou, over, np.float32(1))


def _merged(box: Rows, own: Rows, others: Rows, weights: Rows) -> Rows:
    """The average of a box [4] and others [4, N]: top-left corners by weights[0], bottom-right ones by weights[1].

    ``own`` [2] are the box's own weights. A corner whose weights are all zero stays.
    """
    total = own + weights.sum(1)
    # [corner, x or y]: the sum over the others. Not by einsum: twice in some millions of calls within long test runs a
    # result was NaN without numpy's warning, which of these steps einsum alone does not give; why is not known
    moved = (others.reshape(2, 2, -1) * weights[:, None]).sum(-1) + box.reshape(2, 2) * own[:, None]
    corners = box.reshape(2, 2).copy()
    np.divide(moved, total[:, None], out=corners, where=total[:, None] > 0)
    return corners.reshape(4)


def _close_gaps(live: Rows, discarded: NDArray[np.bool_], before: Rows | None) -> int:
    """Move the last rows that are kept into the places of discarded ones, in place; return how many are kept.

    ``live`` [5 or 7, N] are columns. ``before`` are the scores from before they were lowered, which, where given, the
    rows behind the kept ones get back: what the authors' loop leaves there.
    """
    count = len(discarded)
    kept = count - int(discarded.sum())
    gaps = np.flatnonzero(discarded[:kept])
    fillers = kept + np.flatnonzero(~discarded[kept:])[::-1]
    last = None
    if before is not None:
        # the loop ends at position `kept`: it goes through the discarded rows that no gap took, from the last one
        # down, each copied to that position and lowered there, so the nearest one's lowered copy remains
        unused = (int(fillers[-1]) if len(fillers) else count) - kept
        last = live[:, kept + (unused > 1)].copy() if unused else None
    live[:, gaps] = live[:, fillers]
    if before is not None:
        live[4, kept:] = before[kept:]
        if last is not None:
            live[:, kept] = last
    return kept


def _examined_at(discarded: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The position at which the authors' loop examines each row: the last replaces a discarded one on the spot."""
    count = len(discarded)
    kept = count - int(discarded.sum())
    gaps = np.append(np.flatnonzero(discarded[:kept]), kept)
    position = np.arange(count)
    stays = ~discarded[kept:][::-1]
    position[kept:] = gaps[np.cumsum(stays) - stays][::-1]
    return position


def suppress(
    candidates: Sequence[Candidates],
    testing: TestingConfig,
    *,
    column_defect: bool | None = None,
    stale_rows: bool | None = None,
) -> Detections:
    """Return what is reported from the candidates of all flips and scales, boxes in the pixels that theirs are in.

    Candidates with a score of -1 or less are decode's padding. Suppression is per class, by ``testing.nms*``,
    ``.min_score`` and ``.merge*``; then the best ``testing.max_detections`` over all classes are reported, best
    first, ties in the order of classes and picks. The two switches default to ``testing.authors_compatible``, which
    also reports, as the authors do, in the order of classes and picks, and every box that ties with the last.
    """
    column_defect = testing.authors_compatible if column_defect is None else column_defect
    stale_rows = testing.authors_compatible if stale_rows is None else stale_rows
    rows, labels = _stack(candidates)
    # the authors also report ties with the last box, and copies of boxes: all of them are needed for that
    max_picks = None if stale_rows or testing.authors_compatible else testing.max_detections
    if max_picks is not None and not column_defect:
        found = _suppress_together(rows, labels, testing)
        if found is not None:
            return found
    groups = []
    for label in np.unique(labels):
        survivors = soft_nms(
            rows[labels == label],
            method=testing.nms,
            iou=testing.nms_iou,
            sigma=testing.nms_sigma,
            min_score=testing.min_score,
            merge_exponent=testing.merge_exponent if testing.merge else None,
            column_defect=column_defect,
            stale_rows=stale_rows,
            max_picks=max_picks,
            extent=testing.nms_extent,
        )
        groups.append((survivors, np.full(len(survivors), label)))
    rows = np.concatenate([np.empty((0, 7), np.float32), *(group for group, _ in groups)])
    labels = np.concatenate([np.empty(0, np.int64), *(group for _, group in groups)])
    best = _best(rows[:, 4], testing.max_detections, ties=testing.authors_compatible)
    return Detections(rows[best, :4], rows[best, 4], labels[best])


def _suppress_together(rows: Rows, labels: NDArray[np.int64], testing: TestingConfig) -> Detections | None:
    """Return what is reported, all classes at once, to the bit as one by one; None where that would not be faster."""
    from cornernet.inference.suppression_compiled import pick_all

    if not len(rows):
        return None
    picks = pick_all(
        rows,
        labels,
        lambda overlaps: _factor(overlaps, testing.nms, testing.nms_iou, testing.nms_sigma),
        max(np.float32(testing.min_score), np.finfo(np.float32).tiny),
        np.float32(testing.nms_extent == "pixels"),
        testing.max_detections,
        testing.merge,
    )
    if picks is None:
        return None
    best = _best(picks.scores, testing.max_detections, ties=False)
    boxes = rows[picks.rows[best], :4]
    if testing.merge:
        for place, pick in enumerate(best.tolist()):
            own = rows[picks.rows[pick]]
            others, overlap, factor = picks.others(pick)
            columns = np.ascontiguousarray(rows[others].T)
            weights = _merge_weights(overlap, factor, testing.merge_exponent) * columns[5:]
            boxes[place] = _merged(own[:4], own[5:], columns[:4], weights)
    return Detections(boxes, picks.scores[best], picks.labels[best])


def _merge_weights(overlap: Rows, factor: Rows, exponent: float) -> Rows:
    """How much overlapping boxes weigh when corners are averaged, before their corner scores."""
    return np.where(overlap > 0, (1 - factor) ** np.float32(exponent), np.float32(0))


def _stack(candidates: Sequence[Candidates]) -> tuple[Rows, NDArray[np.int64]]:
    """All candidates but padding as rows of :func:`soft_nms`, and their labels."""
    tables, labels = [np.empty((0, 7), np.float32)], [np.empty(0, np.int64)]
    for one in candidates:
        kept = (one.scores > -1).numpy()
        table = torch.cat([one.boxes, one.scores[:, None], one.corner_scores], dim=1)
        tables.append(table.float().numpy()[kept])
        labels.append(one.labels.numpy()[kept])
    return np.concatenate(tables), np.concatenate(labels)


def _best(scores: Rows, count: int, ties: bool) -> NDArray[np.int64]:
    """Indices of the ``count`` best scores, best first; with ``ties``, all that reach the last of them, unsorted."""
    if not ties:
        return np.argsort(-scores, kind="stable")[:count]
    if len(scores) <= count:
        return np.arange(len(scores))
    last = np.partition(scores, len(scores) - count)[len(scores) - count]
    return np.flatnonzero(scores >= last)


# ------------------------------------------------------------------------------------------ together


def detect(
    detector: Detector,
    images: Photograph | Sequence[Photograph],
    config: Config,
    classes: Sequence[str] | None = None,
    category_ids: Sequence[int] | None = None,
) -> list[Detections]:
    """Return the detections of photographs, a ``Detections`` each, boxes in pixels of the original.

    ``images`` is a photograph or a sequence of them: uint8 arrays [H, W, 3] BGR, or paths (a path becomes the
    ``image_id``). ``config.data`` says how they are fitted and normalised, ``config.testing`` the rest; the network
    runs where its weights are, in evaluation mode and without gradients, and is left in the mode it was in.
    ``classes`` and ``category_ids``, by label, go to the detections; by default those that the detector was trained
    on. Raises ``ValueError`` for an array that is no photograph and ``DataError`` for a path that cannot be read as
    one.
    """
    if isinstance(images, str | Path) or (isinstance(images, np.ndarray) and images.ndim == 3):
        images = [images]
    names = detector.classes if classes is None else tuple(classes)
    numbers = detector.category_ids if category_ids is None else tuple(category_ids)
    results = []
    with testing_mode(detector):
        for photograph in images:
            image = _read(photograph)
            height, width = image.shape[:2]
            found = examine(detector, image, config)
            results.append(
                replace(
                    found.detections,
                    classes=names,
                    category_ids=numbers,
                    image_id=str(photograph) if isinstance(photograph, str | Path) else None,
                    size=(height, width),
                )
            )
    return results


class Truth(NamedTuple):
    """What is in a photograph: ``boxes`` [N, 4] float64 in pixels of the original, ``labels`` [N] int64."""

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class CornersInView:
    """The corners found in a photograph and the true ones, in heatmap cells of one input."""

    found: Any
    """``Corners`` of ``CornerPoints``, on the CPU."""
    true_boxes: NDArray[np.float64]
    """[N, 4]: top-left, then bottom-right corners."""
    true_labels: NDArray[np.int64]
    centre: tuple[float, float]
    """The middle of the photograph (x, y)."""


@dataclass(frozen=True)
class Examined:
    """What the test path found in a photograph; ``corners`` where ``testing.corner_metrics`` asks for them."""

    detections: Detections
    corners: CornersInView | None = None


class Inputs(NamedTuple):
    """A photograph as the network takes it."""

    views: list[tuple[Tensor, Placement]]
    """Batch and placement at each of ``testing.scales``."""
    fit: tuple[float, float]
    """(sx, sy), fitted size over original size."""


def inputs_of(image: Image, config: Config, total_stride: int, output_stride: int = 4) -> Inputs:
    """Return a photograph's inputs at every scale: the part of the test path before the network, safe in threads."""
    fitted, fit = fit_image(image, config.data.fit)
    testing = config.testing
    views = [prepare(fitted, config.data, scale, testing.flip, total_stride, output_stride) for scale in testing.scales]
    return Inputs(views, fit)


def examine(
    detector: Detector, image: Image, config: Config, truth: Truth | None = None, inputs: Inputs | None = None
) -> Examined:
    """Run the test path on one photograph, uint8 [H, W, 3] BGR, with a detector in evaluation mode.

    ``inputs`` are :func:`inputs_of` the photograph where they were made ahead.

    ``truth`` is needed where ``testing.substitute`` puts it in the place of outputs, on the canvas of every scale and
    mirrored for mirrored inputs, and where ``testing.corner_metrics`` asks for corners. These are found in the first
    of ``testing.scales``, not mirrored. Raises ``ConfigError`` where the truth is needed and not given.
    """
    testing = config.testing
    if truth is None and (testing.substitute or testing.corner_metrics):
        raise ConfigError("testing.substitute and .corner_metrics need the ground truth: they are for evaluation alone")
    if inputs is None:
        inputs = inputs_of(image, config, detector.total_stride, detector.output_stride)
    sx, sy = inputs.fit
    true_boxes, true_labels = torch.empty(0, 4, dtype=torch.float64), torch.empty(0, dtype=torch.int64)
    if truth is not None:
        true_boxes = torch.from_numpy(truth.boxes.reshape(-1, 4) * np.array([sx, sy, sx, sy]))
        true_labels = torch.from_numpy(truth.labels)
    restored, corners = [], None
    for batch, placement in inputs.views:
        impl = testing.pooling_impl
        with nullcontext() if impl is None else detector.pooling_by(impl):
            predictions = network(detector, batch, config.training.channels_last)
        if testing.substitute:
            laid = [lay(true_boxes, placement, mirrored=index == 1) for index in range(len(batch))]
            predictions = detector.substitute(predictions, laid, [true_labels] * len(batch), testing)
        if testing.corner_metrics and corners is None:
            found = detector.corners(predictions, testing)[0]
            left, top, right, bottom = placement.window
            corners = CornersInView(
                type(found)(*(type(points)(*(column.cpu() for column in points)) for points in found)),
                lay(true_boxes, placement).numpy(),
                true_labels.numpy(),
                ((left + right) / 2, (top + bottom) / 2),
            )
        for index, candidates in enumerate(decode(detector, predictions, testing)):
            restored.append(restore(candidates, placement, mirrored=index == 1))
    kept = suppress(restored, testing)
    height, width = image.shape[:2]
    boxes = kept.boxes / np.array([sx, sy, sx, sy], np.float32)
    kept = replace(kept, boxes=np.clip(boxes, 0, np.array([width, height, width, height], np.float32)))
    return Examined(kept, corners)


@contextmanager
def testing_mode(detector: Detector) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every part is in the mode it was in."""
    modes = {module: module.training for module in detector.modules()}
    detector.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _read(photograph: Photograph) -> Image:
    """A photograph's pixels, or the error that says what is wrong with it."""
    if isinstance(photograph, str | Path):
        return read_image(Path(photograph))
    if photograph.ndim != 3 or photograph.shape[2] != 3 or photograph.dtype != np.uint8 or photograph.size == 0:
        raise ValueError(f"a photograph is uint8 [H, W, 3] BGR, not {photograph.dtype} {list(photograph.shape)}")
    return photograph
