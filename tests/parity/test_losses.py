"""Losses and their gradients equal the authors'."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from cornernet import Corners, Predictions
from cornernet.config import CornerHeadConfig
from cornernet.model.heads.corner.losses import IMAGES_PER_GPU, corner_losses
from cornernet.model.heads.corner.targets import CornerTargets
from tests.parity.goldens import load

GOLDEN = load("loss.npz")
CASES = GOLDEN["cases"].tolist()
CONFIG = CornerHeadConfig()


def stack(case: str, index: int) -> tuple[Predictions, dict[str, Tensor]]:
    """One stack's outputs. The goldens hold gathered embeddings and offsets, which are maps of 1 x 128 here."""
    leaves = {
        name: torch.from_numpy(GOLDEN[f"{case}/s{index}_{name}"]).requires_grad_()
        for name in ("tl_heat", "br_heat", "tl_tag", "br_tag", "tl_regr", "br_regr")
    }

    def corners(name: str) -> Corners[Tensor]:
        maps = [leaves[f"{corner}_{name}"] for corner in ("tl", "br")]
        return Corners(*(m if name == "heat" else m.transpose(1, 2).unsqueeze(2) for m in maps))

    return Predictions(corners("heat"), corners("tag"), corners("regr")), leaves


def targets(case: str) -> CornerTargets:
    def corners(name: str) -> Corners[Tensor]:
        return Corners(*(torch.from_numpy(GOLDEN[f"{case}/gt_{corner}_{name}"]) for corner in ("tl", "br")))

    mask = torch.from_numpy(GOLDEN[f"{case}/mask"]).bool()
    index = torch.arange(mask.shape[1]).expand(len(mask), -1)
    return CornerTargets(corners("heat"), Corners(index, index), corners("regr"), mask)


def counts(target: CornerTargets) -> Tensor:
    """Those of one GPU of the authors: a golden holds the losses of its images, summed."""
    return torch.cat([target.counts()[:3], torch.tensor([IMAGES_PER_GPU])])


@pytest.mark.parametrize("case", CASES)
def test_components_and_total(case: str) -> None:
    target = targets(case)
    total = 0.0
    stacks = GOLDEN[f"{case}/components"]
    for index, expected in enumerate(stacks):
        losses = corner_losses(stack(case, index)[0], target, CONFIG, counts(target))
        found = [*losses.heatmap, losses.pull, losses.push, *losses.offset]
        # push cancels in images with one object, so its tolerance is wider
        for value, want, tolerance in zip(found, expected, (1e-5, 1e-5, 1e-5, 1e-3, 1e-5, 1e-5), strict=True):
            assert value.item() == pytest.approx(want, rel=tolerance, abs=1e-7)
        total += sum(v.item() * w for v, w in zip(found, (1, 1, 0.1, 0.1, 1, 1), strict=True))
    assert total / len(stacks) == pytest.approx(float(GOLDEN[f"{case}/total"][0]), rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_gradients(case: str) -> None:
    target = targets(case)
    stacks = len(GOLDEN[f"{case}/components"])
    for index in range(stacks):
        predictions, leaves = stack(case, index)
        losses = corner_losses(predictions, target, CONFIG, counts(target))
        (sum(losses.heatmap) + 0.1 * losses.pull + 0.1 * losses.push + sum(losses.offset)).div(stacks).backward()
        for name, leaf in leaves.items():
            assert leaf.grad is not None
            np.testing.assert_allclose(leaf.grad.numpy(), GOLDEN[f"{case}/grad_s{index}_{name}"], rtol=1e-5, atol=1e-5)
