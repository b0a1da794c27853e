"""Published records: the round trip, the limit of their size, and files that are damaged or misnamed."""

from __future__ import annotations

import copy
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cornernet import recipe
from cornernet.ablations.records.records import FIELDS, MAX_BYTES, RecordError, load, publish, published, records_folder
from cornernet.ablations.statistics.resampling import RESAMPLED_METRICS, RESAMPLES, Resamples

METRICS = RESAMPLED_METRICS


def record(key: str = "00ff", classes: int = 3, metrics: tuple[str, ...] = METRICS) -> dict[str, Any]:
    rng = np.random.default_rng(len(key))
    values = {name: rng.random(RESAMPLES).astype(np.float32).astype(np.float64) for name in metrics}
    return {
        "training_key": "aa",
        "evaluation_key": key,
        "config": json.loads(json.dumps(recipe("tiny").to_dict())),
        "data": {"train": "1" * 64, "val": "2" * 64, "images": 400},
        "area_bands": [1024.0, 9216.0],
        "metrics": dict.fromkeys(metrics, 1 / 3) | {"APs": None},
        "per_class": {f"class {k}": {"AP": k / 7, "AP50": 0.5, "APs": None} for k in range(classes)},
        "resamples": Resamples(fingerprint="2" * 64, version=1, values=values).to_record(),
        "true_corners": None,
        "latency": {"milliseconds": 41.25},
        "seconds": {"training": None, "evaluation": 3.5},
        "provenance": {"date": "2026-01-01T00:00:00+00:00", "revision": "abc", "versions": {"torch": "2"}},
    }


def test_what_is_published_is_read_back_equal(tmp_path) -> None:
    folder = records_folder(tmp_path, "standard", "shapes")
    paths = [publish(folder, record(key)) for key in ("b1", "a20")]
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "records/standard-shapes/b1.json",
        "records/standard-shapes/a20.json",
    ]
    found = load(folder)
    assert list(found.records) == ["a20", "b1"]
    assert found.records == {key: published(record(key)) for key in ("a20", "b1")}
    assert found.broken == []
    read, made = (Resamples.from_record(each["resamples"]) for each in (found.records["b1"], record("b1")))
    assert read.paired_with(made)
    assert all(np.array_equal(read.values[name], made.values[name]) for name in METRICS)


def test_of_the_metrics_of_a_class_ap_alone_is_published_and_the_record_itself_is_left_alone() -> None:
    made = record()
    before = copy.deepcopy(made)
    assert published(made)["per_class"]["class 2"] == {"AP": 2 / 7}
    assert published(published(made)) == published(made)
    assert {name: value for name, value in published(made).items() if name != "per_class"} == {
        name: value for name, value in made.items() if name != "per_class"
    }
    assert made == before


def test_a_record_is_compact_and_its_bytes_do_not_depend_on_order_or_folder(tmp_path) -> None:
    made = record(classes=80)
    first = publish(tmp_path / "a", made).read_bytes()
    again = publish(tmp_path / "b", dict(reversed(made.items()))).read_bytes()
    assert first == again
    assert publish(tmp_path / "a", made).read_bytes() == first
    assert len(first) <= MAX_BYTES == 65_536
    assert first.endswith(b"}\n")
    assert first.count(b"\n") == 1
    assert first == (json.dumps(published(made), separators=(",", ":"), sort_keys=True) + "\n").encode()


def test_a_record_that_is_too_large_is_an_error_that_names_the_field_and_leaves_no_file(tmp_path) -> None:
    many = tuple(f"metric {n}" for n in range(13))
    with pytest.raises(
        RecordError, match=r"00ff has [\d,]+ bytes, and at most 65,536 .* field 'resamples' is too large"
    ):
        publish(tmp_path, record(metrics=many))
    wordy = record(metrics=("AP",))
    wordy["provenance"]["log"] = "x" * MAX_BYTES
    with pytest.raises(RecordError, match="field 'provenance' is too large"):
        publish(tmp_path, wordy)
    assert list(tmp_path.iterdir()) == []


def test_the_limit_is_met_to_the_byte(tmp_path) -> None:
    made = record(metrics=("AP",))
    made["padding"] = ""
    made["padding"] = "x" * (MAX_BYTES - publish(tmp_path, made).stat().st_size)
    assert publish(tmp_path, made).stat().st_size == MAX_BYTES
    made["padding"] += "x"
    with pytest.raises(RecordError, match="'padding' is too large"):
        publish(tmp_path, made)


@pytest.mark.parametrize("field", FIELDS)
def test_a_record_without_a_field_is_not_published(tmp_path, field) -> None:
    made = record()
    del made[field]
    with pytest.raises(RecordError, match=f"lacks the field '{field}'"):
        publish(tmp_path, made)


@pytest.mark.parametrize("key", ["", "../b1", "a/b", "a.b", 7, None])
def test_a_key_that_is_no_file_s_name_is_not_published(tmp_path, key) -> None:
    with pytest.raises(RecordError, match="evaluation_key is"):
        publish(tmp_path / "records", {**record(), "evaluation_key": key})
    assert list(tmp_path.iterdir()) == []


def test_a_class_without_ap_is_an_error_that_names_it(tmp_path) -> None:
    made = record()
    del made["per_class"]["class 1"]["AP"]
    with pytest.raises(RecordError, match="'per_class' has no AP of 'class 1'"):
        publish(tmp_path, made)


def test_numbers_that_json_has_not_are_not_published(tmp_path) -> None:
    made = record()
    made["metrics"]["AP"] = math.nan
    with pytest.raises(RecordError, match="cannot be written as JSON"):
        publish(tmp_path, made)


def test_a_record_published_again_replaces_the_old_one(tmp_path) -> None:
    publish(tmp_path, record())
    publish(tmp_path, {**record(), "latency": {"milliseconds": 1.0}})
    assert load(tmp_path).records["00ff"]["latency"] == {"milliseconds": 1.0}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "Expecting value"),
        (b'{"evaluation_key": "bad", "metr', "Unterminated string"),
        (b"\xff\xfe", "decode"),
        (b"[1, 2]", "holds no JSON object"),
        (b'{"evaluation_key": "bad"}', "lacks the field 'training_key'"),
    ],
)
def test_a_broken_file_is_left_out_with_a_warning_that_names_it(tmp_path, content, says) -> None:
    publish(tmp_path, record())
    bad = tmp_path / "bad.json"
    bad.write_bytes(content)
    with pytest.warns(UserWarning, match=rf"{bad.name} is left out: .*{says}"):
        found = load(tmp_path)
    assert list(found.records) == ["00ff"]
    assert found.broken == [bad]


def test_a_file_whose_name_is_not_its_key_is_refused(tmp_path) -> None:
    path = publish(tmp_path, record("b1"))
    moved = path.rename(tmp_path / "b2.json")
    with pytest.warns(UserWarning, match=r"b2\.json is left out: it is the record of 'b1'"):
        found = load(tmp_path)
    assert found.records == {}
    assert found.broken == [moved]


def test_a_folder_that_is_not_there_holds_nothing_and_other_files_are_let_alone(tmp_path) -> None:
    assert load(tmp_path / "none").records == {}
    (tmp_path / "README.md").write_text("records")
    (tmp_path / ".00ff.json.x.tmp").write_text("{")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(Path(tmp_path)) == ({}, [], {})
