"""The anchor head: a box is a change to one of many that stand ready (RetinaNet's; paper table 4)."""

from cornernet.model.heads.anchor.head import AnchorHead, AnchorPredictions
from cornernet.model.heads.anchor.targets import AnchorTargets

__all__ = ["AnchorHead", "AnchorPredictions", "AnchorTargets"]
