"""Binary cross-entropy, with the gaussians as target probabilities."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from cornernet.config import CornerHeadConfig

__all__ = ["bce"]


def bce(logits: Tensor, target: Tensor, _config: CornerHeadConfig) -> Tensor:
    """Return the cross-entropy of each cell, p the sigmoid of the logit, y the target::

        -y log p - (1 - y) log(1 - p)

    Here the target is a probability: around a corner the loss is lowest at the height of the gaussian, and not zero
    there. The many empty cells keep their full weight, the problem that focal loss was made to solve (Lin et al.,
    "Focal Loss for Dense Object Detection", 2017, section 3).
    """
    return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
