"""The paper's loss: focal loss with a reduced penalty around corners."""

from __future__ import annotations

import torch
from torch import Tensor

from cornernet.config import CornerHeadConfig

__all__ = ["focal"]

# Keeps the logarithms finite; a cell beyond it has no gradient (the authors' value).
PROBABILITY_MARGIN = 1e-4


def focal(logits: Tensor, target: Tensor, config: CornerHeadConfig) -> Tensor:
    """Return the focal loss of each cell (paper equation 1), p the sigmoid of the logit, y the target.

    ::

        y = 1:   -(1 - p)^alpha log p
        y < 1:   -(1 - y)^beta p^alpha log(1 - p)

    alpha is ``focal_alpha``, beta ``focal_beta``; after Lin et al., "Focal Loss for Dense Object Detection", 2017.
    """
    p = logits.sigmoid().clamp(PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    positive = (1 - p) ** config.focal_alpha * p.log()
    negative = (1 - target) ** config.focal_beta * p**config.focal_alpha * (1 - p).log()
    return -torch.where(target == 1, positive, negative)
