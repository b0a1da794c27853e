"""Table 7: what several scales, mirroring and the kind of suppression gain at test time, and what each costs.

The scales are the authors', and were fixed here before any result was seen. The trainings are those of table 1 with
corner pooling.
"""

from __future__ import annotations

import dataclasses

from ..statistics.claims import Effect, Sign
from .paper import paper_table
from .study import Contrast, Study, Variant

__all__ = ["PROTOCOL_1", "STUDY"]

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)
SINGLE = "single scale"
PLAIN = "single scale, w/o flip"
MULTI = "multi scale"
LINEAR = "single scale, linear soft-NMS"
HARD = "single scale, hard NMS"
SINGLE_DEFECTS = "single scale, the authors' defects"
MULTI_DEFECTS = "multi scale, the authors' defects"

ONE_SCALE = (
    ("testing.scales", (1.0,)),
    ("testing.flip", True),
    ("testing.nms", "gaussian"),
    ("testing.merge", False),
    ("testing.authors_compatible", False),
)
MANY_SCALES = (*ONE_SCALE, ("testing.scales", SCALES), ("testing.merge", True))

# The paper's table 7 prints 40.6 for a single scale and 42.2 for several.
PROTOCOL_1 = Study(
    name="table7",
    title="Single scale and multi scale",
    question=(
        "What do several scales gain, and what do they cost? Beyond the paper: the mirror image, kinds of suppression "
        "and the two defects of the authors' test path. Single scale is with flip and gaussian soft-NMS; multi scale "
        f"({', '.join(f'{scale:g}' for scale in SCALES)}) also merges boxes, as the authors do."
    ),
    table=7,
    variants=(
        Variant(name=SINGLE, edits=ONE_SCALE, paper_row="CornerNet511 (single scale), Hourglass-104"),
        Variant(name=MULTI, edits=MANY_SCALES, paper_row="CornerNet511 (multi scale), Hourglass-104"),
        Variant(name=PLAIN, edits=(*ONE_SCALE, ("testing.flip", False))),
        Variant(name=LINEAR, edits=(*ONE_SCALE, ("testing.nms", "linear"))),
        Variant(name=HARD, edits=(*ONE_SCALE, ("testing.nms", "hard"))),
        Variant(name=SINGLE_DEFECTS, edits=(*ONE_SCALE, ("testing.authors_compatible", True))),
        Variant(name=MULTI_DEFECTS, edits=(*MANY_SCALES, ("testing.authors_compatible", True))),
    ),
    contrasts=(
        Contrast(variant=MULTI, base=SINGLE),
        Contrast(variant=PLAIN, base=SINGLE),
        Contrast(variant=LINEAR, base=SINGLE),
        Contrast(variant=HARD, base=SINGLE),
        Contrast(variant=SINGLE_DEFECTS, base=SINGLE),
        Contrast(variant=MULTI_DEFECTS, base=MULTI),
    ),
    metrics=("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100"),
    latency=True,
    claims=(
        Sign(
            name="multi scale",
            statement="Testing at several scales improves AP",
            effect=Effect(variant=MULTI, base=SINGLE),
            primary=True,
        ),
    ),
)

STUDY = dataclasses.replace(
    PROTOCOL_1,
    metrics=(*PROTOCOL_1.metrics, "ARs", "ARm", "ARl"),
    # the paper's whole comparison
    published=tuple(name for group in paper_table(7).others.values() for name in group),
)
