"""Average precision of single corners, by quadrant of the photograph (as protocol 1 measured table 3).

The paper's own metric, a classification of locations, is in :mod:`cornernet.evaluation.locations`.

A predicted corner is a true positive if it lies within a small radius of a true corner of its kind and class that no
better corner has taken. In each photograph, the corners of a class are matched from the best score down, each to the
nearest free true corner within the radius.

Matching ignores quadrants. They only restrict what is counted afterwards. A true corner belongs to the quadrant in
which it lies, and so does a predicted corner without a match. A matched prediction belongs to the quadrant of its true
corner. If the border separates the two, the pair therefore counts as a hit in the true corner's quadrant. It is not a
miss there, nor a false positive on the other side. A corner on a centre line counts as right of it or below it. As in
the paper, two of the four quadrants are reported: both coordinates before the centre, or neither.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from cornernet.inference.detect import CornersInView

__all__ = [
    "CORNER_METRICS",
    "KINDS",
    "OTHER",
    "QUADRANTS",
    "CornerMatches",
    "corner_counts",
    "corner_metrics",
    "match_corners",
    "quadrants_of",
]

KINDS = ("top_left", "bottom_right")
QUADRANTS = ("top_left", "bottom_right")
CORNER_METRICS = tuple(
    name for kind in KINDS for name in (f"corner_AP/{kind}", *(f"corner_AP/{kind}/{q}_quadrant" for q in QUADRANTS))
)
OTHER = -1
"""The quadrant of corners that lie in neither of :data:`QUADRANTS`."""


@dataclass(frozen=True)
class CornerMatches:
    """The matched predicted and true corners of one kind over a data set. Their AP is computed from these.

    ``image``, ``label``, ``score``, ``quadrant`` and ``positive`` are [N], one entry per predicted corner.
    ``true_image``, ``true_label`` and ``true_quadrant`` are [M], one per true corner. Images are numbered from 0.
    Quadrants are indices into :data:`QUADRANTS`, or :data:`OTHER`.
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

        Classes without a true corner there are left out. The result is NaN if no class remains.
        """
        images = 1 + max(self.image.max(initial=-1), self.true_image.max(initial=-1))
        return float(self.mean_average_precision_under(np.ones((1, images), np.int64), classes, quadrant)[0])

    def mean_average_precision_under(
        self, weights: npt.NDArray[Any], classes: int, quadrant: int | None = None
    ) -> npt.NDArray[np.float64]:
        """Return :meth:`mean_average_precision` [B] under each row of ``weights`` [B, images].

        A weight says how many times an image counts, with its predicted and its true corners, as in the bootstrap over
        images. Images are numbered as in :attr:`image`.
        """
        from cornernet.evaluation.average_precision import average_precision_under, mean_measured

        here = np.ones_like(self.positive) if quadrant is None else self.quadrant == quadrant
        true_here = np.ones_like(self.true_label, np.bool_) if quadrant is None else self.true_quadrant == quadrant
        values = np.full((classes, len(weights)), np.nan)
        for label in range(classes):
            totals = weights[:, self.true_image[true_here & (self.true_label == label)]].sum(axis=1)
            rows = np.flatnonzero(here & (self.label == label))
            rows = rows[np.argsort(-self.score[rows], kind="stable")]
            values[label] = average_precision_under(weights, self.image[rows], self.positive[rows], totals)
        return mean_measured(values)

    def true_corners(self, quadrant: int | None = None) -> int:
        """Return the number of true corners in one quadrant or, with None, everywhere."""
        return len(self.true_label) if quadrant is None else int((self.true_quadrant == quadrant).sum())


def match_corners(views: Sequence[CornersInView], radius: float) -> tuple[CornerMatches, CornerMatches]:
    """Return the matches of top-left and of bottom-right corners over photographs; ``radius`` is in heatmap cells."""
    top_left, bottom_right = (_match_kind(views, which, radius) for which in range(len(KINDS)))
    return top_left, bottom_right


def corner_metrics(matches: tuple[CornerMatches, CornerMatches], classes: int) -> dict[str, float]:
    """Return the metrics of :data:`CORNER_METRICS` as fractions, NaN if there is no true corner."""
    values = [kind.mean_average_precision(classes, quadrant) for kind in matches for quadrant in (None, 0, 1)]
    return dict(zip(CORNER_METRICS, values, strict=True))


def corner_counts(matches: tuple[CornerMatches, CornerMatches]) -> dict[str, int]:
    """Return the number of true corners that each of :data:`CORNER_METRICS` is measured on."""
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
        true_quadrants = quadrants_of(true_xy, view.centre)
        quadrants = quadrants_of(xy, view.centre)
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
    """Return for each point [N, 2], in order, the index of the nearest free true point [M, 2], or -1."""
    distance = np.linalg.norm(xy[:, None] - true_xy[None], axis=2)
    matched = np.full(len(xy), -1, np.int64)
    # most predicted corners are far from every true one
    for row in np.flatnonzero((distance <= radius).any(axis=1)):
        nearest = int(distance[row].argmin())
        if distance[row, nearest] <= radius:
            matched[row] = nearest
            distance[:, nearest] = math.inf
    return matched


def quadrants_of(xy: npt.NDArray[np.float64], centre: tuple[float, float]) -> npt.NDArray[np.int64]:
    """Return the index in :data:`QUADRANTS` of each point [N, 2], or :data:`OTHER`."""
    after = xy >= np.array(centre)
    return np.where(after.all(axis=1), 1, np.where(after.any(axis=1), OTHER, 0))
