"""COCO evaluation of detections: average precision and recall over a data set (paper section 4.2).

``testing.corner_metrics`` adds those of corners by themselves (``cornernet.evaluation.corners``) and
``testing.error_types`` what each type of error costs; with ``testing.substitute`` the ground truth stands in for
outputs of the network (table 6).
"""

from __future__ import annotations

import contextlib
import io
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from cornernet.config import Config
from cornernet.data.images import DataError
from cornernet.evaluation.corners import CornerMatches, corner_metrics, match_corners
from cornernet.inference.detect import Examined, Inputs, Truth, examine, inputs_of, testing_mode
from cornernet.model.detector import Detector

if TYPE_CHECKING:
    from cornernet.data import DetectionDataset
    from cornernet.inference.detections import Detections

__all__ = [
    "ERROR_TYPES",
    "METRICS",
    "Backend",
    "Evaluation",
    "coco_evaluation",
    "detect_all",
    "error_types",
    "evaluate",
]

Backend: TypeAlias = Literal["pycocotools", "hotcoco"]

MAX_DETECTIONS = (1, 10, 100)
METRICS = (
    *("AP", "AP50", "AP60", "AP70", "AP75", "AP80", "AP90", "APs", "APm", "APl"),
    *("AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
)
_TIDE_TYPES = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss", "FP", "FN")
ERROR_TYPES = tuple(f"dAP_{name}" for name in _TIDE_TYPES)
"""What :func:`error_types` returns: what AP50 would gain without errors of a type (Bolya et al., "TIDE", 2020)."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found, as fractions; NaN where the data holds nothing to measure a metric on.

    ``metrics`` has the names of :data:`METRICS`, and those of ``CORNER_METRICS`` and of :data:`ERROR_TYPES` where
    ``testing.corner_metrics`` and ``testing.error_types`` ask for them; ``per_class`` AP, AP50 and AP75 by class name;
    ``results`` the detections in COCO's result format. ``latency`` is the median time of the test path, from a
    photograph in memory to its boxes, in milliseconds; ``corner_matches`` what the corner metrics are computed from.
    ``ap_by_iou`` is AP at each of COCO's ten thresholds, 0.5 to 0.95; ``precision`` the precision at the recalls 0,
    0.01 to 1, mean over classes, by threshold in percent (50 and 75).
    """

    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]
    images: int
    area_bands: tuple[float, float]
    results: list[dict[str, Any]] = field(repr=False)
    latency: float | None = None
    corner_matches: tuple[CornerMatches, CornerMatches] | None = field(default=None, repr=False)
    ap_by_iou: tuple[float, ...] = field(default=(), repr=False)
    precision: dict[int, tuple[float, ...]] = field(default_factory=dict, repr=False)

    def to_text(self) -> str:
        """Return a table of all metrics in percent, then of the classes."""
        rows = [[name, _percent(value)] for name, value in self.metrics.items()]
        classes = [[name, *map(_percent, values.values())] for name, values in self.per_class.items()]
        small, medium = (math.sqrt(area) for area in self.area_bands)
        return "\n\n".join(
            [
                tabulate(rows, headers=["metric", "%"], floatfmt=".1f", missingval="-"),
                tabulate(classes, headers=["class", "AP", "AP50", "AP75"], floatfmt=".1f", missingval="-"),
                f"{self.images} images; small: area up to {small:.0f}^2 pixels, medium: up to {medium:.0f}^2",
            ]
        )


def _percent(value: float) -> float | None:
    return None if math.isnan(value) else 100 * value


def evaluate(
    detector: Detector,
    dataset: DetectionDataset,
    config: Config,
    backend: Backend = "pycocotools",
    progress: Callable[[int, int], None] | None = None,
    readers: int = 0,
) -> Evaluation:
    """Detect on every image of ``dataset`` and return its COCO evaluation.

    ``config.testing`` says how boxes are found, ``config.data`` how photographs become inputs. ``progress`` is called
    with images done and in all. ``readers`` threads read and resize pictures ahead; then latency is without the time of
    resizing. Raises ``DataError`` where detector and data differ in their classes.
    """
    theirs = (detector.classes, detector.category_ids)
    if detector.classes is not None and theirs != (dataset.classes, dataset.category_ids):
        raise DataError(
            f"the detector was trained to find {_names(detector.classes)}, and {dataset.name} ({dataset.split}) has "
            f"{_names(dataset.classes)}, or numbers them otherwise: these weights were trained on other data"
        )
    classes = detector.config.model.num_classes
    if classes != len(dataset.classes):
        raise DataError(
            f"the detector knows {classes} classes and {dataset.name} ({dataset.split}) has {len(dataset.classes)}: "
            "these weights were trained on other data"
        )
    results, seconds, views = [], [], []
    for index, (image, inputs) in enumerate(_pictures(detector, dataset, config, readers)):
        found, spent = _examine(detector, dataset, index, config, image, inputs)
        results.extend(found.detections.to_coco(dataset.image_id(index)))
        seconds.append(spent)
        if found.corners is not None:
            views.append(found.corners)
        if progress is not None:
            progress(index + 1, len(dataset))
    evaluation = coco_evaluation(dataset, results, backend)
    evaluation = replace(evaluation, latency=1000 * statistics.median(seconds))
    if config.testing.corner_metrics:
        matches = match_corners(views, config.testing.corner_radius)
        metrics = {**evaluation.metrics, **corner_metrics(matches, len(dataset.classes))}
        evaluation = replace(evaluation, metrics=metrics, corner_matches=matches)
    if config.testing.error_types:
        evaluation = replace(evaluation, metrics={**evaluation.metrics, **error_types(dataset, results)})
    return evaluation


def _names(classes: Sequence[str]) -> str:
    return ", ".join(classes[:6]) + (f" and {len(classes) - 6} more" if len(classes) > 6 else "")


def detect_all(detector: Detector, dataset: DetectionDataset, config: Config) -> Iterator[Detections]:
    """Yield the ``Detections`` of each image of ``dataset``, in order."""
    for index, (image, inputs) in enumerate(_pictures(detector, dataset, config, 0)):
        yield _examine(detector, dataset, index, config, image, inputs)[0].detections


def _pictures(
    detector: Detector, dataset: DetectionDataset, config: Config, readers: int
) -> Iterator[tuple[npt.NDArray[np.uint8], Inputs | None]]:
    """Yield the data set's pictures in order, with their inputs where ``readers`` threads make them ahead."""

    def made(index: int) -> tuple[npt.NDArray[np.uint8], Inputs]:
        image = dataset.read(index)
        return image, inputs_of(image, config, detector.total_stride, detector.output_stride)

    if readers < 1:
        for index in range(len(dataset)):
            yield dataset.read(index), None
        return
    with ThreadPoolExecutor(readers) as pool:
        waiting: deque[Future[tuple[npt.NDArray[np.uint8], Inputs]]] = deque()
        for index in range(len(dataset)):
            waiting.append(pool.submit(made, index))
            if len(waiting) > 2 * readers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _examine(
    detector: Detector,
    dataset: DetectionDataset,
    index: int,
    config: Config,
    image: npt.NDArray[np.uint8],
    inputs: Inputs | None,
) -> tuple[Examined, float]:
    """Return what is found in a picture of the data set, and the seconds it took after the picture was read."""
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
    dataset: DetectionDataset, results: Sequence[dict[str, Any]], backend: Backend = "pycocotools"
) -> Evaluation:
    """Return the COCO evaluation of ``results`` (COCO's result format) on ``dataset``'s boxes, crowds ignored.

    Small, medium and large are divided at ``dataset.area_bands``. Both backends give the same numbers.
    """
    run = _matched(dataset, list(results), backend)
    with contextlib.redirect_stdout(io.StringIO()):
        run.accumulate()
    precision, recall = np.asarray(run.eval["precision"]), np.asarray(run.eval["recall"])
    ious = np.linspace(0.5, 0.95, 10)
    metrics = {"AP": _mean(precision[:, :, :, 0, -1])}
    for percent in (50, 60, 70, 75, 80, 90):
        at = int(np.argmin(np.abs(ious - percent / 100)))
        metrics[f"AP{percent}"] = _mean(precision[at, :, :, 0, -1])
    for band, name in enumerate(("APs", "APm", "APl"), start=1):
        metrics[name] = _mean(precision[:, :, :, band, -1])
    for column, limit in enumerate(MAX_DETECTIONS):
        metrics[f"AR{limit}"] = _mean(recall[:, :, 0, column])
    for band, name in enumerate(("ARs", "ARm", "ARl"), start=1):
        metrics[name] = _mean(recall[:, :, band, -1])
    per_class = {
        name: {
            "AP": _mean(precision[:, :, k, 0, -1]),
            "AP50": _mean(precision[0, :, k, 0, -1]),
            "AP75": _mean(precision[5, :, k, 0, -1]),
        }
        for k, name in enumerate(dataset.classes)
    }
    return Evaluation(
        metrics={name: metrics[name] for name in METRICS},
        per_class=per_class,
        images=len(dataset),
        area_bands=dataset.area_bands,
        results=list(results),
        ap_by_iou=tuple(_mean(precision[at, :, :, 0, -1]) for at in range(len(ious))),
        precision={
            percent: tuple(_mean(row) for row in precision[at, :, :, 0, -1]) for percent, at in ((50, 0), (75, 5))
        },
    )


def error_types(dataset: DetectionDataset, results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return what AP50 would gain if errors of a type were mended, by :data:`ERROR_TYPES`, as fractions.

    The types are TIDE's (Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", 2020), at an
    IoU of 0.5, with 0.1 dividing localisation from background: a wrong class, a shifted box, both, a duplicate,
    background, a missed object; beside them all false positives and all false negatives. They do not add up to what
    is missing to 1. ``results`` are in COCO's result format; objects of all sizes count, crowds are ignored, and the
    mean is over classes that have objects, as in :func:`coco_evaluation`. All are NaN where there is no object.

    Where every object of a class is missed, Miss and FN gain nothing from that class: what is left of it once they are
    mended has no object, and its AP stays 0 (the authors' tool drops such a class from the mean).
    """
    if not any(len(record.boxes) for record in dataset.records):
        return dict.fromkeys(ERROR_TYPES, math.nan)
    found = _matched(dataset, list(results), "hotcoco").tide_errors(pos_thr=0.5, bg_thr=0.1)["delta_ap"]
    return {metric: float(found[name]) for metric, name in zip(ERROR_TYPES, _TIDE_TYPES, strict=True)}


def _matched(dataset: DetectionDataset, results: list[dict[str, Any]], backend: Backend) -> Any:
    """Return the backend's COCOeval over ``results``, detections matched to objects and nothing accumulated yet.

    Accumulated, it holds COCO's precision [IoU, recall, class, area, limit] and recall [IoU, class, area, limit]; -1
    is none.
    """
    if backend == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    elif backend == "hotcoco":
        from hotcoco import COCO, COCOeval
    else:
        raise ValueError(f"there is no evaluation backend {backend!r}; use pycocotools or hotcoco")

    truth = dataset.ground_truth()
    # both print to standard output as they go
    with contextlib.redirect_stdout(io.StringIO()):
        if backend == "pycocotools":
            gt = COCO()
            gt.dataset = truth
            gt.createIndex()
        else:
            gt = COCO(truth)
        if results:
            # copies: pycocotools writes into what it is given
            dt = gt.loadRes([dict(result) for result in results])
        elif backend == "pycocotools":
            # loadRes looks at the first result
            dt = COCO()
            dt.dataset = {**truth, "annotations": []}
            dt.createIndex()
        else:
            dt = COCO({**truth, "annotations": []})
        run = COCOeval(gt, dt, "bbox")
        small, medium = dataset.area_bands
        run.params.areaRng = [[0, 1e10], [0, small], [small, medium], [medium, 1e10]]
        run.params.maxDets = list(MAX_DETECTIONS)
        # labels are in the order of dataset.category_ids, and so must be the class axis
        run.params.catIds = list(dataset.category_ids)
        run.evaluate()
    return run


def _mean(values: npt.NDArray[np.float64]) -> float:
    """Return the mean of what was measured, NaN where nothing was."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else math.nan
