"""What offsets within a cell gain: trained and read, trained and not read, not trained."""

from __future__ import annotations

from .study import Contrast, Study, Variant

__all__ = ["STUDY"]

WITH = "offset loss (the paper)"
UNREAD = "offset loss, offsets not read: centres of cells"
CENTRE = "no offset loss: centres of cells"
CORNER = "no offset loss: corners of cells"


def _variant(name: str, weight: float, offsets: str) -> Variant:
    return Variant(name=name, edits=(("model.head.offset_weight", weight), ("testing.offsets", offsets)))


STUDY = Study(
    name="offset_loss",
    title="The offset loss",
    question=(
        "What do predicted offsets gain? Without the loss they mean nothing and are not read: a corner is then placed "
        "at the centre of its cell, where the truth lies on average, or at the cell's own corner, as in the authors' "
        "code without offsets. Centres read from the same weights separate precision from the loss's effect on "
        "training."
    ),
    table=None,
    exploratory=True,
    variants=(
        _variant(WITH, 1.0, "predicted"),
        _variant(UNREAD, 1.0, "centre"),
        _variant(CENTRE, 0.0, "centre"),
        _variant(CORNER, 0.0, "none"),
    ),
    contrasts=(
        *(Contrast(variant=name, base=WITH) for name in (UNREAD, CENTRE, CORNER)),
        Contrast(variant=CENTRE, base=UNREAD),
    ),
    metrics=("AP", "AP50", "AP75", "APs", "APm", "APl"),
)
