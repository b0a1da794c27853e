"""Suppressing all classes at once is bit-identical to suppressing them one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cornernet import Candidates
from cornernet.config import TestingConfig
from cornernet.inference.suppression import soft_nms, suppress


def boxes(seed: int, count: int, classes: int, ties: bool) -> Candidates:
    rng = np.random.default_rng(seed)
    corners, sides = rng.random((count, 2)) * 300, rng.random((count, 2)) * 150
    table = np.concatenate([corners, corners + sides, rng.random((count, 3))], axis=1).astype(np.float32)
    if ties:
        table = np.round(table * 8) / 8
    rows = torch.from_numpy(table)
    return Candidates(rows[:, :4], rows[:, 4], rows[:, 5:], torch.from_numpy(rng.integers(0, classes, count)))


def one_by_one(candidates: Candidates, testing: TestingConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return the reported rows [M, 7] and labels, computed with the public function for one class."""
    table = torch.cat([candidates.boxes, candidates.scores[:, None], candidates.corner_scores], 1).numpy()
    given_labels = candidates.labels.numpy()
    groups, labels = [np.empty((0, 7), np.float32)], [np.empty(0, np.int64)]
    for label in np.unique(given_labels):
        kept = soft_nms(
            table[given_labels == label],
            method=testing.nms, iou=testing.nms_iou, sigma=testing.nms_sigma, min_score=testing.min_score,
            merge_exponent=testing.merge_exponent if testing.merge else None, extent=testing.nms_extent,
        )  # fmt: skip
        groups.append(kept)
        labels.append(np.full(len(kept), label))
    rows = np.concatenate(groups)
    best = np.argsort(-rows[:, 4], kind="stable")[: testing.max_detections]
    return rows[best], np.concatenate(labels)[best]


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.sampled_from([1, 2, 17, 60, 130, 300]),
    classes=st.sampled_from([1, 3, 80]),
    ties=st.booleans(),
    nms=st.sampled_from(["gaussian", "linear", "hard"]),
    merge=st.booleans(),
    extent=st.sampled_from(["pixels", "points"]),
    most=st.sampled_from([1, 13, 100]),
    min_score=st.sampled_from([0.001, 0.3]),
)
def test_every_bit_is_that_of_one_class_after_another(
    seed, count, classes, ties, nms, merge, extent, most, min_score
) -> None:
    candidates = boxes(seed, count, classes, ties)
    testing = TestingConfig(nms=nms, merge=merge, nms_extent=extent, max_detections=most, min_score=min_score)
    found = suppress([candidates], testing)
    rows, labels = one_by_one(candidates, testing)
    np.testing.assert_array_equal(found.boxes, rows[:, :4])
    np.testing.assert_array_equal(found.scores, rows[:, 4])
    np.testing.assert_array_equal(found.labels, labels)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_coordinate_that_is_no_number_takes_the_way_of_one_class_after_another(number) -> None:
    candidates = boxes(1, 20, 2, False)
    candidates.boxes[3, 0] = number
    with np.errstate(invalid="ignore"):
        found = suppress([candidates], TestingConfig())
        rows, _ = one_by_one(candidates, TestingConfig())
    np.testing.assert_array_equal(found.boxes, rows[:, :4])


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize(("places", "ties"), [(3, False), (40, False), (40, True), (1200, True)])
def test_so_do_many_boxes_in_few_places_where_most_of_the_likely_picks_are_suppressed(places, ties, merge) -> None:
    rng = np.random.default_rng(places)
    centres = boxes(places, places, 2, ties)
    at = torch.from_numpy(np.sort(rng.integers(0, places, 1200)))
    moved = centres.boxes[at] + torch.from_numpy(rng.random((1200, 4)).astype(np.float32))
    falling = torch.linspace(1, 0.1, 1200)  # all boxes at one place rank above those at the next
    scores = torch.full((1200,), 0.5) if ties else falling
    candidates = Candidates(moved, scores, torch.stack([scores, scores], 1), centres.labels[at])
    testing = TestingConfig(merge=merge, max_detections=50)
    found = suppress([candidates], testing)
    rows, labels = one_by_one(candidates, testing)
    np.testing.assert_array_equal(found.boxes, rows[:, :4])
    np.testing.assert_array_equal(found.scores, rows[:, 4])
    np.testing.assert_array_equal(found.labels, labels)
