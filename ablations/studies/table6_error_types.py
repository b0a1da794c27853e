"""In addition to table 6: what kinds of errors the detector makes, with corner pooling and without.

TIDE (Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", 2020) asks by how much AP50 would
rise if one type of error were fixed. The trainings are those of table 1.
"""

from __future__ import annotations

from cornernet.evaluation.evaluate import ERROR_TYPES

from .study import Contrast, Study, Variant

__all__ = ["STUDY"]

WITHOUT = "w/o corner pooling"
WITH = "w/ corner pooling"

STUDY = Study(
    name="table6_error_types",
    title="Types of errors, with corner pooling and without",
    question=(
        "Which errors does corner pooling avoid? For each of TIDE's types, what AP50 would gain if its errors were "
        "fixed: wrong class, shifted box, both, duplicate, background, missed object; then all false positives and "
        "all false negatives. Lower is better; the types do not add up. The paper has no such table."
    ),
    table=None,
    variants=(
        Variant(name=WITHOUT, edits=(("model.head.pooling", "none"), ("testing.error_types", True))),
        Variant(name=WITH, edits=(("model.head.pooling", "corner"), ("testing.error_types", True))),
    ),
    contrasts=(Contrast(variant=WITH, base=WITHOUT),),
    metrics=ERROR_TYPES,
    lower_is_better=True,
)
