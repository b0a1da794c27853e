"""The hourglass: shapes, and the interface that heads and the detector rely on."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cornernet import build_detector, recipe
from cornernet.config import HourglassConfig
from cornernet.model.backbones import build_backbone
from cornernet.model.backbones.hourglass import ResidualBlock

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


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 24, 17), (8, 24, 24), (15, 9, 32), (16, 24, 24)])
def test_a_strided_shortcut_is_exact_for_any_width_and_layout(channels: int, height: int, width: int) -> None:
    # oneDNN's own gradient of a narrow one corrupts the heap: NarrowStridedConv2d
    shortcut = ResidualBlock(channels, 8, stride=2).shortcut
    assert isinstance(shortcut, nn.Sequential)
    convolution = shortcut[0].to(memory_format=torch.channels_last)
    x = torch.randn(4, channels, height, width).to(memory_format=torch.channels_last).requires_grad_()
    weight = convolution.weight.detach().double().contiguous().requires_grad_()
    exact_x = x.detach().double().contiguous().requires_grad_()
    for _ in range(3):
        x.grad = convolution.weight.grad = weight.grad = exact_x.grad = None
        out, exact = convolution(x), F.conv2d(exact_x, weight, stride=2)
        grad = torch.randn_like(out)
        out.backward(grad)
        exact.backward(grad.double())
        for ours, theirs in ((out, exact), (x.grad, exact_x.grad), (convolution.weight.grad, weight.grad)):
            assert ours is not None
            assert theirs is not None
            torch.testing.assert_close(ours.double(), theirs, atol=1e-4, rtol=1e-5)


def test_training_a_narrow_block_with_a_stride_does_not_corrupt_the_heap() -> None:
    # with torch's own convolution this process crashes: its gradient writes past a workspace
    program = """
import torch
from cornernet.model.backbones.hourglass import ResidualBlock
block = ResidualBlock(8, 16, stride=2).to(memory_format=torch.channels_last)
for _ in range(12):
    block(torch.randn(4, 8, 96, 96).to(memory_format=torch.channels_last)).sum().backward()
    others = [torch.randn(17 * size + 1) for size in range(50)]
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
