"""The implementations of corner pooling under one detector: the same numbers, in another time.

The weights are those of table 1 with corner pooling, however they were trained; only testing changes, and the step that
is timed is taken by a copy. Which implementations run depends on the machine (``Study.why_not`` says why one does not).

The reference is left out. It is brute force, an oracle for small tensors: on a CPU thread an image on heatmaps of 24x24
cells takes ten times as long under it as under eager, on 48x48 cells 24 times, which is minutes for a data set. That it
gives the same detections is held by a test on a small one.
"""

from __future__ import annotations

from cornernet.kernels.registry import ROWS

from .study import Contrast, Study, Variant

__all__ = ["STUDY"]

BASE = "eager"
TOO_SLOW = "reference"
# the base first: it runs everywhere, as the authors' code scans
NAMES = (BASE, *(row.name for row in ROWS if row.name not in (BASE, TOO_SLOW)))

STUDY = Study(
    name="pooling_implementations",
    title="Implementations of corner pooling",
    question=(
        "Does it matter to the result how corner pooling is computed, and what does each way cost? The same weights "
        "under each implementation that runs on this machine: AP must be identical to the last digit. Times are "
        "medians: of an image from pixels to boxes, and of a training step from a batch in memory to new weights. "
        f"The {TOO_SLOW} implementation is left out: brute force, it takes minutes."
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
