"""Decoding of large heatmaps on a CPU: one pass over memory, then the few rows that hold the best corners.

The maximum of every row of a heatmap is taken by torch, on its threads. Peaks lie no higher than their row's maximum,
so only rows are searched whose maximum reaches the last of the best peaks so far. The sigmoid is taken of those and
their neighbours alone, by torch: scores, and ties between neighbours, are to the bit what they are where it is taken
of the whole heatmap. Equal scores come in the order of classes, rows and columns; in the plain way, where torch.topk
sorts, their order is open, and nothing else can differ. With too few peaks the answer is None: the plain way is taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cornernet.compiled import compiled
from cornernet.config import TestingConfig
from cornernet.heads.candidates import Candidates

__all__ = ["SMALLEST", "decode_large", "serves"]

SMALLEST = 1 << 17
"""Places of one image's heatmaps below which the plain way is taken: there it costs little."""

_CANDIDATES = 2048
Array = NDArray[Any]


def serves(predictions: Any, testing: TestingConfig) -> bool:
    """Tell whether :func:`decode_large` may be asked about these predictions."""
    heatmap, embedding = predictions.heatmaps.top_left, predictions.embeddings.top_left
    tensors = [tensor for pair in predictions for tensor in pair]
    return (
        all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
        and not any(tensor.requires_grad for tensor in tensors)
        and not torch.compiler.is_compiling()
        and heatmap.shape[0] > 0
        and heatmap[0].numel() >= SMALLEST
        and embedding.shape[1] == 1
        and not testing.substitute
        and testing.offsets == "predicted"
        and testing.top_k <= 256
        and testing.peak_kernel <= 7
    )


def decode_large(predictions: Any, testing: TestingConfig) -> list[Candidates] | None:
    """Return :func:`.decode.decode`'s candidates, or None where there are too few peaks; see :func:`serves`."""
    corners = []
    for heatmap, embedding, offset in zip(*predictions, strict=True):
        found = _top_corners(heatmap, embedding, offset, testing)
        if found is None:
            return None
        corners.append(found)
    images = []
    for image in range(len(corners[0][0])):
        boxes, scores, corner_scores, labels = _pair(
            *corners[0], *corners[1], image, np.float32(testing.embedding_threshold), testing.reject_empty
        )
        kept = np.argsort(-scores, kind="stable")[: testing.num_candidates]
        columns = (boxes[kept], scores[kept], corner_scores[kept], labels[kept])
        images.append(Candidates(*map(torch.from_numpy, columns)))
    return images


def _top_corners(
    heatmap: Tensor, embedding: Tensor, offset: Tensor, testing: TestingConfig
) -> tuple[Array, Array] | None:
    """Return labels [B, k] and scores, x, y and embeddings [B, 4, k] of the best corners; None where too few."""
    batch = len(heatmap)
    kernel, wanted = testing.peak_kernel, testing.top_k
    places = np.empty((batch, _CANDIDATES, 3), np.int64)
    windows = np.empty((batch, _CANDIDATES, kernel * kernel), np.float32)
    counts = np.empty(batch, np.int64)
    _collect(heatmap.numpy(), _row_maxima(heatmap).numpy(), wanted, kernel // 2, places, windows, counts)
    if (counts < wanted).any():
        return None
    scores = torch.from_numpy(windows[:, : counts.max()]).sigmoid().numpy()
    labels, values = np.empty((batch, wanted), np.int64), np.empty((batch, 4, wanted), np.float32)
    enough = _rank(scores, counts, places, offset.numpy(), embedding.numpy(), labels, values)
    return (labels, values) if enough else None


@compiled
def _rank(
    scores: Array, counts: Array, places: Array, offsets: Array, embeddings: Array, labels: Array, values: Array
) -> bool:
    """Write the best peaks of each image among the candidates, which come in the order of places; see _top_corners."""
    centre, wanted = scores.shape[2] // 2, labels.shape[1]
    for image in range(len(counts)):
        own = np.empty(counts[image], np.float32)
        peaks = 0
        for i in range(counts[image]):
            value = scores[image, i, centre]
            own[i] = 1  # behind all peaks, whose scores are negated to be sorted
            if value == scores[image, i].max():
                own[i] = -value
                peaks += 1
        if peaks < wanted:
            return False
        order = np.argsort(own, kind="mergesort")
        for rank in range(wanted):
            label, y, x = places[image, order[rank]]
            labels[image, rank] = label
            values[image, 0, rank] = -own[order[rank]]
            values[image, 1, rank] = np.float32(x) + offsets[image, 0, y, x]
            values[image, 2, rank] = np.float32(y) + offsets[image, 1, y, x]
            values[image, 3, rank] = embeddings[image, 0, y, x]
    return True


def _row_maxima(heatmap: Tensor) -> Tensor:
    """Return the maximum of every row [B, K, h] of heatmaps; in some layouts NaN counts as one."""
    if heatmap.is_contiguous() or not heatmap.is_contiguous(memory_format=torch.channels_last):
        return heatmap.amax(3)
    # torch takes a hundred times as long where classes lie side by side
    batch, classes, height, _ = heatmap.shape
    result = np.empty((batch, height, classes), np.float32)
    _maxima_of_columns(heatmap.permute(0, 2, 3, 1).numpy(), result)
    return torch.from_numpy(result).transpose(1, 2)


@compiled
def _maxima_of_columns(values: Array, result: Array) -> None:
    """Write the maximum over x of values [B, h, w, K] to ``result`` [B, h, K], passing over NaN."""
    batch, height, width, classes = values.shape
    for image in range(batch):
        for y in range(height):
            line = result[image, y]
            line[:] = -np.inf
            for x in range(width):
                cell = values[image, y, x]
                for k in range(classes):
                    line[k] = cell[k] if cell[k] > line[k] else line[k]


@compiled
def _compacted(places: Array, windows: Array, found: int, enough: np.float32) -> int:
    """Drop the candidates that are below ``enough`` now, in place, and return how many are left."""
    centre, kept = windows.shape[1] // 2, 0
    for i in range(found):
        if windows[i, centre] >= enough:
            places[kept] = places[i]
            windows[kept] = windows[i]
            kept += 1
    return kept


@compiled
def _collect(
    heatmaps: Array, maxima: Array, wanted: int, half: int, places: Array, windows: Array, counts: Array
) -> None:
    """Find in each heatmap [K, h, w] all that may be among its ``wanted`` best peaks.

    ``maxima`` [K, h] are those of its rows. Writes places (k, y, x), the window around each, and how many there are; -1
    where there are too few, or more than there is room for.
    """
    batch, classes, height, width = heatmaps.shape
    lowest = np.float32(-np.inf)
    best = np.empty(wanted, np.float32)  # of cells that no neighbour exceeds, in falling order
    for image in range(batch):
        best[:] = lowest
        found, peaks, slack, enough, full = 0, 0, np.float32(0), lowest, False
        for label in range(classes):
            for y in range(height):
                top = maxima[image, label, y]
                if top < enough or full:  # false for NaN, which is passed over cell by cell
                    continue
                # logits closer than this may have the same sigmoid: it is flat for large ones
                slack = np.float32(2e-6) * (np.float32(101) + np.exp(max(top, np.float32(0))))
                for x in range(width):
                    value = heatmaps[image, label, y, x]
                    if not (value >= enough and value > lowest):
                        continue
                    most = lowest
                    for dy in range(-half, half + 1):
                        for dx in range(-half, half + 1):
                            row, column = y + dy, x + dx
                            if 0 <= row < height and 0 <= column < width:
                                near = heatmaps[image, label, row, column]
                                if near > most:
                                    most = near
                        if most > value + slack:
                            break
                    if most > value + slack:
                        continue
                    if found == places.shape[1]:
                        found = _compacted(places[image], windows[image], found, enough)
                        if found == places.shape[1]:
                            full = True
                            break
                    places[image, found, 0], places[image, found, 1], places[image, found, 2] = label, y, x
                    at = 0
                    for dy in range(-half, half + 1):
                        for dx in range(-half, half + 1):
                            row, column = y + dy, x + dx
                            near = lowest
                            if 0 <= row < height and 0 <= column < width:
                                near = heatmaps[image, label, row, column]
                                if near != near:
                                    near = lowest
                            windows[image, found, at] = near
                            at += 1
                    found += 1
                    if value >= most and value > best[wanted - 1]:
                        at = wanted - 1
                        while at > 0 and best[at - 1] < value:
                            best[at] = best[at - 1]
                            at -= 1
                        best[at] = value
                        peaks += 1
                        last = best[wanted - 1]
                        enough = last - np.float32(2e-6) * (np.float32(101) + np.exp(max(last, np.float32(0))))
        found = _compacted(places[image], windows[image], found, enough)
        counts[image] = -1 if full or peaks < wanted else found


@compiled
def _pair(
    a_labels: Array, a: Array, b_labels: Array, b: Array, image: int, threshold: np.float32, reject_empty: bool
) -> tuple[Array, Array, Array, Array]:
    """Return boxes, scores, corner scores and labels of every accepted pair of corners; see :func:`.decode.decode`."""
    pairs = [(0, 0) for _ in range(0)]
    for i in range(a_labels.shape[1]):
        for j in range(b_labels.shape[1]):
            if a_labels[image, i] != b_labels[image, j] or not abs(a[image, 3, i] - b[image, 3, j]) <= threshold:
                continue
            width, height = a[image, 1, i] <= b[image, 1, j], a[image, 2, i] <= b[image, 2, j]
            if not (width and height):
                continue
            if reject_empty and (a[image, 1, i] == b[image, 1, j] or a[image, 2, i] == b[image, 2, j]):
                continue
            pairs.append((i, j))
    count = len(pairs)
    boxes, scores = np.empty((count, 4), np.float32), np.empty(count, np.float32)
    corner_scores, labels = np.empty((count, 2), np.float32), np.empty(count, np.int64)
    for at in range(count):
        i, j = pairs[at]
        boxes[at, 0], boxes[at, 1], boxes[at, 2], boxes[at, 3] = (
            a[image, 1, i], a[image, 2, i], b[image, 1, j], b[image, 2, j],
        )  # fmt: skip
        scores[at] = (a[image, 0, i] + b[image, 0, j]) / np.float32(2)
        corner_scores[at, 0], corner_scores[at, 1] = a[image, 0, i], b[image, 0, j]
        labels[at] = a_labels[image, i]
    return boxes, scores, corner_scores, labels
