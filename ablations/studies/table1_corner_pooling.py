"""Table 1: what corner pooling gains over the same network with the same parameters and no pooling."""

from __future__ import annotations

import dataclasses

from ..statistics.claims import Chain, Effect, Interaction, Sign
from .study import Contrast, Study, Variant

__all__ = ["PROTOCOL_1", "STUDY"]


def _gain(metric: str) -> Effect:
    return Effect(variant="w/ corner pooling", base="w/o corner pooling", metric=metric)


# The paper's text on its table 1 reports a significant gain in AP and calls corner pooling especially helpful for
# medium and large objects, whose outermost edges lie further from their corners. The latter is a statement about
# differences of gains, and is declared as such.
PROTOCOL_1 = Study(
    name="table1",
    title="Ablation on corner pooling",
    question="Does corner pooling find corners that a network of the same parameters without it misses?",
    table=1,
    variants=(
        Variant(
            name="w/o corner pooling",
            edits=(("model.head.pooling", "none"),),
            paper_row="w/o corner pooling",
        ),
        Variant(
            name="w/ corner pooling",
            edits=(("model.head.pooling", "corner"),),
            paper_row="w/ corner pooling",
        ),
    ),
    contrasts=(Contrast(variant="w/ corner pooling", base="w/o corner pooling"),),
    metrics=("AP", "AP50", "AP75", "APs", "APm", "APl"),
    claims=(
        Sign(name="ap", statement="Corner pooling improves AP", effect=_gain("AP"), primary=True),
        Sign(name="medium", statement="Corner pooling improves AP of medium objects", effect=_gain("APm")),
        Sign(name="large", statement="Corner pooling improves AP of large objects", effect=_gain("APl")),
        Chain(
            name="medium and large above all",
            statement="Medium and large objects gain more than small ones",
            parts=(
                Interaction(
                    name="medium against small",
                    statement="medium gain more than small",
                    effect=_gain("APm"),
                    other=_gain("APs"),
                ),
                Interaction(
                    name="large against small",
                    statement="large gain more than small",
                    effect=_gain("APl"),
                    other=_gain("APs"),
                ),
            ),
        ),
        Interaction(
            name="grows with size",
            statement="Large objects gain more than medium ones",
            effect=_gain("APl"),
            other=_gain("APm"),
        ),
    ),
)

# what pooling costs stands beside what it gains
STUDY = dataclasses.replace(PROTOCOL_1, latency=True)
