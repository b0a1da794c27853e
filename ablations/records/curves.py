"""What a record keeps for figures: AP by IoU, precision over recall and the losses of training, in a few KB."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cornernet.evaluation.evaluate import Evaluation
from cornernet.training.metrics import read_metrics

__all__ = ["MAX_POINTS", "curves", "loss_curve"]

MAX_POINTS = 64
"""Of a curve of training: each is the mean of the lines it stands for."""

_DIGITS = 4


def curves(evaluation: Evaluation, metrics: Path) -> dict[str, Any]:
    """Return the curves of an evaluation, and of the training that wrote ``metrics``, as JSON with few digits.

    ``ap_by_iou`` has COCO's ten thresholds; ``precision`` 101 values by IoU in percent; ``training`` the iterations
    and by name the losses. None is what was not measured.
    """
    return {
        "ap_by_iou": [_short(value) for value in evaluation.ap_by_iou],
        "precision": {str(iou): [_short(value) for value in values] for iou, values in evaluation.precision.items()},
        "training": loss_curve(metrics),
    }


def loss_curve(metrics: Path, points: int = MAX_POINTS) -> dict[str, Any]:
    """Return ``iteration`` and ``loss`` by name from a run's metrics.jsonl, at most ``points`` of them; none without.

    Lines are averaged in runs of equal length, and stand at the last iteration of each. A line that was cut short, by
    a machine that stopped, is left out.
    """
    lines = [line for line in read_metrics(metrics) if "loss/total" in line]
    size = max(1, math.ceil(len(lines) / points))
    runs = [lines[start : start + size] for start in range(0, len(lines), size)]
    names = [name for name in (lines[0] if lines else ()) if name.startswith("loss/")]
    return {
        "iteration": [run[-1]["iteration"] for run in runs],
        "loss": {name.removeprefix("loss/"): [_mean([line[name] for line in run]) for run in runs] for name in names},
    }


def _mean(values: Sequence[float]) -> float | None:
    return _short(sum(values) / len(values))


def _short(value: float) -> float | None:
    return None if not math.isfinite(value) else float(f"{value:.{_DIGITS}g}")
