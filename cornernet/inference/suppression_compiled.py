"""(Soft) suppression of all classes at once, bit-identical to ``suppression.soft_nms`` run class by class.

A merged box is never compared again, so overlaps and factors depend only on the original boxes. They are computed in
advance for the boxes that are likely to be picked, and extended when another box is picked. To keep results
bit-identical, exponentials are numpy's, and merging makes the same calls on the same arrays, but only for the boxes
that are reported.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cornernet.kernels.compiled import compiled

__all__ = ["MOST_PAIRS", "Picks", "pick_all"]

Rows = NDArray[np.float32]

MOST_PAIRS = 1 << 22
"""Limit on the number of pairs of a likely pick and a box of its class, over all classes (two tables of 16 MB each)."""


class Picks:
    """The survivors among N rows of C classes, class by class, in the order of picking.

    ``rows`` [M] are indices into the input, ``scores`` [M] the scores when picked, ``labels`` [M] the classes.
    """

    def __init__(self, rows: NDArray[np.int64], scores: Rows, labels: NDArray[np.int64]) -> None:
        self.rows, self.scores, self.labels = rows, scores, labels
        self._tables: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], Rows, Rows] | None = None
        self._order: NDArray[np.int64] = rows

    def others(self, pick: int) -> tuple[NDArray[np.int64], Rows, Rows]:
        """Return the rows that were left when a pick was made, in their order then, with overlaps and factors."""
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
    pixel_extent: np.float32,
    max_picks: int,
    merging: bool,
) -> Picks | None:
    """Return the picks among ``rows`` [N, 7], as ``soft_nms`` makes them.

    ``factor`` maps overlaps to the factors of scores. An overlapping box is discarded if its score falls below
    ``floor``. ``pixel_extent`` is added to widths and heights: 1 if coordinates are pixels, 0 if they are points. Each
    class stops after ``max_picks``. ``merging`` keeps what :meth:`Picks.others` needs. Returns None if there are more
    than :data:`MOST_PAIRS` pairs or a number is not finite.
    """
    order = np.argsort(labels, kind="stable")
    classes, sizes = np.unique(labels, return_counts=True)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    if not np.isfinite(rows).all():
        return None
    boxes, state = np.ascontiguousarray(rows[order, :4]), _State(np.ascontiguousarray(rows[order, 4]), starts)
    likely = np.concatenate([state.likely(group, max_picks) for group in range(len(classes))])
    tables = _Tables(boxes, starts, pixel_extent, factor)
    limits = np.minimum(sizes, max_picks)
    picked = np.empty(int(limits.sum()), np.int64)
    scores = np.empty(len(picked), np.float32)
    local = np.empty((len(picked), 2), np.int64)
    begin = np.zeros(len(picked) + 1, np.int64)
    left = np.empty(int((sizes * limits).sum()) if merging else 0, np.int32)
    group = 0
    while group < len(classes):
        if not tables.extend(likely):
            return None
        group = _pick(
            group, state.scores, starts, tables.overlaps, tables.factors, tables.line, floor, max_picks, merging,
            picked, scores, state.done, state.live, state.order, local, begin, left,
        )  # fmt: skip
        if group < len(classes):
            waiting = state.likely(group, max_picks)
            likely = waiting[tables.line[waiting] < 0]
    total = int(state.done.sum())
    found = Picks(order[picked[:total]], scores[:total], np.repeat(classes, state.done).astype(np.int64))
    if merging:
        found._tables = (local, begin, left, tables.overlaps, tables.factors)
        found._order = order
    return found


class _State:
    """The progress of each class. The picked boxes of a class come first, then the ``live`` ones."""

    def __init__(self, given: Rows, starts: NDArray[np.int64]) -> None:
        self.starts, self.scores = starts, given.copy()
        sizes = np.diff(starts)
        self.order = np.arange(len(given)) - np.repeat(starts[:-1], sizes)
        """Indices of boxes, counted from the first box of their class."""
        self.live, self.done = sizes.copy(), np.zeros(len(sizes), np.int64)

    def likely(self, group: int, max_picks: int) -> NDArray[np.int64]:
        """Return the boxes of a class with the best remaining scores, or all remaining ones if they are few."""
        first = self.starts[group]
        here = np.arange(first + self.done[group], first + self.live[group])
        if len(here) > 2 * max_picks:
            here = here[np.argsort(-self.scores[here], kind="stable")[: max_picks + 1]]  # the next pick is the first
        found: NDArray[np.int64] = first + self.order[here]
        return found


class _Tables:
    """Overlaps and factors of boxes with all boxes of their class.

    ``line`` gives the start of a box's entries, or -1 if they have not been computed.
    """

    def __init__(
        self, boxes: Rows, starts: NDArray[np.int64], pixel_extent: np.float32, factor: Callable[[Rows], Rows]
    ) -> None:
        self.boxes, self.starts, self.pixel_extent, self.factor = boxes, starts, pixel_extent, factor
        self.groups = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        self.line = np.full(len(boxes), -1, np.int64)
        self.overlaps = self.factors = np.empty(0, np.float32)

    def extend(self, rows: NDArray[np.int64]) -> bool:
        """Add the overlaps of ``rows`` and return True, or return False if that would exceed the limit."""
        sizes = np.diff(self.starts)[self.groups[rows]]
        ends = len(self.overlaps) + np.cumsum(sizes)
        if len(rows) and ends[-1] > MOST_PAIRS:
            return False
        self.line[rows] = ends - sizes
        more = np.empty(int(sizes.sum()), np.float32)
        _overlaps_of(rows, self.groups, self.boxes, self.starts, self.pixel_extent, more)
        self.overlaps = np.concatenate([self.overlaps, more])
        self.factors = np.concatenate([self.factors, np.asarray(self.factor(more), np.float32)])
        return True


@compiled("void(int64[::1], int64[::1], float32[:,::1], int64[::1], float32, float32[::1])")
def _overlaps_of(
    rows: NDArray[np.int64],
    groups: NDArray[np.int64],
    boxes: Rows,
    starts: NDArray[np.int64],
    pixel_extent: np.float32,
    out: Rows,
) -> None:
    """Write to ``out`` the IoU of each of ``rows`` with every box of its class; 0 where they do not touch."""
    zero = np.float32(0)
    at = 0
    for i in rows:
        x1, y1, x2, y2 = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        area = (x2 - x1 + pixel_extent) * (y2 - y1 + pixel_extent)
        for j in range(starts[groups[i]], starts[groups[i] + 1]):
            width = min(x2, boxes[j, 2]) - max(x1, boxes[j, 0]) + pixel_extent
            height = min(y2, boxes[j, 3]) - max(y1, boxes[j, 1]) + pixel_extent
            shared = max(width, zero) * max(height, zero)
            if shared > zero:
                union = (boxes[j, 2] - boxes[j, 0] + pixel_extent) * (boxes[j, 3] - boxes[j, 1] + pixel_extent)
                union += area
                union -= shared
                shared = shared / union
            out[at] = shared
            at += 1


@compiled(
    "int64(int64, float32[::1], int64[::1], float32[::1], float32[::1], int64[::1], float32, int64, boolean,"
    " int64[::1], float32[::1], int64[::1], int64[::1], int64[::1], int64[:,::1], int64[::1], int32[::1])"
)
def _pick(
    group: int,
    all_scores: Rows,
    starts: NDArray[np.int64],
    overlaps: Rows,
    factors: Rows,
    lines: NDArray[np.int64],
    floor: np.float32,
    max_picks: int,
    merging: bool,
    picked: NDArray[np.int64],
    pick_scores: Rows,
    all_done: NDArray[np.int64],
    all_live: NDArray[np.int64],
    all_order: NDArray[np.int64],
    local: NDArray[np.int64],
    begin: NDArray[np.int64],
    left: NDArray[np.int32],
) -> int:
    """Pick class by class, starting with ``group``; see :func:`pick_all`.

    Returns the number of classes when done, or the class in which the next pick has no overlaps yet.
    """
    total = all_done.sum()
    while group < len(starts) - 1:
        first, last_of_class = starts[group], starts[group + 1]
        order, scores = all_order[first:last_of_class], all_scores[first:last_of_class]
        gone = np.zeros(last_of_class - first, np.bool_)
        live, done = all_live[group], all_done[group]
        while done < live and done < max_picks:
            best = done
            for i in range(done + 1, live):
                if scores[i] > scores[best]:
                    best = i
            line = lines[first + order[best]]
            if line < 0:
                return group
            order[done], order[best] = order[best], order[done]
            scores[done], scores[best] = scores[best], scores[done]
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
            all_live[group], all_done[group] = live, done
        group += 1
    return group
