"""Pascal VOC folders: pixels counted from 1, flags by choice, what is dropped, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

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
    assert "next: cornernet data split" in printed
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
