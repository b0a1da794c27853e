"""What a YOLO folder says about itself: data.yaml is followed, names are texts, contradictions are errors."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from cornernet.cli import main
from cornernet.data import DataError
from cornernet.data.formats.importing import ImportedFolder
from cornernet.data.formats.yolo import read_yolo
from cornernet.data.formats.yolo_set import read_set
from tests.unit.data.folders import picture

LINE = "0 0.5 0.5 0.5 0.5\n"


def labelled(root: Path, *places: str, line: str = LINE) -> None:
    """Write pictures (60x40), each with a text file in ``labels`` for ``images``, or else beside it."""
    for number, place in enumerate(places):
        path = root / place
        parts = ["labels" if part == "images" else part for part in Path(place).parts]
        label = root.joinpath(*parts).with_suffix(".txt")
        for each in (path, label):
            each.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture(number))
        label.write_text(line)


def unlabelled(root: Path, *places: str) -> None:
    for place in places:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / place), picture(9))


def splits(found: ImportedFolder) -> dict[str, list[str]]:
    return {
        split: [image.path.relative_to(found.folder).as_posix() for image in found.images if image.split == split]
        for split in found.splits
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two folders whose names say nothing about splits, in a folder ``set``."""
    root = tmp_path / "set"
    labelled(root, "one/images/a.png", "one/images/b.png", "two/images/c.png")
    return root


def yaml(root: Path, text: str, name: str = "data.yaml") -> None:
    (root / name).write_text(f"names: [cell]\n{text}")


BOTH = {"train": ["one/images/a.png", "one/images/b.png"], "val": ["two/images/c.png"]}


@pytest.mark.parametrize(
    "text",
    [
        "train: one/images\nval: two/images\n",
        "train: ./one\nvalid: two/\n",
        "path: .\ntrain: [one/images]\nvalidation:\n- two/images\ntest: # none\n",
        "path: one\ntrain: images\nval: ../two/images\ntest: ~\n",
        "train: ../one/images\nval: ../two/images\n",
        "train: [one/images/a.png, one/images/b.png]\nval: two/images/c.png\n",
        "train: one\\images\nval: .\\two\\images\n",
    ],
)
def test_the_folders_of_the_yaml_are_the_splits(text: str, root: Path) -> None:
    yaml(root, text)
    found = read_yolo(root)
    assert splits(found) == BOTH
    assert found.notes == ()


@pytest.mark.parametrize(
    "line",
    [
        "one/images/{}.png",
        "./one/images/{}.png",
        "one\\images\\{}.png",
        "  one/images/{}.png \r",
    ],
)
def test_lists_of_images_are_followed(line: str, root: Path) -> None:
    yaml(root, "train: train.txt\nval: [two/images, more.txt]\n")
    (root / "train.txt").write_bytes(line.format("a").encode() + b"\n\n" + b"one/images/gone.png\n")
    (root / "more.txt").write_text("\ufeff" + line.format("b"))
    found = read_yolo(root)
    assert splits(found) == {"train": ["one/images/a.png"], "val": ["one/images/b.png", "two/images/c.png"]}
    assert [(item.image, item.reason) for item in found.dropped] == [
        ("train.txt line 3", "the image that it names is not there")
    ]


def test_a_line_that_begins_with_a_point_is_relative_to_its_list(root: Path) -> None:
    yaml(root, "train: one/train.txt\nval: two/images\n")
    (root / "one" / "train.txt").write_text("./images/a.png\n")
    assert splits(read_yolo(root)) == {"train": ["one/images/a.png"], "val": ["two/images/c.png"]}


def test_a_list_without_any_image_that_is_there_is_an_error(root: Path) -> None:
    yaml(root, "train: train.txt\n")
    (root / "train.txt").write_text("images/x.png\nimages/y.png\n")
    with pytest.raises(DataError, match=r"none of the 2 images of the list .*train.txt is there, such as images/x.png"):
        read_yolo(root)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (
            "train: /home/them/set/one/images\nval: two/images\n",
            "train of data.yaml is /home/them/set/one/images: read",
        ),
        ("train: C:\\them\\x\\one\\images\nval: two/images\n", "train of data.yaml is C:\\them\\x\\one\\images: read"),
        ("path: ../sets/mine\ntrain: one/images\nval: two/images\n", "path of data.yaml is ../sets/mine, which is not"),
        ("path: two\ntrain: one/images\nval: images\n", "train of data.yaml is one/images: read from"),
    ],
)
def test_places_of_another_machine_are_found_and_said(text: str, note: str, root: Path) -> None:
    yaml(root, text)
    found = read_yolo(root)
    assert splits(found) == BOTH
    assert [each for each in found.notes if note in each]
    assert note in found.to_text()


def test_absolute_lines_of_another_machine_are_found_and_counted(root: Path) -> None:
    yaml(root, "train: train.txt\nval: two/images\n")
    (root / "train.txt").write_text("/content/set/one/images/a.png\n/content/one/images/b.png\n")
    found = read_yolo(root)
    assert splits(found) == BOTH
    assert found.notes == ("train.txt: 2 lines found at another place in the folder than named",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: three/images\n", "train is three/images, and "),
        ("train: /gone/three\n", "train is /gone/three, and "),
        ("train: ../other/images\n", "which is outside"),
        ("val: two/images\n", "has val but no train"),
        ("train: {epochs: 3}\n", "train must be a folder, a .txt file"),
        ("train: one\nval: two\nvalid: one\n", "has both val and valid"),
        ("train: one\ntrain: two\n", "'train' twice"),
        ("nc: 2\n", "nc is 2, and the number of names is 1"),
        ("train: data.yaml\n", "give a folder, a .txt file with images, or an image"),
        ("kpt_shape: 17\n", "kpt_shape must be"),
    ],
)
def test_a_yaml_that_cannot_be_followed_is_an_error(text: str, message: str, root: Path) -> None:
    labelled(root.parent, "other/images/z.png")
    yaml(root, text)
    with pytest.raises(DataError) as error:
        read_yolo(root)
    assert message in str(error.value)
    assert "data.yaml" in str(error.value)


def test_val_and_test_that_are_not_there_are_said(root: Path) -> None:
    yaml(root, "train: one/images\nval: ../valid/images\ntest: ../test/images\n")
    found = read_yolo(root)
    assert found.splits == ("train",)
    assert "val of data.yaml is ../valid/images, which is not there: left out" in found.to_text()
    assert "test of data.yaml is ../test/images" in found.to_text()


def test_a_val_without_pictures_is_said(root: Path) -> None:
    (root / "valid").mkdir()
    yaml(root, "train: one/images\nval: valid\n")
    assert "val of data.yaml is valid, which has no image" in read_yolo(root).notes


def test_the_number_of_classes_is_compared_with_names_of_a_text_file(root: Path) -> None:
    (root / "data.yaml").write_text("train: one/images\nnc: 2\n")
    (root / "classes.txt").write_text("cell\n")
    with pytest.raises(DataError, match="nc is 2, and the number of names is 1"):
        read_yolo(root)
    (root / "classes.txt").write_text("cell\nrod\n")
    assert read_yolo(root).classes == ("cell", "rod")


def test_folders_of_recordings_are_no_splits(tmp_path: Path) -> None:
    labelled(tmp_path, "images/test1/a.png", "images/test2/b.png")
    (tmp_path / "classes.txt").write_text("cell\n")
    assert read_yolo(tmp_path).splits == ("all",)


def test_what_the_yaml_does_not_name_is_left_out_and_said(root: Path) -> None:
    yaml(root, "train: one/images\nval: two/images\n")
    unlabelled(root, "runs/detect/val/pred.jpg", "runs/detect/train/batch.jpg")
    labelled(root, "three/images/d.png")
    found = read_yolo(root)
    assert splits(found) == BOTH
    assert found.dropped == ()
    assert [note for note in found.notes if "3 images that data.yaml does not name: left out" in note]


def test_an_image_in_two_splits_is_in_both_and_said(root: Path) -> None:
    yaml(root, "train: one/images\nval: one/images\n")
    found = read_yolo(root)
    assert splits(found) == {"train": BOTH["train"], "val": BOTH["train"]}
    assert "2 images in more than one split, as data.yaml says" in found.to_text()


def test_a_split_without_any_text_file_is_dropped(root: Path) -> None:
    yaml(root, "train: one/images\nval: two/images\ntest: other\n")
    unlabelled(root, "other/z.png")
    found = read_yolo(root)
    assert splits(found) == BOTH
    assert [(item.image, item.reason) for item in found.dropped] == [
        ("other/z.png", "no image of its split has a text file")
    ]


def test_two_yaml_files_that_disagree_are_an_error_that_names_both(root: Path, capsys) -> None:
    yaml(root, "train: one/images\n")
    yaml(root, "train: two/images\n", "pocket.yaml")
    assert main(["data", "import-yolo", str(root)]) == 2
    said = capsys.readouterr().err
    assert str(root / "data.yaml") in said
    assert f"--names {root / 'pocket.yaml'}" in said
    assert not (root / "annotations").exists()
    (root / "pocket.yaml").write_text("names: [pocket]\ntrain: one/images\n")
    with pytest.raises(DataError, match="class 0 is 'cell' and 'pocket'"):
        read_yolo(root)
    chosen = read_yolo(root, names=root / "pocket.yaml")
    assert chosen.classes == ("pocket",)
    assert splits(chosen) == {"train": BOTH["train"]}
    yaml(root, "train: ../one/images\n", "pocket.yaml")
    assert splits(read_yolo(root)) == {"train": BOTH["train"]}


def test_yaml_files_about_something_else_do_not_matter(root: Path) -> None:
    yaml(root, "train: one/images\n")
    (root / "args.yaml").write_text("train: &x 3\nval: *x\n")
    (root / "hyp.yaml").write_text("lr: 0.1\nval: true\n")
    (root / "broken.yml").write_text("names: [\n")
    (root / "._data.yaml").write_bytes(b"\0\5\xff names")
    found = read_yolo(root)
    assert splits(found) == {"train": BOTH["train"]}
    assert [note.split(" was")[0] for note in found.notes if "was not used" in note] == ["args.yaml", "broken.yml"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[yes, no]", ("yes", "no")),
        ("[007, 010, 0x1F]", ("007", "010", "0x1F")),
        ("[1:30, 1e5, 1_000]", ("1:30", "1e5", "1_000")),
        ("[null, ~, 2020-01-02]", ("null", "~", "2020-01-02")),
        ("[.inf, 3.20, 'on', \"off\"]", (".inf", "3.20", "on", "off")),
        ("{1: true, 0: 12:30:45}", ("12:30:45", "true")),
        ("\n  '0': NO\n  01: SE", ("NO", "SE")),
    ],
)
def test_names_are_the_text_as_written(text: str, names: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text(f"names: {text}\n")
    assert read_set(tmp_path).names == names


def test_a_class_number_given_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: {0: cell, 0: rod}\n")
    with pytest.raises(DataError, match="'0' twice"):
        read_set(tmp_path)


def test_names_below_the_folder_are_read_where_they_agree(tmp_path: Path) -> None:
    labelled(tmp_path, "train/a.png", "valid/b.png")
    for split in ("train", "valid"):
        (tmp_path / split / "_darknet.labels").write_text("red\n")
    found = read_yolo(tmp_path)
    assert found.classes == ("red",)
    assert splits(found) == {"train": ["train/a.png"], "val": ["valid/b.png"]}
    (tmp_path / "valid" / "_darknet.labels").write_text("blue\n")
    with pytest.raises(DataError, match="class 0 is 'red' and 'blue'"):
        read_yolo(tmp_path)


def test_other_names_in_a_text_file_are_said(root: Path) -> None:
    yaml(root, "train: one/images\n")
    (root / "classes.txt").write_text("dog\nperson\n")
    found = read_yolo(root)
    assert found.classes == ("cell",)
    assert "classes.txt has other class names; those of data.yaml were used" in found.notes


@pytest.mark.parametrize("form", ["data", "lists"])
def test_lists_of_darknet_are_followed_without_a_yaml(form: str, tmp_path: Path) -> None:
    labelled(tmp_path, "obj_train_data/a.png", "obj_train_data/b.png", "obj_train_data/c.png")
    (tmp_path / "obj.names").write_text("cell\n")
    (tmp_path / "train.txt").write_text("data/obj_train_data/a.png\ndata/obj_train_data/b.png\n")
    (tmp_path / "valid.txt").write_text("data/obj_train_data/c.png\n")
    if form == "data":
        (tmp_path / "obj.data").write_text(
            "classes = 1\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = backup/\n"
        )
    found = read_yolo(tmp_path)
    assert splits(found) == {"train": ["obj_train_data/a.png", "obj_train_data/b.png"], "val": ["obj_train_data/c.png"]}


@pytest.mark.parametrize("places", [("train2017", "val2017"), ("Training", "Validation"), ("train_2012", "valid-2007")])
def test_without_a_yaml_the_folders_names_are_the_splits(places: tuple[str, str], tmp_path: Path) -> None:
    labelled(tmp_path, f"images/{places[0]}/a.png", f"images/{places[1]}/b.png")
    (tmp_path / "classes.txt").write_text("cell\n")
    assert splits(read_yolo(tmp_path)) == {
        "train": [f"images/{places[0]}/a.png"],
        "val": [f"images/{places[1]}/b.png"],
    }


def test_without_a_yaml_pictures_in_folders_without_labels_are_dropped(tmp_path: Path) -> None:
    labelled(tmp_path, "images/train/a.png", "images/val/b.png")
    unlabelled(tmp_path, "images/train/background/c.png", "images/test/d.png", "runs/detect/val/pred.png", "shown.png")
    (tmp_path / "classes.txt").write_text("cell\n")
    found = read_yolo(tmp_path)
    assert splits(found) == {
        "train": ["images/train/a.png", "images/train/background/c.png"],
        "val": ["images/val/b.png"],
    }
    assert {item.reason for item in found.dropped} == {"no image of its folder has a text file"}
    assert [item.image for item in found.dropped] == ["images/test/d.png", "runs/detect/val/pred.png", "shown.png"]


def test_linked_folders_are_followed_and_circles_end(tmp_path: Path) -> None:
    labelled(tmp_path, "far/images/a.png", "far/images/b.png")
    root = tmp_path / "set"
    (root / "labels").mkdir(parents=True)
    (root / "train").symlink_to(tmp_path / "far" / "images")
    (root / "again").symlink_to(root)
    (root / "classes.txt").write_text("cell\n")
    found = read_yolo(root)
    assert splits(found) == {"train": ["train/a.png", "train/b.png"]}
    assert [len(image.boxes) for image in found.images] == [1, 1]


def test_the_splits_of_the_yaml_are_written(root: Path, capsys) -> None:
    labelled(root, "three/images/d.png")
    yaml(root, "train: one/images\nval: two/images\ntest: three/images\n")
    assert main(["data", "import-yolo", str(root)]) == 0
    assert f"next: cornernet data check {root}" in capsys.readouterr().out
    written = {
        path.stem: [image["file_name"] for image in json.loads(path.read_text())["images"]]
        for path in (root / "annotations").glob("*.json")
    }
    assert written == {
        "instances_train": BOTH["train"],
        "instances_val": BOTH["val"],
        "instances_test": ["three/images/d.png"],
    }
