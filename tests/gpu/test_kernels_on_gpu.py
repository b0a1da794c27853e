"""The GPU implementations on a GPU: sizes that fill it, streams, graphs, memory beyond 2^31 elements.

The laws of tests/property run over CUDA devices too where there is one; this adds what needs a real device. Where
there is none everything here skips. Run with ``python -m pytest -m gpu``.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cornernet import kernels
from cornernet.kernels import registry
from cornernet.kernels.contract import AXIS_AND_REVERSED, DIRECTIONS_OF

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device (torch.cuda.is_available() is False)"),
]

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def _implementations() -> list:
    params = []
    for name in ("triton", "cuda"):
        reason = registry.row(name).why_not("cuda", torch.float32)
        marks = [pytest.mark.skip(reason=f"{name}: {reason}")] if reason else []
        params.append(pytest.param(name, marks=marks))
    return params


every_impl = pytest.mark.parametrize("impl", _implementations())
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
every_layout = pytest.mark.parametrize("layout", LAYOUTS)


def values(shape: tuple[int, ...], dtype: torch.dtype, layout: str, seed: int) -> Tensor:
    """Whole numbers, rounded normal draws among them: ties in every line."""
    generator = torch.Generator("cuda").manual_seed(seed)
    drawn = torch.randn(shape, device="cuda", generator=generator).mul(20).round()
    return drawn.to(dtype).contiguous(memory_format=LAYOUTS[layout])


def gradient(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> Tensor:
    """Small whole numbers, whose sums are exact."""
    generator = torch.Generator("cuda").manual_seed(5)
    drawn = torch.randint(-2, 3, shape, device="cuda", generator=generator)
    return drawn.to(dtype).contiguous(memory_format=LAYOUTS[layout])


def same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


def gradients(inputs: tuple[Tensor, ...], grad: Tensor, corner: str, impl: str) -> tuple[Tensor, ...]:
    leaves = tuple(x.detach().requires_grad_() for x in inputs)
    return torch.autograd.grad(kernels.corner_pool(*leaves, corner, impl=impl), leaves, grad)


@every_impl
@every_dtype
@every_layout
@pytest.mark.parametrize(
    "shape",
    [(8, 128, 128, 128), (1, 128, 128, 128), (4, 64, 24, 32), (2, 64, 192, 256), (1, 5, 127, 129), (1, 3, 1500, 2100)],
    ids=lambda shape: "x".join(map(str, shape)),
)
@pytest.mark.parametrize("corner", DIRECTIONS_OF)
def test_maps_of_every_size_equal_the_slice_loop(impl, dtype, layout, shape, corner):
    v, h = values(shape, dtype, layout, 1), values(shape, dtype, layout, 2)
    same(kernels.corner_pool(v, h, corner, impl=impl), kernels.corner_pool(v, h, corner, impl="eager"))
    for direction in DIRECTIONS_OF[corner]:
        result = kernels.directional_max_pool(v, direction, impl=impl)
        same(result, kernels.directional_max_pool(v, direction, impl="eager"))
        assert result.is_contiguous(memory_format=LAYOUTS[layout])


@every_impl
@every_dtype
@every_layout
@pytest.mark.parametrize(
    "shape",
    [(2, 64, 128, 128), (2, 8, 192, 256), (1, 5, 127, 129), (1, 2, 700, 900)],
    ids=lambda s: "x".join(map(str, s)),
)
@pytest.mark.parametrize("corner", DIRECTIONS_OF)
def test_gradients_of_every_size_equal_the_slice_loop_in_float64(impl, dtype, layout, shape, corner):
    inputs = values(shape, dtype, layout, 1), values(shape, dtype, layout, 2)
    grad = gradient(shape, dtype, layout)
    found = gradients(inputs, grad, corner, impl)
    expected = gradients(tuple(x.double() for x in inputs), grad.double(), corner, "eager")
    for a, b in zip(found, expected, strict=True):
        same(a, b.to(dtype))


@every_impl
@every_dtype
@pytest.mark.parametrize("direction", AXIS_AND_REVERSED)
def test_nan_wins_and_stays_and_infinities_are_values(impl, dtype, direction):
    x = values((2, 8, 65, 66), dtype, "contiguous", 3)
    x[torch.rand(x.shape, device="cuda") < 0.02] = float("nan")
    x[torch.rand(x.shape, device="cuda") < 0.3] = -float("inf")
    same(
        kernels.directional_max_pool(x, direction, impl=impl),
        kernels.directional_max_pool(x, direction, impl="eager"),
    )


@every_impl
def test_sums_of_sixteen_bit_gradients_are_accumulated_in_float32(impl):
    x = torch.zeros(1, 8, 1000, 8, dtype=torch.bfloat16, device="cuda", requires_grad=True)
    kernels.directional_max_pool(x, "top", impl=impl).backward(torch.ones_like(x))
    assert x.grad is not None
    # bfloat16 alone would stop at 256, where adding 1 no longer changes the sum
    assert (x.grad[:, :, -1] == 1000).all()


@every_impl
@every_layout
def test_real_gradients_are_the_same_bits_every_time(impl, layout):
    shape = (4, 32, 128, 128)
    inputs = values(shape, torch.float32, layout, 1), values(shape, torch.float32, layout, 2)
    grad = torch.randn(shape, device="cuda").contiguous(memory_format=LAYOUTS[layout])
    first = gradients(inputs, grad, "top_left", impl)
    for _ in range(5):
        for a, b in zip(gradients(inputs, grad, "top_left", impl), first, strict=True):
            assert torch.equal(a, b)


@every_impl
@every_layout
def test_a_cuda_graph_replays_forward_and_backward_on_new_values(impl, layout):
    shape = (1, 128, 128, 128)
    v, h = (values(shape, torch.float32, layout, seed).requires_grad_() for seed in (1, 2))
    grad = gradient(shape, torch.float32, layout)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # compiles and loads: not while capturing
        torch.autograd.grad(kernels.corner_pool(v, h, "top_left", impl=impl), (v, h), grad)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = kernels.corner_pool(v, h, "top_left", impl=impl)
        found = torch.autograd.grad(y, (v, h), grad)
    with torch.no_grad():
        v.copy_(values(shape, torch.float32, layout, 3))
        h.copy_(values(shape, torch.float32, layout, 4))
    graph.replay()
    torch.cuda.synchronize()
    same(y, kernels.corner_pool(v, h, "top_left", impl="eager"))
    for a, b in zip(found, gradients((v, h), grad, "top_left", "eager"), strict=True):
        same(a, b)


@every_impl
def test_kernels_run_on_the_current_stream(impl):
    source = values((4, 64, 128, 128), torch.float32, "contiguous", 1)
    expected = kernels.corner_pool(source, source, "top_left", impl="eager")
    x = torch.zeros_like(source)
    kernels.corner_pool(x, x, "top_left", impl=impl)  # compiled beforehand
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(200_000_000)  # about a tenth of a second: a launch elsewhere would overtake the copy
        x.copy_(source)
        y = kernels.corner_pool(x, x, "top_left", impl=impl)
    assert not side.query()
    side.synchronize()
    same(y, expected)


@every_impl
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device only")
def test_a_tensor_on_another_device_than_the_current_one_is_served(impl):
    x = values((2, 8, 33, 40), torch.float32, "contiguous", 1).to("cuda:1")
    result = kernels.corner_pool(x, x, "top_left", impl=impl)
    assert result.device == x.device
    same(result, kernels.corner_pool(x, x, "top_left", impl="eager"))


@every_impl
@every_layout
@pytest.mark.parametrize("corner", DIRECTIONS_OF)
def test_more_than_two_to_the_31_elements_are_addressed(impl, layout, corner):
    shape = (33, 1024, 256, 256)  # 2.2e9 elements
    needed = 7 * 2 * 33 * 1024 * 256 * 256
    if torch.cuda.mem_get_info()[0] < needed:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of free GPU memory")
    x = torch.empty(shape, dtype=torch.bfloat16, device="cuda", memory_format=LAYOUTS[layout])
    for image in x:  # image by image: no copy of the whole in float32
        image.copy_(torch.randint(-100, 100, image.shape, device="cuda"))
    y = kernels.corner_pool(x, x, corner, impl=impl)
    grads = gradients((x, x), y, corner, impl)
    for i in (0, 16, 32):
        part = x[i : i + 1]
        same(y[i : i + 1], kernels.corner_pool(part, part, corner, impl=impl))
        for a, b in zip(grads, gradients((part, part), y[i : i + 1], corner, impl), strict=True):
            same(a[i : i + 1], b)


@every_impl
def test_auto_picks_a_gpu_implementation_here(impl):
    x = values((1, 4, 9, 9), torch.float32, "contiguous", 1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        kernels.corner_pool(x, x, "top_left")
    names = {event.key for event in profile.key_averages()}
    assert any(name.startswith(("cornernet_kernels::cuda", "cornernet_kernels::triton")) for name in names)
