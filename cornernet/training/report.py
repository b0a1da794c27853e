"""The page of one training run, ``cornernet report RUN``: curves, AP, classes, best and worst images. One file.

It is made from a run's folder (:mod:`cornernet.training.loop`) and, for the images, from the run's weights and data.
If the data is not available, the page says so and shows the rest.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import seaborn as sns
from jinja2 import Environment
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cornernet.config import Config
from cornernet.console import count, printable
from cornernet.data import DataError, DetectionDataset, open_dataset
from cornernet.data.origin import at_origin, is_same_data
from cornernet.drawing.boxes import draw_boxes
from cornernet.drawing.escapes import figure_escape
from cornernet.drawing.figures import rendered, styled, subplots
from cornernet.drawing.html import Cell, Table, environment
from cornernet.evaluation.evaluate import detect_all
from cornernet.evaluation.image_scores import image_f1
from cornernet.inference.detections import Detections
from cornernet.model.detector import Detector
from cornernet.training.metrics import read_metrics
from cornernet.weights.checkpoints import load_detector
from cornernet.weights.unfinished import has_weights

__all__ = ["SCORE", "run_page"]

SCORE = 0.3
"""Boxes with a lower score are neither drawn nor counted."""

_TILE = 420
"""Width of a picture on the page, in pixels; the page shows two side by side."""
_JPEG = 85
_ROWS_SHOWN = 100
"""About how many rows of a curve's data the page shows, evenly spaced."""


def run_page(run: Path, images: int = 3, detector: Detector | None = None, *, other_data: bool = False) -> str:
    """Return the page of a run's folder, with the ``images`` best and as many worst of its evaluation data.

    ``detector`` is the run's own; by default it is loaded from the folder. Of a run that is not finished, it is that of
    the newest checkpoint. Raises :class:`DataError` if the folder holds no run, if a file in it is damaged, and, unless
    ``other_data`` is set, if the data at the run's path is not what it was trained with.
    """
    config_file = run / "config.json"
    if not config_file.is_file():
        raise DataError(f"{run} is not a run's folder: it has no config.json; give a folder that cornernet train wrote")
    config = at_origin(Config.load(config_file), run)
    lines, evaluation = _metrics(run / "metrics.jsonl"), _evaluation(run / "evaluation.json")
    return (
        _environment()
        .get_template("run.html.j2")
        .render(
            title=f"Run {printable(run.resolve().name)}",
            summary=_summary(config, lines, evaluation),
            metrics=None if evaluation is None else _overall(evaluation["metrics"]),
            classes=None if evaluation is None else _classes(evaluation["per_class"]),
            curves=_curves(_with_final(lines, config.training.iterations, evaluation)),
            images=_images(run, config, images, detector, other_data),
            score=SCORE,
            configuration=json.dumps(config.to_public_dict(), indent=1),
        )
    )


@functools.cache
def _environment() -> Environment:
    return environment(Path(__file__).parent / "templates")


# ------------------------------------------------------------------------------------------------- the run's files


def _metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl, with only those of their values that are numbers or null."""
    return [
        {name: value for name, value in line.items() if value is None or _is_number(value)}
        for line in read_metrics(path)
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def _evaluation(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(tree["metrics"], dict) or not isinstance(tree["per_class"], dict):
            raise TypeError("metrics and per_class must be objects")
        for name, values in {"metrics": tree["metrics"], **tree["per_class"]}.items():
            if not isinstance(values, dict) or not all(v is None or _is_number(v) for v in values.values()):
                raise TypeError(f"{name} must be an object of numbers and null")
        if not isinstance(tree.get("evaluator"), str | None):  # older runs do not say it
            raise TypeError("evaluator must be a text")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is not an evaluation: {error}; remove it and evaluate the run again") from error
    return dict(tree)


def _with_final(
    lines: Sequence[Mapping[str, Any]], iterations: int, evaluation: Mapping[str, Any] | None
) -> list[Mapping[str, Any]]:
    """Return the lines with the AP of a finished run's final evaluation, which is in evaluation.json only."""
    ap = None if evaluation is None else evaluation["metrics"].get("AP")
    finished = any(line["iteration"] == iterations for line in lines)
    evaluated = any(line["iteration"] == iterations and line.get("val/AP") is not None for line in lines)
    if ap is None or not finished or evaluated:
        return list(lines)
    return [*lines, {"iteration": iterations, "val/AP": ap}]


# ------------------------------------------------------------------------------------------------- text and tables


def _summary(config: Config, lines: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any] | None) -> str:
    done = max((line["iteration"] for line in lines), default=0)
    total = count(config.training.iterations, "iteration")
    state = f"{done} of {total}" + ("" if evaluation else "; not evaluated yet")
    ap = None if evaluation is None else evaluation["metrics"].get("AP")
    evaluator = None if evaluation is None else evaluation.get("evaluator")
    by = "" if evaluator is None else f" by {printable(evaluator)}"
    found = "" if ap is None else f" AP {100 * ap:.1f}{by}."
    source = config.data.source
    data = Path(source.root).name if source.kind == "coco" else source.kind
    model = config.model
    return (
        f"{model.backbone.kind} with a {model.head.kind} head on {data}, seed {config.training.seed}: {state}.{found}"
    )


def _overall(metrics: Mapping[str, float | None]) -> Table:
    rows = [[Cell(name), _percent(value)] for name, value in metrics.items() if name != "iteration"]
    return Table("COCO metrics on val, in percent", ["metric", "%"], rows)


def _classes(per_class: Mapping[str, Mapping[str, float | None]]) -> Table:
    names = list(dict.fromkeys(metric for values in per_class.values() for metric in values))
    rows = [[Cell(name), *(_percent(values.get(metric)) for metric in names)] for name, values in per_class.items()]
    return Table("By class, in percent", ["class", *names], rows)


def _percent(value: float | None) -> Cell:
    return Cell("not measured") if value is None else Cell(f"{100 * value:.1f}", sort=100 * value)


def _number(value: float | None) -> Cell:
    return Cell("not measured") if value is None else Cell(f"{value:.4g}", sort=value)


# ------------------------------------------------------------------------------------------------- curves


@dataclass(frozen=True)
class _Curve:
    """A figure of metrics over iterations; ``words`` is its alternative text."""

    name: str
    caption: str
    words: str
    svg: bytes
    data: Table


def _curves(lines: Sequence[Mapping[str, Any]]) -> list[_Curve]:
    """Return the curves of the losses, AP and learning rate; nothing if no loss was recorded."""
    losses = list(dict.fromkeys(name for line in lines for name in line if name.startswith("loss/")))
    if not losses:
        return []
    curves = [_curve(lines, losses, "losses", "Losses over iterations, on a logarithmic scale.", logarithmic=True)]
    for name, caption in (("val/AP", "AP on val during training."), ("learning_rate", "Learning rate.")):
        if sum(line.get(name) is not None for line in lines) > 1:
            curves.append(_curve(lines, [name], name, caption))
    return curves


def _curve(
    lines: Sequence[Mapping[str, Any]], names: Sequence[str], name: str, caption: str, logarithmic: bool = False
) -> _Curve:
    with styled():
        svg = rendered(_drawn(lines, names, logarithmic))
    kept = [line for line in lines if line.get(names[0]) is not None]
    last = ", ".join(f"{each} {kept[-1][each]:.4g}" for each in names if kept[-1].get(each) is not None)
    rows = [
        [Cell(str(line["iteration"]), sort=line["iteration"]), *(_number(line.get(each)) for each in names)]
        for line in kept[:: max(1, len(kept) // _ROWS_SHOWN)]
    ]
    words = f"{caption} At iteration {kept[-1]['iteration']}: {last}"
    return _Curve(name, caption, words, svg, Table(caption, ["iteration", *names], rows))


def _drawn(lines: Sequence[Mapping[str, Any]], names: Sequence[str], logarithmic: bool) -> Figure:
    made, (axis,) = subplots(1, 1, (8, 3.4))
    for colour, each in zip(sns.color_palette("colorblind", 10), names, strict=False):
        points = [(line["iteration"], line[each]) for line in lines if line.get(each) is not None]
        axis.plot(
            *zip(*points, strict=True), color=colour, label=figure_escape(each.removeprefix("loss/")), linewidth=1.1
        )
    axis.set(xlabel="iteration", yscale="log" if logarithmic else "linear")
    made.legend(loc="outside lower center", ncols=5)
    return made


# ------------------------------------------------------------------------------------------------- images


@dataclass(frozen=True)
class _Compared:
    """A JPEG of the ground truth beside the detections, and what it shows in words."""

    content: bytes
    words: str


@dataclass(frozen=True)
class _Images:
    """The best and worst images, or the sentence that says why there are none."""

    best: Sequence[_Compared] = ()
    worst: Sequence[_Compared] = ()
    missing: str = ""
    notes: Sequence[str] = ()


def _images(run: Path, config: Config, images: int, detector: Detector | None, other_data: bool) -> _Images:
    """Return the best and the worst images by F1; of equal F1, in the order of the data."""
    if images == 0:
        return _Images(missing="None were asked for.")
    if not has_weights(run):
        return _Images(missing="There are no weights yet, so there are no detections: the training is not finished.")
    try:
        dataset = open_dataset(config.data, "val")
    except DataError as error:
        return _Images(missing=f"The evaluation data is not available here: {error}")
    detector = load_detector(run) if detector is None else detector
    notes = _notes(detector, dataset, config, other_data)
    found = [each.filter(SCORE) for each in detect_all(detector, dataset, config)]
    scores = [image_f1(ours, truth.boxes, truth.labels) for ours, truth in zip(found, dataset.records, strict=True)]
    order = sorted(range(len(scores)), key=lambda at: (-scores[at], at))
    shown = min(images, len(order) // 2)
    best, worst = (
        [_compared(dataset, at, found[at], scores[at]) for at in chosen]
        for chosen in (order[:shown], order[len(order) - shown :][::-1])
    )
    return _Images(best, worst, notes=notes)


def _notes(detector: Detector, dataset: DetectionDataset, config: Config, other_data: bool) -> list[str]:
    """Return what is to be said about the weights and the data. Raises ``DataError`` for other data than the run's."""
    notes = []
    if detector.unfinished is not None:
        done, total = detector.unfinished
        notes.append(f"The training is not finished: the weights are the checkpoint of iteration {done} of {total}.")
    same = is_same_data(dataset, config.data, "val", detector.data_digests)
    if same is None:
        notes.append("The run holds no digest of its data: whether these images are it cannot be checked.")
    elif not same and not other_data:
        raise DataError(
            f"{dataset.name} {dataset.split} is not the data that the run is of: its images, boxes or classes differ. "
            "Restore the data, use what is there with --other-data, or show no images with --images 0"
        )
    elif not same:
        notes.append("These images are other data than the run is of: they or their boxes have changed.")
    return notes


def _compared(dataset: DetectionDataset, at: int, found: Detections, score: float) -> _Compared:
    image, truth = dataset.read(at), dataset.records[at]
    drawn = [draw_boxes(image, truth.boxes, truth.labels, classes=dataset.classes), found.plot(image)]
    name = truth.path.name or f"image {truth.image_id}"
    objects, boxes = count(len(truth.boxes), "object"), count(len(found), "box", "boxes")
    return _Compared(_jpeg(drawn), f"{name}: {objects}, {boxes}, F1 {score:.2f}")


def _jpeg(pictures: Sequence[NDArray[np.uint8]]) -> bytes:
    """Return pictures of one size side by side."""
    height = round(_TILE * pictures[0].shape[0] / pictures[0].shape[1])
    tiles = [cv2.resize(each, (_TILE, height), interpolation=cv2.INTER_AREA) for each in pictures]
    done, encoded = cv2.imencode(".jpg", np.concatenate(tiles, axis=1), [cv2.IMWRITE_JPEG_QUALITY, _JPEG])
    if not done:
        raise OSError("cannot encode a picture of the page")
    return bytes(encoded.tobytes())
