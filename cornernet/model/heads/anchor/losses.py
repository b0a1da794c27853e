"""The anchor head's losses (RetinaNet, sections 3 and 4), computed in float32."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cornernet.config import AnchorHeadConfig
from cornernet.model.heads.anchor.outputs import AnchorPredictions, by_anchor
from cornernet.model.heads.anchor.targets import IGNORED, AnchorTargets

__all__ = ["AnchorLosses", "anchor_losses", "box_loss", "focal_loss"]


class AnchorLosses(NamedTuple):
    """The unweighted losses of one stack, scalars."""

    classification: Tensor
    box: Tensor


def anchor_losses(
    predictions: AnchorPredictions, targets: AnchorTargets, config: AnchorHeadConfig, num_classes: int, counts: Tensor
) -> AnchorLosses:
    """Return the losses of one stack. ``counts`` [1] is ``AnchorTargets.counts`` of the whole batch."""
    positives = counts[0].clamp(min=1)
    logits = by_anchor(predictions.logits, num_classes)
    classification = focal_loss(logits, targets.labels, config.focal_alpha, config.focal_gamma)
    positive = targets.labels >= 0
    codes = by_anchor(predictions.codes, 4)[positive]
    box = box_loss(codes, targets.codes[positive], config.box_beta)
    return AnchorLosses(classification / positives, box / positives)


def focal_loss(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """Return the focal loss of ``logits`` [B, N, K] against ``labels`` [B, N], summed over anchors and classes.

    An anchor is a positive of its label's class and a negative of all others; an anchor that is labelled negative is a
    negative of every class, and an ignored one has no loss. With p the sigmoid of the logit, the loss of a positive is
    -alpha (1 - p)^gamma log p, that of a negative -(1 - alpha) p^gamma log(1 - p).
    """
    classes = torch.arange(logits.shape[-1], device=logits.device)
    positive = labels[..., None] == classes
    # rises with the error of the prediction: for a negative, the logit itself
    wrong = torch.where(positive, -logits, logits)
    weight = torch.where(positive, alpha, 1 - alpha) * (labels != IGNORED)[..., None]
    # sigmoid(wrong)^gamma through its logarithm: where the sigmoid is 0, a power has no finite gradient
    return (weight * torch.exp(-gamma * F.softplus(-wrong)) * F.softplus(wrong)).sum()


def box_loss(codes: Tensor, targets: Tensor, beta: float) -> Tensor:
    """Return the summed smooth-L1 loss of codes [P, 4]: quadratic below ``beta``; with ``beta`` 0 it is the L1 loss."""
    return F.smooth_l1_loss(codes, targets, reduction="sum", beta=beta)
