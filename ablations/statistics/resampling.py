"""The bootstrap over images: COCO's metrics under resamples of the evaluated images, with multiplicity.

Would another draw of as many images have given another difference? A resample draws ``I`` images out of ``I`` with
replacement; image ``i`` then counts ``w_i`` times, its objects and its detections alike. AP is no mean over images, so
it cannot be averaged per image: detections of all images are ranked together by score, and precision and recall are
accumulated down that ranking. Matching detections to objects, however, happens inside one image and does not depend on
the others. So matching runs once (:func:`match`, by pycocotools itself), and only the accumulation is repeated for
every resample (:func:`metrics_under`), with each image's events taken ``w_i`` times::

    tp(n) = sum over the first n events of [matched], fp(n) alike, over the ranking in which image i stands w_i times
    recall(n) = tp(n) / sum_i w_i * objects_i,     precision(n) = tp(n) / (tp(n) + fp(n) + eps)
    AP = mean over the 101 recall thresholds of the best precision at that recall or beyond

That is what pycocotools computes on a data set in which image ``i`` lies ``w_i`` times one behind the other, down to
how equal scores are ordered; the tests hold both to 1e-9. Only true positives are worth a division: precision falls at
every false one, so the best precision beyond a point is reached at a true positive.

The weights are a function of the evaluation data's fingerprint, :data:`WEIGHTS_VERSION` and the index of the resample,
and of nothing else. Two runs on the same data thus see the same resamples, whichever machine made them and however
much later: differences between them are paired, resample by resample.

Measured on one thread of a server's processor, 400 images with 30 detections each, 3 classes, 2,326 objects: matching
takes 0.5 s, the metrics under 1,000 resamples 0.6 s (AP alone 0.2 s), the weights 0.01 s; compiling, once, 2 s.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cornernet.compiled import compiled
from cornernet.evaluation.corners import CORNER_METRICS, KINDS, QUADRANTS, CornerMatches
from cornernet.evaluation.evaluate import METRICS

if TYPE_CHECKING:
    from cornernet.data import DetectionDataset

__all__ = [
    "RESAMPLED_METRICS",
    "RESAMPLES",
    "WEIGHTS_VERSION",
    "ClassMatches",
    "Matches",
    "Resamples",
    "bootstrap",
    "corner_bootstrap",
    "image_weights",
    "match",
    "metrics_under",
]

RESAMPLES = 1000
"""How many resamples a record holds: the standard deviation over them is known to 1 / sqrt(2 * 1000), about 2%."""

RESAMPLED_METRICS = ("AP", "AP50", "AP60", "AP70", "AP75", "AP80", "AP90", "APs", "APm", "APl")
"""What a record holds resamples of: 1,000 float32 each, 53 KB in base64 for these ten. Records from before AP60, AP70,
AP80 and AP90 were among them stay valid: in a column with such a record the spread is over seeds alone."""

WEIGHTS_VERSION = 1
"""Raise it when :func:`image_weights` changes: values under other weights are not paired with those in old records."""

_IOUS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)
_LIMITS = (1, 10, 100)
_BANDS = {"": 0, "s": 1, "m": 2, "l": 3}

# what became of a detection at one IoU threshold and area band; an ignored one (0) counts neither way
_TRUE, _FALSE = 1, 2


# ---------------------------------------------------------------------------------------------------------- matching
@dataclass(frozen=True, kw_only=True)
class ClassMatches:
    """One class: its detections from the highest score down, and its objects by image.

    ``images`` [N]: position of each detection's image in :attr:`Matches.image_ids`; ``ranks`` [N]: its place among
    its image's detections of the class, 0 the best; ``run_ends`` [N]: the end of the run of neighbours that share
    image and score (see :func:`_accumulate`); ``outcomes`` [bands, IoUs, N] uint8: 1 true, 2 false, 0 ignored;
    ``objects`` [I, bands]: objects that count, by image.
    """

    images: NDArray[np.int64]
    ranks: NDArray[np.int64]
    run_ends: NDArray[np.int64]
    outcomes: NDArray[np.uint8]
    objects: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Matches:
    """What matching found: ascending image ids, and a :class:`ClassMatches` for each category."""

    image_ids: tuple[int, ...]
    classes: tuple[ClassMatches, ...]


def match(
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    area_bands: tuple[float, float],
    category_ids: Sequence[int],
) -> Matches:
    """Match ``results`` (COCO's result format) to ``truth`` (COCO's annotation format) with pycocotools.

    ``area_bands`` are the upper areas of small and of medium objects in square pixels. Neither input is written to.
    Raises ``ValueError`` for a result on an image that ``truth`` has not, or with a score that is not finite.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    _check_results(truth, results)
    own: dict[str, Any] = {**truth, "annotations": [dict(annotation) for annotation in truth["annotations"]]}
    # pycocotools prints as it goes
    with contextlib.redirect_stdout(io.StringIO()):
        gt, dt = COCO(), COCO()
        gt.dataset = own
        gt.createIndex()
        if results:
            dt = gt.loadRes([dict(result) for result in results])
        else:
            dt.dataset = {**own, "annotations": []}
            dt.createIndex()
        run = COCOeval(gt, dt, "bbox")
        small, medium = area_bands
        run.params.areaRng = [[0, 1e10], [0, small], [small, medium], [medium, 1e10]]
        run.params.maxDets = list(_LIMITS)
        run.params.catIds = list(category_ids)
        run.evaluate()
    images = [int(image) for image in run.params.imgIds]
    # [class, band, image]; None where an image has neither objects nor detections of the class
    count, bands = len(images), len(run.params.areaRng)
    found = run.evalImgs
    classes = []
    for k in range(len(run.params.catIds)):
        at = k * bands * count
        classes.append(_class_matches([found[at + a * count : at + (a + 1) * count] for a in range(bands)]))
    return Matches(image_ids=tuple(images), classes=tuple(classes))


def _check_results(truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
    known = {image["id"] for image in truth["images"]}
    for number, result in enumerate(results):
        if result["image_id"] not in known:
            raise ValueError(f"result {number} is on image {result['image_id']}, which the ground truth does not have")
        if not math.isfinite(result["score"]):
            raise ValueError(f"result {number} on image {result['image_id']} has the score {result['score']}")


def _class_matches(bands: Sequence[Sequence[dict[str, Any] | None]]) -> ClassMatches:
    """Gather one class from pycocotools' entries, [band][image]."""
    objects = np.zeros((len(bands[0]), len(bands)), np.int64)
    for a, entries in enumerate(bands):
        for i, entry in enumerate(entries):
            if entry is not None:
                objects[i, a] = np.count_nonzero(np.asarray(entry["gtIgnore"]) == 0)
    # the detections of an image and their order are the same in every band
    present = [i for i, entry in enumerate(bands[0]) if entry is not None]
    sizes = [len(_entry(bands[0], i)["dtScores"]) for i in present]
    images = np.repeat(np.asarray(present, np.int64), sizes)
    ranks = np.concatenate([np.arange(size) for size in sizes] or [np.zeros(0, np.int64)])
    scores = np.concatenate([_entry(bands[0], i)["dtScores"] for i in present] or [[]]).astype(np.float64)
    outcomes = np.zeros((len(bands), len(_IOUS), len(scores)), np.uint8)
    for a, entries in enumerate(bands):
        if present:
            matched = np.concatenate([_entry(entries, i)["dtMatches"] for i in present], axis=1) != 0
            ignored = np.concatenate([_entry(entries, i)["dtIgnore"] for i in present], axis=1).astype(bool)
            outcomes[a] = np.where(ignored, 0, np.where(matched, _TRUE, _FALSE))
    order = np.argsort(-scores, kind="stable")
    images, scores = images[order], scores[order]
    return ClassMatches(
        images=images,
        ranks=ranks[order].astype(np.int64),
        run_ends=_run_ends(images, scores),
        outcomes=np.ascontiguousarray(outcomes[:, :, order]),
        objects=objects,
    )


def _entry(entries: Sequence[dict[str, Any] | None], image: int) -> dict[str, Any]:
    entry = entries[image]
    assert entry is not None  # whether there is one depends on the class and the image alone
    return entry


def _run_ends(images: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for each detection where the run of neighbours ends that share its image and its score."""
    last = np.ones(len(images), bool)
    last[:-1] = (images[1:] != images[:-1]) | (scores[1:] != scores[:-1])
    ends = np.flatnonzero(last) + 1
    return np.repeat(ends, np.diff(ends, prepend=0)).astype(np.int64)


# ----------------------------------------------------------------------------------------------------------- weights
def image_weights(
    fingerprint: str, images: int, resamples: int = RESAMPLES, *, version: int = WEIGHTS_VERSION
) -> NDArray[np.int64]:
    """Return how often each of ``images`` images (in ascending order of id) counts in each resample: [B, images].

    Rows sum to ``images`` and follow the multinomial law of drawing with replacement. Row ``b`` is made of the bits of
    SHAKE-256 over fingerprint, version and ``b``, so it is the same on every machine and with every library version,
    which numpy does not promise of its generators; more resamples add rows and change none. The draw of an image from
    32 bits favours some by less than ``images`` in 2^32.
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
@compiled
def _accumulate(
    weights: NDArray[np.int64],
    images: NDArray[np.int64],
    run_ends: NDArray[np.int64],
    outcomes: NDArray[np.uint8],
    objects: NDArray[np.int64],
    recalls: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return AP [resamples, bands, IoUs] of one class, NaN where a resample holds no object of a band.

    ``objects`` [resamples, bands] are already weighted. The ranking of a resample is written out, each detection as
    often as its image counts. Detections of one image that share a score form a run, and the run is repeated as a
    whole: that is the order in which a stable sort leaves copies of an image that lie one behind the other.
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
                    # without a branch: the last write to an element is the one at its true positive
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
    """Return each metric under each row of ``weights`` [B, images] as float64 [B], NaN where there is none.

    ``metrics`` are names of :data:`cornernet.evaluation.evaluate.METRICS`. As in pycocotools, a class without objects
    in a resample does not enter that resample's mean over classes, and a metric that no class has is NaN. A row of ones
    gives pycocotools' numbers. Raises ``ValueError`` for an unknown metric, and for weights that are negative or not
    one an image.
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise ValueError(f"there is no metric {unknown[0]!r}; use names among {', '.join(METRICS)}")
    if weights.ndim != 2 or weights.shape[1] != len(matches.image_ids):
        raise ValueError(f"weights are {list(weights.shape)}, and must be [resamples, {len(matches.image_ids)} images]")
    if (weights < 0).any():
        raise ValueError("a weight is negative: weights are how often an image counts")
    whole = weights.astype(np.int64)
    # only the bands asked for: time grows with their number
    bands = sorted({_band(name) for name in metrics if name.startswith("AP")})
    limits = sorted({_recall_column(name) for name in metrics if name.startswith("AR")})
    precision = np.full((len(whole), len(matches.classes), 4, len(_IOUS)), np.nan)
    recall = {column: np.full((len(whole), len(matches.classes), len(_IOUS)), np.nan) for column in limits}
    for k, entry in enumerate(matches.classes):
        objects = whole @ entry.objects
        if bands:
            chosen = np.ascontiguousarray(entry.outcomes[bands])
            totals = np.ascontiguousarray(objects[:, bands])
            precision[:, k, bands] = _accumulate(whole, entry.images, entry.run_ends, chosen, totals, _RECALLS)
        for band, limit in limits:
            recall[band, limit][:, k] = _recall(whole, entry, objects[:, band], band, limit)
    values = {}
    for name in metrics:
        if name.startswith("AR"):
            values[name] = _mean_measured(recall[_recall_column(name)])
        elif name[2:].isdigit():
            at = int(np.argmin(np.abs(_IOUS - int(name[2:]) / 100)))
            values[name] = _mean_measured(precision[:, :, 0, at])
        else:
            values[name] = _mean_measured(precision[:, :, _band(name)])
    return values


def _band(name: str) -> int:
    return _BANDS.get(name[2:], 0)


def _recall_column(name: str) -> tuple[int, int]:
    """Return the area band and the limit of detections an image and class, of an AR."""
    return (0, int(name[2:])) if name[2:].isdigit() else (_band(name), _LIMITS[-1])


def _recall(
    weights: NDArray[np.int64], entry: ClassMatches, objects: NDArray[np.int64], band: int, limit: int
) -> NDArray[np.float64]:
    """Return recall [resamples, IoUs] of one class with at most ``limit`` detections an image; order plays no part."""
    true = (entry.outcomes[band] == _TRUE) & (entry.ranks < limit)
    by_image = np.zeros((weights.shape[1], len(_IOUS)), np.int64)
    np.add.at(by_image, entry.images, true.T)
    counted = (weights @ by_image).astype(np.float64)
    some = np.broadcast_to(objects[:, None] > 0, counted.shape)
    recall: NDArray[np.float64] = np.divide(counted, objects[:, None], out=np.full(counted.shape, np.nan), where=some)
    return recall


def _mean_measured(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over all axes but the first of what is not NaN; NaN where all is."""
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

    ``fingerprint`` and ``version`` say which weights; ``values`` has float64 [B] for each metric, rounded to float32
    so that a record read back is equal, NaN where a resample has nothing to measure the metric on.
    """

    fingerprint: str
    version: int
    values: Mapping[str, NDArray[np.float64]] = field(repr=False)

    def paired_with(self, other: Resamples) -> bool:
        """Tell whether both hold values under the same weights, so that differences are paired."""
        return (self.fingerprint, self.version, self._count()) == (other.fingerprint, other.version, other._count())

    def joined(self, other: Resamples) -> Resamples:
        """Return the metrics of both. Raises ``ValueError`` unless both are under the same weights."""
        if not self.paired_with(other):
            raise ValueError("resamples under different weights cannot be joined: evaluate both on the same images")
        return Resamples(fingerprint=self.fingerprint, version=self.version, values={**self.values, **other.values})

    def _count(self) -> int:
        return len(next(iter(self.values.values())))

    def to_record(self) -> dict[str, Any]:
        """Return it as JSON: little-endian float32 in base64, one string a metric."""
        return {
            "fingerprint": self.fingerprint,
            "version": self.version,
            "resamples": self._count(),
            "values": {
                name: base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")
                for name, values in self.values.items()
            },
        }

    @classmethod
    def from_record(cls, tree: Mapping[str, Any], where: str = "the record") -> Resamples:
        """Read what :meth:`to_record` wrote. Raises ``ValueError`` naming ``where`` and the field for anything else."""
        missing = [name for name in ("fingerprint", "version", "resamples", "values") if name not in tree]
        if missing:
            raise ValueError(f"{where}: the resamples lack the field {missing[0]!r}; evaluate again")
        if not tree["values"]:
            raise ValueError(f"{where}: the resamples hold no metric; evaluate again")
        values = {}
        for name, text in tree["values"].items():
            try:
                raw = base64.b64decode(text, validate=True)
            except (binascii.Error, TypeError, ValueError) as error:
                raise ValueError(
                    f"{where}: the resamples of {name} are not base64 ({error}); evaluate again"
                ) from error
            if len(raw) != 4 * tree["resamples"]:
                raise ValueError(
                    f"{where}: the resamples of {name} are {len(raw)} bytes, and {tree['resamples']} float32 are "
                    f"{4 * tree['resamples']}; evaluate again"
                )
            values[name] = np.frombuffer(raw, "<f4").astype(np.float64)
        return cls(fingerprint=tree["fingerprint"], version=tree["version"], values=values)


def bootstrap(
    dataset: DetectionDataset,
    results: Sequence[Mapping[str, Any]],
    metrics: Sequence[str] = RESAMPLED_METRICS,
    resamples: int = RESAMPLES,
) -> Resamples:
    """Return the metrics of ``results`` (COCO's result format) on ``dataset`` under resamples of its images."""
    matches = match(dataset.ground_truth(), results, area_bands=dataset.area_bands, category_ids=dataset.category_ids)
    weights = image_weights(dataset.fingerprint, len(matches.image_ids), resamples)
    return _rounded(dataset.fingerprint, metrics_under(matches, weights, metrics))


def corner_bootstrap(
    dataset: DetectionDataset, matches: tuple[CornerMatches, CornerMatches], resamples: int = RESAMPLES
) -> Resamples:
    """Return the metrics of ``CORNER_METRICS`` under the resamples of :func:`bootstrap`.

    ``matches`` are of an evaluation of ``dataset``, whose images they count in the order of the data set.
    """
    ids = np.array([dataset.image_id(index) for index in range(len(dataset))])
    # image_weights counts images by ascending id
    column = np.argsort(np.argsort(ids))
    weights = image_weights(dataset.fingerprint, len(ids), resamples)[:, column]
    classes = len(dataset.classes)
    quadrants = (None, *range(len(QUADRANTS)))
    values = [
        matches[kind].mean_average_precision_under(weights, classes, quadrant)
        for kind in range(len(KINDS))
        for quadrant in quadrants
    ]
    return _rounded(dataset.fingerprint, dict(zip(CORNER_METRICS, values, strict=True)))


def _rounded(fingerprint: str, values: Mapping[str, NDArray[np.float64]]) -> Resamples:
    return Resamples(
        fingerprint=fingerprint,
        version=WEIGHTS_VERSION,
        values={name: value.astype(np.float32).astype(np.float64) for name, value in values.items()},
    )
