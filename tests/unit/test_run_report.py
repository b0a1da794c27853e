"""``cornernet report RUN``: the page of one training run, and its text if something is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import html5lib
import pytest
import torch

from cornernet import build_detector, recipe
from cornernet.cli import main
from cornernet.config import CocoSource, Config
from cornernet.data import open_dataset
from cornernet.weights.checkpoints import save_detector

EVIL = "<img src=x onerror=alert(1)>"


def run_folder(folder: Path, weights: bool = True, evaluated: bool = True) -> Path:
    config = recipe("tiny").with_("data.source.val_images", 4).with_("data.source.train_images", 4)
    folder.mkdir()
    (folder / "config.json").write_text(config.to_json())
    lines = [
        {"iteration": 20 * n, "loss/total": 7 / n, "loss/pull": 0.1 / n, "learning_rate": 0.001, "time": 1.0}
        for n in (1, 2, 3)
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / "metrics.jsonl").write_text(text + '\n{"iteration": 80, "loss/to')
    if weights:
        dataset = open_dataset(config.data.source, "val")
        torch.manual_seed(0)
        detector = build_detector(config)
        detector.classes, detector.category_ids = dataset.classes, dataset.category_ids
        save_detector(detector, folder / "model.safetensors")
    if evaluated:
        tree = {"metrics": {"iteration": 60, "AP": 0.4321, "APs": None}, "per_class": {EVIL: {"AP": 0.5, "AP50": None}}}
        (folder / "evaluation.json").write_text(json.dumps({**tree, "evaluator": "hotcoco"}))
    return folder


def test_a_run_has_a_page_with_curves_ap_classes_and_best_and_worst_images(tmp_path, capsys) -> None:
    run = run_folder(tmp_path / "run")
    assert main(["report", str(run), "--images", "1"]) == 0
    assert f"the page is {run / 'report.html'}" in capsys.readouterr().out
    text = (run / "report.html").read_text()
    html5lib.HTMLParser(strict=True).parse(text)
    assert "AP 43.2 by hotcoco." in text
    assert "not measured" in text
    assert EVIL not in text
    assert "&lt;img src=x" in text
    assert "60 of " in text, "the line that was cut short is skipped"
    assert len(re.findall(r'<img src="data:image/jpeg;base64,[^"]+" alt="[^"]+F1 \d', text)) == 2
    assert re.search(r'<svg role="img" aria-label="Losses over iterations[^"]+loss/total 2.333', text)


def test_an_unfinished_run_has_a_page_without_images(tmp_path) -> None:
    run = run_folder(tmp_path / "run", weights=False, evaluated=False)
    out = tmp_path / "page.html"
    assert main(["report", str(run), "--out", str(out)]) == 0
    text = out.read_text()
    assert "not evaluated yet" in text
    assert "There are no weights yet" in text


def test_without_the_data_the_page_shows_the_rest(tmp_path) -> None:
    run = run_folder(tmp_path / "run")
    config = Config.load(run / "config.json").with_("data.source", CocoSource(root="/nowhere/photos"))
    (run / "config.json").write_text(config.to_json())
    assert main(["report", str(run)]) == 0
    text = (run / "report.html").read_text()
    assert "The evaluation data is not available here" in text
    assert "AP 43.2 by hotcoco." in text


@pytest.mark.parametrize(
    ("damage", "message"),
    [("config.json", "it has no config.json"), ("evaluation.json", "is not an evaluation")],
)
def test_a_folder_without_a_run_is_an_error_that_names_the_file(tmp_path, capsys, damage, message) -> None:
    run = run_folder(tmp_path / "run", weights=False)
    if damage == "config.json":
        (run / damage).unlink()
    else:
        (run / damage).write_text("[]")
    assert main(["report", str(run)]) == 2
    assert message in capsys.readouterr().err


def test_the_ap_curve_ends_with_the_final_evaluation(tmp_path) -> None:
    run = run_folder(tmp_path / "run", weights=False)
    config = Config.load(run / "config.json")
    lines = [{"iteration": n, "loss/total": 1.0, **({"val/AP": 0.25} if n == 20 else {})} for n in (20, 40, 60)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert main(["report", str(run)]) == 0
    assert "AP on val during training" not in (run / "report.html").read_text(), "one point does not make a curve"
    (run / "config.json").write_text(config.with_("training.iterations", 60).to_json())
    assert main(["report", str(run)]) == 0
    assert re.search(r'aria-label="AP on val during training[^"]+0\.4321', (run / "report.html").read_text())
