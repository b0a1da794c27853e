# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""Corner pooling in Triton: fused forward and backward, for contiguous and channels_last tensors without a copy.

Three ideas:

* A *line* is the elements that one running maximum passes over. In both layouts its elements have a fixed stride, and
  so have neighbouring lines, so one kernel handles all directions. It works on tiles [positions, lines], with positions
  in scan order (indexed backwards if the scan runs backwards), and carries the maximum from block to block.
* The fused forward holds tiles [planes, rows, columns] of both inputs, as wide as the map. It scans one along each axis
  and carries only the vertical maximum: 3b bytes per element of b bytes (one read of each input, one write).
* The backward finds the records, the positions where the running maximum changes, with a scan of (value, position)
  pairs. It sums the gradients from each record up to the next with a segmented scan in the other direction. This takes
  3b bytes, or 5b for both gradients in one grid, whose blocks alternate so that the second read of the gradient hits
  the L2 cache. Lines longer than one block need one more read of the input, for the maxima between blocks.

Block sizes follow a rule, without autotuning. A tile has :data:`TILE` elements for :data:`THREADS` threads, a quarter
of that in float64 and half if a program holds two inputs at once, to limit registers. A line takes up to
:data:`LONGEST` positions of it, and neighbouring lines take the rest. 16-bit values are compared and summed in float32,
which is exact for selecting and wide enough for summing, and are rounded once.

``tl.maximum`` drops NaN by default and behaves differently by type, so comparisons are written out. The only scan with
``reverse=True``, which has had bugs upstream, combines with a commutative operation.

``TRITON_INTERPRET=1`` runs all this on the CPU, in Triton's interpreter. That is for tests only; auto never picks it.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .contract import AXIS_AND_REVERSED, DIRECTIONS_OF
from .layout import memory_format_of

try:
    import triton
    import triton.language as tl
except ImportError:  # not installed on this platform: why_unavailable says so, and nothing below is used
    triton = None

__all__ = [
    "Launch",
    "corner_backward",
    "corner_forward",
    "interpreted",
    "plan_corner_backward",
    "plan_corner_forward",
    "plan_pool_backward",
    "plan_pool_forward",
    "pool_backward",
    "pool_forward",
    "why_not",
    "why_unavailable",
]

TILE = 4096  # largest number of elements of a tensor in one program
THREADS = 256  # threads of a program with a full tile
LONGEST = 256  # positions of a line in one block
WIDEST = 1024  # columns in a tile of the fused forward; wider maps take two launches
SEGMENT = 32  # bytes that neighbouring lines of channels_last should fill, at least: a sector of device memory


def interpreted() -> bool:
    """Tell whether kernels run in Triton's interpreter: ``TRITON_INTERPRET`` was 1 when this module was imported."""
    return _INTERPRETED


_INTERPRETED = triton is not None and os.environ.get("TRITON_INTERPRET", "0") == "1"


@functools.cache
def why_unavailable() -> str | None:
    """Return what is missing on this machine, or None. The interpreter needs no GPU."""
    if triton is None:
        return "triton is not installed; pip install triton (Linux)"
    if interpreted():
        return None
    if not torch.cuda.is_available():
        return "no CUDA device was found (torch.cuda.is_available() is False)"
    if torch.version.cuda is not None and torch.cuda.get_device_capability() < (8, 0):
        return "the GPU is older than compute capability 8.0"
    return None


def why_not(device_type: str, auto: bool) -> str | None:
    """Return why tensors on ``device_type`` are not supported, or with ``auto`` why it is not picked, or None."""
    if interpreted():
        return "it runs in Triton's interpreter (TRITON_INTERPRET=1), which is for tests only" if auto else None
    if device_type == "cpu":
        return "it runs on the CPU only in Triton's interpreter, for tests: set TRITON_INTERPRET=1 before the import"
    return None


# -------------------------------------------------------------------------------------------------------------- kernels
if triton is not None:
    # bfloat16 is converted by hand: the interpreter's conversions neither round to nearest nor keep subnormals
    @triton.jit
    def _wide(x):
        """Return float64 unchanged and all else as float32."""
        if x.dtype == tl.float64:
            return x
        elif x.dtype == tl.bfloat16:  # noqa: RET505 (compiled away: only one branch exists for a type)
            return (x.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
        else:
            return x.to(tl.float32)

    @triton.jit
    def _narrow(x, like):
        """Round once, to nearest and ties to even, to the element type of the pointer `like`."""
        if like.dtype.element_ty == tl.bfloat16:
            bits = x.to(tl.uint32, bitcast=True)
            rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
            return tl.where(x != x, 0x7FC0, rounded).to(tl.uint16).to(tl.bfloat16, bitcast=True)
        else:  # noqa: RET505
            return x.to(like.dtype.element_ty)

    @triton.jit
    def _constant(shape: tl.constexpr, value: tl.constexpr, like):
        """Return `value` in the wide type of the pointer `like`'s elements."""
        return tl.full(shape, value, tl.float64 if like.dtype.element_ty == tl.float64 else tl.float32)

    @triton.jit
    def _larger(best, new):
        """Return the maximum of two values, `best` earlier in the scan; NaN wins and stays."""
        return tl.where((new > best) | (new != new), new, best)

    @triton.jit
    def _first_larger(value, position, other, other_position):
        """Return the larger of two (value, position) pairs, the first in a tie. This is commutative."""
        tie = (value == other) | ((value != value) & (other != other))
        take = (other > value) | ((other != other) & (value == value)) | (tie & (other_position < position))
        return tl.where(take, other, value), tl.where(take, other_position, position)

    @triton.jit
    def _segment(sum_, state, next_sum, next_state):
        """Sum up to a record and restart after it. For a stretch, `sum_` is the sum since its last record before its
        end; `state` is 1 if it ends in a record, plus 2 if there is a record before its end."""
        closed = ((state & 1) | (next_state >> 1)) != 0
        before = ((state != 0) | (next_state >> 1 != 0)).to(tl.int32)
        return tl.where(closed, next_sum, sum_ + next_sum), (next_state & 1) | (before << 1)

    @triton.jit
    def _index(x, WIDE: tl.constexpr):
        """Return `x` in the type of addresses: 64 bits only if there are that many elements (WIDE)."""
        return x.to(tl.int64 if WIDE else tl.int32)

    @triton.jit
    def _line_offsets(block, lines, lanes, outer_stride, lane_stride, WIDE: tl.constexpr, LINES: tl.constexpr):
        """Return the starts of LINES neighbouring lines and the mask of those that exist, both [LINES]."""
        line = _index(block, WIDE) * LINES + tl.arange(0, LINES)
        return (line // lanes) * outer_stride + (line % lanes) * lane_stride, line < lines

    @triton.jit
    def _lines_forward(
        x, addend, y, lines, lanes, length, outer_stride, lane_stride, stride,
        WIDE: tl.constexpr, REVERSED: tl.constexpr, ADD: tl.constexpr, POSITIONS: tl.constexpr, LINES: tl.constexpr,
    ):  # fmt: skip
        start, exists = _line_offsets(tl.program_id(0), lines, lanes, outer_stride, lane_stride, WIDE, LINES)
        block = _index(tl.arange(0, POSITIONS), WIDE)
        best = _constant([LINES], float("-inf"), x)
        for first in range(0, length, POSITIONS):
            k = first + block
            mask = (k < length)[:, None] & exists[None, :]
            offsets = (length - 1 - k if REVERSED else k)[:, None] * stride + start[None, :]
            value = _wide(tl.load(x + offsets, mask, float("-inf")))
            result = _larger(best[None, :], tl.associative_scan(value, 0, _larger))
            best = _larger(best, tl.reduce(value, 0, _larger))
            if ADD:
                result += _wide(tl.load(addend + offsets, mask, 0.0))
            tl.store(y + offsets, _narrow(result, y), mask)

    @triton.jit
    def _corner_forward(
        vertical, horizontal, y, planes, lanes, height, width, outer_stride, lane_stride, row_stride, column_stride,
        WIDE: tl.constexpr, REVERSED: tl.constexpr, PLANES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    ):  # fmt: skip
        start, exists = _line_offsets(tl.program_id(0), planes, lanes, outer_stride, lane_stride, WIDE, PLANES)
        j = _index(tl.arange(0, COLUMNS), WIDE)
        column = (width - 1 - j if REVERSED else j) * column_stride
        mask_across = exists[:, None, None] & (j < width)[None, None, :]
        across = start[:, None, None] + column[None, None, :]
        best = _constant([PLANES, COLUMNS], float("-inf"), y)
        for first in range(0, height, ROWS):
            i = first + _index(tl.arange(0, ROWS), WIDE)
            mask = mask_across & (i < height)[None, :, None]
            offsets = across + ((height - 1 - i if REVERSED else i) * row_stride)[None, :, None]
            v = _wide(tl.load(vertical + offsets, mask, float("-inf")))
            h = _wide(tl.load(horizontal + offsets, mask, float("-inf")))
            down = _larger(best[:, None, :], tl.associative_scan(v, 1, _larger))
            best = _larger(best, tl.reduce(v, 1, _larger))
            total = down + tl.associative_scan(h, 2, _larger)
            tl.store(y + offsets, _narrow(total, y), mask)

    @triton.jit
    def _backward_block(
        block, grad, x, out, maxima, lines, lanes, length, count, outer_stride, lane_stride, stride,
        WIDE: tl.constexpr, REVERSED: tl.constexpr, SINGLE: tl.constexpr, POSITIONS: tl.constexpr, LINES: tl.constexpr,
    ):  # fmt: skip
        """Write the gradient of LINES lines of `count` blocks of positions each. `maxima` [blocks, count, LINES] keeps
        the maximum at the start of each block of positions; it is not used if there is one block (SINGLE)."""
        start, exists = _line_offsets(block, lines, lanes, outer_stride, lane_stride, WIDE, LINES)
        own = _index(tl.arange(0, POSITIONS), WIDE)
        saved = maxima + _index(block, WIDE) * count * LINES + tl.arange(0, LINES)
        if not SINGLE:
            best = _constant([LINES], float("-inf"), x)
            k = own
            for _ in range(0, count):
                tl.store(saved, best)
                mask = (k < length)[:, None] & exists[None, :]
                offsets = (length - 1 - k if REVERSED else k)[:, None] * stride + start[None, :]
                best = _larger(best, tl.reduce(_wide(tl.load(x + offsets, mask, float("-inf"))), 0, _larger))
                k += POSITIONS
                saved += LINES
            tl.debug_barrier()

        carried = _constant([LINES], 0.0, x)
        # positions from the end of the scan to its start, the direction of the sums
        k = (own * 0 + count) * POSITIONS - 1 - own
        for _ in range(0, count):
            mask = (k < length)[:, None] & exists[None, :]
            offsets = (length - 1 - k if REVERSED else k)[:, None] * stride + start[None, :]
            value = _wide(tl.load(x + offsets, mask, float("-inf")))
            share = _wide(tl.load(grad + offsets, mask, 0.0))
            # the position within the block in 32 bits: only distances matter
            position = (POSITIONS - 1 - tl.arange(0, POSITIONS))[:, None] + tl.zeros([1, LINES], tl.int32)
            _, winner = tl.associative_scan((value, position), 0, _first_larger, reverse=True)
            record = (winner == position) & mask
            if not SINGLE:
                saved -= LINES
                before = tl.load(saved)[None, :]
                beaten = (value > before) | ((value != value) & (before == before)) | (k == 0)[:, None]
                record = record & beaten
            sums, state = tl.associative_scan((share, record.to(tl.int32)), 0, _segment)
            if not SINGLE:
                sums = tl.where(state >> 1 == 0, sums + carried[None, :], sums)
                last = (own == POSITIONS - 1)[:, None] & (state & 1 == 0)
                carried = tl.sum(tl.where(last, sums, 0.0), 0)
            tl.store(out + offsets, _narrow(tl.where(record, sums, 0.0), out), mask)
            k -= POSITIONS

    @triton.jit
    def _lines_backward(
        grad, x, out, maxima, lines, lanes, length, count, outer_stride, lane_stride, stride,
        WIDE: tl.constexpr, REVERSED: tl.constexpr, SINGLE: tl.constexpr, POSITIONS: tl.constexpr, LINES: tl.constexpr,
    ):  # fmt: skip
        _backward_block(
            tl.program_id(0), grad, x, out, maxima, lines, lanes, length, count, outer_stride, lane_stride, stride,
            WIDE, REVERSED, SINGLE, POSITIONS, LINES,
        )  # fmt: skip

    @triton.jit
    def _corner_backward(
        grad, v, grad_v, maxima_v, v_lines, v_lanes, v_length, v_count, v_outer_stride, v_lane_stride, v_stride,
        h, grad_h, maxima_h, h_lines, h_lanes, h_length, h_count, h_outer_stride, h_lane_stride, h_stride,
        v_blocks, blocks, WIDE: tl.constexpr, REVERSED: tl.constexpr,
        V_SINGLE: tl.constexpr, V_POSITIONS: tl.constexpr, V_LINES: tl.constexpr,
        H_SINGLE: tl.constexpr, H_POSITIONS: tl.constexpr, H_LINES: tl.constexpr,
    ):  # fmt: skip
        """Write both gradients; vertical and horizontal blocks alternate evenly."""
        program = tl.program_id(0).to(tl.int64)
        before = program * v_blocks // blocks
        if (program + 1) * v_blocks // blocks > before:
            _backward_block(
                before, grad, v, grad_v, maxima_v,
                v_lines, v_lanes, v_length, v_count, v_outer_stride, v_lane_stride, v_stride,
                WIDE, REVERSED, V_SINGLE, V_POSITIONS, V_LINES,
            )  # fmt: skip
        else:
            _backward_block(
                program - before, grad, h, grad_h, maxima_h,
                h_lines, h_lanes, h_length, h_count, h_outer_stride, h_lane_stride, h_stride,
                WIDE, REVERSED, H_SINGLE, H_POSITIONS, H_LINES,
            )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- planning
@dataclass(frozen=True)
class Launch:
    """One launch: jitted kernel, number of programs, arguments and compile-time constants by name, compiler options."""

    kernel: Any
    programs: int
    arguments: Mapping[str, Tensor | int]
    constants: Mapping[str, int | bool]
    options: Mapping[str, int]

    def run(self) -> None:
        """Launch on torch's current stream of the tensors' device."""
        device = next(value.device for value in self.arguments.values() if isinstance(value, Tensor))
        # the interpreter computes with numpy, which warns of infinity minus infinity; a GPU does not
        quiet = np.errstate(all="ignore") if interpreted() else contextlib.nullcontext()
        with quiet, torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            self.kernel[(self.programs,)](**self.arguments, **self.constants, **self.options)


@dataclass(frozen=True)
class _Lines:
    """The lines of one direction: line l starts at (l // lanes) outer strides + (l % lanes) lane strides."""

    lines: int
    lanes: int
    length: int
    outer_stride: int
    lane_stride: int
    stride: int
    positions: int
    block: int

    @property
    def blocks(self) -> int:
        return -(-self.lines // self.block)

    @property
    def count(self) -> int:
        """Blocks of positions per line."""
        return -(-self.length // self.positions)

    @property
    def single(self) -> bool:
        return self.count == 1

    def options(self, tile: int) -> dict[str, int]:
        return _options(self.positions * self.block, tile, self.single)

    def arguments(self, prefix: str = "", *more: str) -> dict[str, int]:
        names = ("lines", "lanes", "length", "outer_stride", "lane_stride", "stride", *more)
        return {prefix + name: getattr(self, name) for name in names}

    def constants(self, prefix: str = "") -> dict[str, int | bool]:
        return {f"{prefix}POSITIONS": self.positions, f"{prefix}LINES": self.block}


def _power(n: int) -> int:
    """Return the smallest power of two that is ``n`` or more."""
    return 1 << max(0, n - 1).bit_length()


def _tile(x: Tensor, lean: bool) -> int:
    """Return the elements of a full tile: fewer for float64, and for kernels that hold more per element (lean)."""
    return TILE // (4 if x.dtype == torch.float64 else 2 if lean else 1)


def _options(elements: int, tile: int, single: bool) -> dict[str, int]:
    """Return the number of warps and the limit of registers per thread.

    Without a limit, ptxas spills a few bytes to fit one more program on a multiprocessor. 128 registers allow two full
    programs per multiprocessor; the loops over long lines can use all registers.
    """
    return {"num_warps": max(1, elements * THREADS // (32 * tile)), "maxnreg": 128 if single else 255}


def _wide_index(x: Tensor) -> bool:
    # masked addresses can lie beyond the last element; with this margin none wraps around into the tensor
    return x.numel() + x.numel() // 2 >= 2**31


def _lines_of(x: Tensor, axis: int, tile: int) -> _Lines:
    n, c, h, w = x.shape
    length = x.shape[axis]
    if memory_format_of(x) == torch.channels_last:
        lanes, stride = (w * c, w * c) if axis == 2 else (c, c)
        outer_stride, lane_stride = length * stride, 1
    elif axis == 2:
        lanes, stride, outer_stride, lane_stride = w, w, h * w, 1
    else:
        lanes, stride, outer_stride, lane_stride = 1, 1, w, 1
    lines = n * c * h * w // length
    positions = min(_power(length), LONGEST)
    block = max(1, min(tile // positions, _power(lines)))
    return _Lines(lines, lanes, length, outer_stride, lane_stride, stride, positions, block)


def _maxima(lines: _Lines, x: Tensor) -> Tensor:
    """Return memory for the maxima between blocks of positions; with one block it is not used, so it is ``x``."""
    if lines.single:
        return x
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return torch.empty(lines.blocks * lines.count * lines.block, dtype=dtype, device=x.device)


def plan_pool_forward(x: Tensor, addend: Tensor | None, y: Tensor, direction: str) -> Launch:
    """Plan one direction's running maximum of ``x`` [N, C, H, W] into ``y``, plus ``addend`` (it can be ``y``)."""
    axis, reversed_ = AXIS_AND_REVERSED[direction]
    tile = _tile(x, lean=False)
    lines = _lines_of(x, axis, tile)
    tensors = {"x": x, "addend": y if addend is None else addend, "y": y}
    arguments: dict[str, Tensor | int] = {**tensors, **lines.arguments()}
    constants = {"WIDE": _wide_index(x), "REVERSED": reversed_, "ADD": addend is not None, **lines.constants()}
    return Launch(_lines_forward, lines.blocks, arguments, constants, lines.options(tile))


def plan_corner_forward(vertical: Tensor, horizontal: Tensor, y: Tensor, corner: str) -> list[Launch]:
    """Plan the sum of both pools into ``y`` [N, C, H, W]: one launch, or two if a tile cannot span a row."""
    down, across = DIRECTIONS_OF[corner]
    n, c, h, w = vertical.shape
    columns = _power(w)
    tile = _tile(vertical, lean=True)
    if columns > WIDEST:
        return [
            plan_pool_forward(horizontal, None, y, across),
            plan_pool_forward(vertical, y, y, down),
        ]
    if memory_format_of(vertical) == torch.channels_last:
        lanes, outer_stride, lane_stride, row_stride, column_stride = c, h * w * c, 1, w * c, c
        beside = min(_power(c), max(1, SEGMENT // vertical.dtype.itemsize), max(1, tile // columns))
        rows = min(_power(h), max(1, tile // (columns * beside)))
    else:
        lanes, outer_stride, lane_stride, row_stride, column_stride = 1, h * w, 1, w, 1
        rows = min(_power(h), max(1, tile // columns))
        beside = min(_power(n * c), max(1, tile // (columns * rows)))
    arguments: dict[str, Tensor | int] = {
        **{"vertical": vertical, "horizontal": horizontal, "y": y, "planes": n * c, "lanes": lanes},
        **{"height": h, "width": w, "outer_stride": outer_stride, "lane_stride": lane_stride},
        **{"row_stride": row_stride, "column_stride": column_stride},
    }
    reversed_ = AXIS_AND_REVERSED[down][1]
    constants: dict[str, int | bool] = {
        **{"WIDE": _wide_index(vertical), "REVERSED": reversed_},
        **{"PLANES": beside, "ROWS": rows, "COLUMNS": columns},
    }
    options = _options(beside * rows * columns, tile, True)
    return [Launch(_corner_forward, -(-n * c // beside), arguments, constants, options)]


def plan_pool_backward(grad: Tensor, x: Tensor, out: Tensor, direction: str) -> Launch:
    """Plan one direction's gradient of ``x`` [N, C, H, W] into ``out``."""
    axis, reversed_ = AXIS_AND_REVERSED[direction]
    tile = _tile(x, lean=True)
    lines = _lines_of(x, axis, tile)
    tensors = {"grad": grad, "x": x, "out": out, "maxima": _maxima(lines, x)}
    arguments: dict[str, Tensor | int] = {**tensors, **lines.arguments("", "count")}
    constants = {"WIDE": _wide_index(x), "REVERSED": reversed_, "SINGLE": lines.single, **lines.constants()}
    return Launch(_lines_backward, lines.blocks, arguments, constants, lines.options(tile))


def plan_corner_backward(
    grad: Tensor, vertical: Tensor, horizontal: Tensor, grad_v: Tensor, grad_h: Tensor, corner: str
) -> Launch:
    """Plan both gradients [N, C, H, W] into ``grad_v`` and ``grad_h``."""
    tile = _tile(grad, lean=True)
    v, h = _lines_of(vertical, 2, tile), _lines_of(horizontal, 3, tile)
    arguments: dict[str, Tensor | int] = {
        **{"grad": grad, "v": vertical, "grad_v": grad_v, "maxima_v": _maxima(v, vertical)},
        **{"h": horizontal, "grad_h": grad_h, "maxima_h": _maxima(h, horizontal)},
        **v.arguments("v_", "count"),
        **h.arguments("h_", "count"),
        **{"v_blocks": v.blocks, "blocks": v.blocks + h.blocks},
    }
    constants = {
        **{"WIDE": _wide_index(grad), "REVERSED": AXIS_AND_REVERSED[DIRECTIONS_OF[corner][0]][1]},
        **{"V_SINGLE": v.single, **v.constants("V_"), "H_SINGLE": h.single, **h.constants("H_")},
    }
    # the larger of the two scans' options, compared by warps first
    options = max(v.options(tile), h.options(tile), key=lambda each: tuple(each.values()))
    return Launch(_corner_backward, v.blocks + h.blocks, arguments, constants, options)


# -------------------------------------------------------------------------------------------------- the four operations
def pool_forward(x: Tensor, direction: str) -> Tensor:
    """Return the running maximum of dense ``x`` [N, C, H, W] in ``direction``; see ``kernels.ops``."""
    y = torch.empty_like(x)
    plan_pool_forward(x, None, y, direction).run()
    return y


def pool_backward(grad: Tensor, x: Tensor, direction: str) -> Tensor:
    """Return the gradient of the pool's input ``x`` [N, C, H, W], given that of its output; see ``kernels.ops``."""
    out = torch.empty_like(x)
    plan_pool_backward(grad, x, out, direction).run()
    return out


def corner_forward(vertical: Tensor, horizontal: Tensor, corner: str) -> Tensor:
    """Return the sum of both pools [N, C, H, W] for ``corner``, top_left or bottom_right; see ``kernels.ops``."""
    y = torch.empty_like(vertical)
    for launch in plan_corner_forward(vertical, horizontal, y, corner):
        launch.run()
    return y


def corner_backward(grad: Tensor, vertical: Tensor, horizontal: Tensor, corner: str) -> tuple[Tensor, Tensor]:
    """Return the gradients of both inputs [N, C, H, W], given that of the sum; see ``kernels.ops``."""
    grads = torch.empty_like(vertical), torch.empty_like(horizontal)
    plan_corner_backward(grad, vertical, horizontal, *grads, corner).run()
    return grads
