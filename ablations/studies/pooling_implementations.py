"""The implementations of corner pooling under one detector: the same numbers in different times.

The weights are those of table 1 with corner pooling, however they were trained. Only testing changes, and the timed
step is taken by a copy. Which implementations run depends on the machine; ``Study.why_not`` says why one does not.

The reference is left out. It is a brute-force oracle for small tensors: on one CPU thread an image takes ten times as
long as under eager on heatmaps of 24x24 cells, and 24 times as long on 48x48 cells, which is minutes for a data set. A
test on a small one checks that it gives the same detections.
"""

from __future__ import annotations

from cornernet.kernels.registry import ROWS

from .study import Contrast, Study, Variant

__all__ = ["STUDY"]

BASE = "eager"
TOO_SLOW = "reference"
# the base comes first: it runs everywhere, and scans as the authors' code does
NAMES = (BASE, *(row.name for row in ROWS if row.name not in (BASE, TOO_SLOW)))

STUDY = Study(
    name="pooling_implementations",
    title="Implementations of corner pooling",
    question=(
        "Does the result depend on how corner pooling is computed, and what does each implementation cost? The same "
        "weights under each implementation that runs on this machine: AP must be identical to the last digit. Times "
        "are medians: of an image from pixels to boxes, and of a training step from a batch in memory to new weights. "
        f"The {TOO_SLOW} implementation is left out, because brute force takes minutes."
    ),
    table=None,
    variants=tuple(
        Variant(
            name=name,
            edits=(
                ("model.head.pooling", "corner"),
                ("testing.pooling_impl", name),
                ("testing.measure_step", True),
            ),
        )
        for name in NAMES
    ),
    contrasts=tuple(Contrast(variant=name, base=BASE) for name in NAMES[1:]),
    metrics=("AP", "AP50", "AP75"),
    latency=True,
    step_latency=True,
    identical=True,
)
