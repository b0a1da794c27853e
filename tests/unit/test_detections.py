"""Detections: invalid input, conversions, and drawing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cornernet.drawing.boxes import (
    BOTTOM_RIGHT_COLOUR,
    PALETTE,
    TOP_LEFT_COLOUR,
    draw_boxes,
    draw_heatmaps,
    enlargement,
)
from cornernet.inference.detections import Detections

CLASSES = ("cell", "platelet")


def made(boxes: Any, scores: Any, labels: Any, **more: Any) -> Detections:
    """Return Detections from anything that converts to arrays."""
    return Detections(boxes, scores, labels, **more)


@pytest.fixture
def three() -> Detections:
    return made(
        np.array([[10.25, 20.5, 40.125, 60.0], [0, 0, 5, 5], [30, 10, 90, 70]], np.float32),
        np.array([0.9, 0.05, 0.456789], np.float32),
        np.array([0, 1, 1]),
        classes=CLASSES,
        category_ids=(3, 90),
        image_id=7,
        size=(80, 100),
    )


def grey(height: int, width: int, value: int = 128) -> npt.NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


def has_colour(image: npt.NDArray[np.uint8], colour: tuple[int, int, int]) -> bool:
    return bool((image == np.array(colour, np.uint8)).all(axis=-1).any())


# ------------------------------------------------------------------------------------------- holding


def test_len_is_the_number_of_boxes(three: Detections) -> None:
    assert len(three) == 3


def test_arrays_are_copies_that_cannot_be_written() -> None:
    boxes = np.zeros((1, 4), np.float32)
    found = made(boxes, np.ones(1), np.zeros(1, int))
    boxes += 5
    assert found.boxes.max() == 0
    with pytest.raises(ValueError, match="read-only"):
        found.boxes[0, 0] = 1
    assert [str(a.dtype) for a in (found.boxes, found.scores, found.labels)] == ["float32", "float32", "int64"]


def test_no_boxes_in_any_spelling() -> None:
    empty: Any
    for empty in ([], np.empty((0, 4))):
        found = made(empty, [], [])
        assert found.boxes.shape == (0, 4)
        assert len(found) == 0
        assert found.to_coco(image_id=1) == []
        assert len(found.to_pandas()) == 0
        assert "no box" in repr(found)


@pytest.mark.parametrize(
    ("boxes", "scores", "labels", "message"),
    [
        (np.zeros((2, 5)), np.zeros(2), np.zeros(2, int), r"boxes must be \[N, 4\], not \[2, 5\]"),
        (np.zeros((2, 4)), np.zeros((2, 1)), np.zeros(2, int), r"scores must be \[N\]"),
        (np.zeros((2, 4)), np.zeros(3), np.zeros(2, int), "equal numbers of boxes"),
        (np.zeros((1, 4)), np.zeros(1), np.array([0.5]), "whole numbers"),
        (np.zeros((1, 4)), np.zeros(1), np.array([2]), "label 2 has no name"),
        (np.zeros((1, 4)), np.zeros(1), np.array([-1]), "label -1 has no name"),
    ],
)
def test_what_does_not_fit_is_refused(boxes: Any, scores: Any, labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(boxes, scores, labels, classes=CLASSES)


def test_a_label_without_a_category_id_is_refused() -> None:
    with pytest.raises(ValueError, match="label 1 has no category id"):
        made(np.zeros((1, 4)), np.zeros(1), np.array([1]), category_ids=(5,))


def test_repr_shows_the_best_five_by_name(three: Detections) -> None:
    text = repr(three)
    assert "3 boxes, image 7, 100x80 pixels" in text
    lines = text.splitlines()[1:]
    assert [line.split()[1] for line in lines] == ["cell", "platelet", "platelet"]
    assert [line.split()[0] for line in lines] == ["0.900", "0.457", "0.050"]
    many = made(np.zeros((9, 4)), np.linspace(0.1, 0.9, 9), np.zeros(9, int))
    assert "and 4 more, down to 0.100" in repr(many)
    assert "class 0" in repr(many)


def test_filter_keeps_scores_from_the_limit_up(three: Detections) -> None:
    kept = three.filter(float(three.scores[2]))
    assert kept.scores.tolist() == three.scores[[0, 2]].tolist()
    assert kept.boxes.tolist() == three.boxes[[0, 2]].tolist()
    assert (kept.labels.tolist(), kept.classes, kept.image_id, kept.size) == ([0, 1], CLASSES, 7, (80, 100))


# ---------------------------------------------------------------------------------------- converting


def test_to_coco_has_width_and_height_and_the_data_sets_ids(three: Detections) -> None:
    first, _, last = three.to_coco()
    assert first == {
        "image_id": 7,
        "category_id": 3,
        "bbox": [10.25, 20.5, 29.875, 39.5],
        "score": float(np.float32(0.9)),
    }
    assert last["category_id"] == 90
    assert json.loads(json.dumps(three.to_coco())) == three.to_coco()


def test_to_coco_rounds_only_on_request(three: Detections) -> None:
    rounded = three.to_coco(decimals=2)[2]
    assert rounded["score"] == 0.46
    assert three.to_coco()[2]["score"] == float(three.scores[2])
    assert three.to_coco(decimals=2)[0]["bbox"] == [10.25, 20.5, 29.88, 39.5]


def test_to_coco_takes_the_given_image_id_before_its_own_and_needs_one(three: Detections) -> None:
    assert three.to_coco(image_id=0)[0]["image_id"] == 0
    nameless = made(three.boxes, three.scores, three.labels)
    with pytest.raises(ValueError, match="no image_id"):
        nameless.to_coco()
    assert [row["category_id"] for row in nameless.to_coco(1)] == [1, 2, 2]


def test_to_pandas_has_a_row_a_box(three: Detections) -> None:
    frame = three.to_pandas()
    assert list(frame.columns) == ["image_id", "x1", "y1", "x2", "y2", "score", "label", "class"]
    assert frame["class"].tolist() == ["cell", "platelet", "platelet"]
    np.testing.assert_array_equal(frame[["x1", "y1", "x2", "y2"]].to_numpy(), three.boxes)
    assert frame["image_id"].tolist() == [7, 7, 7]


# ------------------------------------------------------------------------------------------- drawing


def test_plot_draws_every_box_and_does_not_change_the_photograph(three: Detections) -> None:
    photo = grey(80, 100)
    drawn = three.plot(photo)
    assert (photo == 128).all()
    assert has_colour(drawn, PALETTE[0])
    assert has_colour(drawn, PALETTE[1])
    best = three.filter(0.5).plot(photo)
    assert has_colour(best, PALETTE[0])
    assert not has_colour(best, PALETTE[1])


def test_plot_on_a_photograph_of_another_size_is_refused(three: Detections) -> None:
    with pytest.raises(ValueError, match="photograph of 100x80; this one is 80x80"):
        three.plot(grey(80, 80))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (95, 95), (3, 400), (480, 640), (3000, 4000)])
def test_boxes_of_every_size_of_picture_lie_where_they_should(height: int, width: int) -> None:
    box = np.array([[width * 0.25, height * 0.5, width * 0.75, height * 0.875]])
    drawn = draw_boxes(grey(height, width), box, [4])
    factor = enlargement((height, width))
    assert drawn.shape == (height * factor, width * factor, 3)
    x, y = round(width * 0.75 * factor), round(height * 0.7 * factor)
    thickness = max(2, round(min(drawn.shape[:2]) / 320))
    near = drawn[max(y - 1, 0) : y + 1, max(x - thickness, 0) : x + thickness + 1]
    assert has_colour(near, PALETTE[4])


def test_enlargement_is_for_small_pictures_and_bounded() -> None:
    assert enlargement((480, 640)) == 1
    assert enlargement((95, 95)) == 6
    assert enlargement((2, 1900)) == 1
    assert enlargement((1, 1)) == 480


def test_boxes_over_the_edge_names_that_are_not_ascii_and_labels_past_the_palette() -> None:
    boxes = [[-50, -50, 1000, 1000], [99, 79, 100, 80], [-20, 70, -10, 75]]
    drawn = draw_boxes(grey(80, 100), boxes, [100, 0, 101], [0.5, 0.6, 0.7], ["né" * 40] * 102)
    assert has_colour(drawn, PALETTE[100 % len(PALETTE)])


def test_no_boxes_leave_a_large_picture_as_it_is() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (500, 600, 3), dtype=np.uint8)
    assert np.array_equal(draw_boxes(photo, [], [], []), photo)


def test_the_higher_score_is_drawn_on_top() -> None:
    boxes = np.array([[100, 100, 400, 400]] * 2)
    assert not has_colour(draw_boxes(grey(500, 500), boxes, [0, 1], [0.9, 0.2]), PALETTE[1])
    assert not has_colour(draw_boxes(grey(500, 500), boxes, [0, 1], [0.2, 0.9]), PALETTE[0])


def test_given_colours_are_used() -> None:
    assert has_colour(draw_boxes(grey(500, 500), [[10, 10, 90, 90]], [0], colours=[(1, 2, 3)]), (1, 2, 3))


@pytest.mark.parametrize("picture", [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8)])
def test_a_picture_of_another_kind_is_refused(picture: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\] BGR"):
        draw_boxes(picture, [], [])
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\] BGR"):
        draw_heatmaps(picture, np.zeros((1, 2, 2)), np.zeros((1, 2, 2)))


@pytest.mark.parametrize(("height", "width"), [(512, 512), (64, 128), (900, 600)])
def test_a_heatmaps_peak_glows_where_its_cell_lies_in_the_kinds_colour(height: int, width: int) -> None:
    tl, br = np.zeros((2, 3, 20, 20), np.float32)
    tl[1, 4, 6] = 1.0
    br[2, 15, 11] = 1.0
    drawn = draw_heatmaps(grey(height, width), tl, br).astype(int)
    for (row, column), colour in (((4, 6), TOP_LEFT_COLOUR), ((15, 11), BOTTOM_RIGHT_COLOUR)):
        y, x = int((row + 0.5) / 20 * drawn.shape[0]), int((column + 0.5) / 20 * drawn.shape[1])
        assert np.abs(drawn[y, x] - colour).max() < 25
    far = drawn[int(0.9 * drawn.shape[0]), int(0.05 * drawn.shape[1])]
    assert np.abs(far - 64).max() <= 1


def test_a_heatmaps_window_is_the_part_that_the_photograph_covers() -> None:
    tl = np.zeros((1, 20, 20), np.float32)
    tl[0, 4, 6] = 1.0
    drawn = draw_heatmaps(grey(600, 600), tl, np.zeros_like(tl), window=(5.0, 3.0, 11.0, 9.0)).astype(int)
    assert np.abs(drawn[150, 150] - TOP_LEFT_COLOUR).max() < 25
    assert np.abs(drawn[450, 450] - 64).max() <= 1


@pytest.mark.parametrize("value", [-3.0, 1.5, float("nan")])
def test_heatmaps_that_are_no_probabilities_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="top_left must hold probabilities"):
        draw_heatmaps(grey(50, 50), np.full((1, 5, 5), value), np.zeros((1, 5, 5)))
    with pytest.raises(ValueError, match=r"bottom_right must be \[K, h, w\]"):
        draw_heatmaps(grey(50, 50), np.zeros((1, 5, 5)), np.zeros((5, 5)))
