"""How many numbers an embedding needs, and how near two corners' embeddings must be to form a box."""

from __future__ import annotations

from .study import Contrast, Study, Variant

__all__ = ["STUDY"]

ANY = 1e9
"""A distance that no two embeddings have."""


def _variant(name: str, dimension: int, threshold: float) -> Variant:
    return Variant(
        name=name, edits=(("model.head.embedding_dim", dimension), ("testing.embedding_threshold", threshold))
    )


BASE = _variant("1 number, within 0.5 (the paper)", 1, 0.5)
OTHERS = (
    _variant("2 numbers, within 0.5", 2, 0.5),
    _variant("8 numbers, within 0.5", 8, 0.5),
    _variant("1 number, within 0.25", 1, 0.25),
    _variant("1 number, within 1", 1, 1.0),
    _variant("1 number, at any distance", 1, ANY),
)

STUDY = Study(
    name="embeddings",
    title="Dimension of embeddings and the threshold of pairing",
    question=(
        "Is one number enough to tell objects apart, and how much hangs on the distance below which two corners form a "
        "box? At any distance, corners are paired by class and position alone. Thresholds are of the same weights; "
        "the push loss wants means at least 1 apart, in any dimension."
    ),
    table=None,
    exploratory=True,
    variants=(BASE, *OTHERS),
    contrasts=tuple(Contrast(variant=other.name, base=BASE.name) for other in OTHERS),
    metrics=("AP", "AP50", "AP75", "APs", "APm", "APl"),
)
