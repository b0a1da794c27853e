"""What a record keeps for figures: AP by IoU, precision over recall and the losses of training, in a few KB."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from cornernet.evaluation.evaluate import Evaluation
from cornernet.training.metrics import read_metrics

from .record import Curves, LossCurve

__all__ = ["MAX_POINTS", "curves", "loss_curve"]

MAX_POINTS = 48
"""Of a training curve: each point is the mean of the lines that it stands for."""

_DIGITS = 4


def curves(evaluation: Evaluation, metrics: Path) -> Curves:
    """Return the curves of an evaluation, and of the training that wrote ``metrics``, with few digits.

    ``ap_by_iou`` has COCO's ten thresholds; ``precision`` has 101 values by IoU in percent; ``training`` has the
    iterations, and the losses by name. None stands for what was not measured.
    """
    return Curves(
        ap_by_iou=[_short(value) for value in evaluation.ap_by_iou],
        precision={str(iou): [_short(value) for value in values] for iou, values in evaluation.precision.items()},
        training=loss_curve(metrics),
    )


def loss_curve(metrics: Path, points: int = MAX_POINTS) -> LossCurve:
    """Return the losses in a run's metrics.jsonl, with at most ``points`` points; empty without that file.

    Lines are averaged in groups of equal length, and each mean stands at the last iteration of its group. A line that
    was cut short, because the machine stopped, is left out.
    """
    lines = [line for line in read_metrics(metrics) if "loss/total" in line]
    size = max(1, math.ceil(len(lines) / points))
    groups = [lines[start : start + size] for start in range(0, len(lines), size)]
    names = [name for name in (lines[0] if lines else ()) if name.startswith("loss/")]
    return LossCurve(
        iteration=[group[-1]["iteration"] for group in groups],
        loss={
            name.removeprefix("loss/"): [_mean([line[name] for line in group]) for group in groups] for name in names
        },
    )


def _mean(values: Sequence[float]) -> float | None:
    return _short(sum(values) / len(values))


def _short(value: float) -> float | None:
    return None if not math.isfinite(value) else float(f"{value:.{_DIGITS}g}")
