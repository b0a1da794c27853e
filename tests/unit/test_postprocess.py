"""The test path: boxes to the heatmap and back, suppression, and the reported boxes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cornernet import Candidates, Config, build_detector, recipe
from cornernet.config import DataConfig, TestingConfig
from cornernet.data.images import DataError
from cornernet.inference.detect import decode, detect, network
from cornernet.inference.placement import pad_to_stride, prepare, to_photo
from cornernet.inference.suppression import soft_nms, suppress

Rows = npt.NDArray[np.float32]
Method = Literal["hard", "linear", "gaussian"]
METHODS: tuple[Method, ...] = get_args(Method)

# ----------------------------------------------------------------------------------------- soft-NMS


def overlap(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Return the IoU of two boxes whose sides count pixels."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    area_a, area_b = ((r[2] - r[0] + 1) * (r[3] - r[1] + 1) for r in (a, b))
    return float(width * height / (area_a + area_b - width * height))


def plain_soft_nms(
    given_rows: Rows, method: Method, iou: float, exponent: float | None, column_defect: bool
) -> tuple[npt.NDArray[np.float64], int]:
    """Return the whole array and the number of survivors, computed row by row from the definition, in float64."""
    rows: npt.NDArray[np.float64] = given_rows.astype(np.float64)
    moving = 5 if column_defect else 7
    live, i = len(rows), 0
    while i < live:
        best = i + int(np.argmax(rows[i:live, 4]))
        rows[[i, best], :moving] = rows[[best, i], :moving]
        sums = np.outer(rows[i, 5:], [1, 1]).ravel() * rows[i, :4]
        totals = rows[i, 5:].copy()
        pos = i + 1
        while pos < live:
            ov = overlap(rows[i], rows[pos])
            if ov > 0:
                if method == "gaussian":
                    factor = float(np.exp(-ov * ov / 0.5))
                else:
                    factor = 1.0 if ov <= iou else (0.0 if method == "hard" else 1 - ov)
                weight = 0.0 if exponent is None else (1 - factor) ** exponent
                sums += weight * np.repeat(rows[pos, 5:], 2) * rows[pos, :4]
                totals += weight * rows[pos, 5:]
                rows[pos, 4] *= factor
                if rows[pos, 4] < 0.001:
                    rows[pos, :moving] = rows[live - 1, :moving]
                    live -= 1
                    pos -= 1
            pos += 1
        if exponent is not None:
            rows[i, :4] = sums / np.repeat(totals, 2)
        i += 1
    return rows, live


@st.composite
def boxes_of_one_class(draw: st.DrawFn) -> Rows:
    """Draw boxes on a coarse grid, some of them equal or with equal scores; all scores are exact in float32."""
    count = draw(st.integers(0, 14))
    grid = st.integers(0, 6)
    size = st.integers(0, 6)
    levels = st.sampled_from([0.125, 0.5, 0.875])
    values = []
    for _ in range(count):
        x, y = 8 * draw(grid), 8 * draw(grid)
        box = [x, y, x + 8 * draw(size) + 3, y + 8 * draw(size) + 3]
        values.append([*box, draw(st.sampled_from([0.0625, 0.25, 0.5, 0.75, 0.9375])), draw(levels), draw(levels)])
    return np.array(values, np.float32).reshape(-1, 7)


def random_boxes(seed: int, count: int) -> Rows:
    rng = np.random.default_rng(seed)
    corner = rng.random((count, 2)) * 200
    return np.column_stack([corner, corner + rng.random((count, 2)) * 150, rng.random((count, 3))]).astype(np.float32)


@pytest.mark.parametrize("stale_rows", [False, True])
@pytest.mark.parametrize("column_defect", [False, True])
@pytest.mark.parametrize("exponent", [None, 3.0])
@pytest.mark.parametrize("method", ["hard", "gaussian"])
@settings(deadline=None, max_examples=60)
@given(rows=boxes_of_one_class())
def test_soft_nms_is_the_definition_row_by_row_with_and_without_each_defect(
    method: Method, exponent: float | None, column_defect: bool, stale_rows: bool, rows: Rows
) -> None:
    expected, live = plain_soft_nms(rows, method, 0.5, exponent, column_defect)
    before = rows.copy()
    found = soft_nms(rows, method=method, merge_exponent=exponent, column_defect=column_defect, stale_rows=stale_rows)
    assert np.array_equal(rows, before)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected if stale_rows else expected[:live], rtol=0, atol=2e-3)


@pytest.mark.parametrize("exponent", [None, 10.0])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_soft_nms_is_the_definition_on_many_boxes(seed: int, method: Method, exponent: float | None) -> None:
    rows = random_boxes(seed, 150)
    expected, live = plain_soft_nms(rows, method, 0.5, exponent, column_defect=False)
    found = soft_nms(rows, method=method, merge_exponent=exponent)
    np.testing.assert_allclose(found, expected[:live], rtol=0, atol=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_survivors_are_rows_of_the_input_with_scores_that_only_fall(method: Method) -> None:
    rows = random_boxes(5, 120)
    found = soft_nms(rows, method=method)
    assert 0 < len(found) <= len(rows)
    source = {tuple(np.delete(row, 4)): row[4] for row in rows.tolist()}
    scores = [source.pop(tuple(np.delete(row, 4))) for row in found.tolist()]
    assert (found[:, 4] <= np.array(scores, np.float32)).all()
    assert (np.diff(found[:, 4]) <= 0).all()


@pytest.mark.parametrize("min_score", [0.0, 0.001, 0.5])
def test_hard_nms_leaves_no_pair_over_the_threshold_and_no_score_changed(min_score: float) -> None:
    rows = random_boxes(6, 120)
    found = soft_nms(rows, method="hard", iou=0.3, min_score=min_score)
    assert len(found) > 5
    assert max(overlap(a, b) for a, b in itertools.combinations(found, 2)) <= 0.3
    assert set(found[:, 4].tolist()) <= set(rows[:, 4].tolist())


def test_an_iou_at_the_threshold_is_not_over_it() -> None:
    # 10 by 10 pixels and the upper half of them
    rows = np.array([[0, 0, 9, 9, 0.9, 0, 0], [0, 0, 9, 4, 0.8, 0, 0]], np.float32)
    for method in ("hard", "linear"):
        assert soft_nms(rows, method=method, iou=0.5)[:, 4].tolist() == rows[:, 4].tolist()
        assert soft_nms(rows, method=method, iou=0.49).tolist() != rows.tolist()


def test_linear_and_gaussian_lower_by_their_formulas() -> None:
    rows = np.array([[0, 0, 9, 9, 0.9, 0, 0], [0, 0, 9, 5, 0.8, 0, 0]], np.float32)
    iou = 0.6
    linear, gaussian = (soft_nms(rows, method=method, sigma=0.4) for method in ("linear", "gaussian"))
    assert linear[1, 4] == pytest.approx(0.8 * (1 - iou))
    assert gaussian[1, 4] == pytest.approx(0.8 * np.exp(-(iou**2) / 0.4))
    assert soft_nms(rows, method="linear", iou=0.61)[1, 4] == rows[1, 4]


def test_merging_averages_by_corner_scores_and_overlap() -> None:
    rows = np.array([[0, 0, 9, 9, 0.9, 0.5, 1.0], [0, 0, 9, 5, 0.8, 1.0, 0.25]], np.float32)
    merged = soft_nms(rows, method="linear", merge_exponent=2.0)
    weight = 0.6**2
    assert merged[0, :3].tolist() == [0, 0, 9]
    assert merged[0, 3] == pytest.approx((9 * 1.0 + 5 * 0.25 * weight) / (1.0 + 0.25 * weight))
    assert merged[1, :4].tolist() == rows[1, :4].tolist()


def test_merging_with_corner_scores_of_zero_leaves_the_box() -> None:
    rows = np.array([[0, 0, 9, 9, 0.9, 0, 0], [0, 0, 9, 5, 0.8, 0, 0]], np.float32)
    assert soft_nms(rows, method="linear", merge_exponent=2.0)[0, :4].tolist() == [0, 0, 9, 9]


def test_equal_scores_are_picked_in_the_order_of_the_array() -> None:
    rows = random_boxes(7, 6)
    rows[:, :4] += 1000 * np.arange(6, dtype=np.float32)[:, None]
    rows[:, 4] = 0.5
    assert np.array_equal(soft_nms(rows), rows)


@pytest.mark.parametrize("exponent", [None, 10.0])
@pytest.mark.parametrize("method", METHODS)
def test_max_picks_gives_the_first_survivors(method: Method, exponent: float | None) -> None:
    rows = random_boxes(8, 100)
    everything = soft_nms(rows, method=method, merge_exponent=exponent)
    assert np.array_equal(soft_nms(rows, method=method, merge_exponent=exponent, max_picks=10), everything[:10])
    assert np.array_equal(soft_nms(rows, method=method, merge_exponent=exponent, max_picks=1000), everything)


@pytest.mark.parametrize("switches", [{}, {"column_defect": True, "stale_rows": True, "merge_exponent": 8.0}])
@pytest.mark.parametrize("count", [0, 1])
def test_no_box_and_one_box_come_back_as_they_are(count: int, switches: dict[str, Any]) -> None:
    rows = random_boxes(9, count)
    for method in METHODS:
        np.testing.assert_allclose(soft_nms(rows, method=method, **switches), rows, rtol=1e-6)


def test_soft_nms_computes_in_float32_whatever_it_is_given() -> None:
    rows = np.random.default_rng(0).random((12, 7)) * [9, 9, 9, 9, 1, 1, 1] + [0, 0, 9, 9, 0, 0, 0]
    found = soft_nms(rows, merge_exponent=10.0)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, soft_nms(rows.astype(np.float32), merge_exponent=10.0))


def test_soft_nms_refuses_other_shapes_and_methods() -> None:
    with pytest.raises(ValueError, match=r"\[N, 7\], not \[3, 5\]"):
        soft_nms(np.zeros((3, 5), np.float32))
    with pytest.raises(ValueError, match="'softest'"):
        soft_nms(np.zeros((3, 7), np.float32), method="softest")  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------- suppress


def candidates_of(rows: Rows, labels: list[int] | npt.NDArray[np.int64]) -> Candidates:
    table = torch.from_numpy(rows)
    return Candidates(table[:, :4], table[:, 4], table[:, 5:], torch.as_tensor(labels))


def test_suppress_treats_classes_apart_and_reports_the_best_first() -> None:
    rows = random_boxes(10, 40)
    labels = np.arange(40) % 3
    found = suppress([candidates_of(rows[:15], labels[:15]), candidates_of(rows[15:], labels[15:])], TestingConfig())
    for label in range(3):
        alone = soft_nms(rows[labels == label])
        mine = found.labels == label
        np.testing.assert_array_equal(found.boxes[mine], alone[:, :4])
        np.testing.assert_array_equal(found.scores[mine], alone[:, 4])
    assert (np.diff(found.scores) <= 0).all()


@pytest.mark.parametrize("column_defect", [False, True])
@pytest.mark.parametrize("method", ["hard", "linear", "gaussian"])
def test_suppress_takes_its_settings_from_the_configuration(method: str, column_defect: bool) -> None:
    # classes are suppressed one by one with the authors' defect, and all at once without it
    rows, labels = random_boxes(10, 60), np.arange(60) % 2
    for iou, sigma, min_score in ((0.5, 0.5, 0.001), (0.1, 0.5, 0.001), (0.5, 0.05, 0.001), (0.5, 0.5, 0.3)):
        testing = TestingConfig(nms=method, nms_iou=iou, nms_sigma=sigma, min_score=min_score)
        found = suppress([candidates_of(rows, labels)], testing, column_defect=column_defect)
        assert found.labels.dtype == np.int64
        for label in range(2):
            settings = {"method": method, "iou": iou, "sigma": sigma, "min_score": min_score}
            alone = soft_nms(rows[labels == label], column_defect=column_defect, **settings)
            np.testing.assert_array_equal(found.scores[found.labels == label], alone[:, 4])


def test_suppress_drops_padding_and_nothing_else() -> None:
    rows = random_boxes(11, 4)
    rows[:, :4] += 1000 * np.arange(4, dtype=np.float32)[:, None]
    rows[:, 4] = [-1, 0.5, 0.0, -1]
    found = suppress([candidates_of(rows, [0, 0, 0, 0])], TestingConfig())
    assert found.scores.tolist() == [0.5, 0.0]


@pytest.mark.parametrize("nothing", [[], [candidates_of(np.empty((0, 7), np.float32), np.empty(0, np.int64))]])
@pytest.mark.parametrize("compatible", [False, True])
def test_suppress_of_nothing_is_nothing(nothing: list[Candidates], compatible: bool) -> None:
    assert len(suppress(nothing, TestingConfig(authors_compatible=compatible))) == 0


def test_our_default_caps_ties_in_order_and_the_authors_report_them_all() -> None:
    rows = random_boxes(12, 6)
    rows[:, :4] += 1000 * np.arange(6, dtype=np.float32)[:, None]
    rows[:, 4] = [0.5, 0.9, 0.5, 0.5, 0.1, 0.5]
    labels = [1, 1, 0, 1, 0, 0]
    capped = suppress([candidates_of(rows, labels)], TestingConfig(max_detections=3))
    assert capped.boxes.tolist() == rows[[1, 2, 5], :4].tolist()
    authors = suppress([candidates_of(rows, labels)], TestingConfig(max_detections=3, authors_compatible=True))
    assert authors.boxes.tolist() == rows[[2, 5, 1, 0, 3], :4].tolist()


def test_stopping_early_changes_nothing_that_is_reported() -> None:
    rows, labels = random_boxes(13, 400), np.arange(400) % 2
    whole = suppress([candidates_of(rows, labels)], TestingConfig(max_detections=400))
    capped = suppress([candidates_of(rows, labels)], TestingConfig(max_detections=20))
    np.testing.assert_array_equal(capped.boxes, whole.boxes[:20])
    np.testing.assert_array_equal(capped.labels, whole.labels[:20])


def test_each_defect_is_a_switch_of_its_own() -> None:
    rows = random_boxes(14, 60)
    candidates, testing = [candidates_of(rows, [0] * 60)], TestingConfig(merge=True, nms="hard")
    sound = suppress(candidates, testing)
    stale = suppress(candidates, testing, stale_rows=True)
    crossed = suppress(candidates, testing, column_defect=True)
    assert len(sound) == len(crossed) < len(stale) == 60
    np.testing.assert_array_equal(sound.scores, crossed.scores)
    assert not np.array_equal(sound.boxes, crossed.boxes)


def test_an_iou_of_points_is_smaller_than_one_of_pixels() -> None:
    rows = np.array([[0, 0, 10, 10, 0.9, 1, 1], [0, 5, 10, 15, 0.8, 1, 1]], np.float32)
    pixels, points = soft_nms(rows, method="linear", iou=0.0), soft_nms(rows, method="linear", iou=0.0, extent="points")
    assert pixels[1, 4] == pytest.approx(0.8 * (1 - 66 / (242 - 66)))
    assert points[1, 4] == pytest.approx(0.8 * (1 - 50 / 150))
    candidates = [candidates_of(rows, [0, 0])]
    testing = TestingConfig(nms="linear", nms_iou=0.0, nms_extent="points")
    np.testing.assert_array_equal(suppress(candidates, testing).scores, points[:, 4])


@pytest.mark.parametrize(("height", "width"), [(50, 70), (127, 127), (128, 200)])
@pytest.mark.parametrize("order", ["bgr", "rgb"])
def test_padding_with_the_mean_is_zero_around_the_photograph_and_changes_nothing_in_it(height, width, order) -> None:
    image = np.random.default_rng(3).integers(1, 256, (height, width, 3), np.uint8)
    black = replace(DataConfig(), channel_order=order)
    (plain, placement), (filled, _) = (
        prepare(image, config, 1.0, True, 128) for config in (black, replace(black, padding="mean"))
    )
    (dx, dy), (h, w) = placement.offset, placement.scaled
    inside = torch.zeros(placement.canvas, dtype=torch.bool)
    inside[max(dy, 0) : dy + h, max(dx, 0) : dx + w] = True
    inside[-1], inside[:, -1] = False, False  # where the authors' windows do not reach
    inside = torch.stack([inside, inside.flip(1)])[:, None].expand_as(plain)
    assert torch.equal(plain[inside], filled[inside])
    assert (filled[~inside] == 0).all()
    assert not inside.all()
    assert (plain[~inside] != 0).all()


# ----------------------------------------------------------------------------------------- geometry


@pytest.mark.parametrize(("height", "width"), [(1, 1), (95, 95), (127, 128), (223, 301), (480, 640)])
@pytest.mark.parametrize("scale", [0.5, 0.75, 1.0, 1.5])
@pytest.mark.parametrize("total_stride", [8, 128])
def test_a_box_on_the_canvas_comes_back_to_the_photograph(
    height: int, width: int, scale: float, total_stride: int
) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    canvas, placement = pad_to_stride(image, scale, total_stride)
    assert canvas.shape[:2] == placement.canvas
    assert all((side + 1) % total_stride == 0 for side in placement.canvas)
    rng = np.random.default_rng(0)
    corners = rng.random((20, 2, 2)).astype(np.float32) * [[width, height]]
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    limit = [placement.scaled[1], placement.scaled[0]] * 2
    expected = np.minimum(boxes * scale, limit) / scale
    canvas_x = boxes[:, ::2] * scale + placement.offset[0]
    canvas_y = boxes[:, 1::2] * scale + placement.offset[1]
    for mirrored in (False, True):
        x = placement.canvas[1] - canvas_x[:, ::-1] if mirrored else canvas_x
        cells = np.stack([x[:, 0], canvas_y[:, 0], x[:, 1], canvas_y[:, 1]], axis=1)
        cells *= placement.ratio * 2
        rows = np.column_stack([cells, rng.random((20, 3))]).astype(np.float32)
        found = to_photo(candidates_of(rows, [0] * 20), placement, mirrored)
        np.testing.assert_allclose(found.boxes.numpy(), expected, rtol=0, atol=2e-3)
        np.testing.assert_array_equal(found.corner_scores.numpy(), rows[:, 5:])


def test_restored_boxes_never_leave_the_photograph() -> None:
    _, placement = pad_to_stride(np.zeros((50, 70, 3), np.uint8), 1.0, 128)
    rows = np.array([[-100, -3, 900, 800, 1, 1, 1]], np.float32)
    assert to_photo(candidates_of(rows, [0]), placement).boxes.tolist() == [[0, 0, 70, 50]]


def test_the_window_is_where_the_photograph_lies_in_the_heatmap() -> None:
    _, placement = pad_to_stride(np.zeros((50, 70, 3), np.uint8), 1.0, 128)
    rows = np.array([[*placement.window, 1, 1, 1]], np.float32)
    np.testing.assert_allclose(to_photo(candidates_of(rows, [0]), placement).boxes[0], [0, 0, 70, 50], atol=1e-4)


def test_place_refuses_a_stride_that_is_no_power_of_two() -> None:
    with pytest.raises(ValueError, match="power of two"):
        pad_to_stride(np.zeros((5, 5, 3), np.uint8), 1.0, 96)
    with pytest.raises(ValueError, match="power of two"):
        pad_to_stride(np.zeros((5, 5, 3), np.uint8), 1.0, 0)
    assert pad_to_stride(np.zeros((5, 5, 3), np.uint8), 1.0, 1)[1].canvas == (5, 5)


def test_prepare_puts_the_mirror_image_second_and_black_around() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    batch, placement = prepare(photo, DataConfig(), 1.0, flip=True, total_stride=64)
    assert (batch.shape, batch.dtype) == ((2, 3, 63, 63), torch.float32)
    assert torch.equal(batch[1], batch[0].flip(-1))
    black = -torch.tensor(DataConfig().mean) / torch.tensor(DataConfig().std)
    torch.testing.assert_close(batch[0, :, 0, 0], black)
    dx, dy = placement.offset
    pixel = (torch.from_numpy(photo[3, 4]) / 255 - torch.tensor(DataConfig().mean)) / torch.tensor(DataConfig().std)
    torch.testing.assert_close(batch[0, :, dy + 3, dx + 4], pixel)
    assert len(prepare(photo, DataConfig(), 1.0, flip=False, total_stride=64)[0]) == 1


# --------------------------------------------------------------------------------------- end to end


class ColourSeer(nn.Module):
    """A detector that finds the bright rectangle of each of the three channels, exactly to the pixel."""

    output_stride = 4
    classes = None
    category_ids = None

    def __init__(self, total_stride: int) -> None:
        super().__init__()
        self.total_stride = total_stride
        self.weight = nn.Parameter(torch.ones(1))
        self.seen: list[tuple[bool, bool, tuple[int, ...]]] = []

    def forward(self, images: Tensor, last_only: bool = False) -> list[Any]:
        self.seen.append((self.training, torch.is_inference_mode_enabled(), tuple(images.shape)))
        data = DataConfig()
        pixels = images * torch.tensor(data.std)[:, None, None] + torch.tensor(data.mean)[:, None, None]
        return [pixels]

    def decode(self, predictions: list[Any], testing: TestingConfig) -> list[Candidates]:
        return [self._look(pixels) for pixels in predictions[-1]]

    def _look(self, pixels: Tensor) -> Candidates:
        height, width = pixels.shape[1:]
        ratio = torch.tensor([(width + 1) // 4 / width, (height + 1) // 4 / height])
        boxes, labels = [], []
        for label, plane in enumerate(pixels):
            rows, columns = torch.nonzero(plane > 0.5, as_tuple=True)
            if len(rows):
                low = torch.stack([columns.min(), rows.min()])
                high = torch.stack([columns.max(), rows.max()]) + 1
                boxes.append(torch.cat([low * ratio, high * ratio]))
                labels.append(label)
        count = len(boxes)
        scores = torch.full((count,), 0.9)
        stacked = torch.stack(boxes) if count else torch.empty(0, 4)
        return Candidates(stacked, scores, scores[:, None].expand(-1, 2), torch.tensor(labels, dtype=torch.int64))


def seer(total_stride: int = 128) -> Any:
    return ColourSeer(total_stride)


PLANTED = np.array([[0.05, 0.1, 0.45, 0.5], [0.5, 0.3, 0.95, 0.8], [0.1, 0.6, 0.4, 1.0]])


def planted(height: int, width: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return a dark photograph with a bright rectangle in each channel, and the boxes of the rectangles."""
    photo = np.full((height, width, 3), 20, np.uint8)
    boxes = np.rint(PLANTED * [width, height, width, height]).astype(np.int64)
    for channel, (x1, y1, x2, y2) in enumerate(boxes):
        photo[y1:y2, x1:x2, channel] = 240
    return photo, boxes


def config_with(testing: TestingConfig, fit: tuple[int, int] | None = None) -> Config:
    return replace(Config(), testing=testing, data=DataConfig(fit=fit))


@pytest.mark.parametrize(("height", "width"), [(95, 95), (64, 130), (127, 256), (223, 301), (301, 640)])
@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 1.5)], ids=["single", "multi"])
@pytest.mark.parametrize("flip", [False, True], ids=["plain", "flip"])
@pytest.mark.parametrize("fit", [None, (60, 100)], ids=["full", "fitted"])
@pytest.mark.parametrize("total_stride", [8, 128])
def test_planted_boxes_come_back_in_pixels_of_the_original(
    height: int, width: int, scales: tuple[float, ...], flip: bool, fit: tuple[int, int] | None, total_stride: int
) -> None:
    photo, boxes = planted(height, width)
    config = config_with(TestingConfig(scales=scales, flip=flip, nms="hard", nms_iou=0.5), fit)
    detector = seer(total_stride)
    (found,) = detect(detector, photo, config)
    assert len(detector.seen) == len(scales)
    assert all(shape[0] == 1 + flip for _, _, shape in detector.seen)
    # suppression leaves one box per class only if all flips and scales agree
    assert sorted(found.labels.tolist()) == [0, 1, 2]
    shrunk = 1.0 if fit is None else min(1.0, fit[0] / height, fit[1] / width)
    # a side that is rounded down, the row that a canvas of the same side cuts off, and the threshold between pixels
    tolerance = 2.0 / (shrunk * min(scales))
    np.testing.assert_allclose(found.boxes[np.argsort(found.labels)], boxes, rtol=0, atol=tolerance)
    assert found.size == (height, width)


def test_every_flip_and_scale_finds_the_planted_boxes_by_itself() -> None:
    photo, boxes = planted(223, 301)
    detector = seer()
    for scale in (0.5, 1.0, 1.5):
        batch, placement = prepare(photo, DataConfig(), scale, flip=True, total_stride=128)
        found = decode(detector, network(detector, batch), TestingConfig())
        assert len(found) == 2
        for index, candidates in enumerate(found):
            back = to_photo(candidates, placement, mirrored=index == 1)
            np.testing.assert_allclose(back.boxes.numpy(), boxes, rtol=0, atol=1.01 / scale)


@pytest.mark.parametrize(("height", "width"), [(95, 93), (63, 121)])
def test_a_mirrored_photograph_has_mirrored_detections(height: int, width: int) -> None:
    photo, _ = planted(height, width)
    config = config_with(TestingConfig(nms="hard"))
    (plain,), (mirrored,) = (detect(seer(), np.ascontiguousarray(p), config) for p in (photo, photo[:, ::-1]))
    expected = plain.boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0]
    np.testing.assert_allclose(mirrored.boxes, expected, rtol=0, atol=1e-3)
    np.testing.assert_array_equal(mirrored.labels, plain.labels)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (7, 1)])
@pytest.mark.parametrize("fit", [None, (4, 4)])
def test_the_smallest_photographs_go_through(size: tuple[int, int], fit: tuple[int, int] | None) -> None:
    photo = np.full((*size, 3), 240, np.uint8)
    (found,) = detect(seer(), photo, config_with(TestingConfig(scales=(0.5, 1.0, 1.25)), fit))
    assert (found.boxes >= 0).all()
    assert (found.boxes <= np.array([size[1], size[0]] * 2)).all()
    assert set(found.labels.tolist()) == {0, 1, 2}


def test_a_photograph_without_objects_has_no_detections() -> None:
    (found,) = detect(seer(), np.zeros((40, 50, 3), np.uint8), config_with(TestingConfig()))
    assert len(found) == 0
    assert found.size == (40, 50)


# ------------------------------------------------------------------------------- the public function


@pytest.fixture(scope="module")
def photo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "one.png"
    assert cv2.imwrite(str(path), planted(60, 80)[0])
    return path


def test_detect_takes_single_arrays_and_paths_and_sequences_of_them(photo_file: Path) -> None:
    photo, config = planted(60, 80)[0], config_with(TestingConfig())
    many = detect(seer(), [photo, photo_file, str(photo_file)], config, ("a", "b", "c"), (10, 20, 30))
    assert [found.image_id for found in many] == [None, str(photo_file), str(photo_file)]
    for alone in (photo, photo_file, str(photo_file), np.stack([photo])):
        (found,) = detect(seer(), alone, config)
        np.testing.assert_array_equal(found.boxes, many[0].boxes)
    assert {row["category_id"] for row in many[1].to_coco()} == {10, 20, 30}
    assert {found.classes for found in many} == {("a", "b", "c")}
    named = seer()
    named.classes, named.category_ids = ("x", "y", "z"), (4, 5, 6)
    assert [found.classes for found in detect(named, [photo], config)] == [("x", "y", "z")]
    assert [found.classes for found in detect(named, [photo], config, ("a", "b", "c"))] == [("a", "b", "c")]
    assert {row["category_id"] for row in detect(named, photo_file, config)[0].to_coco()} == {4, 5, 6}
    assert detect(seer(), [], config) == []


def test_detect_refuses_what_is_no_photograph(tmp_path: Path) -> None:
    config = config_with(TestingConfig())
    wrong: Any
    for wrong in (np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 0, 3), np.uint8)):
        with pytest.raises(ValueError, match="a photograph must be uint8"):
            detect(seer(), [wrong], config)
    (tmp_path / "no.jpg").write_text("words")
    for path in (tmp_path / "no.jpg", tmp_path / "gone.jpg"):
        with pytest.raises(DataError, match=path.name):
            detect(seer(), path, config)


def test_detect_runs_in_evaluation_mode_without_gradients_and_restores_every_mode() -> None:
    detector = seer()
    detector.part = nn.BatchNorm2d(1).eval()
    detector.train()
    detector.part.eval()
    detect(detector, planted(30, 30)[0], config_with(TestingConfig()))
    assert detector.seen == [(False, True, (2, 3, 127, 127))]
    assert (detector.training, detector.part.training) == (True, False)
    with pytest.raises(ValueError, match="photograph"):
        detect(detector, [np.zeros((4, 4), np.uint8)], config_with(TestingConfig()))
    assert (detector.training, detector.part.training) == (True, False)


def test_a_real_detector_reports_boxes_in_the_photograph_and_the_same_ones_twice() -> None:
    torch.manual_seed(0)
    config = recipe("tiny")
    detector = build_detector(config)
    photos = [planted(height, width)[0] for height, width in ((95, 95), (40, 120))]
    first, second = (detect(detector, photos, config, ("a", "b", "c")) for _ in range(2))
    for photo, a, b in zip(photos, first, second, strict=True):
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_array_equal(a.scores, b.scores)
        assert 0 < len(a) <= config.testing.max_detections
        assert (a.boxes >= 0).all()
        assert (a.boxes <= np.array([photo.shape[1], photo.shape[0]] * 2)).all()
    assert detector.training
