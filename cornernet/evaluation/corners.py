"""Corners as detections of their own: average precision by quadrant of the photograph (paper section 4.5.3, table 3).

A predicted corner is positive where it lies within a small radius of a true corner of its kind and class that no
better corner has taken. In each photograph, corners of a class are matched from the best score down, each to the
nearest free true corner within the radius.

Matching knows no quadrants; they restrict what is counted afterwards. A true corner belongs to the quadrant in which
it lies, and so does a predicted one that matches nothing; a predicted one that matches belongs to the quadrant of its
true corner. A pair that the border parts is thus one hit in the true corner's quadrant, and neither a miss there nor
a false alarm on the other side. A corner on the middle line is right of it or below it. Two of the four quadrants are
reported, as in the paper: both coordinates before the middle, or neither.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cornernet.inference.detect import CornersInView

__all__ = ["CORNER_METRICS", "CornerMatches", "corner_counts", "corner_metrics", "match_corners"]

KINDS = ("top_left", "bottom_right")
QUADRANTS = ("top_left", "bottom_right")
CORNER_METRICS = tuple(
    name for kind in KINDS for name in (f"corner_AP/{kind}", *(f"corner_AP/{kind}/{q}_quadrant" for q in QUADRANTS))
)
RECALLS = np.linspace(0, 1, 101)
OTHER = -1
"""The quadrant of what lies in neither of :data:`QUADRANTS`."""


@dataclass(frozen=True)
class CornerMatches:
    """Predicted and true corners of one kind over a data set, matched: all that its AP needs.

    ``image``, ``label``, ``score``, ``quadrant`` and ``positive`` are [N], of predicted corners; ``true_image``,
    ``true_label`` and ``true_quadrant`` [M]. Images count from 0; quadrants are indices of :data:`QUADRANTS`, or
    :data:`OTHER`.
    """

    image: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    quadrant: npt.NDArray[np.int64]
    positive: npt.NDArray[np.bool_]
    true_image: npt.NDArray[np.int64]
    true_label: npt.NDArray[np.int64]
    true_quadrant: npt.NDArray[np.int64]

    def mean_average_precision(self, classes: int, quadrant: int | None = None) -> float:
        """Return the mean over classes of COCO's AP, in one quadrant or, with None, everywhere.

        Classes without a true corner there are left out; NaN where that leaves none.
        """
        images = 1 + max(self.image.max(initial=-1), self.true_image.max(initial=-1))
        return float(self.mean_average_precision_under(np.ones((1, images)), classes, quadrant)[0])

    def mean_average_precision_under(
        self, weights: npt.NDArray[Any], classes: int, quadrant: int | None = None
    ) -> npt.NDArray[np.float64]:
        """Return :meth:`mean_average_precision` under each row of ``weights`` [B, images]: [B].

        An image counts so many times, its corners found and true alike: the bootstrap over images. Images are counted
        as in :attr:`image`.
        """
        here = np.ones_like(self.positive) if quadrant is None else self.quadrant == quadrant
        true_here = np.ones_like(self.true_label, np.bool_) if quadrant is None else self.true_quadrant == quadrant
        values = np.full((classes, len(weights)), np.nan)
        for label in range(classes):
            numbers = weights[:, self.true_image[true_here & (self.true_label == label)]].sum(axis=1)
            rows = np.flatnonzero(here & (self.label == label))
            rows = rows[np.argsort(-self.score[rows], kind="stable")]
            for at in np.flatnonzero(numbers > 0):
                counts = weights[at][self.image[rows]]
                values[label, at] = _average_precision(self.positive[rows], counts, float(numbers[at]))
        measured = ~np.isnan(values)
        count = measured.sum(axis=0)
        total = np.where(measured, values, 0.0).sum(axis=0)
        mean: npt.NDArray[np.float64] = np.divide(total, count, out=np.full(len(weights), np.nan), where=count > 0)
        return mean

    def true_corners(self, quadrant: int | None = None) -> int:
        """Return the number of true corners in one quadrant or, with None, everywhere."""
        return len(self.true_label) if quadrant is None else int((self.true_quadrant == quadrant).sum())


def _average_precision(positive: npt.NDArray[np.bool_], counts: npt.NDArray[np.float64], number: float) -> float:
    """Return COCO's AP, precision at 101 recalls, of predictions from the best down against ``number`` true ones."""
    hits = np.cumsum(np.where(positive, counts, 0))
    recall = hits / number
    precision = hits / np.maximum(np.cumsum(counts), np.finfo(np.float64).tiny)
    # at each recall the best precision from there on
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, RECALLS, side="left")
    return float(np.append(precision, 0.0)[at].mean())


def match_corners(views: Sequence[CornersInView], radius: float) -> tuple[CornerMatches, CornerMatches]:
    """Return the matches of top-left and of bottom-right corners over photographs; ``radius`` in heatmap cells."""
    top_left, bottom_right = (_match_kind(views, which, radius) for which in range(len(KINDS)))
    return top_left, bottom_right


def corner_metrics(matches: tuple[CornerMatches, CornerMatches], classes: int) -> dict[str, float]:
    """Return the metrics of :data:`CORNER_METRICS` as fractions, NaN where there is no true corner."""
    values = [kind.mean_average_precision(classes, quadrant) for kind in matches for quadrant in (None, 0, 1)]
    return dict(zip(CORNER_METRICS, values, strict=True))


def corner_counts(matches: tuple[CornerMatches, CornerMatches]) -> dict[str, int]:
    """Return how many true corners each of :data:`CORNER_METRICS` is measured on."""
    counts = [kind.true_corners(quadrant) for kind in matches for quadrant in (None, 0, 1)]
    return dict(zip(CORNER_METRICS, counts, strict=True))


def _match_kind(views: Sequence[CornersInView], which: int, radius: float) -> CornerMatches:
    columns: list[list[npt.NDArray[Any]]] = []
    for index, view in enumerate(views):
        points = view.found[which]
        xy, labels = points.xy.double().numpy(), points.labels.numpy()
        scores = points.scores.double().numpy()
        true_xy = view.true_boxes[:, 2 * which : 2 * which + 2]
        matched = np.full(len(xy), -1, np.int64)
        for label in np.unique(labels):
            rows, true_rows = np.flatnonzero(labels == label), np.flatnonzero(view.true_labels == label)
            rows = rows[np.argsort(-scores[rows], kind="stable")]
            found = _greedy(xy[rows], true_xy[true_rows], radius)
            matched[rows[found >= 0]] = true_rows[found[found >= 0]]
        true_quadrants = _quadrants(true_xy, view.centre)
        quadrants = _quadrants(xy, view.centre)
        positive = matched >= 0
        quadrants[positive] = true_quadrants[matched[positive]]
        columns.append(
            [
                np.full(len(xy), index),
                labels,
                scores,
                quadrants,
                positive,
                np.full(len(true_xy), index),
                view.true_labels,
                true_quadrants,
            ]
        )
    joined = [np.concatenate(parts) for parts in zip(*columns, strict=True)] if columns else [np.empty(0)] * 8
    types = (np.int64, np.int64, np.float64, np.int64, np.bool_, np.int64, np.int64, np.int64)
    return CornerMatches(*(column.astype(kind) for column, kind in zip(joined, types, strict=True)))


def _greedy(xy: npt.NDArray[np.float64], true_xy: npt.NDArray[np.float64], radius: float) -> npt.NDArray[np.int64]:
    """Return for each point [N, 2], from the first on, the nearest free one of the true points [M, 2], or -1."""
    distance = np.linalg.norm(xy[:, None] - true_xy[None], axis=2)
    matched = np.full(len(xy), -1, np.int64)
    # most predicted corners are near nothing
    for row in np.flatnonzero((distance <= radius).any(axis=1)):
        nearest = int(distance[row].argmin())
        if distance[row, nearest] <= radius:
            matched[row] = nearest
            distance[:, nearest] = math.inf
    return matched


def _quadrants(xy: npt.NDArray[np.float64], centre: tuple[float, float]) -> npt.NDArray[np.int64]:
    """Return the index in :data:`QUADRANTS` of each point [N, 2], or :data:`OTHER`."""
    after = xy >= np.array(centre)
    return np.where(after.all(axis=1), 1, np.where(after.any(axis=1), OTHER, 0))
