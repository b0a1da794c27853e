"""A table's judged claims, as Markdown and as lines for CSV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import get_args

import pandas as pd

from cornernet.console import count

from ..statistics.claims import CONCLUSIONS, LEVEL, UNDECIDED, UNTESTED, Chain, Estimate, JudgedClaim, Verdict
from ..statistics.intervals import CONFIDENCE, POWER
from .cells import estimate_cell, p_cell, points
from .grid import Cell, Grid, Row

__all__ = [
    "HEADER",
    "claims_frame",
    "claims_grid",
    "claims_markdown",
    "claims_reading",
    "decided",
    "looks_reading",
    "seeds_cell",
    "verdict_cells",
]

HEADER = ("verdict", "difference", "p", "p, Holm", f"found with {POWER:.0%}, 50% probability at")


def decided(judged: Sequence[JudgedClaim]) -> bool:
    """Tell whether some claim has been judged: has enough seeds, and a complete look where looks are declared."""
    return any(claim.verdict not in UNTESTED for claim in judged)


def verdict_cells(judged: JudgedClaim) -> list[str]:
    """Return a claim's cells under :data:`HEADER`; of a chain, those of the part that decides."""
    estimate = judged.estimate
    bold = "**" if judged.verdict in CONCLUSIONS else ""
    return [
        f"{bold}{judged.verdict}{bold}",
        estimate_cell(estimate),
        p_cell(judged.p),
        p_cell(judged.adjusted_p),
        _detectable(judged, estimate) if judged.verdict in UNDECIDED else "",
    ]


def seeds_cell(judged: JudgedClaim) -> str:
    """Return the number of seeds that a claim is judged over, and of how many where looks are declared."""
    seeds = min(len(estimate.per_seed) + len(estimate.unmeasured) for estimate in judged.estimates)
    return str(seeds) if judged.schedule is None else f"{seeds} of {judged.schedule.looks.maximum}"


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
        seeds, empty = ([Cell(seeds_cell(claim))], [Cell("")]) if claim.schedule else ([], [])
        rows.append(Row(name, "variant", (*cells, *seeds)))
        if chain is not None:
            for part, estimate in zip(chain.parts, claim.estimates, strict=True):
                unsure = claim.verdict in UNDECIDED and not estimate.p <= LEVEL
                found = _detectable(claim, estimate) if unsure else ""
                texts = ["", estimate_cell(estimate), p_cell(estimate.p), "", found]
                rows.append(Row(f"\u2003{part.statement}", "variant", (*map(Cell, texts), *empty)))
    return Grid((*HEADER, *(["seeds"] if any(claim.schedule for claim in judged) else [])), tuple(rows))


def _chained(judged: JudgedClaim) -> bool:
    """Tell whether each part has a row of its own."""
    return isinstance(judged.claim, Chain)


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
    conclusive, undecided, level = "*holds here* and *opposite here*", "Inconclusive", "the claim was tested"
    if any(claim.schedule for claim in judged):
        conclusive, undecided, level = "verdicts in bold", "Undecided", "the last look tests the claim"
    return [
        f"Of {count(len(judged), 'declared claim')}: {found}. Only {conclusive} are conclusions, "
        f"and only about this data at this budget. *{undecided}* is not evidence of no difference: the last column has "
        f"the true differences that would have been found with {POWER:.0%} and with 50% probability, at the level at "
        f"which {level}.",
        f"Verdicts: at {LEVEL:.0%}, two-sided, with p-values adjusted by Holm over all claims declared for this table. "
        f"Intervals are unadjusted, at {CONFIDENCE:.0%} unless stated otherwise."
        + (_PARTS if any(map(_chained, judged)) else ""),
        *looks_reading(judged),
    ]


def looks_reading(judged: Sequence[JudgedClaim]) -> list[str]:
    """Return how claims were judged at looks; nothing where no looks are declared."""
    schedule = next((claim.schedule for claim in judged if claim.schedule is not None), None)
    if schedule is None:
        return []
    looks = schedule.looks
    allowed = ", ".join(f"{p:.4f}".lstrip("0") for p in looks.allowed(LEVEL))
    text = (
        f"Claims are judged after {', '.join(map(str, looks.at))} seeds, and never between. At these looks a single "
        f"claim may have the p-values {allowed}, which together err with {LEVEL:.0%}. The p shown is the smallest "
        "level at which the claim has crossed at a look. Its interval has the confidence that the last look allows a "
        "single claim. Once the primary claim of a table is settled, no more seeds run for it."
    )
    if looks.margin is not None:
        text += (
            f" *Smaller than the margin here*: after all seeds, the interval lies within {looks.margin:g} of zero, at "
            "the confidence that Holm's step leaves to the claim."
        )
    return [text]


_PARTS = (
    " Every part of a claim in parts must hold: its p is the largest of theirs. One part that is significantly against "
    "refutes the claim: where parts point against it, its p is the smallest of these times the number of parts."
)


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
