"""Published records: the round trip, the limit of their size, and files that are damaged or misnamed."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import warnings
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec import UNSET
from msgspec.structs import replace

from cornernet import recipe
from cornernet.ablations.records.published import MAX_BYTES, load, publish, published, records_folder
from cornernet.ablations.records.record import FIELDS, Record, RecordError, decode, file_tree, tree
from cornernet.ablations.records.reference import REFERENCE
from cornernet.ablations.statistics.intervals import Measurement, arm_mean, paired_difference
from cornernet.ablations.statistics.resampling import RESAMPLED_METRICS, RESAMPLES, Resamples
from tests.unit.made_records import made_record, made_tree

METRICS = RESAMPLED_METRICS


def record(key: str = "00ff", classes: int = 3, metrics: tuple[str, ...] = METRICS, **fields: Any) -> Record:
    rng = np.random.default_rng(len(key))
    values = {name: rng.random(RESAMPLES) for name in metrics}
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
    assert len(first) <= MAX_BYTES == 16_384
    assert first.endswith(b"}\n")
    assert first.count(b"\n") == 1
    assert first == (json.dumps(json.loads(first), separators=(",", ":"), sort_keys=True) + "\n").encode()


def test_what_an_older_record_lacks_it_still_lacks_when_it_is_written_again(tmp_path) -> None:
    old, new = made_tree(), made_tree(objects=[1, 2, 3], memory={"step_mebibytes": None}, latency={"stages": []})
    for each in (old, new):
        publish(tmp_path, decode(each, ""))
        assert json.loads(json.dumps(tree(load(tmp_path).records["00ff"]))) == each
    assert "objects" not in old


# ----------------------------------------------------------------------------------------------------- its file
def float32(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def drawn(seed: int) -> dict[str, np.ndarray]:
    """Return resamples as evaluations have them: metrics that vary together, one of them rarely measured."""
    rng = np.random.default_rng(seed)
    shared, own = rng.standard_normal((2, RESAMPLES)), rng.standard_normal((3, RESAMPLES))
    found = {
        "AP": 0.4 + 0.013 * shared[0],
        "AP75": 0.43 + 0.012 * shared[0] + 0.008 * own[0],
        "APs": 0.2 + 0.03 * shared[1] + 0.04 * own[1],
    }
    found["APs"][::7] = np.nan
    return found


def first_format(seed: int = 0, **fields: Any) -> dict[str, Any]:
    """Return a record as the first version wrote it: everything in full, resamples as float32."""
    values = {name: float32(each) for name, each in drawn(seed).items()}
    return made_tree(
        resamples={"fingerprint": "2" * 64, "version": 1, "resamples": RESAMPLES, "values": values}, **fields
    )


CURVES = {
    "ap_by_iou": [0.5806, 0.5471, 0.5152, 0.4856, 0.4629, 0.4249, 0.3929, 0.3513, 0.2847, None],
    "precision": {"50": [1 - at / 170 for at in range(101)], "75": [None] * 101},
    "training": {"iteration": [20, 40], "loss": {"total": [12.34567, 0.01234], "pull": [None, 2.0]}},
}


@pytest.mark.parametrize("curves", [{}, {"curves": None}, {"curves": CURVES, "objects": [1, 2, 3]}])
def test_a_record_of_the_first_format_is_read_and_its_file_gets_small(tmp_path, curves) -> None:
    made = first_format(**curves)
    old = decode(made, "")
    path = publish(tmp_path, old)
    found = json.loads(path.read_text())
    assert found["format"] == 2
    assert len(path.read_bytes()) < 0.45 * len(json.dumps(made))
    new = load(tmp_path).records["00ff"]
    same = {"resamples", "curves"}
    assert [each for each in tree(old) if each not in same and tree(old)[each] != tree(new)[each]] == []
    assert publish(tmp_path / "again", new).read_bytes() == path.read_bytes()


def test_intervals_agree_with_those_of_the_first_format_to_a_twentieth_of_a_point() -> None:
    old = [[decode(first_format(10 * arm + seed), "") for seed in range(3)] for arm in range(2)]
    new = [[decode(file_tree(record), "") for record in arm] for arm in old]
    for metric, measured in (("AP", 0.5), ("AP75", 0.4), ("APs", 0.3)):
        bounds = []
        for arms in (old, new):
            ours, base = ({s: replace_metrics(r, metric, measured + 0.01 * s) for s, r in enumerate(a)} for a in arms)
            difference = paired_difference(metric, ours, base)
            bounds.append((*difference.interval(), *arm_mean(metric, ours).interval()))
        np.testing.assert_allclose(bounds[0], bounds[1], rtol=0, atol=0.05)
        assert bounds[0] != bounds[1]


def replace_metrics(record: Record, metric: str, value: float) -> Measurement:
    return Measurement(metrics={metric: value}, resamples=record.measurement().resamples)


def test_curves_keep_what_a_figure_shows() -> None:
    old = decode(made_tree(curves=CURVES), "")
    new = decode(file_tree(old), "")
    assert new.curves is not UNSET
    assert new.curves is not None
    assert new.curves.ap_by_iou == CURVES["ap_by_iou"]
    np.testing.assert_allclose(new.curves.precision["50"], CURVES["precision"]["50"], rtol=0, atol=0.0005 + 1e-12)
    assert new.curves.precision["75"] == [None] * 101
    assert new.curves.training.loss == {"total": [12.3, 0.0123], "pull": [None, 2.0]}


@pytest.mark.parametrize(
    "edit",
    [
        {"training": {"seed": 4, "new field": [1, {"a": None}]}},
        {"model": {"backbone": {"kind": "resnet_fpn", "channels": [1]}}},
        {"testing": {"scales": [1], "merge": 0}},
        {"data": {}},
        {},
    ],
)
def test_a_configuration_is_read_back_to_the_type_of_each_number(edit) -> None:
    whole = json.loads(json.dumps(recipe("tiny").to_dict()))
    for config in ({**whole, **edit}, edit):
        record = decode(made_tree(config=config), "")
        stored = json.loads(json.dumps(file_tree(record)))
        assert json.dumps(decode(stored, "").config, sort_keys=True) == json.dumps(config, sort_keys=True)


def test_of_the_usual_configuration_only_what_differs_is_stored_and_the_reference_stays() -> None:
    changed = json.loads(json.dumps(REFERENCE))
    changed["training"]["seed"] = 17
    changed["model"]["head"]["pooling"] = "none"
    stored = file_tree(decode(made_tree(config=changed), ""))["config"]
    assert stored == {"training": {"seed": 17}, "model": {"head": {"pooling": "none"}}}
    # records in the world were written against it: another reference would change what they say
    digest = hashlib.sha256(json.dumps(REFERENCE, sort_keys=True).encode()).hexdigest()
    assert digest == "11d21abec97b611b0e6697f20a1e4c8d5899c87d561f51247bd1a74cd8f46ef3"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("format", 3, "its format is 3, and this version reads up to 2: update"),
        ("curves", "?!", "'curves' cannot be read"),
        ("curves", base64.b85encode(zlib.compress(b"[1]")).decode(), "'curves' cannot be read"),
        ("curves", base64.b85encode(zlib.compress(b"{}")[:-3]).decode(), "'curves' cannot be read: cut short"),
    ],
)
def test_a_file_of_a_later_format_or_with_broken_parts_is_refused(field, value, says) -> None:
    stored = {**file_tree(decode(made_tree(curves=CURVES), "")), field: value}
    with pytest.raises(RecordError, match=rf"{says}.*; evaluate again"):
        decode(stored, "evaluate again")


def test_resamples_under_weights_of_other_data_keep_their_fingerprint() -> None:
    for fingerprint in ("2" * 64, "3" * 64):
        resamples = Resamples(fingerprint=fingerprint, version=1, values=drawn(0)).to_record()
        stored = file_tree(made_record(resamples=resamples))
        assert ("fingerprint" in stored["resamples"]) == (fingerprint != "2" * 64)
        read = decode(stored, "").measurement().resamples
        assert read is not None
        assert read.fingerprint == fingerprint


def test_a_record_that_is_too_large_is_an_error_that_names_the_field_and_leaves_no_file(tmp_path) -> None:
    many = tuple(f"metric {n}" for n in range(25))
    with pytest.raises(
        RecordError, match=r"00ff has [\d,]+ bytes, and at most 16,384 .* field 'resamples' is too large"
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
