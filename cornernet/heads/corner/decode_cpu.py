"""Decoding of large heatmaps on a CPU: one pass over memory, then the few rows that hold the best corners.

The maximum of every row of a heatmap is taken by torch, on its threads. Peaks lie no higher than their row's maximum,
so rows are searched best first, until enough peaks lie above what is left. The sigmoid is taken of those peaks and
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

_ROWS, _CANDIDATES, _SPARE = 1024, 4096, 16
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
        and heatmap.shape[1] * heatmap.shape[2] >= _ROWS
        and embedding.shape[1] == 1
        and not testing.substitute
        and testing.top_k <= 256
        and testing.peak_kernel <= 7
    )


def decode_large(predictions: Any, testing: TestingConfig) -> list[Candidates] | None:
    """Return :func:`.decode.decode`'s candidates, or None where there are too few peaks; see :func:`serves`."""
    corners: list[list[tuple[Array, Array, Array, Array, Array]]] = []
    for heatmap, embedding, offset in zip(*predictions, strict=True):
        found = _top_corners(heatmap, embedding, offset, testing)
        if found is None:
            return None
        corners.append(found)
    images = []
    for top_left, bottom_right in zip(*corners, strict=True):
        count = len(top_left[0]) * len(bottom_right[0])
        boxes, scores = np.empty((count, 4), np.float32), np.empty(count, np.float32)
        corner_scores, labels = np.empty((count, 2), np.float32), np.empty(count, np.int64)
        made = _pair(
            top_left, bottom_right, np.float32(testing.embedding_threshold), testing.reject_empty,
            boxes, scores, corner_scores, labels,
        )  # fmt: skip
        kept = np.argsort(-scores[:made], kind="stable")[: testing.num_candidates]
        columns = (boxes[kept], scores[kept], corner_scores[kept], labels[kept])
        images.append(Candidates(*map(torch.from_numpy, columns)))
    return images


def _top_corners(
    heatmap: Tensor, embedding: Tensor, offset: Tensor, testing: TestingConfig
) -> list[tuple[Array, Array, Array, Array, Array]] | None:
    """Return scores, labels, x, y and embeddings of each image's best corners; None where too few are found."""
    batch = len(heatmap)
    maxima, rows = _row_maxima(heatmap).flatten(1).topk(_ROWS, dim=1)
    kernel, wanted = testing.peak_kernel, testing.top_k
    places = np.empty((batch, _CANDIDATES, 3), np.int64)
    windows = np.empty((batch, _CANDIDATES + 1, kernel * kernel), np.float32)
    counts = np.empty(batch, np.int64)
    _collect(heatmap.numpy(), rows.numpy(), maxima.numpy(), wanted + _SPARE, kernel // 2, places, windows, counts)
    if (counts < wanted).any():
        return None
    most = int(counts.max()) + 1
    scores = torch.from_numpy(windows[:, :most]).sigmoid().numpy()
    images = []
    for image, count in enumerate(counts.tolist()):
        own = scores[image, :count]
        centre = own[:, kernel * kernel // 2]
        peaks = np.flatnonzero(centre == own.max(1))
        x, y, labels = np.ascontiguousarray(places[image, peaks, ::-1].T)
        chosen = peaks[np.lexsort((x, y, labels, -centre[peaks]))[:wanted]]
        # what was not searched lies below the row's maximum that is kept behind the windows, but for rounding
        below = scores[image, count, 0] * np.float32(1.00001)
        if len(chosen) < wanted or centre[chosen[-1]] <= below:
            return None
        labels, y, x = np.ascontiguousarray(places[image, chosen].T)
        offsets, embeddings = offset[image].numpy(), embedding[image].numpy()
        images.append(
            (
                centre[chosen],
                labels,
                x.astype(np.float32) + offsets[0, y, x],
                y.astype(np.float32) + offsets[1, y, x],
                embeddings[0, y, x],
            )
        )
    return images


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
def _collect(
    heatmaps: Array, rows: Array, maxima: Array, wanted: int, half: int, places: Array, windows: Array, counts: Array
) -> None:
    """Find in each heatmap [K, h, w] what may be peaks above all that is not searched.

    ``rows`` are the best rows as k * h + y and ``maxima`` theirs. Writes places (k, y, x) and the window around each,
    behind the last the maximum of the first row that was not searched, and how many; -1 where the rows do not suffice.
    """
    batch, _, height, width = heatmaps.shape
    lowest = np.float32(-np.inf)
    strict = np.empty(places.shape[1], np.float32)
    for image in range(batch):
        found, peaks, counts[image] = 0, 0, -1
        for index in range(rows.shape[1]):
            top = maxima[image, index]
            if peaks >= wanted:
                above = 0
                for i in range(peaks):
                    above += strict[i] > top
                if above >= wanted:
                    windows[image, found, :] = top
                    counts[image] = found
                    break
            label, y = rows[image, index] // height, rows[image, index] % height
            # logits closer than this may have the same sigmoid: it is flat for large ones
            slack = np.float32(2e-6) * (np.float32(101) + np.exp(max(top, np.float32(0))))
            full = False
            for x in range(width):
                value = heatmaps[image, label, y, x]
                if not value > lowest:  # NaN, too
                    continue
                most = lowest
                for dy in range(-half, half + 1):
                    row = y + dy
                    if row < 0 or row >= height:
                        continue
                    for dx in range(-half, half + 1):
                        column = x + dx
                        if 0 <= column < width:
                            near = heatmaps[image, label, row, column]
                            if near > most:
                                most = near
                    if most > value + slack:
                        break
                if most > value + slack:
                    continue
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
                if value >= most:
                    strict[peaks] = value
                    peaks += 1
            if full:
                break


@compiled
def _pair(
    top_left: tuple[Array, Array, Array, Array, Array], bottom_right: tuple[Array, Array, Array, Array, Array],
    threshold: np.float32, reject_empty: bool, boxes: Array, scores: Array, corner_scores: Array, labels: Array,
) -> int:  # fmt: skip
    """Write every accepted pair of corners and return how many there are; see :func:`.decode.decode`."""
    a_scores, a_labels, a_x, a_y, a_embeddings = top_left
    b_scores, b_labels, b_x, b_y, b_embeddings = bottom_right
    made = 0
    for i in range(len(a_scores)):
        for j in range(len(b_scores)):
            if a_labels[i] != b_labels[j]:
                continue
            accepted = abs(a_embeddings[i] - b_embeddings[j]) <= threshold and a_x[i] <= b_x[j] and a_y[i] <= b_y[j]
            if not accepted or (reject_empty and (a_x[i] == b_x[j] or a_y[i] == b_y[j])):
                continue
            boxes[made, 0], boxes[made, 1], boxes[made, 2], boxes[made, 3] = a_x[i], a_y[i], b_x[j], b_y[j]
            scores[made] = (a_scores[i] + b_scores[j]) / np.float32(2)
            corner_scores[made, 0], corner_scores[made, 1] = a_scores[i], b_scores[j]
            labels[made] = a_labels[i]
            made += 1
    return made
