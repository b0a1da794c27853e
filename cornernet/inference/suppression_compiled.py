"""(Soft) suppression of all classes at once, in compiled loops.

A merged box is never compared again, so overlaps, and what follows from them, depend only on the boxes as they were
given. They are computed in blocks, for the boxes that are likely to be picked next and all that they may lower. Within
a block, exponentials and powers are numpy's, because the digits of other implementations differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cornernet.kernels.compiled import compiled

__all__ = ["PAIRS_AT_ONCE", "suppress_classes"]

Rows = NDArray[np.float32]

PAIRS_AT_ONCE = 1 << 17
"""Pairs of boxes in a block, about. Few enough that the tables of a block stay in a core's cache."""


def suppress_classes(
    rows: Rows,
    labels: NDArray[np.int64],
    *,
    factor: Callable[[Rows], Rows],
    weight: Callable[[Rows, Rows], Rows] | None,
    floor: np.float32,
    pixel_extent: np.float32,
    max_picks: int | None = None,
    column_defect: bool = False,
    stale_rows: bool = False,
) -> tuple[Rows, NDArray[np.int64]]:
    """Return the survivors of each class [M, 7], one class after another in the order of picking, and their labels.

    ``rows`` is float32 [N, 7]: x1 y1 x2 y2 score top-left-score bottom-right-score. ``factor`` maps overlaps to the
    factors of scores. An overlapping box is discarded if its score falls below ``floor``. ``weight`` maps overlaps and
    factors to the weights in the average of corners, before multiplying by corner scores; None means no merging.
    ``pixel_extent`` is added to widths and heights: 1 if coordinates are pixels, 0 if they are points. Each class stops
    after ``max_picks``. ``column_defect`` and ``stale_rows`` reproduce the authors' defects
    (``cornernet.inference.suppression``); with ``stale_rows`` all N rows are returned.
    """
    by_class = np.argsort(labels, kind="stable")
    rows = np.ascontiguousarray(rows[by_class])
    classes, sizes = np.unique(labels, return_counts=True)
    state = _State(rows, sizes, len(rows) if max_picks is None else max_picks)
    merged = rows[:, :4].copy()
    group = 0
    while group < len(classes):
        end, chosen = state.block(group)
        begins, overlaps = state.overlaps(group, end, chosen, pixel_extent)
        factors = np.asarray(factor(overlaps), np.float32)
        weights = np.empty(0, np.float32) if weight is None else weight(overlaps, factors)
        group = _pick(
            group, end, rows, state.starts, state.order, state.column, state.scores, state.live, state.done, begins,
            overlaps, factors, weights, merged, floor, state.max_picks, column_defect,
        )  # fmt: skip
    # the first rows of each class are the picked ones
    place = np.arange(len(rows)) - np.repeat(state.starts[:-1], sizes)
    out = np.flatnonzero(place < np.repeat(sizes if stale_rows else state.done, sizes))
    result = rows[state.order[out]]
    result[:, 4] = state.scores[out]
    if weight is not None:
        picked = (place < np.repeat(state.done, sizes))[out]
        result[picked, :4] = merged[out[picked]]
    if column_defect:
        result[:, 5:] = rows[out, 5:]
    return result, np.repeat(classes, sizes)[out].astype(np.int64)


class _State:
    """The progress of each class. At its front are the ``done`` picked boxes, and up to ``live`` those that remain."""

    def __init__(self, rows: Rows, sizes: NDArray[np.int64], max_picks: int) -> None:
        self.rows, self.max_picks = rows, max_picks
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.scores = np.ascontiguousarray(rows[:, 4])
        self.order = np.arange(len(rows))
        """Which of ``rows`` stands at each position."""
        self.column = np.zeros(len(rows), np.int64)
        """Where the box at each position is in the tables of the current block, counted from its class' first."""
        self.live, self.done = sizes.astype(np.int64), np.zeros(len(sizes), np.int64)

    def block(self, group: int) -> tuple[int, NDArray[np.int64] | None]:
        """Return the end of the classes, from ``group`` on, whose pairs fit in a block, and None.

        If one class has too many pairs, return the next one and the positions of its best boxes, which fit.
        """
        sizes = (self.live - self.done)[group:]
        pairs = np.cumsum(sizes * sizes)
        fitting = int(np.searchsorted(pairs, PAIRS_AT_ONCE, side="right"))
        if fitting:
            return group + fitting, None
        first = self.starts[group]
        here = np.arange(first + self.done[group], first + self.live[group])
        scores = self.scores[here]
        likely = max(1, min(PAIRS_AT_ONCE // len(here), self.max_picks + 1))
        best = np.argsort(-scores, kind="stable")[:likely]
        best[0] = scores.argmax()  # the next pick, also where it is NaN
        return group + 1, here[best]

    def overlaps(
        self, group: int, end: int, chosen: NDArray[np.int64] | None, pixel_extent: np.float32
    ) -> tuple[NDArray[np.int64], Rows]:
        """Return the overlaps of the boxes of a block with all that remain of their class, and where they begin.

        The second array is indexed by a class' start plus a box's column. It is -1 for boxes that were not chosen.
        """
        sizes = (self.live - self.done)[group:end]
        count = int((sizes * sizes).sum()) if chosen is None else len(chosen) * int(sizes[0])
        begins, out = np.empty(len(self.rows), np.int64), np.empty(count, np.float32)
        _overlap(
            group, end, np.empty(0, np.int64) if chosen is None else chosen, self.rows, self.starts, self.order,
            self.live, self.done, pixel_extent, self.column, begins, out,
        )  # fmt: skip
        return begins, out


_F = TypeVar("_F", bound=Callable[..., object])


def _inlined(function: _F) -> _F:
    return cast("_F", njit(forceinline=True, error_model="numpy")(function))


def _loop(function: _F) -> _F:
    return cast("_F", njit(error_model="numpy")(function))


@_inlined
def _larger(a: np.float32, b: np.float32) -> np.float32:
    """Return the larger one, NaN if one is NaN."""
    return a if a >= b or a != a else b


@_inlined
def _smaller(a: np.float32, b: np.float32) -> np.float32:
    """Return the smaller one, NaN if one is NaN."""
    return a if a <= b or a != a else b


@compiled(
    "void(int64, int64, int64[::1], float32[:,::1], int64[::1], int64[::1], int64[::1], int64[::1], float32,"
    " int64[::1], int64[::1], float32[::1])"
)
def _overlap(
    group: int,
    end: int,
    chosen: NDArray[np.int64],
    rows: Rows,
    starts: NDArray[np.int64],
    order: NDArray[np.int64],
    all_live: NDArray[np.int64],
    all_done: NDArray[np.int64],
    pixel_extent: np.float32,
    column: NDArray[np.int64],
    begins: NDArray[np.int64],
    out: Rows,
) -> None:
    """Write the IoU of the chosen boxes, or of all if none are chosen, with every remaining box of their class.

    The remaining boxes of each class get their columns. See ``_State.overlaps``.
    """
    most = 0
    for g in range(group, end):
        most = max(most, all_live[g] - all_done[g])
    x1, y1 = np.empty(most, np.float32), np.empty(most, np.float32)
    x2, y2 = np.empty(most, np.float32), np.empty(most, np.float32)
    areas = np.empty(most, np.float32)
    zero = np.float32(0)
    begin = 0
    for g in range(group, end):
        first, done, count = starts[g], all_done[g], all_live[g] - all_done[g]
        for j in range(count):
            row = order[first + done + j]
            x1[j], y1[j], x2[j], y2[j] = rows[row, 0], rows[row, 1], rows[row, 2], rows[row, 3]
            areas[j] = (x2[j] - x1[j] + pixel_extent) * (y2[j] - y1[j] + pixel_extent)
            column[first + done + j] = j
            begins[first + j] = -1
        for line in range(len(chosen) if len(chosen) else count):
            i = chosen[line] - first - done if len(chosen) else line
            begins[first + i] = begin
            left, top, right, bottom, area = x1[i], y1[i], x2[i], y2[i], areas[i]
            for j in range(count):
                width = _larger(_smaller(right, x2[j]) - _larger(left, x1[j]) + pixel_extent, zero)
                height = _larger(_smaller(bottom, y2[j]) - _larger(top, y1[j]) + pixel_extent, zero)
                shared = width * height
                union = areas[j] + area - shared
                out[begin + j] = shared / union if shared > zero else shared
            begin += count


@compiled(
    "int64(int64, int64, float32[:,::1], int64[::1], int64[::1], int64[::1], float32[::1], int64[::1], int64[::1],"
    " int64[::1], float32[::1], float32[::1], float32[::1], float32[:,::1], float32, int64, boolean)"
)
def _pick(
    group: int,
    end: int,
    rows: Rows,
    starts: NDArray[np.int64],
    all_order: NDArray[np.int64],
    all_column: NDArray[np.int64],
    all_scores: Rows,
    all_live: NDArray[np.int64],
    all_done: NDArray[np.int64],
    begins: NDArray[np.int64],
    overlaps: Rows,
    factors: Rows,
    weights: Rows,
    merged: Rows,
    floor: np.float32,
    max_picks: int,
    column_defect: bool,
) -> int:
    """Pick class by class, from ``group`` to before ``end``, and merge if there are ``weights``.

    Returns ``end`` when done, or the class in which the next pick has no overlaps yet. The loop over the others is that
    of the authors: the last remaining row replaces a discarded one and is examined in its place, so that copies of it
    and of discarded rows remain behind the last one.
    """
    merging = len(weights) > 0
    most = 0
    for g in range(group, end):
        most = max(most, all_live[g] - all_done[g]) if merging else 0
    former, former_column = np.empty(most, np.int64), np.empty(most, np.int64)
    at, examined = np.empty(most, np.int64), np.empty(most, np.int64)
    terms = np.empty((6, most), np.float32)
    rest, left = np.empty(64, np.int64), np.empty(64, np.float32)
    while group < end:
        first, last = starts[group], starts[group + 1]
        order, column, scores = all_order[first:last], all_column[first:last], all_scores[first:last]
        live, done = all_live[group], all_done[group]
        best = done
        for i in range(done + 1, live):
            if scores[best] == scores[best] and not scores[i] <= scores[best]:
                best = i
        while done < live and done < max_picks:
            begin = begins[first + column[best]]
            if begin < 0:
                all_live[group], all_done[group] = live, done
                return group
            order[done], order[best] = order[best], order[done]
            column[done], column[best] = column[best], column[done]
            scores[done], scores[best] = scores[best], scores[done]
            start = done + 1
            before = live - start
            if merging:
                for i in range(before):
                    former[i], former_column[i], at[i] = order[start + i], column[start + i], i
            i = best = start
            top = np.float32(-np.inf)
            while i < live:
                place = begin + column[i]
                score = scores[i] * factors[place]
                scores[i] = score
                if merging:
                    examined[at[i - start]] = i
                if score < floor and overlaps[place] > 0:
                    live -= 1
                    scores[i], order[i], column[i] = scores[live], order[live], column[live]
                    if merging:
                        at[i - start] = at[live - start]
                else:
                    if top == top and not score <= top:  # the first of the best; NaN is best
                        best, top = i, score
                    i += 1
            if merging:
                own = order[done]
                corners = first + done if column_defect else own
                for i in range(before):
                    weight = weights[begin + former_column[i]]
                    row = former[i]
                    other = first + examined[i] if column_defect else row
                    top_left, bottom_right = weight * rows[other, 5], weight * rows[other, 6]
                    terms[0, i], terms[1, i] = top_left, bottom_right
                    terms[2, i], terms[3, i] = rows[row, 0] * top_left, rows[row, 1] * top_left
                    terms[4, i], terms[5, i] = rows[row, 2] * bottom_right, rows[row, 3] * bottom_right
                for corner in range(2):
                    score = rows[corners, 5 + corner]
                    total = np.float32(0)
                    if column_defect:  # one after another, as the results so far were added
                        for i in range(before):
                            total += terms[corner, i]
                    else:
                        total += _sum(terms[corner, :before], rest, left)
                    total += score
                    for side in range(2 * corner, 2 * corner + 2):
                        moved = np.float32(0) + _sum(terms[2 + side, :before], rest, left) + rows[own, side] * score
                        # a corner whose weights are all zero does not move
                        merged[first + done, side] = moved / total if total > 0 else rows[own, side]
            done += 1
        all_live[group], all_done[group] = live, done
        group += 1
    return group


@_loop
def _sum(values: Rows, rest: NDArray[np.int64], left: Rows) -> np.float32:
    """Return the sum of ``values``, added pairwise in numpy's order: halves of whole eights, down to 128 at most.

    ``rest`` and ``left`` [64] are for the halves that wait. (A function that calls itself cannot be loaded from disk.)
    """
    begin, count, depth = 0, len(values), 0
    while True:
        while count > 128:
            half = count // 2
            half -= half % 8
            rest[depth] = count - half
            depth += 1
            count = half
        total = _short_sum(values[begin : begin + count])
        begin += count
        while depth > 0 and rest[depth - 1] == 0:
            depth -= 1
            total = left[depth] + total
        if depth == 0:
            return total
        left[depth - 1], count = total, rest[depth - 1]
        rest[depth - 1] = 0


@_loop
def _short_sum(values: Rows) -> np.float32:
    count = len(values)
    if count < 8:
        few = np.float32(0)
        for i in range(count):
            few += values[i]
        return few
    a, b, c, d, e, f, g, h = values[0], values[1], values[2], values[3], values[4], values[5], values[6], values[7]
    end = count - count % 8
    for i in range(8, end, 8):
        a += values[i]
        b += values[i + 1]
        c += values[i + 2]
        d += values[i + 3]
        e += values[i + 4]
        f += values[i + 5]
        g += values[i + 6]
        h += values[i + 7]
    total: np.float32 = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for i in range(end, count):
        total += values[i]
    return total
