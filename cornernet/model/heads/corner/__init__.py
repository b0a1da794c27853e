"""The corner head: a box is a top-left and a bottom-right corner whose embeddings agree (paper section 3)."""

from cornernet.heads.corner.head import CornerHead, Corners, Predictions
from cornernet.heads.corner.targets import CornerTargets

__all__ = ["CornerHead", "CornerTargets", "Corners", "Predictions"]
