"""How much weight the losses on embeddings should have beside the heatmap loss."""

from __future__ import annotations

from .embeddings import ANY
from .study import Contrast, Study, Variant

__all__ = ["STUDY"]


def _variant(name: str, weight: float, *more: tuple[str, object]) -> Variant:
    return Variant(name=name, edits=(("model.head.pull_weight", weight), ("model.head.push_weight", weight), *more))


BASE = _variant("0.1 (the paper)", 0.1)
OTHERS = (
    _variant("1", 1.0),
    _variant("0", 0.0),
    _variant("0, paired at any distance", 0.0, ("testing.embedding_threshold", ANY)),
)

# The paper's section 4.1 sets both to 0.1, and says that 1 or more performs poorly.
STUDY = Study(
    name="pull_push_weights",
    title="Weights of the pull and push losses",
    question=(
        "The paper weights pull and push by 0.1 and says, without numbers, that 1 or more performs poorly. And what "
        "happens without either loss, where embeddings mean nothing: with the usual pairing threshold, and with none, "
        "so that corners are paired only by class and position?"
    ),
    table=None,
    exploratory=True,
    variants=(BASE, *OTHERS),
    contrasts=tuple(Contrast(variant=other.name, base=BASE.name) for other in OTHERS),
    metrics=("AP", "AP50", "AP75", "APs", "APm", "APl"),
)
