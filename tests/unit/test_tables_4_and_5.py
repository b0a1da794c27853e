"""Tables 4 and 5: what their arms differ in, which trainings they share, and the block of published detectors."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from cornernet import Config, recipe
from cornernet.ablations.records.record import Record
from cornernet.ablations.reporting.context import Context
from cornernet.ablations.reporting.folder import render, write_files
from cornernet.ablations.reporting.report import Report, published_report
from cornernet.ablations.reporting.tables import study_table
from cornernet.ablations.running.planner import Fingerprints, make_job, plan
from cornernet.ablations.statistics.resampling import RESAMPLED_METRICS, Resamples
from cornernet.ablations.studies import STUDIES, declared_in
from cornernet.ablations.studies.study import Study
from cornernet.ablations.studies.table4_backbone_and_head import CHOSEN, Setting
from cornernet.ablations.studies.table4_search import SETTINGS, best
from cornernet.config import AnchorHeadConfig, CocoSource
from cornernet.model.costs import costs
from cornernet.training.run_folder import differences
from tests.unit.made_records import made_record

BASES = [recipe("tiny"), recipe("small").with_("data.source", CocoSource(root="photographs"))]
RECORDS = Path(__file__).parents[2] / "reports" / "records"
FIRST = declared_in(1)
BOTH = [FIRST["table4"], FIRST["table5"]]
QUALITY = FIRST["table5"]
BLOCKS = {"table5 of protocol 1": FIRST["table5"], "table5": STUDIES["table5"], "table7": STUDIES["table7"]}
TABLE_4, SEARCH = STUDIES["table4"], STUDIES["table4_search"]


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
    study = FIRST["table4"]
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
    studies = [*BOTH, FIRST["table1"]]
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


@pytest.mark.parametrize("study", BLOCKS.values(), ids=BLOCKS)
def test_published_detectors_stand_in_a_block_of_their_own(study, tmp_path) -> None:
    table = published(study, tmp_path)
    assert not {row.label for row in table.rows} & set(study.published)
    page = (tmp_path / "README.md").read_text()
    ours, theirs = page.split(f"As the paper prints them in its table {study.table}, on COCO")
    for name, figures in study.published_values().items():
        assert name not in ours
        rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in theirs.splitlines())
        (row,) = (row for row in rows if row[:1] == [table.published_label(name)])
        assert row[1:] == [f"{figures[m]:.1f}" if m in figures else "" for m in study.metrics]
    with (tmp_path / "tables" / f"{study.name}.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["kind"] == "published"]
    assert len(lines) == sum(map(len, study.published_values().values()))
    assert {line["source"] for line in lines} == {"paper"}
    (tree,) = json.loads((tmp_path / "results.json").read_text())["tables"]
    assert tree["published"] == study.published_values()


def test_the_published_detectors_of_table_5_are_the_paper_s() -> None:
    figures = STUDIES["table5"].published_values()
    assert list(figures) == ["RetinaNet", "Cascade R-CNN", "Cascade R-CNN + IoU Net"]
    assert figures["RetinaNet"] == {"AP": 39.8, "AP50": 59.5, "AP60": 55.6, "AP70": 48.2, "AP80": 36.4, "AP90": 15.1}


def test_table_7_shows_the_paper_s_whole_comparison() -> None:
    study = STUDIES["table7"]
    figures = study.published_values()
    assert len(figures) == 22
    assert [study.published_group(name) for name in figures] == ["two-stage detectors"] * 14 + [
        "one-stage detectors"
    ] * 8
    # the paper leaves AP50 and AP75 of this one blank
    assert figures["LH R-CNN, ResNet-101"] == {"AP": 41.5, "APs": 25.2, "APm": 45.3, "APl": 53.1}
    assert figures["DSSD513, ResNet-101"]["ARl"] == 66.4
    single = study.paper_values(study.variants[0])
    assert single is not None
    assert [single[metric] for metric in ("ARs", "ARm", "ARl")] == [37.4, 62.4, 77.2]
    assert FIRST["table7"].published == ()


# --------------------------------------------------------------------------------------------------------- protocol 2
@pytest.mark.parametrize("base", BASES, ids=["shapes", "photographs"])
def test_table_4_has_two_stacks_and_differs_from_corners_in_the_arm_and_what_was_tuned(base) -> None:
    found = arms(TABLE_4, base)
    corners = found["Hourglass + Corners"]
    assert corners.model.backbone.stacks == 2
    assert all(arm.testing == base.testing for arm in found.values()), "an evaluation shared with the other tables"
    tuned = {"training.learning_rate", "model.head.heatmap_bias", "model.head.prior"}
    for name, part in (("Hourglass + Anchors", "model.head."), ("FPN + Corners", "model.backbone.")):
        paths = {sentence.split(" ")[0] for sentence in differences(corners, found[name])}
        assert any(path.startswith(part) for path in paths)
        assert {path for path in paths if not path.startswith(part)} <= tuned
    pyramid, hourglass = costs(found["FPN + Corners"]), costs(corners)
    assert 0.95 < pyramid.multiply_adds / hourglass.multiply_adds < 1.05
    assert 0.8 < pyramid.parameters / hourglass.parameters < 1.1


def test_table_5_of_protocol_2_has_the_arms_of_table_4() -> None:
    jobs = plan([TABLE_4, STUDIES["table5"]], recipe("tiny"), (0,), lambda source: Fingerprints("train", "val"))
    for name in ("Hourglass + Anchors", "Hourglass + Corners"):
        assert jobs["table4", name, 0] == jobs["table5", name, 0]


@pytest.mark.parametrize("base", BASES, ids=["shapes", "photographs"])
def test_every_arm_of_table_4_is_searched_with_the_same_number_of_trainings(base) -> None:
    assert {len(settings) for settings in SETTINGS.values()} == {5}
    assert set(SETTINGS) == {variant.name for variant in TABLE_4.variants}
    found = arms(SEARCH, base)
    rate = base.training.learning_rate
    tried = [found[f"Hourglass + Anchors, {name}"] for name in SETTINGS["Hourglass + Anchors"]]
    assert [each.training.learning_rate / rate for each in tried] == [1.0, 0.5, 2.0, 1.0, 1.0]
    assert [each.model.head.prior for each in tried] == [0.01, 0.01, 0.01, 0.03, 0.1]
    for arm in ("Hourglass + Corners", "FPN + Corners"):
        tried = [found[f"{arm}, {name}"] for name in SETTINGS[arm]]
        assert [each.training.learning_rate / rate for each in tried] == [1.0, 0.5, 2.0, 1.0, 1.0]
        scores = [1 / (1 + math.exp(-each.model.head.heatmap_bias)) for each in tried]
        assert scores == pytest.approx([0.1, 0.1, 0.1, 0.03, 0.01], abs=0.001)


def test_an_arm_that_was_not_tuned_is_a_trial_of_the_search() -> None:
    base = recipe("tiny")
    found, searched = arms(TABLE_4, base), arms(SEARCH, base)
    for arm, settings in SETTINGS.items():
        chosen = CHOSEN["shapes"][arm]
        (name,) = (name for name, setting in settings.items() if setting == chosen)
        assert searched[f"{arm}, {name}"] == found[arm]


def test_the_setting_with_the_highest_ap_is_chosen_for_each_arm() -> None:
    found = {variant.name: 0.4 for variant in SEARCH.variants}
    found["Hourglass + Anchors, prior 0.1"] = 0.41
    found["FPN + Corners, half the learning rate"] = 0.42
    assert best(found) == {
        "FPN + Corners": Setting(rate=0.5),
        "Hourglass + Anchors": Setting(prior=0.1),
        "Hourglass + Corners": Setting(),
    }
    del found["Hourglass + Corners, prior 0.01"]
    with pytest.raises(ValueError, match=r"lacks 'Hourglass \+ Corners, prior 0.01'"):
        best(found)


@pytest.mark.parametrize("data", ["shapes", "photographs"])
def test_the_chosen_settings_are_those_of_the_published_search(data) -> None:
    folders = [path for path in RECORDS.glob("tuning-*") if (path.name == "tuning-shapes") == (data == "shapes")]
    for folder in folders:
        (table,) = published_report(folder, ["table4_search"]).tables
        means = {row.label: row.statistics["AP"].mean for row in table.rows if row.kind == "variant"}
        assert best(means) == CHOSEN[data]


def test_a_study_without_a_table_has_no_published_rows() -> None:
    with pytest.raises(ValueError, match="published rows are those of a table of the paper"):
        Study(**{**STUDIES["table5"].__dict__, "table": None})


def test_records_from_before_these_ious_were_resampled_give_spreads_over_seeds_in_their_columns(tmp_path) -> None:
    study = QUALITY
    before = published(study, tmp_path / "before", ("AP", "AP50", "AP75"))
    assert before.seeds_alone == ("AP60", "AP70", "AP80", "AP90")
    assert "In AP60, AP70, AP80, AP90: mean with the standard deviation (sd) over seeds only" in before.to_markdown()
    now = published(study, tmp_path / "now")
    assert now.seeds_alone == ()
    assert all(row.statistics["AP90"].low is not None for row in now.rows)
