"""COCO folders: what is found, kept, dropped and refused."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cornernet.config import CocoSource
from cornernet.data import DataError, DetectionDataset, open_dataset, require_same_classes
from cornernet.data.formats.check import check_folder
from cornernet.data.formats.coco import annotation_files
from tests.unit.data.folders import annotation, coco_folder, picture, tree, write_images, write_json


def opened(root: Path, **changes: str) -> DetectionDataset:
    return open_dataset(CocoSource(root=str(root), **changes), "train")


def with_row(row: Any) -> dict[str, Any]:
    return tree(annotations=[*tree()["annotations"], row])


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/instances_train2017.json", "images/train2017"),
        ("annotations/train.json", "images/train"),
        ("annotations/train.json", "train"),
        ("annotations/instances_train.json", "images"),
        ("annotations/instances_train.json", "."),
        ("train.json", "."),
        ("train/_annotations.coco.json", "train"),
        ("_annotations_train.coco.json", "images"),
    ],
)
def test_usual_layouts_are_found(tmp_path: Path, file: str, images: str) -> None:
    dataset = opened(coco_folder(tmp_path, file=file, images=images))
    assert len(dataset) == 3
    for index, record in enumerate(dataset.records):
        np.testing.assert_array_equal(dataset.read(index), picture(index, record.height, record.width))


def test_records_have_labels_in_order_of_category_ids_and_no_crowds(tmp_path: Path) -> None:
    dataset = opened(coco_folder(tmp_path))
    assert dataset.classes == ("person", "stop sign", "toothbrush")
    assert dataset.category_ids == (1, 13, 90)
    assert [record.image_id for record in dataset.records] == [7, 3, 1000]
    first, second, third = dataset.records
    np.testing.assert_array_equal(first.boxes, [[5.5, 6.0, 25.5, 16.25], [30, 20, 40, 30]])
    np.testing.assert_array_equal(first.labels, [1, 0])
    np.testing.assert_array_equal(second.labels, [2])
    assert (third.boxes.shape, third.boxes.dtype, third.labels.dtype) == ((0, 4), np.float64, np.int64)
    assert (third.height, third.width) == (30, 20)
    assert dataset.dropped == ()


def test_ground_truth_is_the_file_itself(tmp_path: Path) -> None:
    dataset = opened(coco_folder(tmp_path))
    truth, content = dataset.ground_truth(), tree()
    fields = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
    expected = sorted(({key: row[key] for key in fields} for row in content["annotations"]), key=lambda row: row["id"])
    assert sorted(truth["annotations"], key=lambda row: row["id"]) == expected
    assert sorted(row["id"] for row in truth["categories"]) == [1, 13, 90]
    assert [row["id"] for row in truth["images"]] == [7, 3, 1000]


def test_pycocotools_gives_perfect_boxes_on_the_ground_truth_full_marks(tmp_path: Path) -> None:
    dataset = opened(coco_folder(tmp_path))
    results = [
        {
            "image_id": record.image_id,
            "category_id": dataset.category_ids[label],
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "score": 0.9,
        }
        for record in dataset.records
        for box, label in zip(record.boxes.tolist(), record.labels.tolist(), strict=True)
    ]
    truth = COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = json.loads(json.dumps(dataset.ground_truth()))
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (annotation(50, 7, 1, [5, 5, 0, 10]), "no width or no height"),
        (annotation(50, 7, 1, [5, 5, 10, 0]), "no width or no height"),
        (annotation(50, 7, 1, [5, 5, -3, 10]), "negative width or height"),
        (annotation(50, 7, 1, [60, 5, 10, 10]), "outside the image"),
        (annotation(50, 7, 1, [-10, 5, 10, 10]), "outside the image"),
        (annotation(50, 7, 1, [5, float("nan"), 10, 10]), "four finite numbers"),
        (annotation(50, 7, 1, [5, float("inf"), 10, 10]), "four finite numbers"),
        ({**annotation(50, 7, 1, [5, 5, 10, 10]), "bbox": [5, 5, 10]}, "list of four numbers"),
        ({**annotation(50, 7, 1, [5, 5, 10, 10]), "bbox": "5 5 10 10"}, "list of four numbers"),
        ({**annotation(50, 7, 1, [5, 5, 10, 10]), "bbox": ["5", 5, 10, 10]}, "four finite numbers"),
        ({"id": 50, "image_id": 7, "category_id": 1}, "list of four numbers"),
        (annotation(50, 7, 2, [5, 5, 10, 10]), "category_id is not in 'categories'"),
        ({**annotation(50, 7, 1, [5, 5, 10, 10]), "category_id": None}, "category_id is not in 'categories'"),
        (annotation(50, 8, 1, [5, 5, 10, 10]), "image_id is not in 'images'"),
        (annotation(50, 7, 1, [5, 5, 10, 10], iscrowd=2), "iscrowd is neither 0 nor 1"),
        (annotation(50, 7, 1, [5, 5, 10, 10], iscrowd="1"), "iscrowd is neither 0 nor 1"),
    ],
)
def test_unusable_annotation_is_dropped_with_its_reason(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    dataset = opened(coco_folder(tmp_path, with_row(row)))
    (dropped,) = dataset.dropped
    assert dropped.annotation == 50
    assert reason in dropped.reason
    assert dropped.image == ("image id 8" if row["image_id"] == 8 else "a.png")
    assert sorted(item["id"] for item in dataset.ground_truth()["annotations"]) == [11, 12, 13, 14]
    assert reason in dataset.summary()


def test_box_over_the_edge_is_clipped_for_training_kept_for_evaluation_and_noted(tmp_path: Path) -> None:
    dataset = opened(coco_folder(tmp_path, with_row(annotation(50, 7, 1, [50, -5, 30, 20]))))
    np.testing.assert_array_equal(dataset.records[0].boxes[-1], [50, 0, 60, 15])
    assert dataset.ground_truth()["annotations"][3]["bbox"] == [50, -5, 30, 20]
    assert "1 box beyond the edge" in dataset.summary()


def test_annotation_that_occurs_twice_is_dropped_once(tmp_path: Path) -> None:
    dataset = opened(coco_folder(tmp_path, with_row(tree()["annotations"][0])))
    assert [(item.annotation, item.reason) for item in dataset.dropped] == [(11, "it occurs twice")]


@pytest.mark.parametrize("number", [0, -4, 11, None, "x"])
def test_annotation_ids_that_mislead_evaluation_are_numbered_anew(tmp_path: Path, number: Any) -> None:
    row = {**annotation(50, 1000, 1, [1, 1, 5, 5]), "id": number}
    dataset = opened(coco_folder(tmp_path, with_row(row)))
    assert [item["id"] for item in dataset.ground_truth()["annotations"]] == [1, 2, 3, 4, 5]
    assert dataset.dropped == ()
    assert "renumbered" in dataset.summary()


@pytest.mark.parametrize("area", [None, float("nan"), -1, "12"])
def test_area_without_a_usable_value_is_width_times_height_and_noted(tmp_path: Path, area: Any) -> None:
    dataset = opened(coco_folder(tmp_path, with_row(annotation(50, 1000, 1, [1, 1, 5, 4], area=area))))
    assert dataset.ground_truth()["annotations"][-1]["area"] == 20.0
    assert "1 annotation without a usable area" in dataset.summary()


def test_missing_image_is_dropped_with_its_annotations(tmp_path: Path) -> None:
    root = coco_folder(tmp_path)
    (root / "images" / "b.png").unlink()
    dataset = opened(root)
    assert [record.image_id for record in dataset.records] == [7, 1000]
    assert [(item.image, item.annotation, item.reason) for item in dataset.dropped] == [
        ("b.png", None, "its file is missing"),
        ("b.png", 12, "its image was dropped"),
    ]


def test_images_that_are_all_missing_are_an_error_that_lists_the_folders(tmp_path: Path) -> None:
    root = coco_folder(tmp_path)
    shutil.rmtree(root / "images")
    with pytest.raises(
        DataError, match=r"none of the 3 images .*instances_train\.json exists \(the first is a\.png.*images/train"
    ):
        opened(root)


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/secret.png", "x/../../secret.png", "..\\secret.png", "C:\\a.png"]
)
def test_file_name_that_leaves_the_folder_is_dropped(tmp_path: Path, name: str) -> None:
    root = tmp_path / "inside"
    images = [*tree()["images"], {"id": 9, "file_name": name, "height": 40, "width": 60}]
    coco_folder(root, tree(images=images))
    write_images(tmp_path, ("secret.png",))
    dataset = opened(root)
    assert [(item.image, item.reason) for item in dataset.dropped] == [
        (name, "its file_name leads out of the data set's folder")
    ]


def test_image_in_a_subfolder_is_found_by_its_path(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "deep/er/x.png", "height": 40, "width": 60}]
    write_json(tmp_path / "train.json", tree(images=images, annotations=[]))
    write_images(tmp_path / "images", ("deep/er/x.png",))
    assert opened(tmp_path).read(0).shape == (40, 60, 3)


@pytest.mark.parametrize("sides", [{"width": "60"}, {"width": 0}, {"height": -3}, {"height": 40.5}, {"width": True}])
def test_image_with_impossible_sides_is_dropped(tmp_path: Path, sides: dict[str, Any]) -> None:
    images = [dict(row) for row in tree()["images"]]
    images[2].update(sides)
    dataset = opened(coco_folder(tmp_path, tree(images=images)))
    assert [item.image for item in dataset.dropped] == ["c.png"]
    assert "not a positive integer" in dataset.dropped[0].reason


def test_sides_that_are_not_stated_are_taken_from_the_file_and_noted(tmp_path: Path) -> None:
    images = [{"id": row["id"], "file_name": row["file_name"]} for row in tree()["images"]]
    dataset = opened(coco_folder(tmp_path, tree(images=images)))
    assert [(record.height, record.width) for record in dataset.records] == [(40, 60), (40, 60), (30, 20)]
    assert "3 images without width and height" in dataset.summary()


def changed(key: str, position: int, **fields: Any) -> dict[str, Any]:
    rows = [dict(row) for row in tree()[key]]
    rows[position].update(fields)
    return tree(**{key: rows})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"instances_train\.json are not JSON"),
        ("[" * 100_000, r"instances_train\.json are not JSON"),
        ([1], "are a JSON list"),
        (tree(annotations={}), "no list 'annotations'"),
        (tree(images={}), "no list 'images'"),
        (tree(images=[]), "'images' is empty"),
        (tree(categories=[]), "'categories' is empty"),
        (tree(images=[5]), r"images\[0\] is not an object"),
        (tree(annotations=[5]), r"annotations\[0\] is not an object"),
        (tree(categories=["person"]), r"categories\[0\] is not an object"),
        (changed("images", 1, id=7), r"images\[1\]\.id 7 occurs twice"),
        (changed("images", 1, id="7"), r"images\[1\]\.id is '7'; use an integer"),
        (changed("images", 1, id=True), r"images\[1\]\.id is True; use an integer"),
        (changed("categories", 1, id=90), r"categories\[1\]\.id 90 occurs twice"),
        (changed("categories", 1, id=1.5), r"categories\[1\]\.id is 1.5; use an integer"),
        (changed("categories", 1, name=5), r"categories\[1\]\.name is 5; use a string"),
    ],
)
def test_doubtful_file_is_refused_by_name_and_field(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(coco_folder(tmp_path, content))


def test_split_is_part_of_the_name_or_a_path(tmp_path: Path) -> None:
    root = coco_folder(tmp_path, file="annotations/part_A.json")
    assert len(opened(root, train_split="part_a")) == 3
    assert len(opened(root, train_split="annotations/part_A.json")) == 3
    with pytest.raises(DataError, match="give a path below"):
        opened(root, train_split="../elsewhere.json")


def test_instances_are_preferred_to_captions_and_keypoints(tmp_path: Path) -> None:
    root = coco_folder(tmp_path, file="annotations/instances_train2017.json")
    for other in ("captions", "person_keypoints"):
        write_json(root / "annotations" / f"{other}_train2017.json", {"annotations": []})
    assert len(opened(root)) == 3


def test_split_with_the_exact_name_is_preferred(tmp_path: Path) -> None:
    root = coco_folder(tmp_path)
    write_json(root / "annotations" / "instances_train_tiny.json", tree(images=tree()["images"][:1]))
    assert len(opened(root)) == 3
    assert len(opened(root, train_split="train_tiny")) == 1


def test_val_is_not_found_inside_trainval(tmp_path: Path) -> None:
    root = coco_folder(tmp_path, file="annotations/instances_trainval.json")
    with pytest.raises(DataError, match="matches the split 'val'"):
        open_dataset(CocoSource(root=str(root)), "val")


def test_ambiguous_split_lists_the_files_and_the_flag(tmp_path: Path) -> None:
    root = coco_folder(tmp_path, file="annotations/train_1.json")
    write_json(root / "annotations" / "train_2.json", tree())
    with pytest.raises(DataError, match=r"several.*train_1\.json.*train_2\.json.*--data\.source\.train-split"):
        opened(root)


def test_missing_split_of_a_single_file_names_the_fix(tmp_path: Path) -> None:
    root = coco_folder(tmp_path)
    with pytest.raises(DataError, match=r"it has annotations/instances_train\.json.*--data\.source\.val-split train$"):
        open_dataset(CocoSource(root=str(root)), "val")
    same = open_dataset(CocoSource(root=str(root), val_split="train"), "val")
    assert len(same) == 3


def test_missing_folder_and_empty_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        opened(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no annotation file in .*expected annotations/\*\.json"):
        opened(tmp_path)


def test_dataset_survives_pickling_and_stays_light(tmp_path: Path) -> None:
    rows = [annotation(number, 7, 1, [1, 1, 5, 5]) for number in range(1, 5001)]
    dataset = opened(coco_folder(tmp_path, tree(annotations=rows)))
    packed = pickle.dumps(dataset)
    assert len(packed) < 5000 * 100
    again = pickle.loads(packed)
    assert again.ground_truth() == dataset.ground_truth()
    assert again.fingerprint == dataset.fingerprint


def test_fingerprint_is_that_of_the_content_wherever_it_lies(tmp_path: Path) -> None:
    a = opened(coco_folder(tmp_path / "a"))
    b = opened(coco_folder(tmp_path / "b" / "c", images="train"))
    renumbered = opened(coco_folder(tmp_path / "d", changed("annotations", 0, id=99)))
    assert a.fingerprint == b.fingerprint == renumbered.fingerprint
    assert len(a.fingerprint) == 64


@pytest.mark.parametrize(
    "content",
    [
        changed("annotations", 0, bbox=[5.5, 6.0, 20.0, 10.5]),
        changed("annotations", 0, category_id=1),
        changed("annotations", 0, iscrowd=1),
        changed("annotations", 0, area=3.0),
        changed("annotations", 0, image_id=3),
        changed("categories", 0, name="brush"),
        changed("images", 0, id=8),
        tree(annotations=tree()["annotations"][1:]),
    ],
)
def test_fingerprint_changes_with_whatever_changes_results(tmp_path: Path, content: Any) -> None:
    original = opened(coco_folder(tmp_path / "a")).fingerprint
    assert opened(coco_folder(tmp_path / "b", content)).fingerprint != original


def test_fingerprint_changes_with_the_pixels(tmp_path: Path) -> None:
    root = coco_folder(tmp_path)
    original = opened(root).fingerprint
    write_images(root / "images", ("b.png", "a.png"))
    assert opened(root).fingerprint != original


def test_splits_with_other_classes_are_refused(tmp_path: Path) -> None:
    a = opened(coco_folder(tmp_path / "a"))
    b = opened(coco_folder(tmp_path / "b", changed("categories", 0, name="brush")))
    require_same_classes(a, opened(coco_folder(tmp_path / "c")))
    with pytest.raises(DataError, match="90: 'toothbrush' and 'brush'"):
        require_same_classes(a, b)


def test_summary_counts_images_boxes_classes_sizes_and_crowds(tmp_path: Path) -> None:
    text = opened(coco_folder(tmp_path)).summary()
    assert "3 images (20-60 x 30-40 pixels; 1 without objects), 3 boxes, 1 crowd" in text
    assert "3 classes: person 1, stop sign 1, toothbrush 1" in text
    assert "2 small" in text
    assert "1 medium, 0 large" in text


def test_hidden_files_and_folders_are_no_annotations(tmp_path) -> None:
    root = coco_folder(tmp_path)
    for name in (
        "annotations/._instances_train.json",
        ".ipynb_checkpoints/train_annotations-checkpoint.json",
        ".x.json",
    ):
        write_json(root / name, "damaged")
    assert annotation_files(root) == ["annotations/instances_train.json"]
    assert check_folder(root).files[0].dataset is not None
