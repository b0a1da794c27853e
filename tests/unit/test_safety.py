"""Data is never executed, never becomes markup or a command, and is never written outside the given folder."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import html5lib
import pytest
import torch

from cornernet import Detections, build_detector, recipe
from cornernet.ablations.reporting.folder import render
from cornernet.ablations.reporting.report import published_report
from cornernet.cli import main
from cornernet.config import CocoSource
from cornernet.training.report import run_page
from cornernet.weights.checkpoints import save_detector
from tests.unit.data.folders import annotation, coco_folder, tree, write_images, write_json
from tests.unit.data.test_catalogue import thing, xml
from tests.unit.published_runs import publish_runs

SCRIPT = "<script>alert(1)</script>"
ATTRIBUTE = "x\" onload='alert(1)' y=\"</title></style></svg>"
TEX = r"\input{/etc/passwd}$\write18{ls}$ 50% & _^#~"
EVIL = SCRIPT + ATTRIBUTE + TEX + "![a](javascript:alert(1)) ${7*7} |\n\u202e"
NAMES = (SCRIPT + "1", ATTRIBUTE + "2", EVIL)


# ------------------------------------------------------------------------------------------------- markup


def elements(page: str) -> Iterator[Any]:
    """Every element of a page, as a browser parses it."""
    return html5lib.parse(page, namespaceHTMLElements=False).iter()


def require_harmless(page: str) -> None:
    """Assert that the only script of a page is our own, and that the page loads, opens and runs nothing else."""
    found = [each for each in elements(page) if isinstance(each.tag, str)]
    scripts = [each.text or "" for each in found if each.tag == "script"]
    assert len(scripts) == 1
    assert "alert" not in scripts[0]
    assert not {each.tag for each in found} & {"iframe", "object", "embed", "link", "base", "form"}
    for each in found:
        for name, value in each.attrib.items():
            assert not name.lower().startswith("on"), (each.tag, name)
            if name in ("src", "href", "action", "{http://www.w3.org/1999/xlink}href"):
                assert value.startswith(("data:image/", "#")), (each.tag, name, value[:80])


def evil_folder(root: Path) -> Path:
    """A data set whose class names and file names contain markup."""
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)]
    names = ("<img src=x onerror=alert(1)>.png", "\"'><script>alert(2)<script>.png", "$\\input{x}$.png")
    images = [{"id": n, "file_name": name, "height": 40, "width": 60} for n, name in enumerate(names, start=1)]
    rows = [annotation(n, 1 + n % 3, 1 + n % 3, [5, 5, 20, 20]) for n in range(1, 7)]
    content = tree(categories=categories, images=images, annotations=rows)
    for split in ("train", "val"):
        write_json(root / "annotations" / f"instances_{split}.json", content)
    write_images(root / "images", names)
    return root


def test_the_page_of_a_run_is_harmless_with_hostile_class_and_file_names(tmp_path: Path) -> None:
    data, run = evil_folder(tmp_path / SCRIPT.replace("/", "")), tmp_path / "<b>run"
    config = recipe("tiny").with_("data.source", CocoSource(root=str(data)))
    run.mkdir()
    (run / "config.json").write_text(config.to_json())
    lines = [{"iteration": n, f"loss/{EVIL}": 1 / n, "learning_rate": 0.1, "val/AP": 0.1} for n in (1, 2, 3)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    evaluation = {"metrics": {"AP": 0.5, EVIL: 0.5}, "per_class": {name: {"AP": 0.5, EVIL: 0.1} for name in NAMES}}
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    torch.manual_seed(0)
    detector = build_detector(config)
    detector.classes, detector.category_ids = NAMES, (1, 2, 3)
    save_detector(detector, run / "model.safetensors")
    page = run_page(run, images=1)
    require_harmless(page)
    assert "F1" in page
    assert page.count("&lt;script&gt;alert(1)") >= 3


def replaced(node: Any, depth: int = 0) -> Any:
    """The record with hostile text in every field that no key depends on."""
    if isinstance(node, dict):
        return {key: replaced(value, depth + 1) for key, value in node.items()}
    return EVIL if isinstance(node, str) else node


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a report on records full of hostile text."""
    reports = tmp_path_factory.mktemp("reports")
    data = "<b>$cells\\input{x}"
    paths = publish_runs(reports, data, seeds=(1, 2, 3), classes=NAMES, old=True)
    for path in paths:
        record = json.loads(path.read_text())
        for part in ("provenance", "latency"):
            record[part] = replaced(record[part])
        record["provenance"]["versions"] = {EVIL: EVIL, "torch": EVIL}
        path.write_text(json.dumps(record))
    (paths[0].parent / f"{SCRIPT.replace('/', '')}.json").write_text(json.dumps({EVIL: EVIL}))
    return render(published_report(paths[0].parent), notes=[EVIL])


def test_the_html_of_a_report_on_hostile_records_is_harmless(report: dict[str, bytes]) -> None:
    page = report["index.html"].decode()
    require_harmless(page)
    assert "&lt;script&gt;alert(1)" in page


def test_the_latex_of_a_report_on_hostile_records_runs_nothing(report: dict[str, bytes]) -> None:
    tables = [content.decode() for path, content in report.items() if path.endswith(".tex")]
    assert tables
    ours = {"begin", "caption", "label", "resizebox", "ifdim", "width", "linewidth", "else", "fi", "toprule", "midrule"}
    ours |= {"bottomrule", "end", "centering", "usepackage", "textbf", "par", "smallskip", "footnotesize", "quad", "pm"}
    ours |= {"textbackslash", "textasciicircum", "textasciitilde", "textless", "textgreater", "textbar"}
    for text in tables:
        assert set(re.findall(r"\\([A-Za-z]+)", text)) <= ours
        assert "cells" in text
        assert r"\textbackslash{}input\{x\}" in text


def test_the_markdown_of_a_report_on_hostile_records_contains_no_tag_or_link(report: dict[str, bytes]) -> None:
    for path, content in report.items():
        if path.endswith(".md"):
            text = re.sub(r"(`+)[^`\n]*\1", "", content.decode())
            assert not re.search(r"<(script|b>|img|/)", text), path
            assert "](javascript" not in text


def test_the_notebook_view_of_detections_is_harmless() -> None:
    found = Detections([[1, 2, 30, 40]] * 3, [0.9, 0.8, 0.7], [0, 1, 2], classes=NAMES, image_id=EVIL)
    shown = found._repr_html_()
    assert {each.tag for each in elements(shown)} <= {"html", "head", "body", "p", "table", "tbody", "tr", "td", "th"}
    assert all(not each.attrib for each in elements(shown))


# ---------------------------------------------------------------------------------------------- places


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


ESCAPING = ("../up.png", "../../up.png", "/tmp/up.png", "a/../../up.png", "..\\up.png", "C:\\up.png", "..", "a\0b.png")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with photographs that have odd names. Nothing beside it may change."""
    monkeypatch.setenv("CORNERNET_CACHE", str(tmp_path / "cache"))
    inside = tmp_path / "here"
    write_images(inside / "photos", ("x...png", "-rf.png", "a b\nc.png", "deep/x..x/b.png", "$(touch ran).png"))
    monkeypatch.chdir(inside)
    return inside


def outside(here: Path, *allowed: str) -> set[str]:
    """Everything that was created outside the allowed folders, which lie in the current folder."""
    made = everything(here.parent) - {"here", "cache"} - {f"here/{name}" for name in allowed}
    places = tuple(f"here/{name}/" for name in ("photos", *allowed))
    return {path for path in made if not path.startswith((*places, "cache/")) and path != "here/photos"}


def test_detect_writes_only_below_its_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = everything(here)
    write = ["--write", "images", "json", "coco", "csv"]
    assert main(["detect", "photos", "--weights", "starter", "--out", "found", *write]) == 0
    capsys.readouterr()
    assert outside(here, "found") == set()
    assert {path for path in everything(here) - before if not path.startswith("found")} == set()
    assert (here / "found" / "deep" / "x..x" / "b.png").is_file()
    assert len(json.loads((here / "found" / "detections.json").read_text())) == 5


def test_a_file_name_that_is_not_utf8_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.rename(os.fsencode(here / "photos" / "-rf.png"), os.fsencode(here / "photos") + b"/\xff.png")  # noqa: PTH104
    assert main(["detect", "photos", "--weights", "starter", "--out", "found"]) == 2
    assert "\\udcff.png' is not valid UTF-8; rename the file" in capsys.readouterr().err


def test_show_split_check_and_import_write_only_below_their_folders(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [
        *tree()["images"],
        *({"id": 50 + n, "file_name": name, "height": 40, "width": 60} for n, name in enumerate(ESCAPING)),
    ]
    rows = [annotation(n, 50 + n % 8, 1, [1, 1, 5, 5]) for n in range(1, 20)]
    rows += [annotation(30 + n, image, 1, [1, 1, 5, 5]) for n, image in enumerate((7, 3, 1000))]
    content = tree(images=images, annotations=rows)
    coco_folder(here / "coco", content, file="annotations/instances_all.json")
    write_images(here / "voc" / "JPEGImages")
    (here / "voc" / "Annotations").mkdir()
    evil = EVIL.replace("<", "").replace("&", "")
    for stem, name in (("a", "../../up.png"), ("b", "/tmp/up.png"), ("c", "..\\..\\up.png")):
        (here / "voc" / "Annotations" / f"{stem}.xml").write_text(xml(thing(evil), filename=name))
    write_images(here / "yolo", ("a.png", "x..png"))
    (here / "yolo" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (here / "yolo" / "classes.txt").write_text("../../up\n")
    kept = ("coco", "voc", "yolo")
    assert main(["data", "split", "coco", "--val", "0.4"]) == 0
    assert main(["data", "check", "coco"]) == 0
    assert main(["data", "show", "coco", "--out", "coco/shown.png"]) == 0
    assert main(["data", "import-voc", "voc", "--out", "made/voc"]) == 0
    assert main(["data", "import-yolo", "yolo", "--out", "made/yolo"]) == 0
    said = capsys.readouterr().out
    assert "its file_name leads out of the data set's folder (8)" in said
    assert outside(here, *kept, "made") == set()
    assert len(list((here / "made" / "voc" / "images").rglob("*.png"))) == 3


def test_links_to_images_stay_links_when_a_folder_is_split(here: Path) -> None:
    write_images(here.parent / "elsewhere")
    root = coco_folder(here / "coco", file="annotations/instances_all.json")
    for name in ("a.png", "b.png", "c.png"):
        (root / "images" / name).unlink()
        (root / "images" / name).symlink_to(here.parent / "elsewhere" / name)
    assert main(["data", "split", "coco", "--val", "0.4"]) == 0
    rows = [
        row
        for split in ("train", "val")
        for row in json.loads((root / "annotations" / f"instances_{split}.json").read_text())["images"]
    ]
    assert sorted(row["file_name"] for row in rows) == ["images/a.png", "images/b.png", "images/c.png"]
