"""The residual network with a feature pyramid: known sizes, maps at four strides, and that corners learn on it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from cornernet import ConfigError, build_detector, recipe
from cornernet.config import ResNetFPNConfig, ShapesSource
from cornernet.data import open_dataset
from cornernet.model.backbones import build_backbone

SMALL = ResNetFPNConfig(block="basic", stem_channels=4, channels=(4, 6, 8, 10), blocks=(1, 1, 2, 1), fpn_channels=5)
NARROW = ResNetFPNConfig(stem_channels=4, channels=(8, 12, 16, 20), blocks=(1, 2, 1, 1), fpn_channels=6)


@pytest.mark.parametrize(
    ("config", "trunk"),
    [
        # torchvision's resnet50, resnet101 and resnet18 without their last, fully connected layer
        (ResNetFPNConfig(), 25_557_032 - 2_049_000),
        (ResNetFPNConfig(blocks=(3, 4, 23, 3)), 44_549_160 - 2_049_000),
        (ResNetFPNConfig(block="basic", channels=(64, 128, 256, 512), blocks=(2, 2, 2, 2)), 11_689_512 - 513_000),
    ],
    ids=["50", "101", "18"],
)
def test_the_trunk_has_the_parameters_of_the_network_it_is_named_after(config: ResNetFPNConfig, trunk: int) -> None:
    with torch.device("meta"):
        backbone = build_backbone(config)
    assert sum(p.numel() for part in (backbone.stem, backbone.stages) for p in part.parameters()) == trunk


def test_the_recipes_are_resnet_50_and_101() -> None:
    assert recipe("fpn_50").model.backbone == ResNetFPNConfig()
    assert recipe("fpn_101").model.backbone == ResNetFPNConfig(blocks=(3, 4, 23, 3))
    assert recipe("fpn_101").training == recipe("hourglass_104").training
    assert recipe("fpn_small").training == recipe("small").training


@pytest.mark.parametrize("config", [SMALL, NARROW], ids=["basic", "bottleneck"])
@pytest.mark.parametrize(("height", "width"), [(63, 95), (64, 96), (95, 64)])
def test_a_stack_gives_maps_at_strides_of_4_to_32(config: ResNetFPNConfig, height: int, width: int) -> None:
    backbone = build_backbone(dataclasses.replace(config, outputs="all"))
    maps = backbone.stack(0, backbone.stem(torch.randn(2, 3, height, width)))
    rows, columns = (height + 1) // 4, (width + 1) // 4
    sizes = [(2, config.fpn_channels, rows >> level, columns >> level) for level in range(4)]
    assert [tuple(m.shape) for m in maps] == sizes
    assert (backbone.num_stacks, backbone.total_stride, backbone.channels) == (1, 32, config.fpn_channels)


@pytest.mark.parametrize("side", [63, 64, 95])
def test_the_detector_predicts_at_stride_4(side: int) -> None:
    detector = build_detector(recipe("tiny").with_("model.backbone", SMALL)).eval()
    (prediction,) = detector(torch.randn(1, 3, side, side))
    assert prediction.heatmaps.top_left.shape == (1, 3, (side + 1) // 4, (side + 1) // 4)


@pytest.mark.parametrize(("height", "width"), [(62, 63), (63, 65), (50, 95)])
def test_sizes_that_do_not_divide_are_refused(height: int, width: int) -> None:
    detector = build_detector(recipe("tiny").with_("model.backbone", SMALL))
    with pytest.raises(ValueError, match="multiples of 32, or one less"):
        detector(torch.randn(1, 3, height, width))


def test_the_finest_map_depends_on_the_coarsest_stage() -> None:
    torch.manual_seed(0)
    backbone = build_backbone(SMALL).eval()
    x = backbone.stem(torch.randn(1, 3, 64, 64))
    (before,) = backbone.stack(0, x)
    with torch.no_grad():
        backbone.pyramid.laterals[-1].bias.add_(1.0)
    (after,) = backbone.stack(0, x)
    assert before.shape == (1, 5, 16, 16)
    # everywhere: a cell of the coarsest stage covers 8x8 cells of the finest
    assert ((before - after).abs().amax(1) > 0).all()


def test_every_weight_learns_under_the_corner_head() -> None:
    detector = build_detector(recipe("tiny").with_("model.backbone", SMALL).with_("data.input_size", (63, 63)))
    boxes, labels = [torch.tensor([[3.0, 4.0, 20.0, 22.0]], dtype=torch.float64)] * 2, [torch.tensor([1])] * 2
    images = torch.randn(2, 3, 63, 63)
    detector.head.loss(detector(images), detector.head.targets(boxes, labels, (63, 63)))["total"].backward()
    assert all(p.grad is not None for p in detector.parameters())


def test_there_is_one_stack() -> None:
    backbone = build_backbone(SMALL)
    x = torch.randn(1, 4, 16, 16)
    with pytest.raises(IndexError, match="no stack 1"):
        backbone.stack(1, x)
    with pytest.raises(IndexError, match="no stack 1"):
        backbone.merge(0, x, x)


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"blocks": (1, 2)}, r"channels has 4 entries and \.blocks has 2; give both one entry per stage"),
        ({"channels": (4,), "blocks": (1,)}, "2 entries or more"),
        ({"channels": (4, 4, 4, 6), "block": "bottleneck"}, "bottlenecks need multiples of 4"),
        ({"fpn_channels": 0}, "1 or more"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(edits: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ResNetFPNConfig(**{"block": "basic", "channels": (4, 4, 4, 4), "blocks": (1, 1, 1, 1), **edits})


def test_an_input_size_that_does_not_divide_is_an_error_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"multiple of 32 minus 1: use 95"):
        recipe("tiny").with_("model.backbone", SMALL).with_("data.input_size", (99, 95))


@pytest.mark.slow
def test_it_learns_the_corners_of_a_few_pictures() -> None:
    torch.manual_seed(0)
    source = ShapesSource(image_size=(63, 63), object_size=(0.3, 0.7), max_objects=1, train_images=6, val_images=1)
    backbone = ResNetFPNConfig(
        block="basic", stem_channels=8, channels=(16, 16, 24, 32), blocks=(1, 1, 1, 1), fpn_channels=16
    )
    config = recipe("tiny").with_("model.backbone", backbone).with_("data.input_size", (63, 63))
    detector = build_detector(config)
    dataset = open_dataset(source, "train")
    images = torch.stack([torch.from_numpy(dataset.read(i).copy()) for i in range(6)]).permute(0, 3, 1, 2) / 255 - 0.5
    boxes = [torch.as_tensor(r.boxes).double().reshape(-1, 4).clamp(0, 62) for r in dataset.records]
    labels = [torch.as_tensor(r.labels) for r in dataset.records]
    targets = detector.head.targets(boxes, labels, (63, 63))
    optimiser = torch.optim.Adam(detector.parameters(), lr=3e-3)
    for _ in range(70):
        optimiser.zero_grad()
        detector.head.loss(detector(images), targets)["total"].backward()
        optimiser.step()
    found = detector.decode(detector(images), config.testing)
    for candidates, wanted, label in zip(found, boxes, labels, strict=True):
        assert len(candidates.boxes), "no corners were paired"
        assert candidates.labels[0] == label[0]
        torch.testing.assert_close(4 * candidates.boxes[0], wanted[0].float(), rtol=0, atol=2.0)
