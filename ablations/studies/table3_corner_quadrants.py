"""Table 3: whether corner pooling stays reliable where it pools over large areas.

Top-left pooling looks right and down: a corner in the top-left quadrant is pooled over most of the picture, one in the
bottom-right quadrant over little of it. The trainings are those of table 1.
"""

from __future__ import annotations

from ablations.study import Contrast, Study, Variant

__all__ = ["STUDY"]

STUDY = Study(
    name="table3",
    title="Stability of corner pooling over larger areas",
    question=(
        "Does corner pooling help as much where it pools over a large area? Corners are evaluated by themselves: mAP "
        "of top-left and of bottom-right corners, in the top-left and in the bottom-right quadrant."
    ),
    table=3,
    variants=(
        Variant(
            name="w/o corner pooling",
            edits=(("model.head.pooling", "none"), ("testing.corner_metrics", True)),
            paper_row="mAP w/o pooling",
        ),
        Variant(
            name="w/ corner pooling",
            edits=(("model.head.pooling", "corner"), ("testing.corner_metrics", True)),
            paper_row="mAP w/ pooling",
        ),
    ),
    contrasts=(Contrast(variant="w/ corner pooling", base="w/o corner pooling"),),
    metrics=(
        "corner_AP/top_left/top_left_quadrant",
        "corner_AP/top_left/bottom_right_quadrant",
        "corner_AP/bottom_right/top_left_quadrant",
        "corner_AP/bottom_right/bottom_right_quadrant",
    ),
    paper_names=(
        ("corner_AP/top_left/top_left_quadrant", "top-left corners, top-left quadrant"),
        ("corner_AP/top_left/bottom_right_quadrant", "top-left corners, bottom-right quadrant"),
        ("corner_AP/bottom_right/top_left_quadrant", "bottom-right corners, top-left quadrant"),
        ("corner_AP/bottom_right/bottom_right_quadrant", "bottom-right corners, bottom-right quadrant"),
    ),
    paper_transposed=True,
)
