"""The revision of training: raised by hand when the same configuration would give other weights.

========  ====================================================================================================
revision  what changed
========  ====================================================================================================
1         the first; its pull and push losses are summed over the images of a batch, and so grow with the batch
2         pull and push are means over images, times the authors' 4.9 images a GPU; fused batch norm on a CPU
========  ====================================================================================================
"""

from __future__ import annotations

__all__ = ["TRAINING_REVISION"]

TRAINING_REVISION = 2
"""Of this code. Checkpoints and the keys of studies carry it, so that old results are not taken for new ones."""
