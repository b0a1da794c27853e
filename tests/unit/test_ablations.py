"""The ablation harness: plans, runs that are never repeated, and tables that say what was not measured."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ablations.__main__ import main
from ablations.paper import paper_table
from ablations.planner import Fingerprints, make_job, plan
from ablations.profiles import PROFILES
from ablations.reporting import study_table
from ablations.reporting.tables import Context
from ablations.statistics import paired_differences, summarise
from ablations.studies import STUDIES
from ablations.study import Contrast, Study, Variant
from cornernet import ConfigError, recipe

DATA = Fingerprints("train", "val")
STUDY = STUDIES["table1"]


def test_the_paper_s_first_table() -> None:
    table = paper_table(1)
    assert table.metrics == ("AP", "AP50", "AP75", "APs", "APm", "APl")
    assert table.row("w/ corner pooling")["AP"] == 38.4
    with pytest.raises(KeyError, match="it has w/o corner pooling"):
        table.row("with")


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_every_study_names_rows_of_its_table_and_edits_that_fit(study: Study) -> None:
    base = recipe("tiny")
    for variant in study.variants:
        variant.apply(base)
        if variant.paper_row is not None:
            assert study.table is not None
            assert set(study.metrics) <= set(paper_table(study.table).row(variant.paper_row))


def test_an_edit_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ConfigError, match="did you mean pooling"):
        Variant(name="wrong", edits=(("model.head.poolin", "none"),)).apply(recipe("tiny"))


def test_a_contrast_names_variants_of_its_study() -> None:
    with pytest.raises(ValueError, match="a contrast names 'b'"):
        Study(
            name="x",
            title="",
            question="",
            table=None,
            variants=(Variant(name="a"),),
            contrasts=(Contrast(variant="a", base="b"),),
            metrics=("AP",),
        )


def test_a_plan_shares_a_training_between_studies_that_need_the_same() -> None:
    other = Study(**{**STUDY.__dict__, "name": "again"})
    jobs = plan([STUDY, other], recipe("tiny"), (0, 1), DATA)
    assert len(jobs) == 8
    assert len({job.training_key for job in jobs.values()}) == 4


def test_keys_follow_what_changes_results_and_nothing_else() -> None:
    base = make_job(recipe("tiny"), DATA)

    def edited(path: str, value: object) -> tuple[bool, bool]:
        job = make_job(recipe("tiny").with_(path, value), DATA)
        return job.training_key != base.training_key, job.evaluation_key != base.evaluation_key

    assert edited("training.seed", 5) == (True, True)
    assert edited("model.head.pooling", "none") == (True, True)
    assert edited("testing.flip", False) == (False, True)
    for path, value in (("workers", 2), ("log_every", 7), ("checkpoint_every", 9), ("evaluate_every", 4)):
        assert edited(f"training.{path}", value) == (False, False)
    moved = make_job(recipe("tiny"), Fingerprints("other", "val"))
    assert moved.training_key != base.training_key


def test_statistics() -> None:
    summary = summarise([1.0, 3.0, None, float("nan")])
    assert (summary.mean, summary.count) == (2.0, 2)
    assert summary.deviation == pytest.approx(2**0.5)
    assert summarise([]).count == 0
    assert paired_differences({0: 3.0, 1: 5.0, 2: None}, {0: 1.0, 2: 2.0, 3: 9.0}) == {0: 2.0}


def record(value: float) -> dict:
    return {"metrics": dict.fromkeys(STUDY.metrics, value) | {"APs": None}}


def table(seeds=(0, 1), missing=()):
    without, with_pooling = (variant.name for variant in STUDY.variants)
    records = {
        ("table1", name, seed): None if (name, seed) in missing else record(value + 0.01 * seed)
        for name, value in ((without, 0.25), (with_pooling, 0.31))
        for seed in seeds
    }
    return study_table(STUDY, records, Context(profile="p", data="d", command="c", seeds=tuple(seeds), areas=(1, 2, 3)))


def test_a_table_shows_means_spread_differences_and_the_paper() -> None:
    text = table().to_markdown()
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    rows = {line[0]: line[1:] for line in lines}
    assert rows["w/ corner pooling"][0] == "31.5 ± 0.7"
    difference = rows["*difference: w/ corner pooling less w/o corner pooling*"]
    assert difference[0] == "+6.0 ± 0.0"
    assert difference[3] == "not measured"
    assert [line[1] for line in lines if "the paper" in line[0]] == ["36.5", "38.4", "+1.9"]
    assert "Too few seeds for a verdict" in text
    assert "not COCO" in text
    assert "1 small, 2 medium, 3 large" in text


def test_a_missing_run_is_shown_as_not_run_and_leaves_no_pair() -> None:
    without, with_pooling = (variant.name for variant in STUDY.variants)
    text = table(missing={(with_pooling, 0), (with_pooling, 1)}).to_markdown()
    row = next(line for line in text.splitlines() if line.startswith("| w/ corner pooling"))
    assert row.count("not run") == len(STUDY.metrics)
    half = table(missing={(without, 1)})
    assert half.rows[-1]["seeds"] == [0]
    assert list(half.rows[-1]["values"]["AP"]) == [0]


def test_three_seeds_are_not_too_few() -> None:
    assert "Too few seeds" not in table(seeds=(0, 1, 2)).to_markdown()


@pytest.mark.slow
def test_the_smoke_profile_end_to_end_and_never_twice(tmp_path, capsys) -> None:
    argv = ["--profile", "smoke", "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]
    assert main([*argv, "--only-report"]) == 0
    assert "not run" in capsys.readouterr().out
    assert main(argv) == 0
    assert "0 of them finished" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(results["runs"]) == 4
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*") if p.is_file()}

    tables = [(tmp_path / "out" / "tables" / f"table1.{kind}").read_bytes() for kind in ("md", "csv")]
    assert main(argv) == 0
    assert "4 of them finished" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*") if p.is_file()} == before
    assert [(tmp_path / "out" / "tables" / f"table1.{kind}").read_bytes() for kind in ("md", "csv")] == tables
    with (tmp_path / "out" / "tables" / "table1.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["source"] for row in rows} == {"ours", "paper"}
    assert "the paper, COCO" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.slow
def test_a_failed_run_is_named_and_the_others_are_kept(tmp_path, capsys, monkeypatch) -> None:
    broken = Study(
        **{
            **STUDY.__dict__,
            "name": "broken",
            "variants": (
                Variant(name="works"),
                Variant(name="diverges", edits=(("training.learning_rate", 1e30), ("training.clip_norm", None))),
            ),
            "contrasts": (Contrast(variant="works", base="diverges"),),
            "table": None,
        }
    )
    monkeypatch.setitem(STUDIES, "broken", broken)
    argv = ["--profile", "smoke", "--studies", "broken", "--seeds", "0"]
    assert main([*argv, "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert "1 of 2 jobs failed" in captured.err
    assert "not finite" in captured.err
    assert "not run" in captured.out
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["runs"]) == 1


@pytest.mark.slow
def test_evaluations_of_one_training_share_it(tmp_path, capsys, monkeypatch) -> None:
    flips = Study(
        **{
            **STUDY.__dict__,
            "name": "flips",
            "variants": (Variant(name="flip"), Variant(name="no flip", edits=(("testing.flip", False),))),
            "contrasts": (Contrast(variant="flip", base="no flip"),),
            "table": None,
        }
    )
    monkeypatch.setitem(STUDIES, "flips", flips)
    argv = ["--profile", "smoke", "--studies", "flips", "--seeds", "0"]
    assert main([*argv, "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "store" / "trainings").iterdir())) == 1
    assert len(list((tmp_path / "store" / "evaluations").glob("*.json"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("number", "group"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_stopped_call_leaves_no_process_and_goes_on_to_the_same_table(number, group, tmp_path) -> None:
    arguments = ["--profile", "smoke", "--seeds", "0", "--store", "store", "--out", "out"]
    command = [sys.executable, "-m", "ablations", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "store").glob("trainings/*/metrics.jsonl")):
            assert process.poll() is None, "it ended before it could be stopped"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # as a terminal does it: to the whole group
        (os.killpg if group else os.kill)(process.pid, number)
        _, said = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("it had finished before the signal came")
    assert process.returncode == 130
    assert "goes on from here" in said
    workers = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert not workers
    for metrics in (tmp_path / "store").glob("trainings/*/metrics.jsonl"):
        assert list(metrics.parent.glob("checkpoints/step-*")), "what was done is kept"
    assert subprocess.run(command, cwd=tmp_path, env=environment, check=False).returncode == 0
    whole = [*command[:-4], "--store", "other", "--out", "whole"]
    assert subprocess.run(whole, cwd=tmp_path, env=environment, check=False).returncode == 0
    tables = [(tmp_path / name / "tables" / "table1.csv").read_bytes() for name in ("out", "whole")]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--profile", "quikc"], "did you mean quick"),
        (["--studies", "tabel1"], "did you mean table1"),
        (["--seeds", "1", "1"], "different numbers"),
        (["--data", "nowhere"], "nowhere"),
        (["--workers", "0"], "--workers is 0; use 1 or more"),
        (["--val-split", "train"], "--val-split needs --data"),
    ],
)
def test_what_cannot_be_done_is_said(argv, message, tmp_path, capsys) -> None:
    assert main([*argv, "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_a_profile_trains_on_one_thread(profile, tmp_path) -> None:
    for data in (None, tmp_path):
        assert profile.base(data).training.threads == 1
        assert len(profile.seeds) >= 2
