"""COCO evaluation of detections: average precision and recall over a data set (paper section 4.2).

Four fields of ``config.testing`` change what is measured:

* ``corner_metrics`` adds the average precision of single corners (``cornernet.evaluation.corners``);
* ``location_radii`` adds that of corners as a classification of locations (``cornernet.evaluation.locations``);
* ``error_types`` adds the cost of each type of error;
* ``substitute`` replaces outputs of the network by the ground truth (table 6).
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cornernet.config import Config
from cornernet.config.choices import DEFAULT_BACKEND, Backend
from cornernet.console import count, listing, text_table
from cornernet.data.images import DataError
from cornernet.data.parallel import in_order
from cornernet.evaluation.corners import CornerMatches, corner_metrics, match_corners
from cornernet.evaluation.locations import Locations, join_locations, kept_locations, location_metrics
from cornernet.evaluation.matching import IOUS, MAX_DETECTIONS, BoxMatching, match_boxes

if TYPE_CHECKING:
    from cornernet.data import DetectionDataset
    from cornernet.inference.detect import Examined, Inputs
    from cornernet.inference.detections import Detections
    from cornernet.model.detector import Detector

__all__ = [
    "ERROR_TYPES",
    "METRICS",
    "READERS",
    "Evaluation",
    "coco_evaluation",
    "detect_all",
    "error_types",
    "evaluate",
]

METRICS = (
    *("AP", "AP50", "AP60", "AP70", "AP75", "AP80", "AP90", "APs", "APm", "APl"),
    *("AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
)
READERS = 2
"""Threads that read and resize beside the network where its latency is not measured."""
_TIDE_TYPES = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss", "FP", "FN")
ERROR_TYPES = tuple(f"dAP_{name}" for name in _TIDE_TYPES)
"""Keys of :func:`error_types`: the gain in AP50 without errors of each type (Bolya et al., "TIDE", 2020)."""


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation. Metrics are fractions, and NaN if the data has nothing to measure them on.

    * ``metrics``: by the names of :data:`METRICS`, and of ``CORNER_METRICS``, of ``locations.questions`` and of
      :data:`ERROR_TYPES` if ``testing.corner_metrics``, ``.location_radii`` and ``.error_types`` are set.
    * ``per_class``: AP, AP50 and AP75 by ``DetectionDataset.titles``: the name, with the id where names repeat.
    * ``evaluator``: who matched the boxes, see ``matching.Backend``.
    * ``images``: the number of images; ``area_bands``: the largest areas of small and medium objects.
    * ``results``: the detections in COCO's result format.
    * ``latency``: median time of the test path in milliseconds, from a photograph in memory to its boxes.
    * ``box_matching``, ``corner_matches``, ``locations``: what the metrics of boxes and of corners are computed from.
    * ``ap_by_iou``: AP at each of COCO's ten thresholds, 0.5 to 0.95.
    * ``notes``: what limits the metrics, one line each.
    * ``precision``: precision at the recalls 0, 0.01, ..., 1, averaged over classes, by IoU in percent (50 and 75).
    """

    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]
    images: int
    area_bands: tuple[float, float]
    results: list[dict[str, Any]] = field(repr=False)
    latency: float | None = None
    box_matching: BoxMatching | None = field(default=None, repr=False)
    corner_matches: tuple[CornerMatches, CornerMatches] | None = field(default=None, repr=False)
    locations: tuple[Locations, Locations] | None = field(default=None, repr=False)
    ap_by_iou: tuple[float, ...] = field(default=(), repr=False)
    precision: dict[int, tuple[float, ...]] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    evaluator: Backend | None = None

    def to_text(self) -> str:
        """Return a table of all metrics in percent, then one of the classes."""
        rows = [[name, _percent(value)] for name, value in self.metrics.items()]
        classes = [[name, *map(_percent, values.values())] for name, values in self.per_class.items()]
        small, medium = (math.sqrt(area) for area in self.area_bands)
        return "\n\n".join(
            [
                text_table(["metric", "%"], rows, numbers=(1,)),
                text_table(["class", "AP", "AP50", "AP75"], classes, numbers=(1, 2, 3)),
                f"{count(self.images, 'image')}; small: area up to {small:.0f}^2 pixels, medium: up to {medium:.0f}^2"
                + ("" if self.evaluator is None else f"; evaluated by {self.evaluator}"),
                *(f"note: {note}" for note in self.notes),
            ]
        )


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def evaluate(
    detector: Detector,
    dataset: DetectionDataset,
    config: Config,
    backend: Backend = DEFAULT_BACKEND,
    progress: Callable[[int, int], None] | None = None,
    readers: int = 0,
) -> Evaluation:
    """Run the detector on every image of ``dataset`` and return its COCO evaluation.

    ``config.testing`` says how boxes are found, ``config.data`` how photographs become inputs. ``progress`` is called
    with the number of images done and the total. ``readers`` threads read and resize pictures ahead; the latency then
    does not include resizing. Raises ``DataError`` if detector and data have different classes.
    """
    dataset = _with_classes_of(detector, dataset)
    _check_classes(detector, dataset)
    results, seconds, views, locations = [], [], [], []
    for index, (image, inputs) in enumerate(_pictures(detector, dataset, config, readers)):
        found, spent = _examine(detector, dataset, index, config, image, inputs)
        results.extend(found.detections.to_coco(dataset.image_id(index)))
        seconds.append(spent)
        if found.corners is not None:
            views.append(found.corners)
        if found.locations is not None:
            locations.append(kept_locations(found.locations))
        if progress is not None:
            progress(index + 1, len(dataset))
    evaluation = coco_evaluation(dataset, results, backend)
    notes = _limits(dataset, config.testing.max_detections)
    evaluation = replace(evaluation, latency=1000 * statistics.median(seconds), notes=notes)
    if config.testing.corner_metrics:
        matches = match_corners(views, config.testing.corner_radius)
        metrics = {**evaluation.metrics, **corner_metrics(matches, len(dataset.classes))}
        evaluation = replace(evaluation, metrics=metrics, corner_matches=matches)
    if config.testing.location_radii:
        joined = join_locations(locations)
        metrics = location_metrics(joined, len(dataset.classes), config.testing.location_radii)
        evaluation = replace(evaluation, metrics={**evaluation.metrics, **metrics}, locations=joined)
    if config.testing.error_types:
        costs = error_types(dataset, results, evaluation.box_matching)
        evaluation = replace(evaluation, metrics={**evaluation.metrics, **costs})
    return evaluation


def _limits(dataset: DetectionDataset, reported: int) -> tuple[str, ...]:
    """Return what the limits of the evaluation and of ``testing.max_detections`` do to the metrics."""
    counted = MAX_DETECTIONS[-1]
    notes = []
    if crowded := dataset.images_above(counted, of_one_class=True):
        notes.append(
            f"{count(crowded, 'image')} with more than {counted} objects of one class: AP and AR count the best "
            f"{counted} boxes of a class in an image, as COCO does, so that even a perfect detector misses some; cut "
            "such images into tiles"
        )
    if reported > counted:
        notes.append(
            f"testing.max_detections is {reported}: of a class in an image, AP and AR still count the best {counted}"
        )
    if full := dataset.images_above(reported, of_one_class=False):
        notes.append(
            f"{count(full, 'image')} with more objects than the {count(reported, 'box', 'boxes')} that "
            "testing.max_detections lets a detector report"
        )
    return tuple(notes)


def _with_classes_of(detector: Detector, dataset: DetectionDataset) -> DetectionDataset:
    """Return the data set with the categories that were left out of it, if the detector was trained with them."""
    if dataset.left_out and detector.classes is not None:
        whole = dataset.with_left_out()
        if (detector.classes, detector.category_ids) == (whole.classes, whole.category_ids):
            return whole
    return dataset


def _check_classes(detector: Detector, dataset: DetectionDataset) -> None:
    data = f"{dataset.name} ({dataset.split})"
    advice = "these weights were trained on other data"
    theirs = (detector.classes, detector.category_ids)
    if detector.classes is not None and theirs != (dataset.classes, dataset.category_ids):
        raise DataError(
            f"the detector was trained to find {_names(detector.classes)}, but {data} has {_names(dataset.classes)}, "
            f"or numbers them differently: {advice}"
        )
    classes = detector.config.model.num_classes
    if classes != len(dataset.classes):
        known = count(classes, "class", "classes")
        raise DataError(f"the detector knows {known} and {data} has {len(dataset.classes)}: {advice}")


def _names(classes: Sequence[str]) -> str:
    return listing(classes, 6)


def detect_all(detector: Detector, dataset: DetectionDataset, config: Config) -> Iterator[Detections]:
    """Yield the ``Detections`` of each image of ``dataset``, in order, with original pixel coordinates."""
    dataset = _with_classes_of(detector, dataset)
    for index, (image, inputs) in enumerate(_pictures(detector, dataset, config, 0)):
        yield _examine(detector, dataset, index, config, image, inputs)[0].detections


def _pictures(
    detector: Detector, dataset: DetectionDataset, config: Config, readers: int
) -> Iterator[tuple[npt.NDArray[np.uint8], Inputs | None]]:
    """Yield the data set's pictures in order, with their inputs if ``readers`` threads prepare them ahead."""
    from cornernet.inference.detect import prepare_inputs

    def read_ahead(index: int) -> tuple[npt.NDArray[np.uint8], Inputs]:
        image = dataset.read(index)
        return image, prepare_inputs(image, config, detector.total_stride, detector.output_stride)

    if readers < 1:
        for index in range(len(dataset)):
            yield dataset.read(index), None
        return
    yield from in_order(read_ahead, range(len(dataset)), readers)


def _examine(
    detector: Detector,
    dataset: DetectionDataset,
    index: int,
    config: Config,
    image: npt.NDArray[np.uint8],
    inputs: Inputs | None,
) -> tuple[Examined, float]:
    """Run the test path on one image of the data set. Return the result and its time in seconds, without reading."""
    from cornernet.inference.detect import Truth, examine, testing_mode

    record = dataset.records[index]
    with testing_mode(detector):
        began = time.perf_counter()
        found = examine(detector, image, config, Truth(record.boxes, record.labels), inputs)
        seconds = time.perf_counter() - began
    detections = replace(
        found.detections, classes=dataset.classes, category_ids=dataset.category_ids, size=image.shape[:2]
    )
    return replace(found, detections=detections), seconds


def coco_evaluation(
    dataset: DetectionDataset, results: Sequence[dict[str, Any]], backend: Backend = DEFAULT_BACKEND
) -> Evaluation:
    """Return the COCO evaluation of ``results`` (COCO's result format) on ``dataset``'s boxes, ignoring crowds.

    Small, medium and large are divided at ``dataset.area_bands``. Both backends give the same numbers. Raises
    ``ValueError`` as :func:`match_boxes` does.
    """
    matching = _match(dataset, results, backend)
    precision, recall = matching.accumulated()
    per_class = {
        name: {
            "AP": _mean(precision[:, :, k, 0, -1]),
            "AP50": _mean(precision[0, :, k, 0, -1]),
            "AP75": _mean(precision[5, :, k, 0, -1]),
        }
        for k, name in enumerate(dataset.titles)
    }
    return Evaluation(
        metrics=_metrics(precision, recall),
        per_class=per_class,
        images=len(dataset),
        area_bands=dataset.area_bands,
        results=list(results),
        evaluator=backend,
        box_matching=matching,
        ap_by_iou=tuple(_mean(precision[at, :, :, 0, -1]) for at in range(len(IOUS))),
        precision={
            percent: tuple(_mean(row) for row in precision[at, :, :, 0, -1]) for percent, at in ((50, 0), (75, 5))
        },
    )


def _metrics(precision: npt.NDArray[np.float64], recall: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return the metrics of :data:`METRICS` from COCO's precision and recall; see ``BoxMatching.accumulated``."""
    metrics = {"AP": _mean(precision[:, :, :, 0, -1])}
    for percent in (50, 60, 70, 75, 80, 90):
        at = int(np.argmin(np.abs(IOUS - percent / 100)))
        metrics[f"AP{percent}"] = _mean(precision[at, :, :, 0, -1])
    for band, name in enumerate(("APs", "APm", "APl"), start=1):
        metrics[name] = _mean(precision[:, :, :, band, -1])
    for column, limit in enumerate(MAX_DETECTIONS):
        metrics[f"AR{limit}"] = _mean(recall[:, :, 0, column])
    for band, name in enumerate(("ARs", "ARm", "ARl"), start=1):
        metrics[name] = _mean(recall[:, :, band, -1])
    return {name: metrics[name] for name in METRICS}


def _match(dataset: DetectionDataset, results: Sequence[dict[str, Any]], backend: Backend) -> BoxMatching:
    return match_boxes(
        dataset.ground_truth(),
        results,
        area_bands=dataset.area_bands,
        # labels are in the order of dataset.category_ids, and so must be the class axis
        category_ids=dataset.category_ids,
        backend=backend,
    )


def error_types(
    dataset: DetectionDataset, results: Sequence[dict[str, Any]], matching: BoxMatching | None = None
) -> dict[str, float]:
    """Return how much AP50 would gain without the errors of each type, by :data:`ERROR_TYPES`, as fractions.

    The types are TIDE's (Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", 2020), at an
    IoU of 0.5, with 0.1 separating localisation from background: a wrong class, a shifted box, both, a duplicate,
    background, a missed object; also all false positives and all false negatives. The gains do not add up to 1 - AP50.
    ``results`` are in COCO's result format, and ``matching``, if given and made by hotcoco, saves matching them again.
    Objects of all sizes count, crowds are ignored, and the mean is over classes that have objects, as in
    :func:`coco_evaluation`. All values are NaN if there are no objects.

    If every object of a class is missed, Miss and FN gain nothing from that class: without the missed objects it has
    no object left, and its AP stays 0. (The authors' tool drops such a class from the mean.)
    """
    if not any(len(record.boxes) for record in dataset.records):
        return dict.fromkeys(ERROR_TYPES, math.nan)
    if matching is None or matching.backend != "hotcoco":
        matching = _match(dataset, results, "hotcoco")
    gains = matching.ap50_gains()
    return {metric: float(gains[name]) for metric, name in zip(ERROR_TYPES, _TIDE_TYPES, strict=True)}


def _mean(values: npt.NDArray[np.float64]) -> float:
    """Return the mean of the measured values, those above -1; NaN if there are none."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else math.nan
