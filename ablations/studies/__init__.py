"""The studies: each has a file, and a row here.

A protocol (docs/protocol.md) fixes what is declared before its runs: arms, metrics and claims. ``STUDY`` of a file is
the study as the present protocol declares it, and ``PROTOCOL_1`` as protocol 1 did, where that differs.
"""

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
    table1_sensitivity,
    table2_penalty_reduction,
    table3_corner_quadrants,
    table3_radius,
    table4_backbone_and_head,
    table4_search,
    table5_box_quality,
    table6_error_analysis,
    table6_error_types,
    table7_test_time,
)
from .study import Study

__all__ = ["PROTOCOL", "STUDIES", "declared_in", "find_study"]

PROTOCOL = 2
"""The number of the present protocol."""

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
        table4_search.STUDY,
        table3_radius.STUDY,
        table1_sensitivity.STUDY,
    )
}


_EARLIER: dict[int, tuple[Study, ...]] = {
    1: (
        table1_corner_pooling.PROTOCOL_1,
        table2_penalty_reduction.PROTOCOL_1,
        table3_corner_quadrants.PROTOCOL_1,
        table4_backbone_and_head.PROTOCOL_1,
        table5_box_quality.PROTOCOL_1,
        table6_error_analysis.PROTOCOL_1,
        table7_test_time.PROTOCOL_1,
        feedback.PROTOCOL_1,
    ),
}
"""What an earlier protocol declared otherwise."""


def declared_in(protocol: int) -> dict[str, Study]:
    """Return the studies by name as a protocol declares them. Raises ``ValueError`` for an unknown protocol."""
    if protocol not in (*_EARLIER, PROTOCOL):
        raise ValueError(f"there is no protocol {protocol}; use {', '.join(map(str, (*_EARLIER, PROTOCOL)))}")
    return STUDIES | {study.name: study for study in _EARLIER.get(protocol, ())}


def find_study(name: str, protocol: int = PROTOCOL) -> Study:
    """Return a study by name as a protocol declares it. Raises ``ValueError`` that names the nearest for another."""
    studies = declared_in(protocol)
    if name not in studies:
        raise ValueError(f"there is no study {name!r}{did_you_mean(name, studies)}")
    return studies[name]
