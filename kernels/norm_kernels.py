"""The loops of ``kernels.batch_norm``, compiled by numba at the first call, over channels_last maps in memory.

Maps are [images, positions, channels] float32 in vectors of 16 channels. Statistics are sums in float64 over *chunks*
of :data:`CHUNK` positions of one image. Chunks are added in order to rows, one for each image, and rows in order to the
whole batch. So no sum depends on the number of threads, and a row does not depend on the other images of its batch.

Work is cut into units, a chunk of one image each, which threads take in turn by tickets.
"""

# ruff: noqa: ARG001  (numba fixes the arguments of code generators, used or not)

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types

from . import cpu_kernels
from .compiled import c_function
from .cpu_kernels import (
    LANES,
    SUFFIX,
    Lanes,
    add,
    declared,
    emitted,
    float32_at,
    float64_at,
    get_or_zero,
    inlined,
    int64_at,
    loop,
    parameter,
    put,
    take_ticket,
)

__all__ = ["ALL", "APPLY", "CHUNK", "COMBINE", "ROWS", "SUMS", "backward", "forward"]

CHUNK = 1024
"""Positions of one image whose sums are computed together, at most."""

TILE = 32
"""Positions that are read for one vector of channels after the other, few enough to stay in the first cache."""

SUMS, ROWS, COMBINE, APPLY = 1, 2, 4, 8
ALL = SUMS | ROWS | COMBINE | APPLY
"""The phases of an entry: sums of chunks, rows of images, coefficients of channels, the result. Threads can share the
first and the last."""


# -------------------------------------------------------------------------------------------------------- arithmetic
@emitted
def _wide(typing_context: Any, value: Any) -> Any:
    """Return 16 float32 lanes in float64."""
    result = Lanes(types.float64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fpext(args[0], ir.VectorType(ir.DoubleType(), LANES))

    return result(value), generate


@emitted
def _sub(typing_context: Any, a: Any, b: Any) -> Any:
    """Return the difference of each lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fsub(*args)

    return a(a, b), generate


@emitted
def _mul(typing_context: Any, a: Any, b: Any) -> Any:
    """Return the product of each lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(*args)

    return a(a, b), generate


@emitted
def _mul_add(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a * b + c of each lane, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(args[0].type, [args[0].type] * 3)
        return builder.call(declared(builder, kind, f"llvm.fma.{SUFFIX[a.element]}"), args)

    return a(a, b, c), generate


@emitted
def _relu(typing_context: Any, value: Any) -> Any:
    """Return each lane, or zero where it is negative; a NaN stays."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        nothing = ir.Constant(args[0].type, None)
        return builder.select(builder.fcmp_ordered("<", args[0], nothing), nothing, args[0])

    return value(value), generate


@emitted
def _passed(typing_context: Any, grad: Any, result: Any) -> Any:
    """Return the lanes of ``grad`` that ReLU passed, and zero where its ``result`` is zero, but not where it is NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        nothing = ir.Constant(args[0].type, None)
        return builder.select(builder.fcmp_ordered("<=", args[1], nothing), nothing, args[0])

    return grad(grad, result), generate


@emitted
def _number(typing_context: Any, parameters: Any, index: Any) -> Any:
    """Return ``parameters[index]``, 64 bits, as float64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = builder.bitcast(builder.gep(args[0], [args[1]]), ir.DoubleType().as_pointer())
        return builder.load(address, align=8)

    return types.float64(parameters, types.intp), generate


@inlined
def _start(tickets: Any) -> None:
    tickets[0] = tickets[1] = 0


# ----------------------------------------------------------------------------------------------------------- forward
@inlined
def _sums_of(x: Any, index: int, first: int, channels: int, positions: int, sums: Any, at: int, count: int) -> None:
    """Add the sum and the sum of squares of 16 channels at ``positions`` positions from ``index`` to ``sums[at:]``.

    Both are of differences from the image's ``first`` position, so that a large mean does not cancel.
    """
    origin = _wide(get_or_zero(x, first, count))
    total, squares = get_or_zero(sums, at, count), get_or_zero(sums, at + channels, count)
    for _ in range(positions):
        difference = _sub(_wide(get_or_zero(x, index, count)), origin)
        total, squares = add(total, difference), _mul_add(difference, difference, squares)
        index += channels
    put(sums, at, total, count)
    put(sums, at + channels, squares, count)


@loop
def _forward_sums(
    x: Any, sums: Any, tickets: Any, pieces: int, images: int, positions: int, channels: int, chunk: int, chunks: int
) -> None:
    full, rest = channels // LANES * LANES, channels % LANES
    units, piece = images * chunks, take_ticket(tickets)
    while piece < pieces:
        for unit in range(units * piece // pieces, units * (piece + 1) // pieces):
            image, start = unit // chunks, unit % chunks * chunk
            first, at = image * positions * channels, unit * 2 * channels
            stop = min(start + chunk, positions)
            for c in range(2 * channels):
                sums[at + c] = 0.0
            for tile in range(start, stop, TILE):
                index, length = first + tile * channels, min(TILE, stop - tile)
                for k in range(0, full, LANES):
                    _sums_of(x, index + k, first + k, channels, length, sums, at + k, LANES)
                if rest:
                    _sums_of(x, index + full, first + full, channels, length, sums, at + full, rest)
        piece = take_ticket(tickets)


@loop
def _forward_rows(x: Any, sums: Any, rows: Any, images: int, positions: int, channels: int, chunks: int) -> None:
    """Add the sums of chunks to rows [images, 3, channels]: count, mean and sum of squared deviations."""
    for image in range(images):
        for c in range(channels):
            total = squares = 0.0
            for unit in range(image * chunks, (image + 1) * chunks):
                total += sums[unit * 2 * channels + c]
                squares += sums[(unit * 2 + 1) * channels + c]
            at = image * 3 * channels + c
            rows[at] = positions
            rows[at + channels] = x[image * positions * channels + c] + total / positions
            deviations = squares - total * total / positions
            rows[at + 2 * channels] = 0.0 if deviations < 0 else deviations  # by rounding; a NaN stays


@loop
def _forward_combine(
    rows: Any, images: int, channels: int, weight: Any, bias: Any, running: Any, kept: Any, scales: Any,
    eps: float, momentum: float,
) -> None:  # fmt: skip
    """Combine rows to ``kept`` [2, channels], mean and 1 / deviation, and ``scales`` [3, channels] of the result.

    The result is (x - s0) * s1 + s2, which loses less than x * scale + offset if the mean is large.
    """
    running_mean, running_variance = running
    for c in range(channels):
        count = total = 0.0
        for image in range(images):
            at = image * 3 * channels + c
            count += rows[at]
            total += rows[at] * rows[at + channels]
        mean, deviations = total / count, 0.0
        for image in range(images):
            at = image * 3 * channels + c
            distance = rows[at + channels] - mean
            deviations += rows[at + 2 * channels] + rows[at] * distance * distance
        inverse = 1.0 / math.sqrt(deviations / count + eps)
        kept[c], kept[channels + c] = mean, inverse
        scales[c], scales[channels + c], scales[2 * channels + c] = mean, weight[c] * inverse, bias[c]
        running_mean[c] = momentum * mean + (1 - momentum) * running_mean[c]
        running_variance[c] = momentum * (deviations / (count - 1)) + (1 - momentum) * running_variance[c]


@inlined
def _parts_of(scales: Any, k: int, channels: int, count: int) -> Any:
    at = channels + k
    return get_or_zero(scales, k, count), get_or_zero(scales, at, count), get_or_zero(scales, channels + at, count)


@inlined
def _normalised(value: Any, parts: Any) -> Any:
    mean, scale, bias = parts
    return _mul_add(_sub(value, mean), scale, bias)


@inlined
def _apply_at(
    x: Any, added: Any, y: Any, index: int, channels: int, positions: int, scales: Any, k: int, sums: bool, relu: bool,
    count: int,
) -> None:  # fmt: skip
    parts = _parts_of(scales, k, channels, count)
    for _ in range(positions):
        value = _normalised(get_or_zero(x, index, count), parts)
        if sums:
            value = add(value, get_or_zero(added, index, count))
        put(y, index, _relu(value) if relu else value, count)
        index += channels


@loop
def _forward_apply(
    x: Any, added: Any, y: Any, scales: Any, tickets: Any, pieces: int, images: int, positions: int, channels: int,
    chunk: int, chunks: int, sums: bool, relu: bool,
) -> None:  # fmt: skip
    """Write the normalised ``x``, with ``sums`` plus ``added``, with ``relu`` through a ReLU, to ``y``."""
    full, rest = channels // LANES * LANES, channels % LANES
    units, piece = images * chunks, take_ticket(tickets)
    while piece < pieces:
        for unit in range(units * piece // pieces, units * (piece + 1) // pieces):
            image, start = unit // chunks, unit % chunks * chunk
            stop = min(start + chunk, positions)
            for tile in range(start, stop, TILE):
                index, length = (image * positions + tile) * channels, min(TILE, stop - tile)
                for k in range(0, full, LANES):
                    _apply_at(x, added, y, index + k, channels, length, scales, k, sums, relu, LANES)
                if rest:
                    _apply_at(x, added, y, index + full, channels, length, scales, full, sums, relu, rest)
        piece = take_ticket(tickets)


# 0 phases, 1 x, 2 added or 0, 3 y, 4 images, 5 positions, 6 channels, 7 sums [images, chunks, 2, channels] float64,
# 8 rows [images, 3, channels] float64, 9 rows of the whole batch, 10 their number, 11 weight, 12 bias, 13 running mean,
# 14 running variance, 15 batches tracked, 16 kept [2, channels] float64, 17 scales [3, channels], 18 eps, 19 momentum
# (both float64), 20 tickets, 21 pieces, 22 relu
@c_function(calls=(cpu_kernels,))
def forward(p: Any) -> None:
    """Normalise a batch, channels_last: the phases of ``p[0]``, with the parameters above."""
    phases, images, positions, channels = parameter(p, 0), parameter(p, 4), parameter(p, 5), parameter(p, 6)
    x, sums, rows = float32_at(parameter(p, 1)), float64_at(parameter(p, 7)), float64_at(parameter(p, 8))
    kept, scales = float64_at(parameter(p, 16)), float32_at(parameter(p, 17))
    tickets, pieces = parameter(p, 20), parameter(p, 21)
    if pieces == 1:  # one thread; otherwise the caller does it, before threads share a phase
        _start(int64_at(tickets))
    chunks = (positions + CHUNK - 1) // CHUNK
    chunk = (positions + chunks - 1) // chunks
    if phases & SUMS:
        _forward_sums(x, sums, int64_at(tickets), pieces, images, positions, channels, chunk, chunks)
    if phases & ROWS:
        _forward_rows(x, sums, rows, images, positions, channels, chunks)
    if phases & COMBINE:
        batches = int64_at(parameter(p, 15))
        batches[0] += 1
        weight, bias = float32_at(parameter(p, 11)), float32_at(parameter(p, 12))
        running = float32_at(parameter(p, 13)), float32_at(parameter(p, 14))
        whole, number = float64_at(parameter(p, 9)), parameter(p, 10)
        _forward_combine(whole, number, channels, weight, bias, running, kept, scales, _number(p, 18), _number(p, 19))
    if phases & APPLY:
        added, y = float32_at(parameter(p, 2)), float32_at(parameter(p, 3))
        sizes = images, positions, channels, chunk, chunks
        second = int64_at(tickets + 8)
        if parameter(p, 2) != 0:
            if parameter(p, 22) != 0:
                _forward_apply(x, added, y, scales, second, pieces, *sizes, True, True)
            else:
                _forward_apply(x, added, y, scales, second, pieces, *sizes, True, False)
        elif parameter(p, 22) != 0:
            _forward_apply(x, added, y, scales, second, pieces, *sizes, False, True)
        else:
            _forward_apply(x, added, y, scales, second, pieces, *sizes, False, False)


# ---------------------------------------------------------------------------------------------------------- backward
PLAIN, FROM_RESULT, FROM_INPUT = 0, 1, 2
"""How the gradient passes: all of it, where the result is positive, or where the normalised input is, which is the
same and reads less."""


@inlined
def _masked(grad: Any, x: Any, y: Any, index: int, parts: Any, mask: int, count: int) -> Any:
    """Return 16 gradients at batch norm's result, from those after the ReLU."""
    value = get_or_zero(grad, index, count)
    if mask == FROM_RESULT:
        value = _passed(value, get_or_zero(y, index, count))
    if mask == FROM_INPUT:
        value = _passed(value, _normalised(get_or_zero(x, index, count), parts))
    return value


@inlined
def _backward_sums_of(
    grad: Any, x: Any, y: Any, passed: Any, index: int, channels: int, positions: int, kept: Any, scales: Any, k: int,
    sums: Any, at: int, mask: int, count: int,
) -> None:  # fmt: skip
    parts = _parts_of(scales, k, channels, count)
    mean, inverse = get_or_zero(kept, k, count), get_or_zero(kept, channels + k, count)
    total, products = get_or_zero(sums, at, count), get_or_zero(sums, at + channels, count)
    for _ in range(positions):
        value = _masked(grad, x, y, index, parts, mask, count)
        if mask == FROM_RESULT:
            put(passed, index, value, count)
        wide = _wide(value)
        total = add(total, wide)
        products = _mul_add(wide, _mul(_sub(_wide(get_or_zero(x, index, count)), mean), inverse), products)
        index += channels
    put(sums, at, total, count)
    put(sums, at + channels, products, count)


@loop
def _backward_sums(
    grad: Any, x: Any, y: Any, passed: Any, kept: Any, scales: Any, sums: Any, tickets: Any, pieces: int,
    images: int, positions: int, channels: int, chunk: int, chunks: int, mask: int,
) -> None:  # fmt: skip
    full, rest = channels // LANES * LANES, channels % LANES
    units, piece = images * chunks, take_ticket(tickets)
    while piece < pieces:
        for unit in range(units * piece // pieces, units * (piece + 1) // pieces):
            image, start, at = unit // chunks, unit % chunks * chunk, unit * 2 * channels
            stop = min(start + chunk, positions)
            for c in range(2 * channels):
                sums[at + c] = 0.0
            for tile in range(start, stop, TILE):
                index, length = (image * positions + tile) * channels, min(TILE, stop - tile)
                for k in range(0, full, LANES):
                    _backward_sums_of(
                        grad, x, y, passed, index + k, channels, length, kept, scales, k, sums, at + k, mask, LANES
                    )
                if rest:
                    k = full
                    _backward_sums_of(
                        grad, x, y, passed, index + k, channels, length, kept, scales, k, sums, at + k, mask, rest
                    )
        piece = take_ticket(tickets)


@loop
def _backward_rows(sums: Any, rows: Any, images: int, channels: int, chunks: int) -> None:
    """Add the sums of chunks to rows [images, 2, channels]."""
    for image in range(images):
        for c in range(2 * channels):
            total = 0.0
            for unit in range(image * chunks, (image + 1) * chunks):
                total += sums[unit * 2 * channels + c]
            rows[image * 2 * channels + c] = total


@loop
def _backward_combine(
    own: Any, images: int, rows: Any, number: int, count: float, channels: int, weight: Any, kept: Any,
    gradients: Any, factors: Any,
) -> None:  # fmt: skip
    """Write the ``gradients`` [2, channels] of weight and bias, and the ``factors`` [4, channels] of the input's.

    The input's gradient is f0 * g + f1 * (x - f2) + f3, with g the gradient of the result.
    """
    for c in range(channels):
        total = products = 0.0
        for image in range(images):
            total += own[image * 2 * channels + c]
            products += own[(image * 2 + 1) * channels + c]
        gradients[c], gradients[channels + c] = products, total
        total = products = 0.0
        for image in range(number):
            total += rows[image * 2 * channels + c]
            products += rows[(image * 2 + 1) * channels + c]
        inverse = kept[channels + c]
        scale = weight[c] * inverse
        factors[c] = scale
        factors[channels + c] = -scale * inverse * products / count
        factors[2 * channels + c] = kept[c]
        factors[3 * channels + c] = -scale * total / count


@inlined
def _backward_at(
    grad: Any, x: Any, grad_x: Any, index: int, channels: int, positions: int, scales: Any, factors: Any, k: int,
    mask: int, count: int,
) -> None:  # fmt: skip
    parts = _parts_of(scales, k, channels, count)
    f0, f1 = get_or_zero(factors, k, count), get_or_zero(factors, channels + k, count)
    f2, f3 = get_or_zero(factors, 2 * channels + k, count), get_or_zero(factors, 3 * channels + k, count)
    for _ in range(positions):
        value = _masked(grad, x, x, index, parts, mask, count)
        rest = _mul_add(_sub(get_or_zero(x, index, count), f2), f1, f3)
        put(grad_x, index, _mul_add(value, f0, rest), count)
        index += channels


@loop
def _backward_apply(
    grad: Any, x: Any, grad_x: Any, scales: Any, factors: Any, tickets: Any, pieces: int, images: int, positions: int,
    channels: int, chunk: int, chunks: int, mask: int,
) -> None:  # fmt: skip
    full, rest = channels // LANES * LANES, channels % LANES
    units, piece = images * chunks, take_ticket(tickets)
    while piece < pieces:
        for unit in range(units * piece // pieces, units * (piece + 1) // pieces):
            image, start = unit // chunks, unit % chunks * chunk
            stop = min(start + chunk, positions)
            for tile in range(start, stop, TILE):
                index, length = (image * positions + tile) * channels, min(TILE, stop - tile)
                for k in range(0, full, LANES):
                    _backward_at(grad, x, grad_x, index + k, channels, length, scales, factors, k, mask, LANES)
                if rest:
                    _backward_at(grad, x, grad_x, index + full, channels, length, scales, factors, full, mask, rest)
        piece = take_ticket(tickets)


# 0 phases, 1 grad, 2 x, 3 y, 4 passed (the gradient after the mask, with FROM_RESULT), 5 grad_x, 6 images, 7 positions,
# 8 channels, 9 sums [images, chunks, 2, channels] float64, 10 rows [images, 2, channels] float64, 11 rows of the whole
# batch, 12 their number, 13 positions of the whole batch (float64), 14 weight, 15 kept, 16 scales, 17 gradients
# [2, channels], 18 factors [4, channels], 19 tickets, 20 pieces, 21 mask
@c_function(calls=(cpu_kernels,))
def backward(p: Any) -> None:
    """Compute the gradients of a normalised batch: the phases of ``p[0]``, with the parameters above."""
    phases, images, positions, channels = parameter(p, 0), parameter(p, 6), parameter(p, 7), parameter(p, 8)
    grad, x, y = float32_at(parameter(p, 1)), float32_at(parameter(p, 2)), float32_at(parameter(p, 3))
    passed, grad_x = float32_at(parameter(p, 4)), float32_at(parameter(p, 5))
    sums, rows, kept = float64_at(parameter(p, 9)), float64_at(parameter(p, 10)), float64_at(parameter(p, 15))
    scales, factors = float32_at(parameter(p, 16)), float32_at(parameter(p, 18))
    tickets, pieces, mask = parameter(p, 19), parameter(p, 20), parameter(p, 21)
    if pieces == 1:
        _start(int64_at(tickets))
    chunks = (positions + CHUNK - 1) // CHUNK
    chunk = (positions + chunks - 1) // chunks
    sizes = images, positions, channels, chunk, chunks
    if phases & SUMS:
        first = int64_at(tickets)
        if mask == FROM_RESULT:
            _backward_sums(grad, x, y, passed, kept, scales, sums, first, pieces, *sizes, FROM_RESULT)
        elif mask == FROM_INPUT:
            _backward_sums(grad, x, y, passed, kept, scales, sums, first, pieces, *sizes, FROM_INPUT)
        else:
            _backward_sums(grad, x, y, passed, kept, scales, sums, first, pieces, *sizes, PLAIN)
    if phases & ROWS:
        _backward_rows(sums, rows, images, channels, chunks)
    if phases & COMBINE:
        whole, number, count = float64_at(parameter(p, 11)), parameter(p, 12), _number(p, 13)
        weight, gradients = float32_at(parameter(p, 14)), float32_at(parameter(p, 17))
        _backward_combine(rows, images, whole, number, count, channels, weight, kept, gradients, factors)
    if phases & APPLY:
        second = int64_at(tickets + 8)
        if mask == FROM_RESULT:
            _backward_apply(passed, x, grad_x, scales, factors, second, pieces, *sizes, PLAIN)
        elif mask == FROM_INPUT:
            _backward_apply(grad, x, grad_x, scales, factors, second, pieces, *sizes, FROM_INPUT)
        else:
            _backward_apply(grad, x, grad_x, scales, factors, second, pieces, *sizes, PLAIN)
