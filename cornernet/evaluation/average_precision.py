"""Average precision of a ranking, COCO's: the mean precision at 101 recalls, under weights of the images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cornernet.evaluation.matching import RECALLS
from cornernet.kernels.compiled import compiled

__all__ = ["average_precision_under", "mean_measured"]


def average_precision_under(
    weights: npt.NDArray[Any],
    images: npt.NDArray[np.int64],
    positive: npt.NDArray[np.bool_],
    totals: npt.NDArray[Any],
) -> npt.NDArray[np.float64]:
    """Return AP [B] under each row of ``weights`` [B, images], whole numbers: how often an image counts.

    ``images`` [N] and ``positive`` [N] are of the predictions, sorted by falling score; ``totals`` [B] is the number of
    true ones to find, already weighted. At each recall the best precision at that recall or beyond counts, and none if
    it is not reached. NaN where there is nothing to find.
    """
    # what follows the last hit changes nothing
    last = int(np.flatnonzero(positive)[-1]) + 1 if positive.any() else 0
    return np.asarray(
        _under(
            np.ascontiguousarray(weights, np.int64),
            np.ascontiguousarray(images[:last], np.int64),
            np.ascontiguousarray(positive[:last], np.uint8),
            np.ascontiguousarray(totals, np.int64),
            RECALLS,
        )
    )


@compiled("float64[::1](int64[:,::1], int64[::1], uint8[::1], int64[::1], float64[::1])")
def _under(
    weights: npt.NDArray[np.int64],
    images: npt.NDArray[np.int64],
    positive: npt.NDArray[np.uint8],
    totals: npt.NDArray[np.int64],
    recalls: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    found = np.full(len(weights), np.nan)
    hits = np.empty(len(images), np.int64)
    precision = np.empty(len(images))
    for b in range(len(weights)):
        if totals[b] == 0:
            continue
        true, false, count = 0, 0, 0
        for n in range(len(images)):
            weight = weights[b, images[n]]
            if positive[n]:
                if weight > 0:
                    true += weight
                    hits[count] = true
                    precision[count] = true / (true + false)
                    count += 1
            else:
                false += weight
        best, total, r = 0.0, 0.0, len(recalls) - 1
        for at in range(count - 1, -1, -1):
            while r >= 0 and recalls[r] > hits[at] / totals[b]:
                total += best
                r -= 1
            best = max(best, precision[at])
        # the remaining recalls are reached by the first hit
        found[b] = (total + (r + 1) * best) / len(recalls)
    return found


def mean_measured(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean over the first axis of ``values`` [K, B] without NaN; NaN where all are."""
    measured = ~np.isnan(values)
    count = measured.sum(axis=0)
    total = np.where(measured, values, 0.0).sum(axis=0)
    mean: npt.NDArray[np.float64] = np.divide(total, count, out=np.full(values.shape[1:], np.nan), where=count > 0)
    return mean
