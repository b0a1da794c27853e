"""Names from outside, of classes, files and folders, in everything that commands print and write."""

from __future__ import annotations

import csv
import html
import json
import os
import pickle
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from xml.etree.ElementTree import fromstring

import cv2
import numpy as np
import pytest

from cornernet.cli.photos import Photo, csv_table
from cornernet.config import CocoSource, ConfigError
from cornernet.console import listing, printable, text_table
from cornernet.data import DataError
from cornernet.data.dataset import class_titles
from cornernet.data.formats.coco import open_coco
from cornernet.drawing.boxes import draw_boxes
from cornernet.drawing.escapes import figure_escape, markdown_code, markdown_escape, picture_escape
from cornernet.drawing.figures import rendered, styled, subplots
from cornernet.evaluation.evaluate import coco_evaluation
from cornernet.inference.detections import Detections
from cornernet.training.errors import TrainingError
from cornernet.weights.checkpoints import CheckpointError
from cornernet.weights.export import ExportError

CLASSES = (
    *("3.20", "3.24", "1e5", "007", "nan", "True", "-", " "),
    *("cat\nforged 9", "\x1b[31mred\x07", "b\u202eackwards", "cat 3, dog", "猫", "\ttab", "a\rreturn"),
    *("=cmd|' /C calc'!A0", "+1", "@sum", "<script>alert(1)</script>", "<img src=x onerror=y>", '" onload="x'),
    *("a|b", "[c](d)", "`e`", "$x$", "\\input{x}", "&amp;", "{{ 7*7 }}"),
)
FILES = ("=plus.png", "new\nforged.png", "\x1b[2Jescape.png", "b\u202egnp.png", "<script>.png", "$f$.png", "猫.png")
FOLDER = "da\nforged ta\x1b[1m"

COMMANDS = (
    ("data", "split", "whole\nforged"),
    ("data", "check", "{data}"),
    ("data", "show", "{data}", "--count", "2", "--augmentations", "1", "--out", "shown.png", "--recipe", "tiny"),
    ("train", "--data", "{data}", "--recipe", "tiny", "--out", "{run}", "--training.iterations", "2",
     "--training.batch-size", "2", "--training.workers", "0"),
    ("train", "--data", "{data}", "--recipe", "tiny", "--out", "{run}"),
    ("evaluate", "--weights", "{run}", "--data", "{data}"),
    ("detect", "{data}/images", "--weights", "{run}", "--out", "out", "--min-score", "0.00001"),
    ("detect", "-", "--weights", "{run}", "--out", "listed", "--write", "csv"),
    ("detect", "{data}/no\nforged.png", "--weights", "{run}", "--out", "none"),
    ("detect", "{data}/not an\nforged image.png", "--weights", "{run}", "--out", "none"),
    ("report", "{run}", "--images", "1"),
    ("data", "import-voc", "voc"),
    ("data", "import-yolo", "yolo"),
    ("data", "check", "{data}/no\nforged"),
    ("convert", "{run}", "--out", "we\nforged.safetensors"),
)  # fmt: skip


def pictures(folder: Path, names: tuple[str, ...]) -> list[dict[str, object]]:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(cv2.imencode(".png", rng.integers(0, 255, (64, 64, 3), np.uint8))[1].tobytes())
    return [{"id": at, "file_name": name, "height": 64, "width": 64} for at, name in enumerate(names, start=1)]


def coco_folder(folder: Path, parts: dict[str, tuple[str, ...]]) -> None:
    rows = pictures(folder / "images", tuple(name for names in parts.values() for name in names))
    (folder / "annotations").mkdir()
    categories = [{"id": at, "name": name} for at, name in enumerate(CLASSES, start=1)]
    for split, names in parts.items():
        images = [row for row in rows if row["file_name"] in names]
        boxes = [
            {"image_id": image["id"], "category_id": 1 + at, "bbox": [4, 4, 30, 40], "area": 1200, "iscrowd": 0}
            for image in images
            for at in range(len(CLASSES))
        ]
        # dropped, with a reason
        boxes.append({**boxes[0], "bbox": [4, 4, 0, 40]})
        images.append({"id": 99, "file_name": "missing\nforged.png", "height": 64, "width": 64})
        annotations = [{"id": at, **box} for at, box in enumerate(boxes, start=1)]
        tree = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(tree), encoding="utf-8")
    (folder / "not an\nforged image.png").write_bytes(b"no image")


def voc_folder(folder: Path) -> None:
    pictures(folder / "JPEGImages", ("new\nforged.png",))
    (folder / "Annotations").mkdir()
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>{high}</xmax><ymax>30</ymax></bndbox>"
        "</object>"
        for name, high in (("3.20", 30), ("cat\nforged", 30), ("b\u202eackwards", 30), ("dropped\nforged", 1))
    )
    text = f"<annotation>{objects}</annotation>"
    (folder / "Annotations" / "new\nforged.xml").write_text(text, encoding="utf-8")


def yolo_folder(folder: Path) -> None:
    pictures(folder / "images" / "train", FILES)
    names = json.dumps([name for name in CLASSES if name.strip()])
    (folder / "data.yaml").write_text(f"names: {names}\n", encoding="utf-8")
    (folder / "labels" / "train").mkdir(parents=True)
    for at, name in enumerate(FILES):
        text = f"{at} 0.5 0.5 0.4 0.4\n{at + 7} 0.5 0.5 0.4 0.4\n8 0.5 0.5 0 0.4\n"
        (folder / "labels" / "train" / f"{Path(name).stem}.txt").write_text(text, encoding="utf-8")


PROGRAM = """
import sys
from cornernet.cli import main
for words in {commands!r}:
    print("command:", words[:2], flush=True)
    print("status:", main(words), flush=True)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Return the folder in which all commands ran, and what they printed on stdout and stderr, on an ASCII console."""
    folder = tmp_path_factory.mktemp("names")
    coco_folder(folder / FOLDER, {"train": FILES[:4], "val": FILES[4:]})
    coco_folder(folder / "whole\nforged", {"all": FILES + tuple(f"{at} {name}" for at in range(2) for name in FILES)})
    voc_folder(folder / "voc")
    yolo_folder(folder / "yolo")
    places = {"data": FOLDER, "run": "ru\nforged n"}
    commands = [[word.format(**places) for word in words] for words in COMMANDS]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(commands=commands)],
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"},
        input="yolo/images/train/猫.png\n".encode(),
        capture_output=True,
    )
    # strict: nothing but ASCII
    out, err = done.stdout.decode("ascii"), done.stderr.decode("ascii")
    assert done.returncode == 0, err[-3000:]
    return folder, out, err


def obeyed(text: str) -> set[str]:
    """Return the characters of a text that a terminal or a page would obey instead of showing."""
    return {each for each in text if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") and each != "\n"}


def forged(text: str) -> list[str]:
    """Return the lines that a line break in a name made."""
    return [line for line in text.splitlines() if line.lstrip().startswith("forged")]


def test_every_command_ends_as_it_should_on_a_console_of_ascii(ran) -> None:
    _, out, err = ran
    statuses = [line.removeprefix("status: ") for line in out.splitlines() if line.startswith("status: ")]
    ends = dict(zip(COMMANDS, statuses, strict=True))
    assert {words for words, status in ends.items() if status != "0"} == {COMMANDS[4], *COMMANDS[8:10], COMMANDS[-2]}
    assert "Traceback" not in err


def test_no_name_reaches_the_terminal_raw_or_makes_a_line(ran) -> None:
    _, out, err = ran
    assert obeyed(out + err) == set()
    assert forged(out + err) == []
    # but every line names what it is about
    assert "\\x1b[2Jescape.png: " in out
    assert out.count("cat\\nforged 9") > 4
    for line in (line for line in err.splitlines() if not line.startswith(("train ", "evaluate ", "check "))):
        assert line.startswith("cornernet: error: ")
        assert "\\nforged" in line


def test_classes_keep_their_names_in_the_table(ran) -> None:
    _, out, _ = ran
    table = out.split("class  ", 1)[1].split("\n\n")[0].splitlines()[2:]
    shown = [line.rsplit(maxsplit=3)[0].rstrip() for line in table]
    assert shown[:12] == [*CLASSES[:7], '" "', "cat\\nforged 9", "\\x1b[31mred\\x07", "b\\u202eackwards", "cat 3, dog"]
    assert len(shown) == len(CLASSES)


def test_the_files_for_people_hold_no_raw_name(ran) -> None:
    folder, _, _ = ran
    texts = {
        path.name: path.read_text(encoding="utf-8")
        for kind in ("import.txt", "*.csv", "*.html")
        for path in folder.rglob(kind)
    }
    assert {"import.txt", "detections.csv", "report.html"} == set(texts)
    for text in texts.values():
        assert obeyed(text) - {"\t"} == set()
        assert forged(text) == []
    page = texts["report.html"]
    assert page.count("<script") == 1
    assert "<img src=x" not in page
    assert 'onload="' not in page
    for name in (
        "3.20",
        "1e5",
        "cat\\nforged 9",
        "猫",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "{{ 7*7 }}",
        "&amp;amp;",
    ):
        assert f">{name}<" in page


def test_json_holds_the_names_as_they_are(ran) -> None:
    folder, _, _ = ran
    metrics = json.loads((folder / "ru\nforged n" / "evaluation.json").read_text(encoding="utf-8"))
    assert tuple(metrics["per_class"]) == CLASSES
    for path in ("out/coco.json", f"{FOLDER}/annotations/instances_train.json"):
        tree = json.loads((folder / path).read_text(encoding="utf-8"))
        assert tuple(row["name"] for row in tree["categories"]) == CLASSES
    tree = json.loads((folder / "yolo/annotations/instances_train.json").read_text(encoding="utf-8"))
    assert {row["file_name"] for row in tree["images"]} == {f"images/train/{name}" for name in FILES}


# ------------------------------------------------------------------------------------------------- each format


@pytest.mark.parametrize("name", CLASSES)
def test_no_cell_of_a_csv_file_is_a_formula(name) -> None:
    boxes = Detections(np.array([[-3.0, 0, 5, 5]]), np.array([0.5]), np.array([0]), classes=(name,))
    head, row = csv.reader(csv_table([(Photo(Path(f"{name}.jpg"), "x"), boxes)]).splitlines())
    assert not any(cell.lstrip()[:1] in tuple("=+-@\t\r") for cell in row[:2])
    assert row[1].removeprefix("'") == printable(name)
    # a negative number is a number
    assert row[head.index("x1")] == "-3.00"


def test_a_figure_shows_the_names_and_no_formula() -> None:
    with styled():
        figure, (axis,) = subplots(1, 1, (3, 9))
        axis.set_yticks(range(len(CLASSES)), [figure_escape(name) for name in CLASSES])
        svg = rendered(figure)
    shown = {(each.text or "").strip() for each in fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}
    assert {printable(name).strip() for name in CLASSES} - {""} <= shown


@pytest.mark.parametrize("name", CLASSES)
def test_a_name_is_one_cell_of_a_markdown_table(name) -> None:
    row = f"| {markdown_escape(name)} | 1 |"
    assert row.count("|") == 3
    assert "\n" not in row
    assert not re.search(r"(?<!\\)[`*]|<[A-Za-z/!]|\]\(", row)
    assert html.unescape(re.sub(r"\\([`*_~])", r"\1", markdown_escape(name))) == printable(name)


@pytest.mark.parametrize("text", ["a`b", "``", "` x", "plain", "`"])
def test_a_code_span_ends_where_it_should(text) -> None:
    span = markdown_code(text)
    fence = re.match("`+", span)[0]
    inner = span[len(fence) : -len(fence)]
    assert span.endswith(fence)
    assert fence not in re.findall("`+", inner)
    assert inner.strip(" ") == text.strip(" ")


def test_a_picture_takes_any_name() -> None:
    assert picture_escape("café\n猫") == "cafe\\n?"
    image = np.zeros((64, 64, 3), np.uint8)
    draw_boxes(image, np.tile([4.0, 4, 30, 40], (len(CLASSES), 1)), np.arange(len(CLASSES)), None, CLASSES)


def test_classes_of_one_name_are_told_apart() -> None:
    assert class_titles(("dog", "cat", "dog"), (3, 5, 7)) == ("dog (id 3)", "cat", "dog (id 7)")
    awkward = class_titles(("dog", "dog", "dog (id 1)"), (1, 2, 3))
    assert len(set(awkward)) == 3


def test_the_rows_of_a_csv_file_tell_classes_of_one_name_apart() -> None:
    boxes = Detections(np.ones((2, 4)), np.ones(2), np.array([0, 1]), classes=("dog", "dog"), category_ids=(4, 9))
    rows = list(csv.DictReader(csv_table([(Photo(Path("a.jpg"), "a"), boxes)]).splitlines()))
    assert [row["class"] for row in rows] == ["dog (id 4)", "dog (id 9)"]
    unnamed = Detections(np.ones((1, 4)), np.ones(1), np.array([2]))
    assert "a.jpg,class 2,1.0000," in csv_table([(Photo(Path("a.jpg"), "a"), unnamed)])


def test_boxes_and_ap_of_classes_of_one_name_are_counted_apart(tmp_path) -> None:
    coco_folder(tmp_path / "data", {"val": FILES[:2]})
    file = tmp_path / "data" / "annotations" / "instances_val.json"
    tree = json.loads(file.read_text(encoding="utf-8"))
    tree["categories"] = [{"id": 4, "name": "dog"}, {"id": 9, "name": "dog"}]
    tree["annotations"] = [{**row, "category_id": 4 if at else 9} for at, row in enumerate(tree["annotations"][:3])]
    file.write_text(json.dumps(tree), encoding="utf-8")
    data = open_coco(CocoSource(root=str(tmp_path / "data")), "val")
    assert data.box_counts() == {"dog (id 4)": 2, "dog (id 9)": 1}
    assert "dog (id 4) 2, dog (id 9) 1" in data.summary()
    truth = data.ground_truth()["annotations"]
    results = [{**row, "score": 0.9} for row in truth if row["category_id"] == 9]
    per_class = coco_evaluation(data, results).per_class
    assert {name: round(values["AP"], 6) for name, values in per_class.items()} == {"dog (id 4)": 0, "dog (id 9)": 1}


# ------------------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize("kind", [ConfigError, DataError, CheckpointError, TrainingError, ExportError])
def test_an_error_is_printable_whatever_it_names(kind) -> None:
    error = kind("there is no file a\n\x1b[1mforged\u202e")
    assert str(error) == "there is no file a\\n\\x1b[1mforged\\u202e"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(kind(str(error))) == str(error)
    # lines that are meant
    assert str(kind("a\nb", "c")) == "a\\nb\nc"


def test_a_list_shows_where_names_end() -> None:
    assert listing(["a", "b, c", "", " d", 'e"', "f g"]) == 'a, "b, c", "", " d", "e\\"", f g'
    assert listing("abcde", 2) == "a, b and 3 more"


def test_a_table_is_aligned_and_changes_nothing() -> None:
    text = text_table(["name", "n"], [["1e5", 3], ["猫", 10], [" ", ""]], numbers=(1,))
    assert text.splitlines() == ["name   n", "----  --", "1e5    3", "猫    10", '" "']
