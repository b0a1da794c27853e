"""Pictures for the reports, made while weights and photographs exist: ``python -m ablations pictures``.

They follow the paper's figures 8 to 10: detections with and without corner pooling, the corner heatmaps, and failures.
The images are chosen by a rule that is published with each picture, never by eye. The pictures are committed with their
hashes (``manifest.json``), and the renderer of the reports only places them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from cornernet.checkout import revision
from cornernet.config import Config
from cornernet.console import count
from cornernet.data import DetectionDataset
from cornernet.drawing.boxes import draw_boxes
from cornernet.evaluation.evaluate import detect_all
from cornernet.evaluation.image_scores import image_f1, ious
from cornernet.files import Output
from cornernet.inference.detections import Detections
from cornernet.model.detector import Detector
from cornernet.training.devices import resolve_device
from cornernet.visualization.inspection import heatmap_picture
from cornernet.weights.checkpoints import load_detector

from .reporting.pictures import MANIFEST, placed_pictures
from .running.planner import Job
from .running.store import Store, StoreError
from .running.work import program

__all__ = ["SCORE", "Failure", "Pair", "failure_of", "failures", "find_pair", "make_pictures", "quantiles"]

Image: TypeAlias = NDArray[np.uint8]
Boxes: TypeAlias = NDArray[np.float64]
Kind: TypeAlias = Literal["wrong pairing", "merged boundaries"]

SCORE = 0.3
"""Boxes with a lower score are neither drawn nor judged, as in `cornernet detect`."""
IOU = 0.5
QUANTILES = (0.05, 0.35, 0.65, 0.95)
"""Of the images, ordered by what corner pooling adds to each: from where it harms most to where it helps most."""
EXAMPLES = 3
"""Number of examples of each kind of failure."""

_TILE = 320
_CORNER_TOLERANCE = 0.15
_COVERED = 0.5
_JPEG = 85
_WITHOUT, _WITH = "w/o corner pooling", "w/ corner pooling"
_TRUTH = (115, 158, 0)
_WRONG = (0, 94, 213)


class Pair(NamedTuple):
    """The trainings of table 1's two arms under one seed."""

    without: Job
    with_: Job
    seed: int


class Failure(NamedTuple):
    """A detection that is not an object: its image and box, the kind of failure, and the objects involved."""

    image: int
    box: int
    kind: Kind
    score: float
    objects: tuple[int, ...]


@dataclass(frozen=True)
class _Made:
    name: str
    content: Image
    title: str
    caption: str
    alternative: str
    rule: str
    images: tuple[int, ...]
    runs: tuple[str, ...]


def find_pair(store: Store, jobs: dict[tuple[str, str, int], Job], seeds: Sequence[int]) -> Pair:
    """Return table 1's arms under the first seed for which both have weights in the store.

    Raises :class:`StoreError` where there is none.
    """
    for seed in seeds:
        pair = [jobs.get(("table1", variant, seed)) for variant in (_WITHOUT, _WITH)]
        if all(job is not None and store.trained(job) for job in pair):
            without, with_ = pair
            assert without is not None
            assert with_ is not None
            return Pair(without, with_, seed)
    raise StoreError(
        f"{store.root} has no seed of table 1 with the weights of both arms; run {program()} --studies table1 with "
        "the same profile, data and store"
    )


def make_pictures(
    store: Store, pair: Pair, dataset: DetectionDataset, folder: Path, overwrite: bool = False
) -> list[Path]:
    """Make the pictures of a pair of runs on the images they were evaluated on, and return their files.

    ``folder`` is created if needed. Its manifest is written last, and older pictures that it no longer names are
    removed. Raises ``OutputError`` for a file in the way that no call wrote, unless ``overwrite`` is set.
    """
    before = [each.path for each in placed_pictures(folder)[0]]
    output = Output(folder, "ablations pictures", overwrite=overwrite, known=[MANIFEST, *before] if before else ())
    output.require([MANIFEST])
    arms = {
        name: load_detector(store.training(job), device=resolve_device(job.config.training.device))
        for name, job in ((_WITHOUT, pair.without), (_WITH, pair.with_))
    }
    config = pair.with_.config
    found = {name: [each.filter(SCORE) for each in detect_all(arm, dataset, config)] for name, arm in arms.items()}
    runs = (pair.without.training_key, pair.with_.training_key)
    chosen = quantiles(
        [
            image_f1(ours, *_truth(dataset, at)) - image_f1(theirs, *_truth(dataset, at))
            for at, (ours, theirs) in enumerate(zip(found[_WITH], found[_WITHOUT], strict=True))
        ]
    )
    made = [
        _side_by_side(dataset, found, chosen, runs),
        _heatmaps(dataset, arms, config, chosen, runs),
        *_failures(dataset, found[_WITH], runs[1:]),
    ]
    paths = _write(output, made, dataset, pair)
    for name in before:
        if folder / name not in paths:
            output.remove(name)
    return paths


def _write(output: Output, made: Sequence[_Made], dataset: DetectionDataset, pair: Pair) -> list[Path]:
    output.require(f"{each.name}.jpg" for each in made)
    paths, entries = [], []
    for each in made:
        done, encoded = cv2.imencode(".jpg", each.content, [cv2.IMWRITE_JPEG_QUALITY, _JPEG])
        if not done:
            raise OSError(f"cannot encode {each.name}.jpg")
        content = encoded.tobytes()
        paths.append(output.write(f"{each.name}.jpg", content))
        entries.append(
            {
                "file": paths[-1].name,
                "sha256": hashlib.sha256(content).hexdigest(),
                "title": each.title,
                "caption": each.caption,
                "alternative": each.alternative,
                "rule": each.rule,
                "images": [dataset.image_id(at) for at in each.images],
                "runs": list(each.runs),
            }
        )
    tree = {"version": 1, "revision": revision(), "data": dataset.fingerprint, "seed": pair.seed, "pictures": entries}
    output.write(MANIFEST, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")
    return paths


# -------------------------------------------------------------------------------------------------------------- rules


def _truth(dataset: DetectionDataset, at: int) -> tuple[Boxes, NDArray[np.int64]]:
    record = dataset.records[at]
    return record.boxes, record.labels


def quantiles(gains: Sequence[float]) -> tuple[int, ...]:
    """Return the indices of the :data:`QUANTILES` of ``gains``, with ties in the given order and no index twice."""
    order = np.argsort(np.asarray(gains), kind="stable")
    return tuple(dict.fromkeys(int(order[round(quantile * (len(order) - 1))]) for quantile in QUANTILES))


def failure_of(box: Boxes, label: int, truth: tuple[Boxes, NDArray[np.int64]]) -> tuple[Kind, tuple[int, ...]] | None:
    """Return how a box [4] fails, and the objects of its class concerned; None for a hit and for other mistakes.

    *Wrong pairing*: its top-left corner is that of one object, its bottom-right corner that of another, each to 15% of
    the object's sides. *Merged boundaries*: it is no such box and covers half or more of each of two objects. Either
    way it reaches an IoU of 0.5 with no object.
    """
    boxes, labels = truth
    own = np.flatnonzero(labels == label)
    if len(own) < 2 or (ious(box[None], boxes[own]) >= IOU).any():
        return None
    sides = boxes[own, 2:] - boxes[own, :2]
    near = [
        own[(np.abs(boxes[own, part] - box[part]) <= _CORNER_TOLERANCE * sides).all(axis=1)]
        for part in (slice(0, 2), slice(2, 4))
    ]
    for first in near[0]:
        for last in near[1]:
            if first != last:
                return "wrong pairing", (int(first), int(last))
    shared = np.maximum(np.minimum(boxes[own, 2:], box[2:]) - np.maximum(boxes[own, :2], box[:2]), 0).prod(axis=1)
    covered = own[shared >= _COVERED * sides.prod(axis=1)]
    return ("merged boundaries", tuple(map(int, covered))) if len(covered) >= 2 else None


def failures(dataset: DetectionDataset, found: Sequence[Detections], kind: Kind) -> list[Failure]:
    """Return the failures of a kind: for each image that of the highest score, sorted by score."""
    best: dict[int, Failure] = {}
    for at, each in enumerate(found):
        truth = _truth(dataset, at)
        for index in range(len(each)):
            told = failure_of(each.boxes[index].astype(np.float64), int(each.labels[index]), truth)
            score = float(each.scores[index])
            if told is not None and told[0] == kind and (at not in best or score > best[at].score):
                best[at] = Failure(at, index, kind, score, told[1])
    return sorted(best.values(), key=lambda failure: (-failure.score, failure.image))


# ----------------------------------------------------------------------------------------------------------- drawings


def _side_by_side(
    dataset: DetectionDataset, found: dict[str, list[Detections]], chosen: Sequence[int], runs: tuple[str, ...]
) -> _Made:
    rows = []
    for at in chosen:
        image = dataset.read(at)
        rows.append([_true(dataset, at), *(found[arm][at].plot(image) for arm in (_WITHOUT, _WITH))])
    counts = "; ".join(
        f"image {dataset.image_id(at)}: {count(len(dataset.records[at].boxes), 'object')}, "
        f"{count(len(found[_WITHOUT][at]), 'box', 'boxes')} without corner pooling and {len(found[_WITH][at])} with it"
        for at in chosen
    )
    return _Made(
        "with-and-without-corner-pooling",
        _sheet(rows, ("ground truth", _WITHOUT, _WITH)),
        "With and without corner pooling",
        f"The same photographs, boxes of score {SCORE:g} or more; after the paper's figure 8.",
        f"Photographs in rows with their ground truth, the boxes found without corner pooling, and with it. {counts}.",
        "images at the quantiles "
        + ", ".join(f"{quantile:g}" for quantile in QUANTILES)
        + " of all evaluated, ordered by what corner pooling adds to the image's F1 at an IoU of 0.5; ties by order in "
        "the data.",
        tuple(chosen),
        runs,
    )


def _heatmaps(
    dataset: DetectionDataset, arms: dict[str, Detector], config: Config, chosen: Sequence[int], runs: tuple[str, ...]
) -> _Made:
    rows = []
    for at in chosen:
        image = dataset.read(at)
        rows.append([_true(dataset, at), *(heatmap_picture(arms[arm], image, config) for arm in (_WITHOUT, _WITH))])
    return _Made(
        "corner-heatmaps",
        _sheet(rows, ("ground truth", _WITHOUT, _WITH)),
        "Corner heatmaps",
        "The strongest class of each corner heatmap over the photograph, top-left corners in orange, bottom-right ones "
        "in blue; after the paper's figure 10.",
        "The same photographs in rows, dimmed, with spots where the network without and with corner pooling expects "
        "top-left corners, in orange, and bottom-right corners, in blue.",
        "the images of the picture with and without corner pooling.",
        tuple(chosen),
        runs,
    )


def _failures(dataset: DetectionDataset, found: Sequence[Detections], runs: tuple[str, ...]) -> list[_Made]:
    kinds: tuple[tuple[Kind, str], ...] = (
        ("wrong pairing", "the top-left corner of one object joined to the bottom-right corner of another"),
        ("merged boundaries", "one box around two or more objects"),
    )
    made = []
    for kind, what in kinds:
        all_of_kind = failures(dataset, found, kind)
        shown = all_of_kind[:EXAMPLES]
        if not shown:
            continue
        row = [_failed(dataset, found[failure.image], failure) for failure in shown]
        names = [f"score {failure.score:.2f}" for failure in shown]
        made.append(
            _Made(
                kind.replace(" ", "-"),
                _sheet([row], names),
                f"Failures: {kind}",
                f"{what[0].upper()}{what[1:]}, in vermilion; the objects concerned in green. With corner pooling; "
                f"after the paper's figure 9. {len(all_of_kind)} of {len(dataset)} images have such a box.",
                f"{count(len(shown), 'photograph')}, each with a wrong box: {what}.",
                f"the {count(len(shown), 'image')} with the best-scored boxes of this kind, {SCORE:g} or more. "
                + (failure_of.__doc__ or "").split("\n\n")[1].replace("\n    ", " ").replace("*", ""),
                tuple(failure.image for failure in shown),
                runs,
            )
        )
    return made


def _true(dataset: DetectionDataset, at: int) -> Image:
    record = dataset.records[at]
    return draw_boxes(dataset.read(at), record.boxes, record.labels, classes=dataset.classes)


def _failed(dataset: DetectionDataset, found: Detections, failure: Failure) -> Image:
    objects = dataset.records[failure.image].boxes[list(failure.objects)]
    boxes = np.concatenate([objects, found.boxes[failure.box : failure.box + 1].astype(np.float64)])
    labels = [0] * len(objects) + [1]
    name = found.name_of(int(found.labels[failure.box]))
    colours = (_TRUTH, _WRONG)
    return draw_boxes(dataset.read(failure.image), boxes, labels, classes=(name, f"{name}?"), colours=colours)


def _sheet(rows: Sequence[Sequence[Image]], names: Sequence[str]) -> Image:
    """Return pictures as one: rows of tiles of equal width, below a line of names."""
    put: Callable[..., object] = cv2.putText
    header = np.full((30, _TILE * len(names), 3), 255, np.uint8)
    for at, name in enumerate(names):
        put(header, name, (_TILE * at + 8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    lines: list[Image] = [header]
    for row in rows:
        height = max(round(each.shape[0] * _TILE / each.shape[1]) for each in row)
        line = np.full((height + 4, _TILE * len(names), 3), 255, np.uint8)
        for at, each in enumerate(row):
            own = round(each.shape[0] * _TILE / each.shape[1])
            tile = cv2.resize(each, (_TILE - 4, own), interpolation=cv2.INTER_AREA)
            line[:own, _TILE * at : _TILE * at + _TILE - 4] = tile
        lines.append(line)
    return np.concatenate(lines)
