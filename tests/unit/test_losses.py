"""Losses: batches of every kind, any cut of a batch, extreme logits."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from cornernet import Corners, Predictions, build_detector, recipe
from cornernet.config import CornerHeadConfig
from cornernet.model.heads.corner.losses import corner_losses, gather, heatmap_loss, offset_loss, pull_and_push_loss
from cornernet.model.heads.corner.targets import TargetBuilder

SIZE = (63, 63)
FOCAL = CornerHeadConfig()
BOXES = {
    "none": [],
    "one": [[4.0, 4.0, 40.0, 50.0]],
    "three": [[1.0, 2.0, 30.0, 31.0], [5.0, 6.0, 60.0, 61.0], [20.0, 20.0, 33.0, 44.0]],
    "many": [[i % 50 + 0.5, i % 40 + 0.25, i % 50 + 9.5, i % 40 + 13.0] for i in range(150)],
}


def make(*kinds: str, embedding_dim: int = 1):
    torch.manual_seed(3)
    config = recipe("tiny").with_("data.input_size", SIZE).with_("model.head.embedding_dim", embedding_dim)
    detector = build_detector(config).eval()
    boxes = [torch.tensor(BOXES[kind], dtype=torch.float64).reshape(-1, 4) for kind in kinds]
    labels = [torch.arange(len(b)) % 3 for b in boxes]
    return detector, torch.randn(len(kinds), 3, *SIZE), boxes, labels


@pytest.mark.parametrize(
    "kinds", [("none",), ("one",), ("three",), ("many",), ("none", "none"), ("one", "none", "many")]
)
@pytest.mark.parametrize("embedding_dim", [1, 4])
def test_any_batch_gives_finite_losses_and_gradients(kinds, embedding_dim) -> None:
    detector, images, boxes, labels = make(*kinds, embedding_dim=embedding_dim)
    losses = detector.head.loss(detector(images), detector.head.targets(boxes, labels, SIZE))
    assert set(losses) == {"total", "heatmap", "pull", "push", "offset"}
    losses["total"].backward()
    assert all(torch.isfinite(value) for value in losses.values())
    gradients = [p.grad for p in detector.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(g).all() for g in gradients)


def test_parts_of_a_batch_add_up_to_its_loss_and_gradient() -> None:
    detector, images, boxes, labels = make("three", "none", "many", "one")
    head = detector.head
    whole = head.targets(boxes, labels, SIZE)
    expected = head.loss(detector(images), whole)
    expected["total"].backward()
    gradients = {name: p.grad.clone() for name, p in detector.named_parameters()}
    detector.zero_grad()
    totals = dict.fromkeys(expected, 0.0)
    for part in (slice(0, 1), slice(1, 4)):
        losses = head.loss(detector(images[part]), head.targets(boxes[part], labels[part], SIZE), whole.counts())
        losses["total"].backward()
        totals = {name: totals[name] + value.item() for name, value in losses.items()}
    for name, value in expected.items():
        assert totals[name] == pytest.approx(value.item(), rel=1e-5)
    for name, p in detector.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-4, atol=1e-5)


def test_weights_of_the_configuration_weigh_the_total() -> None:
    detector, images, boxes, labels = make("three")
    losses = detector.head.loss(detector(images), detector.head.targets(boxes, labels, SIZE))
    expected = losses["heatmap"] + 0.1 * losses["pull"] + 0.1 * losses["push"] + losses["offset"]
    assert losses["total"].item() == pytest.approx(expected.item())


@pytest.mark.parametrize("extreme", [-1e4, 1e4, 88.0, -88.0])
def test_extreme_logits_stay_finite(extreme: float) -> None:
    logits = torch.full((1, 1, 4, 4), extreme, requires_grad=True)
    target = torch.zeros(1, 1, 4, 4)
    target[0, 0, 1, 1] = 1
    loss = heatmap_loss(logits, target, FOCAL, torch.tensor(1.0))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_a_confident_right_heatmap_has_a_lower_loss_than_a_confident_wrong_one() -> None:
    target = torch.zeros(1, 1, 4, 4)
    target[0, 0, 1, 1] = 1
    right, wrong = (sign * (target * 10 - 5) for sign in (1, -1))
    one = torch.tensor(1.0)
    assert heatmap_loss(right, target, FOCAL, one) < 0.01 < heatmap_loss(wrong, target, FOCAL, one)


def test_penalty_is_reduced_near_a_corner() -> None:
    logits = torch.zeros(1, 1, 1, 2)
    near, far = (heatmap_loss(logits, torch.tensor([[[[1.0, t]]]]), FOCAL, torch.tensor(1.0)) for t in (0.8, 0.0))
    assert near < far


def test_a_boolean_mask_still_pushes() -> None:
    # arithmetic on a boolean mask once made this loss silently zero for users of the authors' code
    e = torch.zeros(1, 2, 1)
    pull, push = pull_and_push_loss(e, e, torch.ones(1, 2, dtype=torch.bool))
    assert pull == 0
    assert push.item() > 0.9


def test_pull_and_push_by_hand() -> None:
    top_left = torch.tensor([[[0.0], [3.0], [9.0]]])
    bottom_right = torch.tensor([[[1.0], [3.0], [-9.0]]])
    mask = torch.tensor([[True, True, False]])
    pull, push = pull_and_push_loss(top_left, bottom_right, mask)
    assert pull.item() == pytest.approx((0.25 + 0.25) / 2.0001)
    # the two means are 2.5 apart, beyond the margin: only each object with itself remains, minus the constant
    assert push.item() == pytest.approx((2 * 1 - 4 / 2.0001) / 2.0001, abs=1e-4)
    _, close = pull_and_push_loss(torch.zeros(1, 2, 1), torch.zeros(1, 2, 1), mask[:, :2])
    assert close.item() == pytest.approx((4 - 4 / 2.0001) / 2.0001, rel=1e-4)


def test_the_margin_of_the_configuration_pushes() -> None:
    detector, images, boxes, labels = make("three", embedding_dim=4)
    outputs, targets = detector(images), detector.head.targets(boxes, labels, SIZE)
    for margin in (0.5, 3.0):
        detector.head.config = dataclasses.replace(detector.head.config, push_margin=margin)
        stacks = [
            pull_and_push_loss(
                *(gather(e, i) for e, i in zip(stack.embeddings, targets.indices, strict=True)), targets.mask, margin
            )[1]
            for stack in outputs
        ]
        found = detector.head.loss(outputs, targets)["push"].item()
        assert found == pytest.approx(4.9 * sum(push.item() for push in stacks) / len(stacks), rel=1e-5)  # one image


def test_offset_loss_is_smooth_l1_over_objects() -> None:
    predicted = torch.tensor([[[0.5, 0.0], [3.0, 0.0], [7.0, 7.0]]])
    loss = offset_loss(predicted, torch.zeros(1, 3, 2), torch.tensor([[True, True, False]]), torch.tensor(2.0))
    assert loss.item() == pytest.approx((0.125 + 2.5) / 2.0001)


def test_bfloat16_outputs_give_a_float32_loss() -> None:
    builder = TargetBuilder(config=CornerHeadConfig(), num_classes=3)
    detector, images, boxes, labels = make("three")
    with torch.autocast("cpu", torch.bfloat16):
        outputs = detector(images)
    assert outputs[0].heatmaps.top_left.dtype == torch.bfloat16
    losses = detector.head.loss(outputs, builder(boxes, labels, SIZE))
    assert all(value.dtype == torch.float32 for value in losses.values())


@pytest.mark.parametrize("cut", [(8,), (4, 4), (1,) * 8, (5, 3)])
def test_pull_and_push_do_not_grow_with_the_batch(cut) -> None:
    """Eight equal images, in one batch or in parts, give the loss and the gradient of one image."""
    detector, images, boxes, labels = make("three")
    head = detector.head
    head.loss(detector(images), head.targets(boxes, labels, SIZE))["total"].backward()
    expected = {name: p.grad.clone() for name, p in detector.named_parameters()}
    alone = head.loss(detector(images), head.targets(boxes, labels, SIZE))
    detector.zero_grad()
    counts = head.targets(boxes * 8, labels * 8, SIZE).counts()
    totals = dict.fromkeys(alone, 0.0)
    for part in cut:
        losses = head.loss(
            detector(images.repeat(part, 1, 1, 1)), head.targets(boxes * part, labels * part, SIZE), counts
        )
        losses["total"].backward()
        totals = {name: totals[name] + value.item() for name, value in losses.items()}
    assert totals["pull"] > 0.1
    assert totals["push"] > 0.1
    for name, value in alone.items():  # the margin of the offsets' number of objects has a share of 3e-5 with one image
        assert totals[name] == pytest.approx(value.item(), rel=1e-5 if name in ("pull", "push") else 1e-4)
    for name, p in detector.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-4, atol=1e-5)


def test_pull_and_push_are_the_authors_at_their_images_a_gpu() -> None:
    """They sum over the images of a GPU and average over GPUs: one of 4 images and nine of 5, weighted 0.1."""
    kinds = ["three", "one", "many", "none", "three", "many", "one"] * 7
    generator = torch.Generator().manual_seed(0)
    detector, _, boxes, labels = make(*kinds)
    targets = detector.head.targets(boxes, labels, SIZE)
    shape = (len(kinds), targets.mask.shape[1], 1)
    top_left, bottom_right = (torch.randn(shape, generator=generator) for _ in range(2))
    starts = [0, 4, *range(9, 50, 5)]
    gpus = [slice(*ends) for ends in itertools.pairwise(starts)]
    assert [gpu.stop - gpu.start for gpu in gpus] == [4] + [5] * 9
    sums = [pull_and_push_loss(top_left[gpu], bottom_right[gpu], targets.mask[gpu]) for gpu in gpus]
    expected = torch.tensor(sums).mean(0)
    columns = torch.arange(shape[1]).expand(shape[:2])
    maps = Corners(*(e.transpose(1, 2).unsqueeze(2) for e in (top_left, bottom_right)))
    nothing = Corners(torch.zeros(49, 3, 15, 15), torch.zeros(49, 3, 15, 15))
    offsets = Corners(torch.zeros(49, 2, 1, shape[1]), torch.zeros(49, 2, 1, shape[1]))
    targets = dataclasses.replace(targets, heatmaps=nothing, indices=Corners(columns, columns))
    losses = corner_losses(Predictions(nothing, maps, offsets), targets, FOCAL, targets.counts())
    assert [losses.pull.item(), losses.push.item()] == pytest.approx(expected.tolist(), rel=1e-5)
