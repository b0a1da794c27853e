"""The bootstrap over images: COCO's metrics under resamples of the evaluated images, with multiplicity.

The question is whether another sample of as many images would have given another difference. A resample draws ``I``
images out of ``I`` with replacement. Image ``i`` then counts ``w_i`` times, with its objects and its detections. AP is
not a mean over images, so it cannot be averaged per image: the detections of all images are ranked together by score,
and precision and recall are accumulated down that ranking. Matching detections to objects, however, happens within one
image and does not depend on the others. So the evaluation's own matching is used (``cornernet.evaluation.matching``),
and only the accumulation is repeated for each resample (:func:`metrics_under`), with each image's events taken ``w_i``
times::

    tp(n) = sum over the first n events of [matched], fp(n) likewise, over the ranking that has image i w_i times
    recall(n) = tp(n) / sum_i w_i * objects_i,     precision(n) = tp(n) / (tp(n) + fp(n) + eps)
    AP = mean over the 101 recall thresholds of the best precision at that recall or beyond

This is what pycocotools computes on a data set that contains image ``i`` ``w_i`` times in succession, down to the order
of equal scores. The tests require agreement to 1e-9. Only true positives need a division: precision falls at every
false positive, so the best precision beyond a point is reached at a true positive.

The weights depend only on the fingerprint of the evaluation data, :data:`WEIGHTS_VERSION` and the index of the
resample. Two runs on the same data therefore see the same resamples, on any machine and at any time, and differences
between them are paired, resample by resample.

Measured on one server CPU thread with 400 images of 30 detections each, 3 classes, and 2,326 objects: matching takes
0.5 s, the metrics under 1,000 resamples take 0.6 s (0.2 s for AP only), the weights 0.01 s. Compiling takes 2 s, once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cornernet.evaluation.corners import CORNER_METRICS, KINDS, QUADRANTS, CornerMatches
from cornernet.evaluation.evaluate import METRICS
from cornernet.evaluation.locations import Locations, location_metrics_under
from cornernet.evaluation.matching import (
    IOUS,
    MAX_DETECTIONS,
    RECALLS,
    TRUE_POSITIVE,
    BoxMatching,
    ClassMatches,
    Matches,
)
from cornernet.kernels.compiled import compiled

from .packing import pack, unpack

if TYPE_CHECKING:
    from cornernet.data import DetectionDataset

__all__ = [
    "RESAMPLED_METRICS",
    "RESAMPLES",
    "WEIGHTS_VERSION",
    "Resamples",
    "bootstrap",
    "corner_bootstrap",
    "image_weights",
    "location_bootstrap",
    "metrics_under",
]

RESAMPLES = 1000
"""Resamples per record. They give the standard deviation to 1 / sqrt(2 * 1000), about 2%."""

RESAMPLED_METRICS = ("AP", "AP50", "AP60", "AP70", "AP75", "AP80", "AP90", "APs", "APm", "APl")
"""The resampled metrics of a record. Older records without AP60, AP70, AP80 and AP90 remain valid: in a column with
such a record the spread is only over seeds."""

WEIGHTS_VERSION = 1
"""Increase this when :func:`image_weights` changes: values under different weights cannot be paired."""

_BANDS = {"": 0, "s": 1, "m": 2, "l": 3}


# ----------------------------------------------------------------------------------------------------------- weights
def image_weights(
    fingerprint: str, images: int, resamples: int = RESAMPLES, *, version: int = WEIGHTS_VERSION
) -> NDArray[np.int64]:
    """Return how often each of ``images`` images (in ascending order of id) counts in each resample: [B, images].

    Rows sum to ``images`` and follow the multinomial distribution of drawing with replacement. Row ``b`` is made from
    the bits of SHAKE-256 over fingerprint, version and ``b``, so it is the same on every machine and with every library
    version, which numpy does not guarantee for its generators. More resamples add rows and change none. Drawing an
    image from 32 bits favours some images by less than ``images`` in 2^32. Raises ``ValueError`` if there are no
    images.
    """
    if images < 1:
        raise ValueError("there are no images to resample")
    weights = np.empty((resamples, images), np.int64)
    for index in range(resamples):
        stream = hashlib.shake_256(f"image weights {version}/{fingerprint}/{index}".encode())
        bits = np.frombuffer(stream.digest(4 * images), "<u4").astype(np.uint64)
        drawn = (bits * np.uint64(images)) >> np.uint64(32)
        weights[index] = np.bincount(drawn.astype(np.int64), minlength=images)
    return weights


# ------------------------------------------------------------------------------------------------------ accumulation
@compiled("float64[:,:,::1](int64[:,::1], int64[::1], int64[::1], uint8[:,:,::1], int64[:,::1], float64[::1])")
def _accumulate(
    weights: NDArray[np.int64],
    images: NDArray[np.int64],
    run_ends: NDArray[np.int64],
    outcomes: NDArray[np.uint8],
    objects: NDArray[np.int64],
    recalls: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return AP [resamples, bands, IoUs] of one class, NaN if a resample has no object in a band.

    ``objects`` [resamples, bands] are already weighted. The ranking of a resample lists each detection as often as its
    image counts. Detections of one image that share a score form a run, and the run is repeated as a whole: a stable
    sort leaves successive copies of an image in this order.
    """
    resamples, bands, ious = weights.shape[0], outcomes.shape[0], outcomes.shape[1]
    found = np.full((resamples, bands, ious), np.nan)
    epsilon = np.spacing(1.0)
    for b in range(resamples):
        length = 0
        for n in range(len(images)):
            length += weights[b, images[n]]
        ranking = np.empty(length, np.int64)
        false_before = np.empty(length + 1, np.int64)
        at, n = 0, 0
        while n < len(images):
            end = run_ends[n]
            for _ in range(weights[b, images[n]]):
                for member in range(n, end):
                    ranking[at] = member
                    at += 1
            n = end
        for a in range(bands):
            total = objects[b, a]
            if total == 0:
                continue
            for t in range(ious):
                outcome = outcomes[a, t]
                true, false = 0, 0
                for position in range(length):
                    # no branch: the last write to an element is the one at its true positive
                    false_before[true] = false
                    event = outcome[ranking[position]]
                    true += event & 1
                    false += event >> 1
                best, sum_, r = 0.0, 0.0, len(recalls) - 1
                while r > 0 and recalls[r] > true / total:
                    r -= 1
                for j in range(true, 0, -1):
                    best = max(best, j / (false_before[j - 1] + j + epsilon))
                    while r > 0 and recalls[r] > (j - 1) / total:
                        sum_ += best
                        r -= 1
                # recall 0 is reached before the first detection
                found[b, a, t] = (sum_ + best) / len(recalls)
    return found


def metrics_under(
    matches: Matches, weights: NDArray[np.integer[Any]], metrics: Sequence[str] = RESAMPLED_METRICS
) -> dict[str, NDArray[np.float64]]:
    """Return each metric under each row of ``weights`` [B, images] as float64 [B], NaN where it is undefined.

    ``metrics`` are names from :data:`cornernet.evaluation.evaluate.METRICS`. As in pycocotools, the mean over classes
    leaves out classes that have no objects in a resample, and a metric that no class has is NaN. A row of ones gives
    pycocotools' numbers. Raises ``ValueError`` for an unknown metric, for negative weights, and unless there is one
    weight per image.
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise ValueError(f"there is no metric {unknown[0]!r}; use names among {', '.join(METRICS)}")
    if weights.ndim != 2 or weights.shape[1] != len(matches.image_ids):
        raise ValueError(
            f"weights are {list(weights.shape)}; they must be [resamples, {len(matches.image_ids)} images]"
        )
    if (weights < 0).any():
        raise ValueError("a weight is negative; a weight is the number of times that an image counts")
    whole = weights.astype(np.int64)
    # only the bands that are needed, because time grows with their number
    bands = sorted({_band(name) for name in metrics if name.startswith("AP")})
    limits = sorted({_recall_column(name) for name in metrics if name.startswith("AR")})
    precision = np.full((len(whole), len(matches.classes), 4, len(IOUS)), np.nan)
    recall = {column: np.full((len(whole), len(matches.classes), len(IOUS)), np.nan) for column in limits}
    for k, entry in enumerate(matches.classes):
        objects = whole @ entry.objects
        if bands:
            chosen = np.ascontiguousarray(entry.outcomes[bands])
            totals = np.ascontiguousarray(objects[:, bands])
            precision[:, k, bands] = _accumulate(whole, entry.images, entry.run_ends, chosen, totals, RECALLS)
        for band, limit in limits:
            recall[band, limit][:, k] = _recall(whole, entry, objects[:, band], band, limit)
    values = {}
    for name in metrics:
        if name.startswith("AR"):
            values[name] = _mean_measured(recall[_recall_column(name)])
        elif name[2:].isdigit():
            at = int(np.argmin(np.abs(IOUS - int(name[2:]) / 100)))
            values[name] = _mean_measured(precision[:, :, 0, at])
        else:
            values[name] = _mean_measured(precision[:, :, _band(name)])
    return values


def _band(name: str) -> int:
    return _BANDS.get(name[2:], 0)


def _recall_column(name: str) -> tuple[int, int]:
    """Return the area band of an AR and its limit of detections per image and class."""
    return (0, int(name[2:])) if name[2:].isdigit() else (_band(name), MAX_DETECTIONS[-1])


def _recall(
    weights: NDArray[np.int64], entry: ClassMatches, objects: NDArray[np.int64], band: int, limit: int
) -> NDArray[np.float64]:
    """Return recall [resamples, IoUs] of one class with at most ``limit`` detections per image, in any order."""
    true = (entry.outcomes[band] == TRUE_POSITIVE) & (entry.ranks < limit)
    by_image = np.zeros((weights.shape[1], len(IOUS)), np.int64)
    np.add.at(by_image, entry.images, true.T)
    counted = (weights @ by_image).astype(np.float64)
    some = np.broadcast_to(objects[:, None] > 0, counted.shape)
    recall: NDArray[np.float64] = np.divide(counted, objects[:, None], out=np.full(counted.shape, np.nan), where=some)
    return recall


def _mean_measured(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of the values that are not NaN over all axes but the first; NaN if all are."""
    flat = values.reshape(len(values), -1)
    measured = ~np.isnan(flat)
    count = measured.sum(axis=1)
    total = np.where(measured, flat, 0.0).sum(axis=1)
    mean: NDArray[np.float64] = np.divide(total, count, out=np.full(len(flat), np.nan), where=count > 0)
    return mean


# ------------------------------------------------------------------------------------------------------------ record
@dataclass(frozen=True, kw_only=True)
class Resamples:
    """Metrics of one evaluation under resamples of its images, as fractions.

    ``fingerprint`` and ``version`` identify the weights. ``values`` has float64 [B] for each metric, and NaN if a
    resample has nothing to measure the metric on.
    """

    fingerprint: str
    version: int
    values: Mapping[str, NDArray[np.float64]] = field(repr=False)

    def paired_with(self, other: Resamples) -> bool:
        """Return whether both hold values under the same weights, so that differences are paired."""
        return (self.fingerprint, self.version, self._count()) == (other.fingerprint, other.version, other._count())

    def joined(self, other: Resamples) -> Resamples:
        """Return the metrics of both. Raises ``ValueError`` unless both have the same weights."""
        if not self.paired_with(other):
            raise ValueError("resamples under different weights cannot be joined: evaluate both on the same images")
        return Resamples(fingerprint=self.fingerprint, version=self.version, values={**self.values, **other.values})

    def _count(self) -> int:
        return len(next(iter(self.values.values())))

    def to_record(self) -> dict[str, Any]:
        """Return the JSON form: the step of each metric, and all values in one text (:mod:`.packing`).

        A value is rounded to its metric's step, at most a twelfth of the standard deviation.
        """
        steps, packed = pack(self.values)
        return {
            "fingerprint": self.fingerprint,
            "version": self.version,
            "resamples": self._count(),
            "steps": steps,
            "packed": packed,
        }

    @classmethod
    def from_record(cls, tree: Mapping[str, Any], where: str = "the record") -> Resamples:
        """Read what :meth:`to_record` wrote, or wrote before: little-endian float32 in base64, a text for each metric.

        Raises ``ValueError`` that names ``where`` and the invalid field.
        """
        old = "values" in tree
        needed = ("fingerprint", "version", "resamples", *(("values",) if old else ("steps", "packed")))
        missing = [name for name in needed if name not in tree]
        if missing:
            raise ValueError(f"{where}: the resamples lack the field {missing[0]!r}; evaluate again")
        if not tree["values" if old else "steps"]:
            raise ValueError(f"{where}: the resamples hold no metric; evaluate again")
        if old:
            values = {name: _float32(name, text, tree["resamples"], where) for name, text in tree["values"].items()}
        else:
            try:
                values = unpack(tree["steps"], tree["packed"], tree["resamples"])
            except ValueError as error:
                raise ValueError(f"{where}: the resamples cannot be read: {error}; evaluate again") from error
        return cls(fingerprint=tree["fingerprint"], version=tree["version"], values=values)


def _float32(name: str, text: str, count: int, where: str) -> NDArray[np.float64]:
    """Read the values of a metric as records held them before they were packed."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ValueError(f"{where}: the resamples of {name} are not base64 ({error}); evaluate again") from error
    if len(raw) != 4 * count:
        raise ValueError(
            f"{where}: the resamples of {name} are {len(raw)} bytes instead of {4 * count} "
            f"({count} float32 values); evaluate again"
        )
    return np.frombuffer(raw, "<f4").astype(np.float64)


def bootstrap(
    dataset: DetectionDataset,
    matching: BoxMatching,
    metrics: Sequence[str] = RESAMPLED_METRICS,
    resamples: int = RESAMPLES,
) -> Resamples:
    """Return the metrics of an evaluation of ``dataset`` under resamples of its images, from its ``matching``."""
    matches = matching.matches()
    weights = image_weights(dataset.fingerprint, len(matches.image_ids), resamples)
    values = metrics_under(matches, weights, metrics)
    return Resamples(fingerprint=dataset.fingerprint, version=WEIGHTS_VERSION, values=values)


def corner_bootstrap(
    dataset: DetectionDataset, matches: tuple[CornerMatches, CornerMatches], resamples: int = RESAMPLES
) -> Resamples:
    """Return the metrics of ``CORNER_METRICS`` under the resamples of :func:`bootstrap`.

    ``matches`` come from an evaluation of ``dataset`` and number its images in the order of the data set.
    """
    weights = _in_order(dataset, resamples)
    classes = len(dataset.classes)
    quadrants = (None, *range(len(QUADRANTS)))
    values = [
        matches[kind].mean_average_precision_under(weights, classes, quadrant)
        for kind in range(len(KINDS))
        for quadrant in quadrants
    ]
    by_name = dict(zip(CORNER_METRICS, values, strict=True))
    return Resamples(fingerprint=dataset.fingerprint, version=WEIGHTS_VERSION, values=by_name)


def location_bootstrap(
    dataset: DetectionDataset,
    locations: tuple[Locations, Locations],
    radii: Sequence[float],
    resamples: int = RESAMPLES,
) -> Resamples:
    """Return the metrics of :func:`cornernet.evaluation.locations.questions` under the resamples of :func:`bootstrap`.

    ``locations`` come from an evaluation of ``dataset`` and number its images in the order of the data set.
    """
    weights = _in_order(dataset, resamples)
    values = location_metrics_under(locations, weights, len(dataset.classes), radii)
    return Resamples(fingerprint=dataset.fingerprint, version=WEIGHTS_VERSION, values=values)


def _in_order(dataset: DetectionDataset, resamples: int) -> NDArray[np.int64]:
    """Return the weights [B, images] of the images in the order of the data set."""
    ids = np.array([dataset.image_id(index) for index in range(len(dataset))])
    # image_weights counts images by ascending id
    column = np.argsort(np.argsort(ids))
    return image_weights(dataset.fingerprint, len(ids), resamples)[:, column]
