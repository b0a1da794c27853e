"""Tables from records: intervals, verdicts, what was not measured or not run, and the overview of primary claims."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from cornernet import recipe
from cornernet.ablations.records.published import load, publish
from cornernet.ablations.records.record import Memory, Record, StoredResamples
from cornernet.ablations.reporting.context import Context, Records
from cornernet.ablations.reporting.folder import render, write_files
from cornernet.ablations.reporting.overview import overview
from cornernet.ablations.reporting.report import Report
from cornernet.ablations.reporting.tables import StudyTable, study_table
from cornernet.ablations.statistics.claims import Chain, Claim, Effect, Equivalence, Interaction, Sign, effects_of
from cornernet.ablations.statistics.intervals import detectable_difference, half_width
from cornernet.ablations.statistics.resampling import Resamples
from cornernet.ablations.studies import PROTOCOL, STUDIES, declared_in, find_study
from cornernet.ablations.studies.study import Contrast, OnData, Study, Variant
from cornernet.evaluation.evaluate import METRICS as MEASURED
from cornernet.model.costs import costs
from tests.unit.made_records import made_record

RESAMPLES = 40
METRICS = ("AP", "APs", "APl")
GAIN = {metric: Effect(variant="with", base="without", metric=metric) for metric in METRICS}
SIGN = Sign(name="ap", statement="It improves AP", effect=GAIN["AP"], primary=True)
GROWS = Interaction(name="grows", statement="Large gain more", effect=GAIN["APl"], other=GAIN["AP"])
SMALL = Sign(name="small", statement="It improves small objects", effect=GAIN["APs"])


def study(*claims: Claim, name: str = "pooling", metrics: tuple[str, ...] = METRICS, latency: bool = False) -> Study:
    return Study(
        name=name,
        title="A table",
        question="Does it help?",
        table=1,
        variants=(
            Variant(name="without", paper_row="w/o corner pooling"),
            Variant(name="with", paper_row="w/ corner pooling"),
        ),
        contrasts=(Contrast(variant="with", base="without"),),
        metrics=metrics,
        claims=claims,
        latency=latency,
    )


def standard(count: int, ddof: int) -> np.ndarray:
    """Return evenly spaced values of mean 0 and standard deviation 1."""
    values = np.arange(count) - (count - 1) / 2
    return values / values.std(ddof=ddof) if count > 1 else np.zeros(1)


def record(
    metrics: Mapping[str, float | None], image_sd: float = 0.0, resampled: Iterable[str] | None = None, key: str = "k"
) -> Record:
    """Return a record of these fractions whose spread over images is exactly ``image_sd``."""
    noise = image_sd * standard(RESAMPLES, 1)
    values = {
        name: np.full(RESAMPLES, np.nan) if metrics[name] is None else metrics[name] + noise
        for name in (metrics if resampled is None else resampled)
    }
    resamples = Resamples(fingerprint="data", version=1, values=values).to_record() if values else None
    return made_record(training_key=key, evaluation_key=f"e{key}", metrics=dict(metrics), resamples=resamples)


def records(
    gains: Mapping[str, float | None],
    *,
    seeds: int = 5,
    seed_sd: float = 0.01,
    image_sd: float = 0.01,
    name: str = "pooling",
    resampled: Iterable[str] | None = None,
) -> dict[tuple[str, str, int], Record | None]:
    """Return records of both arms: the base at 0.4, and each metric's gain, fractions; spreads are the gains'."""
    made: dict[tuple[str, str, int], Record | None] = {}
    for seed, offset in enumerate(seed_sd * standard(seeds, 1)):
        base = {metric: None if gain is None else 0.4 for metric, gain in gains.items()}
        other = {metric: None if gain is None else 0.4 + gain + offset for metric, gain in gains.items()}
        made[name, "without", seed] = record(base, 0.0, resampled, f"base{seed}")
        made[name, "with", seed] = record(other, image_sd, resampled, f"{name}{seed}")
    return made


def context(seeds: int = 5) -> Context:
    return Context(profile="p", data="d", command="c", seeds=tuple(range(seeds)), areas=(40, 50, 60))


def write_reports(folder: Path, tables: Sequence[StudyTable], made: Records, about: Context) -> None:
    write_files(folder, render(Report(context=about, tables=tables, records=made)))


ALIKE = {"AP": 0.1, "APs": 0.1, "APl": 0.1}


def table(*claims: Claim, gains: Mapping[str, float | None] = ALIKE, seeds: int = 5, **how: Any) -> StudyTable:
    return study_table(study(*claims), records(gains, seeds=seeds, **how), context(seeds))


def cells(text: str) -> dict[str, dict[str, str]]:
    """Return row to column to cell of all tables in Markdown; of equal names the last."""
    found: dict[str, dict[str, str]] = {}
    header: list[str] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            header = []
            continue
        row = [cell.strip() for cell in line.split("|")[1:-1]]
        if not header:
            header = row
        elif not row[0].startswith(":-"):
            found[row[0]] = dict(zip(header[1:], row[1:], strict=True))
    return found


DIFFERENCE = "*difference: with minus without*"
FOUND = "found with 80%, 50% probability at"


# ---------------------------------------------------------------------------------------------------------- intervals
def test_a_row_has_its_mean_with_half_its_interval_and_a_difference_its_interval() -> None:
    rows = cells(table(gains={"AP": 0.03, "APs": 0.1, "APl": 0.001}, seeds=4).to_markdown())
    half = half_width(1.0, 4, 1.0)
    assert rows["with"]["AP"] == f"43.0 ±{half:.1f}"
    assert rows["without"]["AP"] == "40.0 ±0.0"
    assert rows[DIFFERENCE]["AP"] == f"+3.0 [{3 - half:+.1f}, {3 + half:+.1f}]"
    assert rows[DIFFERENCE]["seeds"] == "4"
    assert rows[DIFFERENCE]["AP, paper"] == "+1.9"
    assert rows["with"]["AP, paper"] == "38.4"


def test_what_would_be_found_stands_beside_differences_whose_interval_has_zero_in_it_unless_claims_tell() -> None:
    rows = cells(table(gains={"AP": 0.05, "APs": 0.001, "APl": -0.05}).to_markdown())
    expected = f"{detectable_difference(1.0, 5, 1.0):.1f}"
    label = "&emsp;found with 80% probability at"
    assert {name: text for name, text in rows[label].items() if text} == {"APs": expected}
    assert label not in cells(table().to_markdown())
    assert label not in cells(table(SMALL, gains={"AP": 0.05, "APs": 0.001, "APl": -0.05}).to_markdown())


def test_bold_is_the_best_of_a_column_where_a_verdict_says_so() -> None:
    gains = {"AP": 0.05, "APs": 0.001, "APl": -0.05}
    large = Sign(name="large", statement="It improves large objects", effect=GAIN["APl"])
    rows = cells(table(SIGN, SMALL, large, gains=gains).to_markdown())
    assert [name for name, text in rows["with"].items() if text.startswith("**")] == ["AP"]
    assert rows["without"]["APl"].startswith("**40.0** ±")
    assert "**" not in rows["without"]["AP"] + rows["without"]["APs"]
    # the interval is as clear, and nothing was claimed beforehand
    assert "**" not in "".join(cells(table(SMALL, gains=gains).to_markdown())["with"].values())


@pytest.mark.parametrize(("gain", "bold"), [(0.05, True), (0.001, False), (-0.05, False)])
def test_a_chain_that_holds_makes_its_parts_bold_and_one_that_does_not_makes_none(gain, bold) -> None:
    chain = Chain(name="both", statement="Both", parts=(SIGN, Sign(name="l", statement="l", effect=GAIN["APl"])))
    rows = cells(table(chain, gains={**ALIKE, "APl": gain}).to_markdown())
    assert rows["with"]["AP"].startswith("**") == bold
    assert "**" not in rows["without"]["APl"]


def test_with_two_seeds_nothing_is_bold_and_no_claim_is_judged() -> None:
    made = table(SIGN, seeds=2, gains={"AP": 0.5, "APs": None, "APl": 0.5}, seed_sd=1e-5, image_sd=1e-5)
    text = made.to_markdown()
    assert "Too few seeds for a verdict (2; 3 are needed)" in text
    assert "**" not in text.replace("***", "")
    assert "tested here" not in text
    assert [judged.verdict for judged in made.judged] == ["too few seeds"]
    assert cells(text)[DIFFERENCE]["AP"] == "+50.0, +50.0"


def test_one_seed_has_no_interval() -> None:
    rows = cells(table(seeds=1).to_markdown())
    assert (rows["with"]["AP"], rows[DIFFERENCE]["AP"]) == ("50.0", "+10.0")


def test_best_of_three_is_bold_only_where_all_its_differences_are_clear() -> None:
    arms = {"a": 0.4, "b": 0.5, "c": 0.501}
    three = Study(
        name="three",
        title="",
        question="",
        table=None,
        variants=tuple(Variant(name=name) for name in arms),
        contrasts=(Contrast(variant="b", base="a"), Contrast(variant="c", base="a"), Contrast(variant="c", base="b")),
        metrics=("AP",),
        claims=tuple(
            Sign(name=f"{variant}{base}", statement="better", effect=Effect(variant=variant, base=base))
            for variant, base in ("ba", "ca", "cb")
        ),
    )
    made = {
        ("three", name, seed): record({"AP": value + 0.01 * seed * (name == "c")}, 0.005 * (name == "c"))
        for name, value in arms.items()
        for seed in range(4)
    }
    rows = cells(study_table(three, made, context(4)).to_markdown())
    assert "**" not in "".join(rows[name]["AP"] for name in arms)
    apart = {key: record({"AP": 0.6}) if key[1] == "c" else each for key, each in made.items()}
    rows = cells(study_table(three, apart, context(4)).to_markdown())
    assert [rows[name]["AP"] for name in arms] == ["40.0 ±0.0", "50.0 ±0.0", "**60.0** ±0.0"]


# ----------------------------------------------------------------------------------------------------------- verdicts
@pytest.mark.parametrize(
    ("gain", "verdict"), [(0.05, "**holds here**"), (-0.05, "**opposite here**"), (0.01, "inconclusive")]
)
def test_a_claim_is_judged_below_its_table(gain, verdict) -> None:
    text = table(SIGN, gains={**ALIKE, "AP": gain}).to_markdown()
    row = cells(text)["It improves AP (primary)"]
    half = half_width(1.0, 5, 1.0)
    assert row["verdict"] == verdict
    assert row["difference"] == f"{100 * gain:+.1f} [{100 * gain - half:+.1f}, {100 * gain + half:+.1f}]"
    inconclusive = verdict == "inconclusive"
    often, half_the_time = (detectable_difference(1.0, 5, 1.0, power) for power in (0.8, 0.5))
    assert row[FOUND] == (f"{often:.1f}, {half_the_time:.1f}" if inconclusive else "")
    assert f"Of 1 declared claim: {verdict.strip('*')}: 1." in text
    assert "only about this data at this budget" in text
    assert "unadjusted" in text
    assert "Too few seeds" not in text


def test_p_values_are_shown_before_and_after_holm() -> None:
    other = Sign(name="other", statement="Large too", effect=GAIN["APl"])
    made = table(SIGN, other, gains={**ALIKE, "AP": 0.025, "APl": 0.026})
    rows = cells(made.to_markdown())
    assert float(rows["It improves AP (primary)"]["p"]) == pytest.approx(made.judged[0].p, abs=5e-4)
    assert made.judged[1].adjusted_p == pytest.approx(2 * made.judged[1].p)
    assert float(rows["Large too"]["p, Holm"]) == pytest.approx(2 * made.judged[1].p, abs=5e-4)
    assert cells(table(SIGN).to_markdown())["It improves AP (primary)"]["p, Holm"] == "<0.001"


def test_a_chain_is_shown_with_its_parts() -> None:
    chain = Chain(
        name="both",
        statement="Both improve",
        parts=(
            Sign(name="1", statement="AP does", effect=GAIN["AP"]),
            Sign(name="2", statement="APl does", effect=GAIN["APl"]),
        ),
    )
    made = table(chain, gains={**ALIKE, "AP": 0.1, "APl": 0.001})
    rows = cells(made.to_markdown())
    assert rows["Both improve"]["verdict"] == "inconclusive"
    assert rows["Both improve"]["difference"] == ""
    assert rows["&emsp;AP does"]["difference"].startswith("+10.0 [")
    assert rows["&emsp;AP does"][FOUND] == ""
    assert rows["&emsp;APl does"][FOUND].startswith(f"{detectable_difference(1.0, 5, 1.0):.1f}, ")
    assert rows["Both improve"]["p"] == rows["&emsp;APl does"]["p"]


def test_an_equivalence_of_two_gains_shows_its_usual_interval() -> None:
    similar = Equivalence(name="same", statement="As much", effect=GAIN["APl"], other=GAIN["AP"], margin=2.0)
    row = cells(table(similar, gains={**ALIKE, "APl": 0.105}).to_markdown())["As much"]
    # both arms move alike, so the difference of the gains is known
    assert (row["verdict"], row["difference"]) == ("**holds here**", "+0.5 [+0.5, +0.5]")
    assert cells(table(similar, gains={**ALIKE, "APl": 0.2}).to_markdown())["As much"]["verdict"] == "**opposite here**"


# --------------------------------------------------------------------------------- not measured, not run, not resampled
def test_a_metric_without_objects_is_not_measured_in_cells_and_claims() -> None:
    vanish = Interaction(name="vanish", statement="Large against small", effect=GAIN["APl"], other=GAIN["APs"])
    made = table(SIGN, SMALL, GROWS, vanish, gains={"AP": 0.1, "APs": None, "APl": 0.15})
    text = made.to_markdown()
    rows = cells(text)
    assert [rows[name]["APs"] for name in ("with", "without", DIFFERENCE)] == ["not measured"] * 3
    assert rows["It improves small objects"] == {
        "verdict": "not measured",
        "difference": "",
        "p": "–",
        "p, Holm": "–",
        FOUND: "",
    }
    assert rows["Large against small"]["verdict"] == "not measured"
    assert rows["Large gain more"]["verdict"] == "**holds here**"
    assert "nan" not in text


def test_few_objects_are_judged_over_the_resamples_that_have_any_and_none_is_inconclusive() -> None:
    for kept, verdict in ((RESAMPLES // 2, "holds here"), (1, "inconclusive"), (0, "inconclusive")):
        made = records(ALIKE)
        for name, each in made.items():
            assert each is not None
            resamples = each.measurement().resamples
            assert resamples is not None
            resamples.values["APs"][kept:] = np.nan
            made[name] = replace(each, resamples=StoredResamples(**resamples.to_record()))
        built = study_table(study(SMALL), made, context())
        assert built.judged[0].verdict == verdict
        text = built.to_markdown()
        assert "nan" not in text
        # without a spread over images there is a mean and no interval
        assert ("[" in cells(text)[DIFFERENCE]["APs"]) == (verdict == "holds here")


def test_missing_runs_are_shown_and_leave_claims_without_verdict() -> None:
    made = records(ALIKE)
    for seed in range(5):
        made["pooling", "with", seed] = None
    text = study_table(study(SIGN), made, context()).to_markdown()
    rows = cells(text)
    assert {rows[name][metric] for name in ("with", DIFFERENCE) for metric in METRICS} == {"not run"}
    assert rows["without"]["AP"] == "40.0 ±0.0"
    assert "Too few seeds for a verdict (0; 3 are needed)" in text
    assert study_table(study(SIGN), {}, context()).judged[0].verdict == "too few seeds"


def test_a_claim_is_over_the_seeds_that_both_arms_ran_under() -> None:
    made = records(ALIKE)
    made["pooling", "with", 0] = made["pooling", "without", 4] = None
    built = study_table(study(SIGN), made, context())
    assert built.judged[0].estimate.seeds == (1, 2, 3)
    assert cells(built.to_markdown())[DIFFERENCE]["seeds"] == "3"


def test_records_without_resamples_have_their_spread_over_seeds_and_say_so() -> None:
    made = table(SIGN, gains={**ALIKE, "AP": 0.05}, resampled=())
    text = made.to_markdown()
    rows = cells(text)
    assert (rows["with"]["AP"], rows[DIFFERENCE]["AP"]) == ("45.0 (sd 1.0)", "+5.0 (sd 1.0)")
    assert "standard deviation (sd) over seeds only" in text
    assert "interval over seeds and images" not in text
    assert rows["It improves AP (primary)"]["verdict"] == "inconclusive"
    assert rows["It improves AP (primary)"]["p"] == "–"
    assert made.seeds_alone == METRICS


def test_a_metric_that_is_not_resampled_leaves_the_others_their_intervals() -> None:
    text = table(resampled=("AP", "APs")).to_markdown()
    assert "In APl: mean with the standard deviation (sd) over seeds only" in text
    rows = cells(text)
    assert rows["with"]["APl"] == "50.0 (sd 1.0)"
    assert rows["with"]["AP"].startswith("50.0 ±")


def test_one_record_without_resamples_takes_the_column_its_intervals() -> None:
    made = records(ALIKE)
    old = made["pooling", "with", 2]
    assert old is not None
    made["pooling", "with", 2] = replace(old, resamples=None)
    built = study_table(study(SIGN), made, context())
    assert cells(built.to_markdown())["without"]["AP"] == "40.0 (sd 0.0)"
    assert built.judged[0].verdict == "inconclusive"


def test_columns_have_the_paper_s_names_where_it_has_others() -> None:
    declared = STUDIES["table3"]
    made = {
        ("table3", variant.name, 0): replace(
            record(dict.fromkeys(declared.metrics, 0.5)),
            true_corners={metric: 29 + n for n, metric in enumerate(declared.metrics)},
        )
        for variant in declared.variants
    }
    text = study_table(declared, made, context(1)).to_markdown()
    assert cells(text)["w/ corner pooling"]["top-left corners, bottom-right quadrant"] == "50.0"
    assert "top-left corners, bottom-right quadrant: 31; " in text
    assert "corner_AP" not in text


def test_over_fewer_than_thirty_objects_their_number_stands_in_place_of_a_value_and_of_a_verdict() -> None:
    about = Context(**{**context().__dict__, "areas": (29, 0, 30)})
    large = Sign(name="large", statement="It improves large objects", effect=GAIN["APl"])
    built = study_table(study(SIGN, SMALL, large), records(ALIKE), about)
    rows = cells(built.to_markdown())
    assert {rows[name]["APs"] for name in ("with", "without", DIFFERENCE)} == {"29 objects"}
    assert rows["with"]["APl"].startswith("**50.0**")
    assert [judged.verdict for judged in built.judged] == ["holds here", "not measured", "holds here"]
    assert set(built.rows[0].values["APs"].values()) == {None}
    assert "fewer than 30" in built.to_markdown()
    assert "fewer than 30" not in table(SIGN).to_markdown()
    unknown = Context(**{**context().__dict__, "areas": None})
    assert "29 objects" not in study_table(study(SMALL), records(ALIKE), unknown).to_markdown()
    nothing = Context(**{**context().__dict__, "areas": (9, 9, 11)})
    assert cells(study_table(study(SIGN), records(ALIKE), nothing).to_markdown())["with"]["AP"] == "29 objects"


# ------------------------------------------------------------------------------------------------------------- errors
def test_with_few_seeds_cells_have_spreads_and_no_intervals() -> None:
    text = table(seeds=2, seed_sd=0.01).to_markdown()
    rows = cells(text)
    values = 50 + standard(2, 1)
    assert rows["with"]["AP"] == f"{values[0]:.1f}, {values[1]:.1f}"
    assert rows[DIFFERENCE]["AP"] == f"{values[0] - 40:+.1f}, {values[1] - 40:+.1f}"
    assert "[" not in rows[DIFFERENCE]["AP"]
    assert "No interval is shown" in text


def test_where_less_is_better_the_least_is_bold() -> None:
    declared = Study(**{**study(SIGN).__dict__, "lower_is_better": True})
    rows = cells(study_table(declared, records(dict.fromkeys(METRICS, -0.1)), context()).to_markdown())
    assert rows["with"]["AP"].startswith("**30.0**")
    rows = cells(study_table(declared, records(ALIKE), context()).to_markdown())
    assert rows["without"]["AP"].startswith("**40.0**")
    assert "**" not in rows["with"]["AP"]


def test_a_variant_that_cannot_run_here_is_not_measured_with_the_reason() -> None:
    made = records(ALIKE)
    missing = {key: value for key, value in made.items() if key[1] != "with"}
    why = Context(**{**context().__dict__, "unavailable": {("pooling", "with"): "there is no CUDA device"}})
    text = study_table(study(), missing, why).to_markdown()
    rows = cells(text)
    assert {rows[name][metric] for name in ("with", DIFFERENCE) for metric in METRICS} == {"not measured"}
    assert "with: not measured on this machine, there is no CUDA device" in text
    assert cells(study_table(study(), missing, context()).to_markdown())["with"]["AP"] == "not run"


@pytest.mark.parametrize("gain", [0.0, 1e-15])
def test_variants_that_must_be_identical_are_said_to_be_or_named(gain: float) -> None:
    declared = Study(**{**study().__dict__, "identical": True})
    text = study_table(declared, records(dict.fromkeys(METRICS, gain), seed_sd=0.0), context()).to_markdown()
    if gain:
        assert "NOT IDENTICAL: with differs from without in AP, APs, APl under seed 0" in text
        assert "are identical" not in text
    else:
        assert "The 2 variants measured are identical to the last digit" in text


def test_costs_have_columns_counted_from_the_configuration_and_measured_in_the_record() -> None:
    made = records(ALIKE)
    for name, each in made.items():
        assert each is not None
        larger = name[1] == "with"
        config = recipe("tiny").with_("model.backbone.stacks", 2 if larger else 1)
        made[name] = replace(each, config=config.to_dict(), memory=Memory(step_mebibytes=17.5 if larger else 9.5))
    declared = Study(**{**study(latency=True).__dict__, "costs": True})
    text = study_table(declared, made, context()).to_markdown()
    one = costs(recipe("tiny"))
    found = cells(text)
    assert found["without"]["million multiply-adds"] == f"{one.multiply_adds / 1e6:.1f}"
    assert found["without"]["thousand parameters"] == "88.3"
    assert found["without"]["MiB a training step"] == "9.5 (sd 0.0)"
    assert "+8.0 (sd 0.0)" in text
    assert found["without"]["ms an image"] == "not measured"
    assert "by torch's flop counter" in text
    assert "flop counter" not in study_table(study(latency=True), made, context()).to_markdown()


def test_an_exploratory_table_says_that_it_is(tmp_path) -> None:
    declared = Study(**{**study().__dict__, "exploratory": True})
    built = study_table(declared, records(ALIKE), context())
    assert "**Exploratory** (not pre-registered): no claim was declared before the runs" in built.to_markdown()
    assert "tested here" not in built.to_markdown()
    write_reports(tmp_path, [built], records(ALIKE), context())
    assert json.loads((tmp_path / "results.json").read_text())["tables"][0]["exploratory"] is True
    assert "Exploratory" not in table().to_markdown()


def on_other_images(each: Record | None) -> Record:
    assert each is not None
    assert each.resamples is not None
    return replace(each, resamples=replace(each.resamples, fingerprint="other data"))


def test_arms_on_other_images_are_an_error_that_names_them() -> None:
    made = records(ALIKE)
    made["pooling", "with", 1] = on_other_images(made["pooling", "with", 1])
    with pytest.raises(ValueError, match="study pooling, with: seed 1: the arm was evaluated on other images"):
        study_table(study(), made, context())
    for seed in range(5):
        made["pooling", "with", seed] = on_other_images(made["pooling", "with", seed])
    with pytest.raises(ValueError, match="study pooling, with minus without: seed 0: the base was evaluated on other"):
        study_table(study(), made, context())


def test_a_record_that_cannot_be_read_is_an_error_that_names_the_run() -> None:
    made = records(ALIKE)
    broken = made["pooling", "with", 1]
    assert broken is not None
    assert broken.resamples is not None
    damaged = replace(broken.resamples, packed="?")
    made["pooling", "with", 1] = replace(broken, resamples=damaged)
    with pytest.raises(ValueError, match="the record of pooling, with, seed 1: the resamples cannot be read"):
        study_table(study(), made, context())
    metrics = {name: value for name, value in broken.metrics.items() if name != "AP"}
    made["pooling", "with", 1] = replace(broken, metrics=metrics, resamples=None)
    with pytest.raises(ValueError, match="the record of pooling, with, seed 1 lacks the metric 'AP'"):
        study_table(study(), made, context())


# -------------------------------------------------------------------------------------------------------------- files
def test_files_carry_every_number_and_no_resamples(tmp_path) -> None:
    made = records({**ALIKE, "APs": None})
    built = study_table(study(SIGN, SMALL), made, context())
    write_reports(tmp_path, [built], made, context())
    text = (tmp_path / "results.json").read_text()
    results = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    (saved,) = results["tables"]
    statistics = saved["rows"][-1]["statistics"]["AP"]
    half = half_width(1.0, 5, 1.0)
    assert statistics == pytest.approx(
        {
            "mean": 10,
            "low": 10 - half,
            "high": 10 + half,
            "seed_sd": 1,
            "image_sd": 1,
            "detectable": detectable_difference(1.0, 5, 1.0),
        },
        # records round resamples to an eighth of their deviation
        rel=2e-3,
    )
    assert set(saved["rows"][-1]["statistics"]["APs"].values()) == {None}
    told = [judged.to_dict() for judged in built.judged]
    assert [(each["name"], each["verdict"]) for each in saved["claims"]] == [(e["name"], e["verdict"]) for e in told]
    assert saved["claims"][0]["p"] == pytest.approx(told[0]["p"], rel=1e-8)
    assert results["overview"]["claims"]["pooling"]["verdict"] == "holds here"
    assert len(results["runs"]) == 10
    assert all(run["resamples"] == {"fingerprint": "data", "version": 1, "resamples": 40} for run in results["runs"])

    lines = list(csv.DictReader(io.StringIO((tmp_path / "tables" / "pooling.csv").read_text())))
    (mean,) = [
        line for line in lines if (line["row"], line["metric"], line["seed"]) == ("with minus without", "AP", "mean")
    ]
    numbers = {"mean": mean["percent"], **{name: mean[name] for name in statistics if name != "mean"}}
    assert {name: float(value) for name, value in numbers.items()} == statistics
    assert [line["percent"] for line in lines if line["metric"] == "APs" and line["seed"] == "mean"] == []
    claims = list(csv.DictReader(io.StringIO((tmp_path / "tables" / "pooling-claims.csv").read_text())))
    assert [line["verdict"] for line in claims] == ["holds here", "not measured"]
    assert float(claims[0]["adjusted_p"]) == pytest.approx(built.judged[0].adjusted_p, rel=1e-8)
    assert (float(claims[0]["low"]), claims[1]["low"], claims[0]["seeds"]) == (statistics["low"], "", "0 1 2 3 4")


def test_the_same_records_give_the_same_bytes(tmp_path) -> None:
    for name in ("once", "twice"):
        made = records(ALIKE)
        write_reports(tmp_path / name, [study_table(study(SIGN, GROWS), made, context())], made, context())
    once = {path.relative_to(tmp_path / "once"): path.read_bytes() for path in (tmp_path / "once").rglob("*.*")}
    assert once == {
        path.relative_to(tmp_path / "twice"): path.read_bytes() for path in (tmp_path / "twice").rglob("*.*")
    }
    assert {str(path) for path in once} == {
        *("README.md", "index.html", "results.json", "figures/pooling-seeds.svg"),
        *(f"tables/pooling{kind}" for kind in (".md", ".csv", ".tex", "-claims.csv")),
    }


def test_a_table_of_published_records_is_the_same(tmp_path) -> None:
    made = records({**ALIKE, "APs": None})
    keys = {}
    for n, (place, each) in enumerate(made.items()):
        assert each is not None
        classes = {"class": {"AP": 0.5, "AP50": 0.6}}
        publish(tmp_path, replace(each, per_class=classes, evaluation_key=f"key{n}"))
        keys[place] = f"key{n}"
    found = load(tmp_path).records
    read = study_table(study(SIGN, SMALL), {place: found[key] for place, key in keys.items()}, context())
    built = study_table(study(SIGN, SMALL), made, context())
    assert read.to_markdown() == built.to_markdown()
    assert read.to_frame().to_csv() == built.to_frame().to_csv()


# ----------------------------------------------------------------------------------------------------------- overview
def three_tables(seeds: int = 5) -> tuple[list[StudyTable], dict[tuple[str, str, int], Record | None]]:
    """Return three tables with the same base runs; the third declares nothing."""
    made: dict[tuple[str, str, int], Record | None] = {}
    tables = []
    for name, gain, claims in (("one", 0.05, (SIGN, GROWS)), ("two", 0.025, (SIGN,)), ("three", 0.05, ())):
        made |= records({**ALIKE, "AP": gain}, name=name, seeds=seeds)
        tables.append(study_table(study(*claims, name=name), made, context(seeds)))
    return tables, made


def test_the_overview_has_a_row_a_primary_claim_corrected_over_the_tables() -> None:
    tables, _ = three_tables()
    found = overview(tables)
    assert list(found.judged) == ["one", "two"]
    assert found.judged["one"].adjusted_p == pytest.approx(2 * found.judged["one"].p)
    assert found.judged["two"].adjusted_p == pytest.approx(found.judged["two"].p)
    text = found.to_markdown()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert [row[:3] for row in rows[2:]] == [["Table 1", "It improves AP", "**holds here**"]] * 2
    assert "over 2 tables" in text
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_overview_names_the_base_runs_that_tables_share() -> None:
    tables, _ = three_tables(3)
    (shared,) = overview(tables).shared
    assert shared.variants == {"one": ("without",), "two": ("without",)}
    assert (shared.seeds, shared.keys) == ((0, 1, 2), ("base0", "base1", "base2"))
    assert (
        "Table 1 (without) and Table 1 (without) rest on the same trainings (seeds 0, 1, 2)"
        in overview(tables).to_markdown()
    )
    assert overview(tables[:1]).shared == ()


def test_the_readme_begins_with_the_overview_where_there_are_seeds_enough(tmp_path) -> None:
    for seeds in (2, 3):
        tables, made = three_tables(seeds)
        write_reports(tmp_path, tables, made, context(seeds))
        headings = [line for line in (tmp_path / "README.md").read_text().splitlines() if line.startswith("#")]
        assert ("## Overview" in headings) == (seeds == 3)
    assert headings[:3] == ["# Profile `p` on d", "## Overview", "### Table 1. A table"]
    made = records(ALIKE)
    write_reports(tmp_path, [study_table(study(GROWS), made, context())], made, context())
    assert "## Overview" not in (tmp_path / "README.md").read_text(), "no claim is primary"
    assert overview([]).judged == {}


# ------------------------------------------------------------------------------------------------------- the studies'
NOT_PRINTED = {
    # with nothing left that is not true, only the test path is in the way
    "w/ gt heatmaps + offsets + embeddings": dict.fromkeys(MEASURED, 100.0),
}


def _paper(declared: Study, effect: Effect, against: dict[str, float] | None) -> float:
    rows = {
        variant.name: declared.paper_values(variant) or NOT_PRINTED.get(variant.name) for variant in declared.variants
    }
    ours, base = rows[effect.variant], rows[effect.base] or against
    assert ours is not None
    assert base is not None
    # where the paper prints a metric only in parts, the smallest gain
    printed = [metric for metric in ours if metric == effect.metric] or [
        metric for metric in ours if metric.startswith(f"{effect.metric}/")
    ]
    return min(ours[metric] - base[metric] for metric in printed)


def _holds_in_the_paper(declared: Study, claim: Claim, against: dict[str, float] | None = None) -> bool:
    """Tell whether the printed figures bear a claim out; a base that the paper does not print is ``against``."""
    if isinstance(claim, Chain):
        return all(_holds_in_the_paper(declared, part, against) for part in claim.parts)
    size = _paper(declared, claim.effect, against)
    if not isinstance(claim, Sign) and claim.other is not None:
        size -= _paper(declared, claim.other, against)
    if isinstance(claim, Equivalence):
        return abs(size) < claim.margin
    return size > 0 if claim.expected == "positive" else size < 0


EVERY = {f"{study.name}-{protocol}": study for protocol in (1, PROTOCOL) for study in declared_in(protocol).values()}
"""Every study under every protocol."""
CLAIMING = {
    f"{name}-{data}": study.on(data)
    for name, study in EVERY.items()
    for data in ("shapes", *(other.data for other in study.on_data))
    if study.on(data).claims
}


# a study without a table of the paper rests on a sentence of its text, without figures
PRINTED = {name: study for name, study in CLAIMING.items() if study.table is not None}


@pytest.mark.parametrize("declared", PRINTED.values(), ids=PRINTED)
def test_the_paper_s_own_figures_bear_out_every_claim_declared_for_it(declared) -> None:
    # table 5 compares with published detectors, for which anchors stand here
    others = declared.published_values().values() if declared.name == "table5" else (None,)
    for claim, other in itertools.product(declared.claims, others):
        assert _holds_in_the_paper(declared, claim, other), claim.statement


@pytest.mark.parametrize("declared", CLAIMING.values(), ids=CLAIMING)
def test_claims_speak_of_the_study_s_own_variants_and_metrics_and_one_is_primary(declared) -> None:
    names = {variant.name for variant in declared.variants}
    for effect in (effect for claim in declared.claims for effect in effects_of(claim)):
        assert {effect.variant, effect.base} <= names
        assert effect.metric in declared.metrics
    assert [claim.primary for claim in declared.claims].count(True) == 1
    assert len({claim.name for claim in declared.claims}) == len(declared.claims)


def test_the_tables_of_the_paper_that_are_studied_declare_claims() -> None:
    claiming = {protocol: {s.name for s in declared_in(protocol).values() if s.claims} for protocol in (1, 2)}
    assert claiming[1] == {"table1", "table2", "table3", "table6", "table7"}
    assert claiming[2] == {*claiming[1], "table4", "table5", "feedback"}


@pytest.mark.parametrize("declared", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("measured", [True, False])
def test_every_study_renders_whatever_its_runs_gave(declared, measured, tmp_path) -> None:
    made: dict[tuple[str, str, int], Record | None] = {
        (declared.name, variant.name, seed): record(
            dict.fromkeys(declared.metrics, 0.3 + 0.05 * n + 0.003 * seed * n if measured else None), 0.01
        )
        for n, variant in enumerate(declared.variants)
        for seed in range(3)
    }
    built = study_table(declared, made, context(3))
    write_reports(tmp_path, [built], made, context(3))
    assert "nan" not in (tmp_path / "README.md").read_text()
    verdicts = {judged.verdict for judged in built.judged}
    if measured:
        assert not verdicts & {"not measured", "too few seeds"}
    else:
        assert verdicts <= {"not measured"}
    assert all(math.isnan(judged.p) != measured for judged in built.judged)


# ---------------------------------------------------------------------------------------------- protocols and data sets
def test_a_study_declares_other_claims_where_its_data_has_no_contrast() -> None:
    declared = find_study("table2")
    on_bccd = declared.on("bccd")
    (chain,) = (claim for claim in declared.claims if claim.primary)
    (sign,) = (claim for claim in on_bccd.claims if claim.primary)
    assert isinstance(chain, Chain)
    assert isinstance(sign, Sign)
    assert sign.effect == Effect(variant="object-dependent radius", base="w/o reducing penalty")
    for claim in on_bccd.claims:
        assert all("fixed radius" not in (effect.variant, effect.base) for effect in effects_of(claim))
    assert declared.on("shapes") == declared == declared.on("other_photographs")
    assert on_bccd.variants == declared.variants, "the arms are the same, and all are shown"
    made = {("table2", v.name, s): record(dict.fromkeys(MEASURED, 0.4)) for v in declared.variants for s in range(3)}
    text = study_table(on_bccd, made, context(3)).to_markdown()
    assert on_bccd.remark in text
    assert on_bccd.remark not in study_table(declared, made, context(3)).to_markdown()


def test_an_exploratory_study_declares_no_claims_on_any_data() -> None:
    other = OnData(data="d", claims=(SIGN,), why="it has.")
    with pytest.raises(ValueError, match="an exploratory study declares no claims"):
        dataclasses.replace(study(), exploratory=True, on_data=(other,))


def test_a_protocol_keeps_what_it_declared() -> None:
    first, present = find_study("table6", 1), find_study("table6")
    assert [claim.name for claim in first.claims if claim.primary] == ["heatmaps"]
    assert [claim.name for claim in present.claims if claim.primary] == ["main bottleneck"]
    assert first.variants == present.variants
    assert find_study("table1", 1).claims == find_study("table1").claims
    with pytest.raises(ValueError, match="there is no protocol 3; use 1, 2"):
        find_study("table1", 3)
    with pytest.raises(ValueError, match="did you mean table1"):
        find_study("table_1", 1)


def test_detecting_is_compared_with_what_is_left_to_grouping_and_offsets_by_size() -> None:
    """Made-up levels whose differences are known: +30 by heatmaps, +10 by offsets, +20 by embeddings."""
    declared = find_study("table6")
    levels = {"CornerNet": 0.40, "w/ gt heatmaps": 0.70, "w/ gt heatmaps + offsets": 0.80}
    levels["w/ gt heatmaps + offsets + embeddings"] = 1.0
    small = {"w/ gt heatmaps": 0.45, "w/ gt heatmaps + offsets": 0.75}
    made = {}
    for variant, seed in itertools.product(declared.variants, range(3)):
        level = levels.get(variant.name, 0.5)
        values = dict.fromkeys(MEASURED, level) | {"APs": small.get(variant.name, level)}
        made["table6", variant.name, seed] = record(values, 0.001)
    judged = {each.claim.name: each for each in study_table(declared, made, context(3)).judged}
    assert judged["main bottleneck"].estimate.mean == pytest.approx(30 - 20)
    assert judged["offsets by size"].estimate.mean == pytest.approx(30 - 10)
    assert {each.verdict for each in judged.values()} == {"holds here"}
