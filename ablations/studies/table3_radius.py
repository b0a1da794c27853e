"""In addition to table 3: how its mAP and its gains depend on the radius within which locations are not counted.

The evaluations are those of table 3.
"""

from __future__ import annotations

from .study import Contrast, Study, Variant
from .table3_corner_quadrants import RADII
from .table3_corner_quadrants import STUDY as TABLE_3

__all__ = ["STUDY"]

KINDS = ("top_left", "bottom_right")
BY_RADIUS = tuple(sorted(RADII))


def _metric(corner: str, radius: float) -> str:
    return f"location_AP/{corner}" if radius == RADII[0] else f"location_AP/{corner}/radius_{radius:g}"


STUDY = Study(
    name="table3_radius",
    title="Table 3 at other radii",
    question=(
        "How much depends on the radius within which locations near a true corner are neither right nor wrong? The "
        "paper does not print its radius. mAP over all locations at each, from the evaluations of table 3."
    ),
    table=None,
    exploratory=True,
    variants=tuple(Variant(name=variant.name, edits=variant.edits) for variant in TABLE_3.variants),
    contrasts=tuple(Contrast(variant=each.variant, base=each.base) for each in TABLE_3.contrasts),
    metrics=tuple(_metric(corner, radius) for corner in KINDS for radius in BY_RADIUS),
    paper_names=tuple(
        (_metric(corner, radius), f"{corner.replace('_', '-')} corners, radius {radius:g}")
        for corner in KINDS
        for radius in BY_RADIUS
    ),
)
