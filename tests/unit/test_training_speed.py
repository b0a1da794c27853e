"""What makes a training step faster on a CPU computes what it replaces."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from cornernet import build_detector, recipe
from cornernet.kernels.batch_norm import conv_norm, fusing
from cornernet.training.heap import keep_freed_memory


def channels_last(*shape: int, seed: int = 0) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 1), (1, 2), (7, 2)])
@pytest.mark.parametrize("adds", [False, True])
def test_a_convolution_and_batch_norm_in_one_node_have_the_gradients_of_two(kernel, stride, adds):
    torch.manual_seed(0)
    convolution = nn.Conv2d(18, 20, kernel, stride, kernel // 2, bias=False).to(memory_format=torch.channels_last)
    norm, x = nn.BatchNorm2d(20), channels_last(2, 18, 12, 9).requires_grad_()
    add = channels_last(*convolution(x).shape, seed=1).requires_grad_() if adds else None
    leaves = [x, convolution.weight, norm.weight, norm.bias, *([add] if adds else [])]
    other = copy.deepcopy(norm)
    found = conv_norm(x, convolution, norm, add, relu=True)
    assert "_ConvNorm" in type(found.grad_fn).__name__
    with fusing(False):
        expected = conv_norm(x, convolution, other, add, relu=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    grad = channels_last(*found.shape, seed=2) * (expected.detach() > 1e-4)
    pairs = zip(
        torch.autograd.grad(found, leaves, grad),
        torch.autograd.grad(expected, [*leaves[:2], other.weight, other.bias, *leaves[4:]], grad),
        strict=True,
    )
    for actual, wanted in pairs:
        assert (actual - wanted).norm() <= 1e-5 * wanted.norm()
    torch.testing.assert_close(norm.running_var, other.running_var)


def test_a_frozen_convolution_and_an_input_without_gradient_get_none():
    convolution, norm, x = nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4), channels_last(2, 4, 5, 5)
    convolution.weight.requires_grad_(False)
    conv_norm(x, convolution, norm).square().sum().backward()
    assert convolution.weight.grad is None
    assert norm.weight.grad is not None


def test_maps_that_do_not_fit_and_single_values_are_errors():
    convolution, norm = nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4)
    with pytest.raises(ValueError, match="cannot add"):
        conv_norm(channels_last(2, 4, 5, 5), convolution, norm, channels_last(2, 4, 2, 3))
    with pytest.raises(ValueError, match="more than 1 value"):
        conv_norm(channels_last(1, 4, 3, 3), convolution, norm)


def test_hooks_of_the_convolution_are_called():
    convolution, norm, seen = nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4), []
    convolution.register_forward_hook(lambda *_: seen.append(1))
    conv_norm(channels_last(2, 4, 5, 5), convolution, norm)
    assert seen == [1]


@pytest.mark.parametrize("recomputed", [False, True])
def test_a_detector_has_the_same_loss_gradients_and_statistics_as_with_torchs_operators(recomputed):
    config = recipe("tiny").with_("model.backbone.stacks", 2)
    config = config.with_("training.checkpoint_activations", recomputed)
    torch.manual_seed(0)
    detector = build_detector(config).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    images, found = channels_last(2, 3, 63, 63), []
    for enabled in (True, False):
        model = copy.deepcopy(detector)
        with fusing(enabled):
            outputs = model(images)
            loss = sum(part.square().mean() for output in outputs for parts in output for part in parts)
            loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        buffers = torch.cat([b.double().flatten() for b in model.buffers()])
        found.append((loss.detach(), gradient, buffers))
    for actual, wanted in zip(*found, strict=True):
        # a ReLU on the edge of zero can pass or not: rounding decides
        assert (actual - wanted).norm() <= 1e-3 * wanted.norm()
    assert abs(float(found[0][0] - found[1][0])) <= 1e-5 * float(found[1][0])


def test_the_c_library_is_asked_once_and_answers():
    assert keep_freed_memory() is keep_freed_memory()
