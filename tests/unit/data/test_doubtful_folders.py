"""Folders that other tools write: what is understood, what is doubted, and that ordinary sets are not doubted."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as masks

from cornernet.config import CocoSource, Config, DataConfig
from cornernet.data import DataError, DetectionDataset, open_dataset, require_boxes
from cornernet.data.formats.check import check_folder
from cornernet.data.formats.masks import box_of_mask
from tests.unit.data.folders import annotation, coco_folder, picture, tree, write_images, write_json

BOXES = [[5.0, 6.0, 20.0, 10.0], [30.0, 20.0, 12.0, 15.0], [2.0, 3.0, 40.0, 30.0], [35.0, 2.0, 20.0, 9.0]]


def opened(root: Path, **how: Any) -> DetectionDataset:
    return open_dataset(DataConfig(source=CocoSource(root=str(root)), **how), "train")


def with_boxes(boxes: list[list[float]], **fields: Any) -> dict[str, Any]:
    return tree(annotations=[annotation(10 + at, 7, 13, box, **fields) for at, box in enumerate(boxes)])


def with_names(*names: str) -> dict[str, Any]:
    images = [{**row, "file_name": name} for row, name in zip(tree()["images"], names, strict=True)]
    return tree(images=images)


# ------------------------------------------------------------------------------------- finding images


def test_backslashes_in_names_are_slashes_where_only_those_are_files(tmp_path: Path) -> None:
    root = coco_folder(tmp_path, with_names(*(f"pictures\\{name}.png" for name in "abc")), images="pictures")
    dataset = opened(root)
    assert [record.path.name for record in dataset.records] == ["a.png", "b.png", "c.png"]
    assert "pictures\\a.png is pictures/a.png" in dataset.notes[0]
    np.testing.assert_array_equal(dataset.read(0), picture(0))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_may_be_composed_otherwise_in_the_folder(tmp_path: Path, form: Any) -> None:
    other = "NFD" if form == "NFC" else "NFC"
    names = [unicodedata.normalize(form, f"café/é{name}.png") for name in "abc"]
    write_json(tmp_path / "train.json", with_names(*(unicodedata.normalize(other, name) for name in names)))
    write_images(tmp_path / "images", tuple(names))
    write_images(tmp_path / "images", (names[2].replace("c.png", "x.png"),))
    assert cv2.imwrite(str(tmp_path / "images" / names[2]), picture(2, 30, 20))
    dataset = opened(tmp_path)
    assert [record.path.relative_to(tmp_path / "images").as_posix() for record in dataset.records] == names


def test_absolute_path_counts_where_it_leads_into_the_folder(tmp_path: Path) -> None:
    inside = [str(tmp_path / "images" / f"{name}.png") for name in "ab"]
    root = coco_folder(tmp_path, with_names(*inside, "/elsewhere/c.png"))
    dataset = opened(root)
    assert [record.path.name for record in dataset.records] == ["a.png", "b.png"]
    assert dataset.dropped[0].reason == "its file_name leads out of the data set's folder"


def test_images_in_an_unusual_folder_are_found_by_name_and_it_is_said(tmp_path: Path) -> None:
    dataset = opened(coco_folder(tmp_path, images="data/deep"))
    assert [record.path.relative_to(tmp_path).as_posix() for record in dataset.records] == [
        "data/deep/a.png",
        "data/deep/b.png",
        "data/deep/c.png",
    ]
    assert any("3 images found by name below the folder" in note for note in dataset.notes)


def test_names_that_every_split_has_are_taken_from_the_folder_of_the_split(tmp_path: Path) -> None:
    root = coco_folder(tmp_path, file="annotations/custom_train.json", images="train2017")
    write_images(root / "val2017")
    dataset = opened(root)
    assert {record.path.parent.name for record in dataset.records} == {"train2017"}


def test_search_never_takes_the_images_of_another_split(tmp_path: Path) -> None:
    root = coco_folder(tmp_path, file="annotations/custom_train.json", images="valid")
    with pytest.raises(DataError, match=r"none of the 3 images .* and by name everywhere below"):
        opened(root)


def test_name_that_several_files_have_is_not_guessed(tmp_path: Path) -> None:
    root = coco_folder(tmp_path, images="one")
    write_images(root / "two")
    with pytest.raises(DataError, match=r"several files below the folder have its name, the first being a\.png"):
        opened(root)


def test_names_relative_to_another_folder_are_found_where_all_are(tmp_path: Path) -> None:
    names = ("a.png", "deep/a.png", "deep/c.png")
    write_images(tmp_path / "photos", names)
    assert cv2.imwrite(str(tmp_path / "photos/deep/c.png"), picture(2, 30, 20))
    write_json(tmp_path / "train.json", with_names(*names))
    assert [record.path.relative_to(tmp_path).as_posix() for record in opened(tmp_path).records] == [
        f"photos/{name}" for name in names
    ]
    write_json(tmp_path / "photos" / "train.json", with_names(*(f"photos/{name}" for name in names)))
    assert [record.path.relative_to(tmp_path).as_posix() for record in opened(tmp_path / "photos").records] == [
        f"photos/{name}" for name in names
    ]


def test_single_missing_image_is_not_searched_for_elsewhere(tmp_path: Path) -> None:
    root = coco_folder(tmp_path)
    (root / "thumbnails").mkdir()
    (root / "images" / "a.png").rename(root / "thumbnails" / "a.png")
    assert [(item.image, item.reason) for item in opened(root).dropped if item.annotation is None] == [
        ("a.png", "its file is missing")
    ]


def test_image_without_a_name_has_the_end_of_its_url(tmp_path: Path) -> None:
    rows = tree()["images"]
    for row in rows:
        row["coco_url"] = f"http://images.example.org/train2017/{row.pop('file_name')}?size=full"
    dataset = opened(coco_folder(tmp_path, tree(images=rows)))
    assert [record.path.name for record in dataset.records] == ["a.png", "b.png", "c.png"]
    assert any("without file_name: named by the end of coco_url" in note for note in dataset.notes)


# --------------------------------------------------------------------------------- reading annotations


def test_file_without_annotations_has_images_and_nothing_to_train_on(tmp_path: Path) -> None:
    content = tree()
    del content["annotations"]
    dataset = opened(coco_folder(tmp_path, content))
    assert (len(dataset), dataset.annotated, len(dataset.ground_truth()["annotations"])) == (3, False, 0)
    with pytest.raises(DataError, match=r"no list 'annotations'.*--save-results"):
        require_boxes(dataset)


@pytest.mark.parametrize("bbox", [[], None])
def test_box_of_a_polygon_where_there_is_no_bbox(tmp_path: Path, bbox: Any) -> None:
    polygon = [[10, 5, 30, 8, 20, 25.5], [40, 6, 44, 6, 44, 12]]
    row = {**annotation(50, 7, 13, [0, 0, 1, 1]), "bbox": bbox, "segmentation": polygon, "area": 80}
    dataset = opened(coco_folder(tmp_path, tree(annotations=[row, annotation(51, 7, 1, [1, 2, 3, 4])])))
    np.testing.assert_array_equal(dataset.records[0].boxes, [[10, 5, 44, 25.5], [1, 2, 4, 6]])
    assert "1 annotation without bbox: the box of the segmentation is used" in dataset.notes


@pytest.mark.parametrize("seed", range(20))
def test_box_of_run_lengths_is_that_of_the_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 30, 2).tolist()
    pixels = (rng.random((height, width)) < rng.choice([0.03, 0.5])).astype(np.uint8)
    pixels[rng.integers(height), rng.integers(width)] = 1
    ys, xs = np.nonzero(pixels)
    expected = (xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1)
    text = masks.encode(np.asfortranarray(pixels))["counts"].decode()
    assert box_of_mask({"counts": text, "size": [height, width]}) == expected
    column = pixels.T.ravel()
    ends = [0, *(np.flatnonzero(np.diff(column)) + 1).tolist(), len(column)]
    counts = [0] * int(column[0]) + np.diff(ends).tolist()
    assert box_of_mask({"counts": counts, "size": [height, width]}) == expected


@pytest.mark.parametrize(
    "mask",
    [
        None,
        [],
        [[1, 2, 3]],
        [["a"] * 6],
        [[float("nan")] * 6],
        {"counts": [5], "size": [2, 2]},
        {"counts": [4], "size": [2, 2]},
        {"counts": "\x00\xff", "size": [2, 2]},
        {"counts": "o" * 99, "size": [2, 2]},
        {"counts": [2**70, 1], "size": [2, 2]},
        {"counts": [1], "size": [-1, -1]},
        {"counts": 5, "size": "x"},
    ],
)
def test_damaged_or_empty_segmentation_has_no_box(mask: Any) -> None:
    assert box_of_mask(mask) is None


def test_iscrowd_null_is_0_and_numbers_written_as_texts_are_numbers(tmp_path: Path) -> None:
    rows = [
        annotation(50, 7, 13, [5, 5, 10, 10], iscrowd=None),
        {**annotation(51, 7, 13, [6, 5, 10, 10]), "category_id": "90"},
        {**annotation(52, 7, 13, [7, 5, 10, 10]), "image_id": "3"},
    ]
    dataset = opened(coco_folder(tmp_path, tree(annotations=rows)))
    assert dataset.dropped == ()
    assert [record.labels.tolist() for record in dataset.records] == [[1, 2], [1], []]
    assert "2 annotations with an id written as a text: read as a number" in dataset.notes


# ------------------------------------------------------------------------------------------- categories


def exported(used: int = 1) -> dict[str, Any]:
    categories = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "pets"},
        {"id": 2, "name": "dog", "supercategory": "pets"},
    ]
    return tree(categories=categories, annotations=[annotation(1, 7, used, BOXES[0]), annotation(2, 7, 2, BOXES[1])])


def test_category_that_only_groups_others_is_left_out_and_it_is_said(tmp_path: Path) -> None:
    dataset = opened(coco_folder(tmp_path, exported()))
    assert (dataset.classes, dataset.category_ids) == (("cat", "dog"), (1, 2))
    assert dataset.records[0].labels.tolist() == [0, 1]
    assert any("the category 'pets' (id 0) is left out" in note for note in dataset.notes)
    whole = dataset.with_left_out()
    assert (whole.classes, whole.category_ids) == (("pets", "cat", "dog"), (0, 1, 2))
    assert whole.records[0].labels.tolist() == [1, 2]
    assert whole.ground_truth()["annotations"] == dataset.ground_truth()["annotations"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_category_that_groups_others_stays_in_all_splits_if_one_uses_it(tmp_path: Path, split: str) -> None:
    other = "val" if split == "train" else "train"
    coco_folder(tmp_path, exported(used=0), file=f"annotations/instances_{split}.json")
    write_json(tmp_path / f"annotations/instances_{other}.json", exported())
    for each in ("train", "val"):
        assert open_dataset(CocoSource(root=str(tmp_path)), each).classes == ("pets", "cat", "dog")  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------- doubts


def test_ordinary_boxes_are_not_doubted(tmp_path: Path) -> None:
    assert opened(coco_folder(tmp_path)).warnings == ()
    # large objects in the top left corner, thin masks, a box over the edge
    rows = [[0.0, 0.0, 50.0, 39.0], [1.0, 1.0, 40.0, 30.0], [30.0, 20.0, 30.0, 25.0], *BOXES]
    content = with_boxes(rows)
    content["annotations"][0]["area"] = 60.0
    assert opened(coco_folder(tmp_path, content)).warnings == ()


def as_corners(boxes: list[list[float]]) -> list[dict[str, Any]]:
    return [annotation(at, 7, 13, [x, y, x + w, y + h], area=w * h) for at, (x, y, w, h) in enumerate(boxes)]


def test_corners_are_doubted_by_the_areas_or_by_the_edge(tmp_path: Path) -> None:
    rows = as_corners(BOXES)
    assert "[x1, y1, x2, y2]" in opened(coco_folder(tmp_path, tree(annotations=rows))).warnings[0]
    for row in rows:
        del row["area"]
    assert "[x1, y1, x2, y2]" in opened(coco_folder(tmp_path, tree(annotations=rows))).warnings[0]
    # all corners near the top left: only the areas tell
    small = [[2.0, 3.0, 10.0, 12.0], [5.0, 4.0, 12.0, 9.0], [1.0, 1.0, 8.0, 8.0]]
    rows = as_corners(small)
    assert "[x1, y1, x2, y2]" in opened(coco_folder(tmp_path, tree(annotations=rows))).warnings[0]


def test_centres_and_fractions_are_doubted(tmp_path: Path) -> None:
    centred = with_boxes([[x + w / 2, y + h / 2, w, h] for x, y, w, h in [*BOXES, [40.0, 28.0, 20.0, 12.0]]])
    assert "the centre" in opened(coco_folder(tmp_path, centred)).warnings[0]
    fractions = with_boxes([[x / 60, y / 40, w / 60, h / 40] for x, y, w, h in BOXES])
    assert "fractions" in opened(coco_folder(tmp_path, fractions)).warnings[0]


@pytest.mark.parametrize("area", [0, 1.0, 1e6])
def test_areas_that_no_mask_has_are_doubted(tmp_path: Path, area: float) -> None:
    dataset = opened(coco_folder(tmp_path, with_boxes(BOXES, area=area)))
    assert "the area of 4 annotations cannot be that of a mask in its box" in dataset.warnings[0]


def test_ignore_without_iscrowd_is_said(tmp_path: Path) -> None:
    assert "2 annotations with 'ignore' set" in "".join(
        opened(coco_folder(tmp_path, with_boxes(BOXES[:2], ignore=1))).warnings
    )
    assert opened(coco_folder(tmp_path, with_boxes(BOXES, ignore=0))).warnings == ()
    assert opened(coco_folder(tmp_path, with_boxes(BOXES, ignore=1, iscrowd=1))).warnings == ()


def test_objects_annotated_twice_are_counted_and_can_be_dropped(tmp_path: Path) -> None:
    rows = [annotation(at, 7, 13, box) for at, box in enumerate([*BOXES, *BOXES[:3]], start=1)]
    rows.append(annotation(20, 7, 1, BOXES[0]))  # another class
    rows.append(annotation(21, 3, 13, BOXES[0]))  # another image
    root = coco_folder(tmp_path, tree(annotations=rows))
    dataset = opened(root)
    assert "3 annotations with the class and box of an earlier one" in dataset.warnings[0]
    assert len(dataset.ground_truth()["annotations"]) == 9
    dataset = opened(root, duplicates="drop")
    assert [row["id"] for row in dataset.ground_truth()["annotations"]] == [1, 2, 3, 4, 20, 21]
    assert {(item.annotation, item.reason) for item in dataset.dropped} == {
        (number, "it repeats the class and box of an earlier annotation") for number in (5, 6, 7)
    }


def test_check_gives_each_doubt_once(tmp_path: Path) -> None:
    text = check_folder(coco_folder(tmp_path, with_boxes(BOXES, area=1))).to_text()
    assert text.count("cannot be that of a mask") == 1
    assert "warning: annotations/instances_train.json: the area of 4 annotations" in text


def test_split_without_a_usable_box_is_refused_with_the_reasons(tmp_path: Path) -> None:
    dataset = opened(coco_folder(tmp_path, with_boxes([[5, 5, 0, 3], [5, 5, 3, 0]])))
    with pytest.raises(DataError, match="has no box: 2 dropped because its bbox has no width or no height"):
        require_boxes(dataset)


def test_new_fields_leave_the_keys_of_earlier_runs_alone() -> None:
    names = ("orientation", "bits", "duplicates", "unreadable")
    assert not set(names) & set(Config().results_dict()["data"])
    changed = Config().with_("data.duplicates", "drop").with_("data.bits", 12)
    assert {"duplicates", "bits"} <= set(changed.results_dict()["data"])
