"""What is printed is what is written, from the same records, whether a profile commits them or not."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from cornernet.ablations.__main__ import main
from cornernet.ablations.profiles import PROFILES
from cornernet.ablations.records.published import publish
from cornernet.ablations.records.record import Record
from cornernet.ablations.running.planner import Job
from cornernet.ablations.running.work import Selection, Work, program, select
from cornernet.evaluation.evaluate import METRICS
from tests.unit.made_records import made_record


def selected(tmp_path: Path, *studies: str) -> Work:
    places = {"store": tmp_path / "store", "records": tmp_path / "records"}
    return select(Selection(profile="smoke", studies=studies, **places), quiet=True)


def finished(work: Work, job: Job, value: float) -> Record:
    prints = work.sources.fingerprints(job.config.data.source)
    return made_record(
        training_key=job.training_key,
        evaluation_key=job.evaluation_key,
        config=job.config.to_dict(),
        data=dataclasses.asdict(prints),
        metrics=dict.fromkeys(METRICS, value),
        objects=[31, 32, 33],
    )


def arguments(tmp_path: Path, *studies: str) -> list[str]:
    places = ("store", "records", "out")
    flags = [part for name in places for part in (f"--{name}", str(tmp_path / name))]
    return ["--profile", "smoke", "--studies", *studies, "--only-report", *flags]


@pytest.fixture
def publishing(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = dataclasses.replace(PROFILES["smoke"], publish=True, studies=("table1",))
    monkeypatch.setitem(PROFILES, "smoke", changed)


def test_the_tables_of_a_store_are_printed_as_they_are_written(tmp_path, capsys) -> None:
    work = selected(tmp_path, "table1")
    for number, job in enumerate(work.distinct):
        work.store.write_record(job, finished(work, job, 0.3 + 0.1 * number))
    assert main(arguments(tmp_path, "table1")) == 0
    written = (tmp_path / "out" / "tables" / "table1.md").read_text()
    assert f"\n{written}" in capsys.readouterr().out
    assert "Objects evaluated on: 31 small, 32 medium, 33 large." in written
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["context"]["command"] == "python -m ablations --profile smoke --studies table1 --seeds 0 1"
    assert len(results["runs"]) == 4


@pytest.mark.usefixtures("publishing")
def test_committed_records_are_printed_as_they_are_written_and_other_studies_are_only_printed(tmp_path, capsys) -> None:
    work = selected(tmp_path, "table1", "table7")
    for number, job in enumerate(work.distinct):
        work.store.write_record(job, finished(work, job, 0.3 + 0.01 * number))
    assert main(arguments(tmp_path, "table1", "table7")) == 0
    printed = capsys.readouterr().out
    assert f"\n{(tmp_path / 'out' / 'tables' / 'table1.md').read_text()}" in printed
    assert not (tmp_path / "out" / "tables" / "table7.md").exists()
    assert "### Table 7. Single scale and multi scale" in printed
    assert "Only printed, because profile smoke does not publish them: table7" in printed
    assert len(list((tmp_path / "records" / "smoke-shapes").glob("*.json"))) == len(work.distinct)


@pytest.mark.usefixtures("publishing")
def test_finished_runs_that_are_in_no_table_are_named(tmp_path, capsys) -> None:
    work = selected(tmp_path, "table1")
    # most records are of three other classes
    for seed in range(3):
        for job in work.distinct:
            config = job.config.with_("model.num_classes", 7).with_("training.seed", seed)
            other = dataclasses.replace(job, config=config, evaluation_key=f"{seed}{job.evaluation_key}")
            publish(tmp_path / "records" / "smoke-shapes", finished(work, other, 0.5))
    for job in work.distinct:
        work.store.write_record(job, finished(work, job, 0.3))
    assert main(arguments(tmp_path, "table1")) == 0
    assert "4 finished evaluations of this call are in no table" in capsys.readouterr().err


@pytest.mark.usefixtures("publishing")
def test_where_every_run_failed_the_tables_say_so(tmp_path, capsys) -> None:
    work = selected(tmp_path, "table1")
    for job in work.distinct:
        work.store.write_failure(job, "Traceback\nTrainingError: the loss is not finite")
    assert main(arguments(tmp_path, "table1")) == 0
    printed = capsys.readouterr().out
    assert "FAILED: w/ corner pooling, seed 1: TrainingError: the loss is not finite" in printed
    assert "not run" not in printed


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("/usr/bin/cornernet", "cornernet ablate"),
        ("/site-packages/cornernet/__main__.py", "cornernet ablate"),
        ("/home/x/cornernet-lab/ablations/__main__.py", "python -m ablations"),
    ],
)
def test_messages_name_the_command_that_was_called(called, name, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    assert program() == name
