"""Decoding of large heatmaps on a CPU: one pass over memory in place of sigmoid, max-pooling and top-k over all of it.

It replaces :func:`.decode.decode_padded` where heatmaps are large. Measured in turn on two cores, for heatmaps
[2, 80, 128, 128], the plain way takes 117 to 213 ms and this one 2.2 to 4.5 ms, about 45 times less. For comparison,
the whole network of the recipe ``small`` takes 17 ms.

The sigmoid rises with the logit, so raw heatmaps are searched, in memory order. Values below the last of the best
peaks so far are skipped, many at a time; the others are compared with their neighbours. Only these candidates and
their neighbours go through torch's sigmoid, so scores, and ties between neighbours, have the same bits as in the plain
way. Equal scores are ordered by class, row and column. The plain way leaves their order to torch.topk; nothing else can
differ. The answer is None, and the caller takes the plain way, in three cases: the selection is ambiguous, because the
first corner or pair that is left out equals the last one that is taken; there are too few peaks; or scores are so low
that float32 loses digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from cornernet.config import TestingConfig
from cornernet.kernels import cpu_kernels
from cornernet.kernels.compiled import c_function, compiled
from cornernet.kernels.cpu import on_threads, threads_to_use
from cornernet.kernels.cpu_kernels import float32_at, int32_at, int64_at, parameter, take_ticket
from cornernet.model.heads.candidates import Candidates

__all__ = ["SMALLEST", "decode_large", "search_entry", "serves"]

SMALLEST = 1 << 17
"""Values in one image's heatmaps below which the plain way is taken, because it is fast enough there."""

_CANDIDATES = 2048  # largest number per heatmap
_CHUNK = 64  # values that share one stored maximum
_SAMPLES = 320  # smallest number of chunks per heatmap that are sampled to guess the height of the best peaks
_LIKELY = 3  # chunks to search first per wanted peak, by the guess
_NO_KEY = np.int32(-(2**31))
_LOWEST = -80.0  # scores of lower logits are close to the smallest float32 and lose digits
Array = NDArray[Any]
_F = TypeVar("_F", bound=Callable[..., Any])


def serves(predictions: Any, testing: TestingConfig) -> bool:
    """Tell whether :func:`decode_large` supports these predictions and settings."""
    heatmaps, embedding = predictions.heatmaps, predictions.embeddings.top_left
    tensors = [tensor for pair in predictions for tensor in pair]
    return (
        all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
        and not any(tensor.requires_grad for tensor in tensors)
        and not torch.compiler.is_compiling()
        and heatmaps.top_left.shape == heatmaps.bottom_right.shape
        and heatmaps.top_left.shape[0] > 0
        and heatmaps.top_left[0].numel() >= SMALLEST
        and embedding.shape[1] == 1
        and not testing.substitute
        and testing.offsets == "predicted"
        and testing.top_k <= 256
        and testing.peak_kernel <= 7
    )


def decode_large(predictions: Any, testing: TestingConfig) -> list[Candidates] | None:
    """Return the candidates of :func:`.decode.decode` for each image, or None if the plain way is needed.

    The module's docstring says when. Predictions must satisfy :func:`serves`.
    """
    found = _candidates(predictions.heatmaps, testing)
    if found is None:
        return None
    places, logits, counts, lasts, scores = found
    batch, _, height, width = predictions.heatmaps.top_left.shape
    maps = [_dense(tensor) for pair in (predictions.embeddings, predictions.offsets) for tensor in pair]
    images = []
    for image in range(batch):
        tables = []
        for kind in range(2):
            unit, count = kind * batch + image, counts[kind * batch + image]
            table = _ranked(
                scores[unit, :count], places[unit, :count], logits[unit, :count], lasts[unit], testing.top_k, height,
                width, maps[kind][image], maps[2 + kind][image],
            )  # fmt: skip
            if table is None:
                return None
            tables.append(table)
        columns = _pair(
            tables[0], tables[1], np.float32(testing.embedding_threshold), testing.reject_empty, testing.num_candidates
        )
        if columns is None:
            return None
        images.append(Candidates(*map(torch.from_numpy, columns)))
    return images


# ------------------------------------------------------------------------------------------------------- candidates
def _candidates(heatmaps: Any, testing: TestingConfig) -> tuple[Array, Array, Array, Array, Array] | None:
    """Return the candidates for the best corners of U heatmaps, all top-left ones before all bottom-right ones.

    These are their places [U, n], logits [U, n] and numbers [U], the logit [U] of the last of the best peaks, and the
    scores [U, n, window] of candidates and their neighbours. None if some heatmap's candidates do not contain all of
    its best peaks.
    """
    maps = [_dense(heatmap) for heatmap in heatmaps]
    batch, classes, height, width = maps[0].shape
    units, wanted, kernel = 2 * batch, testing.top_k, testing.peak_kernel
    places, logits = np.empty((units, _CANDIDATES), np.int64), np.empty((units, _CANDIDATES), np.float32)
    best, windows = np.empty((units, wanted), np.float32), np.empty((units, _CANDIDATES, kernel**2), np.float32)
    counts, tickets = np.empty(units, np.int64), np.zeros(1, np.int64)
    maxima = np.empty((units, -(-classes * height * width // _CHUNK)), np.int32)
    heaps = np.empty((units, 2 * _SAMPLES), np.int32)
    arrays = [array.ctypes.data for array in (tickets, places, logits, best, windows, counts)]
    parameters = np.array(
        [
            *arrays, *(heatmap.data_ptr() for heatmap in maps), *(not heatmap.is_contiguous() for heatmap in maps),
            batch, classes, height, width, wanted, kernel // 2,
            maxima.ctypes.data, maxima.shape[1], heaps.ctypes.data,
        ],
        np.int64,
    )  # fmt: skip
    on_threads(search_entry(), parameters, min(threads_to_use(), units))
    if counts.min() < wanted:
        return None
    scores = torch.from_numpy(windows[:, : counts.max()]).sigmoid().contiguous().numpy()
    return places, logits, counts, best[:, 0], scores


def _dense(maps: Tensor) -> Tensor:
    """Return dense maps [B, C, h, w]: contiguous, or channels_last."""
    return maps if maps.is_contiguous(memory_format=torch.channels_last) else maps.contiguous()


def _inlined(function: _F) -> _F:
    """Compile ``function`` into the C function that calls it."""
    return cast("_F", njit(forceinline=True, error_model="numpy")(function))


@_inlined
def _slack(logit: np.float32) -> np.float32:
    """Return a bound on how much lower a logit with the same float32 sigmoid can be: the sigmoid is flat at the top."""
    return np.float32(
        np.float32(2e-6) * (np.float32(101) + np.float32(math.exp(logit if logit > 0 else np.float32(0))))
    )


@_inlined
def _enough(last: np.float32) -> np.float32:
    """Return the lowest logit whose sigmoid can equal that of the last of the best peaks."""
    return np.float32(last - _slack(last))


@_inlined
def _compacted(places: Any, logits: Any, found: int, enough: np.float32) -> int:
    """Remove the candidates that are now below ``enough``, in place, and return how many remain."""
    kept = 0
    for i in range(found):
        if logits[i] >= enough:
            places[kept], logits[kept] = places[i], logits[i]
            kept += 1
    return kept


@_inlined
def _replace_smallest(heap: Any, size: int, value: Any) -> None:
    """Replace the smallest value of a min-heap, its first, by ``value``."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = value


@_inlined
def _most_around(
    values: Any, at: int, x: int, y: int, height: int, width: int, row: int, column: int, half: int, limit: np.float32
) -> np.float32:
    """Return the largest value in the window around ``values[at]``, or any value over ``limit``; NaN is skipped.

    The value's own row comes first: it is in the cache and rules out most candidates.
    """
    most = np.float32(-np.inf)
    left, right = max(-half, -x), min(half, width - 1 - x)
    for line in range(2 * half + 1):
        dy = (line + 1) // 2 if line % 2 else -(line // 2)
        if 0 <= y + dy < height:
            for dx in range(left, right + 1):
                near = values[at + dy * row + dx * column]
                most = near if near > most else most
            if most > limit:
                break
    return most


@_inlined
def _write_window(
    values: Any,
    at: int,
    x: int,
    y: int,
    height: int,
    width: int,
    row: int,
    column: int,
    half: int,
    window: Any,
    to: int,
) -> None:
    """Copy the window around ``values[at]`` to ``window[to:]``; NaN and what is outside the map become -inf."""
    for dy in range(-half, half + 1):
        for dx in range(-half, half + 1):
            near = np.float32(-np.inf)
            if 0 <= y + dy < height and 0 <= x + dx < width:
                value = values[at + dy * row + dx * column]
                near = value if value > near else near
            window[to] = near
            to += 1


@_inlined
def _key(bits: np.int32) -> np.int32:
    """Return an integer that orders like the float32 of these bits; NaN lies beyond the infinities."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@_inlined
def _greatest(bits: Any, chunk: int, size: int) -> np.int32:
    """Return the key of the largest of a chunk of float32 values, which are given as their bits.

    Integers, because the compiler does not vectorise a maximum of floats that can be NaN.
    """
    most = _NO_KEY
    if (chunk + 1) * _CHUNK <= size:
        for i in range(chunk * _CHUNK, (chunk + 1) * _CHUNK):
            key = _key(bits[i])
            most = key if key > most else most
    else:
        for i in range(chunk * _CHUNK, size):
            key = _key(bits[i])
            most = key if key > most else most
    return most


@_inlined
def _among_samples(maxima: Any, chunks: int, step: int, rank: int, heap: Any) -> Any:
    """Return the ``rank``-th largest of the maxima of every ``step``-th chunk, or _NO_KEY if there are fewer."""
    if rank > (chunks - 1 - step // 2) // step + 1:
        return _NO_KEY
    for i in range(rank):
        heap[i] = _NO_KEY
    for chunk in range(step // 2, chunks, step):
        if maxima[chunk] > heap[0]:
            _replace_smallest(heap, rank, maxima[chunk])
    return heap[0]


@_inlined
def _search_chunk(
    values: Any, chunk: int, last: bool, classes: int, height: int, width: int, wanted: int, half: int, found: int,
    places: Any, logits: Any, best: Any,
) -> int:  # fmt: skip
    """Add a chunk's candidates to the ``found`` ones; return the new number of candidates, or -1 if too many."""
    lowest = np.float32(-np.inf)
    cells = height * width
    row, column = (width * classes, classes) if last else (width, 1)
    enough = _enough(best[0])
    for at in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, classes * cells)):
        value = values[at]
        if not (value >= enough and value > lowest):  # also skips NaN
            continue
        cell = at // classes if last else at % cells
        label = at % classes if last else at // cells
        y, x = cell // width, cell % width
        limit = value + _slack(value)
        most = _most_around(values, at, x, y, height, width, row, column, half, limit)
        if most > limit:
            continue
        if found == _CANDIDATES:
            found = _compacted(places, logits, found, enough)
            if found == _CANDIDATES:
                return -1
        places[found], logits[found] = label * cells + cell, value
        found += 1
        if most <= value and value > best[0]:
            _replace_smallest(best, wanted, value)
            enough = _enough(best[0])
    return found


@_inlined
def _search_heatmap(
    values: Any, bits: Any, last: bool, classes: int, height: int, width: int, wanted: int, half: int,
    maxima: Any, heap: Any, places: Any, logits: Any, best: Any, windows: Any,
) -> int:  # fmt: skip
    """Find all candidates for the ``wanted`` best peaks of a heatmap; ``last`` means that it is channels_last.

    Writes their places, as (class * height + y) * width + x, their logits, the windows around them, and a min-heap of
    the best peaks' logits. Returns the number of candidates, or -1 if they do not contain all of the best peaks.
    ``maxima`` and ``heap`` are scratch memory.
    """
    cells = height * width
    row, column = (width * classes, classes) if last else (width, 1)
    chunks = -(-classes * cells // _CHUNK)
    for i in range(wanted):
        best[i] = np.float32(-np.inf)
    # the order matters: the best peaks rule out nearly everything else, so chunks that likely hold them come first
    step = max(1, chunks // _SAMPLES)
    for chunk in range(step // 2, chunks, step):
        maxima[chunk] = _greatest(bits, chunk, classes * cells)
    rank = max(1, _LIKELY * wanted // step)
    above: Any = 2**31
    found, first, limit = 0, True, _among_samples(maxima, chunks, step, rank, heap)
    while True:
        enough = limit
        for chunk in range(chunks):
            if first:
                maxima[chunk] = _greatest(bits, chunk, classes * cells)
            if enough <= maxima[chunk] < above:
                found = _search_chunk(
                    values, chunk, last, classes, height, width, wanted, half, found, places, logits, best
                )
                if found < 0:
                    return -1
                enough = max(limit, _key(np.float32(_enough(best[0])).view(np.int32)))
        above, first = limit, False
        if best[0] > np.float32(-np.inf):
            limit = _key(np.float32(_enough(best[0])).view(np.int32))
            if limit >= above:
                break
        elif limit == _NO_KEY:
            break
        else:  # there are fewer peaks than guessed
            rank *= 4
            limit = _among_samples(maxima, chunks, step, rank, heap)
    if not best[0] >= np.float32(_LOWEST):
        return -1
    found = _compacted(places, logits, found, _enough(best[0]))
    for i in range(found):
        label, cell = places[i] // cells, places[i] % cells
        at = cell * classes + label if last else places[i]
        window = i * (2 * half + 1) ** 2
        _write_window(values, at, cell % width, cell // width, height, width, row, column, half, windows, window)
    return found


# parameters of the C function: 0 counter, zero; 1 places; 2 logits; 3 best; 4 windows; 5 numbers; 6, 7 the heatmaps;
# 8, 9 whether they are channels_last; 10 batch; 11 classes; 12 height; 13 width; 14 wanted; 15 half a window;
# 16 scratch for maxima; 17 its size per heatmap; 18 scratch for a heap
@c_function(calls=(cpu_kernels,))
def _search(p: Any) -> None:
    """Search one heatmap after another until this thread and the others have taken all of them."""
    tickets, batch, wanted, half = int64_at(parameter(p, 0)), parameter(p, 10), parameter(p, 14), parameter(p, 15)
    classes, height, width = parameter(p, 11), parameter(p, 12), parameter(p, 13)
    counts = int64_at(parameter(p, 5))
    unit = take_ticket(tickets)
    while unit < 2 * batch:
        kind = unit // batch
        values = parameter(p, 6 + kind) + 4 * (unit % batch) * classes * height * width
        counts[unit] = _search_heatmap(
            float32_at(values), int32_at(values), parameter(p, 8 + kind) != 0, classes, height, width, wanted, half,
            int32_at(parameter(p, 16) + 4 * unit * parameter(p, 17)),
            int32_at(parameter(p, 18) + 4 * unit * 2 * _SAMPLES),
            int64_at(parameter(p, 1) + 8 * unit * _CANDIDATES),
            float32_at(parameter(p, 2) + 4 * unit * _CANDIDATES),
            float32_at(parameter(p, 3) + 4 * unit * wanted),
            float32_at(parameter(p, 4) + 4 * unit * _CANDIDATES * (2 * half + 1) ** 2),
        )  # fmt: skip
        unit = take_ticket(tickets)


def search_entry() -> int:
    """Return the address of the C function of :func:`_search`, compiled at the first call and kept on disk."""
    return _search.address


# ------------------------------------------------------------------------------------------------- corners and pairs
def _ranked(
    scores: Array, places: Array, logits: Array, last: np.float32, wanted: int, height: int, width: int,
    embeddings: Tensor, offsets: Tensor,
) -> Array | None:  # fmt: skip
    """Return scores, labels, x, y and embeddings [5, wanted] of the best corners; None if the choice is ambiguous.

    ``scores`` [n, window], ``places`` [n] and ``logits`` [n] are those of the candidates; ``embeddings`` is
    [1, height, width], ``offsets`` [2, height, width], both in any layout.
    """
    order = np.argsort(places)
    keys = np.empty(len(places), np.float32)
    peaks = _keys(scores, logits, last, order, keys)
    ranked = np.argsort(keys, kind="stable")
    if peaks < wanted or (len(keys) > wanted and keys[ranked[wanted]] == keys[ranked[wanted - 1]]):
        return None
    table = np.empty((5, wanted), np.float32)
    (_, row, column), (axis, offset_row, offset_column) = embeddings.stride(), offsets.stride()
    _table(
        scores, places, order[ranked[:wanted]], height, width,
        _flat(embeddings), row, column, _flat(offsets), axis, offset_row, offset_column, table,
    )  # fmt: skip
    return table


def _flat(dense: Tensor) -> Array:
    """Return the values of a dense tensor in the order of memory."""
    flat: Array = dense.as_strided((dense.numel(),), (1,)).numpy()
    return flat


@compiled("int64(float32[:,::1], float32[::1], float32, int64[::1], float32[::1])")
def _keys(scores: Array, logits: Array, last: np.float32, order: Array, keys: Array) -> int:
    """Write the keys that sort candidates in ``order``, the best first; return the number of peaks that reach ``last``.

    Peaks have negated scores as keys, and 1 is the key of the others.
    """
    centre = scores.shape[1] // 2
    reached = np.float32(2)
    for i in range(len(logits)):
        if logits[i] >= last and scores[i, centre] < reached:
            reached = scores[i, centre]
    peaks = 0
    for i in range(len(order)):
        at = order[i]
        most = scores[at, 0]
        for j in range(1, scores.shape[1]):
            if scores[at, j] > most:
                most = scores[at, j]
        keys[i] = np.float32(1)
        if scores[at, centre] == most:
            keys[i] = -scores[at, centre]
            peaks += scores[at, centre] >= reached
    return peaks


@compiled(
    "void(float32[:,::1], int64[::1], int64[::1], int64, int64,"
    " float32[::1], int64, int64, float32[::1], int64, int64, int64, float32[:,::1])"
)
def _table(
    scores: Array, places: Array, ranked: Array, height: int, width: int,
    embeddings: Array, embedding_row: int, embedding_column: int,
    offsets: Array, offset_axis: int, offset_row: int, offset_column: int, table: Array,
) -> None:  # fmt: skip
    """Write the table of :func:`_ranked` for the candidates ``ranked``; maps are flat, with their strides."""
    centre = scores.shape[1] // 2
    for rank in range(len(ranked)):
        at = ranked[rank]
        label, cell = places[at] // (height * width), places[at] % (height * width)
        y, x = cell // width, cell % width
        offset = y * offset_row + x * offset_column
        table[0, rank] = scores[at, centre]
        table[1, rank] = np.float32(label)
        table[2, rank] = np.float32(x) + offsets[offset]
        table[3, rank] = np.float32(y) + offsets[offset + offset_axis]
        table[4, rank] = embeddings[y * embedding_row + x * embedding_column]


def _pair(
    a: Array, b: Array, threshold: np.float32, reject_empty: bool, most: int
) -> tuple[Array, Array, Array, Array] | None:
    """Return boxes, scores, corner scores and labels of the best pairs of corners; see :func:`.decode.decode`.

    None if the selection is ambiguous: another order of equal scores would give other pairs.
    """
    size = a.shape[1] * b.shape[1]
    first, second, means = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.float32)
    found = _pairs(a, b, threshold, reject_empty, first, second, means)
    order = np.argsort(-means[:found], kind="stable")
    if found > most and means[order[most]] == means[order[most - 1]]:
        return None
    order = order[:most]
    i, j = first[order], second[order]
    boxes, corner_scores = np.empty((len(order), 4), np.float32), np.empty((len(order), 2), np.float32)
    boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3] = a[2, i], a[3, i], b[2, j], b[3, j]
    corner_scores[:, 0], corner_scores[:, 1] = a[0, i], b[0, j]
    return boxes, means[order], corner_scores, a[1, i].astype(np.int64)


@compiled("int64(float32[:,::1], float32[:,::1], float32, boolean, int64[::1], int64[::1], float32[::1])")
def _pairs(
    a: Array, b: Array, threshold: np.float32, reject_empty: bool, first: Array, second: Array, means: Array
) -> int:
    """Write the accepted pairs, as columns of ``a`` and of ``b``, and their scores; return how many there are."""
    found = 0
    for i in range(a.shape[1]):
        for j in range(b.shape[1]):
            if a[1, i] != b[1, j] or not abs(a[4, i] - b[4, j]) <= threshold:
                continue
            if not (a[2, i] <= b[2, j] and a[3, i] <= b[3, j]):
                continue
            if reject_empty and (a[2, i] == b[2, j] or a[3, i] == b[3, j]):
                continue
            first[found], second[found], means[found] = i, j, (a[0, i] + b[0, j]) / np.float32(2)
            found += 1
    return found
