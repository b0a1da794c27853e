"""The page of one training run, ``cornernet report RUN``: curves, AP, classes, best and worst images. One file.

It is made from what a run's folder holds (``cornernet.training.loop``) and, for the images, from its weights and its
data; where the data is not to be had any more, the page says so and has the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cornernet.config import Config
from cornernet.data import DataError, open_dataset
from cornernet.drawing.boxes import draw_boxes
from cornernet.drawing.figures import plain, rendered, styled, subplots
from cornernet.drawing.html import Cell, details, escape, figure, inline_svg, page, picture, table
from cornernet.evaluation.evaluate import detect_all
from cornernet.evaluation.image_scores import image_f1
from cornernet.model.detector import Detector
from cornernet.training.metrics import read_metrics
from cornernet.weights.checkpoints import load_detector

__all__ = ["SCORE", "run_page"]

SCORE = 0.3
"""Boxes below it are neither drawn nor counted."""

_TILE = 420
_JPEG = 85


def run_page(run: Path, images: int = 3, detector: Detector | None = None) -> str:
    """Return the page of a run's folder, with the ``images`` best and as many worst of its evaluation data.

    ``detector`` is the run's own, loaded from the folder by default. Raises :class:`DataError` for a folder that holds
    no run, or a damaged file in it.
    """
    config_file = run / "config.json"
    if not config_file.is_file():
        raise DataError(f"{run} is no run's folder: it has no config.json; give a folder that cornernet train wrote")
    config = Config.load(config_file)
    lines, evaluation = _metrics(run / "metrics.jsonl"), _evaluation(run / "evaluation.json")
    title = f"Run {run.resolve().name}"
    body = [f"<h1>{escape(title)}</h1>", _summary(config, lines, evaluation)]
    if evaluation is not None:
        body += [_overall(evaluation["metrics"]), _classes(evaluation["per_class"])]
    body += _curves(_with_final(lines, config.training.iterations, evaluation))
    body.append(_images(run, config, images, detector))
    tree = json.dumps(config.to_public_dict(), indent=1)
    body.append(details("Configuration", f"<pre>{escape(tree)}</pre>"))
    return page(title, "\n".join(body))


def _metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl with their numbers."""
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
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is no evaluation: {error}; remove it, and evaluate the run again") from error
    return dict(tree)


def _summary(config: Config, lines: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any] | None) -> str:
    done = max((line["iteration"] for line in lines), default=0)
    total = config.training.iterations
    state = f"{done} of {total} iterations" + ("" if evaluation else "; not evaluated yet")
    ap = None if evaluation is None else evaluation["metrics"].get("AP")
    found = "" if ap is None else f" AP {100 * ap:.1f}."
    source = config.data.source
    data = Path(source.root).name if source.kind == "coco" else source.kind
    model = config.model
    words = (
        f"{model.backbone.kind} with a {model.head.kind} head on {data}, seed {config.training.seed}: {state}.{found}"
    )
    return f"<p>{escape(words)}</p>"


def _overall(metrics: Mapping[str, float | None]) -> str:
    rows = [[Cell(name), _percent(value)] for name, value in metrics.items() if name != "iteration"]
    return "<h2>Evaluation</h2>" + table(["metric", "%"], rows, caption="COCO's metrics on val, in percent")


def _classes(per_class: Mapping[str, Mapping[str, float | None]]) -> str:
    names = list(dict.fromkeys(metric for values in per_class.values() for metric in values))
    rows = [[Cell(name), *(_percent(values.get(metric)) for metric in names)] for name, values in per_class.items()]
    return "<h2>Classes</h2>" + table(["class", *names], rows, caption="By class, in percent")


def _percent(value: float | None) -> Cell:
    return Cell("not measured") if value is None else Cell(f"{100 * value:.1f}", sort=100 * value)


def _with_final(
    lines: Sequence[Mapping[str, Any]], iterations: int, evaluation: Mapping[str, Any] | None
) -> list[Mapping[str, Any]]:
    """Return the lines with the AP of the evaluation that ends a finished run, which is in a file of its own."""
    ap = None if evaluation is None else evaluation["metrics"].get("AP")
    finished = any(line["iteration"] == iterations for line in lines)
    evaluated = any(line["iteration"] == iterations and line.get("val/AP") is not None for line in lines)
    if ap is None or not finished or evaluated:
        return list(lines)
    return [*lines, {"iteration": iterations, "val/AP": ap}]


def _curves(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for line in lines for name in line if name.startswith("loss/")))
    parts = ["<h2>Training</h2>"]
    if not names:
        return [*parts, "<p>Not recorded.</p>"]
    parts.append(_plot(lines, names, "losses", "Losses over iterations; logarithmic.", logarithmic=True))
    for name, caption in (("val/AP", "AP on val during training."), ("learning_rate", "Learning rate.")):
        if sum(line.get(name) is not None for line in lines) > 1:
            parts.append(_plot(lines, [name], name, caption))
    return parts


def _plot(
    lines: Sequence[Mapping[str, Any]], names: Sequence[str], name: str, caption: str, logarithmic: bool = False
) -> str:
    with styled():
        made = _drawn(lines, names, logarithmic)
        svg, _ = rendered(made)
    kept = [line for line in lines if line.get(names[0]) is not None]
    last = ", ".join(f"{each} {kept[-1][each]:.4g}" for each in names if kept[-1].get(each) is not None)
    step = max(1, len(kept) // 100)
    rows = [
        [Cell(str(line["iteration"]), sort=line["iteration"]), *(_number(line.get(each)) for each in names)]
        for line in kept[::step]
    ]
    behind = details("Data behind this figure", table(["iteration", *names], rows, caption=caption))
    words = f"{caption} At iteration {kept[-1]['iteration']}: {last}"
    return figure(inline_svg(svg.decode(), name, words), caption, behind)


def _drawn(lines: Sequence[Mapping[str, Any]], names: Sequence[str], logarithmic: bool) -> Figure:
    made, (axis,) = subplots(1, 1, (8, 3.4))
    for colour, each in zip(sns.color_palette("colorblind", 10), names, strict=False):
        points = [(line["iteration"], line[each]) for line in lines if line.get(each) is not None]
        axis.plot(*zip(*points, strict=True), color=colour, label=plain(each.removeprefix("loss/")), linewidth=1.1)
    axis.set(xlabel="iteration", yscale="log" if logarithmic else "linear")
    made.legend(loc="outside lower center", ncols=5)
    return made


def _number(value: float | None) -> Cell:
    return Cell("not measured") if value is None else Cell(f"{value:.4g}", sort=value)


def _images(run: Path, config: Config, images: int, detector: Detector | None) -> str:
    """Return the best and the worst images by F1, each beside its ground truth."""
    head = "<h2>Images</h2>"
    if not (run / "model.safetensors").is_file():
        return f"{head}<p>The training is not finished: there are no weights to detect with.</p>"
    try:
        dataset = open_dataset(config.data.source, "val")
    except DataError as error:
        return f"{head}<p>The data that it was evaluated on is not to be had here: {escape(error)}</p>"
    detector = load_detector(run) if detector is None else detector
    found = [each.filter(SCORE) for each in detect_all(detector, dataset, config)]
    truths = [dataset.records[at] for at in range(len(dataset))]
    scores = [image_f1(ours, truth.boxes, truth.labels) for ours, truth in zip(found, truths, strict=True)]
    order = sorted(range(len(scores)), key=lambda at: (-scores[at], at))
    count = min(images, len(order) // 2)
    parts = [
        head,
        f"<p>By F1 at an IoU of 0.5, over boxes of score {SCORE:g} or more; ties in the order of the data. Left the "
        "ground truth, right what was found.</p>",
    ]
    for title, chosen in (("Best", order[:count]), ("Worst", order[len(order) - count :][::-1])):
        parts.append(f"<h3>{title}</h3>")
        for at in chosen:
            image, truth = dataset.read(at), truths[at]
            drawn = [draw_boxes(image, truth.boxes, truth.labels, classes=dataset.classes), found[at].plot(image)]
            name = truth.path.name or f"image {truth.image_id}"
            words = f"{name}: objects {len(truth.boxes)}, boxes {len(found[at])}, F1 {scores[at]:.2f}"
            parts.append(figure(picture(_jpeg(drawn), "image/jpeg", words), words))
    return "\n".join(parts)


def _jpeg(pictures: Sequence[NDArray[np.uint8]]) -> bytes:
    """Return pictures of one size side by side."""
    height = round(_TILE * pictures[0].shape[0] / pictures[0].shape[1])
    tiles = [cv2.resize(each, (_TILE, height), interpolation=cv2.INTER_AREA) for each in pictures]
    done, encoded = cv2.imencode(".jpg", np.concatenate(tiles, axis=1), [cv2.IMWRITE_JPEG_QUALITY, _JPEG])
    if not done:
        raise OSError("cannot encode a picture of the page")
    return bytes(encoded.tobytes())
