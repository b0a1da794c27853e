"""What is committed under reports/ is what this code would find and make."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cornernet import Config
from cornernet.ablations.profiles import find_profile
from cornernet.ablations.records.published import load
from cornernet.ablations.records.record import compact, decode, file_tree
from cornernet.ablations.running.planner import Fingerprints, make_job

RECORDS = sorted(path for path in (Path(__file__).parents[2] / "reports/records").glob("*") if path.is_dir())


@pytest.mark.parametrize("folder", RECORDS, ids=lambda path: path.name)
def test_published_records_are_whole_and_still_found_under_the_keys_of_their_configurations(folder: Path) -> None:
    found = load(folder)
    assert found.records
    assert not found.broken
    for key, record in found.records.items():
        data = Fingerprints(record.data.train, record.data.val)
        job = make_job(Config.from_dict(record.config), data, find_profile(folder.name.partition("-")[0]).revision)
        assert (job.training_key, job.evaluation_key) == (record.training_key, key)


@pytest.mark.parametrize("folder", RECORDS, ids=lambda path: path.name)
def test_a_published_record_is_small_and_nothing_changes_when_it_is_written_again(folder: Path) -> None:
    for path in folder.glob("*.json"):
        content = path.read_text()
        assert len(content.encode()) <= 12 * 1024, path.name
        found = json.loads(content)
        record = decode(found, "")
        again = file_tree(record)
        # as values, not as bytes: libraries that deflate differ
        assert decode(again, "") == record
        bulk = ("curves", "resamples")
        plain = [{name: value for name, value in each.items() if name not in bulk} for each in (again, found)]
        assert compact(plain[0], "") == compact(plain[1], ""), path.name
