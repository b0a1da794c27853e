"""Matching boxes to objects, once: what COCO's AP, its resamples and TIDE's error types are all computed from.

:func:`match_boxes` is the only place that sets up a COCOeval: area bands, detections per image, the order of the
classes, and how results become the backend's data structures.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cornernet.config.choices import DEFAULT_BACKEND, Backend

__all__ = [
    "FALSE_POSITIVE",
    "IOUS",
    "MAX_DETECTIONS",
    "RECALLS",
    "TRUE_POSITIVE",
    "BoxMatching",
    "ClassMatches",
    "Matches",
    "match_boxes",
]

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = (1, 10, 100)

# the outcome of a detection at one IoU threshold and area band; an ignored one (0) counts as neither
TRUE_POSITIVE, FALSE_POSITIVE = 1, 2


@dataclass(frozen=True, kw_only=True)
class ClassMatches:
    """One class: its detections, sorted by falling score, and its objects by image.

    * ``images`` [N]: position of each detection's image in :attr:`Matches.image_ids`.
    * ``ranks`` [N]: rank of the detection among those of its image and class, 0 being the best.
    * ``run_ends`` [N]: end of the run of neighbours that share image and score. The bootstrap repeats runs as a whole.
    * ``outcomes`` [bands, IoUs, N] uint8: :data:`TRUE_POSITIVE`, :data:`FALSE_POSITIVE`, or 0 for ignored.
    * ``objects`` [I, bands]: number of objects that count, by image.

    The area bands are all, small, medium, large.
    """

    images: NDArray[np.int64]
    ranks: NDArray[np.int64]
    run_ends: NDArray[np.int64]
    outcomes: NDArray[np.uint8]
    objects: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Matches:
    """The result of matching: ascending image ids, and a :class:`ClassMatches` for each class."""

    image_ids: tuple[int, ...]
    classes: tuple[ClassMatches, ...]


class BoxMatching:
    """Detections matched to objects by one backend's COCOeval; see :func:`match_boxes`."""

    def __init__(self, run: Any, backend: Backend, image_ids: Sequence[int]) -> None:
        self._run = run
        self.backend = backend
        self._image_ids = tuple(image_ids)
        """In the order of the run's own ids."""

    def accumulated(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return COCO's precision [IoU, recall, class, band, limit] and recall [IoU, class, band, limit].

        Values are fractions, and -1 where nothing was measured. Limits are those of :data:`MAX_DETECTIONS`.
        """
        with contextlib.redirect_stdout(io.StringIO()):
            self._run.accumulate()
        return np.asarray(self._run.eval["precision"]), np.asarray(self._run.eval["recall"])

    def ap50_gains(self) -> dict[str, float]:
        """Return how much AP50 would gain without each of TIDE's error types, by hotcoco's names of the types.

        Raises ``ValueError`` for a matching by another backend: only hotcoco knows TIDE.
        """
        if self.backend != "hotcoco":
            raise ValueError(f"error types need a matching by hotcoco, and this one is by {self.backend}")
        gains: dict[str, float] = self._run.tide_errors(pos_thr=0.5, bg_thr=0.1)["delta_ap"]
        return gains

    def matches(self) -> Matches:
        """Return what became of every detection, gathered by class. Both backends give the same matches."""
        params = self._run.params
        images = [int(image) for image in params.imgIds]
        bands = [tuple(map(float, band)) for band in params.areaRng]
        # pycocotools lists images within bands within classes, with None where an image has neither objects nor
        # detections of the class; hotcoco lists classes within images and leaves those out
        entries = {
            (int(entry["category_id"]), tuple(map(float, entry["aRng"])), int(entry["image_id"])): entry
            for entry in self._run.evalImgs
            if entry is not None
        }
        return Matches(
            image_ids=self._image_ids,
            classes=tuple(
                _class_matches([[entries.get((int(category), band, image)) for image in images] for band in bands])
                for category in params.catIds
            ),
        )


def match_boxes(
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    area_bands: tuple[float, float],
    category_ids: Sequence[int],
    backend: Backend = DEFAULT_BACKEND,
) -> BoxMatching:
    """Match ``results`` (COCO's result format) to ``truth`` (COCO's annotation format).

    ``area_bands`` are the largest areas of small and of medium objects in square pixels. ``category_ids`` gives the
    order of the classes. Crowds are ignored. Neither input is modified.

    Raises ``ValueError`` for an unknown backend, for a result on an image that ``truth`` does not have, and for a score
    or a side of a box that is not finite: COCOeval lets a box of NaN match any object.
    """
    if backend not in ("pycocotools", "hotcoco"):
        raise ValueError(f"there is no evaluation backend {backend!r}; use pycocotools or hotcoco")
    _check_results(truth, results)
    # both backends print to standard output
    image_ids = sorted(image["id"] for image in truth["images"])
    with contextlib.redirect_stdout(io.StringIO()):
        # numbered anew from 1: pycocotools sorts the classes by their ids and takes an object of id 0 for none, and
        # hotcoco has no negative ids
        images = {number: at for at, number in enumerate(image_ids, start=1)}
        categories = {number: at for at, number in enumerate(category_ids, start=1)}
        truth, results = _numbered(truth, images, categories), _renumbered(results, images, categories)
        run = _pycocotools(truth, results) if backend == "pycocotools" else _hotcoco(truth, results)
        small, medium = area_bands
        run.params.areaRng = [[0, 1e10], [0, small], [small, medium], [medium, 1e10]]
        run.params.maxDets = list(MAX_DETECTIONS)
        run.params.catIds = list(categories.values())
        run.evaluate()
    return BoxMatching(run, backend, image_ids)


def _check_results(truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
    known = {image["id"] for image in truth["images"]}
    for number, result in enumerate(results):
        if result["image_id"] not in known:
            raise ValueError(f"result {number} is on image {result['image_id']}, which the ground truth does not have")
        if not math.isfinite(result["score"]):
            raise ValueError(f"result {number} on image {result['image_id']} has the score {result['score']}")
        # the sum is one number to look at instead of four
        if not math.isfinite(sum(result["bbox"])) and not all(map(math.isfinite, result["bbox"])):
            raise ValueError(f"result {number} on image {result['image_id']} has the box {list(result['bbox'])}")


def _pycocotools(truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # copies: pycocotools writes into the annotations and results that it is given
    own = {**truth, "annotations": [dict(annotation) for annotation in truth["annotations"]]}
    gt, dt = COCO(), COCO()
    gt.dataset = own
    gt.createIndex()
    if results:
        dt = gt.loadRes([dict(result) for result in results])
    else:
        # loadRes looks at the first result
        dt.dataset = {**own, "annotations": []}
        dt.createIndex()
    return COCOeval(gt, dt, "bbox")


def _numbered(truth: Mapping[str, Any], images: Mapping[int, int], categories: Mapping[int, int]) -> dict[str, Any]:
    """Return ``truth`` with other ids of images and categories, and annotations numbered from 1."""
    return {
        **truth,
        "images": [{**image, "id": images[image["id"]]} for image in truth["images"]],
        "categories": [{**row, "id": categories[row["id"]]} for row in truth["categories"] if row["id"] in categories],
        "annotations": [
            {**row, "id": number}
            for number, row in enumerate(_renumbered(truth["annotations"], images, categories), start=1)
        ],
    }


def _renumbered(
    rows: Sequence[Mapping[str, Any]], images: Mapping[int, int], categories: Mapping[int, int]
) -> list[dict[str, Any]]:
    """Return annotations or results with other ids, without those of classes that are not evaluated."""
    return [
        {**row, "image_id": images[row["image_id"]], "category_id": categories[row["category_id"]]}
        for row in rows
        if row["category_id"] in categories
    ]


def _hotcoco(truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> Any:
    from hotcoco import COCO, COCOeval

    gt = COCO(dict(truth))
    dt = gt.loadRes([dict(result) for result in results]) if results else COCO({**truth, "annotations": []})
    return COCOeval(gt, dt, "bbox")


def _class_matches(bands: Sequence[Sequence[dict[str, Any] | None]]) -> ClassMatches:
    """Gather one class from the backend's entries, [band][image]."""
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
    outcomes = np.zeros((len(bands), len(IOUS), len(scores)), np.uint8)
    for a, entries in enumerate(bands):
        if present:
            matched = np.concatenate([_entry(entries, i)["dtMatches"] for i in present], axis=1) != 0
            ignored = np.concatenate([_entry(entries, i)["dtIgnore"] for i in present], axis=1).astype(bool)
            outcomes[a] = np.where(ignored, 0, np.where(matched, TRUE_POSITIVE, FALSE_POSITIVE))
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
    assert entry is not None  # whether there is one depends only on the class and the image
    return entry


def _run_ends(images: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for each detection the end of the run of neighbours that share its image and its score."""
    last = np.ones(len(images), bool)
    last[:-1] = (images[1:] != images[:-1]) | (scores[1:] != scores[:-1])
    ends = np.flatnonzero(last) + 1
    return np.repeat(ends, np.diff(ends, prepend=0)).astype(np.int64)
