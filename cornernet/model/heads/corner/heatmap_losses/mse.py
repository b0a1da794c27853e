"""Mean squared error, the usual loss for heatmaps of human joints."""

from __future__ import annotations

from torch import Tensor

from cornernet.config import CornerHeadConfig

__all__ = ["mse"]


def mse(logits: Tensor, target: Tensor, _config: CornerHeadConfig) -> Tensor:
    """Return (p - y)^2 of each cell, p the sigmoid of the logit, y the target.

    Human pose estimation uses it (Tompson et al., "Joint Training of a Convolutional Network and a Graphical Model for
    Human Pose Estimation", 2014; Newell et al., "Stacked Hourglass Networks for Human Pose Estimation", 2016), there on
    the network's raw output, here on the sigmoid that testing reads.
    """
    return (logits.sigmoid() - target).square()
