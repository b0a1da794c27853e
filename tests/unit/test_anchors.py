"""The anchor head: anchors, codes and assignment, by hand and against brute force; losses, decoding, learning."""

from __future__ import annotations

import dataclasses
import json
import math
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cornernet import Config, ConfigError, build_detector, load_detector, recipe, save_detector
from cornernet.cli import main
from cornernet.config import AnchorHeadConfig, HourglassConfig
from cornernet.data import open_dataset
from cornernet.evaluation.evaluate import evaluate
from cornernet.inference.detect import detect
from cornernet.inference.placement import pad_to_stride, to_heatmap, to_photo
from cornernet.inference.suppression import suppress
from cornernet.model.heads.anchor import AnchorPredictions
from cornernet.model.heads.anchor.anchors import anchor_boxes, anchor_shapes, decode, encode
from cornernet.model.heads.anchor.losses import anchor_losses, box_loss, focal_loss
from cornernet.model.heads.anchor.targets import IGNORED, NEGATIVE, AnchorTargets, TargetBuilder, assign
from cornernet.training.loop import train

PLAIN = AnchorHeadConfig(octave_scales=1, ratios=(1.0,))
SIZE = (63, 95)
DEEP = HourglassConfig(stacks=2, stem_channels=4, channels=(4, 6, 8), blocks=(1, 1, 1))


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tensors(boxes, labels):
    return (
        [torch.tensor(b, dtype=torch.float64).reshape(-1, 4) for b in boxes],
        [torch.tensor(n, dtype=torch.int64) for n in labels],
    )


def build(boxes, labels, *, classes=3, size=SIZE, strides=(4, 8), **config):
    builder = TargetBuilder(config=AnchorHeadConfig(**config), num_classes=classes, strides=strides)
    return builder(*tensors(boxes, labels), size)


def anchor_detector(backbone=DEEP, stacks=None, **head):
    torch.manual_seed(5)
    config = recipe("tiny_anchors").with_("model.backbone", backbone)
    return build_detector(config.with_("model.head", AnchorHeadConfig(**head)))


# --------------------------------------------------------------------------------------------- anchors


def test_anchors_have_the_centres_of_their_cells() -> None:
    # stride 8: a cell is as wide as 2 cells of stride 4, and its anchor of 4 * 8 pixels as 8 of them
    boxes = anchor_boxes(((1, 2), (1, 1)), (8, 16), PLAIN)
    np.testing.assert_array_equal(boxes, [[-3, -3, 5, 5], [-1, -3, 7, 5], [-6, -6, 10, 10]])


def test_anchors_of_a_cell_come_by_size_then_by_ratio_and_keep_their_area() -> None:
    config = AnchorHeadConfig(octave_scales=2, ratios=(0.25, 1.0))
    shapes = anchor_shapes(4, config)
    root = math.sqrt(2)
    np.testing.assert_allclose(shapes, [(2, 8), (4, 4), (2 * root, 8 * root), (4 * root, 4 * root)])
    boxes = anchor_boxes(((1, 1),), (4,), config)
    np.testing.assert_allclose(boxes[:2], [[0.5 - 4, 0.5 - 1, 0.5 + 4, 0.5 + 1], [-1.5, -1.5, 2.5, 2.5]])
    np.testing.assert_allclose((boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1]), [4, 1, 4, 1])


def test_hourglass_104_from_stride_8_has_the_anchors_of_retinanet() -> None:
    config = recipe("hourglass_104_anchors")
    assert config.model.head.finest_stride == 8
    strides = (8, 16, 32, 64, 128)
    # RetinaNet, section 4: areas of 32^2 to 512^2 pixels on its levels, times 2^0, 2^(1/3), 2^(2/3), at 1:2, 1:1, 2:1
    for stride, side in zip(strides, (32, 64, 128, 256, 512), strict=True):
        found = {(round(math.sqrt(h * w) * 4, 6), round(h / w, 6)) for h, w in anchor_shapes(stride, config.model.head)}
        assert found == {(round(side * 2 ** (i / 3), 6), ratio) for i in range(3) for ratio in (0.5, 1.0, 2.0)}
    targets = TargetBuilder(config=config.model.head, num_classes=80, strides=strides)(*tensors([[]], [[]]), (511, 511))
    assert targets.labels.shape == (1, 9 * (64**2 + 32**2 + 16**2 + 8**2 + 4**2))


def test_a_code_by_hand() -> None:
    anchor = torch.tensor([0.0, 0.0, 8.0, 4.0])
    box = torch.tensor([2.0, 1.0, 10.0, 7.0])
    # centres (6, 4) and (4, 2), sizes 8 x 6 and 8 x 4
    expected = torch.tensor([2 / 8, 2 / 4, math.log(8 / 8), math.log(6 / 4)])
    torch.testing.assert_close(encode(box, anchor), expected)
    torch.testing.assert_close(decode(expected, anchor), box)


SIDES = st.floats(0.5, 200)
BOXES = st.tuples(st.floats(-100, 100), st.floats(-100, 100), SIDES, SIDES).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


@given(st.lists(st.tuples(BOXES, BOXES), min_size=1, max_size=5))
def test_decoding_undoes_encoding(pairs) -> None:
    boxes, anchors = (torch.tensor(each, dtype=torch.float64) for each in zip(*pairs, strict=True))
    # a side is at most 62.5 times its anchor's
    small = ((boxes[:, 2:] - boxes[:, :2]) / (anchors[:, 2:] - anchors[:, :2]) < 62).all(1)
    torch.testing.assert_close(decode(encode(boxes, anchors), anchors)[small], boxes[small], rtol=1e-9, atol=1e-9)


def test_a_code_of_any_size_decodes_to_a_finite_box() -> None:
    box = decode(torch.tensor([0.0, 0.0, 1e4, 1e4]), torch.tensor([0.0, 0.0, 16.0, 16.0]))
    torch.testing.assert_close(box, torch.tensor([8 - 500.0, 8 - 500.0, 8 + 500.0, 8 + 500.0]))


# ------------------------------------------------------------------------------------------ assignment


def learned(boxes, anchors, **config) -> list[int]:
    found = assign(
        np.array(boxes, np.float64).reshape(-1, 4), np.array(anchors, np.float64), AnchorHeadConfig(**config)
    )
    return [int(each) for each in found]


def test_anchors_are_positive_ignored_or_negative_by_their_iou() -> None:
    box = [0, 0, 10, 10]
    # IoU 1, 0.5, 10 / 22, 0.4, 10 / 30, 0
    heights = [10, 20, 22, 25, 30]
    anchors = [[0, 0, 10, h] for h in heights] + [[50, 50, 60, 60]]
    assert learned([box], anchors) == [0, 0, IGNORED, IGNORED, NEGATIVE, NEGATIVE]
    assert learned([box], anchors, negative_iou=0.5) == [0, 0, NEGATIVE, NEGATIVE, NEGATIVE, NEGATIVE]


def test_an_anchor_learns_the_object_that_it_overlaps_most_and_the_first_of_equals() -> None:
    anchor = [0, 0, 10, 10]
    near, nearer = [0, 0, 10, 16], [0, 0, 10, 12]
    assert learned([near, nearer, nearer], [anchor], best_anchors=False) == [1]


def test_every_object_takes_the_anchors_that_overlap_it_most() -> None:
    small = [4, 4, 6, 6]
    # three contain it and tie, one contains it and is larger
    anchors = [[0, 0, 10, 10], [3, 3, 13, 13], [0, 0, 30, 30], [1, 0, 11, 10]]
    assert learned([small], anchors) == [0, 0, NEGATIVE, 0]
    assert learned([small], anchors, best_anchors=False) == [NEGATIVE] * 4
    # an object that no anchor overlaps takes none
    assert learned([[90, 90, 95, 95]], anchors) == [NEGATIVE] * 4


def test_the_best_anchor_of_a_smaller_object_is_taken_from_a_larger_one() -> None:
    anchors = [[0, 0, 10, 10], [0, 0, 10, 8]]
    greater, lesser = [0, 0, 10, 8.5], [0, 6, 10, 16]
    # both anchors overlap the larger object more; of the two, the first overlaps the smaller object more
    assert learned([greater, lesser], anchors, best_anchors=False) == [0, 0]
    assert learned([greater, lesser], anchors) == [1, 0]


def test_an_anchor_that_two_objects_would_take_goes_to_the_one_it_overlaps_more() -> None:
    anchors = [[0, 0, 10, 10]]
    assert learned([[0, 0, 10, 2], [0, 0, 10, 3], [0, 7, 10, 10]], anchors) == [1]


def brute_force(boxes, anchors, config) -> list[int]:
    """The rule of ``assign`` in exact fractions, one pair at a time."""

    def iou(a, b) -> Fraction:
        width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
        height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
        area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
        return Fraction(width * height, area - width * height)

    best = [max(iou(box, anchor) for anchor in anchors) for box in boxes]
    found = []
    for anchor in anchors:
        values = [iou(box, anchor) for box in boxes]
        claims = [i for i in range(len(boxes)) if values[i] == best[i] > 0]
        if config.best_anchors and claims:
            found.append(max(claims, key=lambda i: (values[i], -i)))
        elif values and max(values) >= Fraction(1, 2):
            found.append(values.index(max(values)))
        elif values and max(values) >= Fraction(2, 5):
            found.append(IGNORED)
        else:
            found.append(NEGATIVE)
    return found


WHOLE = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 9), st.integers(1, 9)).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


@given(boxes=st.lists(WHOLE, max_size=6), anchors=st.lists(WHOLE, min_size=1, max_size=12), best=st.booleans())
def test_assignment_equals_brute_force(boxes, anchors, best) -> None:
    assert learned(boxes, anchors, best_anchors=best) == brute_force(
        boxes, anchors, AnchorHeadConfig(best_anchors=best)
    )


# --------------------------------------------------------------------------------------------- targets


def in_pixels(cells, size=SIZE) -> list[float]:
    height, width = size
    return (np.array(cells) * ([width / ((width + 1) // 4), height / ((height + 1) // 4)] * 2)).tolist()


def test_an_object_that_is_an_anchor_is_learned_by_it_with_a_code_of_zero() -> None:
    anchors = anchor_boxes(((16, 24), (8, 12)), (4, 8), AnchorHeadConfig())
    inside = np.flatnonzero((anchors[:, :2] >= 0).all(1) & (anchors[:, 2] <= 24) & (anchors[:, 3] <= 16))
    for index in inside[:: len(inside) // 7]:
        targets = build([[in_pixels(anchors[index])]], [[2]])
        assert targets.labels[0, index] == 2
        torch.testing.assert_close(targets.codes[0, index], torch.zeros(4), rtol=0, atol=1e-6)


def test_inputs_of_an_exact_multiple_have_the_cells_of_one_pixel_less() -> None:
    # 96 by 64 pixels are 24 by 16 cells of 4 pixels; 95 by 63 pixels are as many, slightly smaller cells
    anchors = anchor_boxes(((16, 24), (8, 12)), (4, 8), AnchorHeadConfig())
    inside = np.flatnonzero((anchors[:, :2] >= 0).all(1) & (anchors[:, 2] <= 24) & (anchors[:, 3] <= 16))
    for index in inside[:: len(inside) // 5]:
        targets = build([[(anchors[index] * 4).tolist()]], [[2]], size=(64, 96))
        assert targets.labels.shape == (1, len(anchors))
        assert targets.labels[0, index] == 2
        torch.testing.assert_close(targets.codes[0, index], torch.zeros(4), rtol=0, atol=1e-6)


def test_labels_codes_and_counts_agree() -> None:
    boxes = [[10.0, 5.0, 50.0, 40.0], [60.0, 20.0, 90.0, 60.0]]
    targets = build([boxes, [], boxes[1:]], [[2, 0], [], [1]])
    positive = targets.labels >= 0
    assert targets.counts().tolist() == [positive.sum().item()]
    assert set(targets.labels[0].tolist()) == {0, 2, NEGATIVE, IGNORED}
    assert set(targets.labels[1].tolist()) == {NEGATIVE}
    assert set(targets.labels[2].tolist()) == {1, NEGATIVE, IGNORED}
    assert not targets.codes[~positive].any()
    anchors = torch.from_numpy(anchor_boxes(((16, 24), (8, 12)), (4, 8), AnchorHeadConfig()))
    for image, image_boxes in ((0, boxes), (2, boxes[1:])):
        at = positive[image]
        decoded = decode(targets.codes[image, at].double(), anchors[at])
        cells = torch.tensor(image_boxes) / torch.tensor([95 / 24, 63 / 16] * 2)
        nearest = (decoded[:, None] - cells[None]).abs().amax(-1).amin(1)
        assert nearest.max() < 1e-4


def test_boxes_and_labels_must_be_of_the_same_number_of_images() -> None:
    with pytest.raises(ValueError, match="shorter"):
        build([[[0.0, 0.0, 5.0, 5.0]], []], [[0]])


def test_no_objects_at_all() -> None:
    targets = build([[], []], [[], []])
    assert targets.counts().tolist() == [0]
    assert (targets.labels == NEGATIVE).all()


def test_images_with_one_and_more_than_128_objects_leave_none_unlearned() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, [60, 40], (200, 2))
    many = np.concatenate([corners, corners + rng.uniform(3, 30, (200, 2))], axis=1).clip(0, [94, 62, 94, 62])
    targets = build([[[1, 1, 9, 9]], many.tolist()], [[0], [i % 3 for i in range(200)]])
    assert targets.labels[0].max() == 0
    assert set(targets.labels[1].tolist()) >= {0, 1, 2}


def test_boxes_of_zero_area_and_unknown_labels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the box \[5.0, 5.0, 5.0, 9.0\] has zero area"):
        build([[[0, 0, 5, 5], [5, 5, 5, 9]]], [[0, 0]])
    with pytest.raises(ValueError, match="labels must be 0 to 2"):
        build([[[0, 0, 5, 5]]], [[3]])


@pytest.mark.parametrize("seed", range(5))
def test_targets_of_a_mirrored_picture_are_mirrored(seed) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, [60, 40], (6, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(2, 30, (6, 2))], axis=1)
    mirrored = np.stack([95 - boxes[:, 2], boxes[:, 1], 95 - boxes[:, 0], boxes[:, 3]], axis=1)
    labels = [0, 1, 2, 0, 1, 2]
    ours, theirs = (build([each.tolist()], [labels]) for each in (boxes, mirrored))
    start = 0
    for height, width in ((16, 24), (8, 12)):
        at = slice(start, start + height * width * 9)
        start = at.stop
        a, b = (t.labels[0, at].view(height, width, 9) for t in (ours, theirs))
        assert torch.equal(a.flip(1), b)
        a, b = (t.codes[0, at].view(height, width, 9, 4) for t in (ours, theirs))
        torch.testing.assert_close(a.flip(1) * torch.tensor([-1, 1, 1, 1]), b, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------------- losses


def test_the_focal_loss_by_hand() -> None:
    logits = torch.zeros(1, 3, 2)
    labels = torch.tensor([[1, NEGATIVE, IGNORED]])
    # p is 0.5 everywhere: one positive and one negative of the first anchor, two negatives of the second
    unit = 0.5**2 * math.log(2)
    assert focal_loss(logits, labels, 0.25, 2.0).item() == pytest.approx(0.25 * unit + 3 * 0.75 * unit)


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.sampled_from([0.25, 0.5, 0.9]))
def test_the_focal_loss_is_its_formula(seed, gamma, alpha) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (2, 5, 3))
    labels = rng.integers(IGNORED, 3, (2, 5))
    expected = 0.0
    for b in range(2):
        for n in range(5):
            for k in range(3):
                p = 1 / (1 + math.exp(-logits[b, n, k]))
                if labels[b, n] == k:
                    expected -= alpha * (1 - p) ** gamma * math.log(p)
                elif labels[b, n] != IGNORED:
                    expected -= (1 - alpha) * p**gamma * math.log(1 - p)
    found = focal_loss(torch.from_numpy(logits), torch.from_numpy(labels), alpha, gamma)
    assert found.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("extreme", [-1e4, -200.0, 200.0, 1e4])
def test_extreme_logits_stay_finite(extreme, gamma) -> None:
    logits = torch.full((1, 3, 2), extreme, requires_grad=True)
    loss = focal_loss(logits, torch.tensor([[0, NEGATIVE, IGNORED]]), 0.25, gamma)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[0, 2].any()


def test_the_box_loss_by_hand() -> None:
    codes, targets = torch.tensor([[0.25, 2.0, 0.0, -1.0]]), torch.zeros(1, 4)
    assert box_loss(codes, targets, 0.5).item() == pytest.approx(0.25**2 / 2 / 0.5 + (2 - 0.25) + (1 - 0.25))
    assert box_loss(codes, targets, 0.0).item() == pytest.approx(3.25)


def test_the_losses_of_a_batch_are_sums_over_its_anchors_divided_by_its_positives() -> None:
    # one level of two cells with one anchor each; two images: class 0 and background, class 1 and ignored
    labels = torch.tensor([[0, NEGATIVE], [1, IGNORED]])
    logits, codes = torch.randn(2, 2, 1, 2), torch.randn(2, 4, 1, 2)
    targets = AnchorTargets(labels, torch.randn(2, 2, 4))
    counts = targets.counts()
    assert counts.tolist() == [2]
    found = anchor_losses(AnchorPredictions((logits,), (codes,)), targets, PLAIN, 2, counts)
    by_cell = logits.flatten(2).transpose(1, 2)
    whole = focal_loss(by_cell, labels, PLAIN.focal_alpha, PLAIN.focal_gamma).item()
    assert found.classification.item() == pytest.approx(whole / 2, rel=1e-5)
    learned = torch.stack([codes[0, :, 0, 0], codes[1, :, 0, 0]])
    expected = box_loss(learned, targets.codes[:, 0], PLAIN.box_beta).item()
    assert found.box.item() == pytest.approx(expected / 2, rel=1e-5)
    # the divisor is 1 for one positive and for none
    for count in (0.0, 1.0):
        alone = anchor_losses(AnchorPredictions((logits,), (codes,)), targets, PLAIN, 2, torch.tensor([count]))
        assert (alone.classification.item(), alone.box.item()) == pytest.approx((whole, expected), rel=1e-5)


def test_all_tensors_move_with_the_targets(monkeypatch) -> None:
    targets = build([[[4.0, 4.0, 40.0, 50.0]]], [[1]])
    mapped = targets.map(lambda x: x.double() + 3)
    assert torch.equal(mapped.labels, targets.labels.double() + 3)
    assert torch.equal(mapped.codes, targets.codes.double() + 3)
    moved = targets.to(torch.device("meta"))
    assert (moved.labels.device.type, moved.codes.device.type) == ("meta", "meta")
    # page-locking needs a GPU, so the calls on the tensors are recorded instead
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: x.clone().fill_(7))
    pinned = targets.pin_memory()
    assert (pinned.labels == 7).all()
    assert (pinned.codes == 7).all()


BATCHES = {
    "none": [],
    "one": [[4.0, 4.0, 40.0, 50.0]],
    "three": [[1.0, 2.0, 30.0, 31.0], [5.0, 6.0, 90.0, 61.0], [20.0, 20.0, 33.0, 44.0]],
    "many": [[i % 50 + 0.5, i % 40 + 0.25, i % 50 + 9.5, i % 40 + 13.0] for i in range(150)],
}


def example(*kinds):
    boxes, labels = tensors([BATCHES[kind] for kind in kinds], [[i % 3 for i in range(len(BATCHES[k]))] for k in kinds])
    return anchor_detector().eval(), torch.randn(len(kinds), 3, *SIZE), boxes, labels


@pytest.mark.parametrize("kinds", [("none",), ("one",), ("many",), ("none", "none"), ("one", "none", "three")])
def test_any_batch_gives_finite_losses_and_gradients_to_every_parameter(kinds) -> None:
    detector, images, boxes, labels = example(*kinds)
    losses = detector.head.loss(detector(images), detector.head.targets(boxes, labels, SIZE))
    assert set(losses) == {"total", "classification", "box"}
    losses["total"].backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters())


def test_parts_of_a_batch_add_up_to_its_loss_and_gradient() -> None:
    detector, images, boxes, labels = example("three", "none", "many", "one")
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


def test_the_loss_is_the_mean_over_stacks_with_the_weight_of_boxes() -> None:
    detector, images, boxes, labels = example("three")
    head = detector.head
    outputs, targets = detector(images), head.targets(boxes, labels, SIZE)
    assert len(outputs) == 2
    both, *each = (head.loss(stacks, targets) for stacks in (outputs, outputs[:1], outputs[1:]))
    for name, value in both.items():
        assert value.item() == pytest.approx(sum(part[name].item() for part in each) / 2)
    head.config = dataclasses.replace(head.config, box_weight=3.0)
    weighed = head.loss(outputs, targets)
    assert weighed["total"].item() == pytest.approx(both["classification"].item() + 3 * both["box"].item())


def test_bfloat16_outputs_give_a_float32_loss() -> None:
    detector, images, boxes, labels = example("three")
    with torch.autocast("cpu", torch.bfloat16):
        outputs = detector(images)
    assert outputs[0].codes[0].dtype == torch.bfloat16
    losses = detector.head.loss(outputs, detector.head.targets(boxes, labels, SIZE))
    assert all(value.dtype == torch.float32 for value in losses.values())


# ---------------------------------------------------------------------------------------------- module


@pytest.mark.parametrize(
    ("finest", "sizes"), [(4, [(16, 24), (8, 12), (4, 6)]), (8, [(8, 12), (4, 6)]), (16, [(4, 6)])]
)
@pytest.mark.parametrize("extra", [0, 1])
def test_predictions_have_a_map_for_each_level_of_every_stack(finest, sizes, extra) -> None:
    detector = anchor_detector(finest_stride=finest, octave_scales=2, channels=5, depth=1).eval()
    outputs = detector(torch.randn(2, 3, SIZE[0] + extra, SIZE[1] + extra))
    assert len(outputs) == 2
    for prediction in outputs:
        assert [tuple(m.shape) for m in prediction.logits] == [(2, 6 * 3, *size) for size in sizes]
        assert [tuple(m.shape) for m in prediction.codes] == [(2, 6 * 4, *size) for size in sizes]
    anchors = sum(h * w for h, w in sizes) * 6
    assert detector.head.targets(*tensors([[]], [[]]), SIZE).labels.shape == (1, anchors)


@pytest.mark.parametrize(("finest", "unused"), [(4, False), (8, True)])
def test_a_head_says_whether_layers_of_the_backbone_get_no_gradient(finest, unused) -> None:
    detector = anchor_detector(finest_stride=finest)
    targets = detector.head.targets(*tensors([BATCHES["one"]], [[0]]), SIZE)
    detector.head.loss(detector(torch.randn(1, 3, *SIZE)), targets)["total"].backward()
    without = [name for name, p in detector.named_parameters() if p.grad is None]
    assert bool(without) == detector.head.leaves_unused == unused
    assert all(name.startswith(("backbone.hourglasses.1", "backbone.outputs.1")) for name in without)


def test_fresh_scores_are_the_prior() -> None:
    for prior in (0.01, 0.1):
        outputs = anchor_detector(prior=prior).eval()(torch.randn(1, 3, *SIZE))
        scores = torch.cat([level.sigmoid().flatten() for level in outputs[-1].logits])
        assert scores.mean().item() == pytest.approx(prior, rel=0.2)


def test_a_stride_beyond_the_backbone_s_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match=r"finest_stride is 32, but this backbone's coarsest map has a stride of 16"):
        anchor_detector(finest_stride=32)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("finest_stride", 6, r"model\.head\.finest_stride is 6; use 4, 8, 16"),
        ("ratios", (), r"ratios must be positive numbers"),
        ("negative_iou", 0.6, r"negative_iou is 0\.6 and \.positive_iou 0\.5"),
        ("prior", 1.0, r"prior is 1\.0; use a value between 0 and 1"),
        ("channels", 0, r"channels must be 1 or more, or None"),
        ("octave_scales", 0, r"octave_scales must be 1 or more"),
        ("box_beta", -1.0, r"must not be negative"),
        ("pooling", "none", r"model\.head has no field 'pooling'"),
    ],
)
def test_a_wrong_setting_names_the_field(field, value, message) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe("tiny_anchors").with_(f"model.head.{field}", value)


def test_an_error_in_a_part_of_several_kinds_names_the_field_and_not_the_kind() -> None:
    with pytest.raises(ConfigError, match=r" model\.head\.depth: Input should be a valid integer"):
        recipe("tiny_anchors").with_("model.head.depth", "deep")


# -------------------------------------------------------------------------------------------- decoding


def perfect(targets, detector, size) -> AnchorPredictions:
    """The predictions that match the targets."""
    strides = detector.head.strides
    sizes = [((size[0] + 1) // s, (size[1] + 1) // s) for s in strides]
    counts = [h * w * len(anchor_shapes(4, detector.head.config)) for h, w in sizes]
    logits = torch.where(targets.labels[..., None] == torch.arange(3), 9.0, -9.0)

    def maps(values):
        levels = values.split(counts, dim=1)
        return tuple(v.reshape(len(v), h, w, -1).permute(0, 3, 1, 2) for v, (h, w) in zip(levels, sizes, strict=True))

    return AnchorPredictions(maps(logits), maps(targets.codes))


@pytest.mark.parametrize("size", [(63, 95), (127, 63), (64, 64)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_predictions_that_match_the_targets_give_the_boxes_in_pixels(size, mirrored) -> None:
    detector = anchor_detector()
    testing = recipe("tiny_anchors").testing
    photograph = np.zeros((size[0] - 9, size[1] - 6, 3), np.uint8)
    height, width = photograph.shape[:2]
    canvas, placement = pad_to_stride(photograph, 1.0, detector.total_stride)
    truth = np.array([[3.0, 4.0, 25.5, 30.25], [30.0, 2.0, width - 1.0, 20.0], [5.0, 33.0, 40.0, height - 2.0]])
    cells = to_heatmap(torch.from_numpy(truth), placement, mirrored)
    pixels = cells / torch.tensor(placement.ratio * 2, dtype=torch.float64)
    targets = detector.head.targets([pixels], [torch.tensor([0, 1, 2])], canvas.shape[:2])
    (candidates,) = detector.head.decode(perfect(targets, detector, canvas.shape[:2]), testing)
    found = suppress([to_photo(candidates, placement, mirrored)], testing)
    best = found.scores > 0.5
    assert sorted(found.labels[best].tolist()) == [0, 1, 2]
    order = np.argsort(found.labels[best])
    np.testing.assert_allclose(found.boxes[best][order], truth, atol=1e-3)


def test_candidates_are_the_best_over_levels_and_classes_without_nan() -> None:
    detector = anchor_detector(octave_scales=1, ratios=(1.0,))
    head = detector.head
    logits = [torch.full((1, 3, *size), -20.0) for size in ((16, 24), (8, 12), (4, 6))]
    codes = [torch.zeros(1, 4, *size) for size in ((16, 24), (8, 12), (4, 6))]
    logits[0][0, 1, 3, 5] = 2.0
    logits[2][0, 2, 1, 4] = 3.0
    logits[2][0, 0, 1, 4] = 1.0
    logits[1][0, 0, 0, 0] = math.nan
    logits[1][0, 0, 2, 2] = 5.0
    codes[1][0, 1, 2, 2] = math.nan
    testing = recipe("tiny").with_("testing.num_candidates", 4).testing
    (found,) = head.decode(AnchorPredictions(tuple(logits), tuple(codes)), testing)
    assert found.labels.tolist() == [2, 1, 0]
    torch.testing.assert_close(found.scores, torch.tensor([3.0, 2.0, 1.0]).sigmoid())
    # stride 16: a side of 16 cells around the middle of column 4, row 1
    coarse = [4.5 * 4 - 8, 1.5 * 4 - 8, 4.5 * 4 + 8, 1.5 * 4 + 8]
    torch.testing.assert_close(found.boxes, torch.tensor([coarse, [3.5, 1.5, 7.5, 5.5], coarse]))
    assert found.corner_scores.shape == (3, 2)
    # NaN is not a candidate, even if all anchors and classes can be
    every = recipe("tiny").with_("testing.num_candidates", 10_000).testing
    (found,) = head.decode(AnchorPredictions(tuple(logits), tuple(codes)), every)
    # all but the three classes of one NaN code, and one NaN logit
    assert len(found.scores) == 3 * (16 * 24 + 8 * 12 + 4 * 6) - 3 - 1
    assert (found.scores > 0).all()


def test_studies_of_corners_are_refused() -> None:
    detector = anchor_detector()
    testing = recipe("tiny_anchors").testing
    with pytest.raises(ConfigError, match=r"testing\.substitute is for heads that find corners"):
        detector.substitute([None], [], [], testing)
    with pytest.raises(ConfigError, match=r"testing\.corner_metrics is for heads that find corners"):
        detector.corners([None], testing)
    with (
        pytest.raises(ConfigError, match=r"testing\.pooling_impl is for heads that find corners"),
        detector.pooling_by("eager"),
    ):
        pass


# -------------------------------------------------------------------------------------------- learning


def edited(**edits):
    config = recipe("tiny_anchors").with_("data.source.val_images", 1)
    for path, value in {
        "data.input_size": (63, 63),
        "data.source.image_size": (63, 63),
        "data.source.train_images": 4,
        "data.augmentation.colour_jitter": 0.0,
        "data.augmentation.flip": 0.0,
        "training.batch_size": 4,
        "training.learning_rate": 4e-3,
        "training.warmup": 10,
        "training.threads": 1,
        "training.device": "cpu",
        "testing.flip": False,
        **{path.replace("__", "."): value for path, value in edits.items()},
    }.items():
        config = config.with_(path, value)
    return config


def test_the_head_learns_a_few_pictures_by_heart(tmp_path, one_thread) -> None:
    config = edited(training__iterations=80)
    train(config, tmp_path, quiet=True, final_evaluation=False)
    pictures = open_dataset(config.data.source, "train")
    evaluation = evaluate(load_detector(tmp_path), pictures, config)
    assert evaluation.metrics["AP"] > 0.9
    assert evaluation.metrics["AP90"] > 0.9


def test_a_stopped_run_resumes_to_the_same_bits(tmp_path, one_thread) -> None:
    config = edited(training__iterations=5, training__checkpoint_every=1)

    class Stop(Exception):
        pass

    def stop(done: int) -> None:
        if done == 3:
            raise Stop

    train(config, tmp_path / "whole", quiet=True, final_evaluation=False)
    with pytest.raises(Stop):
        train(config, tmp_path / "cut", quiet=True, on_iteration=stop)
    train(config, tmp_path / "cut", resume=True, quiet=True, final_evaluation=False)
    ours, theirs = (load_detector(tmp_path / name).state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_the_command_line_trains_evaluates_and_detects(tmp_path, monkeypatch, capsys, one_thread) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["--data.source.train-images", "4", "--data.source.val-images", "2", "--training.batch-size", "2"]
    flags = ["--training.iterations", "2", "--model.head.finest-stride", "8", "--model.head.channels", "6"]
    assert main(["train", "--recipe", "tiny_anchors", "--out", "run", *few, *flags]) == 0
    head = Config.load(tmp_path / "run" / "config.json").model.head
    assert head == AnchorHeadConfig(finest_stride=8, channels=6)
    table = capsys.readouterr().out
    assert main(["evaluate", "--weights", "run"]) == 0
    out = capsys.readouterr().out
    assert out[out.index("metric") :].strip() in table
    picture = open_dataset(recipe("tiny_anchors").data.source, "val").read(0)
    cv2.imwrite("photo.png", picture)
    assert main(["detect", "photo.png", "--weights", "run", "--min-score", "0"]) == 0
    assert json.loads((tmp_path / "out" / "detections.json").read_text())[0]["detections"]
    for argv, message in (
        (
            ["detect", "photo.png", "--weights", "run", "--heatmaps"],
            "--heatmaps draws corner heatmaps, and this detector's head has none",
        ),
        (["evaluate", "--weights", "run", "--testing.corner-metrics"], "testing.corner_metrics is for heads that"),
        (["evaluate", "--weights", "run", "--testing.substitute", "offsets"], "testing.substitute is for heads that"),
        (["evaluate", "--weights", "run", "--testing.pooling-impl", "eager"], "testing.pooling_impl is for heads that"),
    ):
        capsys.readouterr()
        assert main(argv) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_a_checkpoint_gives_back_the_detector(tmp_path) -> None:
    detector = anchor_detector().eval()
    save_detector(detector, tmp_path / "anchors.safetensors")
    again = load_detector(tmp_path / "anchors.safetensors")
    assert again.config == detector.config
    photograph = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    (ours,), (theirs,) = (detect(each, photograph, detector.config) for each in (detector, again))
    assert len(ours) > 0
    np.testing.assert_array_equal(ours.boxes, theirs.boxes)
