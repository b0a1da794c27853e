"""Pascal VOC folders: pixels counted from 1, flags by choice, what is dropped, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cornernet.cli import main
from cornernet.config import CocoSource
from cornernet.data import DataError, open_dataset
from cornernet.data.formats.importing import write_import
from cornernet.data.formats.voc import read_voc
from tests.unit.data.folders import write_images


def thing(name: str = "cell", box: tuple[Any, ...] = (1, 1, 10, 20), **tags: Any) -> str:
    corners = "".join(f"<{tag}>{v}</{tag}>" for tag, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    rest = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags.items())
    return f"<object><name>{name}</name>{rest}<bndbox>{corners}</bndbox></object>"


def xml(*objects: str, filename: str = "a.png", size: str = "<width>60</width><height>40</height>") -> str:
    return f"<annotation><filename>{filename}</filename><size>{size}</size>{''.join(objects)}</annotation>"


def voc(root: Path, **files: str) -> Path:
    """A VOC folder with pictures a, b (60x40) and c (20x30), and an xml file for each of ``files``."""
    write_images(root / "JPEGImages")
    (root / "Annotations").mkdir()
    for stem, text in files.items():
        (root / "Annotations" / f"{stem}.xml").write_text(text)
    return root


def lists(root: Path, **splits: str) -> None:
    place = root / "ImageSets" / "Main"
    place.mkdir(parents=True)
    for name, text in splits.items():
        (place / f"{name}.txt").write_text(text)


@pytest.mark.parametrize(("boxes", "expected"), [("one-based", (0, 2, 10, 20)), ("edges", (1, 3, 10, 20))])
def test_first_and_last_pixel_become_edges_unless_the_numbers_are_edges(boxes, expected, tmp_path) -> None:
    found = read_voc(voc(tmp_path, a=xml(thing(box=(1, 3, 10, 20)))), boxes=boxes)
    assert [item.box for image in found.images for item in image.boxes] == [expected]


def test_a_box_that_fills_the_picture_reaches_its_edges(tmp_path) -> None:
    root = voc(tmp_path, a=xml(thing(box=(1, 1, 60, 40))))
    write_import(read_voc(root), root)
    dataset = open_dataset(CocoSource(root=str(root), train_split="all"), "train")
    assert dataset.records[0].boxes.tolist() == [[0, 0, 60, 40]]
    assert dataset.read(0).shape == (40, 60, 3)


def test_a_box_at_pixel_zero_hints_at_edges(tmp_path) -> None:
    root = voc(tmp_path, a=xml(thing(box=(0, 5, 10, 20))))
    assert "--boxes edges" in " ".join(read_voc(root).notes)
    assert "begin at pixel 0" not in read_voc(root, boxes="edges").to_text()


@pytest.mark.parametrize(("choice", "boxes", "crowds"), [("keep", 2, 0), ("ignore", 2, 1), ("drop", 1, 0)])
@pytest.mark.parametrize("flag", ["difficult", "truncated"])
def test_flagged_objects_are_kept_ignored_or_dropped(flag, choice, boxes, crowds, tmp_path) -> None:
    root = voc(tmp_path, a=xml(thing(), thing(**{flag: 1})))
    choices: Any = {flag: choice}
    found = read_voc(root, **choices)
    rows = found.tree("all")["annotations"]
    assert (len(rows), sum(row["iscrowd"] for row in rows)) == (boxes, crowds)
    assert f"1 {flag} object: " in found.to_text()
    assert ("it is " + flag in found.to_text()) == (choice == "drop")


def test_lists_of_image_sets_are_the_splits_and_ids_are_in_one_alone(tmp_path) -> None:
    root = voc(tmp_path, a=xml(thing()), b=xml(thing(), filename="b.png"), c=xml(thing("rod"), filename="gone.png"))
    lists(root, train="a\n", val="b\nz\n")
    found = read_voc(root)
    assert found.splits == ("train", "val")
    ids = [image["id"] for split in found.splits for image in found.tree(split)["images"]]
    assert sorted(ids) == [1, 2]
    assert "it is in no list of ImageSets/Main (1): Annotations/c.xml" in found.to_text()
    assert "it is listed in ImageSets/Main but has no xml file (1): z" in found.to_text()


def test_folders_named_after_splits_are_the_splits(tmp_path) -> None:
    for name, stem in (("train", "a"), ("valid", "b")):
        write_images(tmp_path / name, (f"{stem}.png",))
        (tmp_path / name / f"{stem}.xml").write_text(xml(thing(), filename=f"{stem}.png"))
    assert read_voc(tmp_path).splits == ("train", "val")


def test_what_cannot_be_used_is_dropped_with_its_reason(tmp_path) -> None:
    root = voc(
        tmp_path,
        a=xml(thing(box=(5, 5, 4, 9)), thing(box=(70, 1, 90, 9)), thing("rod"), thing()),
        b=xml(thing(), filename="nowhere.png"),
    )
    (root / "JPEGImages" / "b.png").unlink()
    found = read_voc(root, classes=("cell",))
    assert [image.path.name for image in found.images] == ["a.png"]
    reasons = {item.image: item.reason for item in found.dropped}
    assert reasons == {
        "Annotations/a.xml object 1": "its box has no width or no height",
        "Annotations/a.xml object 2": "its box lies outside the image",
        "Annotations/a.xml object 3": "its class rod is not among --classes",
        "Annotations/b.xml": "its image is missing (the first is nowhere.png)",
    }


def test_a_size_that_is_not_stated_is_taken_from_the_picture(tmp_path) -> None:
    root = voc(tmp_path, c=xml(thing(), filename="c.png", size="<width>0</width><height>0</height>"))
    assert read_voc(root).images[0].size == (30, 20)


BILLION = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY l "lol"><!ENTITY m "&l;&l;&l;&l;&l;&l;&l;&l;&l;&l;">]>
<annotation><filename>&m;</filename></annotation>"""
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation><filename>&x;</filename></annotation>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BILLION, "declares a document type"),
        (OUTSIDE, "declares a document type"),
        ("<annotation>" + "<x>" * 40 + "</x>" * 40 + "</annotation>", "more than 32 deep"),
        ("<annotation><filename>a.png", "is not valid xml"),
        ("<!-- -->", "is not valid xml"),
        ("<html></html>", "the outermost tag is <html>"),
        (xml(thing(box=(1, "wide", 10, 20))), "object 1: bndbox.ymin is 'wide'; write a number"),
        (xml(thing(box=(1, "nan", 10, 20))), "bndbox.ymin is 'nan'"),
        (xml("<object><name>cell</name></object>"), "object 1 (cell) has no <bndbox>"),
        (xml(thing(" ")), "object 1 has no <name>"),
        (xml(thing(difficult="maybe")), "difficult is 'maybe'; write 0 or 1"),
        (xml(thing(), size="<width>6x</width><height>40</height>"), "size.width is '6x'"),
    ],
)
def test_what_is_not_voc_is_refused_by_file_and_field(text, message, tmp_path, capsys) -> None:
    root = voc(tmp_path, a=text)
    assert main(["data", "import-voc", str(root)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "a.xml" in said
    assert not (root / "annotations").exists() or (root / "annotations").samefile(root / "Annotations")


def test_a_file_too_large_for_annotations_is_refused_unread(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("cornernet.data.formats.voc.LARGEST_FILE", 100)
    with pytest.raises(DataError, match="is it really an annotation file"):
        read_voc(voc(tmp_path, a=xml(thing(), thing())))


def test_one_picture_in_two_lists_or_two_files_is_refused(tmp_path) -> None:
    root = voc(tmp_path, a=xml(thing()), b=xml(thing(), filename="a.png"))
    (root / "JPEGImages" / "b.png").unlink()
    with pytest.raises(DataError, match="both annotate"):
        read_voc(root)
    lists(root, train="a\n", val="a\n")
    with pytest.raises(DataError, match=r"listed in train\.txt and in val\.txt"):
        read_voc(root)


def test_a_name_that_leads_out_of_the_folder_finds_nothing_there(tmp_path) -> None:
    write_images(tmp_path / "secret", ("s.png",))
    root = voc(tmp_path / "voc", a=xml(thing(), filename="../../secret/s.png"), b=xml(thing(), filename="b.png"))
    assert [image.path.name for image in read_voc(root).images] == ["a.png", "b.png"]


@pytest.mark.parametrize("dry", [True, False])
def test_another_folder_gets_copies_and_a_dry_run_writes_nothing(dry, tmp_path, capsys) -> None:
    root, out = voc(tmp_path / "voc", a=xml(thing())), tmp_path / "coco"
    assert main(["data", "import-voc", str(root), "--out", str(out), *(["--dry-run"] if dry else [])]) == 0
    printed = capsys.readouterr().out
    assert "instances_all.json" in printed
    following = f"import-voc {root} --out {out}" if dry else f"split {out}"
    assert printed.endswith(f"next: cornernet data {following}\n")
    assert out.exists() != dry
    if not dry:
        dataset = open_dataset(CocoSource(root=str(out), train_split="all"), "train")
        assert dataset.records[0].path == out / "images" / "JPEGImages" / "a.png"
        assert "dropped: nothing" in (out / "annotations" / "import.txt").read_text()


def test_annotations_that_are_there_are_replaced_only_when_asked(tmp_path, capsys) -> None:
    root = voc(tmp_path, a=xml(thing()))
    assert main(["data", "import-voc", str(root)]) == 0
    before = (root / "annotations" / "instances_all.json").read_bytes()
    assert main(["data", "import-voc", str(root), "--boxes", "edges"]) == 2
    assert "give --overwrite" in capsys.readouterr().err
    assert (root / "annotations" / "instances_all.json").read_bytes() == before
    assert main(["data", "import-voc", str(root), "--boxes", "edges", "--overwrite"]) == 0
    tree = json.loads((root / "annotations" / "instances_all.json").read_text())
    assert tree["info"]["boxes"] == "edges"
    assert tree["annotations"][0]["bbox"] == [1, 1, 9, 19]


# ------------------------------------------------------------------------------ which picture, and its size


def names(root: Path) -> list[str]:
    return [image.path.relative_to(root).as_posix() for image in read_voc(root).images]


def test_the_files_own_name_decides_about_its_picture_and_a_disagreement_is_said(tmp_path) -> None:
    root = voc(tmp_path, a=xml(thing(), filename="b.png"), b=xml(thing("rod"), filename="a.png"))
    found = read_voc(root)
    assert {image.path.name: image.boxes[0].name for image in found.images} == {"a.png": "cell", "b.png": "rod"}
    assert "in 2 files: the file's own name decides (first: a.png, not b.png)" in found.to_text()


@pytest.mark.parametrize(
    ("stated", "picture"),
    [
        ("a", "a.png"),
        ("a.jpg", "a.png"),
        (r"C:\photos\a.png", "a.png"),
        ("../elsewhere/a.png", "a.png"),
        ("", "a.png"),
        ("c.png", "c.png"),
    ],
)
def test_a_name_may_have_another_ending_or_folder_or_be_missing(stated, picture, tmp_path) -> None:
    stem = Path(picture).stem if stated != "c.png" else "z"
    root = voc(tmp_path, **{stem: xml(thing(), filename=stated, size="")})
    assert names(root) == [f"JPEGImages/{picture}"]
    assert "the file's own name decides" not in read_voc(root).to_text()


@pytest.mark.parametrize("ending", [".PNG", ".Png"])
def test_endings_in_capitals_are_found(ending, tmp_path) -> None:
    root = voc(tmp_path, a=xml(thing()))
    (root / "JPEGImages" / "a.png").rename(root / "JPEGImages" / f"a{ending}")
    assert names(root) == [f"JPEGImages/a{ending}"]


def test_the_stated_ending_decides_between_two_pictures_of_one_stem_or_nothing_does(tmp_path) -> None:
    root = voc(tmp_path, a=xml(thing(), filename="a.png"))
    write_images(root / "JPEGImages", ("a.bmp",))
    assert names(root) == ["JPEGImages/a.png"]
    (root / "Annotations" / "a.xml").write_text(xml(thing(), filename="a"))
    with pytest.raises(DataError, match=r"a\.bmp and .*a\.png have the same stem"):
        read_voc(root)


@pytest.mark.parametrize(
    ("annotations", "pictures"),
    [
        ("Annotations/cam1", "JPEGImages/cam1"),
        ("Annotations/cam1", "JPEGImages"),
        ("annotations", "images/cam1"),
        ("train/annotations", "images/train"),
        ("annotations/train", "train"),
        ("xml", "img"),
        ("", "images"),
    ],
)
def test_a_picture_is_found_in_the_folders_that_mirror_those_of_its_file(annotations, pictures, tmp_path) -> None:
    write_images(tmp_path / pictures, ("a.png",))
    (tmp_path / annotations).mkdir(parents=True, exist_ok=True)
    (tmp_path / annotations / "a.xml").write_text(xml(thing()))
    assert names(tmp_path) == [f"{pictures}/a.png"]


@pytest.mark.parametrize(("annotations", "pictures"), [("cam1", "cam2"), ("Annotations/cam1", "JPEGImages/cam2")])
def test_the_picture_of_another_folder_is_not_taken(annotations, pictures, tmp_path) -> None:
    write_images(tmp_path / pictures, ("a.png",))
    (tmp_path / annotations).mkdir(parents=True, exist_ok=True)
    (tmp_path / annotations / "a.xml").write_text(xml(thing()))
    assert "its image is missing (the first is a.png)" in read_voc(tmp_path).to_text()


def test_masks_of_the_same_name_are_no_pictures(tmp_path) -> None:
    write_images(tmp_path / "SegmentationClass", ("a.png",))
    write_images(tmp_path / "photos", ("a.png",))
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text(xml(thing()))
    assert names(tmp_path) == ["photos/a.png"]


def test_xml_files_below_annotations_are_all_read_and_what_is_not_read_is_said(tmp_path) -> None:
    root = voc(tmp_path, a=xml(thing()))
    (root / "Annotations" / "more").mkdir()
    (root / "Annotations" / "more" / "b.XML").write_text(xml(thing(), filename="b.png"))
    (root / "backup").mkdir()
    (root / "backup" / "a.xml").write_text(xml(thing()))
    text = read_voc(root).to_text()
    assert names(root) == ["JPEGImages/a.png", "JPEGImages/b.png"]
    assert "1 xml file outside of Annotations: not read (first: backup/a.xml)" in text
    assert "1 image without an xml file: left out (first: JPEGImages/c.png)" in text


def test_hidden_files_and_folders_and_xml_of_other_programs_are_passed_over(tmp_path) -> None:
    write_images(tmp_path, ("a.png",))
    (tmp_path / "a.xml").write_text(xml(thing()))
    (tmp_path / "._a.xml").write_bytes(b"\0\5\26\7")
    for place in (".idea", ".ipynb_checkpoints"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "misc.xml").write_text("<project/>")
    assert "dropped: nothing" in read_voc(tmp_path).to_text()
    (tmp_path / "pom.xml").write_text("<project/>")
    found = read_voc(tmp_path)
    assert len(found.images) == 1
    assert "its outermost tag is <project>, not <annotation> (1): pom.xml" in found.to_text()


@pytest.mark.parametrize("size", ["<width>40</width><height>60</height>", "<width>30</width><height>20</height>"])
def test_the_size_of_the_picture_decides_and_a_disagreement_is_said(size, tmp_path) -> None:
    root = voc(tmp_path, a=xml(thing(box=(41, 25, 60, 40)), size=size), b=xml(thing(), filename="b.png"))
    found = read_voc(root)
    assert found.images[0].size == (40, 60)
    assert found.images[0].boxes[0].box == (40, 24, 60, 40)
    assert "1 image of another size than the annotations state: the image decides" in found.to_text()


def test_a_picture_turned_by_exif_is_read_as_its_file_says(tmp_path) -> None:
    picture = Image.fromarray(np.zeros((40, 60, 3), np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    sizes = {"stored": (60, 40), "upright": (40, 60), "neither": (30, 20)}
    for stem, (width, height) in sizes.items():
        picture.save(tmp_path / f"{stem}.jpg", exif=turned)
        stated = f"<width>{width}</width><height>{height}</height>"
        (tmp_path / f"{stem}.xml").write_text(xml(thing(), filename=f"{stem}.jpg", size=stated))
    found = read_voc(tmp_path)
    assert {image.path.stem: image.size for image in found.images} == {
        "stored": (40, 60),
        "upright": (60, 40),
        "neither": (60, 40),
    }
    assert "first: neither.jpg 30x20, is 40x60" in found.to_text()


# ---------------------------------------------------------------------------------------------- lists


def splits(root: Path) -> dict[str, str]:
    return {image.path.stem: image.split for image in read_voc(root).images}


def test_a_line_of_a_list_is_a_name_with_spaces_folders_and_endings(tmp_path) -> None:
    stems = ("photo 0", "photo 1", "plain", "negative", "boxed", "pathed")
    write_images(tmp_path / "JPEGImages", tuple(f"{stem}.png" for stem in stems))
    (tmp_path / "Annotations").mkdir()
    for stem in stems:
        (tmp_path / "Annotations" / f"{stem}.xml").write_text(xml(thing(), filename=f"{stem}.png"))
    lists(
        tmp_path,
        train="\ufeffphoto 0\nplain 1\r\nnegative  -1\nnobody 0\n",
        val="photo 1 \n\nboxed.png\nC:\\voc\\JPEGImages\\pathed.png\n",
    )
    assert splits(tmp_path) == {
        **dict.fromkeys(("photo 0", "plain", "negative"), "train"),
        **dict.fromkeys(("photo 1", "boxed", "pathed"), "val"),
    }
    assert "it is listed in ImageSets/Main but has no xml file (1): nobody" in read_voc(tmp_path).to_text()


def test_several_years_below_one_folder_have_their_own_lists(tmp_path) -> None:
    for year, flip in (("VOC2007", False), ("VOC2012", True)):
        root = voc(tmp_path / year, a=xml(thing()), b=xml(thing(), filename="b.png"))
        lists(root, **dict(zip(("Train", "VALID"), ("b\n", "a\n") if flip else ("a\n", "b\n"), strict=True)))
    found = read_voc(tmp_path)
    assert {image.path.relative_to(tmp_path).as_posix(): image.split for image in found.images} == {
        "VOC2007/JPEGImages/a.png": "train",
        "VOC2007/JPEGImages/b.png": "val",
        "VOC2012/JPEGImages/a.png": "val",
        "VOC2012/JPEGImages/b.png": "train",
    }


def test_lists_of_folders_tell_files_of_one_name_apart(tmp_path) -> None:
    for camera in ("cam1", "cam2"):
        write_images(tmp_path / "JPEGImages" / camera, ("a.png",))
        (tmp_path / "Annotations" / camera).mkdir(parents=True)
        (tmp_path / "Annotations" / camera / "a.xml").write_text(xml(thing()))
    lists(tmp_path, train="cam1/a\n", val="cam2/a\n")
    found = {image.path.parent.name: image.split for image in read_voc(tmp_path).images}
    assert found == {"cam1": "train", "cam2": "val"}
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("a\n")
    with pytest.raises(DataError, match=r"val\.txt: a may be .*cam1.* or .*cam2"):
        read_voc(tmp_path)


def test_a_list_that_names_no_split_is_named_and_not_used(tmp_path) -> None:
    root = voc(tmp_path, a=xml(thing()))
    lists(root, default="a\n")
    found = read_voc(root)
    assert found.splits == ("all",)
    assert "1 list of no split in" in found.to_text()
    assert "not used (default.txt)" in found.to_text()
    lists(tmp_path / "ImageSets", valid="a\n", val="a\n")
    with pytest.raises(DataError, match="are both lists of val; remove one"):
        read_voc(root)


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ({"trainval": "a\nb\n", "test": "c\n"}, {"a": "trainval", "b": "trainval", "c": "test"}),
        ({"trainval": "a\nb\n", "train": "a\n"}, {"a": "train", "b": "val"}),
        ({"trainval": "a\nb\n", "val": "a\n"}, {"a": "val", "b": "train"}),
        ({"trainval": "a\nb\n", "val": "a\n", "train": "b\n"}, {"a": "val", "b": "train"}),
    ],
)
def test_trainval_is_both_and_gives_the_one_that_has_no_list(listed, expected, tmp_path) -> None:
    root = voc(tmp_path, **{stem: xml(thing(), filename=f"{stem}.png", size="") for stem in "abc"})
    lists(root, **listed)
    assert splits(root) == expected


# -------------------------------------------------------------------------------------------- objects


@pytest.mark.parametrize(
    ("tags", "flagged"),
    [
        ({"truncated": 0.23}, "1 truncated object"),
        ({"difficult": 2}, "1 difficult object"),
        ({"difficult": "Yes"}, "1 difficult object"),
        ({"truncated": "0.0", "difficult": "no"}, ""),
    ],
)
def test_what_is_above_zero_is_flagged(tags, flagged, tmp_path) -> None:
    found = read_voc(voc(tmp_path, a=xml(thing(**tags))), difficult="ignore", truncated="ignore")
    assert found.images[0].boxes[0].ignored == bool(flagged)
    assert flagged in found.to_text()


def test_parts_with_boxes_are_no_objects(tmp_path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    found = read_voc(voc(tmp_path, a=xml(thing().replace("<bndbox>", part + "<bndbox>"))))
    assert [(item.name, item.box) for item in found.images[0].boxes] == [("cell", (0, 0, 10, 20))]
    assert "1 part of objects, with boxes of their own: left out" in found.to_text()


@pytest.mark.parametrize(
    ("outline", "box"),
    [
        ("<polygon><x1>5</x1><y1>6.5</y1><x2>9</x2><y2>3</y2><x3>7</x3><y3>12</y3></polygon>", (5, 3, 9, 12)),
        ("<polygon><pt><x>5</x><y>3</y></pt><pt><x>9</x><y>12</y></pt></polygon>", (5, 3, 9, 12)),
        ("<robndbox><cx>20</cx><cy>20</cy><w>10</w><h>4</h><angle>1.5707963</angle></robndbox>", (18, 15, 22, 25)),
    ],
)
def test_an_outline_without_a_box_gives_its_bounding_box(outline, box, tmp_path) -> None:
    found = read_voc(voc(tmp_path, a=xml(f"<object><name>cell</name>{outline}</object>")))
    assert found.images[0].boxes[0].box == pytest.approx(box, abs=1e-4)
    assert "1 object with a polygon or a rotated box alone" in found.to_text()


def test_a_polygon_beside_a_box_changes_nothing(tmp_path) -> None:
    outline = "<polygon><x1>5</x1><y1>6</y1><x2>50</x2><y2>30</y2></polygon>"
    found = read_voc(voc(tmp_path, a=xml(thing(polygon="").replace("<polygon></polygon>", outline))))
    assert found.images[0].boxes[0].box == (0, 0, 10, 20)


def test_exchanged_corners_are_dropped_with_advice(tmp_path) -> None:
    text = read_voc(voc(tmp_path, a=xml(thing(box=(30, 5, 10, 20)), thing()))).to_text()
    assert "1 box with xmin above xmax or ymin above ymax: dropped; exchange the two" in text


def test_a_namespace_and_fractions_of_a_pixel_are_read(tmp_path) -> None:
    text = xml(thing(box=(1.5, 2.25, 10.5, 20)), size="<width>60.0</width><height>40.</height>")
    text = text.replace("<annotation>", '<v:annotation xmlns:v="urn:voc">').replace("</a", "</v:a")
    found = read_voc(voc(tmp_path, a=text))
    assert found.images[0].boxes[0].box == (0.5, 1.25, 10.5, 20)
    assert found.images[0].size == (40, 60)


def test_a_deleted_object_is_dropped(tmp_path) -> None:
    assert "it is marked as deleted (1)" in read_voc(voc(tmp_path, a=xml(thing(deleted=1), thing()))).to_text()
