"""Hourglass-104 with the authors' weights gives the authors' numbers: eval, train, gradients, decoded boxes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cornernet import Corners, Detector, Predictions, load_detector
from cornernet.config import TestingConfig
from cornernet.model.heads.corner.losses import IMAGES_PER_GPU, gather
from cornernet.model.heads.corner.targets import CornerTargets
from cornernet.weights.checkpoints import from_authors_key
from tests.parity import recipe
from tests.parity.goldens import load, official_entries, official_state
from tests.parity.rows import assert_same_rows

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("hourglass_104")]

SUM_TOLERANCE = 1e-2


@pytest.fixture(scope="module")
def detector() -> Iterator[Detector]:
    yield load_detector(official_state())
    official_state.cache_clear()


@pytest.fixture
def fresh(detector: Detector) -> Iterator[Detector]:
    """The detector, for tests that change it: weights, statistics and mode are restored afterwards."""
    names = [key for key in detector.state_dict() if "running" in key or "num_batches" in key]
    before = {key: detector.state_dict()[key].clone() for key in names}
    yield detector
    detector.load_state_dict(before, strict=False)
    detector.zero_grad(set_to_none=True)
    detector.eval()


def close(actual: Tensor, expected: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=0, atol=tolerance)


def check_heat_sums(heat: Tensor, golden: dict[str, np.ndarray], name: str) -> None:
    full = heat.detach().double()
    close(full.sum((2, 3)), golden[f"{name}_sum"], SUM_TOLERANCE)
    np.testing.assert_allclose(
        full.square().sum((2, 3)).numpy(), golden[f"{name}_sumsq"], rtol=1e-5, atol=SUM_TOLERANCE
    )


def test_parameters_are_those_of_the_authors_network(detector: Detector) -> None:
    assert sum(p.numel() for p in detector.parameters()) == 201_035_212
    assert len(detector.state_dict()) == len(official_entries()) == 1128
    assert {from_authors_key(key) for key, _ in official_entries()} == set(detector.state_dict())


@pytest.mark.parametrize("size", ["2x127x127", "1x127x255"])
def test_eval_forward(detector: Detector, size: str) -> None:
    golden = load(f"forward_eval_{size}.npz")
    images = torch.from_numpy(recipe.image(int(golden["seed"]), *golden["shape"].tolist()))
    with torch.inference_mode():
        outputs = detector(images)
    assert len(outputs) == 2
    last = outputs[-1]
    for corner, heat, tag, regr in zip(("tl", "br"), *last, strict=True):
        close(heat[:, ::5], golden[f"{corner}_heat_ch5"], 1e-4)
        check_heat_sums(heat, golden, f"{corner}_heat")
        close(tag, golden[f"{corner}_tag"], 1e-4)
        close(regr, golden[f"{corner}_regr"], 1e-4)
    with torch.inference_mode():
        (only,) = detector(images, last_only=True)
    assert torch.equal(only.heatmaps.top_left, last.heatmaps.top_left)


@pytest.mark.parametrize("case", ["c0", "c1"])
def test_decoded_boxes(detector: Detector, case: str) -> None:
    golden = load("forward_eval_dets.npz")
    images = torch.from_numpy(recipe.image(int(golden[f"{case}_seed"]), *golden[f"{case}_shape"].tolist()))
    with torch.inference_mode():
        outputs = detector(images)
        for heat in outputs[-1].heatmaps:
            heat[:, int(golden["bias_channel"])] += float(golden["bias_add"])
        testing = TestingConfig(
            top_k=int(golden["K"]),
            peak_kernel=int(golden["kernel"]),
            embedding_threshold=float(golden["ae_threshold"]),
            num_candidates=int(golden["num_dets"]),
        )
        candidates = detector.decode(outputs, testing)
    for found, rows, valid in zip(candidates, golden[f"{case}_dets"], golden[f"{case}_n_valid"], strict=True):
        assert_same_rows(found, rows[:valid], tolerance=1e-3, unmatched=0.02)


def golden_targets(golden: dict[str, np.ndarray]) -> CornerTargets:
    n = int(golden["shape"][0])
    heat_tl, heat_br, mask, tl, br, regr_tl, regr_br = map(
        torch.from_numpy, recipe.train_targets(int(golden["target_seed"]), n, 32, 32)
    )
    np.testing.assert_array_equal(tl.numpy(), golden["tl_inds"])
    return CornerTargets(Corners(heat_tl, heat_br), Corners(tl, br), Corners(regr_tl, regr_br), mask.bool())


def check_stack(prediction: Predictions, golden: dict[str, np.ndarray], stack: int, heat_name: str, sub: slice) -> None:
    for corner, heat, tag, regr in zip(("tl", "br"), *prediction, strict=True):
        step = slice(None, None, sub.step)
        part = heat[:, :: 5 if heat_name == "heat_ch5" else 10, step, step]
        close(part, golden[f"s{stack}_{corner}_{heat_name}"], 1e-4)
        check_heat_sums(heat, golden, f"s{stack}_{corner}_heat")
        indices = torch.from_numpy(golden[f"{corner}_inds"])
        close(gather(tag, indices), golden[f"s{stack}_{corner}_tag"], 1e-4)
        close(gather(regr, indices), golden[f"s{stack}_{corner}_regr"], 1e-4)


def test_loss_and_gradients_of_both_stacks(fresh: Detector) -> None:
    golden = load("forward_train_evalbn_grads.npz")
    images = torch.from_numpy(recipe.image(int(golden["seed"]), *golden["shape"].tolist()))
    outputs = fresh(images)
    for stack, prediction in enumerate(outputs):
        check_stack(prediction, golden, stack, "heat_ch5", slice(None))
    targets = golden_targets(golden)
    # the golden is the loss of one of the authors' GPUs, whose images are summed
    counts = torch.cat([targets.counts()[:3], torch.tensor([IMAGES_PER_GPU])])
    losses = fresh.head.loss(outputs, targets, counts)
    assert losses["total"].item() == pytest.approx(float(golden["loss"]), rel=1e-5)
    losses["total"].backward()
    parameters = dict(fresh.named_parameters())
    for key in golden["params"].tolist():
        gradient = parameters[from_authors_key(key)].grad
        assert gradient is not None
        norm = float(golden[f"grad_norm/{key}"])
        assert gradient.double().norm().item() == pytest.approx(norm, rel=5e-3)
        close(gradient.flatten()[:256], golden[f"grad_head/{key}"], 5e-3 * norm)


def test_train_forward_updates_batch_norm(fresh: Detector) -> None:
    golden = load("forward_train_bn.npz")
    images = torch.from_numpy(recipe.image(int(golden["seed"]), *golden["shape"].tolist()))
    fresh.train()
    with torch.no_grad():
        outputs = fresh(images)
    for stack, prediction in enumerate(outputs):
        check_stack(prediction, golden, stack, "heat_sub", slice(None, None, 2))
    state = fresh.state_dict()
    checked = 0
    for name in (key for key in golden if key.startswith("stat/")):
        close(state[from_authors_key(name.removeprefix("stat/"))], golden[name], 1e-5)
        checked += 1
    assert checked == 15
    assert isinstance(fresh.backbone.stem[0].bn, nn.BatchNorm2d)
