"""Real data beside the checkout: what it is known to hold. Skipped where it is absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from cornernet.config import CocoSource
from cornernet.data import DataError, open_dataset
from cornernet.data.formats.check import check_folder

SHARED = Path(__file__).parents[4] / "shared" / "data"


def folder(name: str) -> Path:
    if not (SHARED / name).is_dir():
        pytest.skip(f"the data set {name} is not beside the checkout, in ../shared/data")
    return SHARED / name


def test_bccd_has_one_box_without_size_in_each_split() -> None:
    source = CocoSource(root=str(folder("bccd")))
    train, val = open_dataset(source, "train"), open_dataset(source, "val")
    assert (len(train), len(val)) == (205, 87)
    assert train.classes == val.classes == ("Platelets", "RBC", "WBC")
    assert [(item.image, item.annotation) for item in train.dropped] == [("BloodImage_00343.jpg", 2288)]
    assert [(item.image, item.annotation) for item in val.dropped] == [("BloodImage_00338.jpg", 887)]
    assert sum(len(record.boxes) for record in train.records) == 2805 - 1
    report = check_folder(folder("bccd"))
    assert report.usable
    assert "BloodImage_00338.jpg annotation 887" in report.to_text()


def test_tinycoco_has_80_classes_with_gaps_crowds_and_no_val() -> None:
    source = CocoSource(root=str(folder("tinycoco")))
    dataset = open_dataset(source, "train")
    assert (len(dataset), len(dataset.classes), dataset.category_ids[-1]) == (50, 80, 90)
    crowds = [row for row in dataset.ground_truth()["annotations"] if row["iscrowd"]]
    assert len(crowds) == 5
    assert sum(len(record.boxes) for record in dataset.records) == 465
    assert {dataset.read(i).shape[:2] for i in range(50)} == {(r.height, r.width) for r in dataset.records}
    with pytest.raises(DataError, match=r"--data\.source\.val-split train"):
        open_dataset(source, "val")
