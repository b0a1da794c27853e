"""Every line ``next:`` that a command prints is run, from each form of annotations up to a training."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from cornernet.cli import main
from tests.unit.data.folders import picture, write_json
from tests.unit.data.test_voc import lists, thing, xml

SPLITS = {
    "train and val": {"train": 6, "val": 2},
    "train and test": {"train": 6, "test": 2},
    "train": {"train": 6},
    "all": {"all": 6},
    "all and test": {"all": 6, "test": 2},
    "all and val": {"all": 6, "val": 2},
    "val and test": {"val": 6, "test": 2},
    "test": {"test": 6},
}
"""Numbers of pictures; those of 'all' lie in a folder that names no split."""
USUAL = ("train and val", "train and test", "train", "all")


def named(splits: dict[str, int]) -> list[tuple[str, str]]:
    """The folder and the stem of every picture."""
    return [(split, f"{split} {number}") for split, many in splits.items() for number in range(many)]


def draw(folder: Path, stem: str) -> None:
    """A picture of 60x40 pixels whose bytes no other has."""
    folder.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(folder / f"{stem}.png"), picture(sum(stem.encode()), 40, 60))


def voc_folders(root: Path, splits: dict[str, int]) -> str:
    for split, stem in named(splits):
        draw(root / split, stem)
        (root / split / f"{stem}.xml").write_text(xml(thing(), filename=f"{stem}.png"))
    return "import-voc"


def voc_lists(root: Path, splits: dict[str, int]) -> str:
    (root / "Annotations").mkdir()
    for _, stem in named(splits):
        draw(root / "JPEGImages", stem)
        (root / "Annotations" / f"{stem}.xml").write_text(xml(thing(), filename=f"{stem}.png"))
    text = {split: "\n".join(stem for other, stem in named(splits) if other == split) for split in splits}
    lists(root, **({"trainval" if split == "all" else split: stems for split, stems in text.items()}))
    return "import-voc"


def yolo(root: Path, splits: dict[str, int]) -> str:
    (root / "classes.txt").write_text("cell\n")
    for split, stem in named(splits):
        draw(root / split / "images", stem)
        (root / split / "labels").mkdir(exist_ok=True)
        (root / split / "labels" / f"{stem}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    return "import-yolo"


def labelme(root: Path, splits: dict[str, int]) -> str:
    shape = {"label": "cell", "points": [[5, 5], [25, 25]], "shape_type": "rectangle"}
    for split, stem in named(splits):
        draw(root / split, stem)
        write_json(root / split / f"{stem}.json", {"shapes": [shape], "imagePath": f"{stem}.png"})
    return "import-labelme"


def cvat(root: Path, splits: dict[str, int]) -> str:
    images = ""
    for split, stem in named(splits):
        draw(root / "images", stem)
        box = '<box label="cell" xtl="5" ytl="5" xbr="25" ybr="25"/>'
        images += f'<image name="{stem}.png" subset="{split}">{box}</image>'
    (root / "annotations.xml").write_text(f"<annotations>{images}</annotations>")
    return "import-cvat"


FORMS: list[Callable[[Path, dict[str, int]], str]] = [voc_folders, voc_lists, yolo, labelme, cvat]


def followed(command: list[str], capsys: pytest.CaptureFixture[str], most: int = 5) -> list[str]:
    """The commands from this one on, each run as the last line of the one before says."""
    run = []
    while most:
        words = [*command, *(["--dry-run"] if command[0] == "train" else [])]
        run.append(" ".join(words[:2]))
        status = main(words)
        said, errors = capsys.readouterr()
        # a check shows its progress there
        wrong = [
            line for line in errors.splitlines() if command[:2] != ["data", "check"] or not line.startswith("check ")
        ]
        assert (status, wrong) == (0, []), words
        if command[0] == "train":
            assert "would train" in said
            return run
        *_, last = said.splitlines()
        assert last.startswith("next: cornernet "), said
        command = shlex.split(last)[2:]
        most -= 1
    raise AssertionError(f"no end: {run}")


@pytest.mark.parametrize(
    ("make", "splits", "elsewhere"),
    [
        *((voc_folders, splits, False) for splits in SPLITS),
        *((voc_folders, splits, True) for splits in USUAL),
        *((make, splits, False) for make in FORMS if make is not voc_folders for splits in USUAL),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", "copied" if value else ""),
)
def test_every_next_line_leads_to_a_training(make, splits, elsewhere, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "my photos"
    root.mkdir()
    command = ["data", make(root, SPLITS[splits]), str(root), *(["--out", "a copy's place"] if elsewhere else [])]
    run = followed([*command, "--dry-run"], capsys)
    assert run[:2] == [" ".join(command[:2])] * 2
    assert not (tmp_path / "runs").exists()


def test_the_check_of_a_folder_that_must_be_split_leads_to_a_training(tmp_path, capsys) -> None:
    voc_folders(tmp_path, SPLITS["train and test"])
    assert main(["data", "import-voc", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["data", "check", str(tmp_path)]) == 2
    (last,) = capsys.readouterr().out.splitlines()[-1:]
    assert followed(shlex.split(last)[2:], capsys) == ["data split", "train --data"]
    assert followed(["data", "check", str(tmp_path)], capsys) == ["data check", "train --data"]


def test_an_import_that_is_repeated_leads_on_or_says_what_to_remove(tmp_path, capsys) -> None:
    for splits in ("all", "train and test"):
        root = tmp_path / splits
        root.mkdir()
        command = ["data", voc_folders(root, SPLITS[splits]), str(root)]
        followed(command, capsys)
        if splits == "all":
            assert followed([*command, "--overwrite"], capsys) == ["data import-voc", "data split", "train --data"]
            continue
        before = {path: path.read_bytes() for path in (root / "annotations").iterdir()}
        assert main([*command, "--overwrite"]) == 2
        assert "instances_val.json and annotations/instances_train_all.json" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in (root / "annotations").iterdir()} == before
        for split in ("val", "train_all"):
            (root / f"annotations/instances_{split}.json").unlink()
        assert followed([*command, "--overwrite"], capsys)[-1] == "train --data"
