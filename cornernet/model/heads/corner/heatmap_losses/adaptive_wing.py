"""Adaptive wing loss: close to an L1 loss at corners and to a squared loss far from them."""

from __future__ import annotations

import torch
from torch import Tensor

from cornernet.config import CornerHeadConfig

__all__ = ["adaptive_wing"]

# the authors' values
OMEGA = 14.0
THETA = 0.5
EPSILON = 1.0
ALPHA = 2.1


def adaptive_wing(logits: Tensor, target: Tensor, _config: CornerHeadConfig) -> Tensor:
    """Return the adaptive wing loss of each cell, d = |y - p|, p the sigmoid of the logit, y the target::

        d < theta:    omega log(1 + (d / epsilon)^(alpha - y))
        otherwise:    A d - C

    with A and C such that value and slope meet at theta: A = omega (alpha - y) t^(alpha - y - 1) / (epsilon (1 +
    t^(alpha - y))), C = theta A - omega log(1 + t^(alpha - y)), t = theta / epsilon.

    Wang et al., "Adaptive Wing Loss for Robust Face Alignment via Heatmap Regression", 2019, equations 4 to 6. Their
    weighted loss map, which gives cells around a peak eleven times the weight, is left out: it is a separate setting.
    """
    target = target.to(logits.dtype)
    difference = (target - logits.sigmoid()).abs()
    exponent = ALPHA - target
    ratio = torch.as_tensor(THETA / EPSILON, dtype=logits.dtype, device=logits.device)
    at_theta = ratio**exponent
    slope = OMEGA * exponent * ratio ** (exponent - 1) / (EPSILON * (1 + at_theta))
    offset = THETA * slope - OMEGA * at_theta.log1p()
    near = OMEGA * ((difference / EPSILON) ** exponent).log1p()
    return torch.where(difference < THETA, near, slope * difference - offset)
