"""Large heatmaps are decoded in one pass, to the boxes of the plain way, but for the order of equal scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cornernet import Candidates, Corners, Predictions
from cornernet.config import TestingConfig
from cornernet.heads.corner.decode import decode, decode_padded
from cornernet.heads.corner.decode_cpu import decode_large, serves

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def predictions(seed: int, layout: torch.memory_format, scale: float = 1.0) -> Predictions:
    generator = torch.Generator().manual_seed(seed)

    def corners(channels: int, low: float, factor: float) -> Corners[torch.Tensor]:
        return Corners(
            *(
                (torch.randn(2, channels, 48, 56, generator=generator) * factor + low).contiguous(memory_format=layout)
                for _ in range(2)
            )
        )

    return Predictions(corners(60, -3.0, scale), corners(1, 0.0, 0.5), corners(2, 0.5, 0.1))


def plain(outputs: Predictions, testing: TestingConfig) -> list[Candidates]:
    padded = decode_padded(outputs, testing)
    return [Candidates(*(c[b, :n] for c in padded)) for b, n in enumerate((padded.scores > -1).sum(1).tolist())]


def rows(found: Candidates) -> np.ndarray:
    table = torch.cat([found.boxes, found.scores[:, None], found.corner_scores, found.labels[:, None]], dim=1).numpy()
    return table[np.lexsort(table.T)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels_last"])
@pytest.mark.parametrize(
    "change", [{}, {"peak_kernel": 5}, {"top_k": 30}, {"num_candidates": 40}, {"reject_empty": True}]
)
def test_the_bits_are_those_of_the_plain_way(layout, change) -> None:
    outputs, testing = predictions(1, layout), TestingConfig(**change)
    assert serves(outputs, testing)
    found = decode_large(outputs, testing)
    assert found is not None
    assert sum(len(mine.scores) for mine in found) > 0
    for mine, theirs in zip(found, plain(outputs, testing), strict=True):
        np.testing.assert_array_equal(rows(mine), rows(theirs))
        assert torch.equal(mine.scores, theirs.scores)


@pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels_last"])
def test_numbers_that_are_none_are_no_corners_here_either(layout) -> None:
    outputs = predictions(2, layout)
    for heatmap in outputs.heatmaps:
        heatmap[0, 3] = float("nan")
        heatmap[1, :, 10:12, 7] = float("nan")
    found = decode_large(outputs, TestingConfig())
    assert found is not None
    for mine, theirs in zip(found, plain(outputs, TestingConfig()), strict=True):
        np.testing.assert_array_equal(rows(mine), rows(theirs))


@pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels_last"])
def test_neighbours_whose_scores_round_to_the_same_number_are_both_peaks(layout) -> None:
    outputs = predictions(3, layout)
    for heatmap in outputs.heatmaps:
        heatmap[:, 5, 20, 20] = 9.0
        heatmap[:, 5, 20, 21] = 9.0 + 2e-6
        assert heatmap[0, 5, 20, 20].sigmoid() == heatmap[0, 5, 20, 21].sigmoid()
        assert heatmap[0, 5, 20, 20] != heatmap[0, 5, 20, 21]
    found = decode_large(outputs, TestingConfig())
    assert found is not None
    for mine, theirs in zip(found, plain(outputs, TestingConfig()), strict=True):
        np.testing.assert_array_equal(rows(mine), rows(theirs))


def test_too_few_peaks_are_left_to_the_plain_way() -> None:
    outputs = predictions(4, torch.contiguous_format)
    for heatmap in outputs.heatmaps:
        heatmap.fill_(-5.0)
        heatmap[:, :, ::2] = float("-inf")
        heatmap[:, 1:] = float("-inf")
        heatmap[:, :, 4:] = float("-inf")
    assert decode_large(outputs, TestingConfig(top_k=200)) is None
    assert [len(c.scores) for c in decode(outputs, TestingConfig(top_k=200))] == [
        len(c.scores) for c in plain(outputs, TestingConfig(top_k=200))
    ]


def test_it_is_asked_about_large_maps_alone_and_never_about_gradients() -> None:
    outputs = predictions(5, torch.contiguous_format)
    small = Predictions(*(Corners(*(tensor[:, :, :24, :24] for tensor in pair)) for pair in outputs))
    assert not serves(small, TestingConfig())
    assert not serves(outputs, TestingConfig(substitute=("heatmaps",)))
    outputs.heatmaps.top_left.requires_grad_(True)
    assert not serves(outputs, TestingConfig())
