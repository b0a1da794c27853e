"""Dividing a folder: every class in every part, the same bytes in one part alone, the same result for the same seed."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cornernet.cli import main
from cornernet.config import CocoSource
from cornernet.data import open_dataset, shared_images
from cornernet.data.formats.importing import WRITTEN_BY_US
from cornernet.data.formats.split import deal, divide
from cornernet.files import atomic_write
from tests.unit.data.folders import annotation, coco_folder, picture, tree, write_json


def folder(root: Path, count: int = 20, repeats: int = 0) -> Path:
    """``count`` pictures of which the last ``repeats`` repeat the first; class 1 in all, class 2 in every fourth."""
    images, rows = [], []
    (root / "images" / "all").mkdir(parents=True)
    for n in range(count):
        seed = n - (count - repeats) if n >= count - repeats else n
        cv2.imwrite(str(root / "images" / "all" / f"{n}.png"), picture(seed))
        images.append({"id": n + 1, "file_name": f"{n}.png", "height": 40, "width": 60, "camera": "left"})
        rows.append(annotation(len(rows) + 1, n + 1, 1, [1, 1, 20, 20], note="mine"))
        if n % 4 == 0:
            rows.append(annotation(len(rows) + 1, n + 1, 2, [5, 5, 20, 20]))
    categories = [{"id": 1, "name": "cell"}, {"id": 2, "name": "rod"}]
    write_json(
        root / "annotations/instances_all.json", {"images": images, "annotations": rows, "categories": categories}
    )
    return root


def read(root: Path, split: str):
    return json.loads((root / "annotations" / f"instances_{split}.json").read_text())


def test_parts_have_their_shares_of_images_and_of_every_class(tmp_path, capsys) -> None:
    root = folder(tmp_path)
    assert main(["data", "split", str(root), "--val", "0.25", "--test", "0.25"]) == 0
    trees = {split: read(root, split) for split in ("train", "val", "test")}
    assert [len(one["images"]) for one in trees.values()] == [10, 5, 5]
    for one in trees.values():
        rare = sum(row["category_id"] == 2 for row in one["annotations"])
        assert rare in ({1, 2} if len(one["images"]) == 5 else {2, 3})
    ids = [image["id"] for one in trees.values() for image in one["images"]]
    assert sorted(ids) == list(range(1, 21))
    assert trees["train"]["images"][0]["camera"] == "left"
    assert trees["train"]["annotations"][0]["note"] == "mine"
    for split in ("train", "val"):
        assert open_dataset(CocoSource(root=str(root)), split).read(0).shape == (40, 60, 3)
    assert "next: cornernet train --data" in capsys.readouterr().out


def test_pictures_of_the_same_bytes_are_never_divided(tmp_path) -> None:
    root = folder(tmp_path, count=20, repeats=8)
    for seed in range(5):
        division = divide(root, {"val": 0.4}, seed=seed)
        place = {index: split for split, part in division.parts.items() for index in part}
        assert all(place[n] == place[12 + n] for n in range(8))
        assert division.repeated == 8
    assert main(["data", "split", str(root), "--val", "0.4"]) == 0
    source = CocoSource(root=str(root))
    assert shared_images(open_dataset(source, "train"), open_dataset(source, "val")) == 0


def test_the_seed_decides_and_the_order_of_the_file_does_not(tmp_path) -> None:
    root = folder(tmp_path)

    def names(seed: int) -> set[str]:
        division = divide(root, {"val": 0.3}, seed=seed)
        return {division.dataset.records[index].path.name for index in division.parts["val"]}

    assert names(0) == names(0)
    assert len({frozenset(names(seed)) for seed in range(4)}) > 1
    before, content = names(0), read(root, "all")
    content["images"].reverse()
    write_json(root / "annotations/instances_all.json", content)
    assert names(0) == before


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 4), st.floats(0.1, 0.5))
def test_every_group_is_dealt_once_and_shares_are_kept_to_a_group(seed, groups, classes, share) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 2, (groups, classes))
    dealt = deal(counts, [1] * groups, [1 - share, share], seed)
    assert set(dealt.tolist()) <= {0, 1}
    # each class in its turn may take a part one over its share
    assert abs((dealt == 1).sum() - share * groups) <= classes + 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--val", "0"], "--val is 0.0; give a fraction"),
        (["--val", "0.5", "--test", "0.6"], "leave nothing for train"),
        (["--file", "nope.json"], "there is no file"),
    ],
)
def test_what_cannot_be_divided_says_why(flags, message, tmp_path, capsys) -> None:
    assert main(["data", "split", str(folder(tmp_path, 4)), *flags]) == 2
    assert message in capsys.readouterr().err


def test_too_few_pictures_are_refused(tmp_path, capsys) -> None:
    assert main(["data", "split", str(folder(tmp_path, 3, repeats=2)), "--val", "0.01"]) == 2
    assert "too few to give val one" in capsys.readouterr().err


def test_files_that_are_there_are_kept_and_several_need_a_choice(tmp_path, capsys) -> None:
    root = folder(tmp_path)
    assert main(["data", "split", str(root), "--dry-run"]) == 0
    assert not (root / "annotations/instances_train.json").exists()
    assert main(["data", "split", str(root)]) == 0
    assert main(["data", "split", str(root)]) == 2
    assert "several annotation files" in capsys.readouterr().err
    again = ["data", "split", str(root), "--file", "annotations/instances_all.json"]
    assert main(again) == 2
    assert "give --overwrite" in capsys.readouterr().err
    assert main([*again, "--overwrite"]) == 0
    assert main(["data", "split", str(root), "--file", "annotations/instances_train.json", "--overwrite"]) == 2
    assert "is the file to split, and writing the splits would overwrite it" in capsys.readouterr().err


def test_shared_images_are_found_by_content_whatever_they_are_named(tmp_path) -> None:
    train, val = coco_folder(tmp_path / "a"), coco_folder(tmp_path / "b")
    (val / "images" / "a.png").rename(val / "images" / "renamed.png")
    images = [{"id": 1, "file_name": "renamed.png", "height": 40, "width": 60}]
    write_json(val / "annotations/instances_train.json", tree(images=images, annotations=[]))
    first, second = (open_dataset(CocoSource(root=str(root)), "train") for root in (train, val))
    assert shared_images(first, second) == 1
    cv2.imwrite(str(val / "images" / "renamed.png"), picture(99))
    assert shared_images(first, second) == 0


def test_the_file_that_was_divided_is_no_split_that_leaks(tmp_path, capsys) -> None:
    root = folder(tmp_path)
    assert main(["data", "split", str(root)]) == 0
    assert main(["data", "check", str(root)]) == 0
    assert "are in both" not in capsys.readouterr().out


# ------------------------------------------------------------------------- val out of train, test left alone


def renamed(root: Path, name: str, *others: str) -> Path:
    """The folder with its annotation file under another name, and copies of it as ``others``."""
    content = (root / "annotations/instances_all.json").read_text()
    (root / "annotations/instances_all.json").unlink()
    for each in (name, *others):
        (root / each).parent.mkdir(exist_ok=True)
        (root / each).write_text(content)
    return root


def ours(root: Path, split: str) -> None:
    write_json(root / f"annotations/instances_{split}.json", {**read(root, split), "info": dict(WRITTEN_BY_US)})


@pytest.mark.parametrize("others", [(), ("annotations/instances_test.json",)])
def test_val_is_taken_out_of_an_imported_train_whose_content_is_kept(others, tmp_path, capsys) -> None:
    root = renamed(folder(tmp_path), "annotations/instances_train.json", *others)
    ours(root, "train")
    before = {path.name: path.read_bytes() for path in (root / "annotations").iterdir()}
    assert main(["data", "split", str(root), "--dry-run"]) == 0
    assert "would keep" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (root / "annotations").iterdir()} == before
    assert main(["data", "split", str(root), "--val", "0.25"]) == 0
    said = capsys.readouterr().out
    assert f"kept {root}/annotations/instances_train.json as {root}/annotations/instances_train_all.json" in said
    assert ("left as it is: annotations/instances_test.json" in said) == bool(others)
    assert (root / "annotations/instances_train_all.json").read_bytes() == before["instances_train.json"]
    assert [len(read(root, split)["images"]) for split in ("train", "val")] == [15, 5]
    if others:
        assert (root / others[0]).read_bytes() == before["instances_test.json"]
    again = ["data", "split", str(root)]
    assert main(again) == 2
    assert "for example: --file annotations/instances_train_all.json" in capsys.readouterr().err
    assert main([*again, "--file", "annotations/instances_train_all.json", "--seed", "1", "--overwrite"]) == 0
    assert [len(read(root, split)["images"]) for split in ("train", "val")] == [16, 4]


def test_a_train_file_of_the_users_is_replaced_only_when_asked_and_then_kept(tmp_path, capsys) -> None:
    root = renamed(folder(tmp_path), "annotations/instances_train.json")
    path = root / "annotations/instances_train.json"
    before = path.read_bytes()
    assert main(["data", "split", str(root)]) == 2
    assert "give --overwrite, and its content is kept in instances_train_all.json" in capsys.readouterr().err
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert main(["data", "split", str(root), "--overwrite"]) == 0
    assert (root / "annotations/instances_train_all.json").read_bytes() == before


def test_a_link_to_the_users_train_file_is_not_ours(tmp_path, capsys) -> None:
    root = renamed(folder(tmp_path), "annotations/instances_train.json")
    ours(root, "train")
    path = root / "annotations/instances_train.json"
    path.rename(root / "elsewhere.txt")
    path.symlink_to(root / "elsewhere.txt")
    before = (root / "elsewhere.txt").read_bytes()
    assert main(["data", "split", str(root)]) == 2
    assert "give --overwrite" in capsys.readouterr().err
    assert (root / "elsewhere.txt").read_bytes() == before


@pytest.mark.parametrize("killed_after", [0, 1, 2])
def test_a_split_that_is_killed_leaves_no_image_in_two_splits_and_can_be_repeated(
    killed_after, tmp_path, monkeypatch, capsys
) -> None:
    root = renamed(folder(tmp_path), "annotations/instances_train.json")
    ours(root, "train")
    before = (root / "annotations/instances_train.json").read_bytes()
    written = []

    def write(path: Path, content: bytes | str) -> None:
        if len(written) == killed_after:
            raise KeyboardInterrupt
        written.append(path)
        atomic_write(path, content)

    monkeypatch.setattr("cornernet.data.formats.split.atomic_write", write)
    assert main(["data", "split", str(root)]) == 130
    monkeypatch.undo()
    assert not (root / "annotations/instances_val.json").exists()
    capsys.readouterr()
    flags = []
    if killed_after == 2:
        assert main(["data", "split", str(root)]) == 2
        flags = ["--file", "annotations/instances_train_all.json", "--overwrite"]
        assert " ".join(flags) in capsys.readouterr().err
    assert main(["data", "split", str(root), *flags]) == 0
    assert (root / "annotations/instances_train_all.json").read_bytes() == before
    assert [len(read(root, split)["images"]) for split in ("train", "val")] == [16, 4]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("annotations/train.json", "annotations/test.json"),
        ("train/_annotations.coco.json", "test/_annotations.coco.json"),
        ("annotations/instances_train2017.json", "annotations/instances_test2017.json"),
        ("annotations/labels.json", "annotations/test.json"),
    ],
)
def test_other_names_of_train_and_test_are_split_beside_themselves(train, test, tmp_path, capsys) -> None:
    root = renamed(folder(tmp_path), train, test)
    before = {name: (root / name).read_bytes() for name in (train, test)}
    for path in (root / "images/all").iterdir():
        path.rename(root / "images" / path.name)
    assert main(["train", "--data", str(root), "--dry-run"]) == 2
    assert f"split {train}: cornernet data split {root}" in capsys.readouterr().err
    assert main(["data", "split", str(root)]) == 0
    assert {name: (root / name).read_bytes() for name in (train, test)} == before
    source = CocoSource(root=str(root))
    assert [len(open_dataset(source, split)) for split in ("train", "val")] == [16, 4]


def test_the_example_for_splitting_again_leads_on(tmp_path, capsys) -> None:
    root = renamed(folder(tmp_path), "annotations/instances_all.json", "annotations/instances_test.json")
    assert main(["data", "split", str(root), "--test", "0.2"]) == 2
    assert "instances_test.json exists already" in capsys.readouterr().err
    assert main(["data", "split", str(root)]) == 0
