"""The Triton implementation, in Triton's interpreter where there is no GPU: block rules, loops over blocks, reasons.

The laws of tests/property also cover it; here, small blocks let few elements exceed one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cornernet.kernels import eager, triton_pool
from cornernet.kernels.contract import AXIS_AND_REVERSED, DIRECTIONS_OF, FLOATS
from tests.emulation import fast_interpreter

ROOT = Path(triton_pool.__file__).parents[1]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

pytestmark = pytest.mark.skipif(
    triton_pool.why_unavailable() is not None, reason=f"triton: {triton_pool.why_unavailable()}"
)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)


@pytest.fixture(scope="module", autouse=True)
def _fast_interpreter():
    fast_interpreter.install()


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 8 positions in tiles of 32 elements, so that 19 positions take three."""
    monkeypatch.setattr(triton_pool, "LONGEST", 8)
    monkeypatch.setattr(triton_pool, "TILE", 32)
    monkeypatch.setattr(triton_pool, "WIDEST", 16)


def values(shape: tuple[int, ...], layout: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    pool = torch.tensor([-1.0, 0, 0, 1, 1, 2, float("inf"), -float("inf"), float("nan")])
    chosen = pool[torch.randint(9 if seed % 2 else 6, shape, generator=generator)]
    return chosen.to(DEVICE).contiguous(memory_format=LAYOUTS[layout])


def gradient(shape: tuple[int, ...], layout: str) -> Tensor:
    grad = torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(9)).float()
    return grad.to(DEVICE).contiguous(memory_format=LAYOUTS[layout])


def same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


@every_layout
@pytest.mark.parametrize("direction", AXIS_AND_REVERSED)
@pytest.mark.parametrize("seed", [0, 1])
def test_lines_longer_than_a_block_carry_maxima_and_sums(small_blocks, layout, direction, seed):
    shape = (1, 2, 19, 3) if AXIS_AND_REVERSED[direction][0] == 2 else (1, 2, 3, 19)
    x, grad = values(shape, layout, seed), gradient(shape, layout)
    same(triton_pool.pool_forward(x, direction), eager.directional_max_pool(x, direction))
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(eager.directional_max_pool(leaf, direction), leaf, grad)
    same(triton_pool.pool_backward(grad, x, direction), expected)


@every_layout
@pytest.mark.parametrize("corner", DIRECTIONS_OF)
@pytest.mark.parametrize("shape", [(1, 2, 19, 9), (1, 2, 3, 19)], ids=["tall", "wider than a tile"])
def test_corners_larger_than_a_block_equal_the_loop(small_blocks, layout, corner, shape):
    v, h, grad = values(shape, layout, 0), values(shape, layout, 1), gradient(shape, layout)
    same(triton_pool.corner_forward(v, h, corner), eager.corner_pool(v, h, corner))
    leaves = v.clone().requires_grad_(), h.clone().requires_grad_()
    expected = torch.autograd.grad(eager.corner_pool(*leaves, corner), leaves, grad)
    for found, wanted in zip(triton_pool.corner_backward(grad, v, h, corner), expected, strict=True):
        same(found, wanted)


def test_the_fused_sum_of_bfloat16_is_rounded_to_nearest():
    generator = torch.Generator().manual_seed(0)
    v, h = (torch.randint(-(2**15), 2**15, (1, 1, 1, 512), generator=generator).to(torch.int16) for _ in range(2))
    v, h = (bits.view(torch.bfloat16).permute(3, 1, 2, 0).contiguous().to(DEVICE) for bits in (v, h))
    same(triton_pool.corner_forward(v, h, "top_left"), v + h)


@every_layout
def test_the_fused_forward_of_the_papers_map_is_one_launch_of_a_tile_as_wide_as_the_map(layout):
    x = torch.empty(8, 128, 128, 128, device="meta", memory_format=LAYOUTS[layout])
    (launch,) = triton_pool.plan_corner_forward(x, x, x, "top_left")
    tile = [launch.constants[name] for name in ("PLANES", "ROWS", "COLUMNS")]
    assert tile[2] == 128
    assert tile[0] * tile[1] * tile[2] * 2 == triton_pool.TILE
    assert launch.programs == 8 * 128 // tile[0]


def test_addresses_take_64_bits_where_elements_are_that_many_and_only_there():
    for shape, wide in [((8, 128, 128, 128), False), ((64, 1024, 256, 256), True)]:
        x = torch.empty(shape, device="meta")
        plans = [
            triton_pool.plan_pool_forward(x, None, x, "top"),
            *triton_pool.plan_corner_forward(x, x, x, "top_left"),
            triton_pool.plan_pool_backward(x, x, x, "left"),
            triton_pool.plan_corner_backward(x, x, x, x, x, "top_left"),
        ]
        assert {plan.constants["WIDE"] for plan in plans} == {wide}


SAY_WHY = (
    "from cornernet.kernels import triton_pool as t; "
    "print(t.why_unavailable(), '|', t.why_not('cpu', False), '|', {auto})"
)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("interpret", [False, True])
def test_the_interpreter_is_mentioned_only_if_it_was_requested(interpret):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    code = SAY_WHY.format(auto="t.why_not('cpu', True)")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    unavailable, named, auto = (part.strip() for part in done.stdout.split("|"))
    if interpret:
        assert (unavailable, named) == ("None", "None")
        assert "interpreter" in auto
    else:
        assert "no CUDA device" in unavailable
        assert "interpreter" not in unavailable
        assert "TRITON_INTERPRET=1" in named


@pytest.mark.skipif(not triton_pool.interpreted(), reason="kernels are compiled here, not interpreted")
@every_layout
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_interpreter_gives_the_same_by_slices_as_element_by_element(small_blocks, layout, dtype):
    shape = (1, 1, 11, 2)
    x, other, grad = (
        made.to(getattr(torch, dtype))
        for made in (values(shape, layout, 1), values(shape, layout, 0), gradient(shape, layout) / 3)
    )

    def results() -> list[Tensor]:
        return [
            triton_pool.pool_forward(x, "top"),
            triton_pool.pool_backward(grad, x, "top"),
            triton_pool.corner_forward(x, other, "bottom_right"),
            *triton_pool.corner_backward(grad, other, x, "bottom_right"),
        ]

    fast = results()
    fast_interpreter.uninstall()
    try:
        slow = results()
    finally:
        fast_interpreter.install()
    for a, b in zip(fast, slow, strict=True):
        same(a, b)
