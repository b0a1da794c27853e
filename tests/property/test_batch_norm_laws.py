"""Batch norm fused with an addition and a ReLU: torch's numbers, and statistics that processes can share."""

from __future__ import annotations

import copy
import math
import threading

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cornernet.kernels import cpu
from cornernet.kernels.batch_norm import batch_norm, fusing, sharing, why_not

SIZES = st.sampled_from([1, 2, 3, 5, 16, 31, 33, 48])


def made_norm(channels: int, seed: int = 0) -> nn.BatchNorm2d:
    norm, generator = nn.BatchNorm2d(channels), torch.Generator().manual_seed(seed)
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        tensor.data.normal_(generator=generator)
    return norm


def channels_last(shape: tuple[int, ...], seed: int) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.contiguous(memory_format=torch.channels_last)


def by_torch(x: Tensor, norm: nn.BatchNorm2d, add: Tensor | None = None, *, relu: bool = False) -> Tensor:
    y = norm(x) if add is None else norm(x) + add
    return F.relu(y) if relu else y


def both_ways(function, norm: nn.BatchNorm2d, x: Tensor, add: Tensor | None, grad: Tensor, relu: bool):
    """Return result, gradients and statistics of one step."""
    norm = copy.deepcopy(norm)
    x = x.detach().requires_grad_()
    add = None if add is None else add.detach().requires_grad_()
    y = function(x, norm, add, relu=relu)
    leaves = [x, norm.weight, norm.bias, *([] if add is None else [add])]
    grads = torch.autograd.grad(y, leaves, grad)
    return [y.detach(), *grads, norm.running_mean, norm.running_var, norm.num_batches_tracked]


@settings(max_examples=30, deadline=None)
@given(
    images=st.integers(1, 4), channels=st.sampled_from([1, 3, 15, 16, 17, 32, 40]), height=SIZES, width=SIZES,
    adds=st.booleans(), relu=st.booleans(), mean=st.sampled_from([0.0, 5.0, -300.0]), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_step_equals_torchs_in_float64(images, channels, height, width, adds, relu, mean, seed):
    shape = images, channels, height, width
    norm = made_norm(channels, seed)
    x, grad = channels_last(shape, seed) + mean, channels_last(shape, seed + 1)
    add = channels_last(shape, seed + 2) if adds else None
    if images * height * width < 2:
        with pytest.raises(ValueError, match="more than 1 value"):
            batch_norm(x, norm, add, relu=relu)
        return
    deviation = x.double().var((0, 2, 3), correction=0).add(norm.eps).sqrt()
    slope = float((norm.weight.detach().abs() / deviation).max())
    # x - mean cancels where values are close to each other, and keeps the rounding of both
    bound = 1e-6 * (4 + float(x.abs().max() / deviation.min()))
    # rounding decides what the ReLU passes where the exact result is close to zero: no gradient arrives there
    exact = by_torch(x.double(), copy.deepcopy(norm).double(), None if add is None else add.double()).detach()
    grad = grad * (exact.abs() > bound * (1 + float(exact.abs().max())))
    found = both_ways(batch_norm, norm, x, add, grad, relu)
    wide = [each if each is None else each.double() for each in (x, add, grad)]
    expected = both_ways(by_torch, norm.double(), *wide, relu)
    for index, (actual, wanted) in enumerate(zip(found, expected, strict=True)):
        # the parts of the input's gradient can cancel
        largest = max(float(wanted.abs().max()), 1e-3, 4 * slope * float(grad.abs().max()) if index == 1 else 0)
        difference = float((actual.double() - wanted.double()).abs().max())
        assert difference <= bound * largest, (index, difference, largest)


@pytest.mark.parametrize("relu", [False, True])
def test_nan_and_infinity_flow_as_in_torch(relu):
    x, add, grad = (channels_last((2, 18, 5, 7), seed) for seed in range(3))
    x[0, 3, 2, 2], x[1, 17, 0, 0], add[0, 5, 1, 1], add[1, 6, 1, 1] = math.nan, math.inf, math.nan, -math.inf
    norm = made_norm(18)
    found, expected = (both_ways(f, norm, x, add, grad, relu) for f in (batch_norm, by_torch))
    for actual, wanted in zip(found[:5], expected[:5], strict=True):
        torch.testing.assert_close(actual, wanted, equal_nan=True, rtol=1e-4, atol=1e-4)


def test_a_channel_without_variance_has_the_bias():
    x, norm = torch.full((2, 16, 4, 4), 1e4).contiguous(memory_format=torch.channels_last), made_norm(16)
    assert why_not(x, norm) is None
    torch.testing.assert_close(batch_norm(x, norm), norm.bias[:, None, None].expand_as(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(norm.running_var, torch.full((16,), 0.9))


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_does_not_change_a_bit(threads):
    before, norm = torch.get_num_threads(), made_norm(20)
    x, add, grad = (channels_last((2, 20, 60, 40), seed) for seed in range(3))
    assert x.numel() >= 1 << 15
    found = []
    try:
        for number in (1, threads):
            torch.set_num_threads(number)
            found.append(both_ways(batch_norm, norm, x, add, grad, True))
    finally:
        torch.set_num_threads(before)
    for one, several in zip(*found, strict=True):
        assert torch.equal(one, several)


def test_processes_that_share_statistics_compute_the_bits_of_the_whole_batch():
    norm, grad = made_norm(20), channels_last((3, 20, 34, 33), 1)
    x, add = channels_last((3, 20, 34, 33), 0), channels_last((3, 20, 34, 33), 2)
    whole = both_ways(batch_norm, norm, x, add, grad, True)
    barrier, rows, parts = threading.Barrier(2), {}, {}

    def work(rank: int, images: slice) -> None:
        def exchange(own: Tensor) -> Tensor:
            rows[rank] = own.clone()
            barrier.wait()
            result = torch.cat([rows[0], rows[1]])
            barrier.wait()
            return result

        with sharing(exchange):
            parts[rank] = both_ways(batch_norm, norm, x[images], add[images], grad[images], True)

    threads = [threading.Thread(target=work, args=each) for each in ((0, slice(0, 1)), (1, slice(1, 3)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in (0, 1, 4):  # the result, and the gradients of both maps
        assert torch.equal(torch.cat([parts[0][index], parts[1][index]]), whole[index])
    for index in (5, 6, 7):  # the running statistics
        assert torch.equal(parts[0][index], whole[index])
        assert torch.equal(parts[1][index], whole[index])
    for index in (2, 3):  # the gradients of weight and bias are of the own images
        torch.testing.assert_close(parts[0][index] + parts[1][index], whole[index])


def test_alone_an_exchange_that_returns_its_rows_changes_nothing():
    norm, (x, add, grad) = made_norm(16), (channels_last((2, 16, 9, 9), seed) for seed in range(3))
    expected = both_ways(batch_norm, norm, x, add, grad, True)
    with sharing(lambda own: own):
        found = both_ways(batch_norm, norm, x, add, grad, True)
        nchw = both_ways(batch_norm, norm, x.contiguous(), add, grad, True)
    for each, other, wanted in zip(found, nchw, expected, strict=True):
        assert torch.equal(each, wanted)
        assert torch.equal(other, wanted)


def test_wrong_rows_of_an_exchange_are_an_error():
    with sharing(lambda own: own.float()), pytest.raises(ValueError, match="float64 rows"):
        batch_norm(channels_last((2, 16, 4, 4), 0), made_norm(16))
    with sharing(lambda own: own[:1]), pytest.raises(ValueError, match="more than one value"):
        batch_norm(channels_last((2, 16, 1, 1), 0), made_norm(16))


@pytest.mark.parametrize(
    ("why", "changed"),
    [
        ("evaluation", lambda x, norm: (x, norm.eval())),
        ("float32", lambda x, norm: (x.double(), norm.double())),
        ("running statistics", lambda x, norm: (x, nn.BatchNorm2d(16, momentum=None))),
        ("running statistics", lambda x, norm: (x, nn.BatchNorm2d(16, track_running_stats=False))),
        ("a weight", lambda x, norm: (x, nn.BatchNorm2d(16, affine=False))),
        ("channels_last", lambda x, norm: (x.contiguous(), norm)),
        ("empty", lambda x, norm: (x[:0], norm)),
    ],
)
def test_elsewhere_torchs_operators_give_their_own_bits(why, changed):
    x, norm = changed(channels_last((2, 16, 4, 4), 0), made_norm(16))
    assert why in (why_not(x, norm) or "")
    other = copy.deepcopy(norm)
    assert torch.equal(batch_norm(x, norm, x, relu=True), F.relu(other(x) + x))
    for name, value in other.state_dict().items():
        assert torch.equal(norm.state_dict()[name].nan_to_num(7.0), value.nan_to_num(7.0))


def test_hooks_and_autocast_and_transforms_see_torchs_operators():
    x, norm = channels_last((2, 16, 4, 4), 0), made_norm(16)
    assert why_not(x, norm) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert "autocast" in (why_not(x, norm) or "")
    seen = []
    norm.register_forward_hook(lambda *_: seen.append(1))
    batch_norm(x, norm)
    assert seen == [1]
    with sharing(lambda own: own), pytest.raises(RuntimeError, match="hooks"):
        batch_norm(x, norm)


def test_a_compiled_module_keeps_torchs_operators():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = made_norm(16)

        def forward(self, x: Tensor) -> Tensor:
            return batch_norm(x, self.norm, x, relu=True)

    x, net = channels_last((2, 16, 4, 4), 0), Net()
    expected = by_torch(x, copy.deepcopy(net.norm), x, relu=True)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), expected)


def test_a_second_derivative_is_an_error_that_names_the_way_out():
    x, norm = channels_last((2, 16, 4, 4), 0).requires_grad_(), made_norm(16)
    with pytest.raises(RuntimeError, match=r"fusing\(False\)"):
        torch.autograd.grad(batch_norm(x, norm, relu=True).square().sum(), x, create_graph=True)
    with fusing(False):
        assert why_not(x, norm) == "it is switched off"
        (grad,) = torch.autograd.grad(batch_norm(x, norm, relu=True).square().sum(), x, create_graph=True)
    assert torch.autograd.grad(grad.sum(), x)[0].isfinite().all()


def test_without_numba_torchs_operators_run(monkeypatch):
    monkeypatch.setattr(cpu, "why_unavailable", lambda: "numba is missing")
    assert why_not(channels_last((2, 16, 4, 4), 0), made_norm(16)) == "numba is missing"
