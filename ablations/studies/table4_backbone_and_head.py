"""Table 4: whether the backbone or the way of finding boxes makes the detector: two backbones, two heads.

Exploratory: three seeds, intervals and no verdicts. The arms differ in what their name says and in what follows from
it. Anchors have RetinaNet's suppression, hard at an IoU of 0.5; data, augmentation, training and the rest of testing
are those of the corners. The head's subnets are as wide as the backbone's finest map, which makes it about as large as
the corner head: on the backbone of recipe ``tiny`` 29 thousand parameters against 33, and 0.076 GFLOP against 0.074 for
the whole network at 95x95 pixels; on Hourglass-104, with RetinaNet's levels, 13.9 million against 13.3.

Anchors are read from every map of the hourglass's way up, from stride 4 on, where RetinaNet's begin at stride 8: on
small pictures its smallest anchor would be larger than many objects.
"""

from __future__ import annotations

from ablations.study import Contrast, Study, Variant
from cornernet.config import AnchorHeadConfig

__all__ = ["ANCHORS", "CORNERS", "STUDY", "anchor_edits"]

FPN = "FPN + Corners"
ANCHORS = "Hourglass + Anchors"
CORNERS = "Hourglass + Corners"

anchor_edits = (("model.head", AnchorHeadConfig(finest_stride=4)), ("testing.nms", "hard"))
"""From corners on a backbone to anchors on it: the same in tables 4 and 5."""

STUDY = Study(
    name="table4",
    title="Backbone and head",
    question=(
        "Is it the hourglass, or is it the corners? The same backbone finds boxes by corners or by anchors at several "
        "resolutions (RetinaNet's, with intermediate supervision). Exploratory: no verdicts."
    ),
    table=4,
    variants=(
        Variant(name=ANCHORS, edits=anchor_edits, paper_row="Hourglass + Anchors"),
        Variant(name=CORNERS, paper_row="Hourglass + Corners"),
    ),
    contrasts=(Contrast(variant=CORNERS, base=ANCHORS),),
    metrics=("AP", "AP50", "AP75", "APs", "APm", "APl"),
    published=("FPN (w/ ResNet-101) + Corners",),
    latency=True,
)
