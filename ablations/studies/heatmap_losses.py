"""The paper's heatmap loss against others: a variant for each row of ``HEATMAP_LOSSES``."""

from __future__ import annotations

from typing import get_args

from cornernet.config import HeatmapLossName

from .study import Contrast, Study, Variant

__all__ = ["STUDY"]

BASE = "focal"
NAMES = (BASE, *(name for name in get_args(HeatmapLossName) if name != BASE))

STUDY = Study(
    name="heatmap_losses",
    title="Heatmap losses",
    question=(
        "Does it have to be the paper's focal loss? The others have the constants of their papers, and the learning "
        "rate that was tuned with the focal loss: a loss that does worse here may need another one."
    ),
    table=None,
    exploratory=True,
    variants=tuple(Variant(name=name, edits=(("model.head.heatmap_loss", name),)) for name in NAMES),
    contrasts=tuple(Contrast(variant=name, base=BASE) for name in NAMES[1:]),
    metrics=("AP", "AP50", "AP75", "APs", "APm", "APl"),
)
