"""Hypothesis strategies for tensors: sizes around every boundary, layouts, and values that are hard for maxima."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

LAYOUTS = ("contiguous", "channels_last", "sliced", "transposed", "expanded", "offset")
SENTINEL = 12345.0

# around vectors of 16 and 32 lanes, warps and blocks of 128; also long and thin
_SIZES = st.one_of(
    st.integers(0, 9),
    st.sampled_from([15, 16, 17, 31, 32, 33, 47, 48, 49]),
    st.sampled_from([63, 64, 65, 127, 128, 129, 200, 257]),
)
_SMALL = st.sampled_from([1, 2, 3, 0, 5, 16, 17, 33])

_VALUES = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 2.0, -2.0]),  # ties
    st.sampled_from([0.0, -0.0]),
    st.sampled_from([math.inf, -math.inf, math.nan]),
    st.sampled_from([0.1, -0.1, 3.3, 1e-3, 100.5]),  # must be rounded to fit 16 bits
    st.sampled_from([1e-7, -1e-7, 6e4, -6e4]),  # in float16, subnormal or close to the largest number
)
_NUMBERS = _VALUES.filter(math.isfinite)


@dataclass(frozen=True)
class Case:
    """A tensor as the test passes it, with its layout; both are shown when the test fails."""

    x: Tensor
    layout: str

    def __repr__(self) -> str:
        x = self.x.detach().cpu()
        shown = x.tolist() if x.numel() <= 64 else f"{x.numel()} values, {x.unique().tolist()[:16]}"
        return f"Case({self.layout}, {x.dtype!s}{list(x.shape)}, strides {list(x.stride())}: {shown})"


def laid_out(x: Tensor, layout: str) -> Tensor:
    """Return a tensor equal to contiguous ``x`` [N, C, H, W] in ``layout``. The memory around it contains SENTINEL."""
    n, c, h, w = x.shape
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "sliced":
        around = torch.full((n, c + 1, h + 2, 2 * w + 1), SENTINEL, dtype=x.dtype, device=x.device)
        inside = around[:, 1:, 1 : h + 1, 1::2]
        return inside.copy_(x)
    if layout == "transposed":
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    if layout == "expanded":
        return x[:, :1].expand(n, c, h, w) if c else x
    if layout == "offset":
        around = torch.full((x.numel() + 11,), SENTINEL, dtype=x.dtype, device=x.device)
        return around[3 : 3 + x.numel()].view(x.shape).copy_(x)
    return x


@st.composite
def shapes(draw: st.DrawFn, largest: int = 6000) -> tuple[int, int, int, int]:
    """Return a shape [N, C, H, W] of at most ``largest`` elements; sides may be long."""
    h, w = draw(_SIZES), draw(_SIZES)
    if h * w > largest:
        h = max(1, largest // w)
    n, c = draw(_SMALL), draw(_SMALL)
    room = largest // max(h * w, 1)
    c = min(c, max(room, 1))
    return min(n, max(room // max(c, 1), 1)), c, h, w


@st.composite
def cases(
    draw: st.DrawFn, dtypes: tuple[torch.dtype, ...], device: str, largest: int = 6000, numbers_only: bool = False
) -> Case:
    """Return a :class:`Case`. Values come from a short list: there are ties, and failures shrink to few values."""
    shape = draw(shapes(largest))
    pool = draw(st.lists(_NUMBERS if numbers_only else _VALUES, min_size=1, max_size=8))
    seed = draw(st.integers(0, 9999))
    values = np.random.default_rng(seed).choice(np.array(pool), size=shape)
    dtype, layout = draw(st.sampled_from(dtypes)), draw(st.sampled_from(LAYOUTS))
    return Case(laid_out(torch.from_numpy(values).to(device, dtype), layout), layout)


def partner(case: Case, seed: int) -> Tensor:
    """Return a tensor with the layout of ``case`` and its values in a different order."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(case.x.numel())).to(case.x.device)
    return laid_out(case.x.reshape(-1)[order].view(case.x.shape), case.layout)


def integer_gradient(x: Tensor, seed: int) -> Tensor:
    """Return small integers in the shape of ``x``. Their sums are exact in float32, so gradients compare exactly."""
    values = np.random.default_rng(seed).integers(-2, 3, size=x.shape)
    return torch.from_numpy(values).to(x.device, x.dtype)
