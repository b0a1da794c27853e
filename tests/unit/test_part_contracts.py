"""The contracts of backbones and heads, held by every row of their registries."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest
import torch

from cornernet import Config, ConfigError, build_detector, recipe
from cornernet.config import AnchorHeadConfig, CornerHeadConfig, HourglassConfig, ResNetFPNConfig, TestingConfig
from cornernet.model.backbones import BACKBONES, Backbone, build_backbone
from cornernet.model.heads import HEADS, Head, build_head
from cornernet.model.heads.base import Targets

BACKBONE_CONFIGS = {
    "hourglass": [
        HourglassConfig(stacks=1, stem_channels=8, channels=(8, 12), blocks=(1, 1)),
        HourglassConfig(stacks=2, stem_channels=8, channels=(8, 12, 16), blocks=(1, 1, 1)),
    ],
    "resnet_fpn": [
        ResNetFPNConfig(
            block="basic", stem_channels=8, channels=(8, 12, 16), blocks=(1, 1, 1), fpn_channels=8, outputs=outputs
        )
        for outputs in ("finest", "all")
    ],
}
HEAD_CONFIGS = {
    "anchor": [AnchorHeadConfig(depth=1), AnchorHeadConfig(depth=1, finest_stride=8)],
    "corner": [CornerHeadConfig(pool_channels=8), CornerHeadConfig(pool_channels=8, feedback=True)],
}
CLASSES, SIZE = 3, (63, 95)
STUDIES_OF_CORNERS = ("corners", "corner_scores", "substitute", "pooling_by", "decode_padded")

backbones = pytest.mark.parametrize("config", [each for row in BACKBONE_CONFIGS.values() for each in row], ids=repr)


def pairs() -> list[Any]:
    """Every head on every backbone that it can be built on."""
    found = []
    for backbone in (each for row in BACKBONE_CONFIGS.values() for each in row):
        for head in (each for row in HEAD_CONFIGS.values() for each in row):
            fed_back = isinstance(head, CornerHeadConfig) and head.feedback
            if (fed_back and backbone.num_stacks == 1) or (head == HEAD_CONFIGS["anchor"][1] and one_map(backbone)):
                continue
            base = recipe("tiny").with_("data.input_size", SIZE).with_("model.num_classes", CLASSES)
            config = base.with_("model.backbone", backbone).with_("model.head", head)
            names = f"{backbone.kind}, {backbone.num_stacks} x {len(backbone.channels)}, {head.kind}"
            found.append(pytest.param(config, id=f"{names}{', fed back' if fed_back else ''}"))
    return found


def one_map(backbone: HourglassConfig | ResNetFPNConfig) -> bool:
    return isinstance(backbone, ResNetFPNConfig) and backbone.outputs == "finest"


heads = pytest.mark.parametrize("config", pairs())


def built(config: Config) -> tuple[Backbone, Head]:
    torch.manual_seed(0)
    backbone = build_backbone(config.model.backbone)
    return backbone, build_head(config.model, backbone)


def outputs_of(config: Config, images: int = 2) -> tuple[Head, list[Any]]:
    torch.manual_seed(0)
    detector = build_detector(config)
    return detector.head, detector(torch.randn(images, 3, *SIZE))


def boxes_and_labels() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Two objects in the first image, none in the second."""
    boxes = [torch.tensor([[4.0, 8.0, 40.0, 44.0], [50.0, 10.0, 80.0, 60.0]], dtype=torch.float64)]
    return [*boxes, torch.zeros(0, 4, dtype=torch.float64)], [torch.tensor([0, 2]), torch.zeros(0, dtype=torch.int64)]


def test_every_row_is_tested_and_keeps_the_contract_s_class() -> None:
    assert set(BACKBONE_CONFIGS) == set(BACKBONES)
    assert set(HEAD_CONFIGS) == set(HEADS)
    assert all(issubclass(each, Backbone) for each in BACKBONES.values())
    assert all(issubclass(each, Head) for each in HEADS.values())


def test_the_contracts_cannot_be_built_without_their_methods() -> None:
    with pytest.raises(TypeError, match="stack"):
        Backbone(HourglassConfig())
    with pytest.raises(TypeError, match=r"decode.*forward.*loss"):
        Head(CornerHeadConfig(), CLASSES, build_backbone(BACKBONE_CONFIGS["hourglass"][0]))


# ------------------------------------------------------------------------------------------ backbones
@backbones
def test_a_backbone_says_what_its_maps_are(config) -> None:
    backbone = build_backbone(config)
    assert (backbone.num_stacks, backbone.total_stride) == (config.num_stacks, config.total_stride)
    assert backbone.channels == backbone.level_channels[0]
    height, width = ((side + 1) // 4 for side in SIZE)
    x = backbone.stem(torch.randn(2, 3, *SIZE))
    assert x.shape[0] == 2
    assert x.shape[2:] == (height, width)
    for index in range(backbone.num_stacks):
        maps = backbone.stack(index, x)
        shapes = [tuple(level.shape) for level in maps]
        assert shapes == [(2, c, height >> n, width >> n) for n, c in enumerate(backbone.level_channels)]
        assert 4 << (len(maps) - 1) <= backbone.total_stride
        if index < backbone.num_stacks - 1:
            merged = backbone.merge(index, x, maps[0])
            assert merged.shape == x.shape
            x = merged


@backbones
def test_there_is_no_stack_after_the_last(config) -> None:
    backbone = build_backbone(config)
    x = torch.randn(1, backbone.channels, 16, 24)
    with pytest.raises(IndexError):
        backbone.stack(backbone.num_stacks, x)
    with pytest.raises(IndexError):
        backbone.merge(backbone.num_stacks - 1, x, x)


@backbones
def test_a_backbone_is_drawn_from_torch_s_generator_only(config) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(build_backbone(config).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


# ---------------------------------------------------------------------------------------------- heads
@heads
def test_the_defaults_hold_unless_a_head_says_otherwise(config) -> None:
    backbone, head = built(config)
    assert (head.config, head.num_classes, head.num_stacks) == (config.model.head, CLASSES, backbone.num_stacks)
    assert head.predicts(backbone.num_stacks - 1) is True
    assert all(isinstance(each, bool) for each in (head.feeds_back, head.leaves_unused, head.finds_corners))
    assert (Head.feeds_back, Head.leaves_unused, Head.finds_corners) == (False, False, False)
    if not head.feeds_back and type(head).feed_back is Head.feed_back:
        with pytest.raises(NotImplementedError, match="does not feed back"):
            head.feed_back(0, None)


@heads
def test_a_loss_has_gradients_for_every_layer_that_is_used(config) -> None:
    torch.manual_seed(0)
    detector = build_detector(config)
    outputs = detector(torch.randn(2, 3, *SIZE))
    assert len(outputs) == sum(detector.head.predicts(index) for index in range(detector.backbone.num_stacks))
    losses = detector.head.loss(outputs, detector.head.targets(*boxes_and_labels(), SIZE))
    assert losses["total"].shape == ()
    assert len(losses) > 1
    assert all(torch.isfinite(value) and value.dtype == torch.float32 for value in losses.values())
    losses["total"].backward()
    without = [name for name, parameter in detector.named_parameters() if parameter.grad is None]
    assert bool(without) == detector.head.leaves_unused


@heads
def test_a_batch_without_objects_has_a_finite_loss(config) -> None:
    head, outputs = outputs_of(config)
    empty = [torch.zeros(0, 4, dtype=torch.float64)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2
    targets = head.targets(*empty, SIZE)
    assert not targets.counts()[0]  # no positives
    assert torch.isfinite(head.loss(outputs, targets)["total"])


@heads
def test_the_losses_of_a_batch_s_parts_add_up(config) -> None:
    torch.manual_seed(0)
    detector = build_detector(config).eval()  # batch norm would tie the parts together
    head, images = detector.head, torch.randn(2, 3, *SIZE)
    boxes, labels = boxes_and_labels()
    whole = head.loss(detector(images), head.targets(boxes, labels, SIZE))["total"]
    parts = [head.targets(boxes[i : i + 1], labels[i : i + 1], SIZE) for i in range(2)]
    counts = torch.stack([part.counts() for part in parts]).sum(0)
    sums = sum(head.loss(detector(images[i : i + 1]), part, counts)["total"] for i, part in enumerate(parts))
    torch.testing.assert_close(sums, whole, rtol=1e-4, atol=1e-4)


@heads
def test_targets_move_and_their_builder_travels_to_workers(config) -> None:
    _, head = built(config)
    travelled = pickle.loads(pickle.dumps(head.targets))
    targets: Targets = travelled(*boxes_and_labels(), SIZE)
    assert targets.counts().dtype == torch.float32
    assert targets.counts().any()
    moved = targets.to(torch.device("meta"))
    assert type(moved) is type(targets)
    assert moved.counts().device.type == "meta"


@heads
def test_candidates_are_boxes_of_known_classes_best_first(config) -> None:
    head, outputs = outputs_of(config, images=3)
    testing = TestingConfig(num_candidates=20, embedding_threshold=10.0)
    candidates = head.decode(outputs[-1], testing)
    assert len(candidates) == 3
    for image in candidates:
        number = len(image.scores)
        assert number <= 20
        assert (image.boxes.shape, image.corner_scores.shape) == ((number, 4), (number, 2))
        assert image.labels.dtype == torch.int64
        assert ((image.labels >= 0) & (image.labels < CLASSES)).all()
        assert (image.boxes[:, :2] <= image.boxes[:, 2:]).all()
        assert torch.equal(image.scores, image.scores.sort(descending=True).values)
        assert ((image.scores > 0) & (image.scores <= 1)).all()


@heads
def test_true_boxes_that_are_predicted_are_decoded(config) -> None:
    """Predictions trained to the targets of one image give its boxes, in cells of 4 pixels."""
    head, outputs = outputs_of(config, images=1)
    boxes, labels = (each[:1] for each in boxes_and_labels())
    targets, trained = head.targets(boxes, labels, SIZE), leaves(outputs[-1])
    optimiser = torch.optim.Adam(tensors(trained), lr=0.1)
    for _ in range(150):
        optimiser.zero_grad()
        head.loss([trained], targets)["total"].backward()
        optimiser.step()
    with torch.no_grad():
        (found,) = head.decode(trained, TestingConfig())
    ratio = torch.tensor([(side + 1) / 4 / side for side in (SIZE[1], SIZE[0]) * 2])
    for box, label in zip(boxes[0].float() * ratio, labels[0], strict=True):
        near = (found.boxes - box).abs().max(1).values < 0.5
        assert (near & (found.labels == label) & (found.scores > 0.5)).any()


def leaves(part: Any) -> Any:
    """The same named tuple with tensors that learn."""
    if isinstance(part, torch.Tensor):
        return part.detach().clone().requires_grad_()
    kept = [leaves(each) for each in part]
    return type(part)(*kept) if hasattr(part, "_fields") else type(part)(kept)


def tensors(part: Any) -> list[torch.Tensor]:
    return [part] if isinstance(part, torch.Tensor) else [leaf for each in part for leaf in tensors(each)]


@heads
def test_studies_of_corners_are_for_heads_that_find_them(config) -> None:
    head, outputs = outputs_of(config, images=1)
    testing = TestingConfig(substitute=("offsets",))
    boxes, labels = ([torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)])
    arguments = {
        "corners": (outputs[-1], testing),
        "corner_scores": (outputs[-1],),
        "substitute": (outputs[-1], boxes, labels, testing),
        "pooling_by": ("eager",),
        "decode_padded": (outputs[-1], testing),
    }
    for name in STUDIES_OF_CORNERS:
        if head.finds_corners:
            assert getattr(head, name)(*arguments[name]) is not None
            continue
        with pytest.raises(ConfigError, match="is for heads that find corners; this detector's head does not"):
            getattr(head, name)(*arguments[name])


@heads
def test_a_configuration_is_not_changed_by_what_is_built_from_it(config) -> None:
    before = dataclasses.asdict(config)
    built(config)
    assert dataclasses.asdict(config) == before
