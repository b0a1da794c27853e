"""Quality focal loss: focal loss for targets between 0 and 1."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from cornernet.config import CornerHeadConfig

__all__ = ["quality_focal"]

EXPONENT = 2.0
"""Beta in the paper."""


def quality_focal(logits: Tensor, target: Tensor, _config: CornerHeadConfig) -> Tensor:
    """Return the quality focal loss of each cell, p the sigmoid of the logit, y the target::

        |y - p|^2 (-y log p - (1 - y) log(1 - p))

    Li et al., "Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense Object Detection",
    2020, equation 3. Around a corner the target is the gaussian's height; CornerNet's loss only lowers the penalty.
    """
    target = target.to(logits.dtype)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (target - logits.sigmoid()).abs() ** EXPONENT * entropy
