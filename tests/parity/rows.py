"""Comparison of decoded boxes as a multiset: the order of equal scores is undefined."""

from __future__ import annotations

import numpy as np

from cornernet import Candidates


def as_rows(found: Candidates) -> np.ndarray:
    """Return x1 y1 x2 y2 score tl_score br_score label, as the goldens store them."""
    columns = [found.boxes, found.scores[:, None], found.corner_scores, found.labels[:, None].float()]
    return np.concatenate([c.numpy() for c in columns], axis=1)


def assert_same_rows(found: Candidates, expected: np.ndarray, tolerance: float, unmatched: float = 0.0) -> None:
    """Assert that each expected row matches a different found row, except for a given share of them."""
    rows = as_rows(found)
    assert len(rows) == len(expected)
    free = np.ones(len(rows), bool)
    missing = 0
    for row in expected:
        near = free & (np.abs(rows - row).max(axis=1) <= tolerance)
        if near.any():
            free[np.argmax(near)] = False
        else:
            missing += 1
    assert missing <= unmatched * len(expected), f"{missing} of {len(expected)} rows have no partner"
