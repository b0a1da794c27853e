"""The two exponents of the paper's focal loss, each halved and doubled."""

from __future__ import annotations

from .study import Contrast, Study, Variant

__all__ = ["STUDY"]


def _variant(name: str, alpha: float, beta: float) -> Variant:
    edits = (("model.head.heatmap_loss", "focal"), ("model.head.focal_alpha", alpha), ("model.head.focal_beta", beta))
    return Variant(name=name, edits=edits)


BASE = _variant("alpha 2, beta 4 (the paper)", 2.0, 4.0)
OTHERS = (
    _variant("alpha 1", 1.0, 4.0),
    _variant("alpha 4", 4.0, 4.0),
    _variant("beta 2", 2.0, 2.0),
    _variant("beta 8", 2.0, 8.0),
)

STUDY = Study(
    name="focal_exponents",
    title="Exponents of the focal loss",
    question=(
        "How much depends on the exponents of equation 1? A larger alpha gives less weight to cells that are already "
        "right; a larger beta reduces the penalty further around the corner."
    ),
    table=None,
    exploratory=True,
    variants=(BASE, *OTHERS),
    contrasts=tuple(Contrast(variant=other.name, base=BASE.name) for other in OTHERS),
    metrics=("AP", "AP50", "AP75", "APs", "APm", "APl"),
)
