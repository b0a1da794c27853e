"""Sheets of training images and of detections in the same four images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from cornernet import build_detector, recipe
from cornernet.cli import main
from cornernet.data import open_dataset
from cornernet.drawing.boxes import BOTTOM_RIGHT_COLOUR, TOP_LEFT_COLOUR, draw_pairs, sheet
from cornernet.visualization.sheets import fixed_images, preview
from tests.unit.data.folders import coco_folder


def test_data_show_draws_boxes_augmentations_and_targets(tmp_path, capsys) -> None:
    root, out = coco_folder(tmp_path), tmp_path / "shown.png"
    assert main(["data", "show", str(root), "--count", "2", "--out", str(out), "--dry-run"]) == 0
    assert not out.exists()
    assert main(["data", "show", str(root), "--count", "2", "--out", str(out)]) == 0
    image = cv2.imread(str(out))
    assert image is not None
    assert image.shape[0] > 2 * 300
    assert "drew 2 images" in capsys.readouterr().out
    assert main(["data", "show", str(root), "--count", "1", "--out", str(out), "--augmentations", "1"]) == 0
    assert cv2.imread(str(out)).shape[1] < image.shape[1]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (["--count", "0"], "must be 1 or more"),
        (["--out", "absent/x.png"], "there is no folder absent for --out"),
        (["--out", "x.pgn"], "ends in .png"),
        (["--recipe", "smal"], "did you mean small"),
    ],
)
def test_what_cannot_be_shown_says_why(argv, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "show", *argv]) == 2
    assert message in capsys.readouterr().err


def test_the_same_pictures_are_chosen_every_time() -> None:
    assert fixed_images(4, 87) == fixed_images(4, 87) == [0, 29, 57, 86]
    assert fixed_images(4, 2) == [0, 1]


def test_a_preview_shows_truth_above_predictions_even_where_metrics_need_the_truth() -> None:
    config = recipe("tiny").with_("data.source.val_images", 3).with_("testing.substitute", ["heatmaps"])
    torch.manual_seed(0)
    dataset = open_dataset(config.data.source, "val")
    image = preview(build_detector(config).eval(), dataset, config, "iteration 7")
    assert image.shape[0] > 2 * 240
    assert image.dtype == np.uint8
    assert image.std() > 0


def test_pairs_are_lines_between_corners_and_others_are_crosses() -> None:
    image = np.full((500, 500, 3), 128, np.uint8)
    drawn = draw_pairs(image, [[100, 100, 300, 300]], [[400, 50]], [[50, 400]])
    assert tuple(drawn[200, 200]) == (255, 255, 255)
    assert tuple(drawn[100, 100]) == TOP_LEFT_COLOUR
    assert tuple(drawn[300, 300]) == BOTTOM_RIGHT_COLOUR
    assert (drawn[50, 400] != 128).any()
    assert (image == 128).all()
    assert (draw_pairs(image, []) == image).all()


def test_a_sheet_without_a_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="a picture in every row"):
        sheet([[]])
