"""What a corner heatmap is trained with. One file each, one row here.

A loss is a function of the logits [B, K, h, w], the targets of the same shape in 0..1 (exactly 1 at corners, gaussians
around them) and the head's configuration. It returns the loss of each cell, in the logits' dtype, not negative and with
finite gradients for any finite logits; ``cornernet.model.heads.corner.losses`` sums it up and divides by the number of
corners. Testing reads a sigmoid of the logits, so that is what a loss must shape.
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
