"""How much the losses on embeddings should weigh beside that of the heatmaps."""

from __future__ import annotations

from ablations.study import Contrast, Study, Variant

__all__ = ["STUDY"]

PAPER = "0.1 (the paper)"


def _variant(name: str, weight: float) -> Variant:
    return Variant(name=name, edits=(("model.head.pull_weight", weight), ("model.head.push_weight", weight)))


# The paper's section 4.1 sets both to 0.1, and says that 1 or more performs poorly.
STUDY = Study(
    name="pull_push_weights",
    title="Weights of the pull and push losses",
    question=(
        "The paper weighs pull and push by 0.1 and says that 1 or more performs poorly, without figures. And without "
        "either loss, where corners are paired by class and position alone, as embeddings mean nothing?"
    ),
    table=None,
    exploratory=True,
    variants=(_variant(PAPER, 0.1), _variant("1", 1.0), _variant("0", 0.0)),
    contrasts=(Contrast(variant="1", base=PAPER), Contrast(variant="0", base=PAPER)),
    metrics=("AP", "AP50", "AP75", "APs", "APm", "APl"),
)
