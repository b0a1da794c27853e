"""Corners as a classification of locations: what is positive, ignored and negative, and the resulting AP."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cornernet import ConfigError, build_detector, recipe
from cornernet.ablations.profiles import PROFILES
from cornernet.ablations.reporting.context import Context
from cornernet.ablations.reporting.tables import study_table
from cornernet.ablations.running.planner import Fingerprints, plan
from cornernet.ablations.running.runner import run_group
from cornernet.ablations.running.store import Store
from cornernet.ablations.statistics.resampling import image_weights, location_bootstrap
from cornernet.ablations.studies import find_study
from cornernet.ablations.studies.table3_corner_quadrants import RADII
from cornernet.config import ShapesSource, TestingConfig
from cornernet.data import open_dataset
from cornernet.evaluation.average_precision import average_precision_under
from cornernet.evaluation.evaluate import METRICS, evaluate
from cornernet.evaluation.locations import (
    join_locations,
    kept_locations,
    location_counts,
    location_metrics,
    location_metrics_under,
    questions,
)
from cornernet.evaluation.matching import RECALLS
from cornernet.inference.detect import LocationsInView
from cornernet.weights.checkpoints import load_detector

SIDE = 8
CENTRE = (4.0, 4.0)
TOP_LEFT, TL_QUADRANT, BR_QUADRANT = list(questions((1.5,)))[:3]


def view(
    scores: dict[tuple[int, int, int], float], true: list[tuple[float, float, int]], classes: int = 2
) -> LocationsInView:
    """Top-left heatmaps of 8x8 cells: scores by (x, y, class), 0 elsewhere; true corners (x, y, class)."""
    maps = np.zeros((classes, SIDE, SIDE), np.float32)
    for (x, y, label), score in scores.items():
        maps[label, y, x] = score
    boxes = np.array([[x, y, SIDE - 0.5, SIDE - 0.5] for x, y, _ in true]).reshape(-1, 4)
    labels = np.array([label for *_, label in true], np.int64)
    return LocationsInView((maps, np.zeros_like(maps)), boxes, labels, CENTRE)


def measured(*views: LocationsInView, radii: tuple[float, ...] = (1.5,), classes: int = 2) -> dict[str, float]:
    return location_metrics(join_locations([kept_locations(each) for each in views]), classes, radii)


def test_the_metrics_have_these_names() -> None:
    assert list(questions((2.5, 1.0)))[:4] == [
        "location_AP/top_left",
        "location_AP/top_left/top_left_quadrant",
        "location_AP/top_left/bottom_right_quadrant",
        "location_AP/top_left/radius_1",
    ]
    assert len(questions((2.5, 1.0))) == 8


def test_the_cell_that_holds_a_true_corner_is_positive_and_no_other() -> None:
    assert measured(view({(2, 3, 0): 0.9}, [(2.9, 3.1, 0)]))[TOP_LEFT] == 1
    # nine negatives above it: its neighbours within the radius are ignored, and nothing is matched to it
    beside = {(x, y, 0): 0.9 for x, y in itertools.product((5, 6, 7), (5, 6, 7))} | {(2, 3, 0): 0.5}
    assert measured(view(beside, [(2.9, 3.1, 0)]))[TOP_LEFT] == pytest.approx(1 / 10)


@pytest.mark.parametrize(
    ("radius", "above"),
    [(0.0, 20), (0.9, 20), (1.0, 16), (1.4, 16), (1.5, 12), (2.0, 8), (2.3, 0), (9.0, 0)],
)
def test_locations_within_the_radius_of_a_true_corner_are_ignored(radius: float, above: int) -> None:
    """20 cells score higher than the true one: 4 at a distance of 1, 4 at 1.41, 4 at 2 and 8 at 2.24."""
    around = {
        (3 + dx, 3 + dy, 0): 0.9
        for dx, dy in itertools.product(range(-2, 3), range(-2, 3))
        if 0 < math.hypot(dx, dy) < 2.5
    }
    assert len(around) == 20
    found = measured(view({**around, (3, 3, 0): 0.5}, [(3.5, 3.5, 0)]), radii=(radius,))
    assert found[TOP_LEFT] == pytest.approx(1 / (1 + above))


def test_a_location_is_ignored_only_for_its_own_class_and_photograph() -> None:
    other_class = view({(3, 3, 0): 0.5, (4, 3, 0): 0.9}, [(3.5, 3.5, 0), (4.5, 3.5, 1)])
    # the true one of class 1 scores 0, like the 63 others of its class
    assert measured(other_class, radii=(0.0,))[TOP_LEFT] == pytest.approx((1 / 2 + 1 / 64) / 2)
    elsewhere = [view({(3, 3, 0): 0.5}, [(3.5, 3.5, 0)]), view({(4, 3, 0): 0.9}, [])]
    assert measured(*elsewhere)[TOP_LEFT] == pytest.approx(1 / 2)


def test_a_true_corner_that_another_is_near_stays_positive() -> None:
    both = view({(3, 3, 0): 0.9, (4, 3, 0): 0.8}, [(3.5, 3.5, 0), (4.5, 3.5, 0)])
    assert measured(both)[TOP_LEFT] == 1


def test_corners_of_a_class_in_one_cell_are_one_location() -> None:
    seen = view({(3, 3, 0): 0.9}, [(3.2, 3.2, 0), (3.8, 3.8, 0)])
    assert measured(seen)[TOP_LEFT] == 1
    assert location_counts(join_locations([kept_locations(seen)]), (1.5,))[TOP_LEFT] == 1


def test_of_equal_scores_the_negative_ranks_first() -> None:
    assert measured(view({(6, 6, 0): 0.9, (1, 1, 0): 0.9}, [(1.5, 1.5, 0)]))[TOP_LEFT] == pytest.approx(1 / 2)
    assert measured(view({(1, 1, 0): 0.9, (6, 6, 0): 0.9}, [(6.5, 6.5, 0)]))[TOP_LEFT] == pytest.approx(1 / 2)


def test_a_corner_on_the_far_edge_belongs_to_the_last_cell() -> None:
    assert measured(view({(7, 7, 0): 0.9}, [(8.0, 8.0, 0)]))[TOP_LEFT] == 1


def test_locations_belong_to_the_quadrant_of_their_cell() -> None:
    seen = view({(5, 5, 0): 0.9, (3, 3, 0): 0.8, (6, 1, 0): 0.95}, [(3.9, 3.9, 0), (6.5, 6.5, 0)])
    found = measured(seen, radii=(0.5,))
    assert found[TL_QUADRANT] == 1, "the two above it lie elsewhere"
    # the true one of the other quadrant scores 0, like 14 negatives there, and one scores more
    assert found[BR_QUADRANT] == pytest.approx(1 / 16)
    counts = location_counts(join_locations([kept_locations(seen)]), (0.5,))
    assert [counts[name] for name in (TOP_LEFT, TL_QUADRANT, BR_QUADRANT)] == [2, 1, 1]


def test_nothing_true_is_no_measurement() -> None:
    assert all(math.isnan(value) for value in measured(view({(3, 3, 0): 0.9}, [])).values())


def brute_force(views: list[LocationsInView], kind: int, radius: float, quadrant: int | None, classes: int) -> float:
    """Every location of every photograph one by one, and COCO's AP from its definition."""
    values = []
    for label in range(classes):
        examples = []
        for seen in views:
            corners = seen.true_boxes[seen.true_labels == label][:, 2 * kind : 2 * kind + 2]
            cells = {(int(x), int(y)) for x, y in corners}
            for x, y in itertools.product(range(SIDE), range(SIDE)):
                before = (x + 0.5 < seen.centre[0], y + 0.5 < seen.centre[1])
                inside = {None: True, 0: all(before), 1: not any(before)}[quadrant]
                near = min((math.hypot(x - u, y - v) for u, v in cells), default=math.inf)
                if inside and not 0 < near <= radius:
                    examples.append((seen.scores[kind][label, y, x], near == 0))
        examples.sort(key=lambda each: (-each[0], each[1]))
        total = sum(positive for _, positive in examples)
        if not total:
            continue
        points, hits = [], 0
        for number, (_, positive) in enumerate(examples, 1):
            hits += positive
            points.append((hits / total, hits / number))
        values.append(np.mean([max((p for r, p in points if r >= recall), default=0.0) for recall in RECALLS]))
    return float(np.mean(values)) if values else math.nan


def made_views(count: int = 5, classes: int = 2) -> list[LocationsInView]:
    rng = np.random.default_rng(3)
    views = []
    for _ in range(count):
        # few different scores, so that many are equal
        maps = [(rng.integers(0, 12, (classes, SIDE, SIDE)) / 16).astype(np.float32) for _ in range(2)]
        low = rng.random((6, 1)) * np.array([[6.5, 6.5]])
        boxes = np.concatenate([low, low + rng.random((6, 1)) * (7.9 - low)], axis=1)
        labels = rng.integers(0, classes, 6)
        for which, points in enumerate((boxes[:, :2], boxes[:, 2:])):
            maps[which][labels, points[:, 1].astype(int), points[:, 0].astype(int)] += np.float32(0.3)
        views.append(LocationsInView((maps[0], maps[1]), boxes, labels, CENTRE))
    return views


def test_it_is_the_mean_average_precision_of_a_classification_of_all_locations() -> None:
    views = made_views()
    radii = (2.5, 0.0, 1.5)
    found = measured(*views, radii=radii)
    for name, (kind, radius, quadrant) in questions(radii).items():
        expected = brute_force(views, kind, radius, quadrant, 2)
        assert 0 < expected < 1
        assert found[name] == pytest.approx(expected, abs=1e-12), name


def test_weights_count_photographs_as_copies_do() -> None:
    views = made_views()
    weights = np.array([[0, 3, 1, 0, 2], [1, 1, 1, 1, 1]])
    locations = join_locations([kept_locations(each) for each in views])
    under = location_metrics_under(locations, weights, 2, (1.5,))
    copies = [each for each, count in zip(views, weights[0], strict=True) for _ in range(count)]
    plain, copied = measured(*views), measured(*copies)
    for name, values in under.items():
        # copies of a photograph have equal scores, of which the negative ones rank first
        assert values[1] == plain[name]
        assert values[0] == pytest.approx(copied[name], abs=1e-12)


def test_average_precision_by_hand() -> None:
    positive = np.array([True, False, True, False, True, False])
    weights = np.ones((1, 6), np.int64)
    # 3 of 4 found, at precisions 1, 2/3 and 3/5
    by_hand = (26 * 1 + 25 * 2 / 3 + 25 * 3 / 5) / 101
    found = average_precision_under(weights, np.arange(6), positive, np.array([4]))
    assert found == pytest.approx([by_hand], abs=1e-12)
    assert average_precision_under(weights, np.arange(6), np.zeros(6, np.bool_), np.array([4]))[0] == 0
    assert np.isnan(average_precision_under(weights, np.arange(6), positive, np.array([0]))[0])


# -------------------------------------------------------------------------------------------------- a whole evaluation
def data(count: int = 12) -> Any:
    return open_dataset(ShapesSource(train_images=2, val_images=count, object_size=(0.2, 0.5)), "val")


def evaluated(**testing: Any) -> Any:
    torch.manual_seed(0)
    config = replace(recipe("tiny"), testing=TestingConfig(**testing))
    return evaluate(build_detector(config).eval(), data(), config)


def test_true_heatmaps_give_a_perfect_classification_and_untrained_ones_a_poor_one() -> None:
    perfect = evaluated(location_radii=(2.5, 0.0), substitute=("heatmaps",))
    names = [name for name in questions((2.5, 0.0)) if not math.isnan(perfect.metrics[name])]
    assert {"location_AP/top_left", "location_AP/bottom_right/radius_0"} <= set(names)
    assert all(perfect.metrics[name] == 1 for name in names)
    untrained = evaluated(location_radii=(2.5,))
    assert untrained.metrics["location_AP/top_left"] < 0.1
    assert set(untrained.metrics) == {*METRICS, *questions((2.5,))}
    assert evaluated().locations is None


def test_it_needs_a_head_that_finds_corners_and_radii_that_make_sense() -> None:
    anchors = recipe("tiny_anchors").with_("testing.location_radii", (2.5,))
    with pytest.raises(ConfigError, match=r"testing\.location_radii is for heads that find corners"):
        evaluate(build_detector(anchors).eval(), data(1), anchors)
    with pytest.raises(ConfigError, match="must not be negative"):
        TestingConfig(location_radii=(2.5, -1.0))
    with pytest.raises(ConfigError, match=r"names a radius twice: 2\.5 2\.5"):
        TestingConfig(location_radii=(2.5, 2.5))


def test_the_bootstrap_weighs_photographs_by_their_ids() -> None:
    dataset = data()
    found = evaluated(location_radii=(2.5, 1.0))
    resamples = location_bootstrap(dataset, found.locations, (2.5, 1.0), 20)
    assert set(resamples.values) == set(questions((2.5, 1.0)))
    ids = [dataset.image_id(index) for index in range(len(dataset))]
    assert ids == sorted(ids)
    weights = image_weights(dataset.fingerprint, len(dataset), 20)
    expected = location_metrics_under(found.locations, weights, 3, (2.5, 1.0))
    for name, values in resamples.values.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-4)


def test_the_locations_that_are_left_out_are_worth_nothing() -> None:
    """With the starter weights, on maps of 24x24 cells of 3 classes: 1,000 of 1,728 locations, and as few as 200."""
    from cornernet.training.starter import STARTER

    detector = load_detector(STARTER)
    config = detector.config.with_("testing.location_radii", (2.5,))
    views = []

    def kept(seen: LocationsInView) -> Any:
        views.append(seen)
        return kept_locations(seen)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cornernet.evaluation.evaluate.kept_locations", kept)
        evaluate(detector, data(40), config)
    every, usual, few = (
        location_metrics(join_locations([kept_locations(each, most) for each in views]), 3, (2.5,))
        for most in (10**6, 1000, 200)
    )
    assert 0.3 < every["location_AP/top_left"] < 1
    for name in ("location_AP/top_left", "location_AP/bottom_right"):
        assert usual[name] == pytest.approx(every[name], abs=1e-3)
        assert few[name] == pytest.approx(every[name], abs=0.01)


def test_a_run_of_table_3_keeps_its_metrics_with_their_resamples_and_its_corners(tmp_path) -> None:
    table_3, by_radius = find_study("table3"), find_study("table3_radius")
    base = PROFILES["smoke"].on_shapes().with_("training.iterations", 2).with_("training.device", "cpu")
    train_set, val_set = (open_dataset(base.data, split) for split in ("train", "val"))
    prints = Fingerprints(train_set.fingerprint, val_set.fingerprint)
    jobs = plan([table_3, by_radius], base, (0,), lambda _: prints)
    assert len({job.evaluation_key for job in jobs.values()}) == 2, "both studies read the same evaluations"
    store = Store(tmp_path)
    for variant in table_3.variants:
        assert run_group(store, [jobs["table3", variant.name, 0].config]) == 0
    records = {name: store.record(job) for name, job in jobs.items()}
    for declared in (table_3, by_radius):
        table = study_table(
            declared, records, Context(profile="smoke", data="shapes", command="c", seeds=(0,), areas=None)
        )
        assert table.seeds_alone == (), "every metric is resampled"
    record = records["table3", "w/ corner pooling", 0]
    assert record is not None
    assert record.true_corners is not None
    assert set(record.true_corners) == set(questions(RADII)) >= {*table_3.metrics, *by_radius.metrics}
    objects = sum(len(each.boxes) for each in val_set.records)
    assert 0 < record.true_corners["location_AP/top_left"] <= objects
