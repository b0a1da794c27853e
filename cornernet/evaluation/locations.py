"""Corners as a classification of locations (paper section 4.4.2, table 3).

Every cell of a corner heatmap is an example of its class, scored by the heatmap. "The ground-truth location of a corner
is positive, and any location outside of a small radius of the corner is negative": the cell that holds a true corner of
the class is positive, other cells within the radius of one are ignored, and all others are negative. Distances are
between cells. AP is COCO's, over all locations of a data set; mAP is its mean over classes. Nothing is matched and no
peak is picked, so the metric sees the heatmaps alone.

The paper prints neither its radius nor what it does at a border. Here a location belongs to the quadrant that holds its
cell's centre, and a cell that holds the corners of several objects of a class is one location. Cells beyond the
photograph are locations too. Of two equal scores, the negative location ranks first.

Only the best :data:`MOST` locations of an image and a kind of corner are kept, as COCO keeps the best 100 boxes; a true
one beyond them counts as missed. ``tests/unit/test_location_evaluation.py`` holds what that costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from cornernet.evaluation.corners import KINDS, QUADRANTS, quadrants_of

if TYPE_CHECKING:
    from cornernet.inference.detect import LocationsInView

__all__ = [
    "MOST",
    "KeptLocations",
    "Locations",
    "Question",
    "join_locations",
    "kept_locations",
    "location_counts",
    "location_metrics",
    "location_metrics_under",
    "questions",
]

MOST = 1000
"""Locations of an image and a kind of corner that are kept."""


@dataclass(frozen=True)
class KeptLocations:
    """The best locations of one kind of corner in one image, and its true ones.

    ``label``, ``score``, ``distance`` and ``quadrant`` are [N]: the class, the heatmap's score, the distance in cells
    to the nearest true location of the class (infinite without one), and the index in ``QUADRANTS``, or ``OTHER``.
    ``true_label`` and ``true_quadrant`` are [M], of the true locations.
    """

    label: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]
    distance: npt.NDArray[np.float32]
    quadrant: npt.NDArray[np.int64]
    true_label: npt.NDArray[np.int64]
    true_quadrant: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Locations:
    """The locations of one kind of corner over a data set, with their images, numbered from 0."""

    kept: KeptLocations
    image: npt.NDArray[np.int64]
    true_image: npt.NDArray[np.int64]

    def mean_average_precision(self, classes: int, radius: float, quadrant: int | None = None) -> float:
        """Return mAP in one quadrant or, with None, everywhere. NaN where no class has a true location there."""
        images = 1 + max(self.image.max(initial=-1), self.true_image.max(initial=-1))
        return float(self.mean_average_precision_under(np.ones((1, images), np.int64), classes, radius, quadrant)[0])

    def mean_average_precision_under(
        self, weights: npt.NDArray[np.int64], classes: int, radius: float, quadrant: int | None = None
    ) -> npt.NDArray[np.float64]:
        """Return :meth:`mean_average_precision` [B] under each row of ``weights`` [B, images]."""
        from cornernet.evaluation.average_precision import average_precision_under, mean_measured

        kept = self.kept
        positive = kept.distance == 0
        counts = positive | (kept.distance > radius)
        true_here = np.ones(len(kept.true_label), np.bool_)
        if quadrant is not None:
            counts &= kept.quadrant == quadrant
            true_here = kept.true_quadrant == quadrant
        values = np.full((classes, len(weights)), np.nan)
        for label in range(classes):
            rows = np.flatnonzero(counts & (kept.label == label))
            # of equal scores the negative ones first; then in the order of images and cells
            rows = rows[np.lexsort((positive[rows], -kept.score[rows]))]
            totals = weights[:, self.true_image[true_here & (kept.true_label == label)]].sum(axis=1)
            values[label] = average_precision_under(weights, self.image[rows], positive[rows], totals)
        return mean_measured(values)

    def true_locations(self, quadrant: int | None = None) -> int:
        """Return the number of true locations in one quadrant or, with None, everywhere."""
        quadrants = self.kept.true_quadrant
        return len(quadrants) if quadrant is None else int((quadrants == quadrant).sum())


def kept_locations(view: LocationsInView, most: int = MOST) -> tuple[KeptLocations, KeptLocations]:
    """Return the best locations of top-left and of bottom-right corners in a photograph."""
    top_left, bottom_right = (_kept(view, which, most) for which in range(len(KINDS)))
    return top_left, bottom_right


def _kept(view: LocationsInView, which: int, most: int) -> KeptLocations:
    scores = view.scores[which]
    height, width = scores.shape[1:]
    cells = np.floor(view.true_boxes[:, 2 * which : 2 * which + 2]).astype(np.int64)
    # a corner on the far edge of the map belongs to the last cell
    cells = cells.clip(0, (width - 1, height - 1))
    true = np.unique(np.column_stack([view.true_labels, cells]), axis=0)
    distance = np.full(scores.shape, np.inf, np.float32)
    x, y = np.arange(width), np.arange(height)[:, None]
    for label, column, row in true.tolist():
        near = np.hypot(x - column, y - row).astype(np.float32)
        np.minimum(distance[label], near, out=distance[label])
    best = np.argsort(-scores.ravel(), kind="stable")[:most]
    centres = np.column_stack([best % width + 0.5, best // width % height + 0.5])
    return KeptLocations(
        label=best // (height * width),
        score=scores.ravel()[best],
        distance=distance.ravel()[best],
        quadrant=quadrants_of(centres, view.centre),
        true_label=true[:, 0],
        true_quadrant=quadrants_of(true[:, 1:] + 0.5, view.centre),
    )


def join_locations(
    images: Sequence[tuple[KeptLocations, KeptLocations]],
) -> tuple[Locations, Locations]:
    """Return the locations of both kinds of corners over the images of a data set, in their order."""
    top_left, bottom_right = (_joined([image[which] for image in images]) for which in range(len(KINDS)))
    return top_left, bottom_right


def _joined(images: Sequence[KeptLocations]) -> Locations:
    columns = {each.name: [getattr(image, each.name) for image in images] for each in fields(KeptLocations)}
    kept = KeptLocations(**{name: np.concatenate(parts) for name, parts in columns.items()})
    numbers = np.arange(len(images))
    return Locations(
        kept,
        np.repeat(numbers, [len(image.label) for image in images]),
        np.repeat(numbers, [len(image.true_label) for image in images]),
    )


# ----------------------------------------------------------------------------------------------------------- metrics
class Question(NamedTuple):
    """What a metric is about: a kind of corner, the radius in cells, and a quadrant or None for all of them."""

    kind: int
    radius: float
    quadrant: int | None


def questions(radii: Sequence[float]) -> dict[str, Question]:
    """Return the metrics of ``testing.location_radii`` by name.

    For each kind of corner, ``location_AP/top_left`` at the first radius, the same in each quadrant, and then at the
    other radii, as in ``location_AP/top_left/radius_2.5``.
    """
    found = {}
    for kind, name in enumerate(KINDS):
        start = f"location_AP/{name}"
        found[start] = Question(kind, radii[0], None)
        found |= {f"{start}/{each}_quadrant": Question(kind, radii[0], at) for at, each in enumerate(QUADRANTS)}
        found |= {f"{start}/radius_{radius:g}": Question(kind, radius, None) for radius in radii[1:]}
    return found


def location_metrics(locations: tuple[Locations, Locations], classes: int, radii: Sequence[float]) -> dict[str, float]:
    """Return the metrics of :func:`questions` as fractions, NaN if there is no true location."""
    return {
        name: locations[asked.kind].mean_average_precision(classes, asked.radius, asked.quadrant)
        for name, asked in questions(radii).items()
    }


def location_metrics_under(
    locations: tuple[Locations, Locations], weights: npt.NDArray[np.int64], classes: int, radii: Sequence[float]
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the metrics of :func:`questions` [B] under each row of ``weights`` [B, images]."""
    return {
        name: locations[asked.kind].mean_average_precision_under(weights, classes, asked.radius, asked.quadrant)
        for name, asked in questions(radii).items()
    }


def location_counts(locations: tuple[Locations, Locations], radii: Sequence[float]) -> dict[str, int]:
    """Return the number of true locations that each metric of :func:`questions` is measured on."""
    return {name: locations[asked.kind].true_locations(asked.quadrant) for name, asked in questions(radii).items()}
