"""The ablation harness: plans, runs that are never repeated, and tables that say what was not measured."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cornernet import Config, ConfigError, recipe
from cornernet.ablations.__main__ import main
from cornernet.ablations.profiles import PROFILES
from cornernet.ablations.records.record import Record
from cornernet.ablations.reporting.context import Context
from cornernet.ablations.reporting.tables import study_table
from cornernet.ablations.running.planner import Fingerprints, make_job, plan
from cornernet.ablations.statistics.intervals import paired_differences, summarise
from cornernet.ablations.studies import STUDIES, declared_in, find_study
from cornernet.ablations.studies.paper import paper_table
from cornernet.ablations.studies.study import Contrast, Study, Variant
from cornernet.config import AnchorHeadConfig, CocoSource, ShapesSource, SourceConfig, TestingConfig
from cornernet.evaluation.corners import CORNER_METRICS
from cornernet.evaluation.evaluate import ERROR_TYPES, METRICS
from cornernet.evaluation.locations import questions
from cornernet.model.heads.corner.targets import TargetBuilder
from cornernet.training.loop import train
from tests.unit.made_records import made_record

DATA = Fingerprints("train", "val")
STUDY = STUDIES["table1"]
# studies that only look at the trainings of table 1 in other ways
SHARING = [STUDIES[name] for name in ("table3", "table6", "table7")]


def fingerprints(source: SourceConfig) -> Fingerprints:
    return Fingerprints(f"train of {source}", f"val of {source}")


def photographs() -> Config:
    return recipe("small").with_("data.source", CocoSource(root="photographs"))


def test_the_paper_s_first_table() -> None:
    table = paper_table(1)
    assert table.metrics == ("AP", "AP50", "AP75", "APs", "APm", "APl")
    assert table.row("w/ corner pooling")["AP"] == 38.4
    with pytest.raises(KeyError, match="it has w/o corner pooling"):
        table.row("with")


def test_a_table_transposed_has_its_rows_as_metrics() -> None:
    table = paper_table(3).transposed()
    assert table.row("mAP w/ pooling")["top-left corners, top-left quadrant"] == 69.2
    assert table.transposed() == paper_table(3)


EVERY = {f"{study.name}-{protocol}": study for protocol in (1, 2) for study in declared_in(protocol).values()}
"""Every study under every protocol."""


@pytest.mark.parametrize("study", EVERY.values(), ids=EVERY)
def test_every_study_names_rows_of_its_table_and_edits_that_fit(study: Study) -> None:
    printed = 0
    for variant in study.variants:
        for base in (recipe("tiny"), photographs()):
            study.configure(base, variant)
        figures = study.paper_values(variant)
        if variant.paper_row is not None:
            assert figures is not None
            table = paper_table(study.table)
            assert set(figures) <= set(study.metrics)
            assert len(figures) == min(
                len(study.metrics), len(table.rows if study.paper_transposed else table.metrics)
            ), "a printed figure is left out"
            printed += 1
    if study.table is None:
        assert printed == 0
        return
    table = paper_table(study.table)
    published = study.published_values()
    assert all(set(figures) <= set(study.metrics) for figures in published.values())
    others = sum(map(len, table.others.values())) if study.published else 0
    assert printed + len(published) == others + len(
        table.transposed().rows if study.paper_transposed else table.rows
    ), "a row is left out"


def test_the_paper_s_figures_stand_beside_the_metric_that_they_are_of() -> None:
    without, with_pooling = map(STUDIES["table3"].paper_values, STUDIES["table3"].variants)
    assert without is not None
    assert with_pooling is not None
    assert without["location_AP/bottom_right/top_left_quadrant"] == 53.4
    assert with_pooling["location_AP/top_left/bottom_right_quadrant"] == 63.5
    assert find_study("table3", 1).paper_values(STUDIES["table3"].variants[0]) == {
        name.replace("location_AP", "corner_AP"): value for name, value in without.items()
    }


def test_every_study_asks_for_metrics_that_an_evaluation_has() -> None:
    for study in EVERY.values():
        for variant in study.variants:
            testing = study.configure(recipe("tiny"), variant).testing
            asked = (*(CORNER_METRICS if testing.corner_metrics else ()), *(ERROR_TYPES if testing.error_types else ()))
            located = questions(testing.location_radii) if testing.location_radii else ()
            assert set(study.metrics) <= {*METRICS, *asked, *located}


def test_the_multi_scale_study_has_the_paper_s_scales_and_merges() -> None:
    study = STUDIES["table7"]
    several = {v.name: study.configure(recipe("tiny"), v).testing for v in study.variants}
    assert several["multi scale"].scales == (0.5, 0.75, 1.0, 1.25, 1.5)
    assert several["multi scale"].merge
    assert several["single scale"] == TestingConfig()
    assert {testing.nms for testing in several.values()} == {"hard", "linear", "gaussian"}


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
    jobs = plan([STUDY, other], recipe("tiny"), (0, 1), fingerprints)
    assert len(jobs) == 8
    assert len({job.training_key for job in jobs.values()}) == 4


@pytest.mark.parametrize("study", SHARING, ids=lambda study: study.name)
@pytest.mark.parametrize("base", [recipe("tiny"), photographs()], ids=["shapes", "photographs"])
def test_studies_of_testing_train_nothing_that_table_1_does_not(study: Study, base: Config) -> None:
    first = {job.training_key for job in plan([STUDY], base, (0, 1), fingerprints).values()}
    jobs = plan([study], base, (0, 1), fingerprints)
    assert {job.training_key for job in jobs.values()} <= first
    assert len({job.evaluation_key for job in jobs.values()}) == len(jobs), "two variants are the same"
    assert len({job.training_config.to_json() for job in jobs.values()}) == len({j.training_key for j in jobs.values()})


def test_a_value_of_an_edit_may_be_made_from_the_configuration() -> None:
    variant = Variant(
        name="twice", edits=(("training.seed", 3), ("training.iterations", lambda config: 2 * config.training.seed))
    )
    assert variant.apply(recipe("tiny")).training.iterations == 6


def test_an_exploratory_study_declares_no_claims() -> None:
    with pytest.raises(ValueError, match="an exploratory study declares no claims"):
        Study(**{**STUDY.__dict__, "exploratory": True})


def test_the_extended_profile_has_three_seeds_and_shares_its_base_with_the_standard_one() -> None:
    profile = PROFILES["extended"]
    studies = [find_study(name, profile.declarations) for name in profile.studies]
    assert all(study.exploratory for study in studies)
    assert len(profile.seeds) == 3
    assert profile.publish
    jobs = plan(studies, profile.on_shapes(), profile.seeds, fingerprints)
    standard = plan([STUDY], PROFILES["standard"].on_shapes(), PROFILES["standard"].seeds, fingerprints)
    ours, theirs = ({job.training_key for job in each.values()} for each in (jobs, standard))
    assert len(ours & theirs) == 3
    per_seed = {name[:2]: job.training_key for name, job in jobs.items() if name[2] == 1}
    base = per_seed["backbone_size", "one stack"]
    for pair in (
        ("pull_push_weights", "0.1 (the paper)"),
        ("offset_loss", "offset loss (the paper)"),
        ("embeddings", "1 number, within 0.5 (the paper)"),
        ("focal_exponents", "alpha 2, beta 4 (the paper)"),
        ("heatmap_losses", "focal"),
    ):
        assert per_seed[pair] == base
    assert per_seed["feedback", "not fed back (the paper)"] == per_seed["backbone_size", "two stacks"]


@pytest.mark.parametrize("study", [s for s in EVERY.values() if s.exploratory], ids=lambda study: study.name)
@pytest.mark.parametrize("base", [recipe("tiny"), photographs()], ids=["shapes", "photographs"])
def test_variants_of_an_exploratory_study_differ_and_each_is_compared(study: Study, base: Config) -> None:
    jobs = plan([study], base, (0,), fingerprints)
    assert len({job.evaluation_key for job in jobs.values()}) == len(jobs), "two variants are the same"
    compared = {side for contrast in study.contrasts for side in (contrast.variant, contrast.base)}
    assert compared == {variant.name for variant in study.variants}


def test_the_study_of_backbones_takes_from_any_hourglass_what_it_has() -> None:
    study = STUDIES["backbone_size"]
    found = {v.name: study.configure(photographs(), v).model for v in study.variants}
    assert [found[name].backbone.stacks for name in ("one stack", "two stacks")] == [1, 2]
    assert found["shallower: one reduction fewer"].backbone.channels == (32, 32, 48)
    assert found["narrower: half the width"].backbone.channels == (16, 16, 24, 32)
    assert found["narrower: half the width"].head.pool_channels == 16
    with pytest.raises(ValueError, match="is for hourglasses"):
        study.configure(recipe("fpn_small"), study.variants[2])


def test_the_plan_of_the_paper_s_tables_shares_what_it_can() -> None:
    jobs = plan([s for s in declared_in(1).values() if not s.exploratory], recipe("tiny"), (0,), fingerprints)
    # two of table 1, five of table 2 on data of its own
    assert len({job.training_key for job in jobs.values()}) == 2 + 5
    # tables 1, 6 and 7 have the plain evaluation in common
    assert len({job.evaluation_key for job in jobs.values()}) == 2 + 5 + 2 + 5 + 6 + 2 + 6
    assert jobs["table1", "w/ corner pooling", 0] == jobs["table6", "CornerNet", 0] == jobs["table7", "single scale", 0]


def test_the_penalty_study_draws_large_objects_on_large_maps_and_leaves_photographs_alone() -> None:
    study = STUDIES["table2"]
    for variant in study.variants:
        config = study.configure(recipe("tiny"), variant)
        assert min(config.data.input_size) + 1 >= 4 * 48
        assert isinstance(config.data.source, ShapesSource)
        assert config.data.source.image_size == config.data.input_size
        assert config.data.source.object_size[0] * 48 > 4 * 2.5
        assert study.configure(photographs(), variant).data == photographs().data
    jobs = plan([study], recipe("tiny"), (0,), fingerprints)
    assert len({job.training_key for job in jobs.values()}) == 5
    radii = [TargetBuilder(config=job.config.model.head, num_classes=3).radius(30, 30) for job in jobs.values()]
    assert len(set(radii)) == 5


def test_a_study_edits_the_base_of_all_its_variants_and_photographs_keep_their_source() -> None:
    study = Study(
        **{
            **STUDY.__dict__,
            "base_edits": (("training.iterations", 7), ("data.input_size", (127, 127))),
            "shapes_edits": (("data.source.max_objects", 1), ("training.iterations", 9)),
        }
    )
    for variant in study.variants:
        generated, real = study.configure(recipe("tiny"), variant), study.configure(photographs(), variant)
        assert (generated.training.iterations, real.training.iterations) == (9, 7)
        assert generated.data.input_size == real.data.input_size == (127, 127)
        assert isinstance(generated.data.source, ShapesSource)
        assert generated.data.source.max_objects == 1
        assert real.data.source == photographs().data.source
        assert generated.model.head.pooling == dict(variant.edits)["model.head.pooling"]


@pytest.mark.parametrize("path", ["data.source.seed", "data.source", "data"])
def test_a_study_does_not_edit_the_source_of_any_data(path: str) -> None:
    with pytest.raises(ValueError, match=f"study table1: {path} is for shapes_edits"):
        Study(**{**STUDY.__dict__, "base_edits": ((path, 1),)})


def test_data_of_its_own_has_fingerprints_of_its_own() -> None:
    first, second = (plan([STUDIES[name]], recipe("tiny"), (0,), fingerprints) for name in ("table1", "table2"))
    plain = second["table2", "object-dependent radius", 0]
    assert plain.training_key not in {job.training_key for job in first.values()}
    assert plain == make_job(plain.config, fingerprints(plain.config.data.source))


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


def record(value: float) -> Record:
    metrics = dict.fromkeys(STUDY.metrics, value) | {"APs": None}
    return made_record(metrics=metrics, latency={"milliseconds": 100 * value})


def table(seeds=(0, 1), missing=()):
    without, with_pooling = (variant.name for variant in STUDY.variants)
    records = {
        ("table1", name, seed): None if (name, seed) in missing else record(value + 0.01 * seed)
        for name, value in ((without, 0.25), (with_pooling, 0.31))
        for seed in seeds
    }
    about = Context(profile="p", data="d", command="c", seeds=tuple(seeds), areas=(31, 32, 33))
    return study_table(STUDY, records, about)


def test_a_table_shows_means_spread_differences_and_the_paper() -> None:
    text = table().to_markdown()
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    rows = {line[0]: line[1:] for line in lines}
    assert rows["w/ corner pooling"][0] == "31.0, 32.0"
    difference = rows["*difference: w/ corner pooling minus w/o corner pooling*"]
    assert difference[0] == "+6.0, +6.0"
    header = rows[""]
    assert difference[header.index("APs")] == "not measured"
    column = 1 + header.index("AP, paper")
    assert [line[column] for line in lines[2:]] == ["36.5", "38.4", "+1.9"]
    assert "Too few seeds for a verdict" in text
    assert "not COCO" in text
    assert "31 small, 32 medium, 33 large" in text


def test_a_missing_run_is_shown_as_not_run_and_leaves_no_pair() -> None:
    without, with_pooling = (variant.name for variant in STUDY.variants)
    text = table(missing={(with_pooling, 0), (with_pooling, 1)}).to_markdown()
    row = next(line for line in text.splitlines() if line.startswith("| w/ corner pooling"))
    assert row.count("not run") == len(STUDY.metrics) + 1, "metrics and the time"
    half = table(missing={(without, 1)})
    assert half.rows[-1].seeds == (0,)
    assert list(half.rows[-1].values["AP"]) == [0]


def test_a_table_has_no_other_metrics_than_its_own() -> None:
    study = Study(**{**STUDY.__dict__, "latency": True, "metrics": ("APl", "AR1")})
    names = [variant.name for variant in study.variants]
    records = {
        ("table1", name, seed): made_record(metrics={"APl": 0.5, "AR1": 0.25}) for name in names for seed in (0, 1)
    }
    context = Context(profile="p", data="d", command="c", seeds=(0, 1), areas=(31, 32, 33))
    made = study_table(study, records, context)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in made.to_markdown().splitlines()]
    rows = {line[0]: line[1:] for line in lines if line}
    # table 1 prints no AR1
    assert rows[""] == ["APl", "APl, paper", "AR1", "ms an image", "seeds"]
    assert rows[names[1]] == ["50.0, 50.0", "51.8", "25.0, 25.0", "not measured", "2"]
    assert set(made.to_frame().query("source == 'paper'").metric) == {"APl"}


def test_three_seeds_are_not_too_few() -> None:
    assert "Too few seeds" not in table(seeds=(0, 1, 2)).to_markdown()


@pytest.mark.usefixtures("forked")
@pytest.mark.slow
def test_the_smoke_profile_end_to_end_and_never_twice(tmp_path, capsys) -> None:
    argv = ["--profile", "smoke", "--studies", "table1"]
    argv += ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]
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
    assert "AP, paper" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.usefixtures("forked")
@pytest.mark.slow
def test_the_smoke_profile_runs_every_study_and_shares_their_trainings(tmp_path, capsys) -> None:
    out, store = tmp_path / "out", tmp_path / "store"
    argv = ["--profile", "smoke", "--seeds", "0", "--store", str(store), "--out", str(out)]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    pooling, base = STUDIES["pooling_implementations"], PROFILES["smoke"].on_shapes()
    # a machine with a GPU runs more implementations
    evaluations = 22 + sum(pooling.why_not(base, variant) is None for variant in pooling.variants)
    assert f"7 trainings of 8 iterations, {evaluations} evaluations" in printed
    assert len(list((store / "trainings").iterdir())) == 7
    assert len(list((store / "evaluations").iterdir())) == evaluations
    results = json.loads((out / "results.json").read_text())
    assert [table["study"] for table in results["tables"]] == list(PROFILES["smoke"].studies)
    planned = declared_in(PROFILES["smoke"].declarations)
    for table in results["tables"]:
        study = planned[table["study"]]
        elsewhere = {variant.name for variant in study.variants if study.why_not(base, variant) is not None}
        for row in table["rows"]:
            if any(name in row["label"] for name in elsewhere):
                assert row["seeds"] == []
                continue
            assert row["seeds"] == [0]
            assert all(seed == "0" for values in row["values"].values() for seed in values)
            # a busy machine has refused them; the timing has them all the same
            assert row["latency"].keys() <= {"0"}
            if study.latency and row["kind"] == "variant":
                assert table["timing"]["image"][row["label"]]["milliseconds"] > 0
    areas = next(table["areas"] for table in results["tables"] if table["study"] == "table3")
    runs = {(run["study"], run["variant"]): run for run in results["runs"]}
    asked = sum(len(planned[name].variants) for name in PROFILES["smoke"].studies)
    assert len(runs) == asked - sum(pooling.why_not(base, variant) is not None for variant in pooling.variants)
    for (study, variant), run in runs.items():
        declared = next(v for v in planned[study].variants if v.name == variant)
        for path, value in dict(declared.edits).items():
            part, *fields = path.split(".")
            found = results["provenance"]["configs"][run["evaluation_key"]][part]
            for field in fields:
                found = found[field]
            plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
            assert found == json.loads(json.dumps(plain))
        assert run["latency"]["milliseconds"] > 0
        assert (CORNER_METRICS[0] in run["metrics"]) == (study == "table3")
    all_truth = runs["table6", "w/ gt heatmaps + offsets + embeddings"]
    assert all_truth["metrics"]["AP"] > 0.999
    fixed = results["provenance"]["configs"][runs["table2", "fixed radius"]["evaluation_key"]]
    assert fixed["data"]["input_size"] == [191, 191]
    assert "Corners evaluated on: " in (out / "tables" / "table3.md").read_text()
    assert "Corners evaluated on: " not in (out / "tables" / "table1.md").read_text()
    assert sum(areas) == runs["table3", "w/ corner pooling"]["true_corners"]["corner_AP/top_left"]
    assert "17 large" in (out / "tables" / "table2.md").read_text(), "objects are counted on the study's own data"


def test_a_profile_names_the_studies_that_it_runs() -> None:
    assert PROFILES["quick"].studies == ("table1",)
    exploratory = {name for name, study in declared_in(PROFILES["extended"].declarations).items() if study.exploratory}
    # these have a profile of their own: under smoke they would take minutes of starting processes
    assert set(PROFILES["smoke"].studies) == set(STUDIES) - exploratory
    assert (
        set().union(*(PROFILES[name].studies for name in ("extended", "tuning", "sensitivity", "gpu"))) >= exploratory
    )
    assert all(set(profile.studies) <= set(STUDIES) for profile in PROFILES.values())


@pytest.mark.usefixtures("forked")
@pytest.mark.slow
def test_an_evaluation_that_fails_leaves_the_others_of_its_training(tmp_path, capsys, monkeypatch) -> None:
    # anchors have no heatmaps to replace, which only the evaluation notices
    anchors = ("model.head", AnchorHeadConfig())
    mixed = Study(
        **{
            **STUDY.__dict__,
            "name": "mixed",
            "variants": (
                Variant(name="fails", edits=(anchors, ("testing.substitute", ("heatmaps",)))),
                Variant(name="works", edits=(anchors, ("testing.flip", False))),
            ),
            "contrasts": (),
            "table": None,
        }
    )
    monkeypatch.setitem(STUDIES, "mixed", mixed)
    argv = ["--profile", "smoke", "--studies", "mixed", "--seeds", "0"]
    assert main([*argv, "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]) == 1
    assert "1 of 2 jobs failed" in capsys.readouterr().err
    assert len(list((tmp_path / "store" / "evaluations").iterdir())) == 1
    (log,) = (tmp_path / "store" / "logs").iterdir()
    assert "Traceback" in log.read_text()


@pytest.mark.slow
def test_a_training_stopped_under_one_evaluation_goes_on_under_another(tmp_path) -> None:
    base = PROFILES["smoke"].base(None).with_("training.device", "cpu").with_("training.iterations", 3)
    plain = make_job(base, DATA)
    other = make_job(base.with_("testing.substitute", ("heatmaps",)).with_("testing.flip", False), DATA)
    assert plain.training_config == other.training_config
    folder = tmp_path / "run"

    def stop(done: int) -> None:
        if done == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(plain.training_config, folder, quiet=True, final_evaluation=False, on_iteration=stop)
    train(other.training_config, folder, resume=True, quiet=True, final_evaluation=False)
    assert (folder / "model.safetensors").exists()


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


def at_work(folder: Path) -> list[psutil.Process]:
    """Return the processes that work in a folder."""
    return [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(folder.resolve())]


@pytest.mark.usefixtures("forked")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "group"),
    [(signal.SIGINT, True), pytest.param(signal.SIGTERM, False, marks=pytest.mark.thorough)],
)
def test_a_stopped_call_leaves_no_process_and_goes_on_to_the_same_table(number, group, tmp_path) -> None:
    arguments = ["--profile", "smoke", "--studies", "table1", "--seeds", "0", "--store", "store", "--out", "out"]
    command = [sys.executable, "-m", "ablations", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 600
        while not list((tmp_path / "store").glob("trainings/*/metrics.jsonl")):
            assert process.poll() is None, "it ended before it could be stopped"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert len(at_work(tmp_path)) > 1, "the process and those that it started"
        # as a terminal does it: to the whole group
        (os.killpg if group else os.kill)(process.pid, number)
        _, said = process.communicate(timeout=600)
    if process.returncode == 0:
        pytest.skip("it had finished before the signal came")
    assert process.returncode == 130
    assert "the same command resumes" in said
    assert not at_work(tmp_path)
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
    for data in (tmp_path,) if profile.name == "paper" else (None, tmp_path):
        assert profile.base(data).training.threads == 1
        assert len(profile.seeds) >= 2


def test_the_paper_s_profile_is_the_paper_s_training_and_takes_no_generated_data(tmp_path) -> None:
    config = PROFILES["paper"].base(tmp_path)
    assert config.model == recipe("hourglass_104").model
    assert config.data.input_size == (511, 511)
    assert (config.training.batch_size, config.training.iterations) == (49, 250_000)
    assert (config.training.learning_rate, config.training.schedule) == (2.5e-4, "step")
    # the batch can be cut evenly
    assert config.training.batch_size % (PROFILES["paper"].gpus * config.training.accumulation) == 0
    with pytest.raises(ConfigError, match=r"COCO's folder with --data"):
        PROFILES["paper"].base(None)
