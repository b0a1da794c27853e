"""The compiled suppression of all classes gives the bits of numpy's, one class and one box after another."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cornernet import Candidates
from cornernet.config import TestingConfig
from cornernet.inference import suppression_compiled
from cornernet.inference.suppression import soft_nms, suppress
from tests import soft_nms_by_numpy

COUNTS = st.sampled_from([0, 1, 2, 17, 60, 130, 300])


def table(seed: int, count: int, ties: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners, sides = rng.random((count, 2)) * 300, rng.random((count, 2)) * 150
    rows = np.concatenate([corners, corners + sides, rng.random((count, 3))], axis=1).astype(np.float32)
    return np.round(rows * 8) / 8 if ties else rows


def boxes(seed: int, count: int, classes: int, ties: bool) -> Candidates:
    rows = torch.from_numpy(table(seed, count, ties))
    labels = np.random.default_rng(seed + 1).integers(0, classes, count)
    return Candidates(rows[:, :4], rows[:, 4], rows[:, 5:], torch.from_numpy(labels))


def one_by_one(candidates: Candidates, testing: TestingConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return the reported rows [M, 7] and labels, by the reference for one class."""
    rows = torch.cat([candidates.boxes, candidates.scores[:, None], candidates.corner_scores], 1).numpy()
    given_labels = candidates.labels.numpy()
    groups, labels = [np.empty((0, 7), np.float32)], [np.empty(0, np.int64)]
    for label in np.unique(given_labels):
        kept = soft_nms_by_numpy.soft_nms(
            rows[given_labels == label],
            method=testing.nms, iou=testing.nms_iou, sigma=testing.nms_sigma, min_score=testing.min_score,
            merge_exponent=testing.merge_exponent if testing.merge else None, extent=testing.nms_extent,
            column_defect=testing.authors_compatible, stale_rows=testing.authors_compatible,
        )  # fmt: skip
        groups.append(kept)
        labels.append(np.full(len(kept), label))
    found = np.concatenate(groups)
    best = np.argsort(-found[:, 4], kind="stable")[: testing.max_detections]
    if testing.authors_compatible:  # those that tie with the last one too, class by class
        best = np.flatnonzero(found[:, 4] >= found[best[-1], 4]) if len(best) else best
    return found[best], np.concatenate(labels)[best]


def assert_same(candidates: Candidates, testing: TestingConfig) -> None:
    found = suppress([candidates], testing)
    rows, labels = one_by_one(candidates, testing)
    np.testing.assert_array_equal(found.boxes, rows[:, :4])
    np.testing.assert_array_equal(found.scores, rows[:, 4])
    np.testing.assert_array_equal(found.labels, labels)


@given(
    seed=st.integers(0, 2**31 - 1),
    count=COUNTS,
    classes=st.sampled_from([1, 3, 80]),
    ties=st.booleans(),
    testing=st.builds(
        TestingConfig,
        nms=st.sampled_from(["gaussian", "linear", "hard"]),
        merge=st.booleans(),
        nms_extent=st.sampled_from(["pixels", "points"]),
        max_detections=st.sampled_from([1, 13, 100]),
        min_score=st.sampled_from([0.001, 0.3]),
        authors_compatible=st.booleans(),
    ),
)
def test_all_classes_together_have_the_bits_of_one_after_another(seed, count, classes, ties, testing) -> None:
    assert_same(boxes(seed, count, classes, ties), testing)


@given(
    seed=st.integers(0, 2**31 - 1),
    count=COUNTS,
    ties=st.booleans(),
    odd=st.lists(st.tuples(st.integers(0, 299), st.integers(0, 6), st.sampled_from([np.nan, np.inf, -np.inf, 0.0]))),
    method=st.sampled_from(["gaussian", "linear", "hard"]),
    exponent=st.sampled_from([None, 0.5, 2.0, 10.0]),
    column_defect=st.booleans(),
    stale_rows=st.booleans(),
    most=st.sampled_from([None, 1, 40]),
    iou=st.sampled_from([0.0, 0.5]),
    min_score=st.sampled_from([0.0, 0.001, 0.3]),
    at_once=st.sampled_from([1, 300, 2000, suppression_compiled.PAIRS_AT_ONCE]),
)
def test_every_row_has_the_bits_of_numpy_with_every_switch_and_numbers_that_are_none(
    seed, count, ties, odd, method, exponent, column_defect, stale_rows, most, iou, min_score, at_once
) -> None:
    rows = table(seed, count, ties)
    for row, column, number in odd if count else ():
        rows[row % count, column] = number
    settings = {
        "method": method, "iou": iou, "min_score": min_score, "merge_exponent": exponent, "max_picks": most,
        "column_defect": column_defect, "stale_rows": stale_rows,
    }  # fmt: skip
    with np.errstate(all="ignore"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(suppression_compiled, "PAIRS_AT_ONCE", at_once)
        found, expected = soft_nms(rows, **settings), soft_nms_by_numpy.soft_nms(rows, **settings)
    np.testing.assert_array_equal(found, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found)[numbers], np.signbit(expected)[numbers])


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize(("places", "ties"), [(3, False), (40, False), (40, True), (1200, True)])
def test_so_have_many_boxes_in_few_places_where_most_of_the_likely_picks_are_suppressed(places, ties, merge) -> None:
    rng = np.random.default_rng(places)
    centres = boxes(places, places, 2, ties)
    at = torch.from_numpy(np.sort(rng.integers(0, places, 1200)))
    moved = centres.boxes[at] + torch.from_numpy(rng.random((1200, 4)).astype(np.float32))
    falling = torch.linspace(1, 0.1, 1200)  # all boxes at one place rank above those at the next
    scores = torch.full((1200,), 0.5) if ties else falling
    candidates = Candidates(moved, scores, torch.stack([scores, scores], 1), centres.labels[at])
    testing = TestingConfig(merge=merge, max_detections=50)
    assert_same(candidates, testing)
    assert_same(candidates, dataclasses.replace(testing, authors_compatible=True))
