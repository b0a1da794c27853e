"""The loops of ``kernels.cpu``: one pass over memory, in vectors of 16 lanes, compiled by numba at the first call.

numba vectorises loops, but not a running maximum along a row, so the vectors are explicit: a small numba type for 16
lanes, and intrinsics that emit LLVM's vector instructions, which LLVM lowers to those of the processor (AVX-512, AVX2,
NEON). 16-bit values are widened to float32 on load and rounded once on store, so a selected value does not change. The
loops hold no Python objects and need no GIL: ``kernels.cpu`` passes their C functions to OpenMP.

Two kinds of scan:

* across lanes: a whole row, or all channels of channels_last, advances together, one position per step;
* along the row: log-steps inside the vector (4 shuffles and maxima), then the maximum carried from the vector before.

A *record* is a position whose value replaces the running maximum: the first position, a strictly greater value, or the
first NaN. The gradient of a record is the sum of the gradients from it to just before the next record, so backward runs
the scan in the other direction and adds up. Records are kept as bits, 16 lanes per word: [N, C, H, ceil(W / 16)] words
for contiguous tensors, [N, H, W, ceil(C / 16)] for channels_last ones.

Compiled functions here call only functions of this file. A compiled function of another file that inlines the small
ones in ``__all__`` must name this module among its ``calls``, so that it is compiled again when this file changes.
"""

# ruff: noqa: ARG001  (numba fixes the arguments of code generators, used or not)

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from .compiled import CFunction, c_function

__all__ = [
    "LANES",
    "PARAMETERS",
    "SUFFIX",
    "Lanes",
    "add",
    "declared",
    "emitted",
    "entry",
    "float32_at",
    "float64_at",
    "get_or_zero",
    "inlined",
    "int32_at",
    "int64_at",
    "loop",
    "parameter",
    "put",
    "take_ticket",
]

LANES = 16

_F = TypeVar("_F", bound=Callable[..., Any])


def emitted(typing: Callable[..., Any]) -> Any:
    """Return a function that numba expands to the instructions of ``typing``'s code generator."""
    return intrinsic(typing)


def inlined(function: _F) -> _F:
    """Return a function that numba compiles into each caller."""
    return cast("_F", njit(forceinline=True, error_model="numpy")(function))


def loop(function: _F) -> _F:
    """Return a function that numba compiles when another one calls it."""
    return cast("_F", njit(error_model="numpy")(function))


# ------------------------------------------------------------------------------------------------ the type: 16 lanes
class Lanes(types.Type):
    """A vector of 16 float32 or float64 values in registers."""

    def __init__(self, element: Any) -> None:
        self.element = element
        super().__init__(name=f"lanes({element})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, _vector(_FLOATS[lanes.element]))  # type: ignore[no-untyped-call]


_FLOATS = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}
_I16, _I32, _BITS = ir.IntType(16), ir.IntType(32), ir.VectorType(ir.IntType(1), LANES)

# The dtypes of arrays: float64 and float32 stand for themselves, int16 for float16, uint16 for bfloat16.
_WIDE = {
    types.float64: types.float64,
    types.float32: types.float32,
    types.int16: types.float32,
    types.uint16: types.float32,
}
_LOWEST = {types.float64: -math.inf, types.float32: -math.inf, types.int16: 0xFC00, types.uint16: 0xFF80}
_ZERO = {types.float64: 0.0, types.float32: 0.0, types.int16: 0, types.uint16: 0}
SUFFIX = {types.float64: "v16f64", types.float32: "v16f32", types.int16: "v16i16", types.uint16: "v16i16"}


def _vector(element: Any) -> Any:
    return ir.VectorType(element, LANES)


def _splat(element: Any, value: float) -> Any:
    return ir.Constant(_vector(element), [value] * LANES)


# ------------------------------------------------------------------------------------------------------------ memory
def _at(dtype: Any) -> Any:
    @emitted
    def pointer(typing_context: Any, address: Any) -> Any:
        """Return a pointer to elements of ``dtype``; loops over arrays would count references at every step."""
        kind: Any = types.CPointer(dtype)  # type: ignore[no-untyped-call]

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(kind))

        return kind(types.int64), generate

    return pointer


float64_at, float32_at, float16_at, bfloat16_at = map(_at, (types.float64, types.float32, types.int16, types.uint16))
int32_at, int64_at, words_at = _at(types.int32), _at(types.int64), bfloat16_at


@emitted
def parameter(typing_context: Any, parameters: Any, index: Any) -> Any:
    """Return ``parameters[index]``, 64 bits."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.gep(args[0], [args[1]]), align=8)

    return types.int64(parameters, types.intp), generate


def declared(builder: Any, kind: Any, name: str) -> Any:
    """Return LLVM's function ``name`` of the type ``kind``."""
    return cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]


def _vector_at(builder: Any, stored: Any, address: Any, index: Any) -> Any:
    return builder.bitcast(builder.gep(address, [index]), stored.as_pointer())


def _widen(builder: Any, dtype: Any, stored: Any) -> Any:
    if dtype == types.int16:
        return builder.fpext(builder.bitcast(stored, _vector(ir.HalfType())), _vector(ir.FloatType()))
    if dtype == types.uint16:
        bits = builder.shl(builder.zext(stored, _vector(_I32)), _splat(_I32, 16))
        return builder.bitcast(bits, _vector(ir.FloatType()))
    return stored


def _narrow(builder: Any, dtype: Any, value: Any) -> Any:
    if dtype == types.int16:
        return builder.bitcast(builder.fptrunc(value, _vector(ir.HalfType())), _vector(_I16))
    if dtype == types.uint16:  # to nearest, ties to even; rounding can turn a NaN into infinity, so NaN gets fixed bits
        bits = builder.bitcast(value, _vector(_I32))
        odd = builder.and_(builder.lshr(bits, _splat(_I32, 16)), _splat(_I32, 1))
        rounded = builder.add(bits, builder.add(odd, _splat(_I32, 0x7FFF)))
        rounded = builder.select(builder.fcmp_unordered("uno", value, value), _splat(_I32, 0x7FC00000), rounded)
        return builder.trunc(builder.lshr(rounded, _splat(_I32, 16)), _vector(_I16))
    return value


def _first(builder: Any, count: Any) -> Any:
    """Return the mask of the first ``count`` lanes."""
    limit = builder.insert_element(ir.Constant(_vector(_I32), ir.Undefined), builder.trunc(count, _I32), _I32(0))
    limit = builder.shuffle_vector(limit, limit, _splat(_I32, 0))
    return builder.icmp_signed("<", ir.Constant(_vector(_I32), list(range(LANES))), limit)


@emitted
def load(typing_context: Any, array: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        stored = _vector(context.get_data_type(array.dtype))
        value = builder.load(_vector_at(builder, stored, *args), align=array.dtype.bitwidth // 8)
        return _widen(builder, array.dtype, value)

    return Lanes(_WIDE[array.dtype])(array, types.intp), generate


def _load_first(fill: dict[Any, Any]) -> Any:
    @emitted
    def load_first(typing_context: Any, array: Any, index: Any, count: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            stored = _vector(context.get_data_type(array.dtype))
            address = _vector_at(builder, stored, *args[:2])
            kind = ir.FunctionType(stored, [address.type, _I32, _BITS, stored])
            name = f"llvm.masked.load.{SUFFIX[array.dtype]}.p0"
            function = declared(builder, kind, name)
            rest = _splat(stored.element, fill[array.dtype])
            read = [address, _I32(array.dtype.bitwidth // 8), _first(builder, args[2]), rest]
            return _widen(builder, array.dtype, builder.call(function, read))

        return Lanes(_WIDE[array.dtype])(array, types.intp, types.intp), generate

    return load_first


_load_first_or_lowest, _load_first_or_zero = _load_first(_LOWEST), _load_first(_ZERO)


@emitted
def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        narrow = _narrow(builder, array.dtype, args[2])
        builder.store(narrow, _vector_at(builder, narrow.type, *args[:2]), align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@emitted
def _store_first(typing_context: Any, array: Any, index: Any, value: Any, count: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        narrow = _narrow(builder, array.dtype, args[2])
        address = _vector_at(builder, narrow.type, *args[:2])
        kind = ir.FunctionType(ir.VoidType(), [narrow.type, address.type, _I32, _BITS])
        name = f"llvm.masked.store.{SUFFIX[array.dtype]}.p0"
        function = declared(builder, kind, name)
        builder.call(function, [narrow, address, _I32(array.dtype.bitwidth // 8), _first(builder, args[3])])
        return context.get_dummy_value()

    return types.void(array, types.intp, value, types.intp), generate


@inlined
def get_or_lowest(array: Any, index: int, count: int) -> Any:
    """Return ``array[index : index + count]``, widened; other lanes are -inf. Reads nothing beyond."""
    return load(array, index) if count == LANES else _load_first_or_lowest(array, index, count)


@inlined
def get_or_zero(array: Any, index: int, count: int) -> Any:
    """Return ``array[index : index + count]``, widened; other lanes are zero. Reads nothing beyond."""
    return load(array, index) if count == LANES else _load_first_or_zero(array, index, count)


@inlined
def put(array: Any, index: int, value: Any, count: int) -> None:
    """Write the first ``count`` lanes to ``array[index:]``, rounded to its dtype. Writes nothing beyond."""
    if count == LANES:
        store(array, index, value)
    else:
        _store_first(array, index, value, count)


@emitted
def get_word(typing_context: Any, words: Any, index: Any) -> Any:
    """Return the 16 bits at ``words[index]``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.gep(args[0], [args[1]]), align=2)

    return types.uint16(words, types.intp), generate


@emitted
def put_word(typing_context: Any, words: Any, index: Any, bits: Any) -> Any:
    """Write 16 bits to ``words[index]``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = context.cast(builder, args[2], bits, types.uint16)
        builder.store(word, builder.gep(args[0], [args[1]]), align=2)
        return context.get_dummy_value()

    return types.void(words, types.intp, bits), generate


# How far ahead of the scan memory is prefetched. Stores would wait otherwise: the processor predicts reads, but fetches
# a cache line that is written only when the store reaches it. At [1, 128, 128, 128] float32, two threads on two cores
# (Sapphire Rapids), in units of an addition: contiguous 1.43 without prefetch, 1.37 for reads only, 1.10 to 1.26 for
# both; channels_last 1.66, 1.75, 1.26 to 1.57. Distances from 1 to 4 KiB differ by less than the runs do.
_BYTES_AHEAD = 2048
_CACHE_LINE = 64


def _prefetch(write: int) -> Any:
    @emitted
    def prefetch(typing_context: Any, array: Any, index: Any, reverse: Any) -> Any:
        """Prefetch what the scan reaches some way after ``array[index : index + 16]``. This never faults."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            byte = builder.bitcast(builder.gep(args[0], [args[1]]), ir.IntType(8).as_pointer())
            kind = ir.FunctionType(ir.VoidType(), [byte.type, _I32, _I32, _I32])
            function = declared(builder, kind, "llvm.prefetch.p0")
            for line in range(0, max(_CACHE_LINE, LANES * array.dtype.bitwidth // 8), _CACHE_LINE):
                towards = [ir.Constant(ir.IntType(64), line + sign * _BYTES_AHEAD) for sign in (-1, 1)]
                address = builder.gep(byte, [builder.select(args[2], *towards)])
                builder.call(function, [address, _I32(write), _I32(3), _I32(1)])  # 3: keep in all caches; 1: data
            return context.get_dummy_value()

        return types.void(array, types.intp, types.boolean), generate

    return prefetch


will_read, will_write = _prefetch(0), _prefetch(1)


# ----------------------------------------------------------------------------------------------------------- threads
@emitted
def take_ticket(typing_context: Any, tickets: Any) -> Any:
    """Return the next integer from the counter at ``tickets``, a different one to each caller in any thread."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", args[0], ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(tickets), generate


# -------------------------------------------------------------------------------------------------------- arithmetic
# Comparisons and shuffles share one port of an x86 core. So along the row, 16 values without NaN are scanned with one
# instruction per maximum: 4.0 ns instead of 5.0 for 16 positions of the fused sum in cache, 4.1 instead of 6.6 with
# records (AVX-512). Across lanes, without shuffles, the branch would cost as much as it saves.
def _maximum(builder: Any, earlier: Any, later: Any) -> Any:
    """Return the maximum of each lane; a NaN on either side stays."""
    greater = builder.select(builder.fcmp_ordered(">", earlier, later), earlier, later)  # a NaN in `later` passes
    return builder.select(builder.fcmp_unordered("uno", earlier, earlier), earlier, greater)


def _maximum_of_numbers(builder: Any, earlier: Any, later: Any) -> Any:
    """Return the same if ``later`` has no NaN; a NaN in ``earlier`` stays."""
    return builder.select(builder.fcmp_ordered(">", later, earlier), later, earlier)


def _replaces(builder: Any, earlier: Any, later: Any) -> Any:
    """Return the mask of lanes where ``later`` replaces the maximum, being greater or the first NaN."""
    greater_or_nan = builder.fcmp_unordered(">", later, earlier)
    return builder.and_(greater_or_nan, builder.fcmp_ordered("ord", earlier, earlier))


def _shuffle(builder: Any, first: Any, second: Any, picks: list[int]) -> Any:
    return builder.shuffle_vector(first, second, ir.Constant(_vector(_I32), picks))


def _moved(builder: Any, value: Any, fill: Any, by: int, reverse: bool) -> Any:
    """Return ``value`` moved by ``by`` lanes along the scan; the lanes that become free are those of ``fill``."""
    if reverse:
        picks = [lane + by if lane + by < LANES else LANES + lane for lane in range(LANES)]
        return _shuffle(builder, value, fill, picks)
    return _shuffle(builder, value, fill, [lane + LANES if lane < by else lane - by for lane in range(LANES)])


@emitted
def any_nan(typing_context: Any, value: Any) -> Any:
    """Tell whether any lane is NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        nans = builder.bitcast(builder.fcmp_unordered("uno", args[0], args[0]), _I16)
        return builder.icmp_unsigned("!=", nans, ir.Constant(_I16, 0))

    return types.boolean(value), generate


@emitted
def maximum(typing_context: Any, earlier: Any, later: Any) -> Any:
    """Return the maximum of each lane; a NaN on either side stays."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _maximum(builder, *args)

    return earlier(earlier, later), generate


@emitted
def records_of_any(typing_context: Any, earlier: Any, later: Any) -> Any:
    """Return a word with a bit set for each lane where ``later`` replaces the running maximum ``earlier``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(_replaces(builder, *args), _I16)

    return types.uint16(earlier, later), generate


@emitted
def records_of_numbers(typing_context: Any, earlier: Any, later: Any) -> Any:
    """Return the same if ``later`` has no NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.fcmp_ordered(">", args[1], args[0]), _I16)

    return types.uint16(earlier, later), generate


@emitted
def add(typing_context: Any, a: Any, b: Any) -> Any:
    """Return the sum of each lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(*args)

    return a(a, b), generate


@emitted
def where_bit(typing_context: Any, word: Any, a: Any, b: Any) -> Any:
    """Return ``a`` for lanes whose bit in ``word`` is set, ``b`` for the others."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.bitcast(args[0], _BITS), *args[1:])

    return a(types.uint16, a, b), generate


def _constant(value: float) -> Any:
    @emitted
    def constant(typing_context: Any, array: Any) -> Any:
        """Return the constant in all 16 lanes, in the type in which ``array``'s dtype is computed."""
        wide = _WIDE[array.dtype]

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _splat(_FLOATS[wide], value)

        return Lanes(wide)(array), generate

    return constant


lowest, zero = _constant(-math.inf), _constant(0.0)


def _along_row(reverse: bool) -> tuple[Callable[..., Any], ...]:
    """Return the intrinsics of a scan along the row; with ``reverse`` it runs towards lower lanes."""
    last = 0 if reverse else LANES - 1

    def scanned(maximum: Any) -> Any:
        @emitted
        def scan(typing_context: Any, value: Any, carried: Any) -> Any:
            """Return the running maximum of ``carried`` and then the lanes of ``value``."""

            def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                result, carried = args
                for by in (1, 2, 4, 8):  # a lane without one that far back compares with itself
                    result = maximum(builder, _moved(builder, result, result, by, reverse), result)
                # if `carried` is NaN, it stays, because it is the earlier one
                return maximum(builder, carried, result)

            return value(value, value), generate

        return scan

    @emitted
    def spread_last(typing_context: Any, value: Any) -> Any:
        """Return the last lane of the scan in all lanes."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _shuffle(builder, args[0], args[0], [last] * LANES)

        return value(value), generate

    @emitted
    def before(typing_context: Any, value: Any, carried: Any) -> Any:
        """Return each lane's predecessor in the scan; that of the first is ``carried``."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _moved(builder, args[0], args[1], 1, reverse)

        return value(value, value), generate

    @emitted
    def segment_sums(typing_context: Any, grad: Any, carried: Any, records: Any) -> Any:
        """Return running sums of ``grad``, which restart after every lane whose bit is set in ``records``."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            total, carried, word = args
            zero = ir.Constant(total.type, None)
            moved_word = builder.lshr if reverse else builder.shl
            word = moved_word(word, ir.Constant(word.type, 1))
            for by in (1, 2, 4, 8):
                moved = _moved(builder, total, zero, by, reverse)
                total = builder.fadd(total, builder.select(builder.bitcast(word, _BITS), zero, moved))
                word = builder.or_(word, moved_word(word, ir.Constant(word.type, by)))
            return builder.fadd(total, builder.select(builder.bitcast(word, _BITS), zero, carried))

        return grad(grad, grad, types.uint16), generate

    return scanned(_maximum), scanned(_maximum_of_numbers), spread_last, before, segment_sums


_scan_any_left, _scan_numbers_left, _last_left, _before_left, _sums_left = _along_row(reverse=True)
_scan_any_right, _scan_numbers_right, _last_right, _before_right, _sums_right = _along_row(reverse=False)


# ------------------------------------------------------------------------------------------------- steps of the scans
# `count` lanes are real; `first`: this is the start of the scan; `keep`: write the records.
@inlined
def step_across(
    x: Any, index: int, best: Any, at: int, words: Any, word: int, first: bool, keep: bool, count: int
) -> Any:
    """Advance the running maxima of 16 neighbouring lines, held in ``best[at:]``, by one position each."""
    value, earlier = get_or_lowest(x, index, count), load(best, at)
    if keep:
        put_word(words, word, 65535 if first else records_of_any(earlier, value))
    later = maximum(earlier, value)
    store(best, at, later)
    return later


@inlined
def step_left(x: Any, index: int, carried: Any, words: Any, word: int, first: bool, keep: bool, count: int) -> Any:
    """Advance the running maximum of one line by 16 positions towards lower indices."""
    value = get_or_lowest(x, index, count)
    if any_nan(value):
        best = _scan_any_left(value, carried)
        bits = records_of_any(_before_left(best, carried), value)
    else:
        best = _scan_numbers_left(value, carried)
        bits = records_of_numbers(_before_left(best, carried), value)
    if keep:
        put_word(words, word, bits | (1 << (count - 1)) if first else bits)
    return best


@inlined
def step_right(x: Any, index: int, carried: Any, words: Any, word: int, first: bool, keep: bool, count: int) -> Any:
    """Advance the running maximum of one line by 16 positions towards higher indices."""
    value = get_or_lowest(x, index, count)
    if any_nan(value):
        best = _scan_any_right(value, carried)
        bits = records_of_any(_before_right(best, carried), value)
    else:
        best = _scan_numbers_right(value, carried)
        bits = records_of_numbers(_before_right(best, carried), value)
    if keep:
        put_word(words, word, bits | 1 if first else bits)
    return best


@inlined
def back_across(grad: Any, sums: Any, at: int, grad_x: Any, index: int, bits: int, count: int) -> None:
    """Add 16 gradients to the sums in ``sums[at:]``; each record gets its sum, which restarts at zero."""
    total, nothing = add(load(sums, at), grad), zero(sums)
    put(grad_x, index, where_bit(bits, total, nothing), count)
    store(sums, at, where_bit(bits, nothing, total))


@inlined
def carry_across(grad: Any, sums: Any, at: int, bits: int) -> None:
    """Add 16 gradients to the sums in ``sums[at:]``; the sum of each record restarts at zero."""
    store(sums, at, where_bit(bits, zero(sums), add(load(sums, at), grad)))


# ------------------------------------------------------------------------------------------------ contiguous tensors
def _forward_cell(step_along: Any, last_lane: Any, reverse: bool) -> Any:
    @inlined
    def cell(
        tensors: Any, words: Any, best: Any, carried: Any, index: int, k: int, word: int, top: bool, edge: bool,
        parts: int, keep: bool, count: int,
    ) -> Any:  # fmt: skip
        """Pool 16 positions of one row and return the maximum to carry along the row."""
        vertical, horizontal, result = tensors
        down = across = carried
        will_write(result, index, reverse)
        if parts != 2:
            will_read(vertical, index, reverse)
            down = step_across(vertical, index, best, k * LANES, words[0], word, top, keep, count)
        if parts != 1:
            will_read(horizontal, index, reverse)
            across = step_along(horizontal, index, carried, words[1], word, edge, keep, count)
        put(result, index, down if parts == 1 else across if parts == 2 else add(down, across), count)
        return last_lane(across)

    return cell


def _backward_cell(sums_along: Any, last_lane: Any, reverse: bool) -> Any:
    @inlined
    def cell(
        tensors: Any, words: Any, sums: Any, carried: Any, index: int, k: int, word: int, parts: int, count: int
    ) -> Any:
        """Distribute the gradients of 16 positions of one row and return the sum to carry along the row."""
        grad_result, grad_vertical, grad_horizontal = tensors
        grad, nothing = get_or_zero(grad_result, index, count), zero(sums)
        will_read(grad_result, index, reverse)
        if parts != 2:
            will_write(grad_vertical, index, reverse)
            back_across(grad, sums, k * LANES, grad_vertical, index, get_word(words[0], word), count)
        if parts == 1:
            return nothing
        will_write(grad_horizontal, index, reverse)
        bits = get_word(words[1], word)
        total = sums_along(grad, carried, bits)
        put(grad_horizontal, index, where_bit(bits, total, nothing), count)
        return last_lane(where_bit(bits, nothing, total))

    return cell


_forward_left = _forward_cell(step_left, _last_left, reverse=True)
_forward_right = _forward_cell(step_right, _last_right, reverse=False)
_backward_left = _backward_cell(_sums_left, _last_left, reverse=True)
_backward_right = _backward_cell(_sums_right, _last_right, reverse=False)


@loop
def rows_forward(
    vertical: Any, horizontal: Any, result: Any, words_down: Any, words_across: Any, scratch: Any,
    tickets: Any, pieces: int, units: int, height: int, width: int, reverse: bool, parts: int, keep: bool,
) -> None:  # fmt: skip
    """Pool ``units`` planes of contiguous tensors [planes, height, width].

    The planes are cut into ``pieces``. Threads that call this with the same ``tickets`` take one piece after another
    until all are taken. ``parts`` is 1 for the vertical pool, 2 for the horizontal one, 3 for their sum. ``reverse``:
    scan from the bottom row up and from the right column to the left. ``keep``: write the records. ``scratch`` has room
    for ceil(width / 16) * 16 wide values.
    """
    tensors = vertical, horizontal, result
    words, best = (words_down, words_across), scratch
    full, rest = width // LANES, width % LANES
    count = full + (rest > 0)
    piece = take_ticket(tickets)
    while piece < pieces:
        for plane in range(units * piece // pieces, units * (piece + 1) // pieces):
            for k in range(count):
                store(best, k * LANES, lowest(best))
            for step in range(height):
                row = plane * height + (height - 1 - step if reverse else step)
                at, word, top, carried = row * width, row * count, step == 0, lowest(best)
                if reverse:
                    if rest:
                        index = at + full * LANES
                        carried = _forward_left(
                            tensors, words, best, carried, index, full, word + full, top, True, parts, keep, rest
                        )
                    for k in range(full - 1, -1, -1):
                        index, edge = at + k * LANES, k == count - 1
                        carried = _forward_left(
                            tensors, words, best, carried, index, k, word + k, top, edge, parts, keep, LANES
                        )
                else:
                    for k in range(full):
                        index, edge = at + k * LANES, k == 0
                        carried = _forward_right(
                            tensors, words, best, carried, index, k, word + k, top, edge, parts, keep, LANES
                        )
                    if rest:
                        index, edge = at + full * LANES, full == 0
                        _forward_right(
                            tensors, words, best, carried, index, full, word + full, top, edge, parts, keep, rest
                        )
        piece = take_ticket(tickets)


@loop
def rows_backward(
    grad_result: Any, grad_vertical: Any, grad_horizontal: Any, words_down: Any, words_across: Any, scratch: Any,
    tickets: Any, pieces: int, units: int, height: int, width: int, reverse: bool, parts: int,
) -> None:  # fmt: skip
    """Distribute the gradient of :func:`rows_forward` to its inputs, following the records; arguments as there."""
    tensors = grad_result, grad_vertical, grad_horizontal
    words, sums = (words_down, words_across), scratch
    full, rest = width // LANES, width % LANES
    count = full + (rest > 0)
    piece = take_ticket(tickets)
    while piece < pieces:
        for plane in range(units * piece // pieces, units * (piece + 1) // pieces):
            for k in range(count):
                store(sums, k * LANES, zero(sums))
            for step in range(height):
                row = plane * height + (step if reverse else height - 1 - step)
                at, word, carried = row * width, row * count, zero(sums)
                if reverse:
                    for k in range(full):
                        index = at + k * LANES
                        carried = _backward_right(tensors, words, sums, carried, index, k, word + k, parts, LANES)
                    if rest:
                        index = at + full * LANES
                        _backward_right(tensors, words, sums, carried, index, full, word + full, parts, rest)
                else:
                    if rest:
                        index = at + full * LANES
                        carried = _backward_left(tensors, words, sums, carried, index, full, word + full, parts, rest)
                    for k in range(full - 1, -1, -1):
                        index = at + k * LANES
                        carried = _backward_left(tensors, words, sums, carried, index, k, word + k, parts, LANES)
        piece = take_ticket(tickets)


# ----------------------------------------------------------------------------------------------------- channels_last
@inlined
def _forward_channels(
    tensors: Any, words: Any, best: Any, index: int, at: int, beside: int, word: int, top: bool, edge: bool,
    reverse: bool, parts: int, keep: bool, count: int,
) -> None:  # fmt: skip
    """Pool 16 channels of one position; ``best`` has the vertical maxima and, from ``beside``, the horizontal ones."""
    vertical, horizontal, result = tensors
    down = across = lowest(best)
    will_write(result, index, reverse)
    if parts != 2:
        will_read(vertical, index, reverse)
        down = step_across(vertical, index, best, at, words[0], word, top, keep, count)
    if parts != 1:
        will_read(horizontal, index, reverse)
        across = step_across(horizontal, index, best, beside, words[1], word, edge, keep, count)
    put(result, index, down if parts == 1 else across if parts == 2 else add(down, across), count)


@inlined
def _backward_channels(
    tensors: Any, words: Any, sums: Any, index: int, at: int, beside: int, word: int, reverse: bool,
    parts: int, count: int,
) -> None:  # fmt: skip
    """Distribute the gradients of 16 channels of one position."""
    grad_result, grad_vertical, grad_horizontal = tensors
    grad = get_or_zero(grad_result, index, count)
    will_read(grad_result, index, not reverse)
    if parts != 2:
        will_write(grad_vertical, index, not reverse)
        back_across(grad, sums, at, grad_vertical, index, get_word(words[0], word), count)
    if parts != 1:
        will_write(grad_horizontal, index, not reverse)
        back_across(grad, sums, beside, grad_horizontal, index, get_word(words[1], word), count)


@loop
def channels_forward(
    vertical: Any, horizontal: Any, result: Any, words_down: Any, words_across: Any, scratch: Any,
    tickets: Any, pieces: int, units: int, height: int, width: int, channels: int, bands: int, starts: Any,
    reverse: bool, parts: int, keep: bool,
) -> None:  # fmt: skip
    """Pool bands of rows of channels_last tensors, in memory [images, height, width, channels].

    ``units`` is images * ``bands``. A band starts at step ``starts[band]`` of the vertical scan and ends before
    ``starts[band + 1]``. It first runs the vertical scan up to its start, without output, so all numbers are the same
    as with a single band. ``scratch`` has room for (width + 1) * channels wide values, channels rounded up to a
    multiple of 16. Other arguments are as in :func:`rows_forward`.
    """
    tensors = vertical, horizontal, result
    words, best = (words_down, words_across), scratch
    full, rest = channels // LANES, channels % LANES
    count = full + (rest > 0)
    beside = width * count * LANES
    piece = take_ticket(tickets)
    while piece < pieces:
        for unit in range(units * piece // pieces, units * (piece + 1) // pieces):
            image, band = unit // bands, unit % bands
            start, stop = parameter(starts, band), parameter(starts, band + 1)
            for k in range(width * count):
                store(best, k * LANES, lowest(best))
            for step in range(start if parts != 2 else 0):
                row = image * height + (height - 1 - step if reverse else step)
                for column in range(width):
                    position, at = row * width + column, column * count * LANES
                    for k in range(full):
                        index = position * channels + k * LANES
                        will_read(vertical, index, reverse)
                        step_across(vertical, index, best, at + k * LANES, words_down, 0, False, False, LANES)
                    if rest:
                        index = position * channels + full * LANES
                        will_read(vertical, index, reverse)
                        step_across(vertical, index, best, at + full * LANES, words_down, 0, False, False, rest)
            for step in range(start, stop):
                row = image * height + (height - 1 - step if reverse else step)
                for k in range(count):
                    store(best, beside + k * LANES, lowest(best))
                for turn in range(width):
                    column = width - 1 - turn if reverse else turn
                    position, top, edge = row * width + column, step == 0, turn == 0
                    index, at, word = position * channels, column * count * LANES, position * count
                    for k in range(full):
                        _forward_channels(
                            tensors, words, best, index + k * LANES, at + k * LANES, beside + k * LANES, word + k,
                            top, edge, reverse, parts, keep, LANES,
                        )  # fmt: skip
                    if rest:
                        _forward_channels(
                            tensors, words, best, index + full * LANES, at + full * LANES, beside + full * LANES,
                            word + full, top, edge, reverse, parts, keep, rest,
                        )  # fmt: skip
        piece = take_ticket(tickets)


@loop
def channels_backward(
    grad_result: Any, grad_vertical: Any, grad_horizontal: Any, words_down: Any, words_across: Any, scratch: Any,
    tickets: Any, pieces: int, units: int, height: int, width: int, channels: int, bands: int, starts: Any,
    reverse: bool, parts: int,
) -> None:  # fmt: skip
    """Distribute the gradient of :func:`channels_forward` to its inputs, following the records; arguments as there."""
    tensors = grad_result, grad_vertical, grad_horizontal
    words, sums = (words_down, words_across), scratch
    full, rest = channels // LANES, channels % LANES
    count = full + (rest > 0)
    beside = width * count * LANES
    piece = take_ticket(tickets)
    while piece < pieces:
        for unit in range(units * piece // pieces, units * (piece + 1) // pieces):
            image, band = unit // bands, unit % bands
            start, stop = parameter(starts, band), parameter(starts, band + 1)
            for k in range(width * count):
                store(sums, k * LANES, zero(sums))
            for step in range(start if parts != 2 else 0):
                row = image * height + (step if reverse else height - 1 - step)
                for column in range(width):
                    position, at = row * width + column, column * count * LANES
                    for k in range(full):
                        index = position * channels + k * LANES
                        will_read(grad_result, index, not reverse)
                        grad, bits = get_or_zero(grad_result, index, LANES), get_word(words_down, position * count + k)
                        carry_across(grad, sums, at + k * LANES, bits)
                    if rest:
                        index = position * channels + full * LANES
                        will_read(grad_result, index, not reverse)
                        grad = get_or_zero(grad_result, index, rest)
                        carry_across(grad, sums, at + full * LANES, get_word(words_down, position * count + full))
            for step in range(start, stop):
                row = image * height + (step if reverse else height - 1 - step)
                for k in range(count):
                    store(sums, beside + k * LANES, zero(sums))
                for turn in range(width):
                    column = turn if reverse else width - 1 - turn
                    position = row * width + column
                    index, at, word = position * channels, column * count * LANES, position * count
                    for k in range(full):
                        _backward_channels(
                            tensors, words, sums, index + k * LANES, at + k * LANES, beside + k * LANES, word + k,
                            reverse, parts, LANES,
                        )  # fmt: skip
                    if rest:
                        _backward_channels(
                            tensors, words, sums, index + full * LANES, at + full * LANES, beside + full * LANES,
                            word + full, reverse, parts, rest,
                        )  # fmt: skip
        piece = take_ticket(tickets)


# ---------------------------------------------------------------------------------------------------------- entries
# One C function void(int64 *parameters) for each direction, layout and dtype, so that any thread can run it without
# Python, and only what is used is compiled:
# 0-2 tensors, 3-4 records, 5 scratch, 6 bytes of scratch per thread, 7 tickets (two counters at zero: pieces, threads),
# 8 pieces, 9 units, 10 height, 11 width, 12 channels, 13 bands, 14 their starts, 15 reverse, 16 parts, 17 keep
PARAMETERS = 18


@inlined
def _shared(p: Any, at: Any, wide_at: Any) -> Any:
    """Return the first arguments of all loops: tensors, records, scratch, tickets, pieces, units, height and width."""
    scratch = wide_at(parameter(p, 5) + take_ticket(int64_at(parameter(p, 7) + 8)) * parameter(p, 6))
    tensors = at(parameter(p, 0)), at(parameter(p, 1)), at(parameter(p, 2))
    words, tickets = (words_at(parameter(p, 3)), words_at(parameter(p, 4))), int64_at(parameter(p, 7))
    sizes = parameter(p, 8), parameter(p, 9), parameter(p, 10), parameter(p, 11)
    return (*tensors, *words, scratch, tickets, *sizes)


@inlined
def _bands(p: Any) -> Any:
    """Return the arguments that only the loops over channels_last tensors have: channels, bands and their starts."""
    return parameter(p, 12), parameter(p, 13), int64_at(parameter(p, 14))


@inlined
def _forward_rows(p: Any, at: Any, wide_at: Any) -> None:
    arguments = (*_shared(p, at, wide_at), parameter(p, 15) != 0, parameter(p, 16), parameter(p, 17) != 0)
    rows_forward(*arguments)


@inlined
def _forward_channels_last(p: Any, at: Any, wide_at: Any) -> None:
    way = parameter(p, 15) != 0, parameter(p, 16), parameter(p, 17) != 0
    arguments = (*_shared(p, at, wide_at), *_bands(p), *way)
    channels_forward(*arguments)


@inlined
def _backward_rows(p: Any, at: Any, wide_at: Any) -> None:
    arguments = (*_shared(p, at, wide_at), parameter(p, 15) != 0, parameter(p, 16))
    rows_backward(*arguments)


@inlined
def _backward_channels_last(p: Any, at: Any, wide_at: Any) -> None:
    arguments = (*_shared(p, at, wide_at), *_bands(p), parameter(p, 15) != 0, parameter(p, 16))
    channels_backward(*arguments)


def _entry(name: str, loops: Any, at: Any, wide_at: Any) -> CFunction:
    def run(p: Any) -> None:
        loops(p, at, wide_at)

    run.__name__ = run.__qualname__ = name
    return c_function()(run)


_ENTRIES = {
    (mode, layout, dtype): _entry(f"{mode}_{layout}_{dtype}", loops, at, wide_at)
    for (mode, layout), loops in {
        ("forward", "rows"): _forward_rows,
        ("forward", "channels"): _forward_channels_last,
        ("backward", "rows"): _backward_rows,
        ("backward", "channels"): _backward_channels_last,
    }.items()
    for dtype, at, wide_at in (
        ("float64", float64_at, float64_at),
        ("float32", float32_at, float32_at),
        ("float16", float16_at, float32_at),
        ("bfloat16", bfloat16_at, float32_at),
    )
}


def entry(mode: str, channels_last: bool, dtype: str) -> CFunction:
    """Return the C function for ``mode``, forward or backward, a layout, and a dtype's name."""
    return _ENTRIES[mode, "channels" if channels_last else "rows", dtype]
