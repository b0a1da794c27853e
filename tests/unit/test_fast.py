"""The faster detector computes the same as the plain one and finds the same boxes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import cornernet
from cornernet import ConfigError, build_detector, optimised, recipe
from cornernet.config import CocoSource, HourglassConfig
from cornernet.data import open_dataset
from cornernet.evaluation.evaluate import evaluate
from cornernet.model.fast import TOLERANCE
from cornernet.training.loop import train

BCCD = Path(__file__).parents[3] / "shared" / "data" / "bccd"


@pytest.fixture(scope="module")
def detector():
    """Two stacks with running statistics as after training: far from 0 and 1."""
    torch.manual_seed(4)
    backbone = HourglassConfig(stacks=2, stem_channels=16, channels=(16, 24, 32), blocks=(2, 1, 1))
    found = build_detector(recipe("tiny").with_("model.backbone", backbone)).eval()
    for part in found.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor, low in (
                (part.weight, 0.5),
                (part.bias, -0.5),
                (part.running_mean, -0.5),
                (part.running_var, 0.5),
            ):
                tensor.data.uniform_(low, 1.5)
    return found


def photographs(count: int) -> list[np.ndarray]:
    dataset = open_dataset(recipe("tiny").data.source, "val")
    return [dataset.read(index) for index in range(count)]


def test_raw_outputs_agree_within_the_stated_tolerance_and_the_plain_detector_stays(detector) -> None:
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    fast = optimised(detector)
    images = torch.randn(2, 3, 63, 95, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        (plain,), (mine,) = detector(images, last_only=True), fast(images, last_only=True)
    for pair, expected in zip(mine, plain, strict=True):
        for a, b in zip(pair, expected, strict=True):
            assert (a - b).abs().max() <= TOLERANCE * b.abs().max().clamp(min=1)
    assert all(torch.equal(value, before[key]) for key, value in detector.state_dict().items())
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fast.modules())
    assert any(isinstance(part, nn.BatchNorm2d) for part in detector.modules())


def test_the_same_boxes_are_found(detector) -> None:
    images, config = photographs(3), detector.config
    for a, b in zip(
        cornernet.detect(detector, images, config), cornernet.detect(optimised(detector), images, config), strict=True
    ):
        assert len(a) == len(b) > 0
        np.testing.assert_allclose(a.scores, b.scores, rtol=0, atol=1e-4)
        # boxes with nearly equal scores can swap places
        near = [(np.abs(b.boxes - box).max(1) < 0.05).any() for box in a.boxes]
        assert np.mean(near) > 0.95


def test_reading_ahead_changes_nothing(detector) -> None:
    config = detector.config.with_("data.source.val_images", 7)
    dataset = open_dataset(config.data.source, "val")
    plain, ahead = evaluate(detector, dataset, config), evaluate(detector, dataset, config, readers=2)
    assert plain.results == ahead.results
    assert plain.results


def test_bfloat16_on_a_cpu_is_refused(detector) -> None:
    with pytest.raises(ConfigError, match="bfloat16 is for GPUs"):
        optimised(detector, precision="bfloat16")


@pytest.mark.slow
def test_ap_on_bccd_is_that_of_the_plain_path(tmp_path) -> None:
    """A short training by default; with HYPOTHESIS_PROFILE=thorough, one that reaches a useful AP."""
    if not BCCD.is_dir():
        pytest.skip("the data set bccd is not beside the checkout, in ../shared/data")
    thorough = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
    config = recipe("tiny").with_("data.source", CocoSource(root=str(BCCD))).with_("training.threads", 1)
    for path, value in (
        ("data.fit", (96, 128)),
        ("data.input_size", (95, 127)),
        ("training.batch_size", 4),
        ("training.iterations", 600 if thorough else 40),
        ("training.device", "cpu"),
    ):
        config = config.with_(path, value)
    train(config, tmp_path / "run", quiet=True, final_evaluation=False)
    detector = cornernet.load_detector(tmp_path / "run")
    dataset = open_dataset(config.data.source, "val")
    plain = evaluate(detector, dataset, detector.config, "hotcoco")
    fast = evaluate(optimised(detector), dataset, detector.config, "hotcoco", readers=2)
    assert plain.metrics["AR100"] > (0.1 if thorough else 0.0)
    for name in ("AP", "AP50", "AP75", "AR100"):
        assert fast.metrics[name] == pytest.approx(plain.metrics[name], abs=0.001)
