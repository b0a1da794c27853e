"""In addition to table 1: whether the gain of corner pooling depends on the recipe.

The recipe was tuned on the arm with corner pooling. Both arms are therefore trained again at half and at twice its
learning rate, and for twice its iterations.
"""

from __future__ import annotations

from .study import Contrast, Edit, Study, Variant

__all__ = ["STUDY"]

POOLING = {"w/o corner pooling": "none", "w/ corner pooling": "corner"}
WITHOUT, WITH = POOLING

RECIPES: dict[str, Edit] = {
    "half the learning rate": ("training.learning_rate", lambda config: config.training.learning_rate / 2),
    "twice the learning rate": ("training.learning_rate", lambda config: 2 * config.training.learning_rate),
    "twice the iterations": ("training.iterations", lambda config: 2 * config.training.iterations),
}

STUDY = Study(
    name="table1_sensitivity",
    title="Table 1 under other recipes",
    question=(
        "Does the gain of corner pooling depend on the recipe, which was tuned on the arm with pooling? Both arms at "
        "half and at twice the learning rate, and for twice the iterations."
    ),
    table=None,
    exploratory=True,
    variants=tuple(
        Variant(name=f"{arm}, {recipe}", edits=(("model.head.pooling", pooling), edit))
        for recipe, edit in RECIPES.items()
        for arm, pooling in POOLING.items()
    ),
    contrasts=tuple(Contrast(variant=f"{WITH}, {recipe}", base=f"{WITHOUT}, {recipe}") for recipe in RECIPES),
    metrics=("AP", "AP50", "AP75", "APs", "APm", "APl"),
)
