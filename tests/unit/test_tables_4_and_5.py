"""Tables 4 and 5: what their arms differ in, which trainings they share, and the block of published detectors."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from cornernet import Config, recipe
from cornernet.ablations.records.record import Record
from cornernet.ablations.reporting.context import Context
from cornernet.ablations.reporting.folder import render, write_files
from cornernet.ablations.reporting.report import Report
from cornernet.ablations.reporting.tables import study_table
from cornernet.ablations.running.planner import Fingerprints, make_job, plan
from cornernet.ablations.statistics.resampling import RESAMPLED_METRICS, Resamples
from cornernet.ablations.studies import STUDIES
from cornernet.ablations.studies.study import Study
from cornernet.config import AnchorHeadConfig, CocoSource
from cornernet.model.costs import costs
from cornernet.training.run_folder import differences
from tests.unit.made_records import made_record

BASES = [recipe("tiny"), recipe("small").with_("data.source", CocoSource(root="photographs"))]
BOTH = [STUDIES["table4"], STUDIES["table5"]]
QUALITY = STUDIES["table5"]


def arms(study: Study, base: Config) -> dict[str, Config]:
    return {variant.name: study.configure(base, variant) for variant in study.variants}


def record(study: Study, level: float, resampled: tuple[str, ...]) -> Record:
    rng = np.random.default_rng(7)
    values = {name: level + 0.01 * rng.standard_normal(50) for name in study.metrics if name in resampled}
    return made_record(
        metrics=dict.fromkeys(study.metrics, level),
        resamples=Resamples(fingerprint="f" * 64, version=1, values=values).to_record(),
    )


def published(study: Study, folder: Path, resampled: tuple[str, ...] = RESAMPLED_METRICS):
    """Return the table of made-up records over three seeds, written to ``folder``."""
    made = {
        (study.name, variant.name, seed): record(study, 0.4 + 0.1 * n + 0.01 * seed, resampled)
        for n, variant in enumerate(study.variants)
        for seed in range(3)
    }
    context = Context(
        profile="extended", data="shapes", command="python -m ablations", seeds=(0, 1, 2), areas=(31, 32, 33)
    )
    table = study_table(study, made, context)
    write_files(folder, render(Report(context=context, tables=[table], records=made)))
    return table


@pytest.mark.parametrize("base", BASES, ids=["shapes", "photographs"])
@pytest.mark.parametrize("study", BOTH, ids=lambda study: study.name)
def test_anchors_differ_from_corners_in_the_head_alone(study, base) -> None:
    found = arms(study, base)
    anchors, corners = found["Hourglass + Anchors"], found["Hourglass + Corners"]
    assert isinstance(anchors.model.head, AnchorHeadConfig)
    assert corners == base.with_("testing.measure_step", True)
    paths = {sentence.split(" ")[0] for sentence in differences(corners, anchors)}
    assert paths
    assert all(path.startswith("model.head.") for path in paths)


def test_the_pyramid_of_table_4_costs_about_what_the_hourglass_does_and_is_the_paper_s_for_the_paper_s() -> None:
    study = STUDIES["table4"]
    for base in BASES:
        found = arms(study, base)
        pyramid, hourglass = costs(found["FPN + Corners"]), costs(found["Hourglass + Corners"])
        assert 0.9 < pyramid.multiply_adds / hourglass.multiply_adds < 1.1
        assert 0.8 < pyramid.parameters / hourglass.parameters < 1.1
        anchors = costs(found["Hourglass + Anchors"])
        assert 0.9 < anchors.multiply_adds / hourglass.multiply_adds < 1.1
        assert 0.9 < anchors.parameters / hourglass.parameters < 1.1
        paths = {sentence.split(" ")[0] for sentence in differences(base, found["FPN + Corners"])}
        assert {path for path in paths if not path.startswith("model.backbone.")} == {"testing.measure_step"}
    paper = arms(study, recipe("hourglass_104"))["FPN + Corners"]
    assert paper.model.backbone == recipe("fpn_101").model.backbone
    with pytest.raises(ValueError, match="is for hourglasses"):
        study.configure(recipe("fpn_small"), study.variants[0])


def test_the_tables_share_their_trainings_and_evaluations_and_the_corners_those_of_table_1() -> None:
    studies = [*BOTH, STUDIES["table1"]]
    jobs = plan(studies, recipe("tiny"), (0, 1), lambda source: Fingerprints("train", "val"))
    assert len({job.training_key for job in jobs.values()}) == 2 * 4
    for seed in (0, 1):
        theirs = jobs["table1", "w/ corner pooling", seed].training_key
        assert jobs["table4", "Hourglass + Corners", seed].training_key == theirs
    for name in ("Hourglass + Anchors", "Hourglass + Corners"):
        for seed in (0, 1):
            assert jobs["table4", name, seed] == jobs["table5", name, seed]


@pytest.mark.parametrize(
    ("name", "key"),
    [("tiny", "9176d7285bae7a6b"), ("small", "e52d299173a6c881"), ("hourglass_104", "e20066341dae0131")],
)
def test_corners_have_the_keys_that_they_had_before_there_were_anchors(name, key) -> None:
    assert make_job(recipe(name), Fingerprints("a", "b"), revision=1).training_key == key


def test_published_detectors_stand_in_a_block_of_their_own(tmp_path) -> None:
    study = QUALITY
    table = published(study, tmp_path)
    assert not {row.label for row in table.rows} & set(study.published)
    page = (tmp_path / "README.md").read_text()
    ours, theirs = page.split(f"As the paper prints them in its table {study.table}, on COCO")
    for name, figures in study.published_values().items():
        assert name not in ours
        rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in theirs.splitlines())
        (row,) = (row for row in rows if row[:1] == [name])
        assert row[1:] == [f"{figures[m]:.1f}" for m in study.metrics]
    with (tmp_path / "tables" / f"{study.name}.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["kind"] == "published"]
    assert len(lines) == len(study.published) * len(study.metrics)
    assert {line["source"] for line in lines} == {"paper"}
    (tree,) = json.loads((tmp_path / "results.json").read_text())["tables"]
    assert tree["published"] == study.published_values()


def test_the_published_detectors_of_table_5_are_the_paper_s() -> None:
    figures = STUDIES["table5"].published_values()
    assert list(figures) == ["RetinaNet", "Cascade R-CNN", "Cascade R-CNN + IoU Net"]
    assert figures["RetinaNet"] == {"AP": 39.8, "AP50": 59.5, "AP60": 55.6, "AP70": 48.2, "AP80": 36.4, "AP90": 15.1}


def test_a_study_without_a_table_has_no_published_rows() -> None:
    with pytest.raises(ValueError, match="published rows are those of a table of the paper"):
        Study(**{**STUDIES["table5"].__dict__, "table": None})


def test_records_from_before_these_ious_were_resampled_give_spreads_over_seeds_in_their_columns(tmp_path) -> None:
    study = STUDIES["table5"]
    before = published(study, tmp_path / "before", ("AP", "AP50", "AP75"))
    assert before.seeds_alone == ("AP60", "AP70", "AP80", "AP90")
    assert "In AP60, AP70, AP80, AP90: mean with the standard deviation (sd) over seeds only" in before.to_markdown()
    now = published(study, tmp_path / "now")
    assert now.seeds_alone == ()
    assert all(row.statistics["AP90"].low is not None for row in now.rows)
