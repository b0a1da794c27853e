"""The studies: each has a file, and a row here."""

from __future__ import annotations

from cornernet.config.checks import did_you_mean

from . import (
    backbone_size,
    embeddings,
    feedback,
    focal_exponents,
    heatmap_losses,
    intermediate_supervision,
    offset_loss,
    pooling_implementations,
    pull_push_weights,
    table1_corner_pooling,
    table2_penalty_reduction,
    table3_corner_quadrants,
    table4_backbone_and_head,
    table5_box_quality,
    table6_error_analysis,
    table6_error_types,
    table7_test_time,
)
from .study import Study

__all__ = ["STUDIES", "find_study"]

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        table1_corner_pooling.STUDY,
        table2_penalty_reduction.STUDY,
        table3_corner_quadrants.STUDY,
        table6_error_analysis.STUDY,
        table6_error_types.STUDY,
        table7_test_time.STUDY,
        pooling_implementations.STUDY,
        table4_backbone_and_head.STUDY,
        table5_box_quality.STUDY,
        backbone_size.STUDY,
        pull_push_weights.STUDY,
        feedback.STUDY,
        intermediate_supervision.STUDY,
        offset_loss.STUDY,
        embeddings.STUDY,
        focal_exponents.STUDY,
        heatmap_losses.STUDY,
    )
}


def find_study(name: str) -> Study:
    """Return a study by name. Raises ``ValueError`` that names the nearest for an unknown one."""
    if name not in STUDIES:
        raise ValueError(f"there is no study {name!r}{did_you_mean(name, STUDIES)}")
    return STUDIES[name]
