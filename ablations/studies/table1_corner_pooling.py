"""Table 1: what corner pooling brings, against the same network with the same parameters and no pooling."""

from __future__ import annotations

from ablations.study import Contrast, Study, Variant

__all__ = ["STUDY"]

STUDY = Study(
    name="table1",
    title="Ablation on corner pooling",
    question="Does corner pooling find corners that a network of the same parameters without it misses?",
    table=1,
    variants=(
        Variant(
            name="w/o corner pooling",
            edits=(("model.head.pooling", "none"),),
            paper_row="w/o corner pooling",
        ),
        Variant(
            name="w/ corner pooling",
            edits=(("model.head.pooling", "corner"),),
            paper_row="w/ corner pooling",
        ),
    ),
    contrasts=(Contrast(variant="w/ corner pooling", base="w/o corner pooling"),),
    metrics=("AP", "AP50", "AP75", "APs", "APm", "APl"),
)
