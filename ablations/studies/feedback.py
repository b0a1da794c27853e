"""Whether what one stack predicts should be part of what the next one sees."""

from __future__ import annotations

from .study import Contrast, Study, Variant

__all__ = ["STUDY"]

PLAIN = "not fed back (the paper)"
FED = "fed back"

# The paper's section 3.5: intermediate supervision is added, but predictions are not added back, as that hurt.
STUDY = Study(
    name="feedback",
    title="Predictions fed back into the next stack",
    question=(
        "Stacked hourglasses for human pose add what a stack predicts to the next one's input. The paper leaves that "
        "out because it hurt, without figures. Two stacks."
    ),
    table=None,
    exploratory=True,
    base_edits=(("model.backbone.stacks", 2),),
    variants=(
        Variant(name=PLAIN, edits=(("model.head.feedback", False),)),
        Variant(name=FED, edits=(("model.head.feedback", True),)),
    ),
    contrasts=(Contrast(variant=FED, base=PLAIN),),
    metrics=("AP", "AP50", "AP75", "APs", "APm", "APl"),
)
