"""Bad data, a case a row: how it is made, and what becomes of it. Nothing is lost unsaid, nothing is trusted.

``python -m tests.unit.data.test_catalogue`` prints the table for the documentation.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pytest

from cornernet.config import CocoSource
from cornernet.data import DataError, DetectionDataset, open_dataset
from cornernet.data.formats.importing import ImportedFolder
from cornernet.data.formats.voc import read_voc
from cornernet.data.formats.yolo import read_yolo
from cornernet.data.images import read_image, stated_size
from tests.unit.data.folders import annotation, coco_folder, picture, tree, write_images

DOCS = Path(__file__).parents[3] / "docs"
MARKS = ("<!-- catalogue of bad data -->", "<!-- end of the catalogue -->")
JSON = "instances_train.json"


# ------------------------------------------------------------------------------------------ outcomes


@dataclass(frozen=True)
class Refused:
    """An error whose message has all of these: the file, the field, the fix."""

    parts: tuple[str, ...]

    def __str__(self) -> str:
        return f"error: “… {self.parts[-1]} …”"


@dataclass(frozen=True)
class Dropped:
    """Left out and listed, ``count`` things for this reason; the rest is used."""

    reason: str
    count: int = 1

    def __str__(self) -> str:
        return f"dropped and counted: “{self.reason}”" + (f" ({self.count})" if self.count != 1 else "")


@dataclass(frozen=True)
class Used:
    """Used, with nothing dropped, and said where ``note`` is not empty."""

    note: str = ""

    def __str__(self) -> str:
        return f"used, and noted: “… {self.note} …”" if self.note else "used"


@dataclass(frozen=True)
class Unreadable:
    """Found as the annotations say, and an error that names the file when the picture is read."""

    part: str

    def __str__(self) -> str:
        return f"error when it is read: “… {self.part} …”"


Outcome = Refused | Dropped | Used | Unreadable


def refused(*parts: str) -> Refused:
    return Refused(parts)


@dataclass(frozen=True)
class Case:
    """One row: a folder is made by ``make`` and read as ``form``."""

    form: str
    name: str
    make: Callable[[Path], object]
    outcome: Outcome


# ------------------------------------------------------------------------------------- making folders


def text(content: str | bytes) -> Callable[[Path], object]:
    """A COCO folder whose annotation file has this content."""

    def make(root: Path) -> None:
        coco_folder(root)
        (root / "annotations" / JSON).write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def lists(**changes: Any) -> Callable[[Path], object]:
    """A COCO folder with these lists in place of its own."""
    return lambda root: coco_folder(root, tree(**changes))


def row(key: str, **fields: Any) -> Callable[[Path], object]:
    """A COCO folder whose second category, third image or first annotation has these fields; None removes one."""
    position = {"categories": 1, "images": 2, "annotations": 0}[key]

    def make(root: Path) -> None:
        content = tree()
        for name, value in fields.items():
            content[key][position][name] = value
            if value is None:
                del content[key][position][name]
        coco_folder(root, content)

    return make


def box(*values: Any, **fields: Any) -> Callable[[Path], object]:
    """A COCO folder with one more annotation, of this box, in an image of 60 x 40 pixels."""
    return more({"id": 50, "image_id": 7, "category_id": 1, "bbox": list(values), "iscrowd": 0, **fields})


def more(*rows: Any) -> Callable[[Path], object]:
    return lambda root: coco_folder(root, tree(annotations=[*tree()["annotations"], *rows]))


def many(count: int) -> Callable[[Path], object]:
    """A COCO folder whose first image has this many objects."""

    def make(root: Path) -> None:
        rows = [annotation(number, 7, 1, [number % 50, number % 30, 5, 5]) for number in range(1, count + 1)]
        coco_folder(root, tree(annotations=rows))

    return make


def named(name: str, file: Callable[[Path], object] = lambda path: None) -> Callable[[Path], object]:
    """A COCO folder with one more image of this file_name; ``file`` makes what lies there."""

    def make(root: Path) -> None:
        images = [*tree()["images"], {"id": 9, "file_name": name, "height": 40, "width": 60}]
        coco_folder(root / "data", tree(images=images))
        file(root / "data" / "images" / "x.png")

    return make


def content(name: str, *parts: bytes, size: int = 0, stated: tuple[int, int] = (40, 60)) -> Callable[[Path], object]:
    """A COCO folder of one image, a file ``name`` with this content, or ``size`` bytes of nothing."""

    def make(root: Path) -> None:
        rows = [{"id": 7, "file_name": name, "height": stated[0], "width": stated[1]}]
        coco_folder(root, tree(images=rows, annotations=[]))
        path = root / "images" / name
        path.write_bytes(b"".join(parts))
        if size:
            os.truncate(path, size)

    return make


def encoded(kind: str) -> bytes:
    return cv2.imencode(kind, picture(0))[1].tobytes()


def png(height: int, width: int) -> bytes:
    """A PNG of some hundred bytes that states these sides."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(9)))]
    chunks = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def jpeg(height: int, width: int) -> bytes:
    """A JPEG of 60 x 40 pixels whose frame states these sides."""
    whole = encoded(".jpg")
    at = whole.index(b"\xff\xc0") + 5
    return whole[:at] + struct.pack(">HH", height, width) + whole[at + 4 :]


def tiff(height: int, width: int) -> bytes:
    entries = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 9)]
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + rows + bytes(16)


def bmp(height: int, width: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(45)


def thing(name: str = "cell", bounds: tuple[Any, ...] = (1, 1, 10, 20), **tags: Any) -> str:
    corners = "".join(f"<{tag}>{v}</{tag}>" for tag, v in zip(("xmin", "ymin", "xmax", "ymax"), bounds, strict=True))
    rest = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags.items())
    return f"<object><name>{name}</name>{rest}<bndbox>{corners}</bndbox></object>"


def xml(*objects: str, filename: str = "a.png", size: str = "<width>60</width><height>40</height>") -> str:
    return f"<annotation><filename>{filename}</filename><size>{size}</size>{''.join(objects)}</annotation>"


def voc(*texts: str | bytes, size: int = 0) -> Callable[[Path], object]:
    """A VOC folder with pictures a, b and c, a good b.xml, and a.xml (and c.xml) of these texts."""

    def make(root: Path) -> None:
        write_images(root / "JPEGImages")
        (root / "Annotations").mkdir()
        (root / "Annotations" / "b.xml").write_text(xml(thing(), filename="b.png"))
        for stem, each in zip("ac", texts, strict=False):
            path = root / "Annotations" / f"{stem}.xml"
            path.write_bytes(each.encode() if isinstance(each, str) else each)
            if size:
                os.truncate(path, size)

    return make


GOOD = "0 0.5 0.5 0.5 0.5\n"


def yolo(
    label: str | bytes = GOOD, names: str = "names: [cell, rod]\n", file: str = "data.yaml", size: int = 0
) -> Callable[[Path], object]:
    """A YOLO folder with pictures a, b and c, labels of b and c, and this text for a."""

    def make(root: Path) -> None:
        write_images(root / "images")
        (root / "labels").mkdir()
        (root / file).write_text(names)
        for stem, each in (("a", label), ("b", GOOD), ("c", "")):
            (root / "labels" / f"{stem}.txt").write_bytes(each.encode() if isinstance(each, str) else each)
        if size:
            os.truncate(root / "labels" / "a.txt", size)

    return make


def also(make: Callable[[Path], object], then: Callable[[Path], object]) -> Callable[[Path], object]:
    def both(root: Path) -> None:
        make(root)
        then(root)

    return both


# ----------------------------------------------------------------------------------------- the cases

WHOLE = json.dumps(tree())
OUT = "its file_name leads out of the data set's folder"
GONE = "its file is missing"
NO_LIST = "its bbox is not a list of four numbers"
NO_NUMBERS = "its bbox is not four finite numbers"
NO_AREA = "its bbox has no width or no height"
OUTSIDE = "its bbox lies outside the image"
SIDES = "its width or height is not a positive integer, or is unknown"
DAMAGED = "it is damaged, incomplete or of an unknown format; restore or convert it"
LONE = "\ud800"

_COCO: list[tuple[str, Callable[[Path], object], Outcome]] = [
    # the file
    ("empty annotation file", text(""), refused(JSON, "are not JSON")),
    ("annotation file cut in the middle", text(WHOLE[: len(WHOLE) // 2]), refused(JSON, "are not JSON")),
    ("annotation file with something behind its end", text(WHOLE + "]"), refused(JSON, "are not JSON")),
    ("a web page in place of annotations", text("<!DOCTYPE html>"), refused(JSON, "are not JSON")),
    ("annotations in Latin-1", text(WHOLE.replace("person", "Mäuse").encode("latin-1")), refused(JSON, "are not JSON")),
    ("annotations in UTF-16", text(WHOLE.encode("utf-16")), Used()),
    ("annotations with a byte-order mark", text("\ufeff" + WHOLE), Used()),
    ("lists nested 100,000 deep", text("[" * 100_000), refused(JSON, "are not JSON")),
    (
        "100,000 lists nested in a segmentation",
        text(WHOLE.replace("[[5.5", "[" * 100_000 + "[[5.5")),
        refused(JSON, "are not JSON"),
    ),
    ("a list in place of the object", text("[1]"), refused(JSON, "are a JSON list")),
    ("`annotations` null", lists(annotations=None), refused(JSON, "no list 'annotations'")),
    ("`images` an object", lists(images={}), refused(JSON, "no list 'images'")),
    ("`categories` null", lists(categories=None), refused(JSON, "no list 'categories'")),
    (
        "annotation file of 5 GiB",
        also(text(""), lambda root: os.truncate(root / "annotations" / JSON, 5 * 2**30)),
        refused(JSON, "the limit is 4 GiB"),
    ),
    (
        "annotation file called .txt",
        also(lists(), lambda root: (root / "annotations" / JSON).rename(root / "annotations" / "train.txt")),
        refused("expected annotations/*.json"),
    ),
    (
        "annotation file a link in a circle",
        also(
            lambda root: write_images(root / "images"),
            lambda root: (root / "train.json").symlink_to(root / "train.json"),
        ),
        refused("no annotation file"),
    ),
    ("a folder called train.json", lambda root: (root / "train.json").mkdir(), refused("no annotation file")),
    # categories
    ("no category", lists(categories=[]), refused(JSON, "'categories' is empty")),
    ("category a text", lists(categories=["person"]), refused(JSON, "categories[0] is not an object")),
    ("category without id", row("categories", id=None), refused(JSON, "categories[1].id is None; use an integer")),
    ("category id 1.5", row("categories", id=1.5), refused(JSON, "categories[1].id is 1.5; use an integer")),
    ("category id beyond 64 bits", row("categories", id=2**63), refused(JSON, "use an integer")),
    ("category id of 4,000 digits", row("categories", id=10**3_999), refused(JSON, "use an integer")),
    ("id of 5,000 digits", text(WHOLE.replace('"id": 1000', '"id": 1' + "0" * 4_999)), refused(JSON, "are not JSON")),
    ("category id twice", row("categories", id=90), refused(JSON, "categories[1].id 90 occurs twice")),
    ("category name a number", row("categories", name=5), refused(JSON, "categories[1].name is 5; use a string")),
    ("category name empty", row("categories", name=""), refused(JSON, "categories[1].name is ''; use a string")),
    ("category name half a character", row("categories", name=LONE), refused(JSON, "not valid Unicode; correct it")),
    ("category name of 100,000 letters", row("categories", name="x" * 100_000), Used()),
    ("category name in other scripts", row("categories", name="細胞 🦠 خلية"), Used()),
    ("category name with markup", row("categories", name="<script>alert(1)</script>\\input{x}"), Used()),
    ("two categories of one name", row("categories", name="toothbrush"), Used("several categories are named")),
    # images
    ("no image", lists(images=[]), refused(JSON, "'images' is empty")),
    ("image a number", lists(images=[5]), refused(JSON, "images[0] is not an object")),
    ("image without id", row("images", id=None), refused(JSON, "images[2].id is None; use an integer")),
    ("image id a text", row("images", id="7"), refused(JSON, "images[2].id is '7'; use an integer")),
    ("image id true", row("images", id=True), refused(JSON, "images[2].id is True; use an integer")),
    ("image id twice", row("images", id=7), refused(JSON, "images[2].id 7 occurs twice; give each image its own id")),
    ("no file_name", row("images", file_name=None), Dropped("its file_name is missing")),
    ("file_name a list", row("images", file_name=["a.png"]), Dropped("its file_name is missing")),
    ("file_name half a character", row("images", file_name=LONE), Dropped("its file_name is not valid Unicode")),
    ("file_name ../x.png", named("../x.png"), Dropped(OUT)),
    ("file_name a/../../x.png", named("a/../../x.png"), Dropped(OUT)),
    ("file_name ..\\x.png", named("..\\x.png"), Dropped(OUT)),
    ("file_name /etc/passwd", named("/etc/passwd"), Dropped(OUT)),
    ("file_name C:\\x.png", named("C:\\x.png"), Dropped(OUT)),
    ("file_name with a zero byte", named("a.png\0.jpg"), Dropped(OUT)),
    ("file_name a dot", named("."), Dropped(GONE)),
    ("file_name of 5,000 letters", named("x" * 5_000), Dropped(GONE)),
    ("file_name in a folder of 5,000 letters", named("x" * 5_000 + "/x.png"), Dropped(GONE)),
    ("file_name in other letters (case)", named("A.png"), Dropped(GONE)),
    ("file_name in other scripts", named("写真 😀.png", lambda at: write_images(at.parent, ("写真 😀.png",))), Used()),
    ("image that is not there", named("x.png"), Dropped(GONE)),
    ("image a folder", named("x.png", Path.mkdir), Dropped(GONE)),
    ("image a pipe", named("x.png", os.mkfifo), Dropped(GONE)),
    ("image a link that leads nowhere", named("x.png", lambda at: at.symlink_to("nowhere.png")), Dropped(GONE)),
    ("image a link in a circle", named("x.png", lambda at: at.symlink_to(at)), Dropped(GONE)),
    ("image a link to a picture", named("x.png", lambda at: at.symlink_to("a.png")), Used()),
    (
        "all images in another folder",
        also(lists(), lambda root: (root / "images").rename(root / "elsewhere")),
        Used("3 images found by name below the folder"),
    ),
    (
        "all images missing",
        also(lists(), lambda root: shutil.rmtree(root / "images")),
        refused(JSON, "none of the 3 images", "put them in one of these folders"),
    ),
    ("width 0", row("images", width=0), Dropped(SIDES)),
    ("height -3", row("images", height=-3), Dropped(SIDES)),
    ("width a text", row("images", width="20"), Dropped(SIDES)),
    ("width NaN", row("images", width=float("nan")), Dropped(SIDES)),
    ("width 20.0", row("images", width=20.0), Used()),
    ("no width", row("images", width=None), Used("1 image without width and height: taken from the file")),
    # annotations
    ("no annotation", lists(annotations=[]), Used()),
    ("annotation a number", more(5), refused(JSON, "annotations[4] is not an object")),
    ("annotation null", more(None), refused(JSON, "annotations[4] is not an object")),
    ("no bbox", row("annotations", bbox=None, segmentation=None), Dropped(NO_LIST)),
    ("no bbox, but a polygon", row("annotations", bbox=None), Used("the box of the segmentation is used")),
    ("bbox a text", row("annotations", bbox="5 5 10 10"), Dropped(NO_LIST)),
    ("bbox an object", row("annotations", bbox={"x": 1}), Dropped(NO_LIST)),
    ("bbox of three numbers", box(5, 5, 10), Dropped(NO_LIST)),
    ("bbox of five numbers", box(5, 5, 10, 10, 0.9), Dropped(NO_LIST)),
    ("bbox of lists", box([5], [5], [10], [10]), Dropped(NO_NUMBERS)),
    ("bbox of texts", box("5", "5", "10", "10"), Dropped(NO_NUMBERS)),
    ("bbox with true", box(True, 5, 10, 10), Dropped(NO_NUMBERS)),
    ("bbox with null", box(5, None, 10, 10), Dropped(NO_NUMBERS)),
    ("bbox with NaN", box(5, float("nan"), 10, 10), Dropped(NO_NUMBERS)),
    ("bbox with Infinity", box(5, 5, float("inf"), 10), Dropped(NO_NUMBERS)),
    ("bbox with -Infinity", box(-float("inf"), 5, 10, 10), Dropped(NO_NUMBERS)),
    (
        "bbox with 1e999",
        text(WHOLE.replace("[5.5, 6.0, 20.0, 10.25]", "[5.5, 6.0, 1e999, 10.25]")),
        Dropped(NO_NUMBERS),
    ),
    ("bbox with a number of 400 digits", box(5, 5, 10**400, 10), Dropped(NO_NUMBERS)),
    ("bbox without width", box(5, 5, 0, 10), Dropped(NO_AREA)),
    ("bbox without height", box(5, 5, 10, 0), Dropped(NO_AREA)),
    ("bbox of negative width", box(5, 5, -3, 10), Dropped("its bbox has a negative width or height")),
    ("bbox right of the image", box(60, 5, 10, 10), Dropped(OUTSIDE)),
    ("bbox above the image", box(5, -20, 10, 10), Dropped(OUTSIDE)),
    ("bbox too small for its place", box(5, 5, 1e-30, 10), Dropped(OUTSIDE)),
    ("bbox whose right edge is not a number", box(1e308, 5, 1.7e308, 10), Dropped(OUTSIDE)),
    ("bbox over the edge", box(50, -5, 30, 20), Used("1 box beyond the edge")),
    ("bbox of 1e308 pixels", box(5, 5, 1e308, 1e308), Used("1 box beyond the edge")),
    ("image_id of no image", row("annotations", image_id=8), Dropped("its image_id is not in 'images'")),
    ("no image_id", row("annotations", image_id=None), Dropped("its image_id is not in 'images'")),
    ("image_id a list", row("annotations", image_id=[7]), Dropped("its image_id is not in 'images'")),
    (
        "category_id of no category",
        row("annotations", category_id=2),
        Dropped("its category_id is not in 'categories'"),
    ),
    ("category_id a text", row("annotations", category_id="one"), Dropped("its category_id is not in 'categories'")),
    ("category_id a number as a text", row("annotations", category_id="1"), Used("read as a number")),
    ("no category_id", row("annotations", category_id=None), Dropped("its category_id is not in 'categories'")),
    ("iscrowd 2", row("annotations", iscrowd=2), Dropped("its iscrowd is neither 0 nor 1")),
    ("iscrowd a text", row("annotations", iscrowd="0"), Dropped("its iscrowd is neither 0 nor 1")),
    ("annotation twice", more(tree()["annotations"][0]), Dropped("it occurs twice")),
    ("annotation id twice", row("annotations", id=12), Used("renumbered for evaluation")),
    ("annotation id -1", row("annotations", id=-1), Used("renumbered for evaluation")),
    ("no annotation id", row("annotations", id=None), Used("renumbered for evaluation")),
    ("no area", row("annotations", area=None), Used("1 annotation without a usable area: taken as width times height")),
    (
        "area NaN",
        row("annotations", area=float("nan")),
        Used("1 annotation without a usable area: taken as width times height"),
    ),
    ("area -1", row("annotations", area=-1), Used("1 annotation without a usable area: taken as width times height")),
    ("100,000 annotations in an image", many(100_000), Used("1 image with more than 4096 objects, first a.png")),
]

_IMAGES: list[tuple[str, Callable[[Path], object], Outcome]] = [
    ("empty image file", content("a.png"), Unreadable(DAMAGED)),
    ("PNG cut in the middle", content("a.png", encoded(".png")[:3000]), Unreadable(DAMAGED)),
    ("JPEG cut in the middle", content("a.jpg", encoded(".jpg")[:1000]), Used()),
    ("text called .png", content("a.png", b"hello"), Unreadable(DAMAGED)),
    ("web page called .jpg", content("a.jpg", b"<!DOCTYPE html><title>404</title>"), Unreadable(DAMAGED)),
    ("zip archive called .png", content("a.png", b"PK\3\4" + bytes(200)), Unreadable(DAMAGED)),
    ("random bytes behind a PNG's head", content("a.png", png(40, 60)[:33], os.urandom(99)), Unreadable(DAMAGED)),
    ("JPEG called .png", content("a.png", encoded(".jpg")), Used()),
    ("PNG without an ending in its name", content("a", encoded(".png")), Used()),
    ("image wider than stated", content("a.png", encoded(".png"), stated=(40, 59)), Unreadable("correct its 'width'")),
    (
        "image of 10^12 pixels stated",
        content("a.png", encoded(".png"), stated=(10**6, 10**6)),
        Unreadable("1000000x10"),
    ),
    ("PNG that states 60000x60000", content("a.png", png(60_000, 60_000)), Unreadable("states 60000x60000 pixels")),
    ("PNG that states 2^31 - 1 a side", content("a.png", png(2**31 - 1, 2**31 - 1)), Unreadable("2147483647x21474")),
    ("JPEG that states 65500x65500", content("a.jpg", jpeg(65_500, 65_500)), Unreadable("states 65500x65500 pixels")),
    ("TIFF that states 100000x100000", content("a.tif", tiff(100_000, 100_000)), Unreadable("100000x100000 pixels")),
    ("BMP that states -30000 rows", content("a.bmp", bmp(-30_000, 30_000)), Unreadable("states 30000x30000 pixels")),
    (
        "GIF that states 65535x65535",
        content("a.gif", b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"),
        Unreadable("65535x65535 pixels"),
    ),
    (
        "PPM that states 99999x99999",
        content("a.ppm", b"P6 # big\n99999 99999\n255\n"),
        Unreadable("99999x99999 pixels"),
    ),
    ("image file of 2 GiB", content("a.png", encoded(".png"), size=2**31), Unreadable("the limit is 1 GiB")),
]

BILLION = '<!DOCTYPE a [<!ENTITY l "lol"><!ENTITY m "&l;&l;&l;&l;">]><annotation><filename>&m;</filename></annotation>'
OUTER = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation><filename>&x;</filename></annotation>'

_VOC: list[tuple[str, Callable[[Path], object], Outcome]] = [
    ("empty xml file", voc(""), refused("a.xml", "is not valid xml")),
    ("xml cut in the middle", voc(xml(thing())[:90]), refused("a.xml", "is not valid xml")),
    ("xml of 20 MiB", voc("<annotation>", size=20 * 2**20), refused("a.xml", "is it really an annotation file?")),
    ("xml in an unknown encoding", voc('<?xml version="1.0" encoding="no-such"?><annotation/>'), refused("a.xml")),
    (
        "xml not in the encoding it states",
        voc(b'<?xml version="1.0"?><annotation>\xff'),
        refused("a.xml", "not valid xml"),
    ),
    ("xml in UTF-16", voc(xml(thing()).encode("utf-16")), Used()),
    (
        "xml file a pipe",
        also(voc(), lambda root: os.mkfifo(root / "Annotations" / "a.xml")),
        refused("a.xml", "it is a folder, a device or a pipe"),
    ),
    ("entities that expand without end", voc(BILLION), refused("a.xml", "remove the <!DOCTYPE ...> part")),
    ("entity that reads another file", voc(OUTER), refused("a.xml", "remove the <!DOCTYPE ...> part")),
    ("tags nested 40 deep", voc("<annotation>" + "<x>" * 40), refused("a.xml", "nests tags more than 32 deep")),
    ("other xml", voc("<html></html>"), refused("a.xml", "the outermost tag is <html>")),
    ("object without name", voc(xml(thing(" "))), refused("a.xml", "object 1 has no <name>")),
    ("object without bndbox", voc(xml("<object><name>cell</name></object>")), refused("a.xml", "has no <bndbox>")),
    ("no xmax", voc(xml("<object><name>c</name><bndbox/></object>")), refused("a.xml", "bndbox.xmin is ''")),
    ("xmin a word", voc(xml(thing(bounds=("wide", 1, 9, 9)))), refused("a.xml", "bndbox.xmin is 'wide'")),
    ("xmin nan", voc(xml(thing(bounds=("nan", 1, 9, 9)))), refused("a.xml", "bndbox.xmin is 'nan'")),
    ("xmax inf", voc(xml(thing(bounds=(1, 1, "inf", 9)))), refused("a.xml", "bndbox.xmax is 'inf'")),
    ("xmax 1e308", voc(xml(thing(bounds=(1, 1, "1e308", 9)))), Used("1 box beyond the edge")),
    ("xmax before xmin", voc(xml(thing(bounds=(9, 1, 2, 9)))), Dropped("its box has no width or no height")),
    ("box outside the picture", voc(xml(thing(bounds=(70, 1, 90, 9)))), Dropped("its box lies outside the image")),
    ("difficult a word", voc(xml(thing(difficult="maybe"))), refused("a.xml", "difficult is 'maybe'; write 0 or 1")),
    ("width a word", voc(xml(size="<width>x</width><height>9</height>")), refused("a.xml", "size.width is 'x'")),
    ("no size", voc(xml(thing(), size="")), Used("1 file without the size of the image")),
    ("no object", voc(xml()), Used()),
    ("no filename", voc(xml(thing(), filename="")), Used()),
    ("filename ../../x.png", voc(xml(thing()), xml(filename="../../x.png")), Used()),
    (
        "picture that is not there",
        also(voc(xml(thing())), lambda root: (root / "JPEGImages" / "a.png").unlink()),
        Dropped("its image is missing (the first is a.png)"),
    ),
    (
        "two files of one picture",
        also(voc(xml(thing()), xml(filename="a.png")), lambda root: (root / "JPEGImages" / "c.png").unlink()),
        refused("both annotate", "remove one"),
    ),
    ("another picture named", voc(xml(thing()), xml(filename="a.png")), Used("the file's own name decides")),
    (
        "size of another picture",
        voc(xml(thing(), size="<width>40</width><height>60</height>")),
        Used("1 image of another size than the annotations state"),
    ),
    (
        "picture that is none",
        also(voc(xml(thing())), lambda root: (root / "JPEGImages" / "a.png").write_bytes(b"none")),
        Dropped("its image cannot be read"),
    ),
    ("truncated 0.23", voc(xml(thing(truncated=0.23))), Used("1 truncated object: kept")),
    ("class of 10,000 letters", voc(xml(thing("x" * 10_000))), Used()),
    ("class in another script", voc(xml(thing("細胞"))), Used()),
]

_YOLO: list[tuple[str, Callable[[Path], object], Outcome]] = [
    ("empty text file", yolo(""), Used()),
    ("text not in UTF-8", yolo(b"0 0.5 \xff"), refused("a.txt", "is not UTF-8 text")),
    ("text file of 8 MiB", yolo(size=8 * 2**20), refused("a.txt", "is it really a text file")),
    ("class -1", yolo("-1 0.5 0.5 0.1 0.1"), refused("a.txt line 1", "write its number, from 0 to 1")),
    ("class without a name", yolo("2 0.5 0.5 0.1 0.1"), refused("a.txt line 1", "give the right --names")),
    ("class of 5,000 digits", yolo("9" * 5_000 + " 0.5 0.5 0.1 0.1"), refused("a.txt line 1", "there are 2 names")),
    ("class a word", yolo("cell 0.5 0.5 0.1 0.1"), refused("a.txt line 1", "the class is 'cell'")),
    ("box with nan", yolo("0 0.5 nan 0.1 0.1"), refused("a.txt line 1", "'nan' is not a number")),
    ("box with inf", yolo("0 0.5 inf 0.1 0.1"), refused("a.txt line 1", "'inf' is not a number")),
    ("box in pixels", yolo("0 320 240 10 10"), refused("a.txt line 1", "not pixels")),
    ("box of three numbers", yolo("0 0.5 0.5 0.1"), refused("a.txt line 1", "has 3 numbers after the class")),
    ("detections with scores", yolo("0 0.5 0.5 0.1 0.1 0.9"), refused("a.txt line 1", "are detections, not labels")),
    ("box without width", yolo("0 0.5 0.5 0 0.1"), Dropped("its box has no width or no height")),
    ("box of negative width", yolo("0 0.5 0.5 -0.005 0.1"), Dropped("its box has no width or no height")),
    (
        "picture that cannot be read",
        also(yolo(), lambda root: (root / "images" / "a.png").write_bytes(b"x")),
        Dropped("it cannot be read as an image"),
    ),
    (
        "text file without picture",
        also(yolo(), lambda root: (root / "labels" / "z.txt").write_text(GOOD)),
        Dropped("it has no image"),
    ),
    ("no file of names", yolo(file="other.txt"), refused("no file with the class names")),
    ("names a number", yolo(names="names: 5\n"), refused("data.yaml", "names must be a list of names")),
    ("a name twice", yolo(names="names: [cell, cell]\n"), refused("data.yaml", "'cell' twice")),
    ("names with aliases", yolo(names="names: [&a cell, *a]\n"), refused("data.yaml", "yaml aliases")),
    (
        "names that run a program",
        yolo(names="names: !!python/object/apply:os.system ['touch ran']\n"),
        refused("data.yaml", "is not yaml"),
    ),
    ("names nested 10,000 deep", yolo(names="names: " + "[" * 10_000), refused("data.yaml", "more than 32 deep")),
    ("names with a date that is none", yolo(names="names: [a]\nmade: 2020-13-45\n"), Used()),
    (
        "yaml of 1 MiB",
        yolo(names="names: [" + "a, " * 2**19),
        refused("data.yaml", "is it really the file with the class names?"),
    ),
]

CASES = [
    Case(form, *each)
    for form, rows in (("COCO", _COCO), ("image", _IMAGES), ("VOC", _VOC), ("YOLO", _YOLO))
    for each in rows
]


# ---------------------------------------------------------------------------------------- the tests


def read(form: str, root: Path) -> DetectionDataset | ImportedFolder:
    if form == "VOC":
        return read_voc(root)
    if form == "YOLO":
        return read_yolo(root)
    inside = root / "data"
    return open_dataset(CocoSource(root=str(inside if inside.is_dir() else root)), "train")


@pytest.mark.parametrize("case", CASES, ids=[f"{case.form}: {case.name}"[:60] for case in CASES])
def test_what_becomes_of_bad_data_is_what_the_catalogue_says(case: Case, tmp_path: Path) -> None:
    case.make(tmp_path)
    outcome = case.outcome
    if isinstance(outcome, Refused):
        with pytest.raises(DataError) as error:
            read(case.form, tmp_path)
        assert [part for part in outcome.parts if part not in str(error.value)] == []
        assert len(str(error.value)) < 2_000
        return
    found = read(case.form, tmp_path)
    if isinstance(outcome, Unreadable):
        assert isinstance(found, DetectionDataset)
        assert found.dropped == ()
        with pytest.raises(DataError) as error:
            found.read(0)
        assert outcome.part in str(error.value)
        assert str(found.records[0].path) in str(error.value)
    elif isinstance(outcome, Dropped):
        assert [item.reason for item in found.dropped] == [outcome.reason] * outcome.count
        assert outcome.reason in (found.summary() if isinstance(found, DetectionDataset) else found.to_text())
    else:
        assert found.dropped == ()
        assert outcome.note in " ".join(found.notes)
        if case.form == "image":
            assert isinstance(found, DetectionDataset)
            assert found.read(0).shape == (40, 60, 3)


def test_a_picture_of_the_largest_size_that_is_read_is_not_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(2**14, 2**14))
    with pytest.raises(DataError, match="it is damaged"):
        read_image(path)
    path.write_bytes(png(2**14, 2**14 + 1))
    with pytest.raises(DataError, match="states 16385x16384 pixels, and the limit is 268,435,456"):
        read_image(path)


@pytest.mark.parametrize("kind", [".png", ".jpg", ".bmp", ".webp", ".tif", ".ppm", ".pgm"])
def test_the_size_in_the_header_of_every_kind_is_that_of_the_picture(kind: str) -> None:
    image = picture(0, 37, 61)
    done, encoded_picture = cv2.imencode(kind, image[:, :, 0] if kind == ".pgm" else image)
    assert done
    assert stated_size(encoded_picture.tobytes()) == (37, 61)


@pytest.mark.parametrize("place", [Path.mkdir, os.mkfifo, lambda at: at.symlink_to("/dev/zero")])
def test_what_is_no_file_is_refused_without_waiting_for_its_end(place, tmp_path: Path) -> None:
    place(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"x\.png: it is a folder, a device or a pipe"):
        read_image(tmp_path / "x.png")


def test_a_crop_that_shows_thousands_of_objects_stops_training_with_the_image_named(tmp_path: Path) -> None:
    from cornernet.config.recipes import tiny
    from cornernet.data.loader import TrainingSet

    many(9_000)(tmp_path)
    training = TrainingSet(open_dataset(CocoSource(root=str(tmp_path)), "train"), tiny().data, seed=0)
    with pytest.raises(DataError, match=r"a\.png contains \d+ objects; .* limit is 4096: cut the image into tiles"):
        training[(0, 0)]
    assert training[(0, 1)].boxes.shape == (0, 4)


def table() -> str:
    """The catalogue as Markdown."""
    lines = ["| form | what is wrong | what becomes of it |", "|---|---|---|"]
    for case in CASES:
        name, outcome = (str(each).replace("|", "\\|").replace("<", "&lt;") for each in (case.name, case.outcome))
        lines.append(f"| {case.form} | {name} | {outcome} |")
    return "\n".join(lines)


def test_the_table_in_the_documentation_is_the_catalogue() -> None:
    pages = [path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))]
    (page,) = [page for page in pages if MARKS[0] in page]
    assert page.partition(MARKS[0])[2].partition(MARKS[1])[0].strip() == table()
    assert f"{len(CASES)} cases" in page


if __name__ == "__main__":
    print(table())
