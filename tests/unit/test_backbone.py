"""The hourglass: shapes, and the interface that heads and the detector rely on."""

from __future__ import annotations

import pytest
import torch

from cornernet import build_detector, recipe
from cornernet.backbones import build_backbone
from cornernet.config import HourglassConfig

SMALL = HourglassConfig(stacks=2, stem_channels=4, channels=(4, 6, 8), blocks=(1, 2, 1))


def test_a_stack_gives_maps_from_fine_to_coarse() -> None:
    backbone = build_backbone(SMALL)
    x = backbone.stem(torch.randn(2, 3, 63, 95))
    assert x.shape == (2, 4, 16, 24)
    maps = backbone.stack(0, x)
    assert [tuple(m.shape) for m in maps] == [(2, 4, 16, 24), (2, 6, 8, 12), (2, 8, 4, 6)]
    assert backbone.merge(0, x, maps[0]).shape == x.shape


@pytest.mark.parametrize(("height", "width"), [(64, 97), (50, 95), (63, 90)])
def test_sizes_that_do_not_divide_are_refused(height: int, width: int) -> None:
    detector = build_detector(recipe("tiny").with_("model.backbone", SMALL))
    with pytest.raises(ValueError, match="multiples of 16, or one less"):
        detector(torch.randn(1, 3, height, width))


@pytest.mark.parametrize("side", [63, 64])
def test_one_image_gives_predictions_of_every_stack(side: int) -> None:
    config = recipe("tiny").with_("model.backbone", SMALL).with_("model.head.embedding_dim", 3)
    detector = build_detector(config).eval()
    outputs = detector(torch.randn(1, 3, side, side))
    assert len(outputs) == 2
    for prediction in outputs:
        for corner in (0, 1):
            assert prediction.heatmaps[corner].shape == (1, 3, 16, 16)
            assert prediction.embeddings[corner].shape == (1, 3, 16, 16)
            assert prediction.offsets[corner].shape == (1, 2, 16, 16)


def test_fresh_heatmaps_start_at_low_probability() -> None:
    torch.manual_seed(0)
    heat = build_detector(recipe("tiny")).eval()(torch.randn(1, 3, 95, 95))[0].heatmaps.top_left
    assert 0.05 < heat.sigmoid().mean().item() < 0.2


def test_without_pooling_the_network_keeps_its_parameters() -> None:
    torch.manual_seed(0)
    pooled = build_detector(recipe("tiny"))
    plain = build_detector(recipe("tiny").with_("model.head.pooling", "none"))
    shapes = {k: v.shape for k, v in pooled.state_dict().items()}
    assert shapes == {k: v.shape for k, v in plain.state_dict().items()}
    plain.load_state_dict(pooled.state_dict())
    x = torch.randn(1, 3, 95, 95)
    a, b = (model.eval()(x)[0].heatmaps.top_left for model in (pooled, plain))
    assert not torch.allclose(a, b)
