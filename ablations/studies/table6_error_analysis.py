"""Table 6: how much each output of the network costs, by substituting the ground truth for it when testing.

The trainings are those of table 1 with corner pooling.
"""

from __future__ import annotations

from ..statistics.claims import Effect, Interaction, Sign
from .study import Contrast, Study, Variant

__all__ = ["STUDY"]

BASE = "CornerNet"
HEATMAPS = "w/ gt heatmaps"
BOTH = "w/ gt heatmaps + offsets"
ALL = "w/ gt heatmaps + offsets + embeddings"
EMBEDDINGS = "w/ gt embeddings"
OFFSETS = "w/ gt offsets"

# The paper's text on its table 6: true heatmaps raise AP from 38.4 to 73.1, and true offsets in addition give 13.0
# points more, so detecting corners is the main bottleneck.
STUDY = Study(
    name="table6",
    title="Error analysis with ground truth substituted",
    question=(
        "Which output limits the detector? Beyond the paper: only true embeddings, only true offsets, and all three, "
        "where the distance to 100 is due to the test path itself."
    ),
    table=6,
    variants=(
        Variant(name=BASE, paper_row="CornerNet"),
        Variant(name=HEATMAPS, edits=(("testing.substitute", ("heatmaps",)),), paper_row="w/ gt heatmaps"),
        Variant(
            name=BOTH, edits=(("testing.substitute", ("heatmaps", "offsets")),), paper_row="w/ gt heatmaps + offsets"
        ),
        Variant(name=ALL, edits=(("testing.substitute", ("heatmaps", "offsets", "embeddings")),)),
        Variant(name=EMBEDDINGS, edits=(("testing.substitute", ("embeddings",)),)),
        Variant(name=OFFSETS, edits=(("testing.substitute", ("offsets",)),)),
    ),
    contrasts=(
        Contrast(variant=HEATMAPS, base=BASE),
        Contrast(variant=BOTH, base=HEATMAPS),
        Contrast(variant=ALL, base=BOTH),
        Contrast(variant=EMBEDDINGS, base=BASE),
        Contrast(variant=OFFSETS, base=BASE),
    ),
    metrics=("AP", "AP50", "AP75", "APs", "APm", "APl"),
    claims=(
        Sign(
            name="heatmaps",
            statement="True heatmaps improve AP",
            effect=Effect(variant=HEATMAPS, base=BASE),
            primary=True,
        ),
        Sign(
            name="offsets",
            statement="True offsets beside true heatmaps improve AP further",
            effect=Effect(variant=BOTH, base=HEATMAPS),
        ),
        Interaction(
            name="main bottleneck",
            statement="Detecting corners is the main bottleneck: true heatmaps bring more than true offsets then do",
            effect=Effect(variant=HEATMAPS, base=BASE),
            other=Effect(variant=BOTH, base=HEATMAPS),
        ),
    ),
)
