"""How much the losses on embeddings should weigh beside that of the heatmaps."""

from __future__ import annotations

from ablations.studies.embeddings import ANY
from ablations.study import Contrast, Study, Variant

__all__ = ["STUDY"]

PAPER = "0.1 (the paper)"
OTHERS = ("1", "0", "0, paired at any distance")


def _variant(name: str, weight: float, *more: tuple[str, object]) -> Variant:
    return Variant(name=name, edits=(("model.head.pull_weight", weight), ("model.head.push_weight", weight), *more))


# The paper's section 4.1 sets both to 0.1, and says that 1 or more performs poorly.
STUDY = Study(
    name="pull_push_weights",
    title="Weights of the pull and push losses",
    question=(
        "The paper weighs pull and push by 0.1 and says that 1 or more performs poorly, without figures. And without "
        "either loss, where embeddings mean nothing: with the threshold of pairing as it is, and with none, so that "
        "corners are paired by class and position alone?"
    ),
    table=None,
    exploratory=True,
    variants=(
        _variant(PAPER, 0.1),
        _variant("1", 1.0),
        _variant("0", 0.0),
        _variant("0, paired at any distance", 0.0, ("testing.embedding_threshold", ANY)),
    ),
    contrasts=tuple(Contrast(variant=other, base=PAPER) for other in OTHERS),
    metrics=("AP", "AP50", "AP75", "APs", "APm", "APl"),
)
