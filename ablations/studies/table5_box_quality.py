"""Table 5: how well boxes fit: AP at increasing IoU, of corners and of anchors on the same backbone.

The paper compares CornerNet with published detectors, whose rows are shown in a separate block. Compared here are the
two heads of table 4, with its trainings.
"""

from __future__ import annotations

from .study import Contrast, Study, Variant
from .table4_backbone_and_head import ANCHORS, BASE_EDITS, CORNERS, anchor_edits

__all__ = ["STUDY"]

STUDY = Study(
    name="table5",
    title="Quality of the bounding boxes",
    question=(
        "Do boxes from corners fit better than boxes from anchors? A detector may find more objects and still place "
        "its boxes worse: AP at each IoU from 0.5 to 0.9."
    ),
    table=5,
    exploratory=True,
    base_edits=BASE_EDITS,
    variants=(
        Variant(name=ANCHORS, edits=anchor_edits),
        Variant(name=CORNERS, paper_row="CornerNet"),
    ),
    contrasts=(Contrast(variant=CORNERS, base=ANCHORS),),
    metrics=("AP", "AP50", "AP60", "AP70", "AP80", "AP90"),
    published=("RetinaNet", "Cascade R-CNN", "Cascade R-CNN + IoU Net"),
)
