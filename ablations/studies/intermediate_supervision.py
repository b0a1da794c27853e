"""Whether the stacks before the last need their own loss."""

from __future__ import annotations

from .study import Contrast, Study, Variant

__all__ = ["STUDY"]

ON = "every stack (the paper)"
OFF = "the last stack alone"

STUDY = Study(
    name="intermediate_supervision",
    title="Intermediate supervision",
    question="Does it help that every stack predicts corners and has its own loss, not only the last? Two stacks.",
    table=None,
    exploratory=True,
    base_edits=(("model.backbone.stacks", 2),),
    variants=(
        Variant(name=ON, edits=(("model.head.intermediate_supervision", True),)),
        Variant(name=OFF, edits=(("model.head.intermediate_supervision", False),)),
    ),
    contrasts=(Contrast(variant=OFF, base=ON),),
    metrics=("AP", "AP50", "AP75", "APs", "APm", "APl"),
)
