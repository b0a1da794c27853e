"""The ground truth in place of outputs: placed as in training, and perfect if it replaces all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cornernet import Candidates, Config, ConfigError, Corners, Predictions, build_detector, detect, recipe
from cornernet.config import CornerHeadConfig, DataConfig, ShapesSource, TestingConfig
from cornernet.data import open_dataset
from cornernet.evaluation.evaluate import evaluate
from cornernet.inference.detect import Truth, examine
from cornernet.inference.placement import prepare, to_heatmap, to_photo
from cornernet.model.heads import Head
from cornernet.model.heads.corner.decode import corners, decode
from cornernet.model.heads.corner.substitute import substitute
from cornernet.model.heads.corner.targets import TargetBuilder

ALL = ("heatmaps", "offsets", "embeddings")


def predicted(batch: int = 1, classes: int = 2, size: tuple[int, int] = (12, 16), dim: int = 1) -> Predictions:
    draw = torch.Generator().manual_seed(0)

    def maps(channels: int) -> Corners[Any]:
        return Corners(*(torch.randn(batch, channels, *size, generator=draw) for _ in range(2)))

    return Predictions(maps(classes), maps(dim), maps(2))


def replaced(
    boxes: list[list[float]], labels: list[int], *which: Any, **more: Any
) -> tuple[Predictions, TestingConfig]:
    testing = TestingConfig(substitute=which)
    truth = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    return substitute(predicted(**more), [truth], [torch.tensor(labels, dtype=torch.int64)], testing), testing


def test_true_heatmaps_are_the_targets_of_training_reduced_to_their_peaks() -> None:
    boxes = np.array([[5.0, 8.0, 50.0, 40.0], [20.0, 3.0, 61.0, 33.0], [22.0, 9.0, 60.0, 44.0]])
    labels = torch.tensor([0, 1, 1])
    height, width = 47, 63
    targets = TargetBuilder(config=CornerHeadConfig(), num_classes=2)(
        [torch.from_numpy(boxes)], [labels], (height, width)
    )
    in_cells = boxes * ([16 / width, 12 / height] * 2)
    found, _ = replaced(in_cells.tolist(), labels.tolist(), "heatmaps")
    for ours, target in zip(found.heatmaps, targets.heatmaps, strict=True):
        assert torch.equal(ours.sigmoid(), (target == 1).float())
    for maps, before in zip(found[1:], predicted()[1:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(maps, before, strict=True))


def test_true_offsets_and_embeddings_are_those_of_the_nearest_corner() -> None:
    found, testing = replaced(
        [[1.25, 2.5, 9.0, 10.0], [12.75, 8.0, 15.5, 11.0]], [0, 1], "offsets", "embeddings", dim=3
    )
    offset, embedding = found.offsets.top_left[0], found.embeddings.top_left[0]
    for y, x, which in ((2, 1, 0), (3, 2, 0), (8, 12, 1), (11, 15, 1)):
        assert offset[:, y, x].tolist() == [[0.25, 0.5], [0.75, 0.0]][which]
        assert embedding[:, y, x].unique().tolist() == embedding[:, [2, 8][which], [1, 12][which]].unique().tolist()
    assert (embedding[0, 2, 1] - embedding[0, 8, 12]).abs() > testing.embedding_threshold
    # the same object has the same number at its other corner
    assert torch.equal(found.embeddings.bottom_right[0, :, 10, 9], embedding[:, 2, 1])
    assert all(torch.equal(a, b) for a, b in zip(found.heatmaps, predicted(dim=3).heatmaps, strict=True))


def test_a_corner_on_the_far_edge_belongs_to_the_last_cell_and_stays_in_place() -> None:
    found, testing = replaced([[0.0, 0.0, 16.0, 12.0]], [1], *ALL)
    (candidates,) = decode(found, testing)
    assert candidates.boxes.tolist() == [[0, 0, 16, 12]]
    assert candidates.labels.tolist() == [1]
    assert candidates.scores.tolist() == [1]


def test_a_true_corner_never_pairs_with_a_false_one() -> None:
    # the second object has no corner of its own class to pair with across objects: embeddings are as predicted
    found, testing = replaced([[1.5, 1.5, 6.5, 6.5], [3.5, 2.5, 14.5, 9.5]], [0, 1], "heatmaps")
    (candidates,) = decode(found, replace(testing, embedding_threshold=1e9))
    assert sorted(candidates.labels.tolist()) == [0, 1]
    assert candidates.scores.tolist() == [1, 1]
    (points,) = corners(found, testing)
    assert [kind.labels.tolist() for kind in points] == [[0, 1], [0, 1]]
    assert [kind.scores.tolist() for kind in points] == [[1, 1], [1, 1]]
    for kind, offset, cells in zip(points, found.offsets, ([[1, 1], [3, 2]], [[6, 6], [14, 9]]), strict=True):
        places = [[x + offset[0, 0, y, x].item(), y + offset[0, 1, y, x].item()] for x, y in cells]
        torch.testing.assert_close(kind.xy, torch.tensor(places))


@pytest.mark.parametrize("which", [ALL, ("embeddings", "offsets"), ("heatmaps",)])
def test_an_input_without_objects(which) -> None:
    found, testing = replaced([], [], *which)
    (candidates,) = decode(found, testing)
    assert torch.equal(found.offsets.top_left, predicted().offsets.top_left)
    assert (len(candidates.boxes) == 0) == ("heatmaps" in which)


def test_predictions_are_left_as_they_were() -> None:
    given_ = predicted()
    substitute(given_, [torch.tensor([[1.0, 1, 5, 5]])], [torch.tensor([0])], TestingConfig(substitute=ALL))
    assert all(torch.equal(a, b) for x, y in zip(given_, predicted(), strict=True) for a, b in zip(x, y, strict=True))


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(8, 140),
    width=st.integers(8, 140),
    scale=st.sampled_from((0.5, 0.75, 1.0, 1.25, 1.5)),
    mirrored=st.booleans(),
    seed=st.integers(0, 999),
)
def test_laying_a_box_on_the_canvas_undoes_its_way_back(height, width, scale, mirrored, seed) -> None:
    rng = np.random.default_rng(seed)
    _, placement = prepare(np.zeros((height, width, 3), np.uint8), DataConfig(), scale, True, 32)
    # inside the scaled photograph, whose size is rounded down: to_photo clips to it
    low, high = np.sort(rng.random((2, 3, 2)), axis=0) * (np.array(placement.scaled[::-1]) / scale)
    boxes = torch.from_numpy(np.concatenate([low, high], axis=1)).float()
    columns = torch.ones(3), torch.ones(3, 2), torch.zeros(3, dtype=torch.int64)
    back = to_photo(Candidates(to_heatmap(boxes, placement, mirrored), *columns), placement, mirrored)
    assert torch.equal(to_heatmap(boxes, placement), to_heatmap(boxes, placement, False))
    torch.testing.assert_close(back.boxes, boxes, rtol=0, atol=1e-3)


def untrained(**testing: Any) -> tuple[Any, Config]:
    torch.manual_seed(0)
    config = replace(recipe("tiny"), testing=TestingConfig(**testing))
    return build_detector(config).eval(), config


@pytest.mark.parametrize(
    "testing",
    [{"flip": False}, {}, {"scales": (0.5, 1.0, 1.5)}, {"nms": "hard"}],
    ids=["plain", "flip", "multi", "hard"],
)
def test_with_the_whole_truth_any_net_is_perfect(testing) -> None:
    # other data may not reach an AP of 1: objects may share the cell of a corner, boxes of a class may overlap so much
    # that suppression ranks one below duplicates, and there may be more than top_k corners or max_detections objects
    detector, config = untrained(substitute=ALL, **testing)
    dataset = open_dataset(ShapesSource(train_images=2, val_images=24), "val")
    found = evaluate(detector, dataset, config)
    assert found.metrics["AP"] > 0.999
    assert found.metrics["AP90"] > 0.999
    assert evaluate(detector, dataset, replace(config, testing=TestingConfig())).metrics["AP"] < 0.1


def test_with_only_true_heatmaps_the_offsets_are_the_networks() -> None:
    dataset = open_dataset(ShapesSource(train_images=2, val_images=12), "val")
    several = []
    for which in (("heatmaps",), ("heatmaps", "offsets"), ALL):
        detector, config = untrained(substitute=which)
        several.append(evaluate(detector, dataset, config).metrics["AP90"])
    assert several[0] < several[1] <= several[2]


def test_a_fitted_photograph_gets_its_boxes_back_in_its_own_pixels() -> None:
    detector, config = untrained(substitute=ALL)
    config = replace(config, data=DataConfig(fit=(60, 60)))
    photo = np.zeros((150, 100, 3), np.uint8)
    boxes = np.array([[7.0, 11.0, 61.0, 140.0]])
    found = examine(detector, photo, config, Truth(boxes, np.array([2]))).detections
    np.testing.assert_allclose(found.boxes[0], boxes[0], atol=1e-3)
    assert found.labels[0] == 2


@pytest.mark.parametrize("testing", [{"substitute": ("offsets",)}, {"corner_metrics": True}])
def test_without_the_truth_it_is_an_error(testing) -> None:
    detector, config = untrained(**testing)
    with pytest.raises(ConfigError, match="need the ground truth"):
        detect(detector, np.zeros((40, 40, 3), np.uint8), config)


@pytest.mark.parametrize("testing", [{"substitute": ("offsets",)}, {"corner_metrics": True}])
def test_a_head_without_corners_is_an_error(testing) -> None:
    detector, config = untrained(**testing)

    class NoCorners(Head):
        def forward(self, index: int, maps: list[torch.Tensor]) -> None:
            return None

        def loss(self, outputs: Any, targets: Any, counts: Any = None) -> dict[str, torch.Tensor]:
            raise NotImplementedError

        def decode(self, predictions: Any, testing: Any) -> list[Candidates]:
            raise NotImplementedError

    detector.head = NoCorners(config.model.head, config.model.num_classes, detector.backbone)
    truth = Truth(np.zeros((0, 4)), np.zeros(0, np.int64))
    with pytest.raises(ConfigError, match="this detector's head does not"):
        examine(detector, np.zeros((40, 40, 3), np.uint8), config, truth)
