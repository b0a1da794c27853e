"""The corner head: a box is a top-left and a bottom-right corner with similar embeddings (paper section 3)."""

from cornernet.model.heads.corner.head import CornerHead, Corners, Predictions
from cornernet.model.heads.corner.targets import CornerTargets

__all__ = ["CornerHead", "CornerTargets", "Corners", "Predictions"]
