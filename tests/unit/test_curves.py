"""What records keep for figures: curves of few digits, times by stage, and still no more than may be published."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import msgspec
import pytest
import torch

from cornernet import build_detector, recipe
from cornernet.ablations.records.curves import MAX_POINTS, curves, loss_curve
from cornernet.ablations.records.record import LossCurve
from cornernet.data import open_dataset
from cornernet.evaluation.evaluate import coco_evaluation
from cornernet.training.timing import STAGES, stage_latency, step_stages


@pytest.fixture(scope="module")
def config():
    small = recipe("tiny").with_("data.source.val_images", 3).with_("data.source.train_images", 2)
    return small.with_("training.batch_size", 2)


@pytest.fixture(scope="module")
def dataset(config):
    return open_dataset(config.data.source, "val")


def test_a_loss_curve_is_thinned_to_means_at_the_last_iteration_of_each(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [{"iteration": n, "loss/total": float(n), "loss/pull": 1.0, "time": 0.0} for n in range(1, 131)]
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"iteration": 5, "val/AP": 0.1}\n{"iter')
    found = loss_curve(path)
    assert found.iteration[:2] == [3, 6]
    assert found.loss["total"][:2] == [2.0, 5.0]
    assert len(found.iteration) <= MAX_POINTS
    assert found.iteration[-1] == 130
    assert set(found.loss) == {"total", "pull"}
    assert loss_curve(tmp_path / "none") == LossCurve(iteration=[], loss={})


def test_an_evaluations_curves_have_the_thresholds_recalls_and_means_of_its_metrics(dataset, tmp_path) -> None:
    truth = dataset.ground_truth()["annotations"]
    results = [{**{k: each[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.9} for each in truth[1:]]
    evaluation = coco_evaluation(dataset, results)
    found = curves(evaluation, tmp_path / "none")
    assert len(found.ap_by_iou) == 10
    assert sum(found.ap_by_iou) / 10 == pytest.approx(evaluation.metrics["AP"], abs=1e-3)
    assert {iou: len(values) for iou, values in found.precision.items()} == {"50": 101, "75": 101}
    assert sum(found.precision["75"]) / 101 == pytest.approx(evaluation.metrics["AP75"], abs=1e-3)
    assert len(msgspec.json.encode(found)) < 4096


def test_stages_are_those_of_the_test_path_and_leave_the_detector_as_it_was(config, dataset) -> None:
    detector = build_detector(config).train()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    found = stage_latency(detector, dataset, config, images=1)
    assert tuple(found) == STAGES
    assert all(value > 0 for value in found.values())
    assert detector.training
    assert not any(part._forward_hooks for part in detector.modules())
    steps = step_stages(detector, dataset, config, warmup=0, steps=1)
    assert list(steps) == ["forward", "loss", "backward", "clipping", "optimiser"]
    assert all(torch.equal(before[name], value) for name, value in detector.state_dict().items())
    with pytest.raises(ValueError, match="no image"):
        stage_latency(detector, dataset, config, images=0)


def test_the_stages_of_a_training_step_hold_the_time_of_that_step_alone(config, dataset, monkeypatch) -> None:
    seconds = itertools.count()
    # a clock on which every look takes a second
    monkeypatch.setattr("cornernet.training.timing.time", SimpleNamespace(perf_counter=lambda: float(next(seconds))))
    alone = step_stages(build_detector(config), dataset, config, warmup=0, steps=1)
    looks = next(seconds)
    assert 0 < sum(alone.values()) <= 1000 * looks
    assert step_stages(build_detector(config), dataset, config, warmup=3, steps=1) == alone
    assert next(seconds) >= looks + 4 * looks, "the other steps took time too"
