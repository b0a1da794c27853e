"""Table 3: whether corner pooling stays reliable where it pools over large areas.

Top-left pooling looks right and down: a corner in the top-left quadrant is pooled over most of the picture, and a
corner in the bottom-right quadrant over little of it. The trainings are those of table 1.
"""

from __future__ import annotations

from ..statistics.claims import Chain, Effect, Equivalence, Sign
from .study import Contrast, Study, Variant

__all__ = ["STUDY"]

MARGIN = 2.0
"""Gains within this many points of each other are called similar. The paper's gains are 2.6 to 3.1 points, so a
difference of 2 would leave a third of a gain."""


def _gain(corner: str, quadrant: str) -> Effect:
    metric = f"corner_AP/{corner}/{quadrant}_quadrant"
    return Effect(variant="w/ corner pooling", base="w/o corner pooling", metric=metric)


# The paper's text on its table 3 gives the gain in each of the four cases and calls them similar: pooling is stable
# over areas of any size. Top-left corners pool furthest in the top-left quadrant, bottom-right ones in the other.
STUDY = Study(
    name="table3",
    title="Stability of corner pooling over larger areas",
    question=(
        "Does corner pooling help as much where it pools over a large area? Corners are evaluated on their own: mAP of "
        "top-left and of bottom-right corners, in the top-left and in the bottom-right quadrant."
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
    claims=(
        Chain(
            name="everywhere",
            statement="Corner pooling improves corners of both kinds in both quadrants",
            primary=True,
            parts=tuple(
                Sign(
                    name=f"{corner} in {quadrant}",
                    statement=f"{corner.replace('_', '-')} corners, {quadrant.replace('_', '-')} quadrant",
                    effect=_gain(corner, quadrant),
                )
                for corner in ("top_left", "bottom_right")
                for quadrant in ("top_left", "bottom_right")
            ),
        ),
        Equivalence(
            name="top-left: far as near",
            statement=(
                f"Top-left corners gain as much in the far (top-left) quadrant as in the near, to {MARGIN:g} points"
            ),
            effect=_gain("top_left", "top_left"),
            other=_gain("top_left", "bottom_right"),
            margin=MARGIN,
        ),
        Equivalence(
            name="bottom-right: far as near",
            statement=(
                f"Bottom-right corners gain as much in the far (bottom-right) quadrant as in the near, to {MARGIN:g} "
                "points"
            ),
            effect=_gain("bottom_right", "bottom_right"),
            other=_gain("bottom_right", "top_left"),
            margin=MARGIN,
        ),
    ),
)
