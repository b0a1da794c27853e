"""A run that failed stands in every table as one that failed: neither as a blank nor as one that was never tried."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from cornernet.ablations import reporting
from cornernet.ablations.__main__ import main
from cornernet.ablations.profiles import PROFILES
from cornernet.ablations.records.published import load_failures, publish, publish_failure
from cornernet.ablations.records.record import decode
from cornernet.ablations.reporting.context import Context
from cornernet.ablations.reporting.folder import render
from cornernet.ablations.reporting.provenance import runs_rows
from cornernet.ablations.reporting.report import Report, published_report
from cornernet.ablations.reporting.tables import study_table
from cornernet.ablations.studies import STUDIES
from cornernet.ablations.studies.study import Contrast, Study, Variant
from tests.unit.published_runs import publish_runs
from tests.unit.test_ablations import record

STUDY = STUDIES["table1"]
WITHOUT, WITH = (variant.name for variant in STUDY.variants)
WHY = "TrainingError: at iteration 3 the loss is not finite: pull is nan, in the batch of image ids 3, 4"


def report(*failed: tuple[str, int], seeds: tuple[int, ...] = (0, 1)) -> Report:
    """Table 1 with these runs failed and all others finished."""
    records = {
        ("table1", name, seed): None if (name, seed) in failed else record(0.25 + 0.01 * seed)
        for name in (WITHOUT, WITH)
        for seed in seeds
    }
    context = Context(
        profile="p",
        data="d",
        command="c",
        seeds=seeds,
        areas=(31, 32, 33),
        failed={("table1", name, seed): WHY for name, seed in failed},
    )
    return Report(context=context, tables=[study_table(STUDY, records, context)], records=records)


def rows(text: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return {line[0]: line[1:] for line in lines if line}


def test_a_row_whose_runs_all_failed_says_so_in_every_cell_and_so_does_its_difference() -> None:
    text = report((WITH, 0), (WITH, 1)).tables[0].to_markdown()
    found = rows(text)
    ours = [cell for cell, head in zip(found[WITH], found[""], strict=True) if "paper" not in head]
    assert ours[:-1] == ["failed"] * (len(STUDY.metrics) + 1), "metrics and the time"
    assert ours[-1] == "0 (2 failed)"
    assert found[f"*difference: {WITH} minus {WITHOUT}*"][0] == "failed"
    assert f"FAILED: {WITH}, seed 1: {WHY}" in text
    assert "not run" not in text


def test_a_row_of_which_one_seed_failed_shows_the_others_and_how_many_failed() -> None:
    text = report((WITH, 1)).tables[0].to_markdown()
    found = rows(text)
    assert found[WITH][0] == "25.0"
    assert found[WITH][-1] == "1 (1 failed)"
    assert found[WITHOUT][-1] == "2"
    assert text.count("FAILED") == 1


def test_the_list_of_runs_tells_what_failed_from_what_was_not_tried() -> None:
    made = report((WITH, 1))
    nothing = Report(context=made.context, tables=made.tables, records=dict.fromkeys(made.records))
    states = {(row[1].text, row[2].text): row[3].text for row in runs_rows(nothing)}
    assert (states[WITH, "1"], states[WITH, "0"]) == ("failed", "not run")


def test_failures_are_published_without_places_and_forgotten_with_the_record(tmp_path) -> None:
    paths = publish_runs(tmp_path, "shapes", seeds=(1, 2))
    lost = json.loads(paths[-1].read_text())
    folder, key, seed = paths[-1].parent, lost["evaluation_key"], decode(lost, "mend the test").seed
    paths[-1].unlink()
    publish_failure(folder, key, seed, "OSError: cannot read '/home/someone/photos/a.png': 1/2 of it is gone")
    failures, broken = load_failures(folder)
    assert failures == {key: (seed, "OSError: cannot read 'a.png': 2 of it is gone")}
    assert broken == []

    found = published_report(folder)
    # other tables ask for the same run
    assert {name for name in found.context.failed if name[0] == "table1"} == {("table1", WITH, seed)}
    assert {table_seed for _, _, table_seed in found.context.failed} == {seed}
    publish(folder, decode(lost, "mend the test"))
    assert load_failures(folder) == ({}, [])
    assert published_report(folder).context.failed == {}


@pytest.mark.thorough
def test_a_report_with_failures_says_so_on_its_page_and_in_results_that_fit_the_schema(tmp_path) -> None:
    paths = publish_runs(tmp_path, "shapes", seeds=(1, 2))
    lost = json.loads(paths[-1].read_text())
    folder, key, seed = paths[-1].parent, lost["evaluation_key"], decode(lost, "mend the test").seed
    paths[-1].unlink()
    publish_failure(folder, key, seed, WHY)
    files = render(published_report(folder))
    assert b"FAILED" in files["README.md"]
    results = json.loads(files["results.json"])
    schema = json.loads((Path(reporting.__file__).parent / "results.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(results)
    (table,) = (each for each in results["tables"] if each["study"] == "table1")
    assert [(each["variant"], each["seed"]) for each in table["failed"]] == [(WITH, seed)]
    assert any("failed" not in each for each in results["tables"])


def test_a_seed_under_which_everything_failed_is_in_the_tables(tmp_path) -> None:
    paths = publish_runs(tmp_path, "shapes", seeds=(1, 2))
    folder = paths[0].parent
    before = published_report(folder)
    for path in paths:
        record = decode(json.loads(path.read_text()), "mend the test")
        if record.seed == 2:
            path.unlink()
            publish_failure(folder, record.evaluation_key, 2, WHY)
    after = published_report(folder)
    assert before.context.seeds == after.context.seeds == (1, 2)
    assert {seed for _, _, seed in after.context.failed} == {2}


def test_a_broken_file_of_a_failure_is_named_and_hides_nothing_else(tmp_path) -> None:
    (path, *_) = publish_runs(tmp_path, "shapes", seeds=(1,))
    publish_failure(path.parent, "ff", 1, WHY)
    (path.parent / "failed" / "ff.json").write_text("{")
    found = published_report(path.parent)
    assert any("failed/ff.json: it does not say what failed" in line for line in found.broken)
    assert any(found.records.values())


@pytest.mark.slow
def test_a_run_whose_loss_is_not_a_number_is_failed_in_the_tables_and_the_others_go_on(
    tmp_path, capsys, monkeypatch
) -> None:
    study = Study(
        **{
            **STUDY.__dict__,
            "name": "broken",
            "variants": (
                Variant(name="diverges", edits=(("training.learning_rate", 1e30), ("training.clip_norm", None))),
                Variant(name="works"),
            ),
            "contrasts": (Contrast(variant="works", base="diverges"),),
            "table": None,
        }
    )
    monkeypatch.setitem(STUDIES, "broken", study)
    profile = PROFILES["smoke"]
    monkeypatch.setitem(PROFILES, "smoke", replace(profile, publish=True, studies=("table1",)))
    argv = ["--profile", "smoke", "--studies", "broken", "--seeds", "0", "--records", str(tmp_path / "records")]
    assert main([*argv, "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "1 of 2 jobs failed" in said.err
    found = rows(said.out.partition("Ours: ")[0])
    assert found["diverges"][0] == "failed"
    assert found["works"][0] not in ("failed", "not run", "")
    assert "FAILED: diverges, seed 0: " in said.out
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["runs"]) == 1
    assert "the loss is not finite: " in said.out
    assert "in the batch of image ids " in said.out
    ((seed, why),) = load_failures(tmp_path / "records" / "smoke-shapes")[0].values()
    assert (seed, why.count("not finite")) == (0, 1)
