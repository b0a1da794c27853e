"""Whether the predictions of one stack should be fed into the next."""

from __future__ import annotations

import dataclasses

from ..statistics.claims import Effect, Sign
from .study import Contrast, Study, Variant

__all__ = ["PROTOCOL_1", "STUDY"]

PLAIN = "not fed back (the paper)"
FED = "fed back"

# The paper's section 3.5: intermediate supervision is added, but predictions are not added back, as that hurt.
PROTOCOL_1 = Study(
    name="feedback",
    title="Predictions fed back into the next stack",
    question=(
        "Stacked hourglasses for human pose add a stack's predictions to the input of the next. The paper leaves this "
        "out because it hurt, and gives no numbers. Two stacks."
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

STUDY = dataclasses.replace(
    PROTOCOL_1,
    exploratory=False,
    claims=(
        Sign(
            name="hurts",
            statement="Predictions added back to the next stack lower AP",
            effect=Effect(variant=FED, base=PLAIN),
            expected="negative",
            primary=True,
        ),
    ),
)
