"""Published records: the round trip, the limit of their size, and files that are damaged or misnamed."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from cornernet.ablations.records.published import MAX_BYTES, load, publish, published, records_folder
from cornernet.ablations.records.record import FIELDS, Record, RecordError, decode, tree
from cornernet.ablations.statistics.resampling import RESAMPLED_METRICS, RESAMPLES, Resamples
from tests.unit.made_records import made_record, made_tree

METRICS = RESAMPLED_METRICS


def record(key: str = "00ff", classes: int = 3, metrics: tuple[str, ...] = METRICS, **fields: Any) -> Record:
    rng = np.random.default_rng(len(key))
    values = {name: rng.random(RESAMPLES).astype(np.float32).astype(np.float64) for name in metrics}
    return made_record(
        evaluation_key=key,
        metrics=dict.fromkeys(metrics, 1 / 3) | {"APs": None},
        per_class={f"class {k}": {"AP": k / 7, "AP50": 0.5, "APs": None} for k in range(classes)},
        resamples=Resamples(fingerprint="2" * 64, version=1, values=values).to_record(),
        **{"latency": {"milliseconds": 41.25}, **fields},
    )


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
    read, made = (each.measurement().resamples for each in (found.records["b1"], record("b1")))
    assert read is not None
    assert made is not None
    assert read.paired_with(made)
    assert all(np.array_equal(read.values[name], made.values[name]) for name in METRICS)


def test_of_the_metrics_of_a_class_only_ap_is_published_and_the_rest_is_left_alone() -> None:
    made = record()
    assert published(made).per_class["class 2"] == {"AP": 2 / 7}
    assert published(published(made)) == published(made)
    assert replace(published(made), per_class=made.per_class) == made
    assert set(made.per_class["class 2"]) == {"AP", "AP50", "APs"}


def test_a_record_is_compact_and_its_bytes_do_not_depend_on_order_or_folder(tmp_path) -> None:
    made = record(classes=80)
    first = publish(tmp_path / "a", made).read_bytes()
    turned = decode(dict(reversed(msgspec.to_builtins(made).items())), "")
    assert publish(tmp_path / "b", turned).read_bytes() == first
    assert publish(tmp_path / "a", made).read_bytes() == first
    assert len(first) <= MAX_BYTES == 65_536
    assert first.endswith(b"}\n")
    assert first.count(b"\n") == 1
    assert first == (json.dumps(tree(published(made)), separators=(",", ":"), sort_keys=True) + "\n").encode()


def test_what_an_older_record_lacks_it_still_lacks_when_it_is_written_again(tmp_path) -> None:
    old, new = made_tree(), made_tree(objects=[1, 2, 3], memory={"step_mebibytes": None}, latency={"stages": []})
    for each in (old, new):
        content = publish(tmp_path, decode(each, "")).read_text()
        assert json.loads(content) == each
        assert json.loads(json.dumps(tree(load(tmp_path).records["00ff"]))) == each
    assert "objects" not in old


def test_a_record_that_is_too_large_is_an_error_that_names_the_field_and_leaves_no_file(tmp_path) -> None:
    many = tuple(f"metric {n}" for n in range(13))
    with pytest.raises(
        RecordError, match=r"00ff has [\d,]+ bytes, and at most 65,536 .* field 'resamples' is too large"
    ):
        publish(tmp_path, record(metrics=many))
    wordy = record(metrics=("AP",), provenance={"processor": "x" * MAX_BYTES})
    with pytest.raises(RecordError, match="field 'provenance' is too large"):
        publish(tmp_path, wordy)
    assert list(tmp_path.iterdir()) == []


def test_the_limit_is_met_to_the_byte(tmp_path) -> None:
    def padded(size: int) -> Record:
        return record(metrics=("AP",), config={"padding": "x" * size})

    room = MAX_BYTES - publish(tmp_path, padded(0)).stat().st_size
    assert publish(tmp_path, padded(room)).stat().st_size == MAX_BYTES
    with pytest.raises(RecordError, match="'config' is too large"):
        publish(tmp_path, padded(room + 1))


@pytest.mark.parametrize("field", FIELDS)
def test_a_record_without_a_field_is_refused_with_the_fix(field) -> None:
    made = made_tree()
    del made[field]
    with pytest.raises(RecordError, match=f"lacks the field '{field}'; evaluate again"):
        decode(made, "evaluate again")


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("metrics", {"AP": "high"}, r"Expected `float \| null`, got `str` - at `\$.metrics"),
        ("latency", {"milliseconds": None}, r"Expected `float`, got `null` - at `\$.latency.milliseconds`"),
        ("objects", [1, 2], r"Expected `array` of length 3"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_place(field, value, says) -> None:
    with pytest.raises(RecordError, match=rf"it is not a record: {says}.*; evaluate again"):
        decode(made_tree(**{field: value}), "evaluate again")


def test_resamples_that_cannot_be_read_name_the_record() -> None:
    broken = made_record(resamples={"fingerprint": "f", "version": 1, "resamples": 2, "values": {"AP": "?"}})
    with pytest.raises(ValueError, match="evaluations/abc: the resamples of AP are not base64"):
        broken.measurement("evaluations/abc")
    assert made_record().measurement().resamples is None


@pytest.mark.parametrize("key", ["", "../b1", "a/b", "a.b"])
def test_a_key_that_cannot_name_a_file_is_not_published(tmp_path, key) -> None:
    with pytest.raises(RecordError, match="evaluation_key is"):
        publish(tmp_path / "records", record(key))
    assert list(tmp_path.iterdir()) == []


def test_a_class_without_ap_is_an_error_that_names_it(tmp_path) -> None:
    made = record()
    del made.per_class["class 1"]["AP"]
    with pytest.raises(RecordError, match="'per_class' has no AP of 'class 1'"):
        publish(tmp_path, made)


def test_numbers_that_json_has_not_are_not_published(tmp_path) -> None:
    made = record()
    made.metrics["AP"] = math.nan
    with pytest.raises(RecordError, match="cannot be written as JSON"):
        publish(tmp_path, made)


def test_a_record_published_again_replaces_the_old_one(tmp_path) -> None:
    publish(tmp_path, record())
    publish(tmp_path, record(latency={"milliseconds": 1.0}))
    assert load(tmp_path).records["00ff"].latency.milliseconds == 1.0
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
