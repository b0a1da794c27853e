"""Times of variants that were measured together: in turn, refused on a busy machine, shown with their ratio."""

from __future__ import annotations

import fcntl
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace as changed

from cornernet.ablations.__main__ import main
from cornernet.ablations.records.record import Provenance, RecordError
from cornernet.ablations.records.timing import Timed, Timing, load_timings, read_timing, write_timing
from cornernet.ablations.reporting.context import Context
from cornernet.ablations.reporting.tables import StudyTable, study_table
from cornernet.ablations.running.planner import timing_key
from cornernet.ablations.running.store import Store, StoreError
from cornernet.ablations.running.timings import IMAGES, measure_timings, timed
from cornernet.ablations.running.work import Selection, Work, select
from cornernet.ablations.studies.study import Study, Variant
from cornernet.model.detector import build_detector
from cornernet.training.timing import InTurn, in_turn
from cornernet.weights.checkpoints import save_detector
from tests.unit.made_records import made_record

CPU = torch.device("cpu")


def one(milliseconds: float, ratio: float, wall_over_cpu: float | None = 1.01) -> Timed:
    return Timed(
        milliseconds=milliseconds,
        cpu_milliseconds=milliseconds,
        quartiles=(milliseconds - 1, milliseconds + 1),
        ratio=(ratio - 0.1, ratio, ratio + 0.1),
        wall_over_cpu=wall_over_cpu,
    )


def timing(**fields: object) -> Timing:
    made = Timing(
        timing_key="ab12",
        study="speed",
        base="plain",
        seed=3,
        images=40,
        image={"plain": one(20.04, 1.0), "double": one(41.0, 2.0)},
        step={},
        provenance=Provenance(
            date="2026-01-01", revision="abc", python="3", platform="L", processor="a chip", versions={}
        ),
    )
    return changed(made, **fields)


# ------------------------------------------------------------------------------------------------------- measuring
def test_functions_are_called_in_turn_and_each_begins_a_round() -> None:
    calls: list[tuple[str, int]] = []
    rounds: list[int] = []
    functions = [lambda n, name=name: calls.append((name, n)) for name in "abc"]
    found = in_turn(functions, 4, CPU, lambda: rounds.append(len(calls)))
    assert "".join(name for name, _ in calls) == "abc" + "abc" + "bca" + "cab" + "abc"
    assert [n for _, n in calls] == [0, 0, 0] + [n for n in range(4) for _ in range(3)]
    assert rounds == [6, 9, 12, 15]
    assert found.wall.shape == found.cpu.shape == (4, 3)
    with pytest.raises(ValueError, match="0 rounds"):
        in_turn(functions, 0, CPU, lambda: None)


def test_a_process_that_waits_has_more_wall_time_than_cpu_time_and_one_that_works_has_not() -> None:
    event = torch.multiprocessing.get_context("fork").Event()
    found = in_turn([lambda _: event.wait(0.05)], 3, CPU, lambda: None)
    assert (found.wall > 0.045).all()
    assert timed(["waits"], found, CPU)["waits"].refused
    gpu = timed(["waits"], found, torch.device("cuda"))["waits"]
    assert (gpu.refused, gpu.wall_over_cpu) == (False, None)


def test_ratios_are_of_the_same_image_and_waiting_is_that_of_all_images_together() -> None:
    base = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    wall = np.stack([base, base * [2, 2, 3, 4, 4]], axis=1) / 1000
    found = timed(["base", "other"], InTurn(wall, wall / [[1.0, 1.2]]), CPU)
    assert found["base"].ratio == (1, 1, 1)
    assert found["other"].ratio == (2, 3, 4)
    assert (found["other"].milliseconds, found["other"].quartiles) == (9, (4, 16))
    assert (found["base"].wall_over_cpu, found["other"].wall_over_cpu) == (1, 1.2)
    assert (found["base"].refused, found["other"].refused) == (False, True)


# --------------------------------------------------------------------------------------------------------- records
def test_a_timing_is_read_back_and_broken_files_are_named(tmp_path) -> None:
    folder = tmp_path / "timings"
    path = write_timing(folder, timing())
    assert read_timing(path) == timing()
    assert read_timing(folder / "none.json") is None
    (folder / "cd.json").write_text("{}")
    (folder / "ef.json").write_bytes(path.read_bytes())
    found, broken = load_timings(folder)
    assert found == {"ab12": timing()}
    assert [line.partition(" is ")[0] for line in broken] == ["timings/cd.json", "timings/ef.json"]
    with pytest.raises(RecordError, match=r"cd\.json is not a timing: .*; remove it to measure again"):
        read_timing(folder / "cd.json")
    with pytest.raises(StoreError, match=r"cd\.json is not a timing"):
        Store(tmp_path).timing("cd")


# ---------------------------------------------------------------------------------------------------------- tables
def table(measured: Timing | None, **fields: object) -> StudyTable:
    variants = tuple(Variant(name=name) for name in ("plain", "double", "new"))
    declared = Study(
        name="speed",
        title="Speed",
        question="How fast?",
        table=None,
        variants=variants,
        contrasts=(),
        metrics=("AP",),
        latency=True,
    )
    declared = replace(declared, **fields)
    records = {("speed", each.name, 3): made_record(latency={"milliseconds": 77.7}) for each in variants}
    about = Context(profile="p", data="d", command="c", seeds=(3,), areas=(50, 50, 50))
    return study_table(declared, records, about, measured)


def cells(built: StudyTable) -> list[tuple[str, ...]]:
    header = built.grid().header
    at = [index for index, name in enumerate(header) if name.startswith("ms ")]
    return [tuple(header[index] for index in at)] + [
        tuple(row.cells[index].text for index in at) for row in built.grid().rows
    ]


def test_a_table_shows_milliseconds_and_the_ratio_to_the_base_with_its_quartiles() -> None:
    built = table(timing())
    assert cells(built) == [
        ("ms an image", "ms an image, times plain"),
        ("20.0", "1"),
        ("41.0", "2.00 [1.90, 2.10]"),
        ("not measured", "not measured"),
    ]
    text = built.to_markdown()
    assert "40 images, the weights of seed 3" in text
    assert "a chip, revision abc" in text
    assert "77.7" not in text
    assert built.rows[1].costs["latency"] == {3: 41.0}


def test_without_a_timing_the_times_of_single_evaluations_are_not_shown() -> None:
    built = table(None)
    assert cells(built) == [("ms an image",), ("not measured",), ("not measured",), ("not measured",)]
    assert "ms an image: not measured. Times compare only where all rows are timed in turn" in built.to_markdown()
    assert "77.7" not in built.to_markdown()
    assert built.rows[0].costs["latency"] == {}


def test_what_was_refused_says_so() -> None:
    image = {"plain": one(20.0, 1.0), "double": one(41.0, 2.0, 1.3), "new": one(30.0, 1.5, None)}
    built = table(timing(image=image))
    assert cells(built)[1:] == [("20.0", "1"), ("refused", "refused"), ("30.0", "1.50 [1.40, 1.60]")]
    assert "Refused: another program had the CPU. Wall time was up to 1.30 times CPU time" in built.to_markdown()
    assert built.rows[1].costs["latency"] == {}
    busy = table(timing(image={**image, "plain": one(20.0, 1.0, 1.2)}))
    assert cells(busy)[3] == ("30.0", "refused")


def test_a_base_that_is_no_variant_is_an_error() -> None:
    assert table(timing(), time_base="plain").study.time_base_name == "plain"
    with pytest.raises(ValueError, match="time_base is 'fast'"):
        table(None, time_base="fast")


# ------------------------------------------------------------------------------------------------------------ store
ASKED = ["--profile", "smoke", "--studies", "table7", "--seeds", "0"]


def work(store: Path) -> Work:
    return select(Selection(profile="smoke", studies=("table7",), seeds=(0,), store=store), quiet=True)


def test_the_key_covers_every_variant_and_their_order(tmp_path) -> None:
    jobs = list(work(tmp_path).jobs.values())
    assert timing_key(jobs) == timing_key(jobs)
    assert len({timing_key(jobs), timing_key(jobs[:-1]), timing_key(jobs[::-1])}) == 3
    assert work(tmp_path).timing_keys == [timing_key(jobs)]


def test_a_study_is_timed_once_or_again_on_demand_and_never_beside_a_training(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = work(tmp_path / "store")
    assert measure_timings(asked, quiet=True) == []
    assert "table7 is not timed: " in capsys.readouterr().err
    job = next(iter(asked.jobs.values()))
    assert len({each.training_key for each in asked.jobs.values()}) == 1
    folder = asked.store.training(job)
    folder.mkdir(parents=True)
    detector = build_detector(job.config)
    detector.classes, detector.category_ids = ("ellipse", "triangle", "cross"), (1, 2, 3)
    save_detector(detector, folder / "model.safetensors")
    lock = folder / ".lock"
    lock.touch()
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert measure_timings(asked, quiet=True) == []
    assert "no times are measured: a training runs in this store" in capsys.readouterr().err
    threads = torch.get_num_threads()
    (measured,) = measure_timings(asked, quiet=True)
    assert torch.get_num_threads() == threads
    assert list(measured.image) == [variant.name for variant in asked.studies[0].variants]
    assert measured.images == min(IMAGES, len(asked.sources.val(job.config.data.source)))
    assert all(each.milliseconds > 0 for each in measured.image.values())
    assert measured.image[measured.base].ratio == (1, 1, 1)
    assert measure_timings(asked, quiet=True) == []
    # as on a quiet machine, whatever this one is doing
    quiet = {name: changed(each, wall_over_cpu=1.0) for name, each in measured.image.items()}
    asked.store.write_timing(changed(measured, image={**quiet, measured.base: one(1, 1, 1.5)}))
    assert measure_timings(asked, quiet=True) == []
    assert main(["time", *ASKED, "--store", "store"]) in (0, 1)
    again = asked.store.timing(measured.timing_key)
    assert again is not None
    assert again.image[measured.base] != one(1, 1, 1.5)
    assert f"times {measured.base} [" in capsys.readouterr().out
    asked.store.write_timing(changed(measured, image=quiet))
    (folder / "model.safetensors").write_bytes(b"")
    assert main(["time", *ASKED, "--store", "store"]) == 1
    assert "table7 is not timed: " in capsys.readouterr().err
    main([*ASKED, "--store", "store", "--out", "out", "--only-report"])
    (found,) = json.loads((tmp_path / "out" / "results.json").read_text())["tables"]
    assert found["timing"]["timing_key"] == measured.timing_key
