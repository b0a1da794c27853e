"""``data check``: everything that is wrong with a folder, named."""

from __future__ import annotations

from pathlib import Path

import pytest

from cornernet.cli import main
from cornernet.data.formats.check import check_folder
from tests.unit.data.folders import annotation, coco_folder, tree, write_images, write_json


def test_good_folder_is_usable_and_described(tmp_path: Path) -> None:
    report = check_folder(coco_folder(tmp_path))
    text = report.to_text()
    assert report.usable
    assert "annotations/instances_train.json" in text
    assert "3 boxes, 1 crowd" in text
    assert "person 1, stop sign 1, toothbrush 1" in text
    assert "width 10 20 60, height 10 10.25 40 pixels" in text
    assert "split train: annotations/instances_train.json" in text
    assert "split val: none by default" in text
    assert "--data.source.val-split train" in text
    assert text.endswith("To use this folder, say which file is val: --data.source.val-split NAME (see above).")


def test_drops_name_image_annotation_and_reason_and_are_no_error(tmp_path: Path) -> None:
    rows = [annotation(100 + n, 3, 1, [5, 5, 0, 4]) for n in range(8)]
    root = coco_folder(tmp_path, tree(annotations=[*tree()["annotations"], *rows]))
    (root / "images" / "c.png").unlink()
    report = check_folder(root)
    text = report.to_text()
    assert report.usable
    assert "dropped because its file is missing (1): c.png" in text
    assert "its bbox has no width or no height (8): b.png annotation 100, b.png annotation 101" in text
    assert "annotation 104 and 3 more" in text
    assert "annotation 105" not in text


def test_unreadable_and_wrongly_sized_images_are_errors_by_name(tmp_path: Path) -> None:
    root = coco_folder(tmp_path)
    damaged = root / "images" / "a.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    write_images(root / "images", ("x.png", "c.png"))
    (root / "images" / "c.png").replace(root / "images" / "b.png")
    write_images(root / "images", ("x.png", "y.png", "c.png"))
    report = check_folder(root)
    text = report.to_text()
    assert not report.usable
    assert "unreadable images: 2" in text
    assert "a.png: it is damaged" in text
    assert "b.png is 20x30 pixels (width x height), but the annotations say 60x40" in text
    assert "2 images cannot be read" in text
    assert text.endswith("This folder cannot be used as it is.")


def test_same_picture_in_both_splits_is_warned_about_whatever_its_name(tmp_path: Path) -> None:
    root = coco_folder(tmp_path, images="train")
    images = [{"id": 1, "file_name": "renamed.png", "height": 40, "width": 60}]
    rows = [annotation(1, 1, 1, [1, 1, 9, 9])]
    write_json(root / "annotations" / "instances_val.json", tree(images=images, annotations=rows))
    write_images(root / "val", ("renamed.png",))
    report = check_folder(root)
    assert report.usable
    assert "warning: 1 image is in both annotations/instances_train.json and annotations/instances_val.json" in (
        report.to_text()
    )


def test_splits_with_other_categories_are_warned_about(tmp_path: Path) -> None:
    root = coco_folder(tmp_path)
    content = tree(categories=[{"id": 1, "name": "person"}, {"id": 13, "name": "cat"}, {"id": 90, "name": "dog"}])
    write_json(root / "annotations" / "instances_val.json", content)
    assert "have different categories" in check_folder(root).to_text()


def test_damaged_annotations_are_an_error_and_the_other_file_is_still_reported(tmp_path: Path) -> None:
    root = coco_folder(tmp_path)
    write_json(root / "annotations" / "instances_val.json", '{"images": [')
    report = check_folder(root)
    assert not report.usable
    assert report.to_text().count("instances_val.json are not JSON") == 1
    assert "3 boxes, 1 crowd" in report.to_text()


def test_other_json_is_left_alone(tmp_path: Path) -> None:
    root = coco_folder(tmp_path)
    write_json(root / "annotations" / "captions_train.json", {"images": [], "annotations": []})
    write_json(root / "package.json", {"name": "x"})
    report = check_folder(root)
    assert report.usable
    assert "ignored, because they contain no boxes: annotations/captions_train.json, package.json" in report.to_text()


def test_folder_without_boxes_without_annotations_or_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert "there is no box to train on" in check_folder(coco_folder(tmp_path / "a", tree(annotations=[]))).to_text()
    (tmp_path / "b").mkdir()
    for root, message in ((tmp_path / "b", "no annotation file in"), (tmp_path / "c", "there is no folder")):
        report = check_folder(str(root))
        assert not report.usable
        assert message in report.to_text()


@pytest.mark.parametrize(
    ("splits", "status", "following"),
    [
        (("train", "val"), 0, "train --data"),
        (("train",), 2, "data split"),
        (("train", "test"), 2, "data split"),
        (("all",), 2, "data split"),
        (("all", "val"), 2, ""),
    ],
)
def test_the_status_says_whether_train_and_val_are_there_and_what_is_next(
    splits, status, following, tmp_path: Path, capsys
) -> None:
    root = coco_folder(tmp_path / "my photos")
    for split in splits:
        write_json(root / f"annotations/instances_{split}.json", tree())
    if "train" not in splits:
        (root / "annotations/instances_train.json").unlink()
    assert main(["data", "check", str(root)]) == status
    said = capsys.readouterr().out
    assert said.endswith(f"next: cornernet {following} '{root}'\n") == bool(following)


def test_a_file_that_was_split_under_any_name_is_no_split_that_leaks(tmp_path: Path) -> None:
    root = coco_folder(tmp_path)
    images, rows = tree()["images"], tree()["annotations"]
    write_json(root / "everything.json", tree())
    for split, part in (("train", images[:2]), ("val", images[2:])):
        ids = {image["id"] for image in part}
        kept = [row for row in rows if row["image_id"] in ids]
        write_json(root / f"annotations/instances_{split}.json", tree(images=part, annotations=kept))
    assert not check_folder(root).warnings
    write_json(root / "annotations/instances_test.json", tree())
    assert [line.split(" in both")[0] for line in check_folder(root).warnings] == ["2 images are", "1 image is"]
