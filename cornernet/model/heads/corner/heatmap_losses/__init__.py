"""Losses of corner heatmaps: one file each, one row here.

A loss is a function of the logits [B, K, h, w], the targets of the same shape in 0..1 (exactly 1 at corners, with
gaussians around them) and the head's configuration. It returns the loss of each cell in the logits' dtype, which is not
negative and has finite gradients for all finite logits. ``cornernet.model.heads.corner.losses`` sums it and divides by
the number of corners. Testing reads the sigmoid of the logits, so the loss must train that.

The names are also in ``cornernet.config.HeatmapLossName``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from cornernet.config import CornerHeadConfig
from cornernet.model.heads.corner.heatmap_losses import adaptive_wing, bce, focal, mse, quality_focal

__all__ = ["HEATMAP_LOSSES", "HeatmapLoss"]

HeatmapLoss: TypeAlias = Callable[[Tensor, Tensor, CornerHeadConfig], Tensor]

HEATMAP_LOSSES: dict[str, HeatmapLoss] = {
    "focal": focal.focal,
    "bce": bce.bce,
    "mse": mse.mse,
    "quality_focal": quality_focal.quality_focal,
    "adaptive_wing": adaptive_wing.adaptive_wing,
}
