"""Studies with declared looks: which seeds run, what is judged when, and what is shown between looks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from cornernet.ablations.__main__ import main
from cornernet.ablations.profiles import PROFILES, Profile
from cornernet.ablations.records.record import Record
from cornernet.ablations.reporting.context import Context
from cornernet.ablations.reporting.overview import overview
from cornernet.ablations.reporting.tables import study_table
from cornernet.ablations.running.looks import looked_at, standing
from cornernet.ablations.running.planner import Job
from cornernet.ablations.running.store import Store
from cornernet.ablations.statistics.claims import Chain, Claim, Effect, Equivalence, Sign
from cornernet.ablations.statistics.resampling import Resamples
from cornernet.ablations.statistics.sequential import Looks, Schedule
from cornernet.ablations.studies import STUDIES
from cornernet.ablations.studies.study import Contrast, Study, Variant
from tests.unit.made_records import made_record

SCHEDULE = Schedule(seeds=(11, 12, 13, 14, 15, 16, 17, 18, 19), looks=Looks(at=(3, 6, 9)))
NOISE = 0.01 * np.array([0.3, -1.0, 0.7, 0.9, -0.2, -0.7, 0.1, 0.4, -0.5])
"""Of each seed."""


def sign(variant: str, base: str = "none", primary: bool = False) -> Sign:
    effect = Effect(variant=variant, base=base)
    return Sign(name=f"{variant} {base}", statement=f"{variant} improves on {base}", effect=effect, primary=primary)


def study(*claims: Claim, name: str = "one", variants: Sequence[str] = ("none", "a", "b", "extra")) -> Study:
    return Study(
        name=name,
        title="A table",
        question="Does it help?",
        table=None,
        variants=tuple(Variant(name=each) for each in variants),
        contrasts=(Contrast(variant=variants[1], base=variants[0]),),
        metrics=("AP",),
        claims=claims,
    )


def measured(value: float, noise: float = 0.0, key: str = "k", **fields: Any) -> Record:
    resamples = Resamples(fingerprint="data", version=1, values={"AP": value + 0.001 * np.linspace(-1, 1, 40)})
    metrics = {"AP": value + noise}
    return made_record(training_key=key, evaluation_key=key, metrics=metrics, resamples=resamples.to_record(), **fields)


def records(gains: Mapping[str, float], seeds: Mapping[str, int], name: str = "one") -> dict[Any, Record | None]:
    """Return records of the first seeds of each variant; every seed has noise of its own in all but the first."""
    return {
        (name, variant, seed): measured(0.4 + gain, NOISE[at] * (gain != 0), f"{variant}{seed}")
        for variant, gain in gains.items()
        for at, seed in enumerate(SCHEDULE.seeds[: seeds[variant]])
    }


PRIMARY = study(sign("a", primary=True), sign("b"))
CLEAR = {"none": 0.0, "a": 0.2, "b": 0.001, "extra": 0.1}
OPEN = {"none": 0.0, "a": 0.001, "b": 0.2, "extra": 0.1}


def everything(count: int, **others: int) -> dict[str, int]:
    return {"none": count, "a": count, "b": count, "extra": count} | others


def needs(gains: Mapping[str, float], seeds: Mapping[str, int], declared: Study = PRIMARY) -> dict[str, int]:
    """Return how many seeds of each variant the next look needs."""
    names = standing([declared], records(gains, seeds), SCHEDULE).needed(declared.name)
    return {each.name: sum(name == each.name for _, name, _ in names) for each in declared.variants}


# ------------------------------------------------------------------------------------------------------ what is to run
def test_all_rows_have_the_seeds_of_the_first_look() -> None:
    for seeds in (0, 2):
        assert needs(CLEAR, everything(seeds)) == everything(3)


def test_a_study_whose_primary_claim_is_decided_needs_no_more_seeds() -> None:
    assert needs(CLEAR, everything(3)) == everything(3)
    # a call that was interrupted: what the first look lacks is made up for
    assert needs(CLEAR, everything(3, extra=1)) == everything(3)


def test_of_an_open_study_only_the_arms_of_open_claims_go_on() -> None:
    # b is decided after the first look, and no claim is about the fourth
    assert needs(OPEN, everything(3)) == everything(3, none=6, a=6)
    both = {**OPEN, "b": 0.001}
    assert needs(both, everything(3)) == everything(6, extra=3)


def test_at_the_maximum_nothing_is_needed_whatever_is_undecided() -> None:
    seeds = everything(9, extra=3)
    assert needs({**OPEN, "b": 0.001}, seeds) == everything(3)
    found = standing([PRIMARY], records({**OPEN, "b": 0.003}, seeds), SCHEDULE)
    assert found.primary["one"].verdict in ("undecided at the maximum", "smaller than the margin here")
    assert found.open == []


def test_to_the_maximum_all_arms_of_open_claims_run_on() -> None:
    found = standing([PRIMARY], records({**OPEN, "b": 0.001}, everything(3)), SCHEDULE)
    assert len(found.needed("one", to_the_maximum=True)) == 3 * 9 + 3
    found = standing([PRIMARY], records(CLEAR, everything(3)), SCHEDULE)
    assert len(found.needed("one", to_the_maximum=True)) == 4 * 3


def test_a_study_without_claims_has_the_first_look() -> None:
    assert needs(CLEAR, everything(9), study()) == everything(3)


def test_claims_that_the_call_leaves_out_still_count() -> None:
    """Its verdict would be given alone, and is not beside another that is not measured yet."""
    gains = {**OPEN, "a": 0.0255}
    other = study(sign("a", primary=True), name="two")
    alone = standing([PRIMARY], records(gains, everything(3)), SCHEDULE).primary["one"]
    beside = standing([PRIMARY, other], records(gains, everything(3)), SCHEDULE).primary
    assert beside["one"].p == alone.p
    assert beside["one"].adjusted_p == pytest.approx(2 * alone.p)
    assert beside["two"].verdict == "not looked at yet"


# --------------------------------------------------------------------------------------------------- what may be shown
@pytest.mark.parametrize(
    ("ran", "seen"), [((0, 0, 9), (0, 0, 0)), ((3, 2, 3), (0, 0, 0)), ((8, 5, 9), (3, 3, 3)), ((9, 6, 3), (6, 6, 3))]
)
def test_only_seeds_of_complete_looks_are_seen(ran, seen) -> None:
    names = ("none", "a", "b")
    finished = {name: SCHEDULE.seeds[:count] for name, count in zip(names, ran, strict=True)}
    found = looked_at(SCHEDULE, study(sign("a", primary=True), variants=names), finished)
    assert tuple(len(found[name]) for name in names) == seen


def test_a_look_is_complete_without_gaps_alone() -> None:
    assert [SCHEDULE.complete(ran) for ran in ((), (11, 12), (12, 13, 14), (11, 12, 13), (13, 12, 11, 15, 16))] == [
        *(0, 0, 0, 1, 1)
    ]
    assert SCHEDULE.complete(SCHEDULE.seeds) == 3


def test_a_table_between_looks_is_that_of_the_last_look() -> None:
    about = Context(profile="p", data="d", command="c", seeds=SCHEDULE.seeds, areas=(40, 50, 60), schedule=SCHEDULE)
    made = records(OPEN, everything(3))
    table = study_table(PRIMARY, made, about)
    text = table.to_markdown()
    assert "Looks are after 3, 6, 9 seeds; this is the one after 3." in text
    row = next(line for line in text.splitlines() if line.startswith("| a improves on none (primary)"))
    assert [cell.strip() for cell in row.split("|")][2] == "undecided so far"
    assert row.split("|")[-2].strip() == "3 of 9"
    assert "at 99.4%]" not in text
    assert "] at 99.4%" in row
    assert overview([table]).judged["one"].verdict == "undecided so far"
    json.dumps(overview([table]).to_dict(), allow_nan=False)


def test_the_overview_counts_claims_of_tables_that_are_not_there() -> None:
    about = Context(profile="p", data="d", command="c", seeds=SCHEDULE.seeds, areas=None, schedule=SCHEDULE)
    table = study_table(PRIMARY, records(CLEAR, everything(3)), about)
    other = study(sign("a", primary=True), name="two")
    assert overview([table], [other]).judged["one"].adjusted_p == pytest.approx(2 * overview([table]).judged["one"].p)
    assert "over 2 tables" in overview([table], [other]).to_markdown()
    assert list(overview([table], [other]).judged) == ["one"]


# ------------------------------------------------------------------------------------------------------------- profiles
def test_a_profile_whose_looks_do_not_fit_its_seeds_is_refused() -> None:
    with pytest.raises(ValueError, match="profile smoke: 2 seeds are declared, and the last look is after 4"):
        replace(PROFILES["smoke"], looks=Looks(at=(2, 4)))
    with pytest.raises(ValueError, match="ascending order"):
        Looks(at=(4, 4))
    for wrong in ({"spending": 0.0}, {"margin": -1.0}, {"at": ()}, {"at": (0, 3)}):
        with pytest.raises(ValueError, match=r"; use a positive|ascending"):
            Looks(**{"at": (2, 4), **wrong})


def profile(seeds: Sequence[int] = SCHEDULE.seeds, looks: Looks = SCHEDULE.looks) -> Profile:
    return replace(PROFILES["smoke"], seeds=tuple(seeds), looks=looks, studies=("table1",), name="smoke")


class Instantly:
    """An executor that writes records without any training; the AP of an arm is told by ``ap``."""

    def __init__(self, ap: Callable[[Job], float]) -> None:
        self.ap, self.ran = ap, []

    def __call__(self, *_: object) -> Instantly:
        return self

    def slots(self) -> int:
        return 2

    def start(self, store: Store, group: Sequence[Job], lock: IO[str]) -> Any:
        for job in group:
            self.ran.append(job.seed)
            metrics = dict.fromkeys(STUDIES["table1"].metrics, self.ap(job))
            noise = 0.001 * np.linspace(-1, 1, 40)
            values = Resamples(fingerprint="data", version=1, values={name: v + noise for name, v in metrics.items()})
            record = made_record(
                training_key=job.training_key,
                evaluation_key=job.evaluation_key,
                config=job.config.to_public_dict(),
                metrics=metrics,
                resamples=values.to_record(),
                objects=[40, 50, 60],
            )
            store.write_record(job, record)

        class Run:
            returncode = 0

            def poll(self) -> int:
                return 0

            def terminate(self) -> None: ...

            def wait(self, timeout: float | None = None) -> int:
                return 0

        return Run()


@pytest.fixture
def instantly(monkeypatch) -> Callable[..., Instantly]:
    """Return what replaces trainings: corner pooling gains so much, with noise of the seed."""

    def use(gain: float, spread: float = 1.0) -> Instantly:
        def ap(job: Job) -> float:
            noise = spread * float(NOISE[job.seed - 11])
            return 0.4 + (gain + noise if job.config.model.head.pooling == "corner" else 0.0)

        executor = Instantly(ap)
        monkeypatch.setitem(PROFILES, "smoke", profile())
        monkeypatch.setattr("cornernet.ablations.running.executors.LocalExecutor", executor)
        monkeypatch.setattr("cornernet.ablations.running.runner.POLL_SECONDS", 0)
        return executor

    return use


def places(tmp_path: Path) -> list[str]:
    return ["--profile", "smoke", "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]


@pytest.mark.parametrize(
    ("gain", "noise", "seeds", "verdict"),
    [
        (0.2, 1, 3, "holds here"),
        (0.0, 1, 9, "smaller than the margin here"),
        (0.0, 4, 9, "undecided at the maximum"),
    ],
)
def test_seeds_run_until_the_primary_claim_is_settled(gain, noise, seeds, verdict, tmp_path, capsys, instantly) -> None:
    executor = instantly(gain, noise)
    assert main(places(tmp_path)) == 0
    assert executor.ran == [seed for seed in SCHEDULE.seeds[:seeds] for _ in range(2)]
    out = capsys.readouterr().out
    shown = re.findall(r"^table1 .*AP +(\d) +(.+?)(?:  .*)?$", out, re.MULTILINE)
    looks = range(0, seeds + 1, 3)
    assert [int(count) for count, _ in shown] == list(looks)
    assert [each for _, each in shown] == ["not looked at yet", *["undecided so far"] * (len(looks) - 2), verdict]
    assert "next look, 6 trainings and 6 evaluations" in out
    assert "to the maximum of 9 seeds if nothing more is decided, 18 trainings and 18 evaluations" in out
    assert "no further look is needed" in out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["overview"]["claims"]["table1"]["verdict"] == verdict
    assert len(results["runs"]) == 2 * seeds
    # again: nothing runs
    assert main(places(tmp_path)) == 0
    assert len(executor.ran) == 2 * seeds


def test_between_looks_nothing_of_the_next_one_is_told(tmp_path, capsys, instantly, monkeypatch) -> None:
    instantly(0.0)
    monkeypatch.setitem(PROFILES, "smoke", profile(SCHEDULE.seeds[:3], Looks(at=(3,))))
    assert main(places(tmp_path)) == 0
    before = json.loads((tmp_path / "out" / "results.json").read_text())
    # two seeds more have run when the call ends
    monkeypatch.setitem(PROFILES, "smoke", profile(SCHEDULE.seeds[:5], Looks(at=(5,))))
    assert main(places(tmp_path)) == 0
    monkeypatch.setitem(PROFILES, "smoke", profile())
    capsys.readouterr()
    assert main([*places(tmp_path), "--only-report"]) == 0
    out = capsys.readouterr().out
    assert "this is the one after 3; 4 finished runs of the next one are not shown" in out
    after = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [run["seed"] for run in after["runs"]] == [run["seed"] for run in before["runs"]]
    rows = [[{**row, "seeds": None} for row in each["tables"][0]["rows"]] for each in (before, after)]
    assert rows[0] == rows[1]
    texts = [path.read_text() for path in (tmp_path / "out").rglob("*.*") if path.suffix != ".png"]
    assert len(texts) > 3
    assert "seed 14" not in "".join(texts)


def test_status_and_plan_tell_the_look_and_what_the_next_one_costs(tmp_path, capsys, instantly) -> None:
    executor = instantly(0.0)
    store = ["--profile", "smoke", "--store", str(tmp_path / "store")]
    assert main(["status", *store]) == 0
    out = capsys.readouterr().out
    assert "at most 18 trainings" in out
    assert re.search(r"table1 +Corner pooling improves AP +0 +not looked at yet", out)
    assert len(re.findall(r"^table1 .* waiting$", out, re.MULTILINE)) == 6, "those of the next look"
    assert main([*places(tmp_path), "--plan"]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"^\w{16} .* to do", out, re.MULTILINE)) == 2 * 6
    assert "next look, 6 trainings" in out
    assert "to the maximum of 9 seeds" in out
    assert executor.ran == []


def test_a_call_without_time_stops_before_the_next_look_and_the_next_goes_on(tmp_path, capsys, instantly) -> None:
    executor = instantly(0.0)
    statuses = []
    while not statuses or (statuses[-1] == 3 and len(statuses) < 20):
        statuses.append(main([*places(tmp_path), "--max-minutes", "0.00001"]))
        err = capsys.readouterr().err
        assert ("resume with: " in err) == (statuses[-1] == 3)
    assert statuses[-1] == 0
    assert sorted(executor.ran) == sorted([*SCHEDULE.seeds, *SCHEDULE.seeds])


def test_seeds_of_a_profile_with_looks_cannot_be_chosen(tmp_path, capsys, instantly) -> None:
    instantly(0.0)
    assert main([*places(tmp_path), "--seeds", "11"]) == 2
    assert "--seeds: profile smoke declares its seeds and the looks at them, after 3, 6, 9" in capsys.readouterr().err


def test_claims_in_parts_and_of_similarity_have_looks_too() -> None:
    chain = Chain(name="c", statement="c", primary=True, parts=(sign("a"), sign("b", "a")))
    similar = Equivalence(name="s", statement="s", effect=Effect(variant="b", base="a"), margin=5.0)
    declared = study(chain, similar)
    gains = {"none": 0.0, "a": 0.2, "b": 0.2, "extra": 0.1}
    # both parts are needed: the similarity is decided, and the chain goes on
    assert needs(gains, everything(3), declared) == everything(6, extra=3)
    found = standing([declared], records(gains, everything(3)), SCHEDULE)
    assert [judged.verdict for judged in found.claims["one"]] == ["undecided so far", "holds here"]
