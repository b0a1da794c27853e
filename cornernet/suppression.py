"""(Soft) suppression of all classes at once, with the bits of ``postprocess.soft_nms`` class by class.

Overlaps and factors are those of boxes as they were found, since a merged box is never compared again; so all of them
are computed beforehand, and scores go through the picks without numpy's cost of a call. Exponentials stay numpy's, and
sums of merging are taken by the same calls over the same arrays, for the boxes that are reported alone: no result
differs in a bit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cornernet.compiled import compiled

__all__ = ["MOST_PAIRS", "Picks", "pick_all"]

Rows = NDArray[np.float32]

MOST_PAIRS = 1 << 22
"""Pairs of boxes of a class, over all classes, up to which they are computed beforehand (16 MB each table)."""


class Picks:
    """What survives of N rows of C classes, class by class, in the order of picking.

    ``rows`` [M] are indices of the input, ``scores`` [M] those at the time of picking, ``labels`` [M].
    """

    def __init__(self, rows: NDArray[np.int64], scores: Rows, labels: NDArray[np.int64]) -> None:
        self.rows, self.scores, self.labels = rows, scores, labels
        self._tables: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], Rows, Rows] | None = None
        self._order: NDArray[np.int64] = rows

    def others(self, pick: int) -> tuple[NDArray[np.int64], Rows, Rows]:
        """Return the rows that were left beside a pick, in their order then, their overlaps and factors."""
        assert self._tables is not None
        local, begin, left, overlaps, factors = self._tables
        here = left[begin[pick] : begin[pick + 1]]
        first, at = local[pick]
        line = at + here
        return self._order[first + here], overlaps[line], factors[line]


def pick_all(
    rows: Rows,
    labels: NDArray[np.int64],
    factor: Callable[[Rows], Rows],
    floor: np.float32,
    one: np.float32,
    max_picks: int,
    merging: bool,
) -> Picks | None:
    """Return the picks among ``rows`` [N, 7], as ``soft_nms`` makes them; None where there are too many pairs.

    ``factor`` gives what scores are multiplied by from overlaps; ``floor`` is the score under which an overlapping box
    is discarded; ``one`` is 1 where the IoU counts pixels, 0 if not; ``max_picks`` stops each class. ``merging`` keeps
    what :meth:`Picks.others` needs. None too where a number is not finite.
    """
    order = np.argsort(labels, kind="stable")
    classes, sizes = np.unique(labels, return_counts=True)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    pairs = int((sizes.astype(np.int64) ** 2).sum())
    if pairs > MOST_PAIRS or not np.isfinite(rows).all():
        return None
    boxes = np.ascontiguousarray(rows[order, :4])
    overlaps = np.empty(pairs, np.float32)
    _all_overlaps(boxes, starts, one, overlaps)
    factors = np.ascontiguousarray(factor(overlaps), np.float32)
    limits = np.minimum(sizes, max_picks)
    picked = np.empty(int(limits.sum()), np.int64)
    scores = np.empty(len(picked), np.float32)
    local = np.empty((len(picked), 2), np.int64)
    begin = np.zeros(len(picked) + 1, np.int64)
    left = np.empty(int((sizes * limits).sum()) if merging else 0, np.int32)
    counts = np.zeros(len(classes), np.int64)
    total = _pick(
        np.ascontiguousarray(rows[order, 4]), starts, overlaps, factors, floor, max_picks, merging,
        picked, scores, counts, local, begin, left,
    )  # fmt: skip
    found = Picks(order[picked[:total]], scores[:total], np.repeat(classes, counts).astype(np.int64))
    if merging:
        found._tables = (local, begin, left, overlaps, factors)
        found._order = order
    return found


@compiled
def _all_overlaps(boxes: Rows, starts: NDArray[np.int64], one: np.float32, out: Rows) -> None:
    """Write the IoU of every pair of a class's boxes [n, n], class after class; 0 where they do not touch."""
    zero = np.float32(0)
    at = 0
    for group in range(len(starts) - 1):
        first, last = starts[group], starts[group + 1]
        for i in range(first, last):
            x1, y1, x2, y2 = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
            area = (x2 - x1 + one) * (y2 - y1 + one)
            for j in range(first, last):
                width = min(x2, boxes[j, 2]) - max(x1, boxes[j, 0]) + one
                height = min(y2, boxes[j, 3]) - max(y1, boxes[j, 1]) + one
                shared = max(width, zero) * max(height, zero)
                if shared > zero:
                    union = (boxes[j, 2] - boxes[j, 0] + one) * (boxes[j, 3] - boxes[j, 1] + one)
                    union += area
                    union -= shared
                    shared = shared / union
                out[at] = shared
                at += 1


@compiled
def _pick(
    given: Rows,
    starts: NDArray[np.int64],
    overlaps: Rows,
    factors: Rows,
    floor: np.float32,
    max_picks: int,
    merging: bool,
    picked: NDArray[np.int64],
    pick_scores: Rows,
    counts: NDArray[np.int64],
    local: NDArray[np.int64],
    begin: NDArray[np.int64],
    left: NDArray[np.int32],
) -> int:
    """Pick class by class and return how many were picked; see :func:`pick_all`."""
    total, table = 0, 0
    for group in range(len(starts) - 1):
        first, size = starts[group], starts[group + 1] - starts[group]
        order = np.arange(size)
        scores = given[first : first + size].copy()
        gone = np.zeros(size, np.bool_)
        live, done = size, 0
        while done < live and done < max_picks:
            best = done
            for i in range(done + 1, live):
                if scores[i] > scores[best]:
                    best = i
            order[done], order[best] = order[best], order[done]
            scores[done], scores[best] = scores[best], scores[done]
            line = table + order[done] * size
            picked[total], pick_scores[total] = first + order[done], scores[done]
            local[total, 0], local[total, 1] = first, line
            if merging:
                begin[total + 1] = begin[total] + live - done - 1
                for i in range(done + 1, live):
                    left[begin[total] + i - done - 1] = order[i]
            total += 1
            done += 1
            kept = done
            for i in range(done, live):
                scores[i] = scores[i] * factors[line + order[i]]
                gone[i] = scores[i] < floor and overlaps[line + order[i]] > 0
                kept += not gone[i]
            last = live - 1
            for i in range(done, kept):
                if gone[i]:
                    while gone[last]:
                        last -= 1
                    order[i], scores[i] = order[last], scores[last]
                    last -= 1
            live = kept
        counts[group] = done
        table += size * size
    return total
