"""How many numbers an embedding needs, and how close two corners' embeddings must be to form a box."""

from __future__ import annotations

from .study import Contrast, Study, Variant

__all__ = ["STUDY"]

ANY = 1e9
"""A distance that no two embeddings reach."""


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
    title="Dimension of embeddings and pairing threshold",
    question=(
        "Is one number enough to tell objects apart, and how much depends on the distance below which two corners form "
        "a box? At any distance, corners are paired only by class and position. Thresholds are tried on the same "
        "weights; the push loss pushes means at least 1 apart, in any dimension."
    ),
    table=None,
    exploratory=True,
    variants=(BASE, *OTHERS),
    contrasts=tuple(Contrast(variant=other.name, base=BASE.name) for other in OTHERS),
    metrics=("AP", "AP50", "AP75", "APs", "APm", "APl"),
)
