"""One-pass decoding of large heatmaps gives the boxes of the plain way, except for the order of equal scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cornernet import Candidates, Corners, Predictions
from cornernet.config import TestingConfig
from cornernet.model.heads.corner.decode import decode, decode_padded
from cornernet.model.heads.corner.decode_cpu import decode_large, serves

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
def test_nan_is_not_a_corner_here_either(layout) -> None:
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


def rising(heatmap: torch.Tensor) -> torch.Tensor:
    """The best peaks come last in memory, so that earlier ones rule out none of them."""
    return heatmap * 0.1 + torch.linspace(-6, 2, heatmap[0].numel()).reshape(heatmap[0].shape)


def smooth(heatmap: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(heatmap, 5, stride=1, padding=2) - 3


def in_one_corner(heatmap: torch.Tensor) -> torch.Tensor:
    """All good peaks are next to each other and hide each other."""
    heatmap = heatmap - 6
    heatmap[:, 7:9, :20, -20:] += 5
    return heatmap


def with_few_levels(heatmap: torch.Tensor) -> torch.Tensor:
    """Equal neighbours are all peaks."""
    rounded = (heatmap * 4).round() / 4
    rounded[heatmap > -1] = heatmap[heatmap > -1]
    return rounded


def saturated(heatmap: torch.Tensor) -> torch.Tensor:
    """Logits whose sigmoid is 1, or differs from 1 in the last digits."""
    return torch.where(heatmap > 0.1, heatmap + 14, heatmap)


def with_infinities(heatmap: torch.Tensor) -> torch.Tensor:
    heatmap = heatmap.clone()
    heatmap[:, 3, 5, 5] = float("inf")
    heatmap[:, 4] = float("-inf")
    heatmap[:, 5, :, 3] = -float("nan")
    heatmap[:, 9, 4] = float("nan")
    return heatmap


@pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels_last"])
@pytest.mark.parametrize(
    "change", [rising, smooth, in_one_corner, with_few_levels, saturated, with_infinities], ids=lambda f: f.__name__
)
def test_the_bits_are_those_of_the_plain_way_for_all_kinds_of_heatmaps(change, layout) -> None:
    outputs = predictions(6, layout)
    outputs = outputs._replace(
        heatmaps=Corners(*(change(heatmap).contiguous(memory_format=layout) for heatmap in outputs.heatmaps))
    )
    outputs.embeddings.top_left.mul_(0.2)
    outputs.embeddings.bottom_right.mul_(0.2)
    found = decode(outputs, TestingConfig())
    assert sum(len(mine.scores) for mine in found) > 0
    for mine, theirs in zip(found, plain(outputs, TestingConfig()), strict=True):
        np.testing.assert_array_equal(rows(mine), rows(theirs))
    # if the choice among equal corners is ambiguous, it is that of the plain way
    assert (decode_large(outputs, TestingConfig()) is None) == (change is saturated)


def test_scores_that_run_out_of_digits_are_left_to_the_plain_way() -> None:
    outputs = predictions(7, torch.contiguous_format)
    for heatmap in outputs.heatmaps:
        heatmap.mul_(0.01).sub_(100)  # neighbours that differ have the same sigmoid
    assert decode_large(outputs, TestingConfig()) is None
    for mine, theirs in zip(decode(outputs, TestingConfig()), plain(outputs, TestingConfig()), strict=True):
        np.testing.assert_array_equal(rows(mine), rows(theirs))


@pytest.mark.parametrize("value", [-2.19, float("nan"), float("-inf"), float("inf")])
def test_constant_heatmaps_are_left_to_the_plain_way(value) -> None:
    outputs = predictions(8, torch.channels_last)
    for heatmap in outputs.heatmaps:
        heatmap.fill_(value)
    assert decode_large(outputs, TestingConfig()) is None
    for mine, theirs in zip(decode(outputs, TestingConfig()), plain(outputs, TestingConfig()), strict=True):
        np.testing.assert_array_equal(rows(mine), rows(theirs))


def test_equal_pairs_that_are_not_all_candidates_are_left_to_the_plain_way() -> None:
    outputs = predictions(11, torch.contiguous_format)
    for heatmap in outputs.heatmaps:
        heatmap.sub_(10)
        heatmap[:, 0, ::5, ::5] = torch.arange(120.0).reshape(10, 12) / 100
        heatmap[:, 0, :25, :5] = 3.0  # 125 cells: equal neighbours are all peaks
        heatmap[:, 0, 5:20, :5] = -20.0
    for embedding in outputs.embeddings:
        embedding.zero_()
    testing = TestingConfig(num_candidates=20)
    assert decode_large(outputs, TestingConfig(num_candidates=10000)) is not None
    assert decode_large(outputs, testing) is None
    for mine, theirs in zip(decode(outputs, testing), plain(outputs, testing), strict=True):
        np.testing.assert_array_equal(rows(mine), rows(theirs))


@pytest.mark.parametrize("size", [(49, 57), (48, 56)])
@pytest.mark.parametrize("batch", [1, 3])
def test_sizes_and_threads_change_nothing(size, batch) -> None:
    generator = torch.Generator().manual_seed(9)
    outputs = Predictions(
        *(Corners(*(torch.randn(batch, n, *size, generator=generator) for _ in range(2))) for n in (61, 1, 2))
    )
    expected, before = plain(outputs, TestingConfig()), torch.get_num_threads()
    try:
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            found = decode_large(outputs, TestingConfig())
            assert found is not None
            for mine, theirs in zip(found, expected, strict=True):
                np.testing.assert_array_equal(rows(mine), rows(theirs))
    finally:
        torch.set_num_threads(before)


def test_heatmaps_of_any_strides_are_read() -> None:
    outputs = predictions(10, torch.contiguous_format)
    wide = Predictions(*(Corners(*(F.pad(tensor, (3, 2, 1, 4)) for tensor in pair)) for pair in outputs))
    cut = Predictions(*(Corners(*(tensor[:, :, 1:-4, 3:-2] for tensor in pair)) for pair in wide))
    assert not cut.heatmaps.top_left.is_contiguous()
    found, expected = decode_large(cut, TestingConfig()), decode_large(outputs, TestingConfig())
    assert found is not None
    assert expected is not None
    for mine, theirs in zip(found, expected, strict=True):
        assert all(torch.equal(*columns) for columns in zip(mine, theirs, strict=True))


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


def test_it_is_used_only_for_large_maps_and_never_with_gradients() -> None:
    outputs = predictions(5, torch.contiguous_format)
    small = Predictions(*(Corners(*(tensor[:, :, :24, :24] for tensor in pair)) for pair in outputs))
    assert not serves(small, TestingConfig())
    assert not serves(outputs, TestingConfig(substitute=("heatmaps",)))
    outputs.heatmaps.top_left.requires_grad_(True)
    assert not serves(outputs, TestingConfig())
