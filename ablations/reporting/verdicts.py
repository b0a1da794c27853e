"""A table's judged claims, as Markdown and as lines for CSV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import get_args

import pandas as pd

from cornernet.console import count

from ..statistics.claims import CONCLUSIONS, LEVEL, Chain, Estimate, JudgedClaim, Verdict
from ..statistics.intervals import CONFIDENCE, POWER
from .cells import estimate_cell, p_cell, points
from .grid import Cell, Grid, Row

__all__ = ["HEADER", "claims_frame", "claims_grid", "claims_markdown", "claims_reading", "decided", "verdict_cells"]

HEADER = ("verdict", "difference", "p", "p, Holm", f"found with {POWER:.0%}, 50% probability at")


def decided(judged: Sequence[JudgedClaim]) -> bool:
    """Tell whether some claim has enough seeds to be judged."""
    return any(claim.verdict != "too few seeds" for claim in judged)


def verdict_cells(judged: JudgedClaim) -> list[str]:
    """Return a claim's cells under :data:`HEADER`; of a chain, those of the part that decides."""
    estimate = judged.estimate
    bold = "**" if judged.verdict in CONCLUSIONS else ""
    return [
        f"{bold}{judged.verdict}{bold}",
        estimate_cell(estimate),
        p_cell(judged.p),
        p_cell(judged.adjusted_p),
        _detectable(judged, estimate) if judged.verdict == "inconclusive" else "",
    ]


def claims_grid(judged: Sequence[JudgedClaim]) -> Grid:
    """Return the claims as a table: a row for each claim, and for each part of a chain."""
    rows = []
    for claim in judged:
        cells = _cells(claim)
        chain = claim.claim if isinstance(claim.claim, Chain) else None
        if chain is not None:
            # its parts show their own
            cells[1] = cells[4] = Cell("")
        name = claim.claim.statement + (" (primary)" if claim.claim.primary else "")
        rows.append(Row(name, "variant", tuple(cells)))
        if chain is not None:
            for part, estimate in zip(chain.parts, claim.estimates, strict=True):
                unsure = claim.verdict == "inconclusive" and not estimate.p <= LEVEL
                found = _detectable(claim, estimate) if unsure else ""
                texts = ["", estimate_cell(estimate), p_cell(estimate.p), "", found]
                rows.append(Row(f"\u2003{part.statement}", "variant", tuple(map(Cell, texts))))
    return Grid(HEADER, tuple(rows))


def _cells(judged: JudgedClaim) -> list[Cell]:
    texts = verdict_cells(judged)
    return [Cell(texts[0].strip("*"), strong=texts[0].startswith("**")), *map(Cell, texts[1:])]


def claims_markdown(judged: Sequence[JudgedClaim]) -> str:
    """Return the claims as a table, and how to read it."""
    return "\n\n".join([claims_grid(judged).to_markdown(), "  \n".join(claims_reading(judged))])


def claims_reading(judged: Sequence[JudgedClaim]) -> list[str]:
    """Return what may be concluded from the verdicts, and how they were reached."""
    counts = Counter(claim.verdict for claim in judged)
    found = ", ".join(f"{verdict}: {counts[verdict]}" for verdict in get_args(Verdict) if counts[verdict])
    return [
        f"Of {count(len(judged), 'declared claim')}: {found}. Only *holds here* and *opposite here* are conclusions, "
        "and only about this data at this budget. *Inconclusive* is not evidence of no difference: the last column has "
        f"the true differences that would have been found with {POWER:.0%} and with 50% probability, at the level at "
        "which the claim was tested.",
        f"Verdicts: at {LEVEL:.0%}, two-sided, with p-values adjusted by Holm over all claims declared for this table. "
        f"Intervals are unadjusted, at {CONFIDENCE:.0%} unless stated otherwise."
        + (_PARTS if _has_parts(judged) else ""),
    ]


_PARTS = (
    " Every part of a claim in parts must hold: its p is the largest of theirs. One part that is significantly against "
    "refutes the claim: where parts point against it, its p is the smallest of these times the number of parts."
)


def _has_parts(judged: Sequence[JudgedClaim]) -> bool:
    return any(isinstance(claim.claim, Chain) for claim in judged)


def _detectable(judged: JudgedClaim, estimate: Estimate) -> str:
    return ", ".join(points(judged.detectable(estimate, power)) for power in (POWER, 0.5))


def claims_frame(judged: Sequence[JudgedClaim]) -> pd.DataFrame:
    """Return a line for each claim and each part of a chain, with unrounded numbers; empty where there is none."""
    lines = []
    for claim in judged:
        tree = claim.to_dict()
        whole = {f"claim_{name}" if name == "p" else name: tree[name] for name in _OF_CLAIM}
        for estimate in tree["estimates"]:
            seeds = " ".join(estimate["per_seed"])
            lines.append({**whole, **{name: estimate[name] for name in _OF_ESTIMATE}, "seeds": seeds})
    columns = [*(f"claim_{name}" if name == "p" else name for name in _OF_CLAIM), *_OF_ESTIMATE, "seeds"]
    return pd.DataFrame(lines, columns=columns)


_OF_CLAIM = ("name", "kind", "statement", "primary", "verdict", "p", "adjusted_p")
_OF_ESTIMATE = (
    "label",
    "expected",
    "margin",
    "mean",
    "low",
    "high",
    "confidence",
    "seed_sd",
    "image_sd",
    "p",
    "detectable",
    "detectable_half_the_time",
)
