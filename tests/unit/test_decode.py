"""Decoding of corners to boxes equals loops over all pairs, for all settings of peaks, offsets and embeddings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cornernet import Corners, Predictions
from cornernet.config import TestingConfig
from cornernet.model.heads.corner.decode import corners, decode

CLASSES, SIZE = 2, (4, 6)


def predictions(seed: int, dim: int, size: tuple[int, int] = SIZE) -> Predictions:
    """Heatmaps without equal scores; embeddings with exact distances, often equal to a threshold of 0.625."""
    rng = np.random.default_rng(seed)

    def maps(values: Any) -> Corners[Tensor]:
        return Corners(*(torch.from_numpy(np.asarray(values(), np.float32)) for _ in range(2)))

    count = 2 * CLASSES * size[0] * size[1]
    return Predictions(
        maps(lambda: rng.permutation(np.linspace(-4, 4, count)).reshape(2, CLASSES, *size)),
        maps(lambda: rng.choice([0.0, 0.375, 0.5, 1.0], (2, dim, *size))),
        # sometimes on the edge of the next cell, so that corners coincide
        maps(lambda: rng.choice([0.0, 0.25, 0.5, 1.0], (2, 2, *size))),
    )


def peaks(heatmap: np.ndarray, testing: TestingConfig) -> list[tuple[float, int, int, int]]:
    """Return score, class, row and column of the best peaks of an image's heatmaps [K, h, w]."""
    reach, found = testing.peak_kernel // 2, []
    for label, y, x in np.ndindex(*heatmap.shape):
        window = heatmap[label, max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
        if heatmap[label, y, x] == window.max():
            found.append((float(heatmap[label, y, x]), label, y, x))
    return sorted(found, reverse=True)[: testing.top_k]


def pairs(outputs: Predictions, image: int, testing: TestingConfig) -> list[list[float]]:
    """Return box, score, corner scores and class of every accepted pair, by loops."""
    kinds = []
    for heatmap, embedding, offset in zip(outputs.heatmaps, outputs.embeddings, outputs.offsets, strict=True):
        kind = []
        for score, label, y, x in peaks(heatmap[image].sigmoid().numpy(), testing):
            dx, dy = {"none": (0.0, 0.0), "centre": (0.5, 0.5)}.get(testing.offsets, offset[image, :, y, x].tolist())
            kind.append((score, label, x + dx, y + dy, embedding[image, :, y, x].tolist()))
        kinds.append(kind)
    rows = []
    for score, label, x1, y1, one in kinds[0]:
        for other_score, other_label, x2, y2, other in kinds[1]:
            near = math.dist(one, other) <= testing.embedding_threshold
            empty = testing.reject_empty and (x1 == x2 or y1 == y2)
            if label == other_label and near and x1 <= x2 and y1 <= y2 and not empty:
                rows.append([x1, y1, x2, y2, (score + other_score) / 2, score, other_score, label])
    return rows


@given(
    seed=st.integers(0, 10**6),
    dim=st.sampled_from([1, 3]),
    top_k=st.sampled_from([1, 5, 500]),
    peak_kernel=st.sampled_from([1, 3, 5]),
    offsets=st.sampled_from(["predicted", "none", "centre"]),
    reject_empty=st.booleans(),
)
def test_candidates_are_the_pairs_that_loops_find(seed, dim, top_k, peak_kernel, offsets, reject_empty) -> None:
    testing = TestingConfig(
        top_k=top_k,
        peak_kernel=peak_kernel,
        offsets=offsets,
        reject_empty=reject_empty,
        embedding_threshold=0.625,
        num_candidates=10_000,
    )
    outputs = predictions(seed, dim)
    for image, found in enumerate(decode(outputs, testing)):
        expected = np.array(pairs(outputs, image, testing)).reshape(-1, 8)
        table = torch.cat(
            [found.boxes, found.scores[:, None], found.corner_scores, found.labels[:, None].float()], dim=1
        ).numpy()
        assert (np.diff(table[:, 4]) <= 0).all()
        # with fewer peaks than top_k, other cells with a score of 0 fill it up
        table = table[(table[:, 5:7] > 0).all(1)]
        order = [rows[np.lexsort(rows.round(4).T)] for rows in (table, expected)]
        np.testing.assert_allclose(*order, rtol=1e-5, atol=1e-6)
        few = decode(outputs, TestingConfig(**{**vars(testing), "num_candidates": 3}))[image]
        assert torch.equal(few.scores, found.scores[:3])
    for image, kinds in enumerate(corners(outputs, testing)):
        for points, heatmap in zip(kinds, outputs.heatmaps, strict=True):
            best = peaks(heatmap[image].sigmoid().numpy(), testing)
            np.testing.assert_allclose(points.scores.numpy(), [p[0] for p in best], rtol=1e-6)
            assert points.labels.tolist() == [p[1] for p in best]


def test_nan_makes_no_pair() -> None:
    testing = TestingConfig(embedding_threshold=10.0, num_candidates=10_000)
    for field in ("heatmaps", "embeddings", "offsets"):
        outputs = predictions(1, 1)
        getattr(outputs, field).top_left[:] = math.nan
        assert all((found.corner_scores[:, 0] == 0).all() for found in decode(outputs, testing)), field


@pytest.mark.parametrize("size", [(1, 1), (1, 5)])
def test_maps_smaller_than_top_k_are_decoded(size) -> None:
    (found, _) = decode(predictions(3, 1, size), TestingConfig(top_k=100, embedding_threshold=5.0))
    assert len(found.scores) > 0
    assert (found.boxes[:, 0] <= found.boxes[:, 2]).all()
