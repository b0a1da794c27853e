"""Table 3: whether corner pooling stays reliable where it pools over large areas.

Top-left pooling looks right and down: a corner in the top-left quadrant is pooled over most of the picture, and a
corner in the bottom-right quadrant over little of it. The trainings are those of table 1.
"""

from __future__ import annotations

import dataclasses

from ..statistics.claims import Chain, Effect, Equivalence, Sign
from .study import Contrast, Study, Variant

__all__ = ["PROTOCOL_1", "RADII", "STUDY"]

MARGIN = 2.0
"""Gains within this many points of each other are called similar. The paper's gains are 2.6 to 3.1 points, so a
difference of 2 would leave a third of a gain."""


def _gain(corner: str, quadrant: str) -> Effect:
    metric = f"corner_AP/{corner}/{quadrant}_quadrant"
    return Effect(variant="w/ corner pooling", base="w/o corner pooling", metric=metric)


# The paper's text on its table 3 gives the gain in each of the four cases and calls them similar: pooling is stable
# over areas of any size. Top-left corners pool furthest in the top-left quadrant, bottom-right ones in the other.
PROTOCOL_1 = Study(
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


# -------------------------------------------------------------------------------------------------------- protocol 2
RADII = (2.5, 1.5, 4.0)
"""Radii in cells within which a location is not counted. The paper speaks of a small one; the first is the only radius
that it prints, that of its fixed penalty reduction. ``table3_radius`` shows what the others give."""

SIMILAR = 5.0
"""Gains within this many points of each other are called similar. On maps of 48x48 cells a quadrant goes with an
object's size, so that gains may differ by more than the paper's, which are 2.6 to 3.1 points."""


def _location_gain(corner: str, quadrant: str | None = None) -> Effect:
    metric = f"location_AP/{corner}" + ("" if quadrant is None else f"/{quadrant}_quadrant")
    return Effect(variant="w/ corner pooling", base="w/o corner pooling", metric=metric)


def _as_far(corner: str, far: str, near: str) -> Equivalence:
    name, place = corner.replace("_", "-"), far.replace("_", "-")
    return Equivalence(
        name=f"{name}: far as near",
        statement=(
            f"{name.capitalize()} corners gain as much in the far ({place}) quadrant as in the near, to {SIMILAR:g} "
            "points"
        ),
        effect=_location_gain(corner, far),
        other=_location_gain(corner, near),
        margin=SIMILAR,
    )


STUDY = dataclasses.replace(
    PROTOCOL_1,
    question=(
        "Does corner pooling help as much where it pools over a large area? Corners are evaluated as the paper does, "
        "as a classification of all locations of the heatmaps: true ones are positive, those within "
        f"{RADII[0]:g} cells of a true one are ignored, and all others are negative. mAP of top-left and of "
        "bottom-right corners, over all locations and by quadrant."
    ),
    variants=tuple(
        dataclasses.replace(variant, edits=(variant.edits[0], ("testing.location_radii", RADII)))
        for variant in PROTOCOL_1.variants
    ),
    metrics=tuple(
        f"location_AP/{corner}{place}"
        for corner in ("top_left", "bottom_right")
        for place in ("", "/top_left_quadrant", "/bottom_right_quadrant")
    ),
    paper_names=(
        ("location_AP/top_left", "top-left corners"),
        ("location_AP/bottom_right", "bottom-right corners"),
        *((metric.replace("corner_AP/", "location_AP/"), name) for metric, name in PROTOCOL_1.paper_names),
    ),
    claims=(
        Chain(
            name="both kinds",
            statement="Corner pooling improves corners of both kinds, over all locations",
            primary=True,
            parts=tuple(
                Sign(
                    name=corner,
                    statement=f"{corner.replace('_', '-')} corners",
                    effect=_location_gain(corner),
                )
                for corner in ("top_left", "bottom_right")
            ),
        ),
        _as_far("top_left", "top_left", "bottom_right"),
        _as_far("bottom_right", "bottom_right", "top_left"),
    ),
)
