"""Binary cross-entropy against the gaussians as they are."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from cornernet.config import CornerHeadConfig

__all__ = ["bce"]


def bce(logits: Tensor, target: Tensor, _config: CornerHeadConfig) -> Tensor:
    """Return the cross-entropy of each cell, p the sigmoid of the logit, y the target::

        -y log p - (1 - y) log(1 - p)

    The target is a probability here: around a corner the least loss is at the height of the gaussian, and is not zero.
    Nothing weighs the many empty cells less, which is what focal loss was made against (Lin et al., "Focal Loss for
    Dense Object Detection", 2017, section 3).
    """
    return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
