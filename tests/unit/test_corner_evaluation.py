"""Evaluation of single corners: hits, their quadrants, and the resulting AP."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cornernet import Corners, build_detector, recipe
from cornernet.config import ShapesSource, TestingConfig
from cornernet.data import open_dataset
from cornernet.evaluation.corners import CORNER_METRICS, corner_counts, corner_metrics, match_corners
from cornernet.evaluation.evaluate import METRICS, evaluate
from cornernet.inference.detect import CornersInView
from cornernet.model.heads.candidates import CornerPoints

TOP_LEFT, TL_QUADRANT, BR_QUADRANT = CORNER_METRICS[:3]
# a photograph of 20 by 20 cells: the middle is at (10, 10)
CENTRE = (10.0, 10.0)


def view(found: list[tuple[float, float, float, int]], true: list[tuple[float, float, int]]) -> CornersInView:
    """Top-left corners (x, y, score, class) found in a photograph, and the true ones (x, y, class)."""
    rows = torch.tensor(found, dtype=torch.float32).reshape(-1, 4)
    points = CornerPoints(rows[:, :2], rows[:, 2], rows[:, 3].long())
    none = CornerPoints(torch.empty(0, 2), torch.empty(0), torch.empty(0, dtype=torch.int64))
    boxes = np.array([[x, y, 19.0, 19.0] for x, y, _ in true]).reshape(-1, 4)
    return CornersInView(Corners(points, none), boxes, np.array([label for *_, label in true], np.int64), CENTRE)


def measured(*views: CornersInView, radius: float = 1.5, classes: int = 2) -> dict[str, float]:
    return corner_metrics(match_corners(views, radius), classes)


def test_the_metrics_have_these_names() -> None:
    assert CORNER_METRICS == (
        "corner_AP/top_left",
        "corner_AP/top_left/top_left_quadrant",
        "corner_AP/top_left/bottom_right_quadrant",
        "corner_AP/bottom_right",
        "corner_AP/bottom_right/top_left_quadrant",
        "corner_AP/bottom_right/bottom_right_quadrant",
    )


@pytest.mark.parametrize(("x", "ap"), [(3.0, 1.0), (4.5, 1.0), (4.51, 0.0)])
def test_a_corner_counts_up_to_the_radius(x: float, ap: float) -> None:
    assert measured(view([(x, 3, 0.9, 0)], [(3, 3, 0)]))[TOP_LEFT] == ap


def test_a_corner_of_another_class_or_in_another_photograph_is_no_hit() -> None:
    assert measured(view([(3, 3, 0.9, 1)], [(3, 3, 0)]))[TOP_LEFT] == 0
    assert measured(view([(3, 3, 0.9, 0)], []), view([], [(3, 3, 0)]))[TOP_LEFT] == 0


def test_a_true_corner_is_taken_once_by_the_best_score() -> None:
    twice = measured(view([(3, 3, 0.5, 0), (4, 3, 0.9, 0)], [(3, 3, 0), (18, 3, 0)]))[TOP_LEFT]
    # one of two found, with a duplicate below it
    assert twice == pytest.approx(51 / 101)
    first_is_taken = measured(view([(3, 3, 0.5, 0), (3, 4, 0.9, 0)], [(3, 3, 0), (3, 4.8, 0)]))[TOP_LEFT]
    assert first_is_taken == 1


def test_the_nearest_free_true_corner_is_taken() -> None:
    # the better one takes the nearer true corner and leaves the other within the second one's reach
    found = [(5.0, 5.0, 0.9, 0), (4.0, 5.0, 0.8, 0)]
    assert measured(view(found, [(4.0, 5.0, 0), (5.5, 5.0, 0)]))[TOP_LEFT] == 1


def test_average_precision_by_hand_over_photographs_and_classes() -> None:
    # class 0, best first: hit, miss, hit of 4 true: recall 1/4 at precision 1, 2/4 at 2/3
    first = view([(3, 3, 0.9, 0), (15, 15, 0.8, 0)], [(3, 3, 0), (8, 3, 0)])
    second = view([(4, 4, 0.7, 0), (2, 2, 0.1, 1)], [(4, 4, 0), (9, 9, 0), (2, 2, 1)])
    class_0 = (26 * 1 + 25 * 2 / 3) / 101
    assert measured(first, second, classes=3)[TOP_LEFT] == pytest.approx((class_0 + 1) / 2)


def test_quadrants_hold_what_lies_in_them() -> None:
    views = view([(3, 3, 0.9, 0), (15, 15, 0.8, 0), (13, 13, 0.7, 0)], [(3, 3, 0), (13, 13, 0), (15, 3, 0)])
    found = measured(views)
    assert found[TL_QUADRANT] == 1
    # ranked below a false positive
    assert found[BR_QUADRANT] == pytest.approx(1 / 2)
    # the corner at the top right lies in neither quadrant, but still counts as missed overall
    assert found[TOP_LEFT] == pytest.approx((34 * 1 + 33 * 2 / 3) / 101)


def test_a_pair_that_the_border_parts_is_a_hit_where_the_truth_lies_and_nothing_beyond() -> None:
    over = view([(9.8, 9.8, 0.9, 0), (3, 3, 0.5, 0)], [(10.2, 10.2, 0), (3, 3, 0)])
    found = measured(over)
    assert found[BR_QUADRANT] == 1
    assert found[TL_QUADRANT] == 1


def test_the_middle_itself_is_on_its_far_side() -> None:
    found = measured(view([], [(10, 10, 0)]))
    assert math.isnan(found[TL_QUADRANT])
    assert found[BR_QUADRANT] == 0


def test_true_corners_are_counted_where_they_lie() -> None:
    views = [view([], [(3, 3, 0), (15, 3, 0), (13, 13, 1)]), view([(3, 3, 0.9, 0)], [(4, 4, 1)])]
    counts = corner_counts(match_corners(views, 1.5))
    # their bottom-right corners are all at (19, 19)
    assert list(counts.values()) == [4, 2, 1, 4, 0, 4]


def test_no_true_corner_is_no_measurement() -> None:
    found = measured(view([(3, 3, 0.9, 0)], []))
    assert all(math.isnan(value) for value in found.values())
    assert all(math.isnan(value) for value in measured().values())


def test_weights_count_photographs_as_copies_do() -> None:
    rng = np.random.default_rng(0)
    views = []
    for _ in range(6):
        true = [(*(rng.random(2) * 20).tolist(), int(rng.integers(0, 2))) for _ in range(5)]
        near = [(x + rng.normal(0, 1), y + rng.normal(0, 1), rng.random(), c) for x, y, c in true]
        far = [(*rng.random(2) * 20, rng.random(), int(rng.integers(0, 2))) for _ in range(6)]
        views.append(view([*near, *far], true))
    weights = np.array([0.0, 3.0, 1.0, 0.0, 2.0, 1.0])
    copies = [v for v, count in zip(views, weights.astype(int), strict=True) for _ in range(count)]
    weighed, copied = match_corners(views, 1.5)[0], match_corners(copies, 1.5)[0]
    for quadrant in (None, 0, 1):
        expected = copied.mean_average_precision(2, quadrant)
        assert 0 < expected < 1
        under = weighed.mean_average_precision_under(np.stack([weights, np.ones(6)]), 2, quadrant)
        assert under[0] == pytest.approx(expected, abs=1e-12)
        assert under[1] == weighed.mean_average_precision(2, quadrant)


def test_weights_that_leave_no_true_corner_measure_nothing() -> None:
    views = [view([(3, 3, 0.9, 0)], [(3, 3, 0)]), view([(3, 3, 0.8, 0)], [])]
    under = match_corners(views, 1.5)[0].mean_average_precision_under(np.array([[1, 1], [0, 2]]), 1)
    assert under[0] == 1
    assert math.isnan(under[1])


def evaluated(**testing: Any) -> Any:
    torch.manual_seed(0)
    config = replace(recipe("tiny"), testing=TestingConfig(**testing))
    # small enough for top-left corners beyond the middle
    dataset = open_dataset(ShapesSource(train_images=2, val_images=12, object_size=(0.2, 0.3)), "val")
    return evaluate(build_detector(config).eval(), dataset, config)


def test_an_evaluation_has_them_when_asked_and_true_heatmaps_find_all_corners() -> None:
    plain = evaluated()
    assert set(plain.metrics) == set(METRICS)
    asked = evaluated(corner_metrics=True, substitute=("heatmaps", "offsets"))
    assert set(asked.metrics) == {*METRICS, *CORNER_METRICS}
    assert [asked.metrics[name] for name in CORNER_METRICS] == [1] * 6
    assert "corner_AP/top_left/top_left_quadrant" in asked.to_text()
    untrained = evaluated(corner_metrics=True)
    assert untrained.metrics["corner_AP/top_left"] < 0.5
    assert {name: untrained.metrics[name] for name in METRICS if not math.isnan(plain.metrics[name])} == {
        name: value for name, value in plain.metrics.items() if not math.isnan(value)
    }


def test_the_latency_is_that_of_a_photograph() -> None:
    found = evaluated()
    assert found.latency is not None
    assert 0 < found.latency < 60_000
