"""The CUDA source itself, run on the CPU by tests/emulation and compared with the reference; no GPU is needed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from cornernet.kernels import eager
from cornernet.kernels.contract import AXIS_AND_REVERSED, DIRECTIONS_OF
from cornernet.kernels.cuda_pool import ENTRIES, Kernels
from tests.emulation.build import Host, why_no_host
from tests.strategies import shapes

pytestmark = pytest.mark.skipif(why_no_host() is not None, reason=str(why_no_host()))

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

# sizes with and without wide accesses, one element, lines longer than a block in both directions, many small planes
SHAPES = [(2, 3, 5, 7), (1, 16, 12, 16), (1, 1, 1, 1), (1, 1, 300, 3), (1, 2, 3, 300), (5, 8, 24, 8), (1, 8, 2, 1100)]

FEW, MANY = 1, 10**6  # processors: with few, the fused forward takes one launch; with many, two
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
either_order = pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return Host(tmp_path_factory.mktemp("cuda_on_host"))


@pytest.fixture
def host(built: Host) -> Iterator[Host]:
    # torch.empty then gives NaN, which reveals elements that no thread wrote
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    built.descending = False
    yield built
    torch.use_deterministic_algorithms(before)


def values(shape: tuple[int, ...], dtype: torch.dtype, layout: str, seed: int) -> Tensor:
    """Small integers (ties), infinities, NaN, and numbers that 16 bits round."""
    generator = torch.Generator().manual_seed(seed)
    pool = torch.tensor([-2.0, -1, 0, 0, 1, 1, 2, 0.3, -0.7, 1e-7, math.inf, -math.inf, -math.inf, math.nan])
    chosen = pool[torch.randint(len(pool) if seed % 2 else 10, shape, generator=generator)]
    return chosen.to(dtype).contiguous(memory_format=LAYOUTS[layout])


def gradient(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> Tensor:
    """Small integers: their sums are exact, so gradients compare exactly."""
    generator = torch.Generator().manual_seed(7)
    return torch.randint(-2, 3, shape, generator=generator).to(dtype).contiguous(memory_format=LAYOUTS[layout])


def same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)
    assert actual.stride() == expected.stride()


def expected_gradients(function, inputs: list[Tensor], grad: Tensor) -> list[Tensor]:
    inputs = [x.detach().double().requires_grad_() for x in inputs]
    found = torch.autograd.grad(function(*inputs), inputs, grad.double())
    return [g.to(grad.dtype) for g in found]


@every_dtype
@every_shape
@every_layout
@either_order
def test_the_text_pools_and_differentiates_each_direction_as_the_loop_does(host, dtype, shape, layout, descending):
    host.descending = descending
    kernels = Kernels(host, lambda _: FEW)
    for seed, direction in enumerate(AXIS_AND_REVERSED):
        x, grad = values(shape, dtype, layout, seed + descending), gradient(shape, dtype, layout)
        same(kernels.pool_forward(x, direction), eager.directional_max_pool(x, direction))
        (expected,) = expected_gradients(lambda x, to=direction: eager.directional_max_pool(x, to), [x], grad)
        torch.testing.assert_close(kernels.pool_backward(grad, x, direction), expected, rtol=0, atol=0)


@every_dtype
@every_shape
@every_layout
@either_order
def test_the_text_pools_and_differentiates_each_corner_as_the_loop_does(host, dtype, shape, layout, descending):
    host.descending = descending
    for seed, corner in enumerate(DIRECTIONS_OF):
        v, h = (values(shape, dtype, layout, s) for s in (seed + descending, seed + descending + 2))
        expected = eager.corner_pool(v, h, corner)
        for processors in (FEW, MANY):
            same(Kernels(host, lambda _, count=processors: count).corner_forward(v, h, corner), expected)
        grad = gradient(shape, dtype, layout)
        found = Kernels(host, lambda _: FEW).corner_backward(grad, v, h, corner)
        wanted = expected_gradients(lambda v, h, at=corner: eager.corner_pool(v, h, at), [v, h], grad)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    shape=shapes(3000).filter(lambda shape: min(shape) > 0),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(list(LAYOUTS)),
    corner=st.sampled_from(list(DIRECTIONS_OF)),
    processors=st.sampled_from([FEW, MANY]),
    seed=st.integers(0, 99),
    descending=st.booleans(),
)
def test_any_size_agrees_with_the_loop(host, shape, dtype, layout, corner, processors, seed, descending):
    host.descending = descending
    kernels = Kernels(host, lambda _: processors)
    v, h = values(shape, dtype, layout, seed), values(shape, dtype, layout, seed + 2)
    same(kernels.corner_forward(v, h, corner), eager.corner_pool(v, h, corner))
    grad = gradient(shape, dtype, layout)
    wanted = expected_gradients(lambda v, h: eager.corner_pool(v, h, corner), [v, h], grad)
    for a, b in zip(kernels.corner_backward(grad, v, h, corner), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_the_fused_sum_of_any_two_sixteen_bit_values_is_rounded_once(host, dtype):
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    v = bits.view(dtype).view(-1, 1, 1, 1)
    shuffled = bits[torch.randperm(len(bits), generator=torch.Generator().manual_seed(0))]
    h = shuffled.view(dtype).view(-1, 1, 1, 1)
    result = Kernels(host, lambda _: FEW).corner_forward(v, h, "top_left")
    torch.testing.assert_close(result, v + h, rtol=0, atol=0, equal_nan=True)


def test_an_address_that_no_wide_access_fits_is_served(host):
    around = torch.full((2 * 3 * 4 * 8 + 9,), 99.0)
    x = around[1:193].view(2, 3, 4, 8).copy_(values((2, 3, 4, 8), torch.float32, "contiguous", 0))
    assert x.data_ptr() % 16 != 0
    same(Kernels(host, lambda _: FEW).pool_forward(x, "left"), eager.directional_max_pool(x, "left"))
    assert (around[193:] == 99).all()
    assert around[0] == 99


def test_these_tests_reach_every_entry_point(host):
    kernels = {count: Kernels(host, lambda _, count=count: count) for count in (FEW, MANY)}
    host.entries.clear()
    for layout in LAYOUTS:
        x = values((1, 8, 4, 8), torch.float32, layout, 0)
        for each in kernels.values():
            each.corner_forward(x, x, "top_left")
            each.corner_backward(x, x, x, "top_left")
            each.pool_backward(x, x, "left")
            each.pool_backward(x, x, "top")
    assert host.entries == set(ENTRIES)


def test_the_emulation_notices_a_missing_barrier(tmp_path, monkeypatch):
    broken = tmp_path / "corner_pool.cu"
    from tests.emulation import build

    broken.write_text(build.SOURCE.read_text().replace("__syncthreads();", ";", 1))
    monkeypatch.setattr(build, "SOURCE", Path(broken))
    host = Host(tmp_path)
    x = values((1, 4, 40, 8), torch.float32, "contiguous", 0)
    outcomes = []
    for host.descending in (False, True):
        result = Kernels(host, lambda _: FEW).pool_forward(x, "bottom")
        outcomes.append(torch.equal(result, eager.directional_max_pool(x, "bottom")))
    assert not all(outcomes)
