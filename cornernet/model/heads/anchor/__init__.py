"""The anchor head: a box is predicted relative to a fixed anchor (RetinaNet's method; paper table 4)."""

from cornernet.model.heads.anchor.head import AnchorHead, AnchorPredictions
from cornernet.model.heads.anchor.targets import AnchorTargets

__all__ = ["AnchorHead", "AnchorPredictions", "AnchorTargets"]
